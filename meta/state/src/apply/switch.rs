//! R12: planned switches. The wish is decided here and recorded as an op that goes on until an election fulfils it or it
//! is given up; that the leader drains and surrenders in between is between it and the nameserver that leads.
//!
//! Invariants: at most one switch of a partition is wanted at a time; its op is open exactly as long as the wish stands;
//! any election ends it. A switch is an operator's, so it goes on while `auto_failover` is off.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{OpId, PartitionKey, TabletId};

use super::{Outcome, Step, stale};
use crate::command::Reply;
use crate::object::Key;
use crate::state::{OpKind, OpStatus, Partition, Switch};

impl Step<'_> {
    pub(super) fn switch(&mut self, key: PartitionKey, target: Option<TabletId>) -> Outcome {
        let partition = self.partition(key)?;
        self.may_switch(partition, target)?;
        let about = target.unwrap_or(partition.leader);
        let op = self.begin(OpKind::ChangeLeader, key, about, false, "drain the leader");
        if let Some(partition) = self.state.partitions.get_mut(&key) {
            partition.switch = Some(Switch { target, op });
            self.changed.insert(Key::Partition(key));
        }
        Ok(Reply::Done)
    }

    fn may_switch(&self, partition: &Partition, target: Option<TabletId>) -> Result<(), Refusal> {
        let refused = |why: &str| Err(Refusal::new(Code::InvalidParameter, why));
        if partition.switch.is_some() {
            return refused("the leader is being changed already; showopstatus shows it");
        }
        match target {
            Some(target) if target == partition.leader => return refused("it leads already"),
            Some(target) if partition.replica(target).is_none() => {
                return Err(Code::PidNotFound.into());
            }
            Some(target) if partition.is_held(target) => return refused("candidate is held"),
            Some(target) if !self.state.is_healthy(target) => {
                return Err(Code::TabletNotHealthy.into());
            }
            None if partition.replicas.len() < 2 => return refused("there is no other replica"),
            _ => {}
        }
        // Without a leader that runs there is nobody to drain: that is an election.
        let runs = self
            .state
            .tablets
            .get(&partition.leader)
            .is_some_and(|t| t.healthy && t.incarnation == partition.leader_incarnation);
        if runs {
            Ok(())
        } else {
            refused("its leader is not there: an election is due, not a switch")
        }
    }

    pub(super) fn end_switch(&mut self, key: PartitionKey, op: OpId, why: &str) -> Outcome {
        match self.state.partitions.get_mut(&key) {
            Some(partition) if partition.switch.is_some_and(|s| s.op == op) => {
                partition.switch = None;
                self.changed.insert(Key::Partition(key));
                self.finish(op, OpStatus::Failed, why);
                Ok(Reply::Done)
            }
            _ => Err(stale("that switch is over")),
        }
    }

    /// An election makes `leader` the leader: whoever wished for another is told that it came to nothing.
    pub(super) fn fulfil(&mut self, switch: Switch, leader: TabletId) {
        match switch.target {
            Some(target) if target != leader => {
                self.finish(switch.op, OpStatus::Failed, "another replica was elected");
            }
            _ => self.finish(switch.op, OpStatus::Done, ""),
        }
    }
}
