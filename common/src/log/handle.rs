//! [`Log`]: the handle that everybody has.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Millis;

use super::shared::Shared;
use super::{
    AppendError, Appended, LogId, NewRecord, Piece, Position, ReadError, RecordRef, SegmentRef,
    Walk,
};

/// An open log. A clone is the same log; when the last one goes without [`close`](Self::close), the log stops as it
/// does in a crash: what is not synced yet may be lost.
#[derive(Clone)]
pub struct Log {
    running: Arc<Running>,
}

/// What a log occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSize {
    /// Bytes on disk, segments to come included.
    pub bytes: u64,
    /// Segments in use.
    pub segments: usize,
    /// Segments to come.
    pub spares: usize,
}

/// The log and its threads.
pub(super) struct Running {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Running {
    fn stop(&self) {
        self.shared.shut();
        self.shared.syncing.stop();
        self.shared.spares.stop();
        for thread in self.threads.lock().drain(..) {
            // The last handle may go on the sync thread, inside the owner's answer to a failed sync.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!(dir = %self.shared.dir.display(), "a thread of the log panicked");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { running: Arc::new(Running { shared, threads: Mutex::default() }) }
    }

    /// Its threads are known now: they end with it.
    pub(super) fn adopt(&self, threads: Vec<JoinHandle<()>>) {
        self.running.threads.lock().extend(threads);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.running.shared
    }

    /// Appends these records as one batch: all or, with an error, none. They are not synced yet.
    ///
    /// # Errors
    /// [`AppendError`] says whether the log goes on.
    pub fn append(&self, records: &[NewRecord<'_>]) -> Result<Appended, AppendError> {
        let pieces: Vec<Piece<'_>> = records.iter().map(|record| Piece::New(*record)).collect();
        self.shared().append(&pieces, Duration::ZERO)
    }

    /// The same for records that are made here and others that come as bytes.
    ///
    /// # Errors
    /// [`AppendError`] says whether the log goes on.
    pub fn append_mixed(&self, pieces: &[Piece<'_>]) -> Result<Appended, AppendError> {
        self.shared().append(pieces, Duration::ZERO)
    }

    /// The same for records that need not be synced before `patience` is over; they are earlier if others are.
    ///
    /// # Errors
    /// [`AppendError`] says whether the log goes on.
    pub fn append_within(
        &self,
        pieces: &[Piece<'_>],
        patience: Duration,
    ) -> Result<Appended, AppendError> {
        self.shared().append(pieces, patience)
    }

    /// Since when the sync goes on that is under way; `None`: none is.
    #[must_use]
    pub fn syncing_since(&self) -> Option<Millis> {
        self.shared().syncing.since()
    }

    /// The record that begins at `at`, a place that an append or a walk named.
    ///
    /// # Errors
    /// It was purged, it is damaged, or nothing is there.
    #[inline]
    pub fn read(&self, at: Position) -> Result<RecordRef, ReadError> {
        self.shared().read(at)
    }

    /// The segment that holds `at`, to read in it.
    ///
    /// # Errors
    /// It was purged, it is damaged, or nothing is there.
    #[inline]
    pub fn hold(&self, at: Position) -> Result<SegmentRef, ReadError> {
        self.shared().hold(at)
    }

    /// The records from `from` on, or from the start of the log if that is later.
    #[must_use]
    pub fn walk(&self, from: Position) -> Walk {
        Walk::new(self.running.shared.clone(), from)
    }

    /// Which log it is.
    #[must_use]
    pub fn id(&self) -> LogId {
        self.shared().id
    }

    /// Behind the last appended record.
    #[must_use]
    pub fn end(&self) -> Position {
        self.shared().end()
    }

    /// The oldest kept place.
    #[must_use]
    pub fn start(&self) -> Position {
        self.shared().start()
    }

    /// Everything before this survives power loss.
    #[must_use]
    pub fn synced(&self) -> Position {
        self.shared().syncing.synced()
    }

    /// [`synced`](Self::synced) as it grows. The channel ends with the log, or when a sync fails.
    #[must_use]
    pub fn watch_synced(&self) -> watch::Receiver<Position> {
        self.shared().syncing.watch()
    }

    /// What each later segment begins with, so that the owner may give earlier ones back: it must say all that the
    /// owner still needs of the records before.
    pub fn set_checkpoint(&self, checkpoint: Vec<u8>) {
        *self.shared().checkpoint.lock() = Some(checkpoint);
    }

    /// Gives back the segments that lie wholly below `upto`, as far as what follows them is synced.
    ///
    /// # Errors
    /// The disk refused; what could not be given back is still there.
    pub fn purge(&self, upto: Position) -> io::Result<()> {
        self.shared().purge(upto)
    }

    /// What it occupies.
    #[must_use]
    pub fn size(&self) -> LogSize {
        let shared = self.shared();
        let (segments, spares) = (shared.segments.read().len(), shared.spares.count());
        LogSize { bytes: (segments + spares) as u64 * shared.length, segments, spares }
    }

    /// Clean stop: syncs what was appended, writes the clean mark, syncs it, ends the threads. Later appends fail; reads
    /// still work. Once closed, or after a failed sync, there is nothing more to do.
    ///
    /// # Errors
    /// The mark could not be written: the next start is an unclean one.
    pub fn close(&self) -> io::Result<()> {
        let shared = self.shared();
        if !shared.shut() {
            return Ok(());
        }
        let closed = shared.close();
        self.running.stop();
        closed
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Log({}, {}..{})", self.shared().dir.display(), self.start(), self.end())
    }
}
