//! What can be decided, and what the answers are.
//!
//! The proposer puts ids, placement and time into the command; apply checks every precondition again.

use serde::{Deserialize, Serialize};
use stela_common::code::{Code, Refusal};
use stela_common::ids::{
    Epoch, Incarnation, JobId, NodeId, Offset, OpId, PartitionKey, TableId, TabletId, Version,
};
use stela_common::table::{Ack, Read, Sync, Table};
use stela_common::wire::Member;

use crate::op::{OpKind, OpStatus};
use crate::order::Order;

/// Several commands of one Raft entry, each with its own answer: a refused one changes nothing and stops no other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Batch {
    /// The commands, in order.
    pub commands: Vec<Proposal>,
}

/// A command and, for those that clients retry, the request that it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proposal {
    /// Client and sequence number; a repetition gets the answer of the first.
    #[serde(default)]
    pub request: Option<RequestId>,
    /// Wall time of the proposer, ms.
    pub now: u64,
    /// The command.
    pub command: Command,
}

/// Names one request of one client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RequestId {
    /// A random number that the client drew.
    pub client: u64,
    /// From 1, growing.
    pub seq: u64,
}

/// A change of the metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Command {
    /// First command of a group: its name.
    Found {
        /// The cluster's name.
        cluster: String,
    },
    /// A nameserver takes over: raises the controller epoch.
    TakeOver {
        /// Which.
        node: NodeId,
    },
    /// `confset`.
    SetConfig {
        /// The key; only `auto_failover` is known.
        key: String,
        /// The value.
        value: String,
        /// Who, for the record.
        by: String,
    },
    /// `createdb`.
    CreateDatabase {
        /// Its name.
        name: String,
    },
    /// `dropdb`; refused while it has tables.
    DropDatabase {
        /// Its name.
        name: String,
    },
    /// `create`: all or nothing. `tid` and `created_index` of the table are set by apply.
    CreateTable {
        /// The table.
        table: Table,
        /// For each partition its tablets, the first one leads. Empty: there were too few healthy ones.
        placement: Vec<Vec<TabletId>>,
    },
    /// `drop`.
    DropTable {
        /// Database.
        db: String,
        /// Name.
        name: String,
    },
    /// A tablet has nothing left of a dropped table.
    ConfirmDropped {
        /// The table.
        tid: TableId,
        /// Who.
        tablet: TabletId,
    },
    /// R14.
    Register(Register),
    /// A tablet is judged offline; carries the incarnation judged, so that a later one is not hit. The elections of
    /// the partitions that it led follow as [`Command::Elect`] in the same batch.
    Offline {
        /// Which.
        tablet: TabletId,
        /// Which run.
        incarnation: Incarnation,
        /// By the cluster itself.
        auto: bool,
    },
    /// An offline tablet's same incarnation is heard again.
    Online {
        /// Which.
        tablet: TabletId,
        /// Which run.
        incarnation: Incarnation,
    },
    /// R13.
    Elect(Elect),
    /// R12: the leader is to hand over; it is drained first, and the election follows its surrender.
    Switch {
        /// The partition.
        key: PartitionKey,
        /// Who is to lead; `None`: whoever suits.
        target: Option<TabletId>,
    },
    /// A switch that took too long is given up: its op fails.
    EndSwitch {
        /// The partition.
        key: PartitionKey,
        /// The op of the switch that is meant.
        op: OpId,
        /// Why, for people.
        why: String,
    },
    /// `stela table set`: other options for a table; those that are `None` stay.
    SetTable {
        /// Database.
        db: String,
        /// Name.
        name: String,
        /// Who must have a write.
        ack: Option<Ack>,
        /// When a write counts as stored.
        sync: Option<Sync>,
        /// How many replicas must be in sync.
        min_insync: Option<u32>,
        /// How reads are made safe.
        #[serde(default)]
        read: Option<Read>,
    },
    /// R7, R8.
    ChangeInSync(ChangeInSync),
    /// The leader serves; for display (R10).
    Started {
        /// The partition.
        key: PartitionKey,
        /// In which epoch.
        epoch: Epoch,
        /// Its log end.
        start: Offset,
    },
    /// What an operator orders.
    Order(Order),
    /// The first operation of a partition's queue begins.
    StartOp {
        /// Which.
        op: OpId,
    },
    /// The next step of an operation that goes on: the replica that it takes away goes.
    TakeAway {
        /// Which.
        op: OpId,
    },
    /// An operation has ended: what was begun of one that did not end well is taken back.
    EndOp {
        /// Which.
        op: OpId,
        /// How.
        status: OpStatus,
        /// Why, for people.
        why: String,
    },
    /// A tablet has nothing left of a replica that was taken away.
    ConfirmRemoved {
        /// Of which partition.
        key: PartitionKey,
        /// Who.
        tablet: TabletId,
    },
    /// The next operations of a job, each partition's in order.
    GoOn {
        /// Which.
        job: JobId,
        /// What is to be done.
        work: Vec<Work>,
    },
    /// A job has ended.
    EndJob {
        /// Which.
        job: JobId,
        /// How.
        status: OpStatus,
        /// Why, for people.
        why: String,
    },
    /// Ends or moves on a recorded operation.
    UpdateOp {
        /// Which.
        op: OpId,
        /// To.
        status: OpStatus,
        /// The current task's word.
        task: String,
    },
}

/// A piece of a job: an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// What.
    pub kind: OpKind,
    /// Of which partition.
    pub key: PartitionKey,
    /// About which tablet.
    pub tablet: TabletId,
    /// The other tablet, if the kind has one.
    pub to: Option<TabletId>,
}

/// R14: a tablet registers one run of its process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Register {
    /// Its address.
    pub endpoint: String,
    /// The last incarnation known to be registered, those tried since, its own last. Never empty.
    pub starts: Vec<Incarnation>,
    /// Its directory.
    pub dir_uuid: String,
    /// The boot of its machine.
    pub boot_id: String,
    /// The last stop was clean.
    pub clean: bool,
    /// Partitions with unproven damage (R30).
    pub damaged: Vec<PartitionKey>,
    /// The highest number of a table of which anything is on its disk: it is not given to another one (R37).
    #[serde(default)]
    pub highest: TableId,
}

/// R13: a new epoch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Elect {
    /// The partition.
    pub key: PartitionKey,
    /// The version that the proposer decided on.
    pub expected: Version,
    /// Who is to lead.
    pub leader: TabletId,
    /// Which run of it.
    pub incarnation: Incarnation,
    /// By the cluster itself: refused while `auto_failover` is off (R21).
    pub auto: bool,
    /// Who has surrendered (R12).
    pub surrendered: Option<TabletId>,
    /// For one who may lack acknowledged writes, with what every replica was known to have, for the record: an
    /// operator's decision (R16), or, if `auto`, for the longest log when all have only lost their tails (R15).
    #[serde(default)]
    pub unclean: Option<String>,
}

/// R7, R8: a new in-sync set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChangeInSync {
    /// The partition.
    pub key: PartitionKey,
    /// The epoch that the proposer acts in.
    pub epoch: Epoch,
    /// The version that it decided on.
    pub expected: Version,
    /// The new set. A member that is marked untrusted here and was not is one that the leader saw to have lost what it had
    /// acknowledged (R6); a mark that is missing here is kept.
    pub in_sync: Vec<Member>,
    /// Who proposes.
    pub by: TabletId,
    /// Which run of it.
    pub by_incarnation: Incarnation,
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Done,
    /// `CreateTable`.
    Created(TableId),
    /// `Register`.
    Registered(TabletId),
    /// `TakeOver`.
    Controller(u64),
    /// `StartJob`.
    Job(JobId),
    /// `ChangeInSync`, `Elect`: the partition's version now.
    Version(Version),
    /// Refused: nothing changed.
    Refused {
        /// The number of a [`stela_common::code::Code`].
        code: i32,
        /// The text.
        text: String,
    },
}

/// What the proposer of a [`ChangeInSync`] may conclude from its answer (R7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It took effect; the partition has this version.
    Applied(Version),
    /// It never took and never will take effect, nor will any copy of it that is still under way.
    Rejected,
    /// The partition has moved on: this very proposal may have done it. Its view, of a higher version, tells.
    Unknown,
}

impl Reply {
    /// What this answer to a [`ChangeInSync`] means for its proposer. A stale version or epoch is no rejection: the
    /// first copy of a proposal that was sent twice is what makes the second one stale.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Version(version) => Verdict::Applied(*version),
            Self::Refused { code, .. }
                if *code != Code::StaleEpoch as i32 && *code != Code::UnknownOutcome as i32 =>
            {
                Verdict::Rejected
            }
            _ => Verdict::Unknown,
        }
    }

    /// The refusal, if it is one.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { code, text } => Some(Refusal::new(
                Code::from_number(*code).unwrap_or(Code::Malformed),
                text.clone(),
            )),
            _ => None,
        }
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::Refused { code: refusal.code as i32, text: refusal.text }
    }
}
