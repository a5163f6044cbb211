//! The log stays small, also when its entries are large.
//!
//! The library makes a snapshot after so many entries and purges behind it. This watches the bytes: when the log has
//! grown beyond its bound, a snapshot is made now, and everything behind it is purged.
//!
//! **Invariant**: purged is only what a snapshot on disk holds; the library checks it again.

use std::time::Duration;

use super::log::LogStore;
use super::types::{LogId, Raft};

/// The bound, in segments.
const SEGMENTS: u64 = 8;
const PAUSE: Duration = Duration::from_millis(500);

/// Watches until the library ends.
pub(super) async fn run(raft: Raft, log: LogStore, segment_bytes: u64) {
    let bound = segment_bytes.saturating_mul(SEGMENTS);
    let mut metrics = raft.metrics();
    loop {
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = metrics.wait_for(|m| m.running_state.is_err()) => return,
        }
        if log.bytes() <= bound {
            continue;
        }
        let (applied, snapshot, purged) = {
            let m = metrics.borrow();
            let index = |id: Option<LogId>| id.map_or(0, |id| id.index);
            (index(m.last_applied), index(m.snapshot), index(m.purged))
        };
        // Purge what the last snapshot holds; when that was done and the log is still large, make a new one.
        let done = if purged < snapshot {
            raft.trigger().purge_log(snapshot).await
        } else if snapshot < applied {
            raft.trigger().snapshot().await
        } else {
            Ok(())
        };
        if done.is_err() {
            return;
        }
    }
}
