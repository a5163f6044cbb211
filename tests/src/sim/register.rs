//! The register of the meta group: proposals on their way, and what becomes of them.

use stela_common::code::Code;
use stela_common::ids::{PartitionKey, TableId, TabletId};
use stela_common::table::Ack;
use stela_meta::control::judge::Judge;
use stela_meta_state::check;
use stela_meta_state::command::{Batch, Command, Proposal, Reply, Verdict};
use stela_meta_state::object::Changed;
use stela_meta_state::state::State;

use super::clock::MS;
use super::nameserver::{MetaEvent, Nameserver, Origin, Pending, timing};
use super::point::Point;
use super::scene::{Doing, Event, NAMESERVER, Scene, trace};
use super::tablet::place_of;

impl Nameserver {
    /// Applies commands at once, as at the beginning of a run.
    pub fn decide(&mut self, scene: &mut Scene, commands: &[Command]) -> Vec<Reply> {
        let now = 1_000_000 + scene.now / MS;
        let orders = commands;
        let commands = commands
            .iter()
            .map(|command| Proposal { request: None, now, command: command.clone() })
            .collect();
        let before_tables: Vec<TableId> = self.state.tables.keys().copied().collect();
        let before = self.law.checked.then(|| self.state.clone());
        let index = self.state.applied + 1;
        let replies =
            (self.law.apply)(&mut self.state, index, &Batch { commands }, &mut Changed::new());
        if let Some(before) = before {
            let outcome =
                check::state(&self.state).and_then(|()| check::step(&before, &self.state));
            if let Err(broken) = outcome {
                scene.ghost.broken(format_args!("metadata: {broken}"));
            }
            if let Some(key) = moved_by_itself(&before, &self.state, orders) {
                scene
                    .ghost
                    .broken(format_args!("{key}: another epoch although auto_failover is off"));
            }
        }
        for tid in before_tables.into_iter().filter(|tid| !self.state.tables.contains_key(tid)) {
            scene.ghost.dropped(tid);
        }
        scene.live = self.state.partitions.keys().copied().collect();
        replies
    }

    /// Puts commands on their way into the log of the group.
    pub(super) fn propose(
        &mut self,
        commands: Vec<Command>,
        origin: Origin,
        held: u64,
        scene: &mut Scene,
    ) -> u64 {
        let number = scene.number();
        let slow = scene.random.chance(20) && !scene.healed;
        let delay = scene.random.between(MS / 2, if slow { 400 * MS } else { 6 * MS });
        self.pending.insert(number, Pending { commands, origin });
        scene.after(held + delay, Event::Meta(MetaEvent::Commit(number)));
        number
    }

    pub(super) fn commit(&mut self, number: u64, scene: &mut Scene) {
        let Some(pending) = self.pending.remove(&number) else { return };
        if !scene.profile.ruin && pending.commands.iter().any(|command| self.leaves_none(command)) {
            trace!(scene, "meta: lost on its way: {:?}", pending.commands);
            // Where the disks of all members fail something may be lost, which other profiles try: what would leave no
            // other member is lost on its way.
            return;
        }
        let replies = self.decide(scene, &pending.commands);
        for (command, reply) in pending.commands.iter().zip(&replies) {
            self.note(command, reply, scene);
        }
        match pending.origin {
            Origin::Pass => {
                if self.passing == Some(number) {
                    self.passing = None;
                    self.accused.clear();
                }
            }
            Origin::Register((at, life)) => {
                let doing = match &replies[..] {
                    [Reply::Registered(id)] if place_of(*id) == at => Some(Doing::Registered),
                    // As a tablet takes it: whoever was superseded does not come back, and its process ends.
                    [reply] => reply
                        .refusal()
                        .filter(|r| [Code::InvalidParameter, Code::StaleEpoch].contains(&r.code))
                        .map(|_| Doing::Outcast),
                    _ => None,
                };
                if let Some(doing) = doing {
                    self.answer((at, life), doing, scene);
                }
            }
            Origin::Change(of, change, answered) => {
                let verdict = replies.first().map(Reply::verdict);
                let applied = match verdict {
                    Some(Verdict::Applied(_)) => true,
                    Some(Verdict::Rejected) => false,
                    _ => return self.push(scene),
                };
                if applied {
                    scene.reached(Point::Applied, of.0);
                }
                if answered {
                    let doing =
                        Doing::Verdict(change.key, change.expected, change.in_sync, applied);
                    self.answer(of, doing, scene);
                }
            }
            Origin::TakeOver => {
                if let [Reply::Controller(epoch)] = &replies[..] {
                    self.controller = *epoch;
                    self.up = true;
                    self.judge = Judge::new(timing(scene), self.local(scene));
                    // It has no streams: whoever had one with another nameserver comes to this one.
                    let sessions: Vec<u64> = self.sessions.keys().copied().collect();
                    sessions.into_iter().for_each(|session| self.hang_up(session, scene));
                    trace!(scene, "meta: a nameserver takes over as controller {epoch}");
                }
            }
            Origin::Operator => {}
        }
        self.push(scene);
    }

    /// Would nobody be left in the set whose disk is as it was?
    pub(super) fn leaves_none(&self, command: &Command) -> bool {
        let spoiled = |t: TabletId| self.spoiled.contains(&place_of(t));
        match command {
            Command::Elect(elect) => spoiled(elect.leader),
            Command::ChangeInSync(change) => {
                let partition = self.state.partitions.get(&change.key);
                let untrusted =
                    |t| partition.and_then(|p| p.member(t)).is_some_and(|m| m.untrusted);
                change.in_sync.iter().all(|m| spoiled(m.tablet) || untrusted(m.tablet))
            }
            _ => false,
        }
    }

    pub(super) fn note(&mut self, command: &Command, reply: &Reply, scene: &mut Scene) {
        trace!(scene, "meta: {} {command:?}: {reply:?}", self.state.applied);
        match (command, reply) {
            (Command::Elect(elect), Reply::Version(_)) => {
                scene.reached(Point::Elected, place_of(elect.leader));
                let history = self.state.partitions.get(&elect.key).map(|p| &p.history[..]);
                let moved = matches!(history, Some([.., a, b]) if a.leader != b.leader);
                scene.coverage.switches += u64::from(moved);
            }
            (Command::SetTable { db, name, .. }, Reply::Done) => {
                let table = self.state.table(db, name).map(|t| t.tid);
                self.changed_tables.extend(table.map(|tid| (tid, self.state.applied)));
                let weak = |key: &&PartitionKey| {
                    self.state.tables.get(&key.tid).is_some_and(|t| t.options.ack == Ack::Leader)
                };
                self.state.partitions.keys().filter(weak).for_each(|key| scene.ghost.weaken(*key));
            }
            (Command::Register(register), Reply::Registered(id)) => {
                let at = place_of(*id);
                scene.reached(Point::RegisterApplied, at);
                if let Some(incarnation) = register.starts.last() {
                    self.judge.registered(*id, *incarnation, self.local(scene));
                }
            }
            _ => {}
        }
    }

    pub(super) fn answer(&self, (at, life): (usize, u64), doing: Doing, scene: &mut Scene) {
        if self.up && !scene.is_blocked(NAMESERVER, at) {
            let delay = scene.latency();
            scene.after(delay, Event::Tablet(at, life, doing));
        }
    }
}

/// A partition whose epoch changed while `auto_failover` was off, by nobody's order (R21).
fn moved_by_itself(before: &State, after: &State, orders: &[Command]) -> Option<PartitionKey> {
    let on = |c: &Command| matches!(c, Command::SetConfig { value, .. } if value == "true");
    if before.auto_failover() || orders.iter().any(on) {
        return None;
    }
    let epoch = |state: &State, key| state.partitions.get(key).map(|p| p.epoch);
    let moved = after
        .partitions
        .keys()
        .filter(|key| epoch(before, key).is_some_and(|known| Some(known) != epoch(after, key)));
    moved.copied().find(|key| {
        let wanted = before.partitions.get(key).is_some_and(|p| p.switch.is_some());
        let by_order = |c: &Command| {
            matches!(c, Command::Elect(e)
                if e.key == *key && !e.auto && (wanted || e.surrendered.is_some() || e.unclean.is_some()))
        };
        !orders.iter().any(by_order)
    })
}
