//! Segments to come: written ahead by a thread of their own, or recycled.
//!
//! **Invariants**
//! * What a spare holds is never read: its name says so, and its batches carry numbers below that of any segment to
//!   come (R25). A spare of which this is not sure is removed: one that was partly written as a segment, and after an
//!   unclean stop all of them, for a power cut may have left such bytes under a spare's name.
//! * A full disk is an error for the append that needs a segment, and is tried again for the next one; nothing
//!   retries by itself.

use std::io;
use std::path::{Path, PathBuf};

use parking_lot::{Condvar, Mutex};

use super::files;
use crate::fs::{Disk, File, Why};

const CHUNK: usize = 1 << 20;
/// Written ahead between two syncs, so that the sync of an append never has to wait for much else.
pub(super) const AT_ONCE: u64 = 4 << 20;

/// A file of a segment's length that has no number yet.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) file: File,
}

/// The spares of a log.
pub(super) struct Spares {
    disk: Disk,
    dir: PathBuf,
    length: u64,
    target: usize,
    pool: Mutex<Pool>,
    changed: Condvar,
}

#[derive(Default)]
struct Pool {
    ready: Vec<Spare>,
    /// Names given so far.
    names: u64,
    /// Requests of those who found none, and how many of them were looked at.
    asked: u64,
    answered: u64,
    waiting: usize,
    /// Why the last one could not be made; cleared by the next request.
    failed: Option<(io::ErrorKind, String)>,
    /// A discarded one that could not be removed.
    left: Option<PathBuf>,
    stop: bool,
}

impl Spares {
    pub(super) fn new(
        disk: Disk,
        dir: &Path,
        length: u64,
        target: usize,
        ready: Vec<Spare>,
        names: u64,
    ) -> Self {
        let pool = Mutex::new(Pool { ready, names, ..Pool::default() });
        Self { disk, dir: dir.to_owned(), length, target, pool, changed: Condvar::new() }
    }

    /// A spare; waits while one is being made.
    pub(super) fn take(&self) -> io::Result<Spare> {
        let mut pool = self.pool.lock();
        if pool.ready.is_empty() {
            pool.asked += 1;
        }
        let asked = pool.asked;
        pool.waiting += 1;
        self.changed.notify_all();
        let taken = loop {
            if let Some(spare) = pool.ready.pop() {
                break Ok(spare);
            }
            if pool.stop {
                break Err(io::Error::other("the log is closed"));
            }
            if let Some((kind, text)) = pool.failed.as_ref().filter(|_| pool.answered >= asked) {
                break Err(io::Error::new(*kind, text.clone()));
            }
            self.changed.wait(&mut pool);
        };
        pool.waiting -= 1;
        self.changed.notify_all();
        taken
    }

    /// Whether a freed segment should become a spare, and under which name.
    pub(super) fn wanted(&self) -> Option<PathBuf> {
        let mut pool = self.pool.lock();
        (self.target > 0 && pool.ready.len() <= self.target).then(|| pool.name(&self.dir))
    }

    /// Adds a spare whose name is durable.
    pub(super) fn put(&self, spare: Spare) {
        self.pool.lock().ready.push(spare);
        self.changed.notify_all();
    }

    /// Removes a spare that was partly written: its content could be taken for a segment's.
    pub(super) fn discard(&self, spare: Spare) {
        if let Err(error) = self.disk.remove_file(&spare.path) {
            tracing::warn!(path = %spare.path.display(), %error, "a spare segment cannot be removed");
            self.pool.lock().left = Some(spare.path);
        }
    }

    /// One that was to be removed and is still there: a clean start would use it.
    pub(super) fn left(&self) -> Option<PathBuf> {
        self.pool.lock().left.clone()
    }

    /// Space may have become free.
    pub(super) fn retry(&self) {
        self.pool.lock().failed = None;
        self.changed.notify_all();
    }

    pub(super) fn count(&self) -> usize {
        self.pool.lock().ready.len()
    }

    pub(super) fn stop(&self) {
        self.pool.lock().stop = true;
        self.changed.notify_all();
    }

    /// The thread: keeps as many ready as wanted.
    pub(super) fn run(&self) {
        let mut pool = self.pool.lock();
        loop {
            if pool.stop {
                return;
            }
            let short =
                pool.ready.len() < self.target || (pool.waiting > 0 && pool.ready.is_empty());
            let hopeless = pool.failed.is_some() && pool.answered >= pool.asked;
            if !short || hopeless {
                self.changed.wait(&mut pool);
                continue;
            }
            let (path, asked) = (pool.name(&self.dir), pool.asked);
            drop(pool);
            let made = self.make(path);
            pool = self.pool.lock();
            pool.answered = asked;
            match made {
                Ok(spare) => {
                    pool.failed = None;
                    pool.ready.extend(spare);
                }
                Err(error) => {
                    tracing::warn!(dir = %self.dir.display(), %error, "no segment can be written ahead");
                    pool.failed = Some((error.kind(), error.to_string()));
                }
            }
            self.changed.notify_all();
        }
    }

    /// Writes a file full of zeroes, so that later writes change no metadata; `None` if the log stops meanwhile.
    fn make(&self, path: PathBuf) -> io::Result<Option<Spare>> {
        // Known at once: whoever appends waits for this, and filling the last bytes of a disk takes long.
        if crate::fs::free_bytes(&self.dir)?.0 < self.length {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = self.disk.create_new(&path)?;
        let filled = fill(&file, self.length, || self.pool.lock().stop);
        match filled {
            Ok(true) => Ok(Some(Spare { path, file })),
            other => {
                self.discard(Spare { path, file });
                other.map(|_| None)
            }
        }
    }
}

impl Pool {
    fn name(&mut self, dir: &Path) -> PathBuf {
        self.names += 1;
        files::spare(dir, self.names)
    }
}

fn fill(file: &File, length: u64, stop: impl Fn() -> bool) -> io::Result<bool> {
    let mut at = 0;
    while at < length {
        let end = length.min(at + AT_ONCE);
        zero(file, at..end, &stop)?;
        if stop() {
            return Ok(false);
        }
        file.sync(Why::Prepare)?;
        at = end;
    }
    Ok(true)
}

/// Writes zeroes, until `stop`.
pub(super) fn zero(
    file: &File,
    range: std::ops::Range<u64>,
    stop: &impl Fn() -> bool,
) -> io::Result<()> {
    let zeroes = vec![0; CHUNK];
    let mut at = range.start;
    while at < range.end && !stop() {
        // At most CHUNK: no truncation.
        let len = (range.end - at).min(CHUNK as u64) as usize;
        file.write_at(&zeroes[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
