//! What the leading nameserver does next: the state and what is observed of the tablets go in, commands come out.
//!
//! **Invariants**
//! * Level-triggered: nothing here depends on having seen an event. As long as the state asks for a step and the step is
//!   possible, each call names it again; when nothing is to be done it names nothing.
//! * A suspicion is enough to start an election (R18), since what makes an election safe is that only a trusted member
//!   of the in-sync set is elected (R13) and that nobody reads or acknowledges without the permits of R11.
//! * What is proposed carries the version or the run that it was decided on: apply refuses it if that has moved on.
//! * With `auto_failover` off no role changes (R21); findings (offline, online) are recorded all the same.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::ids::{Epoch, Incarnation, Offset, OpId, PartitionKey, TableId, TabletId};

use crate::command::{Command, Elect};
use crate::rules::{Rules, Sound};
use crate::state::{Partition, State, Tablet};

/// What is observed of all tablets: soft state of the nameserver that leads.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Observed {
    /// Is there a sign of life? A tablet that is not here is not judged.
    pub tablets: BTreeMap<TabletId, Seen>,
    /// What replicas report of themselves.
    pub replicas: BTreeMap<(PartitionKey, TabletId), Report>,
    /// Tablets that say that nothing is left of a dropped table.
    pub dropped: BTreeSet<(TabletId, TableId)>,
    /// Planned switches that have taken too long by the clock here.
    pub overdue: BTreeSet<OpId>,
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
    /// It cannot prove that its copy is whole: no candidate.
    pub quarantined: bool,
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
    /// Bytes in memory; for display.
    pub memory: u64,
    /// Bytes on disk; for display.
    pub disk: u64,
}

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
    pass.note_serving();
    pass.confirm_dropped();
    pass.commands
}

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

    fn elect<R: Rules>(&mut self) {
        let (led, open): (Vec<_>, Vec<_>) =
            self.state.partitions.iter().partition(|(key, p)| self.is_led(**key, p));
        let mut load: BTreeMap<TabletId, usize> = BTreeMap::new();
        for (_, partition) in led {
            *load.entry(partition.leader).or_default() += 1;
        }
        for (key, partition) in open {
            // An election that an operator's switch asks for goes on with `auto_failover` off (R12, R21).
            let surrendered = self.has_surrendered(*key, partition).then_some(partition.leader);
            let auto = surrendered.is_none() && partition.switch.is_none();
            if self.moves_with_this_batch(partition) || (auto && !self.state.auto_failover()) {
                continue;
            }
            let Some((leader, incarnation)) = self.choose::<R>(*key, partition, &load) else {
                continue;
            };
            *load.entry(leader).or_default() += 1;
            self.commands.push(Command::Elect(Elect {
                key: *key,
                expected: partition.version,
                leader,
                incarnation,
                auto,
                surrendered,
                unclean: None,
            }));
        }
    }

    /// R12: its leader has stopped for good in this epoch.
    fn has_surrendered(&self, key: PartitionKey, partition: &Partition) -> bool {
        self.report(key, partition.leader).is_some_and(|r| {
            r.incarnation == partition.leader_incarnation && r.surrendered == partition.epoch
        })
    }

    /// Its leader acts in this epoch and does not lead: it was made anew from its log, without its process, and to lead
    /// again it needs a new epoch (R1).
    fn has_stopped(&self, key: PartitionKey, partition: &Partition) -> bool {
        self.report(key, partition.leader).is_some_and(|r| {
            r.incarnation == partition.leader_incarnation
                && r.epoch == partition.epoch
                && !r.leading
        })
    }

    /// Switches that took too long are given up, but for those that only want the election.
    fn end_switches(&mut self) {
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

    /// Does its leader lead? The run that was elected (R1) is registered and not known to be away, its copy is whole,
    /// and it has not been refused to shrink the set to itself (R20b).
    fn is_led(&self, key: PartitionKey, partition: &Partition) -> bool {
        let leader = self.state.tablets.get(&partition.leader);
        leader.is_some_and(|t| t.incarnation == partition.leader_incarnation)
            && self.healthy.contains(&partition.leader)
            && !self.is_quarantined(key, partition.leader)
            && !self.has_surrendered(key, partition)
            && !self.has_stopped(key, partition)
            && partition.refused_shrink_epoch != partition.epoch
    }

    /// A replica outside the set comes back with this batch, which moves the version: the next pass decides.
    fn moves_with_this_batch(&self, partition: &Partition) -> bool {
        partition
            .replicas
            .iter()
            .any(|r| self.risen.contains(&r.tablet) && partition.member(r.tablet).is_none())
    }

    /// The best candidate: the one with most in its log as far as is known, then the one that leads least, then the
    /// first in placement order. Any candidate is safe (R13).
    fn choose<R: Rules>(
        &self,
        key: PartitionKey,
        partition: &Partition,
        load: &BTreeMap<TabletId, usize>,
    ) -> Option<(TabletId, Incarnation)> {
        let rank = |(at, tablet, _): &(usize, TabletId, Incarnation)| {
            let log =
                self.report(key, *tablet).map(|r| (r.last_epoch, r.offset)).unwrap_or_default();
            // A switch's target, who is as good as any other (R13), or whoever did not lead.
            let wanted = match partition.switch {
                Some(switch) => switch.target.map_or(*tablet != partition.leader, |t| t == *tablet),
                None => false,
            };
            let load = load.get(tablet).copied().unwrap_or(0);
            (!wanted, std::cmp::Reverse(log), load, *at)
        };
        let candidates = partition.replicas.iter().enumerate().filter_map(|(at, replica)| {
            let incarnation = self.candidate::<R>(key, partition, replica.tablet)?;
            Some((at, replica.tablet, incarnation))
        });
        candidates.min_by_key(rank).map(|(_, tablet, incarnation)| (tablet, incarnation))
    }

    /// R13: a member of the set as the run that is registered, trusted, not held, alive, and whole. In place of a leader
    /// that may be cut off from the others, another one (R20b).
    fn candidate<R: Rules>(
        &self,
        key: PartitionKey,
        partition: &Partition,
        id: TabletId,
    ) -> Option<Incarnation> {
        let tablet = self.state.tablets.get(&id)?;
        let alive =
            self.healthy.contains(&id) && self.seen(id, tablet).is_some_and(|seen| seen.alive);
        // R20b is about the run that leads: one that came after it leads nobody, and may be all that is left (R1).
        let leads = (id, tablet.incarnation) == (partition.leader, partition.leader_incarnation);
        let contested = partition.refused_shrink_epoch == partition.epoch && leads;
        if !alive || contested || self.is_quarantined(key, id) {
            return None;
        }
        let trusted = partition
            .member(id)
            .is_some_and(|m| !m.untrusted && m.incarnation == tablet.incarnation);
        ((trusted && !partition.is_held(id)) || R::ELECT_OUTSIDE).then_some(tablet.incarnation)
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
