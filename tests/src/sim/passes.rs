//! What the nameserver that leads proposes by itself: what the planner says, and planned switches (R12).

use std::collections::BTreeSet;

use stela_common::ids::{Epoch, PartitionKey, TabletId};
use stela_meta_state::command::{Command, Elect};
use stela_meta_state::plan::{Observed, Seen};

use super::clock::MS;
use super::nameserver::{DRAIN, MetaEvent, Nameserver, Origin, Switch};
use super::scene::{Event, Scene};
use super::tablet::{id_of, place_of};

impl Nameserver {
    pub(super) fn observed(&self, scene: &Scene) -> Observed {
        let mut observed = Observed { replicas: self.reports.clone(), ..Observed::default() };
        let patience = scene.pace.lease * 11 / 10 * MS;
        for (id, tablet) in &self.state.tablets {
            let at = place_of(*id);
            let heard =
                self.heard.get(&at).filter(|(incarnation, _)| *incarnation == tablet.incarnation);
            let since = heard.map_or(0, |(_, at)| *at);
            let quiet = scene.now.saturating_sub(since) > patience;
            let open = self.sessions.values().any(|s| {
                s.open
                    && s.tablet.0 == at
                    && s.incarnation == tablet.incarnation
                    && s.told.is_some()
            });
            let seen = Seen {
                incarnation: tablet.incarnation,
                alive: open && scene.now.saturating_sub(since) <= scene.pace.lease / 2 * MS,
                silent: quiet && scene.now >= self.judges_from,
                refused: self.refused.get(&at) == Some(&tablet.incarnation),
            };
            observed.tablets.insert(*id, seen);
        }
        observed
    }

    pub(super) fn pass(&mut self, scene: &mut Scene) {
        self.hand_over(scene);
        if self.passing.is_some() {
            return;
        }
        let mut commands = (self.law.plan)(&self.state, &self.observed(scene));
        for command in &mut commands {
            // R12: whoever has surrendered its epoch is not waited for.
            if let Command::Elect(elect) = command
                && let Some(partition) = self.state.partitions.get(&elect.key)
                && self.surrendered.get(&elect.key) == Some(&partition.epoch)
                && elect.leader != partition.leader
            {
                elect.surrendered = Some(partition.leader);
            }
        }
        if commands.is_empty() {
            return;
        }
        let accused: BTreeSet<usize> = commands
            .iter()
            .filter_map(|command| match command {
                Command::Offline { tablet, .. } => Some(place_of(*tablet)),
                Command::Elect(elect) => {
                    self.state.partitions.get(&elect.key).map(|p| place_of(p.leader))
                }
                _ => None,
            })
            .collect();
        self.accused = accused;
        let number = self.propose(commands, Origin::Pass, 0, scene);
        self.passing = Some(number);
        scene.after(1000 * MS, Event::Meta(MetaEvent::GiveUp(number)));
    }

    /// R12: begins a planned switch of what that tablet leads.
    pub fn switch(&mut self, at: usize, scene: &mut Scene) {
        let led = self.state.partitions.iter().filter(|(key, p)| {
            p.leader == id_of(at) && p.in_sync.len() > 1 && !self.switches.contains_key(key)
        });
        let led: Vec<_> = led.map(|(key, p)| (*key, p.epoch)).collect();
        if let Some((key, epoch)) = scene.random.pick(&led).copied() {
            let until = scene.now + DRAIN * 2 * MS;
            self.switches.insert(key, Switch { epoch, until, told: false });
            let session =
                self.sessions.iter().find(|(_, s)| s.open && s.tablet.0 == at).map(|(n, _)| *n);
            if let Some(session) = session {
                self.tell(session, None, scene);
            }
        }
    }

    /// R12: who has surrendered is followed by another, or by itself where there is no other; the attached surrender
    /// spares the other the wait.
    pub(super) fn hand_over(&mut self, scene: &mut Scene) {
        let partitions = &self.state.partitions;
        let current = |key: &PartitionKey, epoch: Epoch| {
            partitions.get(key).is_some_and(|p| p.epoch == epoch)
        };
        self.switches.retain(|key, s| scene.now < s.until && current(key, s.epoch));
        self.surrendered.retain(|key, epoch| current(key, *epoch));
        self.handing.retain(|key, _| self.surrendered.contains_key(key));
        let ready: Vec<PartitionKey> = self.surrendered.keys().copied().collect();
        for key in ready {
            let Some(partition) = self.state.partitions.get(&key) else { continue };
            let put_off = if scene.random.chance(scene.profile.slow_controller) && !scene.healed {
                1500 * MS
            } else {
                0
            };
            let until = *self.handing.entry(key).or_insert(scene.now + put_off);
            if scene.now < until {
                continue;
            }
            self.handing.insert(key, scene.now + 500 * MS);
            let fit = partition
                .in_sync
                .iter()
                .map(|m| m.tablet)
                .filter(|t| self.state.is_electable(partition, *t));
            let (own, others): (Vec<TabletId>, Vec<TabletId>) =
                fit.partition(|t| *t == partition.leader);
            let Some(leader) = scene.random.pick(&others).or(own.first()).copied() else {
                continue;
            };
            let Some(incarnation) = self.state.tablets.get(&leader).map(|t| t.incarnation) else {
                continue;
            };
            let elect = Elect {
                key,
                expected: partition.version,
                leader,
                incarnation,
                auto: false,
                surrendered: (leader != partition.leader).then_some(partition.leader),
                unclean: None,
            };
            self.propose(vec![Command::Elect(elect)], Origin::Other, 0, scene);
        }
    }

    /// `confset auto_failover`.
    pub fn set_auto_failover(&mut self, on: bool, scene: &mut Scene) {
        let command = Command::SetConfig {
            key: "auto_failover".into(),
            value: on.to_string(),
            by: "simulation".into(),
        };
        self.propose(vec![command], Origin::Other, 0, scene);
    }
}
