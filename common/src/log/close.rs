//! The clean stop.
//!
//! **Invariant**: the clean mark is written when everything else is synced, the directory included, and no file is left
//! that a clean start must not take for a spare.

use std::io;

use super::shared::Shared;
use crate::fs::Why;

impl Shared {
    /// Ends a log that was shut; its threads still run.
    pub(super) fn close(&self) -> io::Result<()> {
        let _no_purge = self.purge.lock();
        self.syncing.wait(self.end())?;
        if let Some(left) = self.spares.left() {
            let text = format!(
                "{} could not be removed: the log is not marked as cleanly stopped",
                left.display()
            );
            return Err(io::Error::other(text));
        }
        if let Err(error) = self.disk.sync_dir(&self.dir, Why::Purge) {
            let told = io::Error::new(error.kind(), error.to_string());
            self.syncing.fail(error);
            return Err(told);
        }
        self.put_clean().map_err(io::Error::other)?;
        Ok(self.syncing.wait(self.end())?)
    }
}
