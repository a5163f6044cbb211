//! The register of the meta group: proposals on their way, and what becomes of them.

use stela_common::ids::TabletId;
use stela_meta_state::check;
use stela_meta_state::command::{Batch, Command, Proposal, Reply, Verdict};
use stela_meta_state::object::Changed;

use super::clock::MS;
use super::fault::Point;
use super::nameserver::{MetaEvent, Nameserver, Origin, Pending};
use super::scene::{Doing, Event, NAMESERVER, Scene, trace};
use super::tablet::place_of;

impl Nameserver {
    /// Applies commands at once, as at the beginning of a run.
    pub fn decide(&mut self, scene: &mut Scene, commands: &[Command]) -> Vec<Reply> {
        let now = 1_000_000 + scene.now / MS;
        let commands = commands
            .iter()
            .map(|command| Proposal { request: None, now, command: command.clone() })
            .collect();
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
        }
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
        if pending.commands.iter().any(|command| self.leaves_none(command)) {
            trace!(scene, "meta: lost on its way: {:?}", pending.commands);
            // With `sync=interval` and a power cut of all members something may be lost: that is promised and not tried
            // here, so what would leave no other member is lost on its way.
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
                    [reply] if reply.verdict() == Verdict::Rejected => Some(Doing::Outcast),
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
                    let grace = scene.pace.lease * 11 / 10;
                    self.judges_from = scene.now + grace * MS;
                    trace!(scene, "meta: a nameserver takes over as controller {epoch}");
                }
            }
            Origin::Other => {}
        }
        self.push(scene);
    }

    /// Would nobody be left in the set whose tail is proven?
    pub(super) fn leaves_none(&self, command: &Command) -> bool {
        let unproven = |t: TabletId| self.unproven.contains(&place_of(t));
        match command {
            Command::Elect(elect) => unproven(elect.leader),
            Command::ChangeInSync(change) => {
                let partition = self.state.partitions.get(&change.key);
                let untrusted =
                    |t| partition.and_then(|p| p.member(t)).is_some_and(|m| m.untrusted);
                change.in_sync.iter().all(|m| unproven(m.tablet) || untrusted(m.tablet))
            }
            _ => false,
        }
    }

    pub(super) fn note(&mut self, command: &Command, reply: &Reply, scene: &mut Scene) {
        trace!(scene, "meta: {} {command:?}: {reply:?}", self.state.applied);
        match (command, reply) {
            (Command::Elect(elect), Reply::Version(_)) => {
                scene.reached(Point::Elected, place_of(elect.leader))
            }
            (Command::Register(register), Reply::Registered(id)) => {
                let at = place_of(*id);
                if let Some(incarnation) = register.starts.last() {
                    self.heard.insert(at, (*incarnation, scene.now));
                }
                self.refused.remove(&at);
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
