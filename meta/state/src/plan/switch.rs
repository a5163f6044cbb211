//! R12: planned switches: whom to drain, and which wishes to give up.

use stela_common::ids::{Epoch, PartitionKey, TabletId};

use super::{Observed, Pass};
use crate::command::Command;
use crate::rules::Sound;
use crate::state::State;

/// R12: that leader is to stop, let its tail commit, and surrender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// The partition.
    pub key: PartitionKey,
    /// Who leads.
    pub leader: TabletId,
    /// In which epoch.
    pub epoch: Epoch,
}

/// Whom to drain now, for the planned switches that are wanted: each leader of which a successor is ready. Level-triggered
/// as commands are; an order that is given twice does no harm.
#[must_use]
pub fn drains(state: &State, observed: &Observed) -> Vec<Drain> {
    let pass = Pass::new(state, observed);
    let wanted = state.partitions.iter().filter_map(|(key, p)| Some((*key, p, p.switch?)));
    let ready = wanted.filter(|(key, partition, switch)| {
        let successors = partition.replicas.iter().map(|r| r.tablet).filter(|id| {
            *id != partition.leader && switch.target.is_none_or(|target| target == *id)
        });
        let mut successors =
            successors.filter_map(|id| pass.candidate::<Sound>(*key, partition, id));
        pass.is_led(*key, partition) && successors.next().is_some()
    });
    ready
        .map(|(key, partition, _)| Drain { key, leader: partition.leader, epoch: partition.epoch })
        .collect()
}

impl Pass<'_> {
    /// Switches that took too long are given up, but for those that only want the election.
    pub(super) fn end_switches(&mut self) {
        for (key, partition) in &self.state.partitions {
            let Some(switch) = partition.switch else { continue };
            let elected =
                self.commands.iter().any(|c| matches!(c, Command::Elect(e) if e.key == *key));
            if self.observed.overdue.contains(&switch.op)
                && !elected
                && !self.has_surrendered(*key, partition)
            {
                let why = match switch.target {
                    Some(_) => {
                        "the candidate did not catch up, or the leader did not hand over, in time"
                    }
                    None => {
                        "no replica was ready to lead, or the leader did not hand over, in time"
                    }
                };
                self.commands.push(Command::EndSwitch {
                    key: *key,
                    op: switch.op,
                    why: why.into(),
                });
            }
        }
    }
}
