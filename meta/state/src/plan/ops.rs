//! The next step of each operation that goes on.
//!
//! Invariants: of a partition only the first of its queue is looked at, so that nothing else changes its replicas
//! meanwhile, and one slow operation keeps no other partition back; copies are made to a tablet a few at a time; an
//! operation whose tablets are gone, or that took too long, ends.

use std::collections::BTreeMap;

use stela_common::ids::{OpId, PartitionKey, TabletId};

use super::Pass;
use crate::command::Command;
use crate::op::{Op, OpKind, OpStatus, Task};
use crate::state::{Partition, State};

/// So many copies are made to a tablet at a time.
const TRANSFERS: usize = 2;

/// What is under way, by the tablet that it is for.
struct Busy {
    copies: BTreeMap<TabletId, usize>,
    recoveries: BTreeMap<TabletId, usize>,
}

impl Busy {
    fn new(state: &State) -> Self {
        let mut busy = Self { copies: BTreeMap::new(), recoveries: BTreeMap::new() };
        let current = state.partitions.values().filter_map(|p| state.current_op(p));
        for (_, op) in current.filter(|(_, op)| op.status == OpStatus::Doing) {
            busy.add(op);
        }
        busy
    }

    fn add(&mut self, op: &Op) {
        if let Some(to) = op.copies_to() {
            *self.copies.entry(to).or_default() += 1;
        }
        if op.limit > 0 {
            *self.recoveries.entry(op.tablet).or_default() += 1;
        }
    }

    /// Is there room for it?
    fn has_room(&self, op: &Op) -> bool {
        let count = |of: &BTreeMap<TabletId, usize>, id| of.get(&id).copied().unwrap_or(0);
        op.copies_to().is_none_or(|to| count(&self.copies, to) < TRANSFERS)
            && (op.limit == 0 || count(&self.recoveries, op.tablet) < op.limit as usize)
    }
}

impl Pass<'_> {
    pub(super) fn advance_ops(&mut self) {
        let mut busy = Busy::new(self.state);
        for (key, partition) in &self.state.partitions {
            let Some((id, op)) = self.state.current_op(partition) else { continue };
            if op.status == OpStatus::Inited {
                // What was there before has to be gone first. An offline tablet is not waited for: it cannot begin.
                let free = op.copies_to().is_none_or(|to| {
                    !self.is_being_dropped(*key, to) || !self.state.is_healthy(to)
                });
                if free && busy.has_room(op) {
                    busy.add(op);
                    self.commands.push(Command::StartOp { op: id });
                }
            } else if let Some(step) = self.step_of(*key, partition, id, op) {
                self.commands.push(step);
            }
        }
    }

    fn is_being_dropped(&self, key: PartitionKey, tablet: TabletId) -> bool {
        self.state.removals.get(&key).is_some_and(|gone| gone.contains_key(&tablet))
    }

    fn step_of(
        &self,
        key: PartitionKey,
        partition: &Partition,
        id: OpId,
        op: &Op,
    ) -> Option<Command> {
        let end = |status, why: &str| Some(Command::EndOp { op: id, status, why: why.into() });
        let failed = |why| end(OpStatus::Failed, why);
        let done = || end(OpStatus::Done, "");
        let late = self.observed.overdue.contains(&id);
        // It has nothing left there, or tells when it is back.
        let gone = |tablet| !self.is_being_dropped(key, tablet) || !self.state.is_healthy(tablet);
        let arrives = |tablet: TabletId, first: Task| {
            if partition.replica(tablet).is_none() {
                return failed("the replica was taken away");
            }
            if !self.state.is_healthy(tablet) {
                return failed("the tablet is offline");
            }
            if late {
                return failed("it did not catch up in time");
            }
            let joined = self.report(key, tablet).is_some_and(|r| r.epoch == partition.epoch);
            let task = if joined { Task::CheckBinlogSyncProgress } else { first }.word();
            (op.task != task).then(|| Command::UpdateOp {
                op: id,
                status: OpStatus::Doing,
                task: task.into(),
            })
        };
        match op.kind {
            OpKind::AddReplica => match op.to {
                Some(to) if self.state.is_alive(partition, to) => done(),
                Some(to) => arrives(to, Task::SendSnapshot),
                None => failed("it names no tablet"),
            },
            OpKind::Migrate => {
                let Some(to) = op.to else { return failed("it names no tablet") };
                if partition.replica(op.tablet).is_none() {
                    return gone(op.tablet).then(done).flatten();
                }
                if partition.leader == op.tablet {
                    return failed("src_endpoint has become the leader");
                }
                if self.state.is_alive(partition, to) && self.is_led(key, partition) {
                    return Some(Command::TakeAway { op: id });
                }
                arrives(to, Task::SendSnapshot)
            }
            OpKind::DelReplica => gone(op.tablet).then(done).flatten(),
            OpKind::ReAddReplica => {
                if self.state.is_alive(partition, op.tablet) {
                    return done();
                }
                if partition.is_held(op.tablet) {
                    return failed("the replica is held back again");
                }
                arrives(op.tablet, Task::LoadTable)
            }
            OpKind::MakeSnapshot if partition.leader != op.tablet => {
                failed("another replica leads now")
            }
            OpKind::MakeSnapshot if late => failed("it took too long"),
            OpKind::AddIndex if !self.state.is_filling(key.tid) => failed("the index was deleted"),
            // The wish for another leader ends with an election, or is given up (`switch`).
            OpKind::MakeSnapshot
            | OpKind::AddIndex
            | OpKind::ChangeLeader
            | OpKind::ReLoadTable => None,
            // These end where they begin.
            OpKind::OfflineReplica | OpKind::RecoverTable | OpKind::UpdatePartitionStatus => done(),
        }
    }

    /// R37, for single replicas.
    pub(super) fn confirm_removed(&mut self) {
        for (key, gone) in &self.state.removals {
            let said =
                gone.keys().filter(|tablet| self.observed.removed.contains(&(*key, **tablet)));
            self.commands
                .extend(said.map(|tablet| Command::ConfirmRemoved { key: *key, tablet: *tablet }));
        }
    }
}
