//! Making what was found certain, before anything of it is reported (R24, H7).
//!
//! Three steps, each durable before the next:
//! 1. The valid tail, from the largest mark on, is written again in place. Its bytes may be in the page cache only, and
//!    the pages may be clean after a failed sync: written again they are dirty, and a sync means something. The names of
//!    the segments are synced with it.
//! 2. Behind it a batch without records says that everything before is synced. From here on what was known only from
//!    marks in the torn part is known from it, and a clean stop is over (R14).
//! 3. What lies behind is zeroed, up to the end of the segment, and segments behind it are removed: nothing of this
//!    segment's life comes back behind later appends (H6).
//!
//! **Crash story**: a crash in between leaves a log that the next recovery treats in the same way: what is cut was never
//! reported.

use std::path::Path;

use super::batch::{self, BATCH_HEADER};
use super::plan::Plan;
use super::scan::{Found, Scan};
use super::{OpenError, Position, spare};
use crate::fs::{Disk, Why};

const CHUNK: usize = 1 << 20;

/// Does it; the last kept segment ends behind the mark then.
pub(super) fn repair(
    disk: &Disk,
    dir: &Path,
    scan: &Scan,
    plan: &mut Plan,
) -> Result<(), OpenError> {
    for found in &plan.kept {
        write_again(found, plan.tail, scan.length)?;
    }
    disk.sync_dir(dir, Why::Recover).map_err(OpenError::io(dir))?;
    let whole = plan.clean && plan.torn.is_none();
    if let Some(last) = plan.kept.last_mut() {
        let io = |last: &Found| OpenError::io(&last.path);
        // A file that is too short stays so, as evidence: the log goes on in the next one.
        if last.end + BATCH_HEADER as u64 <= scan.length {
            let at = Position(last.number * scan.length + last.end);
            let mut mark = vec![0; BATCH_HEADER];
            batch::seal(&mut mark, 0, 0, scan.seed(last.number), at, at);
            last.file.write_at(&mark, last.end).map_err(io(last))?;
            last.file.sync(Why::Recover).map_err(io(last))?;
            last.end += BATCH_HEADER as u64;
        }
        if !whole {
            spare::zero(&last.file, last.end..scan.length, &|| false).map_err(io(last))?;
            last.file.sync(Why::Recover).map_err(io(last))?;
        }
    }
    for found in &plan.dropped {
        disk.remove_file(&found.path).map_err(OpenError::io(&found.path))?;
    }
    if plan.dropped.is_empty() {
        return Ok(());
    }
    disk.sync_dir(dir, Why::Recover).map_err(OpenError::io(dir))
}

fn write_again(found: &Found, tail: Position, length: u64) -> Result<(), OpenError> {
    let from = tail.0.saturating_sub(found.number * length);
    let end = found.end.min(found.map.len() as u64);
    if from >= end {
        return Ok(());
    }
    let io = || OpenError::io(&found.path);
    let mut chunk = vec![0; CHUNK];
    let mut at = from;
    while at < end {
        // At most CHUNK: no truncation.
        let len = (end - at).min(CHUNK as u64) as usize;
        found.file.read_at(&mut chunk[..len], at).map_err(io())?;
        found.file.write_again_at(&chunk[..len], at).map_err(io())?;
        at += len as u64;
    }
    found.file.sync(Why::Recover).map_err(io())
}
