//! What stands in memory of the log: where each entry is, the last few entries themselves, and what the checkpoint of
//! a segment has to say.
//!
//! **Invariants**
//! * It is a function of the records: replaying them gives the same picture, whether or not the oldest segments are gone
//!   and their checkpoint speaks for them.
//! * The entries follow each other without holes, and begin behind the last one purged.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use stela_common::log::{Kind, Position, Record};
use stela_proto::raft as pb;

use super::super::codec;
use super::super::types::{Entry, LogId, Vote};
use super::PARTITION;

/// Decoded entries that are kept in memory, in bytes of their encoding.
const CACHE: usize = 4 << 20;

/// What stands in memory of the log.
#[derive(Default)]
pub(super) struct Tail {
    pub(super) entries: VecDeque<Slot>,
    /// Bytes of the entries that are kept decoded.
    cached: usize,
    /// The first that is.
    cached_from: usize,
    pub(super) vote: Option<Vote>,
    pub(super) purged: Option<LogId>,
    pub(super) committed: Option<LogId>,
    /// What the log says of `committed`.
    pub(super) noted: Option<LogId>,
}

/// One entry.
pub(super) struct Slot {
    pub(super) id: LogId,
    pub(super) at: Position,
    /// Decoded, with the length of its encoding.
    pub(super) entry: Option<(Entry, usize)>,
}

impl Tail {
    pub(super) fn first(&self) -> u64 {
        self.entries.front().map_or_else(|| self.purged.map_or(0, |p| p.index + 1), |s| s.id.index)
    }

    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|s| s.id).or(self.purged)
    }

    pub(super) fn position_of(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.entries.front()?.id.index)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    pub(super) fn push(&mut self, id: LogId, at: Position, entry: Option<(Entry, usize)>) {
        self.cached += entry.as_ref().map_or(0, |e| e.1);
        self.entries.push_back(Slot { id, at, entry });
        while self.cached > CACHE && self.cached_from + 1 < self.entries.len() {
            self.cached -= self.entries[self.cached_from].entry.take().map_or(0, |e| e.1);
            self.cached_from += 1;
        }
    }

    /// Takes back the entries from `index` on.
    pub(super) fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|s| s.id.index >= index) {
            if let Some(slot) = self.entries.pop_back() {
                self.cached -= slot.entry.map_or(0, |e| e.1);
            }
        }
        self.cached_from = self.cached_from.min(self.entries.len());
    }

    /// Forgets the entries up to `id`.
    pub(super) fn purge(&mut self, id: LogId) {
        while self.entries.front().is_some_and(|s| s.id.index <= id.index) {
            if let Some(slot) = self.entries.pop_front() {
                self.cached -= slot.entry.map_or(0, |e| e.1);
            }
            self.cached_from = self.cached_from.saturating_sub(1);
        }
        if self.purged.is_none_or(|p| p.index < id.index) {
            self.purged = Some(id);
        }
    }

    /// The blob that each new segment begins with.
    pub(super) fn checkpoint(&self) -> Vec<u8> {
        let id = |id: &Option<LogId>| pb::SnapshotMeta {
            last: id.as_ref().map(codec::log_id),
            ..Default::default()
        };
        pb::SnapshotChunk {
            vote: self.vote.as_ref().map(codec::vote),
            meta: Some(id(&self.purged)),
            data: id(&self.committed).encode_to_vec().into(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    pub(super) fn restore(&mut self, blob: &[u8]) -> Result<(), String> {
        let decode =
            |e: prost::DecodeError| format!("the checkpoint of its log is not readable: {e}");
        let chunk = pb::SnapshotChunk::decode(blob).map_err(decode)?;
        self.vote = chunk.vote.as_ref().map(codec::vote_of);
        self.purged = chunk.meta.and_then(|m| m.last).as_ref().map(codec::log_id_of);
        let committed = pb::SnapshotMeta::decode(chunk.data).map_err(decode)?;
        self.committed = committed.last.as_ref().map(codec::log_id_of);
        Ok(())
    }

    /// Takes one record into the picture of the log.
    pub(super) fn replay(&mut self, record: &Record<'_>, at: Position) -> Result<(), String> {
        if record.partition != PARTITION {
            return Err(format!(
                "its log holds a record of partition {}: it is a tablet's",
                record.partition
            ));
        }
        let unreadable =
            |what: &str| format!("its log holds {what} at byte {} that is not readable", at.0);
        match record.kind {
            Kind::Entry => {
                // The id alone: entries are decoded when they are asked for.
                let entry = codec::entry_from(Bytes::copy_from_slice(record.body))
                    .map_err(|_| unreadable("an entry"))?;
                let id = entry.log_id;
                self.truncate(id.index);
                if self.purged.is_some_and(|p| id.index <= p.index) {
                    return Ok(());
                }
                if let Some(last) = self.entries.back().map(|s| s.id)
                    && id.index != last.index + 1
                {
                    return Err(format!(
                        "its log has entry {} after entry {}",
                        id.index, last.index
                    ));
                }
                self.push(id, at, None);
            }
            Kind::Vote => {
                let vote = pb::Vote::decode(record.body).map_err(|_| unreadable("a vote"))?;
                let vote = codec::vote_of(&vote);
                if self.vote.is_none_or(|v| v <= vote) {
                    self.vote = Some(vote);
                }
            }
            Kind::Truncate => self.truncate(record.offset.0),
            Kind::Purge => {
                let id = pb::LogId::decode(record.body).map_err(|_| unreadable("a purge"))?;
                self.purge(codec::log_id_of(&id));
            }
            Kind::Note => {
                let note =
                    pb::SnapshotMeta::decode(record.body).map_err(|_| unreadable("a note"))?;
                self.committed = self.committed.max(note.last.as_ref().map(codec::log_id_of));
            }
            _ => {}
        }
        Ok(())
    }
}
