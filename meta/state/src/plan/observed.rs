//! What the planner looks at beside the state.
//!
//! Invariant: none of it is decided through Raft, and none of it makes an election unsafe: it chooses among those whom
//! apply would accept, and says when to wait.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::ids::{Epoch, Incarnation, JobId, Offset, OpId, PartitionKey, TableId, TabletId};

/// What is observed of all tablets: soft state of the nameserver that leads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Is there a sign of life? A tablet that is not here is not judged.
    pub tablets: BTreeMap<TabletId, Seen>,
    /// What replicas report of themselves.
    pub replicas: BTreeMap<(PartitionKey, TabletId), Report>,
    /// Tablets that say that nothing is left of a dropped table.
    pub dropped: BTreeSet<(TabletId, TableId)>,
    /// Tablets that say that nothing is left of a replica that was taken away.
    pub removed: BTreeSet<(PartitionKey, TabletId)>,
    /// Operations that have taken too long by the clock here.
    pub overdue: BTreeSet<OpId>,
    /// Jobs that have not come further for a while by the clock here.
    pub standing: BTreeSet<JobId>,
    /// Epochs whose leader has not come to serve in its time (R23).
    pub stalled: BTreeSet<(PartitionKey, Epoch)>,
    /// Who was elected and did not come to serve since (R23).
    pub passed_over: BTreeMap<(PartitionKey, TabletId), PassedOver>,
}

/// R23: a replica that was elected and did not come to serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassedOver {
    /// Which run of its tablet.
    pub incarnation: Incarnation,
    /// In which epoch it was so last.
    pub epoch: Epoch,
    /// Grows with each that is passed over: who was so longest ago is the next.
    pub turn: u64,
    /// How often it was.
    pub times: u32,
}

/// What is observed of one run of a tablet. Not alive and neither silent nor refused: it is not known yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// The run.
    pub incarnation: Incarnation,
    /// Its stream is open and it was heard lately: it can be given a role. Outweighs the other two.
    pub alive: bool,
    /// Its lease and a tenth are over by the clock here (R17).
    pub silent: bool,
    /// Its stream ended, and its port refuses or belongs to another run (R18).
    pub refused: bool,
}

/// What a replica reports. The shell keeps the last report of each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Which run of the tablet reports.
    pub incarnation: Incarnation,
    /// The epoch that it acts in.
    pub epoch: Epoch,
    /// It leads in that epoch.
    pub leading: bool,
    /// It serves in that epoch (R10).
    pub serving: bool,
    /// It leads and does not serve yet, and has done its own part: it waits for other replicas (R10, R11, R23).
    pub waits_for_others: bool,
    /// It cannot prove that its copy is whole: no candidate.
    pub quarantined: bool,
    /// Its copy is being made readable: quarantined until then.
    pub loading: bool,
    /// It led in that epoch and surrendered (R12); 0: no.
    pub surrendered: Epoch,
    /// The epoch of its last entry.
    pub last_epoch: Epoch,
    /// The offset of its last entry.
    pub offset: Offset,
    /// Its commit offset.
    pub commit: Offset,
    /// Of a leader: its log end when its epoch began, if it tells (R10).
    pub start: Option<Offset>,
    /// Entries of the first index; for display.
    pub records: u64,
    /// Keys of the first index; for display.
    pub keys: u64,
    /// Bytes in memory; for display.
    pub memory: u64,
    /// Bytes on disk; for display.
    pub disk: u64,
}
