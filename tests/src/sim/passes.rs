//! What the nameserver that leads proposes by itself: what the planner says, with the drains of planned switches (R12).

use std::collections::BTreeSet;

use stela_meta_state::command::Command;
use stela_meta_state::plan::{self, Observed};

use super::clock::MS;
use super::nameserver::{MetaEvent, Nameserver, Origin, SWITCH};
use super::scene::{Event, Scene};
use super::tablet::place_of;

impl Nameserver {
    pub(super) fn observed(&self, scene: &Scene) -> Observed {
        let late = |since: &u64| scene.now - *since > SWITCH * MS;
        let mut observed = Observed {
            replicas: self.reports.clone(),
            dropped: self.dropped.clone(),
            overdue: self.wanted.iter().filter(|(_, t)| late(t)).map(|(op, _)| *op).collect(),
            ..Observed::default()
        };
        observed.tablets = self.judge.seen(&self.state, self.local(scene));
        observed
    }

    pub(super) fn pass(&mut self, scene: &mut Scene) {
        let now = self.local(scene);
        self.judge.tick(now);
        self.judge.acquaint(&self.state, now);
        for (tablet, run) in self.judge.suspects() {
            let delay = scene.latency();
            scene.after(delay, Event::Meta(MetaEvent::Probed(tablet, run, now, true)));
        }
        self.watch_switches(scene);
        let observed = self.observed(scene);
        self.drain(&observed, scene);
        if self.passing.is_some() {
            return;
        }
        let mut commands = (self.law.plan)(&self.state, &observed);
        commands.retain(|command| !self.is_put_off(command, scene));
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

    /// A switch has its time from when it is first seen here.
    fn watch_switches(&mut self, scene: &Scene) {
        let wanted: BTreeSet<_> =
            self.state.partitions.values().filter_map(|p| p.switch).map(|s| s.op).collect();
        self.wanted.retain(|op, _| wanted.contains(op));
        for op in wanted {
            self.wanted.entry(op).or_insert(scene.now);
        }
    }

    /// R12: whom to drain; who is told so for the first time is told at once.
    fn drain(&mut self, observed: &Observed, scene: &mut Scene) {
        let before = std::mem::replace(&mut self.drains, plan::drains(&self.state, observed));
        let new: BTreeSet<usize> = self
            .drains
            .iter()
            .filter(|d| !before.contains(d))
            .map(|d| place_of(d.leader))
            .collect();
        let open = self.sessions.iter().filter(|(_, s)| s.open && new.contains(&s.tablet.0));
        let sessions: Vec<u64> = open.map(|(number, _)| *number).collect();
        for session in sessions {
            self.tell(session, None, scene);
        }
    }

    /// An election that follows a surrender is put off, sometimes.
    fn is_put_off(&mut self, command: &Command, scene: &mut Scene) -> bool {
        let Command::Elect(elect) = command else { return false };
        if elect.surrendered.is_none() {
            return false;
        }
        let slow = scene.random.chance(scene.profile.slow_controller) && !scene.healed;
        let until = scene.now + if slow { 1500 * MS } else { 0 };
        let until = *self.handing.entry(elect.key).or_insert(until);
        if scene.now >= until {
            self.handing.remove(&elect.key);
        }
        scene.now < until
    }
}
