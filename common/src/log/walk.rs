//! Reading: one record by its place, or all from a place on. No copies, no locks but a short look at the list of
//! segments.
//!
//! **Invariants**
//! * Only bytes below the published end are touched; a record that was handed out keeps its segment's map alive, and a
//!   segment that somebody reads is not recycled.
//! * The log's own records are not shown. Damaged places are passed over: recovery reported them.

use std::ops::Range;
use std::sync::Arc;

use super::record::{self, Kind, Record};
use super::segment::{HEADER, Segment};
use super::shared::Shared;
use super::{Position, ReadError, batch};
use crate::ids::{Epoch, Offset, PartitionKey};

/// A record that lives as long as it is needed.
#[derive(Clone)]
pub struct RecordRef {
    segment: Arc<Segment>,
    range: Range<u64>,
    kind: Kind,
    partition: PartitionKey,
    offset: Offset,
    epoch: Epoch,
    commit_lag: u32,
}

impl RecordRef {
    /// Where it is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.segment.position(self.range.start)
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The partition that it is about.
    #[must_use]
    pub fn partition(&self) -> PartitionKey {
        self.partition
    }

    /// See [`Kind`].
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.offset
    }

    /// See [`Kind`].
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// See [`NewRecord::commit_lag`](super::NewRecord::commit_lag).
    #[must_use]
    pub fn commit_lag(&self) -> u32 {
        self.commit_lag
    }

    /// Header and body as on disk, checksum included.
    #[inline]
    #[must_use]
    pub fn raw(&self) -> &[u8] {
        self.segment.bytes(self.range.clone()).unwrap_or_default()
    }

    /// The body.
    #[inline]
    #[must_use]
    pub fn body(&self) -> &[u8] {
        self.raw().get(record::RECORD_HEADER..).unwrap_or_default()
    }
}

impl std::fmt::Debug for RecordRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} {} {}@{} {:?}",
            self.kind,
            self.partition,
            self.offset,
            self.epoch,
            self.position()
        )
    }
}

/// A segment that stays as it is for as long as somebody holds it: for who keeps places inside of records, e.g. of values,
/// and reads them without asking the log again.
#[derive(Clone)]
pub struct SegmentRef {
    segment: Arc<Segment>,
    limit: u64,
}

impl SegmentRef {
    /// The bytes from a place on, as far as they were there when it was taken; `None`: the place is not in this segment,
    /// or damaged.
    #[inline]
    #[must_use]
    pub fn from(&self, at: Position) -> Option<&[u8]> {
        let byte = at.0.checked_sub(self.segment.base)?;
        if byte < HEADER || byte > self.limit || self.segment.hole(byte).is_some() {
            return None;
        }
        self.segment.bytes(byte..self.limit)
    }

    /// Has the processor fetch the first bytes of the record that begins there, while it does something else.
    #[inline]
    pub fn fetch(&self, at: Position) {
        if let Some(byte) = at.0.checked_sub(self.segment.base) {
            self.segment.map.fetch(byte as usize);
        }
    }

    /// The record that begins there.
    #[inline]
    #[must_use]
    pub fn record(&self, at: Position) -> Option<Record<'_>> {
        let bytes = self.from(at).filter(|bytes| !batch::begins(bytes))?;
        record::decode(bytes).ok()
    }
}

impl std::fmt::Debug for SegmentRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SegmentRef({})", self.segment.number)
    }
}

impl Shared {
    #[inline]
    pub(super) fn hold(&self, at: Position) -> Result<SegmentRef, ReadError> {
        let (segment, _, limit) = self.locate(at)?;
        Ok(SegmentRef { segment, limit })
    }

    #[inline]
    pub(super) fn read(&self, at: Position) -> Result<RecordRef, ReadError> {
        let (segment, byte, limit) = self.locate(at)?;
        let absent = Err(ReadError::Absent { at });
        let Some(bytes) = segment.bytes(byte..limit) else { return absent };
        if batch::begins(bytes) {
            return absent;
        }
        let Ok(record) = record::decode(bytes) else { return absent };
        Ok(RecordRef {
            range: byte..byte + record.raw.len() as u64,
            kind: record.kind,
            partition: record.partition,
            offset: record.offset,
            epoch: record.epoch,
            commit_lag: record.commit_lag,
            segment,
        })
    }

    /// The segment that holds `at`, the byte in it, and where its visible bytes end.
    #[inline]
    fn locate(&self, at: Position) -> Result<(Arc<Segment>, u64, u64), ReadError> {
        let end = self.end();
        let Some(segment) = self.segment(at) else {
            let start = self.start();
            return Err(if at < start {
                ReadError::Purged { at, start }
            } else {
                ReadError::Absent { at }
            });
        };
        let byte = at.0 - segment.base;
        if byte < HEADER || segment.hole(byte).is_some() {
            return Err(ReadError::Absent { at });
        }
        let limit = segment.end(end).0;
        Ok((segment, byte, limit))
    }
}

/// A walk through the log. It may go on when more was appended.
pub struct Walk {
    log: Arc<Shared>,
    at: Position,
    segment: Option<Arc<Segment>>,
}

impl Walk {
    pub(super) fn new(log: Arc<Shared>, from: Position) -> Self {
        Self { log, at: from, segment: None }
    }

    /// The next record; `None` at the end of the log, for now.
    #[allow(clippy::should_implement_trait)] // it lends
    pub fn next(&mut self) -> Option<Record<'_>> {
        self.next_at().map(|(_, record)| record)
    }

    /// The next record with its place.
    pub fn next_at(&mut self) -> Option<(Position, Record<'_>)> {
        let behind = self.settle()?;
        let at = std::mem::replace(&mut self.at, behind);
        let segment = self.segment.as_deref()?;
        let bytes = segment.bytes(at.0 - segment.base..behind.0 - segment.base)?;
        Some((at, record::decode(bytes).ok()?))
    }

    /// The place of the record that [`next`](Self::next) returns next; the end of the log if there is none yet.
    pub fn position(&mut self) -> Position {
        if self.settle().is_none() {
            self.at = self.at.max(self.log.end());
        }
        self.at
    }

    /// Moves on to a record of the owner's; returns the place behind it.
    fn settle(&mut self) -> Option<Position> {
        loop {
            // Before the look at the segment: one that is sealed meanwhile ends where it ended for this end.
            let end = self.log.end();
            let segment = match self.segment.take() {
                Some(segment) => segment,
                None => self.log.segment_from(self.at.0 / self.log.length)?,
            };
            self.at = self.at.max(segment.position(HEADER));
            let (limit, sealed) = segment.end(end);
            let mut byte = self.at.0 - segment.base;
            while let Some((start, record)) = segment.record(byte, limit) {
                byte = start + record.raw.len() as u64;
                if record.kind != Kind::Ends {
                    let behind = segment.position(byte);
                    self.at = segment.position(start);
                    self.segment = Some(segment);
                    return Some(behind);
                }
            }
            self.at = segment.position(byte.max(limit));
            let next = if sealed { self.log.segment_from(segment.number + 1) } else { None };
            if next.is_none() {
                self.segment = Some(segment);
                return None;
            }
            self.segment = next;
        }
    }
}
