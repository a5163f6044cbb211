//! Damage: reported with its place and its suspects (R30), never cut.

use std::collections::BTreeSet;

use super::*;

/// So many entries end in the middle of a segment.
const ENTRIES: usize = 57;

/// Entries of partitions 1, 2 and 3 in turn, over several segments.
struct Written {
    place: Place,
    /// Partition, offset and place.
    entries: Vec<(u32, u64, Position)>,
}

fn written(clean: bool) -> Written {
    let place = Place::new();
    let (log, _) = place.open();
    let mut entries = Vec::new();
    for turn in 0..ENTRIES as u32 {
        let (pid, offset) = (turn % 3 + 1, u64::from(turn / 3 + 1));
        entries.push((pid, offset, put(&log, pid, offset, &[pid as u8; 4_000])));
        until_synced(&log);
    }
    if clean {
        log.close().unwrap();
    } else {
        // So that all before it is marked as synced.
        vote(&log);
    }
    Written { place, entries }
}

/// A record that no partition's end depends on.
fn vote(log: &Log) {
    log.append(&[record(Kind::Vote, 9, 0, 0, &[b"vote"])]).unwrap();
}

impl Written {
    /// A changed bit in the body of this entry.
    fn flip(&self, entry: usize) {
        self.place.edit(Position(self.entries[entry].2.0 + 100), |bytes| bytes[0] ^= 4);
    }

    /// Zeroes from the entry's batch header on.
    fn zero(&self, entry: usize) {
        self.place.edit(Position(self.entries[entry].2.0 - 40), |bytes| bytes[..100].fill(0));
    }

    fn segment_of(&self, entry: usize) -> u64 {
        self.entries[entry].2.0 / SEGMENT
    }

    #[track_caller]
    fn recover(&self, missing: &[usize], suspects: &[&[u32]]) {
        // Again and again: damage stays where it is.
        for _ in 0..2 {
            let (log, recovery) = self.place.open();
            assert_eq!(recovery.torn, None);
            let found: Vec<BTreeSet<PartitionKey>> =
                recovery.damage.iter().map(|damage| damage.suspects.clone()).collect();
            let expected: Vec<BTreeSet<PartitionKey>> =
                suspects.iter().map(|pids| pids.iter().map(|pid| key(*pid)).collect()).collect();
            assert_eq!(found, expected, "{:?}", recovery.damage);
            let there: Vec<(u32, u64)> =
                all(&log).iter().map(|r| (r.0, r.1)).filter(|r| r.0 < 4).collect();
            let whole = (0..self.entries.len())
                .filter(|at| !missing.contains(at))
                .map(|at| self.entries[at]);
            assert_eq!(there, whole.map(|e| (e.0, e.1)).collect::<Vec<_>>());
            for at in missing {
                assert!(matches!(log.read(self.entries[*at].2), Err(ReadError::Absent { .. })));
            }
            vote(&log);
            until_synced(&log);
            vote(&log);
        }
    }
}

#[test]
fn only_the_partition_that_lost_an_entry_is_suspect() {
    for clean in [false, true] {
        let log = written(clean);
        log.flip(4);
        log.recover(&[4], &[&[2]]);
    }
}

#[test]
fn a_lost_batch_header_is_damage_too() {
    let log = written(false);
    log.zero(4);
    log.recover(&[4], &[&[2]]);
}

#[test]
fn the_last_entries_before_a_clean_stop_are_judged_by_its_record() {
    let log = written(true);
    log.flip(55);
    // Nothing of it comes behind; the record of the stop says where it ended.
    log.recover(&[55], &[&[2]]);
}

#[test]
fn without_evidence_nobody_is_whole_but_who_goes_on() {
    let log = written(false);
    assert_eq!(
        log.segment_of(53),
        log.place.open().0.end().0 / SEGMENT,
        "no segment behind it may tell"
    );
    log.flip(53);
    // Behind it come 54 of partition 1, 55 of 2, which prove these, and 56 of 3, which misses its entry.
    log.recover(&[53], &[&[3]]);
    let log = written(false);
    log.flip(55);
    // 56 proves partition 3; of 1 nothing comes behind.
    log.recover(&[55], &[&[1, 2]]);
}

#[test]
fn the_last_entry_of_a_segment_is_judged_by_the_next_one() {
    let log = written(false);
    let last = (0..ENTRIES).rev().find(|at| log.segment_of(*at) == 1).unwrap();
    log.flip(last);
    log.recover(&[last], &[&[log.entries[last].0]]);
    log.zero(last);
    log.recover(&[last], &[&[log.entries[last].0]]);
}

#[test]
fn a_lost_segment_header_loses_nothing_else() {
    let log = written(false);
    edit(&log.place.segment(2), |bytes| bytes[..4096].fill(0));
    log.recover(&[], &[&[]]);
}

/// Found by drill D13: one bit of one copy was flipped, and nobody would ever have known.
#[test]
fn d13_a_header_page_that_has_changed_anywhere_is_noticed_and_nothing_is_lost() {
    let log = written(false);
    for byte in [3, 1000, 2050, 4000] {
        edit(&log.place.segment(1), |bytes| bytes[byte] ^= 1);
        let said = capture(|| log.recover(&[], &[]));
        assert!(said.contains("header page is damaged"), "byte {byte}: {said}");
        edit(&log.place.segment(1), |bytes| bytes[byte] ^= 1);
    }
    assert!(!capture(|| log.recover(&[], &[])).contains("header page"));
}

/// What is logged meanwhile on this thread.
fn capture(work: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Said(std::sync::Arc<parking_lot::Mutex<Vec<u8>>>);
    impl std::io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = said.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_lost_first_batch_of_a_segment_takes_the_proof_with_it() {
    let log = written(false);
    edit(&log.place.segment(2), |bytes| bytes[4096..4200].fill(0));
    // All go on behind it without a gap.
    log.recover(&[], &[&[]]);
}

#[test]
fn a_missing_file_is_damage() {
    let log = written(false);
    fs::remove_file(log.place.segment(2)).unwrap();
    let missing: Vec<usize> = (0..ENTRIES).filter(|at| log.segment_of(*at) == 2).collect();
    let (opened, recovery) = log.place.open();
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!((recovery.damage[0].at, recovery.damage[0].bytes), (Position(2 * SEGMENT), SEGMENT));
    assert_eq!(recovery.damage[0].suspects, [key(1), key(2), key(3)].into());
    assert_eq!(all(&opened).iter().filter(|r| r.0 < 4).count(), ENTRIES - missing.len());
}

#[test]
fn a_shortened_file_is_damage() {
    let log = written(false);
    edit(&log.place.segment(2), |bytes| bytes.truncate(30_000));
    let (_, recovery) = log.place.open();
    assert_eq!(recovery.damage.len(), 1, "{:?}", recovery.damage);
    assert_eq!(recovery.damage[0].suspects, [key(1), key(2), key(3)].into());
}

/// Found by drill D13: the marks had gone with the end of the file, so that what was lost was taken for a torn tail; and
/// once a new segment had begun, that one testified for those who had lost something.
#[test]
fn d13_a_shortened_last_file_is_damage_at_every_start() {
    for clean in [false, true] {
        let log = written(clean);
        let last = log.segment_of(ENTRIES - 1);
        let cut = (0..ENTRIES).find(|at| log.segment_of(*at) == last).unwrap() + 2;
        // At the end of a batch: every batch that is left is whole.
        let at = log.entries[cut].2.0 - 40 - last * SEGMENT;
        edit(&log.place.segment(last), |bytes| bytes.truncate(at as usize));
        for start in 0..3 {
            let (opened, recovery) = log.place.open();
            assert_eq!((recovery.clean, recovery.torn), (false, None));
            assert_eq!(recovery.damage.len(), 1, "{:?}", recovery.damage);
            assert_eq!(
                recovery.damage[0].suspects,
                [key(1), key(2), key(3)].into(),
                "start {start}"
            );
            let entries = all(&opened).iter().filter(|r| r.0 < 4).count();
            assert_eq!(entries, cut, "what is readable stays");
            if start == 1 {
                put(&opened, 4, 1, b"begins a new segment");
                until_synced(&opened);
            }
        }
    }
}

/// At the end of the log nothing testifies; a segment that begins behind must not say more than is known.
#[test]
fn who_is_suspect_stays_so_when_the_log_goes_on_in_a_new_segment() {
    let log = written(false);
    log.flip(55);
    for start in 0..3 {
        let (opened, recovery) = log.place.open();
        assert_eq!(recovery.damage[0].suspects, [key(1), key(2)].into(), "start {start}");
        let number = opened.end().0 / SEGMENT;
        while opened.end().0 / SEGMENT == number {
            opened.append(&[record(Kind::Vote, 9, 0, 0, &[&[0; 4_000]])]).unwrap();
            until_synced(&opened);
        }
    }
}

#[test]
fn damage_and_a_torn_tail_are_told_apart() {
    let log = written(false);
    let (opened, _) = log.place.open();
    let synced = put(&opened, 4, 2, b"synced");
    until_synced(&opened);
    log.place.recorder.slow(true);
    put(&opened, 4, 3, b"tail");
    let torn = put(&opened, 4, 4, b"torn");
    put(&opened, 4, 5, b"behind");
    let copy = Written { place: log.place.copied(), entries: log.entries.clone() };
    log.place.recorder.slow(false);
    copy.flip(4);
    copy.place.edit(torn, |bytes| bytes[41] ^= 1);
    for again in [false, true] {
        let (opened, recovery) = copy.place.open();
        assert_eq!(recovery.damage.len(), 1);
        assert_eq!(recovery.damage[0].suspects, [key(2)].into());
        assert_eq!(recovery.torn.is_some(), !again);
        assert!(opened.read(synced).is_ok());
        let last = all(&opened).pop().unwrap();
        assert_eq!((last.0, last.1), (4, 3));
    }
}

#[test]
fn a_change_of_epoch_behind_damage_proves_nothing() {
    let place = Place::new();
    let (log, _) = place.open();
    let hit = put(&log, 2, 1, b"hit");
    put(&log, 1, 1, b"before");
    let damaged = put(&log, 2, 2, b"hit");
    log.append(&[record(Kind::Entry, 1, 2, 2, &[b"of a later epoch"])]).unwrap();
    until_synced(&log);
    log.append(&[record(Kind::Entry, 2, 3, 1, &[])]).unwrap();
    drop(log);
    assert!(hit < damaged);
    place.edit(Position(damaged.0 + 41), |bytes| bytes[0] ^= 1);
    let (_, recovery) = place.open();
    assert_eq!(recovery.damage[0].suspects, [key(1), key(2)].into());
}

#[test]
fn a_snapshot_behind_damage_makes_whole() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"");
    let damaged = put(&log, 1, 2, b"hit");
    log.append(&[record(Kind::Installed, 1, 9, 3, &[])]).unwrap();
    until_synced(&log);
    put(&log, 4, 1, b"");
    drop(log);
    place.edit(Position(damaged.0 + 41), |bytes| bytes[0] ^= 1);
    let (_, recovery) = place.open();
    assert_eq!(recovery.damage.len(), 1);
    assert_eq!(recovery.damage[0].suspects, [].into());
    let end = recovery.ends[&key(1)];
    assert_eq!((end.offset, end.epoch), (Offset(9), Epoch(3)));
}
