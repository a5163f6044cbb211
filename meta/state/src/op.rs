//! Recorded operations: what the cluster does to one partition, in OpenMLDB's words.
//!
//! An operation is a wish and how far it has come. What its next step is follows from the state and what is observed
//! ([`crate::plan`]), never from having seen the step before: so a nameserver that takes over goes on where the other one
//! was, and a step that is taken twice does no harm.
//!
//! Invariants: one that has ended never changes; one that has not stands in the queue of its partition, and only the
//! first of a queue has begun.

use serde::{Deserialize, Serialize};
use stela_common::ids::{JobId, OpId, PartitionKey, TabletId, Version};

/// The state of an operation, with OpenMLDB's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum OpStatus {
    /// Queued.
    Inited,
    /// Running.
    Doing,
    /// Ended well.
    Done,
    /// Ended badly.
    Failed,
    /// Stopped by an operator or by `auto_failover` off.
    Canceled,
}

impl OpStatus {
    /// Has it ended?
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Canceled)
    }

    /// The word in `showopstatus`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Inited => "kInited",
            Self::Doing => "kDoing",
            Self::Done => "kDone",
            Self::Failed => "kFailed",
            Self::Canceled => "kCanceled",
        }
    }
}

/// The kind of an operation, with OpenMLDB's words.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum OpKind {
    /// A new leader.
    ChangeLeader,
    /// A replica is held and leaves the in-sync set: its tablet is offline, or is to be.
    OfflineReplica,
    /// A replica is taken back.
    ReAddReplica,
    /// A replica is recovered by command.
    RecoverTable,
    /// The leader makes a snapshot.
    MakeSnapshot,
    /// A new replica.
    AddReplica,
    /// A replica goes.
    DelReplica,
    /// A replica moves to another tablet.
    Migrate,
    /// The only replica of a partition leads again.
    ReLoadTable,
    /// The only replica of a partition is held.
    UpdatePartitionStatus,
    /// The rows of a partition are brought into an index that was added.
    AddIndex,
}

impl OpKind {
    /// The word in `showopstatus`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ChangeLeader => "kChangeLeaderOP",
            Self::OfflineReplica => "kOfflineReplicaOP",
            Self::ReAddReplica => "kReAddReplicaOP",
            Self::RecoverTable => "kRecoverTableOP",
            Self::MakeSnapshot => "kMakeSnapshotOP",
            Self::AddReplica => "kAddReplicaOP",
            Self::DelReplica => "kDelReplicaOP",
            Self::Migrate => "kMigrateOP",
            Self::ReLoadTable => "kReLoadTableOP",
            Self::UpdatePartitionStatus => "kUpdatePartitionStatusOP",
            Self::AddIndex => "kAddIndexOP",
        }
    }

    /// Does it make a new copy somewhere? Of those only some run at a time.
    #[must_use]
    pub fn is_transfer(self) -> bool {
        matches!(self, Self::AddReplica | Self::Migrate)
    }

    /// Is it a wish for another leader?
    #[must_use]
    pub fn is_switch(self) -> bool {
        matches!(self, Self::ChangeLeader | Self::ReLoadTable)
    }

    /// The task that it begins with.
    #[must_use]
    pub fn first_task(self) -> Task {
        match self {
            Self::ChangeLeader => Task::SelectLeader,
            Self::OfflineReplica | Self::DelReplica => Task::DelReplica,
            Self::ReAddReplica | Self::ReLoadTable => Task::LoadTable,
            Self::RecoverTable => Task::RecoverTable,
            Self::MakeSnapshot => Task::MakeSnapshot,
            Self::AddReplica | Self::Migrate => Task::AddTableInfo,
            Self::UpdatePartitionStatus => Task::UpdatePartitionStatus,
            Self::AddIndex => Task::ExtractIndexData,
        }
    }
}

/// A step of an operation, with OpenMLDB's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Task {
    /// The replica is put on record.
    AddTableInfo,
    /// The leader sends its snapshot.
    SendSnapshot,
    /// The replica loads what is there.
    LoadTable,
    /// The replica catches up with the leader's log.
    CheckBinlogSyncProgress,
    /// A replica leaves the set.
    DelReplica,
    /// A copy is dropped.
    DropTable,
    /// A new leader is chosen, and the old one drained.
    SelectLeader,
    /// What is to become of a replica is decided.
    RecoverTable,
    /// A snapshot is made.
    MakeSnapshot,
    /// A replica is held or released.
    UpdatePartitionStatus,
    /// Rows are looked up and sent to where the index has them.
    ExtractIndexData,
}

impl Task {
    /// The word in `showopstatus`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::AddTableInfo => "kAddTableInfo",
            Self::SendSnapshot => "kSendSnapshot",
            Self::LoadTable => "kLoadTable",
            Self::CheckBinlogSyncProgress => "kCheckBinlogSyncProgress",
            Self::DelReplica => "kDelReplica",
            Self::DropTable => "kDropTable",
            Self::SelectLeader => "kSelectLeader",
            Self::RecoverTable => "kRecoverTable",
            Self::MakeSnapshot => "kMakeSnapshot",
            Self::UpdatePartitionStatus => "kUpdatePartitionStatus",
            Self::ExtractIndexData => "kExtractIndexData",
        }
    }
}

/// A recorded operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Op {
    /// What.
    pub kind: OpKind,
    /// Of which database; kept when the table is gone.
    pub db: String,
    /// Of which table.
    pub name: String,
    /// Of which partition.
    pub key: PartitionKey,
    /// About which tablet.
    pub tablet: TabletId,
    /// How far.
    pub status: OpStatus,
    /// Done by the cluster itself (R21).
    pub auto: bool,
    /// The current task's word; of one that failed, the task that failed. Empty: none.
    #[serde(default)]
    pub task: String,
    /// Wall seconds; 0: not begun.
    pub start: u64,
    /// Wall seconds; 0: not ended.
    pub end: u64,
    /// The index that last changed it.
    pub version: Version,
    /// The other tablet: where a replica is to be, or who is to lead.
    #[serde(default)]
    pub to: Option<TabletId>,
    /// The operation that asked for it.
    #[serde(default)]
    pub parent: Option<OpId>,
    /// The job that asked for it.
    #[serde(default)]
    pub job: Option<JobId>,
    /// How many of its kind may run for its tablet at a time; 0: as many as there are.
    #[serde(default)]
    pub limit: u32,
    /// With a new leader, the former one is held (`offlineendpoint`).
    #[serde(default)]
    pub hold: bool,
    /// Why it ended as it did, in words.
    #[serde(default)]
    pub why: String,
}

impl Op {
    /// Where it makes a copy while it runs.
    #[must_use]
    pub fn copies_to(&self) -> Option<TabletId> {
        self.to.filter(|_| self.kind.is_transfer())
    }
}
