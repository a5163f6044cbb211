//! Everything that a tablet holds, under one lock.
//!
//! Inputs come from streams, the log and the clock; each is a critical section: cores are stepped, what they want
//! written is gathered into one batch and appended with one `pwrite`, and only then the rest of what they want is done
//! (sends, index, answers). Nothing that is sent or shown depends on a write that failed: a core whose write failed is
//! void, and the replica is suspended until it is made anew from what the log has.
//!
//! `batch`: what a critical section writes. `carry`: carrying out what cores want. `restart`: cores that are void.
//! `snapshot`: making snapshots. `install`: taking over a leader's. `retain`: what of the log is given back.

mod batch;
mod carry;
mod install;
mod restart;
mod retain;
mod snapshot;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TableId, TabletId, Version};
use stela_common::log::{Log, Position};
use stela_common::wire::Member;
use stela_replica::core::Env;
use stela_replica::lease::{Grants, Permits};
use stela_replica::message::{Conn, Identity, Input, Write};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::disk::{Fences, Files, Held};
use crate::outbox::Outbox;
use crate::partition::{Partition, Unsynced};
use crate::replicate::{FollowerBox, LeaderBox, Ship};
use crate::transfer::Transfers;

pub use batch::Work;
pub use retain::Pin;

/// A proposal for the meta group (R7).
#[derive(Clone, Debug)]
pub struct Proposal {
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
    /// Tables that are being dropped here.
    pub dropping: BTreeMap<TableId, Dropping>,
    /// Single replicas that are being dropped here, by the order of which Raft index.
    pub removing: BTreeMap<PartitionKey, (u64, Dropping)>,
    /// Single replicas of which nothing is left, by which order, and with how many heartbeats that still goes.
    pub removed: BTreeMap<PartitionKey, (u64, u32)>,
    /// Dropped tables to confirm, each with so many more heartbeats that are answered.
    pub dropped: BTreeMap<TableId, u32>,
    /// Proposals to send, the last of each partition.
    pub proposals: BTreeMap<PartitionKey, Proposal>,
    /// Replicas that are suspended.
    pub suspended: BTreeSet<PartitionKey>,
    /// Replicas of which the nameserver has not heard the latest.
    pub unreported: Vec<PartitionKey>,
    /// Something was added to `unreported` or changed again since the last tick.
    pub changed: bool,
    /// Partitions with waiters that ask for the leader alone (R34).
    pub(crate) early: BTreeSet<PartitionKey>,
    /// The disk refuses writes.
    refused: bool,
    unsynced: VecDeque<Unsynced>,
}

/// A table that was dropped, until nothing of it can come back after a crash.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dropping {
    /// Copies whose purge is not in the log yet.
    pub left: BTreeSet<PartitionKey>,
    /// The purges are safe when the log is synced up to there.
    pub until: Position,
}

/// A tablet.
pub struct Node {
    /// Its settings.
    pub config: Config,
    /// This run.
    pub incarnation: Incarnation,
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
    /// Held by whoever changes the files of tables and what the node knows of them; taken before the node's lock.
    pub table_files: Mutex<()>,
    /// Its disk does not finish a sync (R23).
    pub(crate) hangs: AtomicBool,
    /// There is more to read than memory may hold.
    pub(crate) cold: AtomicBool,
    /// The indexes take more memory than they may.
    pub(crate) full: AtomicBool,
    /// There is less disk left than is kept in reserve.
    pub(crate) short: AtomicBool,
    /// Snapshots that go to other tablets, and come from them.
    pub transfers: Transfers,
    /// Held by whoever makes, installs or removes snapshots: one at a time.
    pub snapshots: tokio::sync::Mutex<()>,
    /// What others need of the log (R29).
    pins: Mutex<BTreeMap<u64, Position>>,
    inner: Mutex<Inner>,
    conns: AtomicU64,
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
        files: Files,
        log: Log,
        stop: CancellationToken,
        inner: Inner,
    ) -> Arc<Self> {
        Arc::new(Self {
            transfers: Transfers::new(config.transfer_bytes_s),
            config,
            incarnation,
            files,
            log,
            stop,
            propose: Notify::new(),
            report: Notify::new(),
            peers: Notify::new(),
            table_files: Mutex::new(()),
            hangs: AtomicBool::new(false),
            cold: AtomicBool::new(false),
            full: AtomicBool::new(false),
            short: AtomicBool::new(false),
            snapshots: tokio::sync::Mutex::new(()),
            pins: Mutex::default(),
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
    pub fn step(
        &self,
        inner: &mut Inner,
        work: &mut Work,
        key: PartitionKey,
        input: Input,
        frame: &[Received],
    ) {
        let Some(partition) = inner.partitions.get_mut(&key) else { return };
        if let Some(suspended) = &mut partition.suspended {
            // All else is void when it starts again: its connections join anew.
            if let Input::View(view) = input
                && suspended.view.as_ref().is_none_or(|v| v.version <= view.version)
            {
                suspended.view = Some(view);
            }
            return;
        }
        let env = Env { permits: &inner.permits, grants: &inner.grants };
        let mut outputs = Vec::new();
        partition.core.step(Millis::now(), &env, input, &mut outputs);
        if !outputs.is_empty() {
            inner.touch(key);
        }
        for output in outputs {
            self.gather(inner, work, key, output, frame);
            // A write of it failed: what else it wanted it wanted in vain.
            if inner.suspended.contains(&key) {
                break;
            }
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
        let keys: Vec<_> =
            inner.partitions.iter().filter(|(k, p)| wants(k, p)).map(|(k, _)| *k).collect();
        for key in keys {
            self.step(inner, work, key, input(), &[]);
        }
    }

    fn finish(&self, inner: &mut Inner, mut work: Work) {
        loop {
            self.flush(inner, &mut work);
            let Some((key, output)) = work.later.pop_front() else { break };
            self.perform(inner, key, output);
        }
        if !inner.early.is_empty() {
            self.answer_early(inner);
        }
    }

    /// What a replica is told about itself.
    #[must_use]
    pub fn identity(
        &self,
        tablet: TabletId,
        key: PartitionKey,
        table: &stela_common::table::Table,
    ) -> Identity {
        Identity {
            key,
            tablet,
            incarnation: self.incarnation,
            options: table.options,
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
            dropping: BTreeMap::new(),
            removing: BTreeMap::new(),
            removed: BTreeMap::new(),
            dropped: BTreeMap::new(),
            proposals: BTreeMap::new(),
            suspended: BTreeSet::new(),
            unreported: Vec::new(),
            changed: false,
            early: BTreeSet::new(),
            refused: false,
            unsynced: VecDeque::new(),
        }
    }

    /// Something that is reported of a replica has changed.
    pub fn touch(&mut self, key: PartitionKey) {
        self.changed = true;
        if let Some(p) = self.partitions.get_mut(&key)
            && !std::mem::replace(&mut p.unreported, true)
        {
            self.unreported.push(key);
        }
    }

    /// The other tablets that should be connected: replicas of what this one leads.
    #[must_use]
    pub fn followers_wanted(&self) -> BTreeSet<TabletId> {
        self.partitions
            .values()
            .filter(|p| p.core.leads())
            .filter_map(|p| p.core.view())
            .flat_map(|v| v.replicas.iter().copied())
            .filter(|t| *t != self.tablet)
            .collect()
    }
}

#[cfg(test)]
mod tests;
