//! R12: planned switches. The wish is decided here and recorded as an op that goes on until an election fulfils it or it
//! is given up; that the leader drains and surrenders in between is between it and the nameserver that leads.
//!
//! Invariants: at most one switch of a partition is wanted at a time; its op is open exactly as long as the wish stands;
//! any election ends it. A switch is an operator's, so it goes on while `auto_failover` is off.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{OpId, PartitionKey, TabletId};

use super::ops::About;
use super::{Outcome, Step, stale};
use crate::command::Reply;
use crate::op::{OpKind, OpStatus};
use crate::state::{Partition, Switch};

impl Step<'_> {
    pub(super) fn switch(&mut self, key: PartitionKey, target: Option<TabletId>) -> Outcome {
        let partition = self.partition(key)?;
        self.may_switch(partition, target)?;
        let about = About { to: target, ..About::tablet(target.unwrap_or(partition.leader)) };
        self.enqueue(OpKind::ChangeLeader, key, about);
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
        if self.state.leader_runs(partition) {
            Ok(())
        } else {
            refused("its leader is not there: an election is due, not a switch")
        }
    }

    pub(super) fn end_switch(&mut self, key: PartitionKey, op: OpId, why: &str) -> Outcome {
        let wanted = self.state.partitions.get(&key).and_then(|p| p.switch);
        if wanted.is_none_or(|s| s.op != op) {
            return Err(stale("that switch is over"));
        }
        self.end_op(op, OpStatus::Failed, why);
        Ok(Reply::Done)
    }

    /// An election makes `leader` the leader: whoever wished for another is told that it came to nothing.
    pub(super) fn fulfil(&mut self, switch: Switch, leader: TabletId) {
        match switch.target {
            Some(target) if target != leader => {
                self.end_op(switch.op, OpStatus::Failed, "another replica was elected");
            }
            _ => self.end_op(switch.op, OpStatus::Done, ""),
        }
    }
}
