//! What may stand between the program and its disk: for tests only. Nothing that is shipped installs one.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::{Handle, Op, Why};

/// What a sync is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Synced {
    /// An open file's bytes and length.
    File(Handle),
    /// The names in a directory.
    Dir(PathBuf),
}

/// Sees every operation before it is run, runs it or lets it fail.
pub trait Hook: Send + Sync {
    /// A name for a file that is about to be opened.
    fn handle(&self) -> Handle;

    /// An operation that is no sync. `run` carries it out, and is called at most once.
    ///
    /// # Errors
    /// Of the operation, or an invented one.
    fn run(&self, op: Op, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()>;

    /// A sync. `run` carries it out, and is called at most once.
    ///
    /// # Errors
    /// Of the sync, or an invented one.
    fn sync(&self, of: Synced, why: Why, run: &mut dyn FnMut() -> io::Result<()>)
    -> io::Result<()>;

    /// (bytes free, bytes in all), given what the operating system says.
    fn free_bytes(&self, real: (u64, u64)) -> (u64, u64) {
        real
    }
}

static PROCESS: OnceLock<Arc<dyn Hook>> = OnceLock::new();

/// From now on every disk of this process that is called real has this hook. Only the first one counts; tells whether it
/// was this one.
pub fn install_hook(hook: Arc<dyn Hook>) -> bool {
    PROCESS.set(hook).is_ok()
}

pub(super) fn of_the_process() -> Option<Arc<dyn Hook>> {
    PROCESS.get().cloned()
}
