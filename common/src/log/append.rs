//! Appending: one batch, one `pwrite`, under one lock that is held for nothing else.
//!
//! **Invariants**
//! * All or nothing: the end moves, and readers see the batch, only after the whole write succeeded; the next batch
//!   overwrites what a failed one left.
//! * A roll writes header, the log's own first batch and the owner's batch to a spare before the spare gets the
//!   segment's name; the old segment and the directory are queued for sync before the end moves (R24, H36).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::batch::{self, BATCH_HEADER, Seed};
use super::ends::Ends;
use super::record::{self, CHECKPOINT, CLEAN, Kind, Malformed, NewRecord};
use super::segment::{HEADER, Header, Segment};
use super::shared::Shared;
use super::{AppendError, LogId, Map, Position};
use crate::ids::{Offset, PartitionKey};

/// One record of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// To be made here.
    New(NewRecord<'a>),
    /// Made elsewhere and verified by [`parse`](super::parse): exactly one record, whose bytes go to disk unchanged.
    Raw(&'a [u8]),
}

/// What an append did. The records are not synced yet.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Appended {
    /// Where each record is.
    pub positions: Vec<Position>,
    /// Behind the batch: the records are safe when [`Log::synced`](super::Log::synced) reaches it.
    pub end: Position,
}

/// A batch in the making: its bytes, the header still free.
#[derive(Default)]
pub(super) struct Draft {
    bytes: Vec<u8>,
    /// Where each record begins.
    starts: Vec<usize>,
    crc: u32,
}

impl Draft {
    fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(BATCH_HEADER, 0);
        self.starts.clear();
        self.crc = 0;
    }

    fn empty() -> Self {
        let mut draft = Self::default();
        draft.clear();
        draft
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), Malformed> {
        let start = self.bytes.len();
        let crc = match piece {
            Piece::New(NewRecord { kind: Kind::Ends, .. }) => {
                return Err(Malformed("a kind that only the log writes"));
            }
            Piece::New(new) => record::encode(&mut self.bytes, new, 0)?,
            Piece::Raw(raw) => {
                let one =
                    record::decode(raw).map_err(|_| Malformed("a raw piece is not a record"))?;
                if one.raw.len() != raw.len() {
                    return Err(Malformed("a raw piece is more than one record"));
                }
                if one.kind == Kind::Ends {
                    return Err(Malformed("a kind that only the log writes"));
                }
                self.bytes.extend_from_slice(raw);
                record::stored_crc(raw)
            }
        };
        self.added(start, crc);
        Ok(())
    }

    fn own(&mut self, flags: u8, offset: Offset, body: &[u8]) -> Result<(), Malformed> {
        let start = self.bytes.len();
        let record = NewRecord {
            kind: Kind::Ends,
            partition: PartitionKey::default(),
            offset,
            epoch: crate::ids::Epoch(0),
            commit_lag: 0,
            body: &[body],
        };
        let crc = record::encode(&mut self.bytes, &record, flags)?;
        self.added(start, crc);
        Ok(())
    }

    fn added(&mut self, start: usize, crc: u32) {
        self.starts.push(start);
        self.crc = batch::add(self.crc, crc);
    }

    fn seal(&mut self, seed: Seed, at: Position, mark: Position) {
        // A batch is below 4 GiB, so are its records in number.
        batch::seal(&mut self.bytes, self.starts.len() as u32, self.crc, seed, at, mark);
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// The log's first batch of each segment: where the segment before ended, all ends (R30), the owner's checkpoint.
fn opening(previous: Position, ends: &Ends, checkpoint: Option<&[u8]>) -> Result<Draft, Malformed> {
    let mut draft = Draft::empty();
    draft.own(0, Offset(previous.0), &ends.encode())?;
    if let Some(blob) = checkpoint {
        draft.own(CHECKPOINT, Offset(0), blob)?;
    }
    Ok(draft)
}

/// The bytes of a segment that has its header and first batch only.
pub(super) fn first_bytes(
    id: LogId,
    length: u64,
    number: u64,
    ends: &Ends,
    checkpoint: Option<&[u8]>,
) -> Result<Vec<u8>, Malformed> {
    let mut draft = opening(Position(0), ends, checkpoint)?;
    draft.seal(Seed::new(id, number), Position(number * length + HEADER), Position(0));
    let mut bytes = Header { id, number, length }.encode();
    bytes.extend_from_slice(&draft.bytes);
    Ok(bytes)
}

/// Where the next batch goes, and what is known about those before.
pub(super) struct Appender {
    pub(super) segment: Arc<Segment>,
    /// The next free byte of it.
    pub(super) at: u64,
    pub(super) seed: Seed,
    pub(super) ends: Ends,
    pub(super) closed: bool,
}

/// Bytes that stay free behind each batch, so that an idle mark always fits.
const RESERVE: u64 = BATCH_HEADER as u64;
/// Longer buffers are not kept.
const KEPT_BUFFER: usize = 4 << 20;

impl Shared {
    pub(super) fn append(
        &self,
        pieces: &[Piece<'_>],
        patience: Duration,
    ) -> Result<Appended, AppendError> {
        let mut draft = self.drafts.lock().pop().unwrap_or_default();
        draft.clear();
        let appended = self.append_draft(&mut draft, pieces, patience);
        if draft.bytes.capacity() <= KEPT_BUFFER {
            self.drafts.lock().push(draft);
        }
        appended
    }

    fn append_draft(
        &self,
        draft: &mut Draft,
        pieces: &[Piece<'_>],
        patience: Duration,
    ) -> Result<Appended, AppendError> {
        for piece in pieces {
            draft.piece(piece)?;
        }
        if pieces.is_empty() {
            return Ok(Appended { positions: Vec::new(), end: self.end() });
        }
        let mut appender = self.append.lock();
        if appender.closed {
            return Err(AppendError::Closed);
        }
        let at = self.put(&mut appender, draft)?;
        drop(appender);
        self.syncing.wake(patience);
        let positions = draft.starts.iter().map(|start| Position(at.0 + *start as u64)).collect();
        Ok(Appended { positions, end: Position(at.0 + draft.len()) })
    }

    /// Writes the batch; returns where it begins.
    fn put(&self, appender: &mut Appender, draft: &mut Draft) -> Result<Position, AppendError> {
        if let Some(fatal) = self.syncing.fatal() {
            return Err(fatal.into());
        }
        let room = self.length - HEADER - RESERVE;
        if draft.len() > room {
            return Err(AppendError::TooLarge { bytes: draft.len(), max: room });
        }
        let at = if appender.at + draft.len() + RESERVE > self.length {
            self.roll(appender, draft)?
        } else {
            self.put_here(appender, draft)?
        };
        for start in &draft.starts {
            if let Ok(record) = record::decode(&draft.bytes[*start..]) {
                appender.ends.apply(&record);
            }
        }
        self.end.store(appender.segment.base + appender.at, Ordering::Release);
        Ok(at)
    }

    fn put_here(
        &self,
        appender: &mut Appender,
        draft: &mut Draft,
    ) -> Result<Position, AppendError> {
        let at = appender.segment.position(appender.at);
        draft.seal(appender.seed, at, self.syncing.synced());
        if let Err(error) = appender.segment.file.write_at(&draft.bytes, appender.at) {
            // Best effort: without its header, what was written is nothing, also after a crash before the next batch.
            let _ = appender.segment.file.write_at(&[0; BATCH_HEADER], appender.at);
            return Err(error.into());
        }
        appender.at += draft.len();
        Ok(at)
    }

    /// Goes on in a new segment, of which this is the first batch behind the log's own.
    fn roll(&self, appender: &mut Appender, draft: &mut Draft) -> Result<Position, AppendError> {
        let number = appender.segment.number + 1;
        let base = number * self.length;
        let seed = Seed::new(self.id, number);
        let mark = self.syncing.synced();
        let checkpoint = self.checkpoint.lock().clone();
        let mut first =
            opening(appender.segment.position(appender.at), &appender.ends, checkpoint.as_deref())?;
        let at = HEADER + first.len();
        let end = at + draft.len();
        if end + RESERVE > self.length {
            let max = (self.length - RESERVE).saturating_sub(at);
            return Err(AppendError::TooLarge { bytes: draft.len(), max });
        }
        first.seal(seed, Position(base + HEADER), mark);
        draft.seal(seed, Position(base + at), mark);
        let mut bytes = Header { id: self.id, number, length: self.length }.encode();
        bytes.reserve(first.bytes.len() + draft.bytes.len());
        bytes.extend_from_slice(&first.bytes);
        bytes.extend_from_slice(&draft.bytes);

        let spare = self.spares.take()?;
        let map =
            spare.file.write_at(&bytes, 0).and_then(|()| Map::new(&spare.file)).and_then(|map| {
                self.disk.rename(&spare.path, &super::files::segment(&self.dir, number))?;
                Ok(map)
            });
        let map = match map {
            Ok(map) => map,
            Err(error) => {
                self.spares.discard(spare);
                return Err(error.into());
            }
        };
        let segment = Arc::new(Segment::new(number, self.length, spare.file, map));
        // Queued before the end moves: whoever syncs up to the new end syncs these first.
        self.syncing.rolled(appender.segment.clone(), segment.clone());
        appender.segment.seal(appender.at);
        self.segments.write().insert(number, segment.clone());
        appender.segment = segment;
        appender.seed = seed;
        appender.at = end;
        Ok(Position(base + at))
    }

    /// An empty batch that says how far the log is synced (R24); not if somebody is appending, which says it too.
    pub(super) fn mark_idle(&self) -> Option<Position> {
        let mut appender = self.append.try_lock()?;
        let here = appender.segment.position(appender.at);
        if appender.closed || self.syncing.synced() != here || appender.at + RESERVE > self.length {
            return None;
        }
        let mut mark = Draft::empty();
        match self.put_here(&mut appender, &mut mark) {
            Ok(_) => {
                let end = appender.segment.position(appender.at);
                self.end.store(end.0, Ordering::Release);
                Some(end)
            }
            Err(error) => {
                tracing::warn!(%error, "an idle log could not be marked");
                None
            }
        }
    }

    /// No more appends from here on; false if it was closed before.
    pub(super) fn shut(&self) -> bool {
        !std::mem::replace(&mut self.append.lock().closed, true)
    }

    /// The last record of a clean stop, for a log that was shut. Everything before it is synced: its mark says so.
    pub(super) fn put_clean(&self) -> Result<(), AppendError> {
        let mut appender = self.append.lock();
        let mut draft = Draft::empty();
        draft.own(CLEAN, Offset(0), &appender.ends.encode())?;
        self.put(&mut appender, &mut draft)?;
        drop(appender);
        self.syncing.wake(Duration::ZERO);
        Ok(())
    }
}
