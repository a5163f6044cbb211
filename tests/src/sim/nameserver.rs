//! The meta group: one linearizable register, the state, whose proposals may take long, be lost, arrive twice or be
//! answered never; and the nameserver that leads it, with what it observes and plans.
//!
//! The leading nameserver does what `stela-meta`'s control does: it answers a heartbeat after a linearizable read that
//! it began after receiving it (R17), pushes what changed, judges by silence, by refused ports and by registrations
//! (R17, R18), and proposes what the planner says.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, NodeId, PartitionKey, TabletId};
use stela_common::wire::View;
use stela_meta_state::check;
use stela_meta_state::command::{self, Batch, ChangeInSync, Command, Elect, Register, Reply, Verdict};
use stela_meta_state::object::Changed;
use stela_meta_state::plan::{self, Observed, Report, Seen};
use stela_meta_state::rules::Rules;
use stela_meta_state::state::State;

use super::clock::{MS, Moment};
use super::fault::Point;
use super::scene::{Doing, Event, NAMESERVER, Scene, trace};
use super::tablet::{id_of, place_of};
use super::wire::Pipe;

/// How a state is changed and planned for, whichever mistakes are planted in it.
#[derive(Clone, Copy)]
pub struct Law {
    apply: fn(&mut State, u64, &Batch, &mut Changed) -> Vec<Reply>,
    plan: fn(&State, &Observed) -> Vec<Command>,
    /// The invariants of the state are checked, too: not where breaking them is the mistake.
    checked: bool,
}

impl Law {
    /// Under these rules.
    pub fn of<R: Rules>(checked: bool) -> Self {
        Self { apply: |state, index, batch, changed| state.apply_with::<R>(index, batch, changed), plan: plan::plan_with::<R>, checked }
    }
}

/// A heartbeat.
#[derive(Clone, Debug)]
pub struct Beat {
    /// The tablet's clock when it was sent.
    pub sent: Millis,
    /// The tablet has applied what it was told up to here.
    pub known_index: u64,
    /// Its replicas.
    pub reports: Vec<(PartitionKey, Report)>,
    /// R12.
    pub surrendered: Vec<(PartitionKey, Epoch)>,
}

/// What a nameserver says to a tablet.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of the nameserver.
    pub controller: u64,
    /// All that changed for the tablet up to this index was told.
    pub index: u64,
    /// Partitions that changed.
    pub views: Vec<View>,
    /// Tablets that changed.
    pub addresses: Vec<(usize, Incarnation)>,
    /// When the heartbeat was sent that this lease is for, and its length.
    pub lease: Option<(Millis, u64)>,
    /// R12: partition, epoch, milliseconds to the deadline.
    pub drain: Option<(PartitionKey, Epoch, u64)>,
}

/// What happens at the nameservers.
#[derive(Clone, Debug)]
pub enum MetaEvent {
    /// A heartbeat arrives on that stream.
    Heard(u64),
    /// A linearizable read has ended that was begun for that heartbeat.
    Read(u64, Millis),
    /// A registration arrives: of which tablet and which life of its process.
    Register((usize, u64), Register),
    /// A proposal of an in-sync set arrives: from whom, what, microseconds until it is applied beyond the usual, and
    /// whether its answer gets back.
    Propose((usize, u64), ChangeInSync, u64, bool),
    /// A proposal is applied.
    Commit(u64),
    /// The next pass of the planner.
    Pass,
    /// The pass's proposal should have an outcome by now.
    GiveUp(u64),
    /// That stream has ended; whether the tablet's port refuses then.
    Ended(u64, bool),
    /// Another nameserver leads and takes over.
    TakeOver,
}

/// A heartbeat stream.
#[derive(Debug)]
pub struct Session {
    /// The tablet and the life of its process.
    pub tablet: (usize, u64),
    /// The run.
    pub incarnation: Incarnation,
    /// To the nameserver.
    pub up: Pipe<Beat>,
    /// To the tablet.
    pub down: Pipe<Told>,
    /// Pushed up to this index; nothing was heard yet: none.
    pub told: Option<u64>,
    /// The nameserver holds it open.
    pub open: bool,
}

enum Origin {
    Pass,
    Register((usize, u64)),
    Change((usize, u64), ChangeInSync, bool),
    TakeOver,
    Other,
}

struct Pending {
    commands: Vec<Command>,
    origin: Origin,
}

/// A planned switch that was asked for.
struct Switch {
    epoch: Epoch,
    until: Moment,
    told: bool,
}

/// See the module.
pub struct Nameserver {
    /// The register.
    pub state: State,
    law: Law,
    pending: BTreeMap<u64, Pending>,
    /// A nameserver leads.
    pub up: bool,
    controller: u64,
    judges_from: Moment,
    /// Heartbeat streams.
    pub sessions: BTreeMap<u64, Session>,
    heard: BTreeMap<usize, (Incarnation, Moment)>,
    refused: BTreeMap<usize, Incarnation>,
    reports: BTreeMap<(PartitionKey, TabletId), Report>,
    passing: Option<u64>,
    accused: BTreeSet<usize>,
    switches: BTreeMap<PartitionKey, Switch>,
    /// Which epochs their leaders have surrendered, as the tablets say again and again.
    surrendered: BTreeMap<PartitionKey, Epoch>,
    handing: BTreeMap<PartitionKey, Moment>,
    /// The last thing that each tablet was told about partitions, and which life of its process.
    pub last_told: BTreeMap<usize, (u64, Told)>,
    /// With `sync=interval`: tablets that have lost their power and not registered since.
    pub unproven: BTreeSet<usize>,
}

/// Between two passes of the planner, milliseconds.
const PASS: u64 = 50;
/// A drain's deadline, milliseconds.
const DRAIN: u64 = 1000;

impl Nameserver {
    /// A group with nothing in it.
    pub fn new(law: Law) -> Self {
        Self {
            state: State::default(),
            law,
            pending: BTreeMap::new(),
            up: true,
            controller: 0,
            judges_from: 0,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            refused: BTreeMap::new(),
            reports: BTreeMap::new(),
            passing: None,
            accused: BTreeSet::new(),
            switches: BTreeMap::new(),
            surrendered: BTreeMap::new(),
            handing: BTreeMap::new(),
            last_told: BTreeMap::new(),
            unproven: BTreeSet::new(),
        }
    }

    /// Applies commands at once, as at the beginning of a run.
    pub fn decide(&mut self, scene: &mut Scene, commands: &[Command]) -> Vec<Reply> {
        let now = 1_000_000 + scene.now / MS;
        let commands =
            commands.iter().map(|command| command::Proposal { request: None, now, command: command.clone() }).collect();
        let before = self.law.checked.then(|| self.state.clone());
        let index = self.state.applied + 1;
        let replies = (self.law.apply)(&mut self.state, index, &Batch { commands }, &mut Changed::new());
        if let Some(before) = before {
            let outcome = check::state(&self.state).and_then(|()| check::step(&before, &self.state));
            if let Err(broken) = outcome {
                scene.ghost.broken(format_args!("metadata: {broken}"));
            }
        }
        replies
    }

    /// What happens.
    pub fn go_on(&mut self, event: MetaEvent, scene: &mut Scene) {
        match event {
            MetaEvent::Commit(number) => self.commit(number, scene),
            MetaEvent::TakeOver => {
                self.propose(vec![Command::TakeOver { node: NodeId(1) }], Origin::TakeOver, 0, scene);
            }
            MetaEvent::Pass => {
                scene.after(PASS * MS, Event::Meta(MetaEvent::Pass));
                if self.up {
                    self.pass(scene);
                }
            }
            MetaEvent::GiveUp(number) => {
                if self.passing == Some(number) {
                    self.passing = None;
                    self.accused.clear();
                }
            }
            _ if !self.up => {}
            MetaEvent::Heard(session) => self.heard(session, scene),
            MetaEvent::Read(session, sent) => self.read(session, sent, scene),
            MetaEvent::Register(of, register) => {
                self.propose(vec![Command::Register(register)], Origin::Register(of), 0, scene);
            }
            MetaEvent::Propose(of, change, held, answered) => {
                let origin = Origin::Change(of, change.clone(), answered);
                self.propose(vec![Command::ChangeInSync(change)], origin, held, scene);
            }
            MetaEvent::Ended(session, refuses) => self.ended(session, refuses),
        }
    }

    // ---- the register

    /// Puts commands on their way into the log of the group.
    fn propose(&mut self, commands: Vec<Command>, origin: Origin, held: u64, scene: &mut Scene) -> u64 {
        let number = scene.number();
        let slow = scene.random.chance(20) && !scene.healed;
        let delay = scene.random.between(MS / 2, if slow { 400 * MS } else { 6 * MS });
        self.pending.insert(number, Pending { commands, origin });
        scene.after(held + delay, Event::Meta(MetaEvent::Commit(number)));
        number
    }

    fn commit(&mut self, number: u64, scene: &mut Scene) {
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
                    let doing = Doing::Verdict(change.key, change.expected, change.in_sync, applied);
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
    fn leaves_none(&self, command: &Command) -> bool {
        let unproven = |t: TabletId| self.unproven.contains(&place_of(t));
        match command {
            Command::Elect(elect) => unproven(elect.leader),
            Command::ChangeInSync(change) => {
                let partition = self.state.partitions.get(&change.key);
                let untrusted = |t| partition.and_then(|p| p.member(t)).is_some_and(|m| m.untrusted);
                change.in_sync.iter().all(|m| unproven(m.tablet) || untrusted(m.tablet))
            }
            _ => false,
        }
    }

    fn note(&mut self, command: &Command, reply: &Reply, scene: &mut Scene) {
        trace!(scene, "meta: {} {command:?}: {reply:?}", self.state.applied);
        match (command, reply) {
            (Command::Elect(elect), Reply::Version(_)) => scene.reached(Point::Elected, place_of(elect.leader)),
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

    fn answer(&self, (at, life): (usize, u64), doing: Doing, scene: &mut Scene) {
        if self.up && !scene.is_blocked(NAMESERVER, at) {
            let delay = scene.latency();
            scene.after(delay, Event::Tablet(at, life, doing));
        }
    }

    // ---- the nameserver that leads

    /// A nameserver fails, and its observations with it; of what it had proposed some is applied later.
    pub fn fail(&mut self, scene: &mut Scene) {
        if !std::mem::replace(&mut self.up, false) {
            return;
        }
        trace!(scene, "meta: the leading nameserver fails");
        self.heard.clear();
        self.refused.clear();
        self.reports.clear();
        self.passing = None;
        self.accused.clear();
        self.switches.clear();
        self.surrendered.clear();
        self.handing.clear();
        self.pending.retain(|_, _| scene.random.chance(500));
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.hang_up(session, scene);
        }
        let delay = scene.random.between(20 * MS, 1200 * MS);
        scene.after(delay, Event::Meta(MetaEvent::TakeOver));
    }

    /// Ends a heartbeat stream at this end; the tablet notices now, or by the silence.
    pub fn hang_up(&mut self, session: u64, scene: &mut Scene) {
        let Some(it) = self.sessions.get_mut(&session) else { return };
        it.open = false;
        if scene.random.chance(700) {
            let delay = scene.latency();
            scene.after(delay, Event::Tablet(it.tablet.0, it.tablet.1, Doing::Detached(session)));
        }
    }

    /// The nameserver takes a tablet for dead, and it is not (H1).
    pub fn suspect(&mut self, at: usize) {
        for session in self.sessions.values_mut().filter(|s| s.tablet.0 == at) {
            session.open = false;
        }
        if let Some((incarnation, _)) = self.heard.get(&at) {
            self.refused.insert(at, *incarnation);
        }
    }

    fn heard(&mut self, session: u64, scene: &mut Scene) {
        let Some(it) = self.sessions.get_mut(&session) else { return };
        let at = it.tablet.0;
        if scene.is_blocked(at, NAMESERVER) {
            return scene.after(10 * MS, Event::Meta(MetaEvent::Heard(session)));
        }
        let Some(beat) = it.up.arrived(scene.now) else { return };
        if !it.open {
            return;
        }
        let registered = self.state.tablets.get(&id_of(at)).map(|t| t.incarnation);
        if registered != Some(it.incarnation) {
            // Another run has registered.
            return self.hang_up(session, scene);
        }
        it.told.get_or_insert(beat.known_index);
        self.heard.insert(at, (it.incarnation, scene.now));
        self.refused.remove(&at);
        for (key, report) in beat.reports {
            self.reports.insert((key, id_of(at)), report);
        }
        for (key, epoch) in beat.surrendered {
            let known = self.surrendered.entry(key).or_default();
            *known = epoch.max(*known);
        }
        let read = scene.random.between(MS / 2, 4 * MS);
        scene.after(read, Event::Meta(MetaEvent::Read(session, beat.sent)));
    }

    /// R17: not to a tablet against which something is proposed whose outcome is not known.
    fn read(&mut self, session: u64, sent: Millis, scene: &mut Scene) {
        let Some(it) = self.sessions.get(&session).filter(|s| s.open) else { return };
        let at = it.tablet.0;
        let fit = self.state.tablets.get(&id_of(at)).is_some_and(|t| t.incarnation == it.incarnation && t.healthy);
        let lease = (fit && !self.accused.contains(&at)).then_some((sent, scene.pace.lease));
        self.tell(session, lease, scene);
    }

    /// Tells every tablet what has changed for it.
    fn push(&mut self, scene: &mut Scene) {
        if !self.up {
            return;
        }
        let behind: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.open && s.told.is_some_and(|told| self.concerns(s.tablet.0, told)))
            .map(|(number, _)| *number)
            .collect();
        for session in behind {
            self.tell(session, None, scene);
        }
    }

    fn concerns(&self, at: usize, told: u64) -> bool {
        let of = |replicas: &[stela_meta_state::state::Replica]| replicas.iter().any(|r| r.tablet == id_of(at));
        self.state.partitions.values().any(|p| p.version.0 > told && of(&p.replicas))
            || self.state.tablets.values().any(|t| t.version.0 > told)
    }

    fn tell(&mut self, session: u64, lease: Option<(Millis, u64)>, scene: &mut Scene) {
        let Some(it) = self.sessions.get_mut(&session).filter(|s| s.open) else { return };
        let Some(since) = it.told else { return };
        let at = it.tablet.0;
        let index = self.state.applied;
        let views = self.state.partitions.iter().filter(|(_, p)| p.version.0 > since);
        let views = views.map(|(key, p)| p.view(*key)).filter(|v| v.replicas.contains(&id_of(at))).collect();
        let addresses = self.state.tablets.iter().filter(|(_, t)| t.version.0 > since);
        let addresses = addresses.map(|(id, t)| (place_of(*id), t.incarnation)).collect();
        let drain = self.switches.iter_mut().find(|(key, s)| {
            !s.told && self.state.partitions.get(key).is_some_and(|p| p.leader == id_of(at) && p.epoch == s.epoch)
        });
        let drain = drain.map(|(key, switch)| {
            switch.told = true;
            (*key, switch.epoch, DRAIN)
        });
        let told = Told { controller: self.controller, index, views, addresses, lease, drain };
        it.told = Some(index);
        if !told.views.is_empty() {
            self.last_told.insert(at, (it.tablet.1, told.clone()));
        }
        let arrives = scene.now + scene.latency();
        let arrives = it.down.send(arrives, told);
        scene.at(arrives, Event::Told(session));
    }

    fn ended(&mut self, session: u64, refuses: bool) {
        let Some(it) = self.sessions.remove(&session) else { return };
        let at = it.tablet.0;
        let newer = self.sessions.values().any(|s| s.open && s.tablet.0 == at && s.told.is_some());
        if it.open && refuses && !newer {
            // Its port refuses, or belongs to another run (R18).
            self.refused.insert(at, it.incarnation);
        }
    }

    // ---- the planner

    fn observed(&self, scene: &Scene) -> Observed {
        let mut observed = Observed { replicas: self.reports.clone(), ..Observed::default() };
        let patience = scene.pace.lease * 11 / 10 * MS;
        for (id, tablet) in &self.state.tablets {
            let at = place_of(*id);
            let heard = self.heard.get(&at).filter(|(incarnation, _)| *incarnation == tablet.incarnation);
            let since = heard.map_or(0, |(_, at)| *at);
            let quiet = scene.now.saturating_sub(since) > patience;
            let open = self.sessions.values().any(|s| {
                s.open && s.tablet.0 == at && s.incarnation == tablet.incarnation && s.told.is_some()
            });
            let seen = Seen {
                incarnation: tablet.incarnation,
                alive: open && !quiet,
                silent: quiet && scene.now >= self.judges_from,
                refused: self.refused.get(&at) == Some(&tablet.incarnation),
            };
            observed.tablets.insert(*id, seen);
        }
        observed
    }

    fn pass(&mut self, scene: &mut Scene) {
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
                Command::Elect(elect) => self.state.partitions.get(&elect.key).map(|p| place_of(p.leader)),
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
            let session = self.sessions.iter().find(|(_, s)| s.open && s.tablet.0 == at).map(|(n, _)| *n);
            if let Some(session) = session {
                self.tell(session, None, scene);
            }
        }
    }

    /// R12: who has surrendered is followed by another, or by itself where there is no other; the attached surrender
    /// spares the other the wait.
    fn hand_over(&mut self, scene: &mut Scene) {
        let partitions = &self.state.partitions;
        let current = |key: &PartitionKey, epoch: Epoch| partitions.get(key).is_some_and(|p| p.epoch == epoch);
        self.switches.retain(|key, s| scene.now < s.until && current(key, s.epoch));
        self.surrendered.retain(|key, epoch| current(key, *epoch));
        self.handing.retain(|key, _| self.surrendered.contains_key(key));
        let ready: Vec<PartitionKey> = self.surrendered.keys().copied().collect();
        for key in ready {
            let Some(partition) = self.state.partitions.get(&key) else { continue };
            let put_off = if scene.random.chance(scene.profile.slow_controller) && !scene.healed { 1500 * MS } else { 0 };
            let until = *self.handing.entry(key).or_insert(scene.now + put_off);
            if scene.now < until {
                continue;
            }
            self.handing.insert(key, scene.now + 500 * MS);
            let fit = partition.in_sync.iter().map(|m| m.tablet).filter(|t| self.state.is_electable(partition, *t));
            let (own, others): (Vec<TabletId>, Vec<TabletId>) = fit.partition(|t| *t == partition.leader);
            let Some(leader) = scene.random.pick(&others).or(own.first()).copied() else { continue };
            let Some(incarnation) = self.state.tablets.get(&leader).map(|t| t.incarnation) else { continue };
            let elect = Elect {
                key,
                expected: partition.version,
                leader,
                incarnation,
                auto: false,
                surrendered: (leader != partition.leader).then_some(partition.leader),
            };
            self.propose(vec![Command::Elect(elect)], Origin::Other, 0, scene);
        }
    }

    /// `confset auto_failover`.
    pub fn set_auto_failover(&mut self, on: bool, scene: &mut Scene) {
        let command =
            Command::SetConfig { key: "auto_failover".into(), value: on.to_string(), by: "simulation".into() };
        self.propose(vec![command], Origin::Other, 0, scene);
    }
}
