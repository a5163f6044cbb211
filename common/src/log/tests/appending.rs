//! Appends: their limits, a full disk, many threads.

use std::io;

use super::*;
use crate::fs::Op;

fn full(op: &Op) -> Option<io::Error> {
    matches!(op, Op::Write { .. }).then(|| io::ErrorKind::StorageFull.into())
}

#[test]
fn a_full_disk_is_an_error_value_and_the_log_goes_on() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"before");
    let end = log.end();
    place.recorder.inject(full);
    let body: [&[u8]; 1] = [&[1; 100]];
    let batch = [record(Kind::Entry, 1, 2, 1, &body), record(Kind::Entry, 1, 3, 1, &body)];
    let error = log.append(&batch).unwrap_err();
    assert!(error.is_full(), "{error}");
    assert_eq!(log.end(), end);
    assert_eq!(all(&log).len(), 1, "all or nothing");
    place.recorder.heal();
    put(&log, 1, 2, b"after");
    until_synced(&log);
    let expected = [(1, 1, b"before".to_vec()), (1, 2, b"after".to_vec())];
    assert_eq!(all(&log), expected);
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!((all(&log), recovery.torn), (expected.to_vec(), None));
}

#[test]
fn a_part_of_a_batch_that_failed_is_not_found_again() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"whole");
    let at = log.end();
    drop(log);
    let (log, _) = place.open();
    // The whole batch but its last bytes was written when the disk was full, then the machine stopped.
    let (next, end) = (log.end(), put(&log, 1, 2, &[7; 5000]));
    assert!(at < next && next < end);
    let copy = place.copied();
    copy.edit(Position(end.0 + 4000), |bytes| bytes[..2000].fill(0));
    // A write that failed leaves no header.
    copy.edit(next, |bytes| bytes[..40].fill(0));
    let (log, recovery) = copy.open();
    assert_eq!((all(&log).len(), recovery.damage.len()), (1, 0));
    put(&log, 1, 2, b"anew");
    assert_eq!(all(&log)[1].2, b"anew");
}

#[test]
fn no_space_for_a_new_segment_is_an_error_until_there_is() {
    let mut place = Place::new();
    place.options.spares = 0;
    let (log, _) = place.open();
    put(&log, 1, 1, &[1; 60_000]);
    place.recorder.inject(full);
    for _ in 0..3 {
        let error = log.append(&[record(Kind::Entry, 1, 2, 1, &[&[2; 30_000]])]).unwrap_err();
        assert!(error.is_full(), "{error}");
    }
    // What still fits goes on.
    place.recorder.heal();
    put(&log, 1, 2, b"small");
    put(&log, 1, 3, &[3; 30_000]);
    assert_eq!(log.size().segments, 2);
    until_synced(&log);
    assert_eq!(all(&log).len(), 3);
}

#[test]
fn what_cannot_be_appended_changes_nothing() {
    let place = Place::new();
    let (log, _) = place.open();
    let end = log.end();
    let large = log.append(&[record(Kind::Entry, 1, 1, 1, &[&[0; SEGMENT as usize]])]).unwrap_err();
    assert!(matches!(large, AppendError::TooLarge { .. }), "{large}");
    let own = log.append(&[record(Kind::Ends, 1, 1, 1, &[])]).unwrap_err();
    assert!(matches!(own, AppendError::Malformed(_)), "{own}");
    for raw in [&b"too short"[..], &[0; 100]] {
        let error = log.append_mixed(&[Piece::Raw(raw)]).unwrap_err();
        assert!(matches!(error, AppendError::Malformed(_)), "{error}");
    }
    assert_eq!(log.append(&[]).unwrap(), Appended { positions: vec![], end });
    assert_eq!(log.end(), end);
}

#[test]
fn a_batch_of_nearly_a_segment_fits() {
    let place = Place::new();
    let (log, _) = place.open();
    let len = (SEGMENT - 4096 - 4 * 40 - 2 * 40) as usize;
    for offset in 1..=3 {
        put(&log, 1, offset, &vec![1; len - 200]);
    }
    until_synced(&log);
    drop(log);
    assert_eq!(all(&place.open().0).len(), 3);
}

#[test]
fn readers_and_writers_at_once() {
    let place = Place::new();
    let (log, _) = place.open();
    std::thread::scope(|scope| {
        for pid in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for offset in 1..=300 {
                    let at = put(log, pid, offset, &vec![pid as u8; (offset * 7 % 2000) as usize]);
                    let found = log.read(at).unwrap();
                    assert_eq!(
                        (found.partition(), found.offset(), found.kind()),
                        (key(pid), Offset(offset), Kind::Entry)
                    );
                }
            });
        }
        for _ in 0..2 {
            let log = &log;
            scope.spawn(move || {
                let (mut walk, mut last) = (log.walk(Position(0)), [0; 4]);
                until("a walk sees all", || {
                    while let Some(record) = walk.next() {
                        let pid = record.partition.pid.0 as usize;
                        assert!(record.verify());
                        assert_eq!(record.offset.0, last[pid] + 1);
                        last[pid] += 1;
                    }
                    last == [300; 4]
                });
            });
        }
    });
    until_synced(&log);
    assert!(log.size().segments > 5);
}
