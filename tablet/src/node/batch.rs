//! What one critical section writes: one batch, and what follows when the log has it, or refuses it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{
    AppendError, Appended, Kind, Log, NewRecord, Piece, Position, RECORD_HEADER,
};
use stela_common::table::{Ack, Sync};
use stela_replica::core::Admitted;
use stela_replica::message::{Output, Write};

use super::{Inner, Node};
use crate::partition::{Unsynced, Waiter, refusal_of_write};

/// The bytes of one append, at most, if a record alone is not longer.
const APPEND: u64 = 8 << 20;
/// A record to be appended, with its bytes.
pub(super) enum Unwritten {
    New { kind: Kind, key: PartitionKey, offset: Offset, epoch: Epoch, lag: u32, body: Bytes },
    Raw(Bytes),
}

impl Unwritten {
    fn len(&self) -> usize {
        match self {
            Self::New { body, .. } => RECORD_HEADER + body.len(),
            Self::Raw(raw) => raw.len(),
        }
    }
}

/// How many records go into one append.
fn batch(pieces: &[Unwritten], most: u64) -> usize {
    let mut bytes = 0;
    let fit = pieces.iter().take_while(|p| {
        bytes += p.len() as u64;
        bytes <= most
    });
    fit.count().max(1)
}

fn append(log: &Log, batch: &[Unwritten], patience: Duration) -> Result<Appended, AppendError> {
    let bodies: Vec<[&[u8]; 1]> = batch
        .iter()
        .map(|p| match p {
            Unwritten::New { body, .. } => [body.as_ref()],
            Unwritten::Raw(_) => [&[][..]],
        })
        .collect();
    let pieces: Vec<Piece<'_>> = batch
        .iter()
        .zip(&bodies)
        .map(|(p, body)| match p {
            Unwritten::New { kind, key, offset, epoch, lag, .. } => Piece::New(NewRecord {
                kind: *kind,
                partition: *key,
                offset: *offset,
                epoch: *epoch,
                commit_lag: *lag,
                body,
            }),
            Unwritten::Raw(raw) => Piece::Raw(raw),
        })
        .collect();
    log.append_within(&pieces, patience)
}

/// How long the sync of these may wait: as long as the most impatient of their tables says (`sync=interval`). What is not
/// an entry is waited for.
fn patience(inner: &Inner, after: &[After]) -> Duration {
    let mut least = u32::MAX;
    let mut known: Option<(PartitionKey, u32)> = None;
    for after in after {
        let key = match after {
            After::Entry { key, .. } | After::Client { key, .. } => *key,
            After::Epoch { .. } | After::Truncate { .. } | After::Purge(_) => {
                return Duration::ZERO;
            }
        };
        let ms = match known.filter(|(same, _)| *same == key) {
            Some((_, ms)) => ms,
            None => match inner.partitions.get(&key).map(|p| p.store.table().options.sync) {
                Some(Sync::Interval(ms)) => ms,
                _ => return Duration::ZERO,
            },
        };
        known = Some((key, ms));
        least = least.min(ms);
    }
    Duration::from_millis(least.into())
}

/// What follows when a record is in the log.
pub(super) enum After {
    Entry { key: PartitionKey, offset: Offset, epoch: Epoch, request: (u64, u64), write: Write },
    Client { key: PartitionKey, admitted: Admitted, waiter: Box<Waiter> },
    Epoch { key: PartitionKey, epoch: Epoch, write: Write },
    Truncate { key: PartitionKey, to: Offset, write: Write },
    Purge(PartitionKey),
}

/// One critical section: what is to be written, and what is to be done after.
#[derive(Default)]
pub struct Work {
    pub(super) pieces: Vec<Unwritten>,
    pub(super) after: Vec<After>,
    pub(super) later: VecDeque<(PartitionKey, Output)>,
}

impl Work {
    /// A client's write that was admitted; its request id is already known to the partition's `dedup`.
    pub fn client(&mut self, key: PartitionKey, admitted: Admitted, body: Bytes, waiter: Waiter) {
        let lag =
            u32::try_from(admitted.offset.0.saturating_sub(admitted.commit.0)).unwrap_or(u32::MAX);
        self.pieces.push(Unwritten::New {
            kind: Kind::Entry,
            key,
            offset: admitted.offset,
            epoch: admitted.epoch,
            lag,
            body,
        });
        self.after.push(After::Client { key, admitted, waiter: Box::new(waiter) });
    }

    /// A partition is gone.
    pub fn purge(&mut self, key: PartitionKey) {
        self.pieces.push(Unwritten::New {
            kind: Kind::Purge,
            key,
            offset: Offset(0),
            epoch: Epoch(0),
            lag: 0,
            body: Bytes::new(),
        });
        self.after.push(After::Purge(key));
    }
}

impl Node {
    /// One `pwrite` for all that was gathered, or a few if it is a lot.
    pub(super) fn flush(&self, inner: &mut Inner, work: &mut Work) {
        let owned = std::mem::take(&mut work.pieces);
        let mut after = std::mem::take(&mut work.after).into_iter();
        let mut rest = owned.as_slice();
        // Well below what a segment takes.
        let most = APPEND.min(self.config.segment_bytes / 4);
        while !rest.is_empty() {
            let (batch, behind) = rest.split_at(batch(rest, most));
            let patience = patience(inner, &after.as_slice()[..batch.len().min(after.len())]);
            match append(&self.log, batch, patience) {
                Ok(appended) => {
                    if std::mem::take(&mut inner.refused) {
                        tracing::info!("the log takes writes again");
                    }
                    for (at, after) in appended.positions.into_iter().zip(after.by_ref()) {
                        self.written(inner, after, at, appended.end);
                    }
                }
                // What comes behind it may build on it.
                Err(e) => return self.not_written(inner, work, after.collect(), &e),
            }
            rest = behind;
        }
    }

    fn written(&self, inner: &mut Inner, after: After, at: Position, end: Position) {
        let (key, write) = match after {
            After::Entry { key, offset, epoch, request, write } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.appended(offset, epoch, at);
                    p.dedup.appended(offset, request.0, request.1);
                }
                self.show_at_once(inner, key);
                (key, write)
            }
            After::Client { key, admitted, waiter } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.appended(admitted.offset, admitted.epoch, at);
                    if waiter.level == Ack::Leader {
                        inner.early.insert(key);
                    }
                    p.waiters.entry(admitted.offset).or_default().push(*waiter);
                }
                self.show_at_once(inner, key);
                for outgoing in inner.outgoing.values_mut().filter(|o| o.ships.contains_key(&key)) {
                    outgoing.outbox.fill(|b| b.dirty(key));
                }
                inner.touch(key);
                (key, admitted.write)
            }
            After::Epoch { key, epoch, write } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.epoch = p.epoch.max(epoch);
                }
                (key, write)
            }
            After::Truncate { key, to, write } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.truncated(&self.log, key, to, at);
                }
                (key, write)
            }
            After::Purge(key) => {
                let one = inner.removing.get_mut(&key).map(|(_, dropping)| dropping);
                for dropping in inner.dropping.get_mut(&key.tid).into_iter().chain(one) {
                    dropping.left.remove(&key);
                    dropping.until = end;
                }
                return;
            }
        };
        if let Some(p) = inner.partitions.get_mut(&key) {
            p.writes_again();
        }
        match inner.unsynced.back_mut() {
            Some(last) if (last.key, last.end) == (key, end) => last.write = write,
            _ => inner.unsynced.push_back(Unsynced { end, key, write }),
        }
    }

    /// R34: where the leader's word is enough, what is written is readable.
    pub(crate) fn show_at_once(&self, inner: &mut Inner, key: PartitionKey) {
        let Some(p) = inner.partitions.get_mut(&key) else { return };
        if p.store.table().options.ack == Ack::Leader
            && p.quarantine.is_none()
            && let Err(why) = p.apply(&self.log, key, p.last())
        {
            self.quarantine(inner, key, format!("an entry cannot be read: {why}"));
        }
    }

    /// R34: answers the writes that ask for the leader alone.
    pub(super) fn answer_early(&self, inner: &mut Inner) {
        let now = Millis::now();
        let keys = std::mem::take(&mut inner.early);
        for key in keys {
            let Some(p) = inner.partitions.get_mut(&key) else { continue };
            if let Some(to) = p.core.stored(now) {
                p.acknowledge_early(to);
            }
            if p.waiters.values().flatten().any(|w| w.level == Ack::Leader) {
                inner.early.insert(key);
            }
        }
    }

    /// The log refused a batch: nothing of it counts, nor of those behind it.
    fn not_written(
        &self,
        inner: &mut Inner,
        work: &mut Work,
        after: Vec<After>,
        error: &AppendError,
    ) {
        if !std::mem::replace(&mut inner.refused, true) {
            tracing::error!(error = %error, "the log refuses writes");
        }
        let code = match error {
            AppendError::TooLarge { .. } => Code::TooLarge,
            e if e.is_full() => Code::DiskFull,
            // Nothing was written and the tablet stops: certainly not done, so the client may go elsewhere with it.
            AppendError::Closed => Code::NotServing,
            _ => Code::WriteDataFailed,
        };
        let refusal = Refusal::new(code, format!("{}: {error}", code.text()));
        let mut failed = BTreeSet::new();
        for after in after.into_iter().rev() {
            match after {
                After::Client { key, admitted, waiter } => {
                    let mut callers = vec![*waiter];
                    if let Some(p) = inner.partitions.get_mut(&key) {
                        p.core.revoke(admitted);
                        p.dedup.truncated(Offset(admitted.offset.0.saturating_sub(1)));
                        // Repetitions in the same batch.
                        callers.extend(p.waiters.remove(&admitted.offset).unwrap_or_default());
                    }
                    for waiter in callers {
                        waiter.caller.answer(refusal_of_write(&refusal, "", Epoch(0)));
                    }
                }
                After::Entry { key, .. }
                | After::Epoch { key, .. }
                | After::Truncate { key, .. } => {
                    failed.insert(key);
                }
                // It stays among those that are left to purge.
                After::Purge(_) => {}
            }
        }
        for key in failed {
            self.suspend(inner, work, key);
        }
    }
}
