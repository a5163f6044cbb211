//! What the meta group knows. Everything here is decided through Raft; offsets, counts and sizes are not here.
//!
//! Invariants ([`crate::check`]): a partition's epoch and version only grow; its leader is in its in-sync set, which is
//! a subset of its replicas and never empty; ids are never used twice (R37).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use stela_common::ids::{
    Epoch, Incarnation, JobId, NodeId, Offset, OpId, PartitionId, PartitionKey, TableId, TabletId,
    Version,
};
use stela_common::table::Table;
use stela_common::wire::{Member, View};

use crate::job::{Job, JobKind};
use crate::op::Op;

/// The whole state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The cluster's name; set by the first command of a group.
    pub cluster: String,
    /// Databases, by name, with the version that made them.
    pub databases: BTreeMap<String, Version>,
    /// Tables.
    pub tables: BTreeMap<TableId, Table>,
    /// Partitions.
    pub partitions: BTreeMap<PartitionKey, Partition>,
    /// Tablets.
    pub tablets: BTreeMap<TabletId, Tablet>,
    /// Dropped tables of which a replica's tablet has not yet confirmed that nothing is left (R37).
    pub tombstones: BTreeMap<TableId, Tombstone>,
    /// Replicas that were taken out of their partitions and whose tablet has not yet confirmed that nothing is left.
    pub removals: BTreeMap<PartitionKey, BTreeMap<TabletId, Removal>>,
    /// Recorded operations, finished ones among them.
    pub ops: BTreeMap<OpId, Op>,
    /// Work over many partitions, finished one among it.
    pub jobs: BTreeMap<JobId, Job>,
    /// Settings.
    pub config: BTreeMap<String, Setting>,
    /// Answers to requests by client, for repetitions.
    pub sessions: BTreeMap<u64, Session>,
    /// The last numbers that were handed out.
    pub counters: Counters,
    /// The command that the nameserver leading now committed first (its fence).
    pub controller: Controller,
    /// The last index applied.
    pub applied: u64,
}

/// The last numbers that were handed out; they only grow (R37).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Tables.
    pub table: u32,
    /// Tablets.
    pub tablet: u32,
    /// Operations.
    pub op: u64,
    /// Jobs.
    pub job: u64,
    /// Meta sessions evicted or made: orders eviction.
    pub session: u64,
}

/// Who controls: every call to a tablet carries `epoch`, and tablets refuse lower ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Controller {
    /// Grows by one with each nameserver that takes over.
    pub epoch: u64,
    /// That nameserver.
    pub node: NodeId,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Partition {
    /// Replicas, in placement order.
    pub replicas: Vec<Replica>,
    /// The current epoch.
    pub epoch: Epoch,
    /// Who leads in it.
    pub leader: TabletId,
    /// Which run of the leader (R1).
    pub leader_incarnation: Incarnation,
    /// The in-sync set. Never empty.
    pub in_sync: Vec<Member>,
    /// The index that last changed this partition: what decisions about it are compared with. It also moves when a
    /// replica outside the set registers or is heard again, so that a proposal that was refused before cannot come
    /// true behind its proposer's back (R7); the marks for display and of R20b do not move it.
    pub version: Version,
    /// Each epoch and how it began; trimmed to the last [`HISTORY`].
    pub history: Vec<Leadership>,
    /// Removals that left one member while the removed were healthy: refused once per 10 s (R20b). Wall ms of the last refusal.
    #[serde(default)]
    pub refused_shrink_at: u64,
    /// The epoch of that refusal, for the planner: while it is the current one, one of the others is to lead instead.
    /// 0 once a change of the set went through in it.
    #[serde(default)]
    pub refused_shrink_epoch: Epoch,
    /// The last epoch that was recorded unclean (R15, R16), beyond what the history still names. 0: none.
    #[serde(default)]
    pub last_unclean: Epoch,
    /// How many epochs were (R35).
    #[serde(default)]
    pub uncleans: u64,
    /// The leader is to hand over (R12).
    #[serde(default)]
    pub switch: Option<Switch>,
    /// Its operations that have not ended, in the order in which they are carried out: one at a time.
    #[serde(default)]
    pub queue: Vec<OpId>,
    /// Its table was on `sync=interval` at some time. From then on a replica whose machine went down without a clean
    /// stop is mistrusted (R14), whatever the option says now: what it acknowledged under the old one may be gone.
    #[serde(default)]
    pub may_lose_tail: bool,
}

/// A planned switch that is wanted (R12).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Switch {
    /// Who is to lead; `None`: whoever suits.
    pub target: Option<TabletId>,
    /// The op that records it.
    pub op: OpId,
}

/// A copy of a partition on a tablet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    /// Where.
    pub tablet: TabletId,
    /// It led, and was replaced when it was away or held: shown as `leader`/`no` until it is in sync again.
    #[serde(default)]
    pub was_leader: bool,
    /// Held back by an operator, or by a restart while `auto_failover` was off (R21, R22).
    #[serde(default)]
    pub held: bool,
    /// Why its membership is marked untrusted; goes with the mark.
    #[serde(default)]
    pub doubt: Option<Doubt>,
}

/// Why a member cannot prove that it has all that it acknowledged (R14); the later ones are worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Doubt {
    /// Its machine went down without a clean stop: what `sync=interval` had not synced may be gone, and nothing else.
    Tail,
    /// It joined its leader with less than it had acknowledged (R6).
    Lost,
    /// Its copy is damaged (R30).
    Damage,
    /// Its disk is not the one that it had: another, or an older image of it.
    Disk,
}

impl Doubt {
    /// In words, for operators.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Tail => "its last writes may be lost",
            Self::Lost => "it lost acknowledged writes",
            Self::Damage => "its copy is damaged",
            Self::Disk => "it is on another disk",
        }
    }
}

/// How an epoch began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Leadership {
    /// The epoch.
    pub epoch: Epoch,
    /// Its leader.
    pub leader: TabletId,
    /// Its leader may lack acknowledged writes: an operator's order (R16), or all had lost their tails (R15).
    #[serde(default)]
    pub unclean: bool,
    /// Who had surrendered before (R12).
    #[serde(default)]
    pub surrendered: Option<TabletId>,
    /// The leader's log end when it began, as it reported; for display.
    #[serde(default)]
    pub start: Option<Offset>,
}

/// A tablet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tablet {
    /// Its address, which names it.
    pub endpoint: String,
    /// The run that registered last.
    pub incarnation: Incarnation,
    /// The `starts` of that registration: late messages of earlier tries are known by it (R14).
    pub starts: Vec<Incarnation>,
    /// Its directory.
    pub dir_uuid: String,
    /// The boot of its machine.
    pub boot_id: String,
    /// Healthy, or offline.
    pub healthy: bool,
    /// Wall time (ms, from the proposer) of the last change of `healthy` or `incarnation`.
    pub since: u64,
    /// The index that last changed it.
    pub version: Version,
    /// Runs that registrations named before `starts`, the last [`PAST`] of them: a message of theirs is late, too.
    #[serde(default)]
    pub past: Vec<Incarnation>,
    /// It is to be emptied, or was: no replica is placed there.
    #[serde(default)]
    pub leaving: bool,
    /// Where clients from elsewhere reach it; empty: nothing was set.
    #[serde(default)]
    pub sdk_endpoint: String,
}

/// A replica that was taken out of its partition, until its tablet has confirmed that nothing of it is left. Until then
/// no new replica of the partition is made there, so that an order to drop the former one never hits a later one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Removal {
    /// Which creation of the table (R20).
    pub created_index: u64,
    /// The index of the removal.
    pub version: Version,
}

/// A dropped table, until every tablet that held a replica has confirmed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tombstone {
    /// Which creation (R20).
    pub created_index: u64,
    /// Who still has to confirm.
    pub waiting: BTreeSet<TabletId>,
    /// The index of the drop.
    pub version: Version,
}

/// A setting, with who set it and when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Setting {
    /// The value.
    pub value: String,
    /// The client's address, as far as known.
    pub by: String,
    /// Wall time, ms.
    pub at: u64,
}

/// The last answer to one client's requests.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Session {
    /// The sequence number of the last request.
    pub seq: u64,
    /// Its answer.
    pub reply: crate::command::Reply,
    /// Orders eviction: the lowest goes first.
    pub used: u64,
}

/// The most sessions that are remembered.
pub const SESSIONS: usize = 10_000;
/// The most operations that are remembered; finished ones go first.
pub const OPS: usize = 10_000;
/// The most jobs that are remembered; finished ones go first.
pub const JOBS: usize = 100;
/// The most epochs that a partition's history names.
pub const HISTORY: usize = 64;
/// The most past runs of a tablet that are remembered.
pub const PAST: usize = 64;

impl State {
    /// Is the cluster to fail over by itself?
    #[must_use]
    pub fn auto_failover(&self) -> bool {
        self.config.get("auto_failover").is_none_or(|s| s.value == "true")
    }

    /// May the cluster act by itself (R21)? While the operator has it recovered (`recoverdata`), too.
    #[must_use]
    pub fn acts_by_itself(&self) -> bool {
        let recovers = |job: &Job| job.kind == JobKind::RecoverData && !job.status.is_final();
        self.auto_failover() || self.jobs.values().any(recovers)
    }

    /// Does the run that was elected (R1) still count as there?
    #[must_use]
    pub fn leader_runs(&self, partition: &Partition) -> bool {
        self.tablets
            .get(&partition.leader)
            .is_some_and(|t| t.healthy && t.incarnation == partition.leader_incarnation)
    }

    /// The address of a tablet; empty: none is known.
    #[must_use]
    pub fn endpoint(&self, tablet: TabletId) -> String {
        self.tablets.get(&tablet).map(|t| t.endpoint.clone()).unwrap_or_default()
    }

    /// The operation that a partition is at; the others of its queue wait for it.
    #[must_use]
    pub fn current_op(&self, partition: &Partition) -> Option<(OpId, &Op)> {
        let id = *partition.queue.first()?;
        Some((id, self.ops.get(&id)?))
    }

    /// Is an index of that table being filled?
    #[must_use]
    pub fn is_filling(&self, tid: TableId) -> bool {
        self.tables.get(&tid).is_some_and(|t| t.filling().is_some())
    }

    /// The table of that name.
    #[must_use]
    pub fn table(&self, db: &str, name: &str) -> Option<&Table> {
        self.tables.values().find(|t| t.db == db && t.name == name)
    }

    /// The tablet of that address.
    #[must_use]
    pub fn tablet(&self, endpoint: &str) -> Option<(TabletId, &Tablet)> {
        self.tablets.iter().find(|(_, t)| t.endpoint == endpoint).map(|(id, t)| (*id, t))
    }

    /// The partitions of a table, in order.
    pub fn partitions_of(&self, tid: TableId) -> impl Iterator<Item = (PartitionId, &Partition)> {
        self.partitions
            .range(
                PartitionKey { tid, pid: PartitionId(0) }..=PartitionKey {
                    tid,
                    pid: PartitionId(u32::MAX),
                },
            )
            .map(|(k, p)| (k.pid, p))
    }

    /// `is_alive` of a replica (R22): its tablet is healthy, it is in the in-sync set and not held.
    #[must_use]
    pub fn is_alive(&self, partition: &Partition, tablet: TabletId) -> bool {
        partition.member(tablet).is_some() && !partition.is_held(tablet) && self.is_healthy(tablet)
    }

    /// May it lead in the next epoch (R13)? In the set as the run that is registered, trusted, healthy and not held.
    #[must_use]
    pub fn is_electable(&self, partition: &Partition, tablet: TabletId) -> bool {
        let registered = self.tablets.get(&tablet);
        !partition.is_held(tablet)
            && partition.member(tablet).is_some_and(|m| {
                !m.untrusted
                    && registered.is_some_and(|t| t.healthy && t.incarnation == m.incarnation)
            })
    }

    /// Is that tablet known and healthy?
    #[must_use]
    pub fn is_healthy(&self, tablet: TabletId) -> bool {
        self.tablets.get(&tablet).is_some_and(|t| t.healthy)
    }

    /// What tablets and clients are told of a partition.
    #[must_use]
    pub fn view(&self, key: PartitionKey) -> Option<View> {
        self.partitions.get(&key).map(|p| p.view(key))
    }
}

impl Partition {
    /// The member of that tablet, if it is in sync.
    #[must_use]
    pub fn member(&self, tablet: TabletId) -> Option<&Member> {
        self.in_sync.iter().find(|m| m.tablet == tablet)
    }

    /// The replica on that tablet.
    #[must_use]
    pub fn replica(&self, tablet: TabletId) -> Option<&Replica> {
        self.replicas.iter().find(|r| r.tablet == tablet)
    }

    /// Why the membership of that tablet is marked untrusted; of a mark without a reason, the worst.
    #[must_use]
    pub fn doubt(&self, tablet: TabletId) -> Option<Doubt> {
        self.member(tablet).filter(|m| m.untrusted)?;
        Some(self.replica(tablet).and_then(|r| r.doubt).unwrap_or(Doubt::Disk))
    }

    /// Takes another in-sync set: doubts go with the memberships that they were about.
    pub(crate) fn set_in_sync(&mut self, in_sync: Vec<Member>) {
        self.in_sync = in_sync;
        for replica in &mut self.replicas {
            let doubted = self.in_sync.iter().any(|m| m.tablet == replica.tablet && m.untrusted);
            replica.doubt = replica.doubt.filter(|_| doubted);
        }
    }

    /// Is the replica on that tablet held (R22)?
    #[must_use]
    pub fn is_held(&self, tablet: TabletId) -> bool {
        self.replica(tablet).is_some_and(|r| r.held)
    }

    /// What tablets and clients are told of it.
    #[must_use]
    pub fn view(&self, key: PartitionKey) -> View {
        let began = self.history.last();
        View {
            key,
            epoch: self.epoch,
            version: self.version,
            leader: self.leader,
            leader_incarnation: self.leader_incarnation,
            in_sync: self.in_sync.clone(),
            replicas: self.replicas.iter().map(|r| r.tablet).collect(),
            last_unclean: self.last_unclean,
            uncleans: self.uncleans,
            surrendered: began.and_then(|l| l.surrendered),
            held: self.replicas.iter().filter(|r| r.held).map(|r| r.tablet).collect(),
        }
    }
}
