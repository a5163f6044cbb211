//! What a recording disk notes, for crash tests.
//!
//! **Invariants**
//! * Operations stand in the record in an order in which the disk may have seen them: all but syncs are run and
//!   noted under one lock.
//! * A sync is noted twice: what was noted before its start is on disk at its end, of what came in between nothing
//!   is known.

use std::io;
use std::path::PathBuf;

use parking_lot::{Condvar, Mutex};

use super::{Hook, Synced, Why};

/// One open file of a recorded run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// One recorded operation.
#[derive(Clone, Debug)]
pub enum Op {
    /// A file was created and opened.
    Create {
        /// How later operations name it.
        handle: Handle,
        /// Its name.
        path: PathBuf,
    },
    /// An existing file was opened.
    Open {
        /// How later operations name it.
        handle: Handle,
        /// Its name then.
        path: PathBuf,
    },
    /// Bytes were written.
    Write {
        /// To which file.
        handle: Handle,
        /// Where.
        at: u64,
        /// What.
        bytes: Box<[u8]>,
        /// Whether the file should have had them already.
        again: bool,
    },
    /// The length was set.
    SetLen {
        /// Of which file.
        handle: Handle,
        /// To what.
        len: u64,
    },
    /// A sync of a file began.
    SyncStart {
        /// Names the sync.
        sync: u64,
        /// Of which file.
        handle: Handle,
        /// What for.
        why: Why,
    },
    /// A sync of a directory began.
    SyncDirStart {
        /// Names the sync.
        sync: u64,
        /// Of which directory.
        dir: PathBuf,
        /// What for.
        why: Why,
    },
    /// A sync returned without an error.
    SyncDone {
        /// The one that began under this name.
        sync: u64,
    },
    /// A name changed.
    Rename {
        /// The old one.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// A name was removed.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// The test says something about this moment.
    Mark {
        /// The test's own meaning.
        what: u32,
        /// The test's own meaning.
        value: u64,
    },
}

/// A step to leave out, as a program with that mistake would: a crash test must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// The sync before the log reports something as synced.
    Commit,
    /// The sync of the full segment when the log goes on in a new one.
    Roll,
    /// The sync of the directory when the log goes on in a new segment.
    RollDir,
    /// Writing the tail again at recovery; it is synced, but the pages are not dirty (H7).
    WriteAgain,
    /// The sync of what recovery wrote.
    Recover,
    /// The sync of a file before it takes another's place, or counts: a snapshot, or one of the files beside the log.
    Replace,
}

impl Skip {
    fn sync(self, why: Why, dir: bool) -> bool {
        match self {
            Self::Commit => why == Why::Commit,
            Self::Roll => why == Why::Roll && !dir,
            Self::RollDir => why == Why::Roll && dir,
            Self::WriteAgain => false,
            Self::Recover => why == Why::Recover,
            Self::Replace => why == Why::Replace && !dir,
        }
    }
}

type Inject = Box<dyn FnMut(&Op) -> Option<io::Error> + Send>;

/// The record of a run.
pub struct Recorder {
    noted: Mutex<Noted>,
    slow: Mutex<bool>,
    quick: Condvar,
    skip: Option<Skip>,
    physical: bool,
}

#[derive(Default)]
struct Noted {
    ops: Vec<Op>,
    names: u64,
    inject: Option<Inject>,
}

impl Default for Recorder {
    fn default() -> Self {
        Self {
            noted: Mutex::default(),
            slow: Mutex::new(false),
            quick: Condvar::new(),
            skip: None,
            physical: true,
        }
    }
}

impl Recorder {
    /// An empty record.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves one step out: the caller believes that it was done.
    #[must_use]
    pub fn skip(mut self, skip: Option<Skip>) -> Self {
        self.skip = skip;
        self
    }

    /// Notes syncs without asking the operating system for them: the record alone says what a crash leaves, and
    /// thousands of small recoveries take seconds instead of minutes.
    #[must_use]
    pub fn without_physical_sync(mut self) -> Self {
        self.physical = false;
        self
    }

    /// From now on `inject` sees each operation first, and may make it fail.
    pub fn inject(&self, inject: impl FnMut(&Op) -> Option<io::Error> + Send + 'static) {
        self.noted.lock().inject = Some(Box::new(inject));
    }

    /// No more injected errors.
    pub fn heal(&self) {
        self.noted.lock().inject = None;
    }

    /// While the disk is slow, a sync that a log waits for begins but does not end: what is written meanwhile piles up.
    pub fn slow(&self, slow: bool) {
        *self.slow.lock() = slow;
        self.quick.notify_all();
    }

    /// Notes the test's own remark.
    pub fn mark(&self, what: u32, value: u64) {
        self.noted.lock().ops.push(Op::Mark { what, value });
    }

    /// How many operations are noted.
    pub fn len(&self) -> usize {
        self.noted.lock().ops.len()
    }

    /// Whether nothing is noted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is noted up to now.
    pub fn ops(&self) -> Vec<Op> {
        self.noted.lock().ops.clone()
    }
}

impl Hook for Recorder {
    fn handle(&self) -> Handle {
        Handle(self.noted.lock().name())
    }

    /// Runs and notes it under the lock: so a write that is noted before a sync's start has returned before it too.
    fn run(&self, op: Op, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        let mut noted = self.noted.lock();
        noted.refuse(&op)?;
        run()?;
        let left_out =
            self.skip == Some(Skip::WriteAgain) && matches!(op, Op::Write { again: true, .. });
        if !left_out {
            noted.ops.push(op);
        }
        Ok(())
    }

    fn sync(
        &self,
        of: Synced,
        why: Why,
        run: &mut dyn FnMut() -> io::Result<()>,
    ) -> io::Result<()> {
        let dir = matches!(of, Synced::Dir(_));
        let sync = {
            let mut noted = self.noted.lock();
            let sync = noted.name();
            let op = match of {
                Synced::File(handle) => Op::SyncStart { sync, handle, why },
                Synced::Dir(dir) => Op::SyncDirStart { sync, dir, why },
            };
            noted.refuse(&op)?;
            if self.skip.is_some_and(|skip| skip.sync(why, dir)) {
                return Ok(());
            }
            noted.ops.push(op);
            sync
        };
        if matches!(why, Why::Commit | Why::Roll) {
            self.quick.wait_while(&mut self.slow.lock(), |slow| *slow);
        }
        if self.physical {
            run()?;
        }
        self.noted.lock().ops.push(Op::SyncDone { sync });
        Ok(())
    }
}

impl Noted {
    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    fn refuse(&mut self, op: &Op) -> io::Result<()> {
        match self.inject.as_mut().and_then(|inject| inject(op)) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
