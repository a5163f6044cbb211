//! Writing the blocks of a new log's first segment ahead, while it is in use already: a log can be used at once, and
//! its syncs are soon as quick as in any other segment.
//!
//! **Invariant**: zeroes are written only behind the end, under the append lock, a little at a time.

use parking_lot::MutexGuard;

use super::shared::Shared;
use super::spare;
use crate::fs::Why;

/// Written under one hold of the lock: tens of microseconds.
const CHUNK: u64 = 256 << 10;

impl Shared {
    /// Fills the segment with this number behind its end, unless the log leaves it before.
    pub(super) fn fill(&self, number: u64) {
        let (mut at, mut unsynced) = (0, 0);
        loop {
            let appender = self.append.lock();
            at = appender.at.max(at);
            if appender.closed || appender.segment.number != number || at >= self.length {
                return;
            }
            let end = self.length.min(at + CHUNK);
            let file = appender.segment.clone();
            let written = spare::zero(&file.file, at..end, &|| false);
            MutexGuard::unlock_fair(appender);
            if let Err(error) = written {
                // The appends that need the space will say so.
                tracing::warn!(dir = %self.dir.display(), %error, "the segment cannot be written ahead");
                return;
            }
            unsynced += end - at;
            at = end;
            if unsynced >= spare::AT_ONCE || at == self.length {
                unsynced = 0;
                if let Err(error) = file.file.sync(Why::Prepare) {
                    // The pages may be those of appended batches as well (H7).
                    return self.syncing.fail(error);
                }
            }
        }
    }
}
