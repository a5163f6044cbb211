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

/// The only partition of this log.
const PARTITION: PartitionKey =
    PartitionKey { tid: stela_common::ids::TableId(0), pid: stela_common::ids::PartitionId(0) };
/// Decoded entries that are kept in memory, in bytes of their encoding.
const CACHE: usize = 4 << 20;
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
}

/// What stands in memory of the log.
#[derive(Default)]
struct Tail {
    entries: VecDeque<Slot>,
    cached: usize,
    cached_from: usize,
    vote: Option<Vote>,
    purged: Option<LogId>,
    committed: Option<LogId>,
    noted: Option<LogId>,
}

struct Slot {
    id: LogId,
    at: Position,
    entry: Option<(Entry, usize)>,
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

impl Tail {
    fn first(&self) -> u64 {
        self.entries.front().map_or_else(|| self.purged.map_or(0, |p| p.index + 1), |s| s.id.index)
    }

    fn last(&self) -> Option<LogId> {
        self.entries.back().map(|s| s.id).or(self.purged)
    }

    fn position_of(&self, index: u64) -> Option<usize> {
        let at = usize::try_from(index.checked_sub(self.entries.front()?.id.index)?).ok()?;
        (at < self.entries.len()).then_some(at)
    }

    fn push(&mut self, id: LogId, at: Position, entry: Option<(Entry, usize)>) {
        self.cached += entry.as_ref().map_or(0, |e| e.1);
        self.entries.push_back(Slot { id, at, entry });
        while self.cached > CACHE && self.cached_from + 1 < self.entries.len() {
            self.cached -= self.entries[self.cached_from].entry.take().map_or(0, |e| e.1);
            self.cached_from += 1;
        }
    }

    /// Takes back the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        while self.entries.back().is_some_and(|s| s.id.index >= index) {
            if let Some(slot) = self.entries.pop_back() {
                self.cached -= slot.entry.map_or(0, |e| e.1);
            }
        }
        self.cached_from = self.cached_from.min(self.entries.len());
    }

    /// Forgets the entries up to `id`.
    fn purge(&mut self, id: LogId) {
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
    fn checkpoint(&self) -> Vec<u8> {
        let id = |id: &Option<LogId>| pb::SnapshotMeta { last: id.as_ref().map(codec::log_id), ..Default::default() };
        pb::SnapshotChunk {
            vote: self.vote.as_ref().map(codec::vote),
            meta: Some(id(&self.purged)),
            data: id(&self.committed).encode_to_vec().into(),
            ..Default::default()
        }
        .encode_to_vec()
    }

    fn restore(&mut self, blob: &[u8]) -> Result<(), String> {
        let decode = |e: prost::DecodeError| format!("the checkpoint of its log is not readable: {e}");
        let chunk = pb::SnapshotChunk::decode(blob).map_err(decode)?;
        self.vote = chunk.vote.as_ref().map(codec::vote_of);
        self.purged = chunk.meta.and_then(|m| m.last).as_ref().map(codec::log_id_of);
        let committed = pb::SnapshotMeta::decode(chunk.data).map_err(decode)?;
        self.committed = committed.last.as_ref().map(codec::log_id_of);
        Ok(())
    }
}

impl LogStore {
    /// Opens or creates the log in `dir`. A failed sync ends the process by `on_fatal`.
    ///
    /// # Errors
    /// The log cannot be opened, or something that it must have is not there.
    pub fn open(
        dir: &Path,
        segment_bytes: u64,
        on_fatal: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let options = Options { segment_bytes, ..Options::default() };
        let (log, recovery) =
            Log::open(Disk::real(), dir, options, on_fatal).map_err(|e| StartError::Log(e.to_string()))?;
        let damaged = |what: String| StartError::Damaged { dir: dir.to_owned(), what };
        let mut tail = Tail::default();
        if let Some(blob) = &recovery.checkpoint {
            tail.restore(blob).map_err(damaged)?;
        }
        let mut walk = log.walk(Position(0));
        let mut oldest_needed = None;
        loop {
            let at = walk.position();
            let Some(record) = walk.next() else { break };
            let at = record_position(&record, at);
            replay(&mut tail, &record, at).map_err(damaged)?;
            oldest_needed = tail.entries.front().map(|s| s.at).or(oldest_needed);
        }
        let follows = match (tail.entries.front(), tail.purged) {
            (Some(first), Some(purged)) => first.id.index == purged.index + 1,
            _ => true,
        };
        if !follows {
            return Err(damaged("its log misses entries behind the last purge".into()));
        }
        if let Some(damage) = recovery.damage.iter().find(|d| oldest_needed.is_none_or(|from| d.at >= from)) {
            let what = format!("its log is damaged at byte {}: {}", damage.at.0, damage.reason);
            return Err(damaged(what));
        }
        if let Some(committed) = tail.committed {
            // A hint that got ahead of the entries on this disk says no more than these.
            tail.committed = Some(committed.min(tail.last().unwrap_or(committed)));
        }
        tail.noted = tail.committed;
        log.set_checkpoint(tail.checkpoint());
        let batch = usize::try_from(segment_bytes / 2).unwrap_or(usize::MAX);
        Ok(Self { inner: Arc::new(Inner { log, batch, tail: Mutex::new(tail) }) })
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
        let record =
            NewRecord { kind, partition: PARTITION, offset: Offset(offset), epoch: Epoch(epoch), commit_lag: 0, body: &body };
        self.inner.log.append(&[record]).map(drop).map_err(io::Error::other)
    }

    /// Waits until everything that was appended is on disk.
    async fn synced(&self) -> io::Result<()> {
        let end = self.inner.log.end();
        let mut synced = self.inner.log.watch_synced();
        synced.wait_for(|at| *at >= end).await.map(drop).map_err(|_| io::Error::other("the log has stopped"))
    }

    fn append_entries(&self, entries: Vec<Entry>) -> io::Result<()> {
        let mut tail = self.inner.tail.lock();
        let note = (tail.committed != tail.noted).then(|| {
            tail.noted = tail.committed;
            pb::SnapshotMeta { last: tail.committed.as_ref().map(codec::log_id), ..Default::default() }.encode_to_vec()
        });
        let bodies: Vec<Vec<u8>> = entries.iter().map(codec::entry_bytes).collect();
        let mut rest: VecDeque<(Entry, &[u8])> = entries.into_iter().zip(bodies.iter().map(Vec::as_slice)).collect();
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
            let count = rest.iter().take_while(|(_, b)| { size += b.len() + 64; size <= self.inner.batch }).count().max(1);
            let part: Vec<(Entry, [&[u8]; 1])> = rest.drain(..count).map(|(e, b)| (e, [b])).collect();
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
        let wrong = |e: String| StorageError::from(StorageIOError::read_log_at_index(slot.id.index, &io::Error::other(e)));
        let record = self.inner.log.read(slot.at).map_err(|e| wrong(e.to_string()))?;
        let entry = codec::entry_from(Bytes::copy_from_slice(record.body)).map_err(|e| wrong(e.to_string()))?;
        if entry.log_id != slot.id {
            return Err(wrong(format!("the log holds {} at the place of {}", entry.log_id, slot.id)));
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

/// Takes one record into the picture of the log.
fn replay(tail: &mut Tail, record: &stela_common::log::Record<'_>, at: Position) -> Result<(), String> {
    if record.partition != PARTITION {
        return Err(format!("its log holds a record of partition {}: it is a tablet's", record.partition));
    }
    let unreadable = |what: &str| format!("its log holds {what} at byte {} that is not readable", at.0);
    match record.kind {
        Kind::Entry => {
            // The id alone: entries are decoded when they are asked for.
            let entry = codec::entry_from(Bytes::copy_from_slice(record.body)).map_err(|_| unreadable("an entry"))?;
            let id = entry.log_id;
            tail.truncate(id.index);
            if tail.purged.is_some_and(|p| id.index <= p.index) {
                return Ok(());
            }
            if let Some(last) = tail.entries.back().map(|s| s.id)
                && id.index != last.index + 1
            {
                return Err(format!("its log has entry {} after entry {}", id.index, last.index));
            }
            tail.push(id, at, None);
        }
        Kind::Vote => {
            let vote = pb::Vote::decode(record.body).map_err(|_| unreadable("a vote"))?;
            let vote = codec::vote_of(&vote);
            if tail.vote.is_none_or(|v| v <= vote) {
                tail.vote = Some(vote);
            }
        }
        Kind::Truncate => tail.truncate(record.offset.0),
        Kind::Purge => {
            let id = pb::LogId::decode(record.body).map_err(|_| unreadable("a purge"))?;
            tail.purge(codec::log_id_of(&id));
        }
        Kind::Note => {
            let note = pb::SnapshotMeta::decode(record.body).map_err(|_| unreadable("a note"))?;
            tail.committed = tail.committed.max(note.last.as_ref().map(codec::log_id_of));
        }
        _ => {}
    }
    Ok(())
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

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
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

    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
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
        self.write(Kind::Truncate, since.index, since.leader_id.term, &[]).map_err(|e| StorageIOError::write_logs(&e))?;
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
        self.inner.log.purge_before(keep).map_err(wrong)?;
        Ok(())
    }
}
