//! Space: given back, used again, bounded.

use super::*;

#[test]
fn the_size_stays_bounded() {
    let place = Place::new();
    let (log, _) = place.open();
    let mut places = std::collections::VecDeque::new();
    let mut largest = 0;
    for offset in 1..=2000 {
        places.push_back(put(&log, 1, offset, &[1; 2000]));
        if places.len() > 50 {
            places.pop_front();
        }
        if offset % 10 == 0 {
            until_synced(&log);
            log.purge(places[0]).unwrap();
        }
        largest = largest.max(log.size().bytes);
        let files = fs::read_dir(place.dir.path()).unwrap().len() as u64;
        assert!(files * SEGMENT <= 8 * SEGMENT, "{files} files");
    }
    // 50 entries are less than two segments; one that is being filled, and spares.
    assert!(largest <= 6 * SEGMENT, "{largest}");
    assert!(log.start() > Position(20 * SEGMENT));
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!((recovery.damage, recovery.torn), (vec![], None));
    let records = all(&log);
    assert_eq!(records.last().unwrap().1, 2000);
    assert!(records.windows(2).all(|two| two[0].1 + 1 == two[1].1));
}

#[test]
fn what_is_purged_is_gone_and_the_rest_is_not() {
    let place = Place::new();
    let (log, _) = place.open();
    let places: Vec<Position> = (1..=10).map(|offset| put(&log, 1, offset, &[1; 20_000])).collect();
    until_synced(&log);
    log.purge(places[6]).unwrap();
    let start = log.start();
    assert!(start > places[2] && start <= places[6]);
    for (at, offset) in places.iter().zip(1..) {
        match log.read(*at) {
            Ok(found) => assert_eq!(found.offset(), Offset(offset)),
            Err(error) => assert_eq!(error, ReadError::Purged { at: *at, start }),
        }
    }
    assert_eq!(log.walk(Position(0)).next().unwrap().offset.0, all(&log)[0].1);
    // Never the segment where it goes on, and nothing that is not synced.
    log.purge(Position(u64::MAX)).unwrap();
    assert_eq!(log.size().segments, 1);
    put(&log, 1, 11, b"x");
}

#[test]
fn nothing_is_freed_before_what_follows_is_synced() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, &[1; 40_000]);
    until_synced(&log);
    place.recorder.slow(true);
    let at = put(&log, 1, 2, &[1; 40_000]);
    log.purge(at).unwrap();
    assert_eq!(log.size().segments, 2);
    place.recorder.slow(false);
    until_synced(&log);
    log.purge(at).unwrap();
    assert_eq!(log.size().segments, 1);
}

#[test]
fn a_recycled_file_never_shows_its_former_life() {
    let place = Place::new();
    let (log, _) = place.open();
    for offset in 1.. {
        // All of one size, so that batches of the former life lie where those of this one would.
        let at = put(&log, 1, offset, &[offset as u8; 10_000]);
        until_synced(&log);
        log.purge(at).unwrap();
        // Whether the next segment is in a recycled file or one that was made meanwhile is a race.
        let behind = (log.end().0 % SEGMENT) as usize;
        let bytes = fs::read(place.segment(at.0 / SEGMENT)).unwrap();
        if offset >= 40 && bytes[behind..].iter().any(|byte| *byte != 0) {
            break;
        }
        assert!(offset < 2000, "no file is recycled");
    }
    let records = all(&log);
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!((recovery.damage, recovery.torn), (vec![], None));
    assert_eq!(all(&log), records);
}

#[test]
fn a_file_that_somebody_reads_is_not_recycled() {
    let place = Place::new();
    let (log, _) = place.open();
    let at = put(&log, 1, 1, &[5; 40_000]);
    let held = log.read(at).unwrap();
    for offset in 2..=30 {
        let last = put(&log, 1, offset, &[6; 40_000]);
        until_synced(&log);
        log.purge(last).unwrap();
    }
    assert!(matches!(log.read(at), Err(ReadError::Purged { .. })));
    assert!(held.body().iter().all(|byte| *byte == 5));
}

#[test]
fn a_purge_that_fails_leaves_no_hole() {
    let place = Place::new();
    let (log, _) = place.open();
    let places: Vec<Position> = (1..=4).map(|offset| put(&log, 1, offset, &[1; 40_000])).collect();
    until_synced(&log);
    place.recorder.inject(|op| {
        let name = matches!(op, fs::Op::Rename { .. } | fs::Op::Remove { .. });
        name.then(|| std::io::ErrorKind::PermissionDenied.into())
    });
    log.purge(places[3]).unwrap_err();
    place.recorder.heal();
    assert_eq!(all(&log).len(), 4);
    log.purge(places[3]).unwrap();
    assert_eq!(all(&log).len(), 1);
    drop(log);
    assert_eq!(place.open().1.damage, []);
}

#[test]
fn spares_outlive_a_clean_stop_only() {
    let place = Place::new();
    let spares = || {
        let mut paths = fs::read_dir(place.dir.path()).unwrap();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "spare"));
        paths
    };
    let (log, _) = place.open();
    until("a spare", || log.size().spares == 1);
    log.close().unwrap();
    drop(log);
    let first = spares();
    assert_eq!(first.len(), 1);
    let made = place.recorder.len();
    let (log, _) = place.open();
    assert_eq!(log.size().spares, 1);
    let ops = place.recorder.ops();
    assert!(
        !ops[made..].iter().any(|op| matches!(op, fs::Op::Create { .. })),
        "used, not made anew"
    );
    assert_eq!(spares(), first);
    drop(log);
    // After a power cut it could hold batches of the segment to come, and they would validate there.
    let (log, _) = place.open();
    until("another spare", || log.size().spares == 1);
    let second = spares();
    assert_eq!(second.len(), 1);
    assert_ne!(second, first);
}
