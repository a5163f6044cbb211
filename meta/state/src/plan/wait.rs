//! Why a partition has no leader, for those who look at it.
//!
//! Invariant: whenever nobody leads a partition and the planner elects nobody, there is a reason here that says whom it
//! waits for, or what to do.

use stela_common::ids::{PartitionKey, TabletId};

use super::elect::Load;
use super::{Observed, Pass};
use crate::rules::Sound;
use crate::state::{Doubt, Partition, State};

/// What keeps each partition that has no leader from getting one. Those of which the next pass elects one are not here.
#[must_use]
pub fn obstacles(state: &State, observed: &Observed) -> Vec<(PartitionKey, String)> {
    let pass = Pass::new(state, observed);
    let blocked = |(key, partition): (&PartitionKey, &Partition)| {
        // One that was refused to shrink to itself leads on where no other one can (R20b).
        let free = (pass.has_leader(*key, partition) && !pass.is_stalled(*key, partition))
            || pass.election::<Sound>(*key, partition, &Load::new()).is_some();
        (!free).then(|| (*key, pass.obstacle(*key, partition)))
    };
    state.partitions.iter().filter_map(blocked).collect()
}

/// What each replica of a partition is known to have, for the record of an election that may lose something (R15, R16).
#[must_use]
pub fn logs(state: &State, observed: &Observed, key: PartitionKey) -> String {
    let pass = Pass::new(state, observed);
    state.partitions.get(&key).map(|p| pass.logs(key, p)).unwrap_or_default()
}

impl Pass<'_> {
    fn obstacle(&self, key: PartitionKey, partition: &Partition) -> String {
        if !self.state.acts_by_itself() {
            return "auto_failover is off: changeleader elects a leader".into();
        }
        let members = || partition.in_sync.iter().map(|m| m.tablet);
        let doubt = |tablet| match partition.doubt(tablet) {
            None if self.is_quarantined(key, tablet) => Some(Doubt::Damage),
            doubt => doubt,
        };
        let absent = |tablet: &TabletId| {
            let unheard = doubt(*tablet).is_some() && self.report(key, *tablet).is_none();
            !self.is_alive(*tablet) || unheard
        };
        let absent: Vec<String> = members().filter(absent).map(|t| self.endpoint(t)).collect();
        if !absent.is_empty() {
            return format!("waits for {}", absent.join(", "));
        }
        let held = |tablet: &TabletId| partition.is_held(*tablet);
        let held: Vec<String> = members().filter(held).map(|t| self.endpoint(t)).collect();
        if !held.is_empty() {
            return format!("{} is held back: updatetablealive releases it", held.join(", "));
        }
        let loads = |t: &TabletId| self.report(key, *t).is_some_and(|r| r.loading);
        let loading: Vec<String> = members().filter(loads).map(|t| self.endpoint(t)).collect();
        if !loading.is_empty() {
            return format!("{} is loading its copy", loading.join(", "));
        }
        let doubted = |t| doubt(t).map(|doubt| format!("{}: {}", self.endpoint(t), doubt.text()));
        let doubted: Vec<String> = members().filter_map(doubted).collect();
        if doubted.len() == partition.in_sync.len() {
            let why = doubted.join("; ");
            return format!("no copy is known to be whole ({why}): see stela ops elect --unclean");
        }
        let leader = self.endpoint(partition.leader);
        format!("{leader} does not come to serve, and no other replica can lead")
    }

    /// What each replica is known to have.
    pub(super) fn logs(&self, key: PartitionKey, partition: &Partition) -> String {
        let log = |tablet: TabletId| {
            let endpoint = self.endpoint(tablet);
            match self.report(key, tablet) {
                Some(report) => {
                    format!("{endpoint} {} of epoch {}", report.offset, report.last_epoch)
                }
                None => format!("{endpoint} unknown"),
            }
        };
        partition.replicas.iter().map(|r| log(r.tablet)).collect::<Vec<_>>().join(", ")
    }
}
