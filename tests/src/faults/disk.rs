//! A disk that fails when it is told to, and notes what it has not synced.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;
use stela_common::fs::{Handle, Hook, Op, Synced, Why};

use super::plan::Disk;
use super::undo::Undo;

/// How often a sync that is held looks whether it may go on.
const LOOK: Duration = Duration::from_millis(2);

/// The disk of a server in a drill.
pub struct FaultyDisk {
    faults: Mutex<Disk>,
    handles: AtomicU64,
    undo: Option<Mutex<Undo>>,
}

impl FaultyDisk {
    /// A disk that does not fail yet; `undo`: where it notes what is not synced.
    pub fn new(undo: Option<&Path>) -> io::Result<Self> {
        let undo = undo.map(Undo::begin).transpose()?.map(Mutex::new);
        Ok(Self { faults: Mutex::new(Disk::default()), handles: AtomicU64::new(1), undo })
    }

    /// From now on it fails like this.
    pub fn set(&self, faults: Disk) {
        *self.faults.lock() = faults;
    }

    fn faults(&self) -> Disk {
        *self.faults.lock()
    }

    /// A sync is held as long as it is to be.
    fn stall(&self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(self.faults().stall_ms) {
            std::thread::sleep(LOOK);
        }
    }
}

impl Hook for FaultyDisk {
    fn handle(&self) -> Handle {
        Handle(self.handles.fetch_add(1, Ordering::Relaxed))
    }

    fn run(&self, op: Op, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        if self.faults().full && matches!(op, Op::Write { again: false, .. } | Op::SetLen { .. }) {
            return Err(Errno::NOSPC.into());
        }
        match &self.undo {
            None => run(),
            Some(undo) => undo.lock().run(&op, run),
        }
    }

    fn sync(&self, of: Synced, _: Why, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let begun = self.undo.as_ref().map(|undo| undo.lock().begun());
        self.stall();
        if self.faults().sync_fails {
            return Err(Errno::IO.into());
        }
        run()?;
        if let (Some(undo), Some(begun)) = (&self.undo, begun) {
            undo.lock().synced(&of, begun)?;
        }
        Ok(())
    }

    fn free_bytes(&self, real: (u64, u64)) -> (u64, u64) {
        if self.faults().full { (0, real.1) } else { real }
    }
}
