//! What the leading nameserver does next: the state and what is observed of the tablets go in, commands come out.
//!
//! **Invariants**
//! * Level-triggered: nothing here depends on having seen an event. As long as the state asks for a step and the step is
//!   possible, each call names it again; when nothing is to be done it names nothing.
//! * A suspicion is enough to start an election (R18), since what makes an election safe is that only a trusted member
//!   of the in-sync set is elected (R13) and that nobody reads or acknowledges without the permits of R11.
//! * What is proposed carries the version or the run that it was decided on: apply refuses it if that has moved on.
//! * A leader that does not come to serve is passed over (R23): that too only chooses among those who are safe.
//! * With `auto_failover` off no role changes by itself (R21); findings (offline, online) are recorded all the same.

mod balance;
mod elect;
mod jobs;
mod longest;
mod observed;
mod ops;
mod switch;
mod wait;

use std::collections::BTreeSet;

use stela_common::ids::{PartitionKey, TabletId};

pub use self::jobs::{progress, remaining, waits_for};
pub use self::observed::{Observed, PassedOver, Report, Seen};
pub use self::switch::{Drain, drains};
pub use self::wait::{logs, obstacles};
use crate::command::Command;
use crate::rules::{Rules, Sound};
use crate::state::{State, Tablet};

/// The next safe commands, to be proposed as one batch in this order. Nothing: all is as it should be, or has to wait.
#[must_use]
pub fn plan(state: &State, observed: &Observed) -> Vec<Command> {
    plan_with::<Sound>(state, observed)
}

/// [`plan`] under rules that may have a planted mistake.
#[must_use]
pub fn plan_with<R: Rules>(state: &State, observed: &Observed) -> Vec<Command> {
    let mut pass = Pass::new(state, observed);
    pass.judge_tablets();
    pass.elect::<R>();
    pass.end_switches();
    pass.advance_ops();
    pass.advance_jobs();
    pass.note_serving();
    pass.confirm_dropped();
    pass.confirm_removed();
    pass.commands
}

/// One pass over the state.
struct Pass<'a> {
    state: &'a State,
    observed: &'a Observed,
    /// Healthy once the commands so far are applied.
    healthy: BTreeSet<TabletId>,
    /// Come back with this batch.
    risen: BTreeSet<TabletId>,
    commands: Vec<Command>,
}

impl<'a> Pass<'a> {
    fn new(state: &'a State, observed: &'a Observed) -> Self {
        let healthy = state.tablets.iter().filter(|(_, t)| t.healthy).map(|(id, _)| *id).collect();
        Self { state, observed, healthy, risen: BTreeSet::new(), commands: Vec::new() }
    }

    /// What is observed of the run that is registered; of another run, nothing.
    fn seen(&self, id: TabletId, tablet: &Tablet) -> Option<&'a Seen> {
        self.observed.tablets.get(&id).filter(|seen| seen.incarnation == tablet.incarnation)
    }

    /// Is that tablet healthy, and heard lately as the run that is registered?
    fn is_alive(&self, id: TabletId) -> bool {
        let registered = self.state.tablets.get(&id);
        self.healthy.contains(&id)
            && registered.is_some_and(|t| self.seen(id, t).is_some_and(|seen| seen.alive))
    }

    fn endpoint(&self, id: TabletId) -> String {
        self.state.tablets.get(&id).map_or_else(|| id.to_string(), |t| t.endpoint.clone())
    }

    fn judge_tablets(&mut self) {
        for (id, tablet) in &self.state.tablets {
            let (tablet_id, incarnation) = (*id, tablet.incarnation);
            match self.seen(*id, tablet) {
                Some(seen) if tablet.healthy && !seen.alive && (seen.silent || seen.refused) => {
                    self.healthy.remove(id);
                    self.commands.push(Command::Offline {
                        tablet: tablet_id,
                        incarnation,
                        auto: true,
                    });
                }
                Some(seen) if !tablet.healthy && seen.alive => {
                    self.healthy.insert(*id);
                    self.risen.insert(*id);
                    self.commands.push(Command::Online { tablet: tablet_id, incarnation });
                }
                _ => {}
            }
        }
    }

    /// The report of the run that is registered.
    fn report(&self, key: PartitionKey, id: TabletId) -> Option<&'a Report> {
        let tablet = self.state.tablets.get(&id)?;
        self.observed.replicas.get(&(key, id)).filter(|r| r.incarnation == tablet.incarnation)
    }

    fn is_quarantined(&self, key: PartitionKey, id: TabletId) -> bool {
        self.report(key, id).is_some_and(|r| r.quarantined)
    }

    /// R10: where an epoch began, once its leader serves; for display.
    fn note_serving(&mut self) {
        for (key, partition) in &self.state.partitions {
            if partition.history.last().is_none_or(|l| l.start.is_some()) {
                continue;
            }
            let Some(report) = self.observed.replicas.get(&(*key, partition.leader)) else {
                continue;
            };
            let of_this_epoch = report.incarnation == partition.leader_incarnation
                && report.epoch == partition.epoch;
            if let Some(start) = report.start.filter(|_| of_this_epoch && report.serving) {
                self.commands.push(Command::Started { key: *key, epoch: partition.epoch, start });
            }
        }
    }

    /// R37.
    fn confirm_dropped(&mut self) {
        for (tid, tombstone) in &self.state.tombstones {
            let said = |tablet: &&TabletId| self.observed.dropped.contains(&(**tablet, *tid));
            let confirmed = tombstone.waiting.iter().filter(said);
            self.commands.extend(
                confirmed.map(|tablet| Command::ConfirmDropped { tid: *tid, tablet: *tablet }),
            );
        }
    }
}
