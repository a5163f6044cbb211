//! Making the log durable: one thread, one sync at a time, as many appends in each as came meanwhile.
//!
//! **Invariants**
//! * What is reported was synced whole: before a position in a new segment counts, the full one and the directory are
//!   synced too (R24, H36).
//! * A failed sync is fatal: the owner hears of it once, nothing is reported afterwards, no sync is tried again (H7).
//! * Nobody who is in a hurry waits for one who is not: an append that may wait is synced with the next one that may not,
//!   or when its time is over.
//! * Reports only grow. When the thread ends, those who wait are told by the end of their channel.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

use super::segment::Segment;
use super::shared::Shared;
use super::{Fatal, Position};
use crate::clock::Millis;
use crate::fs::{Disk, Why};

/// So long after its last sync an idle log marks what is synced; R24 asks for a second.
const IDLE: Duration = Duration::from_millis(500);

/// The owner's answer to a failed sync.
pub(super) type OnFatal = Box<dyn Fn(io::Error) + Send + Sync>;

/// How far the log is synced, and what comes next.
pub(super) struct Syncing {
    disk: Disk,
    dir: PathBuf,
    mark_idle: bool,
    on_fatal: OnFatal,
    state: Mutex<State>,
    /// For the thread: something was appended, or it is to stop.
    work: Condvar,
    /// For those who wait in [`wait`](Self::wait).
    done: Condvar,
    synced: AtomicU64,
    /// When the sync that is under way began, `CLOCK_BOOTTIME` ms; 0: none is.
    began: AtomicU64,
    failed: AtomicBool,
    reports: watch::Receiver<Position>,
}

struct State {
    active: Arc<Segment>,
    /// Full segments that were not synced since.
    rolled: Vec<Arc<Segment>>,
    /// Nobody minds if the next sync does not begin before.
    due: Option<Instant>,
    fatal: Option<Fatal>,
    stop: bool,
}

impl Syncing {
    /// For a log that is synced up to `synced`; the sender belongs to [`run`](Self::run).
    pub(super) fn new(
        disk: Disk,
        dir: PathBuf,
        mark_idle: bool,
        on_fatal: OnFatal,
        active: Arc<Segment>,
        synced: Position,
    ) -> (Self, watch::Sender<Position>) {
        let (report, reports) = watch::channel(synced);
        let state =
            Mutex::new(State { active, rolled: Vec::new(), due: None, fatal: None, stop: false });
        let syncing = Self {
            disk,
            dir,
            mark_idle,
            on_fatal,
            state,
            work: Condvar::new(),
            done: Condvar::new(),
            synced: AtomicU64::new(synced.0),
            began: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            reports,
        };
        (syncing, report)
    }

    #[inline]
    pub(super) fn synced(&self) -> Position {
        Position(self.synced.load(Ordering::Acquire))
    }

    pub(super) fn watch(&self) -> watch::Receiver<Position> {
        self.reports.clone()
    }

    /// Since when the sync that is under way goes on; `None`: none is.
    pub(super) fn since(&self) -> Option<Millis> {
        Some(Millis(self.began.load(Ordering::Acquire))).filter(|began| began.0 != 0)
    }

    /// Something was appended that is to be synced within `patience`.
    #[inline]
    pub(super) fn wake(&self, patience: Duration) {
        let due = Instant::now() + patience;
        // Under the lock: the thread is either before its look at the end, or waits already.
        let sooner = {
            let mut state = self.state.lock();
            let sooner = state.due.is_none_or(|known| due < known);
            if sooner {
                state.due = Some(due);
            }
            sooner
        };
        if sooner {
            self.work.notify_one();
        }
    }

    /// The log goes on in `next`. Called before its end moves there.
    pub(super) fn rolled(&self, full: Arc<Segment>, next: Arc<Segment>) {
        let mut state = self.state.lock();
        state.rolled.push(full);
        state.active = next;
    }

    #[inline]
    pub(super) fn fatal(&self) -> Option<Fatal> {
        if self.failed.load(Ordering::Acquire) { self.state.lock().fatal.clone() } else { None }
    }

    /// A sync failed, here or elsewhere in the log. Only the first time counts.
    pub(super) fn fail(&self, error: io::Error) {
        {
            let mut state = self.state.lock();
            if state.fatal.is_some() {
                return;
            }
            state.fatal = Some(Fatal(error.to_string().into()));
            self.failed.store(true, Ordering::Release);
        }
        (self.on_fatal)(error);
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Waits until the log is synced up to `to`.
    pub(super) fn wait(&self, to: Position) -> Result<(), Fatal> {
        let mut state = self.state.lock();
        // In a hurry.
        state.due = None;
        self.work.notify_one();
        while self.synced() < to {
            if let Some(fatal) = &state.fatal {
                return Err(fatal.clone());
            }
            if state.stop {
                return Err(Fatal("it was closed before".into()));
            }
            self.done.wait(&mut state);
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// The thread.
    pub(super) fn run(&self, log: &Shared, report: &watch::Sender<Position>) {
        // Where an idle log was marked last, or could not be; recovery did it too.
        let mut marked = self.synced();
        let mut state = self.state.lock();
        while !state.stop && state.fatal.is_none() {
            let end = log.end();
            if end > self.synced() {
                if let Some(due) = state.due.filter(|due| *due > Instant::now()) {
                    self.work.wait_until(&mut state, due);
                    continue;
                }
                state.due = None;
                // Taken after the end was read: all rolls before that end are among them.
                let (rolled, active) = (std::mem::take(&mut state.rolled), state.active.clone());
                drop(state);
                self.began.store(Millis::now().0, Ordering::Release);
                let synced = self.sync(&rolled, &active);
                self.began.store(0, Ordering::Release);
                match synced {
                    Ok(()) => self.report(end, report),
                    Err(error) => self.fail(error),
                }
                drop((rolled, active));
                state = self.state.lock();
                continue;
            }
            // Whoever said so late that it is synced already must not be in the way of the next: nothing is due.
            state.due = None;
            if !self.mark_idle || marked == end {
                self.work.wait(&mut state);
            } else if self.work.wait_for(&mut state, IDLE).timed_out() {
                drop(state);
                marked = log.mark_idle().unwrap_or(end);
                state = self.state.lock();
            }
        }
    }

    fn sync(&self, rolled: &[Arc<Segment>], active: &Segment) -> io::Result<()> {
        for full in rolled {
            full.file.sync(Why::Roll)?;
        }
        if !rolled.is_empty() {
            self.disk.sync_dir(&self.dir, Why::Roll)?;
        }
        active.file.sync(Why::Commit)
    }

    fn report(&self, end: Position, report: &watch::Sender<Position>) {
        {
            let _state = self.state.lock();
            self.synced.store(end.0, Ordering::Release);
        }
        self.done.notify_all();
        report.send_replace(end);
    }
}
