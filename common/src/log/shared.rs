//! What the handles and the threads of one log share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::append::{Appender, Draft};
use super::segment::Segment;
use super::spare::Spares;
use super::sync::Syncing;
use super::{LogId, Position};
use crate::fs::Disk;

/// One open log.
///
/// Lock order: `purge`, `append`, spares, `syncing`, `segments`. No lock is held over a sync but `purge`.
pub(super) struct Shared {
    pub(super) disk: Disk,
    pub(super) dir: PathBuf,
    pub(super) id: LogId,
    /// The length of each segment.
    pub(super) length: u64,
    /// Behind the last appended batch. Stored (Release) after its bytes are written: who loads it (Acquire) may
    /// read them.
    pub(super) end: AtomicU64,
    pub(super) segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    pub(super) append: Mutex<Appender>,
    pub(super) spares: Spares,
    pub(super) syncing: Syncing,
    pub(super) checkpoint: Mutex<Option<Vec<u8>>>,
    pub(super) purge: Mutex<()>,
    /// Buffers of earlier batches.
    pub(super) drafts: Mutex<Vec<Draft>>,
}

impl Shared {
    #[inline]
    pub(super) fn end(&self) -> Position {
        Position(self.end.load(Ordering::Acquire))
    }

    /// The oldest kept byte: the begin of the oldest segment.
    pub(super) fn start(&self) -> Position {
        Position(
            self.segments.read().first_key_value().map_or(0, |(number, _)| number * self.length),
        )
    }

    /// The segment that holds `at`.
    #[inline]
    pub(super) fn segment(&self, at: Position) -> Option<Arc<Segment>> {
        self.segments.read().get(&(at.0 / self.length)).cloned()
    }

    /// The first segment with this number or a higher one.
    pub(super) fn segment_from(&self, number: u64) -> Option<Arc<Segment>> {
        self.segments.read().range(number..).next().map(|(_, segment)| segment.clone())
    }
}
