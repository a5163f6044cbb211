//! The log as its owner sees it, on a disk that notes everything and can be made to fail.

mod appending;
mod damage;
mod format;
mod model;
mod retention;
mod stopping;
mod syncing;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::fs::{self, Disk, Recorder};
use crate::ids::{Epoch, Offset, PartitionKey};

/// A segment's length in these tests.
const SEGMENT: u64 = 64 << 10;

/// A directory, and a disk that notes what happens there.
struct Place {
    dir: TempDir,
    recorder: Arc<Recorder>,
    fatal: Arc<AtomicUsize>,
    options: Options,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            recorder: Arc::new(Recorder::new().without_physical_sync()),
            fatal: Arc::default(),
            options: Options { segment_bytes: SEGMENT, mark_idle: false, ..Options::default() },
        }
    }

    fn try_open(&self) -> Result<(Log, Recovery), OpenError> {
        let fatal = self.fatal.clone();
        let count = move |_| {
            fatal.fetch_add(1, Ordering::SeqCst);
        };
        Log::open(
            Disk::recording(self.recorder.clone()),
            self.dir.path(),
            self.options.clone(),
            count,
        )
    }

    fn open(&self) -> (Log, Recovery) {
        self.try_open().unwrap()
    }

    /// Another place that holds the files as they are now: what the next process finds after a kill.
    fn copied(&self) -> Self {
        let copy = Self { options: self.options.clone(), ..Self::new() };
        for path in fs::read_dir(self.dir.path()).unwrap() {
            fs::write(copy.dir.path().join(path.file_name().unwrap()), fs::read(&path).unwrap())
                .unwrap();
        }
        copy
    }

    fn segment(&self, number: u64) -> PathBuf {
        files::segment(self.dir.path(), number)
    }

    /// Changes the file that holds `at`, from there on.
    fn edit(&self, at: Position, change: impl FnOnce(&mut [u8])) {
        edit(&self.segment(at.0 / SEGMENT), |bytes| {
            change(&mut bytes[(at.0 % SEGMENT) as usize..])
        });
    }

    fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = fs::read_dir(self.dir.path()).unwrap();
        paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn key(pid: u32) -> PartitionKey {
    PartitionKey::new(1, pid)
}

fn record<'a>(
    kind: Kind,
    pid: u32,
    offset: u64,
    epoch: u64,
    body: &'a [&'a [u8]],
) -> NewRecord<'a> {
    NewRecord {
        kind,
        partition: key(pid),
        offset: Offset(offset),
        epoch: Epoch(epoch),
        commit_lag: 0,
        body,
    }
}

/// Appends one entry of epoch 1, in a batch of its own.
fn put(log: &Log, pid: u32, offset: u64, body: &[u8]) -> Position {
    log.append(&[record(Kind::Entry, pid, offset, 1, &[body])]).unwrap().positions[0]
}

/// Partition, offset and body of all records.
fn all(log: &Log) -> Vec<(u32, u64, Vec<u8>)> {
    let mut walk = log.walk(Position(0));
    let mut found = Vec::new();
    while let Some(record) = walk.next() {
        assert!(record.verify());
        found.push((record.partition.pid.0, record.offset.0, record.body.to_vec()));
    }
    found
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[track_caller]
fn until_synced(log: &Log) {
    until("everything is synced", || log.synced() == log.end());
}
