//! A tablet and the nameservers: registration (R14), heartbeats, and the proposals of its cores (R7).

use stela_meta_state::command::{ChangeInSync, Register};
use stela_meta_state::plan::Report;

use super::clock::MS;
use super::fault::Fault;
use super::nameserver::{Beat, MetaEvent, Session};
use super::point::Point;
use super::scene::{Doing, Event, NAMESERVER, trace};
use super::tablet::{endpoint_of, id_of};
use super::wire::Pipe;
use super::world::World;

/// A tablet whose sync takes longer asks for no lease (R23), milliseconds.
const SYNC_HANGS: u64 = 2000;

impl World {
    pub(super) fn registration(&self, at: usize) -> Option<Register> {
        let machine = self.machines.get(at)?;
        machine.process.as_ref()?;
        Some(Register {
            endpoint: endpoint_of(at),
            starts: machine.fences.starts.clone(),
            dir_uuid: format!("directory{}", machine.fences.directory),
            boot_id: format!("boot{}", machine.boot),
            clean: machine.fences.clean,
            damaged: machine.disk.damaged(),
            highest: 0.into(),
        })
    }

    /// R14. Without an answer it is sent again.
    pub(super) fn register(&mut self, at: usize) {
        let life = self.machines[at].life;
        if self.machines[at].process.as_ref().is_none_or(|p| p.tablet.0 != 0) {
            return;
        }
        let Some(register) = self.registration(at) else { return };
        let again = self.scene.random.between(300, 2000);
        self.scene.after(again * MS, Event::Tablet(at, life, Doing::Register));
        if self.scene.is_blocked(at, NAMESERVER) {
            return;
        }
        self.scene.reached(Point::Registers, at);
        self.look_at_roles();
        let keys = self.scene.live.clone();
        let mut copies = 1;
        for key in keys {
            copies += usize::from(self.scene.befalls(Fault::LateRegistration, at, key));
        }
        for copy in 0..copies {
            let late = if copy == 0 { 0 } else { self.scene.random.between(0, 3000 * MS) };
            let delay = self.scene.latency() + late;
            self.scene.after(delay, Event::Meta(MetaEvent::Register((at, life), register.clone())));
        }
    }

    pub(super) fn registered(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.as_ref().is_some_and(|p| p.tablet.0 == 0) {
            machine.adopt(&self.scene);
            trace!(
                self.scene,
                "{at} is registered as run {:?}",
                machine.process.as_ref().map(|p| p.incarnation)
            );
            machine.spoiled = false;
            self.nameserver.spoiled.remove(&at);
            self.scene.reached(Point::Registered, at);
            let life = machine.life;
            for doing in [Doing::Attach, Doing::Beat, Doing::Tick] {
                self.scene.after(0, Event::Tablet(at, life, doing));
            }
        }
    }

    pub(super) fn attach(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        let (life, now) = (machine.life, self.scene.now);
        let Some(process) = &mut machine.process else { return };
        if process.session.is_some() {
            return;
        }
        if !self.nameserver.up || self.scene.is_blocked(at, NAMESERVER) {
            let again = self.scene.pace.again * MS;
            return self.scene.after(again, Event::Tablet(at, life, Doing::Attach));
        }
        // A late word of an earlier run of its may have taken its place (R14): it is told so, and ends.
        let registered = self.nameserver.state.tablets.get(&id_of(at)).map(|t| t.incarnation);
        if process.tablet.0 != 0 && registered != Some(process.incarnation) {
            return self.kill(at, true);
        }
        let session = self.scene.number();
        process.session = Some(session);
        process.heard = now;
        let it = Session {
            tablet: (at, life),
            incarnation: process.incarnation,
            up: Pipe::default(),
            down: Pipe::default(),
            told: None,
            open: true,
        };
        self.nameserver.sessions.insert(session, it);
        self.scene.reached(Point::Beats, at);
        trace!(self.scene, "{at} has heartbeat stream {session}");
        self.send_beat(at);
    }

    pub(super) fn beat(&mut self, at: usize) {
        let (now, life) = (self.scene.now, self.machines[at].life);
        let Some(process) = &mut self.machines[at].process else { return };
        if process.beats_until <= now {
            process.beats_until = now + self.scene.pace.heartbeat * MS;
            self.scene.at(process.beats_until, Event::Tablet(at, life, Doing::Beat));
        }
        let Some(session) = process.session else { return };
        if now - process.heard > self.scene.pace.silence * MS {
            let delay = self.scene.latency();
            self.scene.after(delay, Event::Meta(MetaEvent::Ended(session, true)));
            return self.detached(at, session);
        }
        self.send_beat(at);
    }

    pub(super) fn send_beat(&mut self, at: usize) {
        let machine = &self.machines[at];
        let sent = machine.local(&self.scene);
        let Some(process) = &machine.process else { return };
        let Some(session) = process.session else { return };
        let reports = process.copies.iter().map(|(key, copy)| {
            let log = machine.disk.written(*key);
            let report = Report {
                incarnation: process.incarnation,
                epoch: copy.core.epoch(),
                leading: copy.core.leads(),
                serving: copy.core.serving() && copy.suspended.is_none(),
                quarantined: copy.quarantine.is_some() || copy.suspended.is_some(),
                surrendered: process.surrendered.get(key).copied().unwrap_or_default(),
                last_epoch: log.epoch_at(log.last()),
                offset: log.last(),
                commit: copy.applied,
                ..Report::default()
            };
            (*key, report)
        });
        // R23: a disk that hangs is not asked to lead.
        let hangs =
            process.syncing.is_some() && self.scene.now - process.syncing_since > SYNC_HANGS * MS;
        let beat = Beat {
            sent: (!hangs).then_some(sent),
            known_index: process.known_index,
            reports: reports.collect(),
            dropped: process
                .dropping
                .iter()
                .filter(|(_, end)| **end <= machine.disk.synced())
                .map(|(tid, _)| *tid)
                .collect(),
        };
        let arrives = self.scene.now + self.scene.latency();
        if let Some(it) = self.nameserver.sessions.get_mut(&session) {
            let arrives = it.up.send(arrives, beat);
            self.scene.at(arrives, Event::Meta(MetaEvent::Heard(session)));
        }
    }

    pub(super) fn told(&mut self, session: u64) {
        let Some((at, life)) = self.nameserver.sessions.get(&session).map(|s| s.tablet) else {
            return;
        };
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Told(session));
        }
        if self.scene.is_blocked(NAMESERVER, at) {
            return self.scene.after(10 * MS, Event::Told(session));
        }
        let now = self.scene.now;
        let Some(told) =
            self.nameserver.sessions.get_mut(&session).and_then(|s| s.down.arrived(now))
        else {
            return;
        };
        let listens =
            self.machines[at].process.as_ref().is_some_and(|p| p.session == Some(session));
        if !self.runs(at, life) || !listens {
            return;
        }
        let obeyed = self.machines[at].act(&mut self.scene, |acting| acting.told(&told));
        self.propose(at);
        if obeyed != Some(true) {
            self.scene.after(0, Event::Meta(MetaEvent::Ended(session, true)));
            return self.detached(at, session);
        }
        if let Some(process) = &mut self.machines[at].process {
            process.heard = now;
        }
    }

    /// The heartbeat stream is over at the tablet's end: it looks for a nameserver again.
    pub(super) fn detached(&mut self, at: usize, session: u64) {
        let life = self.machines[at].life;
        if let Some(process) =
            self.machines[at].process.as_mut().filter(|p| p.session == Some(session))
        {
            process.session = None;
            let again = self.scene.pace.again * MS;
            self.scene.after(again, Event::Tablet(at, life, Doing::Attach));
        }
    }

    /// Sends the cores' proposals (R7). No answer, or one that is not definite, is no input: the core repeats.
    pub(super) fn propose(&mut self, at: usize) {
        let life = self.machines[at].life;
        let Some(process) = &mut self.machines[at].process else { return };
        let incarnation = process.incarnation;
        let connected = process.session.is_some();
        for proposal in std::mem::take(&mut process.proposals) {
            trace!(
                self.scene,
                "{at}: {} proposes on {}: {:?}", proposal.key, proposal.expected, proposal.in_sync
            );
            if !connected || self.scene.is_blocked(at, NAMESERVER) {
                continue;
            }
            self.scene.reached(Point::Proposed, at);
            self.look_at_roles();
            let change = ChangeInSync {
                key: proposal.key,
                epoch: proposal.epoch,
                expected: proposal.expected,
                in_sync: proposal.in_sync,
                by: id_of(at),
                by_incarnation: incarnation,
            };
            let key = change.key;
            let repeated = self.scene.befalls(Fault::Repeat, at, key);
            for _ in 0..=u32::from(repeated) {
                let mut held = 0;
                if self.scene.befalls(Fault::HoldProposal, at, key) {
                    if self.scene.random.chance(300) {
                        continue;
                    }
                    held = self.scene.random.between(20 * MS, 1500 * MS);
                }
                let answered = !self.scene.befalls(Fault::LoseReply, at, key);
                let delay = self.scene.latency();
                let event = MetaEvent::Propose((at, life), change.clone(), held, answered);
                self.scene.after(delay, Event::Meta(event));
            }
        }
    }
}
