//! What is reported as synced, and when.

use std::io;

use super::*;
use crate::fs::{Op, Why};

#[test]
fn a_failed_sync_is_fatal_once() {
    let place = Place::new();
    let (log, _) = place.open();
    let mut reports = log.watch_synced();
    put(&log, 1, 1, b"good");
    until_synced(&log);
    let synced = log.synced();
    place.recorder.inject(|op| {
        let commit = matches!(op, Op::SyncStart { why: Why::Commit, .. });
        commit.then(|| io::Error::from_raw_os_error(5))
    });
    put(&log, 1, 2, b"lost");
    until("the owner hears of it", || place.fatal.load(Ordering::SeqCst) == 1);
    place.recorder.heal();
    until("appends are refused", || {
        matches!(log.append(&[record(Kind::Entry, 1, 3, 1, &[])]), Err(AppendError::Fatal(_)))
    });
    assert_eq!(log.synced(), synced);
    // Those who wait are told.
    until("the channel ends", || reports.has_changed().is_err());
    assert_eq!(*reports.borrow_and_update(), synced);
    assert!(log.close().is_err());
    assert_eq!(place.fatal.load(Ordering::SeqCst), 1);
    assert!(
        !place
            .recorder
            .ops()
            .iter()
            .skip_while(|op| !matches!(op, Op::Write { bytes, .. } if bytes.ends_with(b"lost")))
            .any(|op| matches!(op, Op::SyncDone { .. }))
    );
}

#[test]
fn a_failed_sync_of_the_directory_is_fatal_too() {
    for why in [Why::Roll, Why::Purge] {
        let place = Place::new();
        let (log, _) = place.open();
        let mut last = Position(0);
        for offset in 1..=3 {
            last = put(&log, 1, offset, &[0; 40_000]);
            until_synced(&log);
        }
        let synced = log.synced();
        place.recorder.inject(move |op| {
            let this = matches!(op, Op::SyncDirStart { why: found, .. } if *found == why);
            this.then(|| io::Error::from_raw_os_error(5))
        });
        if why == Why::Roll {
            put(&log, 1, 4, &[0; 40_000]);
        } else {
            log.purge(last).unwrap_err();
        }
        until("the owner hears of it", || place.fatal.load(Ordering::SeqCst) == 1);
        assert_eq!(log.synced(), synced);
        assert!(matches!(
            log.append(&[record(Kind::Entry, 1, 5, 1, &[])]),
            Err(AppendError::Fatal(_))
        ));
    }
}

#[test]
fn an_idle_log_marks_what_is_synced() {
    let mut place = Place::new();
    place.options.mark_idle = true;
    let (log, _) = place.open();
    let at = put(&log, 1, 1, b"safe");
    until_synced(&log);
    let end = log.end();
    until("the mark", || log.end() > end && log.synced() == log.end());
    let marked = log.end();
    // One is enough.
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(log.end(), marked);
    // Now it is known that the entry was synced: if it cannot be read, that is damage and no torn tail.
    let copy = place.copied();
    copy.edit(at, |bytes| bytes[41] ^= 1);
    let (_, recovery) = copy.open();
    assert_eq!((recovery.damage.len(), recovery.torn), (1, None));
}

#[test]
fn many_appends_share_a_sync() {
    let place = Place::new();
    let (log, _) = place.open();
    place.recorder.slow(true);
    put(&log, 1, 1, b"");
    until("a sync has begun", || {
        place.recorder.ops().iter().any(|op| matches!(op, Op::SyncStart { why: Why::Commit, .. }))
    });
    for offset in 2..=100 {
        put(&log, 1, offset, b"");
    }
    assert!(log.synced() < log.end());
    place.recorder.slow(false);
    until_synced(&log);
    let syncs = place
        .recorder
        .ops()
        .iter()
        .filter(|op| matches!(op, Op::SyncStart { why: Why::Commit, .. }))
        .count();
    assert!(syncs <= 3, "{syncs} syncs");
}

#[test]
fn reports_arrive_by_channel() {
    let place = Place::new();
    let (log, _) = place.open();
    let mut reports = log.watch_synced();
    let end = log.append(&[record(Kind::Entry, 1, 1, 1, &[])]).unwrap().end;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async { reports.wait_for(|at| *at >= end).await.map(drop) }).unwrap();
    drop(log);
    assert!(runtime.block_on(reports.changed()).is_err(), "it ends with the log");
}

/// What may wait is synced with what may not, and by itself when its time is over.
#[test]
fn who_is_in_no_hurry_is_synced_in_time_and_holds_up_nobody() {
    let place = Place::new();
    let (log, _) = place.open();
    put(&log, 1, 1, b"first");
    until_synced(&log);
    let first = log.synced();
    let record = record(Kind::Entry, 1, 2, 1, &[b"patient"]);
    let patient = log.append_within(&[Piece::New(record)], Duration::from_secs(3600)).unwrap();
    assert_eq!(log.synced(), first);
    put(&log, 1, 3, b"in a hurry");
    until_synced(&log);
    assert!(log.synced() >= patient.end);
    let soon = log.append_within(
        &[Piece::New(super::record(Kind::Entry, 1, 4, 1, &[b"soon"]))],
        Duration::from_millis(20),
    );
    let soon = soon.unwrap().end;
    until("its time is over", || log.synced() >= soon);
    // A clean stop waits for nobody's patience.
    let last = log.append_within(
        &[Piece::New(super::record(Kind::Entry, 1, 5, 1, &[b"last"]))],
        Duration::from_secs(3600),
    );
    last.unwrap();
    log.close().unwrap();
    assert_eq!(log.syncing_since(), None);
}

/// Found by the log's own tests under load: an append whose batch the thread had synced before it was told of it left
/// behind that something was due, and the next ones, due later, woke nobody.
#[test]
fn a_word_that_comes_after_the_sync_does_not_silence_the_next() {
    let place = Place::new();
    let (log, _) = place.open();
    for offset in 1..=20 {
        put(&log, 1, offset, b"x");
        until_synced(&log);
        log.shared().syncing.wake(Duration::ZERO);
    }
}
