//! Stops and starts.

use super::*;
use crate::fs::Op;

#[test]
fn a_new_log_is_empty_and_ready() {
    let place = Place::new();
    let (log, recovery) = place.open();
    assert!(
        recovery.clean
            && recovery.damage.is_empty()
            && recovery.torn.is_none()
            && recovery.checkpoint.is_none()
    );
    assert!(recovery.ends.is_empty());
    assert_eq!(log.synced(), log.end());
    assert!(all(&log).is_empty());
    assert_eq!(log.walk(Position(0)).position(), log.end());
}

#[test]
fn a_clean_stop_is_seen_once() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"x");
    log.close().unwrap();
    assert!(matches!(log.append(&[record(Kind::Entry, 1, 2, 1, &[])]), Err(AppendError::Closed)));
    assert_eq!(all(&log).len(), 1, "reads still work");
    log.close().unwrap();
    drop(log);
    let (log, recovery) = place.open();
    assert!(recovery.clean);
    drop(log);
    // Opened and not closed: the clean mark is gone, durably, before anything can be appended (R14).
    let (log, recovery) = place.open();
    assert!(!recovery.clean);
    assert_eq!(all(&log).len(), 1);
}

#[test]
fn the_clean_mark_is_gone_from_disk_before_the_first_append() {
    let place = Place::new();
    place.open().0.close().unwrap();
    let before = place.recorder.len();
    let (log, recovery) = place.open();
    assert!(recovery.clean);
    let ops = place.recorder.ops();
    let written =
        ops[before..].iter().rposition(|op| matches!(op, Op::Write { again: false, .. })).unwrap();
    assert!(
        ops[before + written..].iter().any(|op| matches!(op, Op::SyncDone { .. })),
        "{:?}",
        &ops[before..]
    );
    drop(log);
}

#[test]
fn the_checkpoint_is_that_of_the_oldest_segment() {
    let place = Place::new();
    let (log, _) = place.open();
    let mut at = Position(0);
    for offset in 1..=5 {
        log.set_checkpoint(vec![offset as u8]);
        at = put(&log, 1, offset, &[0; 40_000]);
    }
    until_synced(&log);
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!(recovery.checkpoint, None, "before the first record nothing was");
    log.purge(at).unwrap();
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!(recovery.checkpoint, Some(vec![5]));
    // Nobody has set one since: the last one stands.
    put(&log, 1, 6, &[0; 40_000]);
    until_synced(&log);
    log.purge(log.end()).unwrap();
    drop(log);
    assert_eq!(place.open().1.checkpoint, Some(vec![5]));
}

#[test]
fn ends_follow_what_the_records_say() {
    let place = Place::new();
    let (log, _) = place.open();
    let records = [
        record(Kind::EpochStart, 1, 0, 3, &[]),
        record(Kind::Entry, 1, 1, 3, &[]),
        record(Kind::Entry, 1, 2, 3, &[]),
        record(Kind::Truncate, 1, 1, 3, &[]),
        record(Kind::Installed, 2, 70, 4, &[]),
        record(Kind::Entry, 3, 1, 1, &[]),
        record(Kind::Purge, 3, 0, 0, &[]),
        record(Kind::Vote, 4, 9, 9, &[]),
    ];
    log.append(&records).unwrap();
    let end = |offset, epoch, acted| End {
        offset: Offset(offset),
        epoch: Epoch(epoch),
        acted: Epoch(acted),
    };
    let expected = [(key(1), end(1, 3, 3)), (key(2), end(70, 4, 0))].into();
    drop(log);
    let (log, recovery) = place.open();
    assert_eq!(recovery.ends, expected);
    // The same from the record at a segment's beginning.
    log.append(&[record(Kind::Vote, 4, 0, 0, &[&[0; 60_000]])]).unwrap();
    drop(log);
    assert_eq!(place.open().1.ends, expected);
}

#[test]
fn a_torn_tail_is_cut_and_its_valid_prefix_made_certain() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"synced");
    until_synced(&log);
    place.recorder.slow(true);
    let first = put(&log, 1, 2, b"first of the tail");
    let torn = put(&log, 1, 3, &[3; 3000]);
    put(&log, 1, 4, b"behind");
    let copy = place.copied();
    place.recorder.slow(false);
    copy.edit(Position(torn.0 + 1024), |bytes| bytes[..512].fill(0));

    let (log, recovery) = copy.open();
    assert_eq!(recovery.damage, []);
    let cut = recovery.torn.unwrap();
    assert!(cut.at > first && cut.at <= torn && cut.bytes > 3000, "{cut:?}");
    assert_eq!(recovery.ends[&key(1)].offset, Offset(2));
    assert_eq!(all(&log).iter().map(|r| r.1).collect::<Vec<_>>(), [1, 2]);
    // H7: the record of the tail was written again and synced before the report.
    let ops = copy.recorder.ops();
    let tail = b"first of the tail";
    let has = |bytes: &[u8]| bytes.windows(tail.len()).any(|part| part == tail);
    let again = ops
        .iter()
        .position(|op| matches!(op, Op::Write { again: true, bytes, .. } if has(bytes)))
        .unwrap();
    assert!(ops[again..].iter().any(|op| matches!(op, Op::SyncDone { .. })));
    // H6: nothing of the old tail is left behind the end.
    let end = log.end();
    copy.edit(end, |bytes| assert!(bytes.iter().all(|byte| *byte == 0)));
    put(&log, 1, 3, b"anew");
    drop(log);
    assert_eq!(all(&copy.open().0)[2].2, b"anew");
}

#[test]
fn a_torn_new_segment_goes_as_a_whole() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, &[1; 40_000]);
    until_synced(&log);
    place.recorder.slow(true);
    put(&log, 1, 2, &[2; 40_000]);
    put(&log, 1, 3, &[3; 40_000]);
    let copy = place.copied();
    place.recorder.slow(false);
    // Its header did not reach the disk.
    edit(&copy.segment(2), |bytes| bytes[..4096].fill(0));
    let (log, recovery) = copy.open();
    assert!(recovery.torn.is_some() && recovery.damage.is_empty());
    assert_eq!(all(&log).len(), 1);
    assert_eq!(log.size().segments, 1);
    for offset in 2..=4 {
        put(&log, 1, offset, &[9; 40_000]);
    }
    drop(log);
    assert_eq!(all(&copy.open().0).len(), 4);
}

#[test]
fn a_log_on_the_real_disk() {
    let place = Place::new();
    let open = || {
        Log::open(Disk::real(), place.dir.path(), place.options.clone(), |error| panic!("{error}"))
            .unwrap()
    };
    let (log, _) = open();
    for offset in 1..=200 {
        put(&log, 1, offset, &[offset as u8; 1000]);
    }
    log.close().unwrap();
    drop(log);
    let (log, recovery) = open();
    assert!(recovery.clean);
    assert_eq!(all(&log).len(), 200);
}

#[test]
fn the_first_segment_is_written_ahead_in_the_background() {
    let mut place = Place::new();
    place.options.segment_bytes = 4 << 20;
    let (log, _) = place.open();
    let mut expected = Vec::new();
    for offset in 1..=50 {
        put(&log, 1, offset, &[7; 1000]);
        expected.push((1, offset, vec![7; 1000]));
    }
    let path = place.segment(1);
    until("no holes are left", || !Disk::real().open(&path).unwrap().is_sparse().unwrap());
    put(&log, 1, 51, b"last");
    expected.push((1, 51, b"last".to_vec()));
    assert_eq!(all(&log), expected);
    drop(log);
    assert_eq!(all(&place.open().0), expected);
}
