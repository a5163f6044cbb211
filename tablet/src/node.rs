//! Everything that a tablet holds, under one lock.
//!
//! Inputs come from streams, the log and the clock; each is a critical section: cores are stepped, what they want
//! written is gathered into one batch and appended with one `pwrite`, and only then the rest of what they want is done
//! (sends, index, answers). Nothing that is sent or shown depends on a write that failed: a core whose write failed is
//! rebuilt from what the log has.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TabletId, TableId, Version};
use stela_common::log::{AppendError, Kind, Log, NewRecord, Piece, Position};
use stela_common::wire::Member;
use stela_replica::core::{Admitted, Env};
use stela_replica::lease::{Grants, Permits};
use stela_replica::message::{Conn, Identity, Input, Output, Write};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::disk::{Fences, Files, Held};
use crate::outbox::Outbox;
use crate::partition::{Partition, Unsynced, Waiter};
use crate::replicate::{FollowerBox, LeaderBox, Ship};

/// A proposal for the meta group (R7).
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The partition.
    pub key: PartitionKey,
    /// The epoch that proposes.
    pub epoch: Epoch,
    /// The version that it builds on.
    pub expected: Version,
    /// The new set.
    pub in_sync: Vec<Member>,
}

/// A stream to a follower.
pub struct Outgoing {
    /// Who is there.
    pub peer: TabletId,
    /// Which run.
    pub incarnation: Incarnation,
    /// What goes there next.
    pub outbox: Outbox<FollowerBox>,
    /// What is shipped.
    pub ships: HashMap<PartitionKey, Ship>,
}

/// A stream from a leader.
pub struct Incoming {
    /// Who is there.
    pub peer: TabletId,
    /// What goes back next.
    pub outbox: Outbox<LeaderBox>,
}

/// Where a tablet is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Address {
    /// `ip:port`.
    pub endpoint: String,
    /// The run that is registered.
    pub incarnation: Incarnation,
}

/// What the lock guards.
pub struct Inner {
    /// This tablet's id; 0 until it is registered.
    pub tablet: TabletId,
    /// Replicas here.
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// Tables of which replicas are here.
    pub tables: BTreeMap<TableId, Held>,
    /// Copies without a table: kept, reported, never served (R37).
    pub orphans: BTreeMap<PartitionKey, crate::store::load::Loaded>,
    /// R11, as leader.
    pub permits: Permits,
    /// R11, as follower.
    pub grants: Grants,
    /// Streams to followers.
    pub outgoing: HashMap<Conn, Outgoing>,
    /// Streams from leaders.
    pub incoming: HashMap<Conn, Incoming>,
    /// Where the other tablets are.
    pub addresses: BTreeMap<TabletId, Address>,
    /// R17.
    pub lease_until: Millis,
    /// R20.
    pub fences: Fences,
    /// Told up to this Raft index.
    pub known_index: u64,
    /// Dropped tables to confirm.
    pub dropped: Vec<TableId>,
    /// Proposals to send.
    pub proposals: VecDeque<Proposal>,
    unsynced: VecDeque<Unsynced>,
}

/// A tablet.
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// This run.
    pub incarnation: Incarnation,
    /// The last stop was clean (R14).
    pub clean: bool,
    /// Its files beside the log.
    pub files: Files,
    /// Its log.
    pub log: Log,
    /// Ends everything.
    pub stop: CancellationToken,
    /// Something is in `proposals`.
    pub propose: Notify,
    /// The nameserver should hear at once.
    pub report: Notify,
    /// Views or addresses have changed: streams may be needed.
    pub peers: Notify,
    inner: Mutex<Inner>,
    conns: AtomicU64,
}

/// A record to be appended, with its bytes.
enum Bytes_ {
    New { kind: Kind, key: PartitionKey, offset: Offset, epoch: Epoch, lag: u32, body: Bytes },
    Raw(Bytes),
}

/// What follows when a record is in the log.
enum After {
    Entry { key: PartitionKey, offset: Offset, epoch: Epoch, session: u64, seq: u64, write: Write, bytes: usize },
    Client { key: PartitionKey, admitted: Admitted, bytes: usize, waiter: Box<Waiter> },
    Epoch { key: PartitionKey, epoch: Epoch, write: Write },
    Truncate { key: PartitionKey, to: Offset, write: Write },
    Purge,
}

/// One critical section: what is to be written, and what is to be done after.
#[derive(Default)]
pub struct Work {
    pieces: Vec<Bytes_>,
    after: Vec<After>,
    later: VecDeque<(PartitionKey, Output)>,
}

impl Work {
    /// A client's write that was admitted; its request id is already known to the partition's `dedup`.
    pub fn client(&mut self, key: PartitionKey, admitted: Admitted, body: Bytes, waiter: Waiter) {
        let lag = u32::try_from(admitted.offset.0.saturating_sub(admitted.commit.0)).unwrap_or(u32::MAX);
        let bytes = body.len();
        self.pieces.push(Bytes_::New {
            kind: Kind::Entry,
            key,
            offset: admitted.offset,
            epoch: admitted.epoch,
            lag,
            body,
        });
        self.after.push(After::Client { key, admitted, bytes, waiter: Box::new(waiter) });
    }

    /// A partition is gone.
    pub fn purge(&mut self, key: PartitionKey) {
        self.pieces.push(Bytes_::New {
            kind: Kind::Purge,
            key,
            offset: Offset(0),
            epoch: Epoch(0),
            lag: 0,
            body: Bytes::new(),
        });
        self.after.push(After::Purge);
    }
}

/// A record of a received frame.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its bytes.
    pub raw: Bytes,
    /// Its offset.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its request id.
    pub request: (u64, u64),
}

impl Node {
    /// A tablet around what its disk held.
    #[must_use]
    pub fn new(
        config: Config,
        incarnation: Incarnation,
        clean: bool,
        files: Files,
        log: Log,
        stop: CancellationToken,
        inner: Inner,
    ) -> Arc<Self> {
        Arc::new(Self {
            config,
            incarnation,
            clean,
            files,
            log,
            stop,
            propose: Notify::new(),
            report: Notify::new(),
            peers: Notify::new(),
            inner: Mutex::new(inner),
            conns: AtomicU64::new(1),
        })
    }

    /// A name for a new connection.
    pub fn conn(&self) -> Conn {
        Conn(self.conns.fetch_add(1, Ordering::Relaxed))
    }

    /// Looks, without changing anything that a core decides.
    pub fn look(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// One critical section.
    pub fn act<R>(&self, f: impl FnOnce(&mut Inner, &mut Work) -> R) -> R {
        let mut guard = self.inner.lock();
        let mut work = Work::default();
        let result = f(&mut guard, &mut work);
        self.finish(&mut guard, work);
        result
    }

    /// Steps one replica.
    pub fn step(&self, inner: &mut Inner, work: &mut Work, key: PartitionKey, input: Input, frame: &[Received]) {
        let Some(partition) = inner.partitions.get_mut(&key) else { return };
        let env = Env { permits: &inner.permits, grants: &inner.grants };
        let mut outputs = Vec::new();
        partition.core.step(Millis::now(), &env, input, &mut outputs);
        for output in outputs {
            self.gather(inner, work, key, output, frame);
        }
    }

    /// Steps every replica that `wants` it.
    pub fn step_all(
        &self,
        inner: &mut Inner,
        work: &mut Work,
        wants: impl Fn(&PartitionKey, &Partition) -> bool,
        input: impl Fn() -> Input,
    ) {
        let keys: Vec<_> = inner.partitions.iter().filter(|(k, p)| wants(k, p)).map(|(k, _)| *k).collect();
        for key in keys {
            self.step(inner, work, key, input(), &[]);
        }
    }

    /// Sorts an output: what is written goes into the batch, the rest waits for it.
    fn gather(&self, inner: &mut Inner, work: &mut Work, key: PartitionKey, output: Output, frame: &[Received]) {
        match output {
            Output::StoreEpoch { write, epoch, first, leads } => {
                work.pieces.push(Bytes_::New {
                    kind: Kind::EpochStart,
                    key,
                    offset: first,
                    epoch,
                    lag: 0,
                    body: Bytes::from(vec![u8::from(leads)]),
                });
                work.after.push(After::Epoch { key, epoch, write });
            }
            Output::Append { write, from, to } => {
                let records = frame.get(from..to).unwrap_or_default();
                for record in records {
                    work.pieces.push(Bytes_::Raw(record.raw.clone()));
                    work.after.push(After::Entry {
                        key,
                        offset: record.offset,
                        epoch: record.epoch,
                        session: record.request.0,
                        seq: record.request.1,
                        write,
                        bytes: record.raw.len(),
                    });
                }
            }
            Output::Truncate { write, to } => {
                // What is cut must be in the log first, and saved before the cut (R4).
                self.flush(inner, work);
                if let Err(e) = self.save_tail(inner, key, to) {
                    tracing::error!(%key, error = %e, "cannot save a divergent tail: it is not cut");
                    self.reset(inner, key);
                    return;
                }
                let epoch = inner.partitions.get(&key).map_or(Epoch(0), |p| p.core.epoch());
                work.pieces.push(Bytes_::New { kind: Kind::Truncate, key, offset: to, epoch, lag: 0, body: Bytes::new() });
                work.after.push(After::Truncate { key, to, write });
            }
            other => work.later.push_back((key, other)),
        }
    }

    fn finish(&self, inner: &mut Inner, mut work: Work) {
        loop {
            self.flush(inner, &mut work);
            let Some((key, output)) = work.later.pop_front() else { break };
            self.perform(inner, key, output);
        }
    }

    /// One `pwrite` for all that was gathered.
    fn flush(&self, inner: &mut Inner, work: &mut Work) {
        if work.pieces.is_empty() {
            return;
        }
        let owned = std::mem::take(&mut work.pieces);
        let after = std::mem::take(&mut work.after);
        let bodies: Vec<[&[u8]; 1]> = owned
            .iter()
            .map(|p| match p {
                Bytes_::New { body, .. } => [body.as_ref()],
                Bytes_::Raw(_) => [&[][..]],
            })
            .collect();
        let pieces: Vec<Piece<'_>> = owned
            .iter()
            .zip(&bodies)
            .map(|(p, body)| match p {
                Bytes_::New { kind, key, offset, epoch, lag, .. } => Piece::New(NewRecord {
                    kind: *kind,
                    partition: *key,
                    offset: *offset,
                    epoch: *epoch,
                    commit_lag: *lag,
                    body,
                }),
                Bytes_::Raw(raw) => Piece::Raw(raw),
            })
            .collect();
        match self.log.append_mixed(&pieces) {
            Ok(appended) => {
                for (after, at) in after.into_iter().zip(appended.positions) {
                    self.written(inner, after, at, appended.end);
                }
            }
            Err(e) => self.not_written(inner, work, after, &e),
        }
    }

    fn written(&self, inner: &mut Inner, after: After, at: Position, end: Position) {
        let (key, write) = match after {
            After::Entry { key, offset, epoch, session, seq, write, bytes } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.appended(offset, epoch, at, bytes);
                    p.dedup.appended(offset, session, seq);
                }
                (key, write)
            }
            After::Client { key, admitted, bytes, waiter } => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.appended(admitted.offset, admitted.epoch, at, bytes);
                    p.waiters.entry(admitted.offset).or_default().push(*waiter);
                }
                for outgoing in inner.outgoing.values_mut().filter(|o| o.ships.contains_key(&key)) {
                    outgoing.outbox.fill(|b| b.dirty(key));
                }
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
                    p.truncated(to, end);
                }
                (key, write)
            }
            After::Purge => return,
        };
        inner.unsynced.push_back(Unsynced { end, key, write });
    }

    /// The log refused a batch: nothing of it counts.
    fn not_written(&self, inner: &mut Inner, work: &mut Work, after: Vec<After>, error: &AppendError) {
        tracing::error!(error = %error, "the log refused a write");
        let code = if error.is_full() { Code::DiskFull } else { Code::WriteDataFailed };
        let mut reset = Vec::new();
        for after in after.into_iter().rev() {
            match after {
                After::Client { key, admitted, waiter, .. } => {
                    let refusal = Refusal::new(code, format!("{}: {error}", code.text()));
                    let mut callers = vec![*waiter];
                    if let Some(p) = inner.partitions.get_mut(&key) {
                        p.core.revoke(admitted);
                        p.dedup.truncated(Offset(admitted.offset.0 - 1));
                        // Repetitions in the same batch.
                        callers.extend(p.waiters.remove(&admitted.offset).unwrap_or_default());
                    }
                    for waiter in callers {
                        waiter.caller.answer(crate::partition::refusal_of_write(&refusal, "", Epoch(0)));
                    }
                }
                After::Entry { key, .. } | After::Epoch { key, .. } | After::Truncate { key, .. } => reset.push(key),
                After::Purge => {}
            }
        }
        reset.sort_unstable();
        reset.dedup();
        for key in reset {
            work.later.retain(|(k, _)| *k != key);
            self.reset(inner, key);
        }
    }

    /// Starts the core of a replica again from what the log has; its connections to it are void.
    fn reset(&self, inner: &mut Inner, key: PartitionKey) {
        let Some(p) = inner.partitions.get(&key) else { return };
        let view = p.core.view().cloned();
        let identity = self.identity(inner.tablet, key, p.store.table());
        let leader = self.leader_hint(inner, key);
        let Some(p) = inner.partitions.get_mut(&key) else { return };
        p.fail_waiters(&Code::TableIsFollower.into(), &leader);
        p.reset(identity, Millis::now());
        for outgoing in inner.outgoing.values_mut() {
            outgoing.ships.remove(&key);
        }
        // The streams start anew, and with them the joining of this replica.
        for incoming in inner.incoming.values() {
            incoming.outbox.close();
        }
        if let Some(view) = view.filter(|v| v.leader != inner.tablet) {
            let env = Env { permits: &inner.permits, grants: &inner.grants };
            if let Some(p) = inner.partitions.get_mut(&key) {
                let mut outputs = Vec::new();
                p.core.step(Millis::now(), &env, Input::View(view), &mut outputs);
                debug_assert!(outputs.is_empty(), "a follower that learns its leader has nothing to do: {outputs:?}");
            }
        }
    }

    /// What a replica is told about itself.
    #[must_use]
    pub fn identity(&self, tablet: TabletId, key: PartitionKey, table: &stela_common::table::Table) -> Identity {
        Identity {
            key,
            tablet,
            incarnation: self.incarnation,
            sync: table.options.sync,
            min_insync: table.options.min_insync,
            timing: self.config.timing,
        }
    }

    /// Where the leader of a partition is, as far as this tablet knows; empty: nowhere.
    #[must_use]
    pub fn leader_hint(&self, inner: &Inner, key: PartitionKey) -> String {
        let leader = inner.partitions.get(&key).and_then(|p| p.core.leader()).map(|(t, _)| t);
        match leader {
            Some(t) if t == inner.tablet => self.config.endpoint.clone(),
            Some(t) => inner.addresses.get(&t).map(|a| a.endpoint.clone()).unwrap_or_default(),
            None => String::new(),
        }
    }

    fn perform(&self, inner: &mut Inner, key: PartitionKey, output: Output) {
        match output {
            Output::SendFollower(conn, message) => {
                if let Some(o) = inner.outgoing.get(&conn) {
                    o.outbox.fill(|b| b.message(key, message));
                }
            }
            Output::SendLeader(conn, message) => {
                if let Some(i) = inner.incoming.get(&conn) {
                    i.outbox.fill(|b| b.message(key, message));
                }
            }
            Output::Ship { conn, from, prev } => {
                if let Some(o) = inner.outgoing.get_mut(&conn) {
                    o.ships.insert(key, Ship { next: from, prev });
                    o.outbox.fill(|b| b.dirty(key));
                }
            }
            Output::StopShip(conn) => {
                if let Some(o) = inner.outgoing.get_mut(&conn) {
                    o.ships.remove(&key);
                }
            }
            Output::Propose { epoch, expected, in_sync } => {
                inner.proposals.retain(|p| p.key != key);
                inner.proposals.push_back(Proposal { key, epoch, expected, in_sync });
                self.propose.notify_one();
            }
            Output::Committed(to) => self.commit(inner, key, to),
            Output::Acknowledged(to) => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.acknowledge(to);
                }
            }
            Output::Serving { epoch, start } => {
                tracing::info!(%key, %epoch, %start, "serves as leader");
                if let Some(p) = inner.partitions.get(&key) {
                    p.parked.notify_waiters();
                }
                self.report.notify_one();
            }
            Output::SteppedDown => {
                let leader = self.leader_hint(inner, key);
                if let Some(p) = inner.partitions.get_mut(&key) {
                    tracing::info!(%key, epoch = %p.core.epoch(), "steps down");
                    p.fail_waiters(&Code::TableIsFollower.into(), &leader);
                    p.parked.notify_waiters();
                }
                for outgoing in inner.outgoing.values_mut() {
                    outgoing.ships.remove(&key);
                }
                self.report.notify_one();
            }
            Output::FailWaiting => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.fail_waiters(&Code::LeaseExpired.into(), "");
                }
            }
            Output::Surrendered(epoch) => {
                tracing::info!(%key, %epoch, "surrendered");
                self.report.notify_one();
            }
            Output::Quarantined(why) => {
                tracing::error!(%key, %why, "replica is quarantined");
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.quarantine = Some(why);
                    p.parked.notify_waiters();
                }
                self.report.notify_one();
            }
            // Written in `gather`.
            Output::StoreEpoch { .. } | Output::Truncate { .. } | Output::Append { .. } => {}
        }
    }

    /// Entries up to `to` become readable, on leader and follower alike.
    fn commit(&self, inner: &mut Inner, key: PartitionKey, to: Offset) {
        let Some(p) = inner.partitions.get_mut(&key) else { return };
        while p.applied < to {
            let next = p.applied.next();
            let record = match p.recent(next) {
                Some(recent) => self.log.read(recent.at).map_err(|e| e.to_string()),
                None => crate::store::places::read_entries(&self.log, &p.places, key, next, next, 1)
                    .map_err(|e| e.to_string())
                    .and_then(|mut v| v.pop().ok_or_else(|| "no such entry".into())),
            };
            match record {
                Ok(record) => {
                    p.store.apply(record.position(), record.body());
                    p.applied = next;
                }
                Err(e) => {
                    tracing::error!(%key, offset = %next, error = %e, "a committed entry cannot be read: quarantined");
                    p.quarantine = Some(format!("entry {next} cannot be read: {e}"));
                    break;
                }
            }
        }
        let applied = p.applied;
        p.dedup.committed(applied);
    }

    fn save_tail(&self, inner: &Inner, key: PartitionKey, to: Offset) -> std::io::Result<()> {
        let Some(p) = inner.partitions.get(&key) else { return Ok(()) };
        let last = p.last();
        if last <= to {
            return Ok(());
        }
        let records =
            crate::store::places::read_entries(&self.log, &p.places, key, to.next(), last, usize::MAX).map_err(std::io::Error::other)?;
        let raw: Vec<u8> = records.iter().flat_map(|r| r.raw().iter().copied()).collect();
        let path = self.files.save_tail(key, p.epoch, to.next(), last, &raw)?;
        tracing::warn!(%key, from = %to.next(), to = %last, file = %path.display(), "a divergent tail was set aside");
        Ok(())
    }

    /// The log is synced up to `to`: tells the cores.
    pub fn synced(&self, to: Position) {
        self.act(|inner, work| {
            let mut done: BTreeMap<PartitionKey, Write> = BTreeMap::new();
            while inner.unsynced.front().is_some_and(|u| u.end <= to) {
                if let Some(u) = inner.unsynced.pop_front() {
                    done.insert(u.key, u.write);
                }
            }
            for (key, write) in done {
                self.step(inner, work, key, Input::Synced(write), &[]);
            }
        });
    }
}

impl Inner {
    /// What a tablet holds when it starts.
    #[must_use]
    pub fn new(now: Millis, fences: Fences) -> Self {
        Self {
            tablet: TabletId(0),
            partitions: BTreeMap::new(),
            tables: BTreeMap::new(),
            orphans: BTreeMap::new(),
            permits: Permits::default(),
            grants: Grants::new(now),
            outgoing: HashMap::new(),
            incoming: HashMap::new(),
            addresses: BTreeMap::new(),
            lease_until: Millis::default(),
            fences,
            known_index: 0,
            dropped: Vec::new(),
            proposals: VecDeque::new(),
            unsynced: VecDeque::new(),
        }
    }

    /// The other tablets that should be connected: replicas of what this one leads.
    #[must_use]
    pub fn followers_wanted(&self) -> std::collections::BTreeSet<TabletId> {
        self.partitions
            .values()
            .filter(|p| p.core.leads())
            .filter_map(|p| p.core.view())
            .flat_map(|v| v.replicas.iter().copied())
            .filter(|t| *t != self.tablet)
            .collect()
    }
}
