//! The Raft log and the vote, kept in a segment log of its own.
//!
//! Raft index `i` is offset `i + 1` of partition 0_0 (offsets begin at 1). Records: `Entry` (body: the entry), `Vote`
//! (the vote), `Truncate` (entries above the offset are void), `Purge` (entries up to the offset are gone; body: the id
//! of the last one), `Note` (how far the group had committed).
//!
//! **Invariants**
//! * A vote and every entry are synced before the library is told so; all writes come from the one core task, so votes
//!   and entries keep their order (O17).
//! * The checkpoint of each segment holds the vote, the last purged id and the committed id: giving a segment back
//!   never loses them. The purge itself is synced before a segment goes.
//! * In memory stands where each entry is, and the last few entries themselves.
//! * How far the group had committed is a hint (O14): it rides on the next append and is never synced for itself.

mod tail;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader, StorageIOError};
use parking_lot::Mutex;
use prost::Message as _;
use stela_common::fs::Disk;
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{Kind, Log, NewRecord, Options, Position};
use stela_proto::raft as pb;

use super::codec;
use super::types::{Entry, LogId, StorageError, TypeConfig, Vote};
use crate::error::StartError;
use tail::Tail;

/// The only partition of this log.
const PARTITION: PartitionKey =
    PartitionKey { tid: stela_common::ids::TableId(0), pid: stela_common::ids::PartitionId(0) };
/// Entries handed out at once, in bytes: what one message to a follower carries.
const READ: usize = 2 << 20;

/// The Raft log. A clone is the same log.
#[derive(Clone)]
pub struct LogStore {
    inner: Arc<Inner>,
}

struct Inner {
    log: Log,
    batch: usize,
    tail: Mutex<Tail>,
    /// Dropped after the log: the lock of the directory.
    _keep: Arc<dyn Any + Send + Sync>,
}

/// The two ends of a log that was opened.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The last entry that is gone.
    pub purged: Option<LogId>,
    /// The last entry, or the last that is gone.
    pub last: Option<LogId>,
    /// Neither a vote nor an entry was ever written.
    pub pristine: bool,
}

impl LogStore {
    /// Opens or creates the log in `dir`. A failed sync ends the process by `on_fatal`; `keep` lives as long as anything
    /// is written.
    ///
    /// # Errors
    /// The log cannot be opened, or something that it must have is not there.
    pub fn open(
        dir: &Path,
        segment_bytes: u64,
        keep: Arc<dyn Any + Send + Sync>,
        on_fatal: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let options = Options { segment_bytes, ..Options::default() };
        let (log, recovery) = Log::open(Disk::real(), dir, options, on_fatal)
            .map_err(|e| StartError::Log(e.to_string()))?;
        let damaged = |what: String| StartError::Damaged { dir: dir.to_owned(), what };
        let mut tail = Tail::default();
        if let Some(blob) = &recovery.checkpoint {
            tail.restore(blob).map_err(damaged)?;
        }
        // Votes and entries alike may be gone, so nothing is let pass: another member has it all.
        if let Some(damage) = recovery.damage.first() {
            return Err(damaged(format!(
                "its log is damaged at byte {}: {}",
                damage.at, damage.reason
            )));
        }
        let mut walk = log.walk(Position(0));
        loop {
            let at = walk.position();
            let Some(record) = walk.next() else { break };
            tail.replay(&record, at).map_err(damaged)?;
        }
        let follows = match (tail.entries.front(), tail.purged) {
            (Some(first), Some(purged)) => first.id.index == purged.index + 1,
            (Some(first), None) => first.id.index == 0,
            (None, _) => true,
        };
        if !follows {
            return Err(damaged("its log misses entries behind the last purge".into()));
        }
        if let Some(committed) = tail.committed {
            // A hint that got ahead of the entries on this disk says no more than these.
            tail.committed = Some(committed.min(tail.last().unwrap_or(committed)));
        }
        tail.noted = tail.committed;
        log.set_checkpoint(tail.checkpoint());
        let batch = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
        Ok(Self { inner: Arc::new(Inner { log, batch, tail: Mutex::new(tail), _keep: keep }) })
    }

    /// A process that starts leads nothing, also if its predecessor on this disk led: the library would go on in that
    /// term with no entry of its own in it, and answer reads at the committed index that was noted last, which may lie
    /// below what was acknowledged. So its own leadership counts as a candidacy that came to nothing; votes still grow.
    pub fn forget_leadership(&self, node: u64) {
        let mut tail = self.inner.tail.lock();
        if let Some(vote) = tail.vote.as_mut().filter(|v| v.leader_id.node_id == node) {
            vote.committed = false;
        }
    }

    /// Where it begins and ends.
    #[must_use]
    pub fn ends(&self) -> Ends {
        let tail = self.inner.tail.lock();
        let pristine = tail.vote.is_none() && tail.purged.is_none() && tail.entries.is_empty();
        Ends { purged: tail.purged, last: tail.last(), pristine }
    }

    /// The id of the entry at `index`, if it is in the log.
    #[must_use]
    pub fn id_at(&self, index: u64) -> Option<LogId> {
        let tail = self.inner.tail.lock();
        if let Some(purged) = tail.purged.filter(|p| p.index == index) {
            return Some(purged);
        }
        tail.position_of(index).map(|at| tail.entries[at].id)
    }

    /// Its size on disk, bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inner.log.size().bytes
    }

    /// Clean stop.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> io::Result<()> {
        self.inner.log.close()
    }

    /// One record that is not an entry.
    fn write(&self, kind: Kind, offset: u64, epoch: u64, body: &[u8]) -> io::Result<()> {
        let body = [body];
        let record = NewRecord {
            kind,
            partition: PARTITION,
            offset: Offset(offset),
            epoch: Epoch(epoch),
            commit_lag: 0,
            body: &body,
        };
        self.inner.log.append(&[record]).map(drop).map_err(io::Error::other)
    }

    /// Waits until everything that was appended is on disk.
    async fn synced(&self) -> io::Result<()> {
        let end = self.inner.log.end();
        let mut synced = self.inner.log.watch_synced();
        synced
            .wait_for(|at| *at >= end)
            .await
            .map(drop)
            .map_err(|_| io::Error::other("the log has stopped"))
    }

    fn append_entries(&self, entries: Vec<Entry>) -> io::Result<()> {
        let mut tail = self.inner.tail.lock();
        for entry in &entries {
            if let openraft::EntryPayload::Normal(payload) = &entry.payload {
                payload.set_logged();
            }
        }
        let note = (tail.committed != tail.noted).then(|| {
            tail.noted = tail.committed;
            pb::SnapshotMeta {
                last: tail.committed.as_ref().map(codec::log_id),
                ..Default::default()
            }
            .encode_to_vec()
        });
        let bodies: Vec<Vec<u8>> = entries.iter().map(codec::entry_bytes).collect();
        let mut rest: VecDeque<(Entry, &[u8])> =
            entries.into_iter().zip(bodies.iter().map(Vec::as_slice)).collect();
        let note_body = note.as_deref().map(|n| [n]);
        let mut note_record = note_body.as_ref().map(|body| NewRecord {
            kind: Kind::Note,
            partition: PARTITION,
            offset: Offset(0),
            epoch: Epoch(0),
            commit_lag: 0,
            body,
        });
        while !rest.is_empty() {
            // A batch must fit into a segment.
            let mut size = 0;
            let count = rest
                .iter()
                .take_while(|(_, b)| {
                    size += b.len() + 64;
                    size <= self.inner.batch
                })
                .count()
                .max(1);
            let part: Vec<(Entry, [&[u8]; 1])> =
                rest.drain(..count).map(|(e, b)| (e, [b])).collect();
            let mut records: Vec<NewRecord<'_>> = part
                .iter()
                .map(|(e, body)| NewRecord {
                    kind: Kind::Entry,
                    partition: PARTITION,
                    offset: Offset(e.log_id.index + 1),
                    epoch: Epoch(e.log_id.leader_id.term),
                    commit_lag: 0,
                    body,
                })
                .collect();
            records.extend(note_record.take());
            let appended = self.inner.log.append(&records).map_err(io::Error::other)?;
            drop(records);
            for ((entry, [body]), at) in part.into_iter().zip(appended.positions.iter()) {
                tail.push(entry.log_id, *at, Some((entry, body.len())));
            }
        }
        Ok(())
    }

    fn entry_at(&self, tail: &Tail, at: usize) -> Result<Entry, StorageError> {
        let slot = &tail.entries[at];
        if let Some((entry, _)) = &slot.entry {
            return Ok(entry.clone());
        }
        let wrong = |e: String| {
            StorageError::from(StorageIOError::read_log_at_index(
                slot.id.index,
                &io::Error::other(e),
            ))
        };
        let record = self.inner.log.read(slot.at).map_err(|e| wrong(e.to_string()))?;
        let entry = codec::entry_from(Bytes::copy_from_slice(record.body()))
            .map_err(|e| wrong(e.to_string()))?;
        if entry.log_id != slot.id {
            return Err(wrong(format!(
                "the log holds {} at the place of {}",
                entry.log_id, slot.id
            )));
        }
        Ok(entry)
    }

    fn entries(&self, from: u64, to: u64, bytes: usize) -> Result<Vec<Entry>, StorageError> {
        let tail = self.inner.tail.lock();
        let from = from.max(tail.first());
        let mut found = Vec::new();
        let mut size = 0;
        for index in from..to {
            let Some(at) = tail.position_of(index) else { break };
            let entry = self.entry_at(&tail, at)?;
            size += match &entry.payload {
                openraft::EntryPayload::Normal(payload) => payload.bytes().len() + 64,
                _ => 256,
            };
            if size > bytes && !found.is_empty() {
                break;
            }
            found.push(entry);
        }
        Ok(found)
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        let from = match range.start_bound() {
            Bound::Included(i) => *i,
            Bound::Excluded(i) => i.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(i) => i.saturating_add(1),
            Bound::Excluded(i) => *i,
            Bound::Unbounded => u64::MAX,
        };
        self.entries(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError> {
        self.entries(start, end, READ)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let ends = self.ends();
        Ok(LogState { last_purged_log_id: ends.purged, last_log_id: ends.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError> {
        let body = codec::vote(vote).encode_to_vec();
        let blob = {
            let mut tail = self.inner.tail.lock();
            tail.vote = Some(*vote);
            tail.checkpoint()
        };
        let wrong = |e: io::Error| StorageIOError::write_vote(&e);
        self.write(Kind::Vote, 0, vote.leader_id.term, &body).map_err(wrong)?;
        self.inner.log.set_checkpoint(blob);
        self.synced().await.map_err(wrong)?;
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError> {
        Ok(self.inner.tail.lock().vote)
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError> {
        self.inner.tail.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError> {
        Ok(self.inner.tail.lock().committed)
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<TypeConfig>,
    ) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        self.append_entries(entries).map_err(|e| StorageIOError::write_logs(&e))?;
        // The core awaits the callback inline (O1): nothing is won by another task.
        callback.log_io_completed(self.synced().await);
        Ok(())
    }

    async fn truncate(&mut self, since: LogId) -> Result<(), StorageError> {
        self.write(Kind::Truncate, since.index, since.leader_id.term, &[])
            .map_err(|e| StorageIOError::write_logs(&e))?;
        self.inner.tail.lock().truncate(since.index);
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), StorageError> {
        let wrong = |e: io::Error| StorageIOError::write_logs(&e);
        let body = codec::log_id(&upto).encode_to_vec();
        self.write(Kind::Purge, upto.index + 1, upto.leader_id.term, &body).map_err(wrong)?;
        let (blob, keep) = {
            let mut tail = self.inner.tail.lock();
            tail.purge(upto);
            (tail.checkpoint(), tail.entries.front().map(|s| s.at))
        };
        self.inner.log.set_checkpoint(blob);
        self.synced().await.map_err(wrong)?;
        let keep = keep.unwrap_or_else(|| self.inner.log.end());
        self.inner.log.purge(keep).map_err(wrong)?;
        Ok(())
    }
}
