//! R13: which partitions need a new leader, and who it is.
//!
//! Invariant: whoever is chosen is one whom apply accepts, so the choice is a matter of time to recover and not of safety;
//! but for the longest log of those who have lost their tails (R15: `longest`).

use std::cmp::Reverse;
use std::collections::BTreeMap;

use stela_common::ids::{Incarnation, PartitionKey, TabletId};

use super::Pass;
use crate::command::{Command, Elect};
use crate::rules::Rules;
use crate::state::Partition;

/// How many partitions each tablet leads.
pub(super) type Load = BTreeMap<TabletId, usize>;

impl Pass<'_> {
    pub(super) fn elect<R: Rules>(&mut self) {
        let (led, open): (Vec<_>, Vec<_>) =
            self.state.partitions.iter().partition(|(key, p)| self.is_led(**key, p));
        let mut load = Load::new();
        for (_, partition) in led {
            *load.entry(partition.leader).or_default() += 1;
        }
        for (key, partition) in open {
            if self.moves_with_this_batch(partition) {
                continue;
            }
            let Some(elect) = self.election::<R>(*key, partition, &load) else { continue };
            *load.entry(elect.leader).or_default() += 1;
            self.commands.push(Command::Elect(elect));
        }
    }

    /// The election that a partition without a leader needs, if it is possible now.
    pub(super) fn election<R: Rules>(
        &self,
        key: PartitionKey,
        partition: &Partition,
        load: &Load,
    ) -> Option<Elect> {
        // One that an operator's switch asks for goes on with `auto_failover` off (R12, R21).
        let surrendered = self.has_surrendered(key, partition).then_some(partition.leader);
        let auto = surrendered.is_none() && partition.switch.is_none();
        let elect = |(leader, incarnation), auto, unclean| Elect {
            key,
            expected: partition.version,
            leader,
            incarnation,
            auto,
            surrendered,
            unclean,
        };
        if let Some(chosen) = self.choose::<R>(key, partition, load) {
            return (!auto || self.state.acts_by_itself()).then(|| elect(chosen, auto, None));
        }
        // R15.
        let longest = self.longest(key, partition)?;
        let shown = self.logs(key, partition);
        self.state.acts_by_itself().then(|| elect(longest, true, Some(shown)))
    }

    /// R12: its leader has stopped for good in this epoch.
    pub(super) fn has_surrendered(&self, key: PartitionKey, partition: &Partition) -> bool {
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

    /// R20b, R23: another one is to lead in its place, if there is one: it was refused to shrink the set to itself, or does
    /// not come to serve.
    fn is_to_be_replaced(&self, key: PartitionKey, partition: &Partition) -> bool {
        partition.refused_shrink_epoch == partition.epoch || self.is_stalled(key, partition)
    }

    /// R23.
    pub(super) fn is_stalled(&self, key: PartitionKey, partition: &Partition) -> bool {
        self.observed.stalled.contains(&(key, partition.epoch))
    }

    /// Does its leader lead, and is nobody to lead in its place?
    pub(super) fn is_led(&self, key: PartitionKey, partition: &Partition) -> bool {
        self.has_leader(key, partition) && !self.is_to_be_replaced(key, partition)
    }

    /// Does its leader lead? The run that was elected (R1) is registered and not known to be away, and its copy is whole.
    pub(super) fn has_leader(&self, key: PartitionKey, partition: &Partition) -> bool {
        let leader = self.state.tablets.get(&partition.leader);
        leader.is_some_and(|t| t.incarnation == partition.leader_incarnation)
            && self.healthy.contains(&partition.leader)
            && !self.is_quarantined(key, partition.leader)
            && !self.has_surrendered(key, partition)
            && !self.has_stopped(key, partition)
    }

    /// A replica outside the set comes back with this batch, which moves the version: the next pass decides.
    fn moves_with_this_batch(&self, partition: &Partition) -> bool {
        partition
            .replicas
            .iter()
            .any(|r| self.risen.contains(&r.tablet) && partition.member(r.tablet).is_none())
    }

    /// The best candidate: whom an operator wishes for, then the one that was passed over least lately (R23), then the one
    /// with most in its log as far as is known, then the one that leads least, then the first in placement order. Any
    /// candidate is safe (R13).
    fn choose<R: Rules>(
        &self,
        key: PartitionKey,
        partition: &Partition,
        load: &Load,
    ) -> Option<(TabletId, Incarnation)> {
        let rank = |(at, tablet, incarnation): &(usize, TabletId, Incarnation)| {
            let log =
                self.report(key, *tablet).map(|r| (r.last_epoch, r.offset)).unwrap_or_default();
            // A switch's target, who is as good as any other (R13), or whoever did not lead.
            let wanted = match partition.switch {
                Some(switch) => switch.target.map_or(*tablet != partition.leader, |t| t == *tablet),
                None => false,
            };
            let passed = self.observed.passed_over.get(&(key, *tablet));
            let turn = passed.filter(|p| p.incarnation == *incarnation).map_or(0, |p| p.turn);
            let load = load.get(tablet).copied().unwrap_or(0);
            (!wanted, turn, Reverse(log), load, *at)
        };
        let candidates = partition.replicas.iter().enumerate().filter_map(|(at, replica)| {
            let incarnation = self.candidate::<R>(key, partition, replica.tablet)?;
            Some((at, replica.tablet, incarnation))
        });
        candidates.min_by_key(rank).map(|(_, tablet, incarnation)| (tablet, incarnation))
    }

    /// R13: a member of the set as the run that is registered, trusted, not held, alive, and whole. In place of a leader
    /// that is to be replaced, another one.
    pub(super) fn candidate<R: Rules>(
        &self,
        key: PartitionKey,
        partition: &Partition,
        id: TabletId,
    ) -> Option<Incarnation> {
        let tablet = self.state.tablets.get(&id)?;
        // R20b is about the run that leads: one that came after it leads nobody, and may be all that is left (R1).
        let leads = (id, tablet.incarnation) == (partition.leader, partition.leader_incarnation);
        let contested = leads && self.is_to_be_replaced(key, partition);
        if !self.is_alive(id) || contested || self.is_quarantined(key, id) {
            return None;
        }
        let trusted = partition
            .member(id)
            .is_some_and(|m| !m.untrusted && m.incarnation == tablet.incarnation);
        ((trusted && !partition.is_held(id)) || R::ELECT_OUTSIDE).then_some(tablet.incarnation)
    }
}
