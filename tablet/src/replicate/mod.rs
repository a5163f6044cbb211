//! The streams between tablets: the one that leads opens it (R4); records go as they stand in its log.
//!
//! Each direction gathers what the cores want said and sends it as one message, so a message batches across partitions
//! and writes by itself.

mod receive;
mod send;

use std::collections::{BTreeMap, BTreeSet};

pub use receive::serve;
pub use send::keep_peers;
use stela_common::ids::{Epoch, Offset, PartitionId, PartitionKey, TableId};
use stela_proto::replication as pb;
use stela_replica::epochs::Epochs;
use stela_replica::message::{ToFollower, ToLeader};

use crate::outbox::Gather;

/// The largest message between tablets, bytes; a run of records is cut well before.
pub const MAX_MESSAGE: usize = 64 << 20;
/// Records of one frame, bytes: more waits for the next.
pub const FRAME: usize = 1 << 20;

/// What goes to a follower tablet next.
#[derive(Default)]
pub struct FollowerBox {
    /// The stream's first message.
    pub open: Option<pb::Open>,
    leads: BTreeMap<PartitionKey, pb::Lead>,
    common_points: BTreeMap<PartitionKey, pb::CommonPoint>,
    need_snapshots: BTreeMap<PartitionKey, pb::NeedSnapshot>,
    commits: BTreeMap<PartitionKey, pb::Commit>,
    /// Partitions with records to ship.
    pub dirty: BTreeSet<PartitionKey>,
    /// Asks for a permit (R11).
    pub asked_at: u64,
}

impl Gather for FollowerBox {
    fn is_empty(&self) -> bool {
        self.open.is_none()
            && self.leads.is_empty()
            && self.common_points.is_empty()
            && self.need_snapshots.is_empty()
            && self.commits.is_empty()
            && self.dirty.is_empty()
            && self.asked_at == 0
    }
}

impl FollowerBox {
    /// There are records to ship.
    pub fn dirty(&mut self, key: PartitionKey) {
        self.dirty.insert(key);
    }

    /// A core's message about a partition of the table that was created at that index. A later one of its kind replaces an
    /// earlier one: each says all that counts.
    pub fn message(&mut self, key: PartitionKey, created_index: u64, message: ToFollower) {
        let (tid, pid) = (key.tid.0, key.pid.0);
        match message {
            ToFollower::Lead { epoch } => {
                self.leads.insert(key, pb::Lead { tid, pid, epoch: epoch.0, created_index });
            }
            ToFollower::CommonPoint { epoch, nonce, offset, unclean } => {
                let point =
                    pb::CommonPoint { tid, pid, epoch: epoch.0, nonce, offset: offset.0, unclean };
                // Both answer a Hello: the last one is awaited.
                self.need_snapshots.remove(&key);
                self.common_points.insert(key, point);
            }
            ToFollower::NeedSnapshot { epoch, nonce, common, offset, unclean } => {
                let need = pb::NeedSnapshot {
                    tid,
                    pid,
                    epoch: epoch.0,
                    nonce,
                    common: common.0,
                    offset: offset.0,
                    unclean,
                };
                self.common_points.remove(&key);
                self.need_snapshots.insert(key, need);
            }
            ToFollower::Commit { epoch, commit } => {
                self.commits.insert(key, pb::Commit { tid, pid, epoch: epoch.0, commit: commit.0 });
            }
            // Records are never said, they are shipped.
            ToFollower::Records { .. } => debug_assert!(false, "records are shipped from the log"),
        }
    }

    /// As it goes over the wire, with the records.
    #[must_use]
    pub fn into_message(self, runs: Vec<pb::Run>) -> pb::ToFollower {
        pb::ToFollower {
            open: self.open,
            leads: self.leads.into_values().collect(),
            common_points: self.common_points.into_values().collect(),
            need_snapshots: self.need_snapshots.into_values().collect(),
            runs,
            commits: self.commits.into_values().collect(),
            asked_at: self.asked_at,
        }
    }
}

/// What goes back to a leader tablet next.
#[derive(Default)]
pub struct LeaderBox {
    /// The stream's first answer.
    pub open: Option<pb::Open>,
    hellos: BTreeMap<PartitionKey, pb::Hello>,
    acks: BTreeMap<PartitionKey, pb::Ack>,
    lefts: BTreeMap<PartitionKey, pb::Left>,
    /// R11: grants what was asked at that time; goes with or after every `Left` that came before it.
    pub granted: u64,
}

impl Gather for LeaderBox {
    fn is_empty(&self) -> bool {
        self.open.is_none()
            && self.hellos.is_empty()
            && self.acks.is_empty()
            && self.lefts.is_empty()
            && self.granted == 0
    }
}

impl LeaderBox {
    /// A core's message. A later one of its kind replaces an earlier one.
    pub fn message(&mut self, key: PartitionKey, message: ToLeader) {
        let (tid, pid) = (key.tid.0, key.pid.0);
        match message {
            ToLeader::Hello { epoch, nonce, history, last, rebuild } => {
                let history = history
                    .iter()
                    .map(|(epoch, first)| pb::EpochStart { epoch: epoch.0, first: first.0 })
                    .collect();
                // An acknowledgement of an earlier joining must not follow the new Hello.
                self.acks.remove(&key);
                self.hellos.insert(
                    key,
                    pb::Hello { tid, pid, epoch: epoch.0, nonce, history, last: last.0, rebuild },
                );
            }
            ToLeader::Ack { epoch, nonce, offset } => {
                self.acks
                    .insert(key, pb::Ack { tid, pid, epoch: epoch.0, nonce, offset: offset.0 });
            }
            ToLeader::Left { epoch } => {
                self.lefts.insert(key, pb::Left { tid, pid, epoch: epoch.0 });
            }
        }
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn into_message(self) -> pb::ToLeader {
        pb::ToLeader {
            open: self.open,
            hellos: self.hellos.into_values().collect(),
            acks: self.acks.into_values().collect(),
            lefts: self.lefts.into_values().collect(),
            granted: self.granted,
        }
    }
}

/// How far a partition was shipped over a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ship {
    /// The next entry.
    pub next: Offset,
    /// Offset and epoch of the one before (R5).
    pub prev: (Offset, Epoch),
}

fn key(tid: u32, pid: u32) -> PartitionKey {
    PartitionKey { tid: TableId(tid), pid: PartitionId(pid) }
}

fn history(starts: &[pb::EpochStart]) -> Option<Epochs> {
    let mut epochs = Epochs::default();
    let mut before = (Epoch(0), Offset(0));
    for start in starts {
        let this = (Epoch(start.epoch), Offset(start.first));
        // What does not ascend is no history: a foreign message must not get further than here.
        if this.0 <= before.0 || this.1 <= before.1 {
            return None;
        }
        epochs.push(this.0, this.1);
        before = this;
    }
    Some(epochs)
}
