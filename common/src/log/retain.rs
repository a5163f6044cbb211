//! Giving space back: whole segments, the oldest first.
//!
//! **Invariants**
//! * A segment goes only when the one behind it is synced, whose first record says what the owner and the log need of
//!   all before (R30).
//! * One at a time, each synced before the next: a crash never leaves a hole in the row.
//! * A file is recycled only if nobody reads it any more; else its name goes and the file follows with its last reader.

use std::io;
use std::sync::Arc;

use super::segment::Segment;
use super::shared::Shared;
use super::spare::Spare;
use super::{Position, files};
use crate::fs::Why;

impl Shared {
    pub(super) fn purge(&self, upto: Position) -> io::Result<()> {
        let _alone = self.purge.lock();
        // A position at the very end of a segment belongs to it.
        let synced = self.syncing.synced().0.saturating_sub(1) / self.length;
        let keep = synced.min(upto.0 / self.length);
        loop {
            let oldest = {
                let mut segments = self.segments.write();
                let Some(oldest) = segments.first_entry().filter(|oldest| *oldest.key() < keep)
                else {
                    return Ok(());
                };
                oldest.remove()
            };
            if let Some(fatal) = self.syncing.fatal() {
                self.segments.write().insert(oldest.number, oldest);
                return Err(fatal.into());
            }
            self.free(oldest)?;
        }
    }

    fn free(&self, segment: Arc<Segment>) -> io::Result<()> {
        let path = files::segment(&self.dir, segment.number);
        // It is out of the list: if it is ours alone, it stays so.
        let spare = if Arc::strong_count(&segment) == 1 { self.spares.wanted() } else { None };
        let freed = match &spare {
            Some(to) => self.disk.rename(&path, to),
            None => self.disk.remove_file(&path),
        };
        if let Err(error) = freed {
            // Still on disk, so still in the row.
            self.segments.write().insert(segment.number, segment);
            return Err(error);
        }
        if let Err(error) = self.disk.sync_dir(&self.dir, Why::Purge) {
            let told = io::Error::new(error.kind(), error.to_string());
            self.syncing.fail(error);
            return Err(told);
        }
        match (spare, Arc::into_inner(segment)) {
            (Some(path), Some(Segment { file, .. })) => self.spares.put(Spare { path, file }),
            _ => self.spares.retry(),
        }
        Ok(())
    }
}
