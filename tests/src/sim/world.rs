//! A run: machines, nameservers and clients under one scheduler, first with faults, then without.

use stela_common::ids::{Incarnation, PartitionKey, TableId};
use stela_common::table::{Ack, Index, Options, Sync, Table, Ttl};
use stela_meta_state::command::{ChangeInSync, Command, Register, Reply};
use stela_meta_state::plan::Report;
use stela_replica::message::Conn;

use super::client::{Client, ClientEvent, Outcome, Reply as Answer, Request};
use super::clock::{MS, Moment};
use super::coverage::Coverage;
use super::fault::{Fault, Point, Role};
use super::nameserver::{Beat, Law, MetaEvent, Nameserver, Session};
use super::profile::Profile;
use super::scene::{Doing, Event, NAMESERVER, Scene, trace};
use super::tablet::{Machine, MakeCore, endpoint_of, id_of};
use super::wire::{Link, Parcel, Pipe};

/// After the faults the cluster must be whole within this, milliseconds.
const WHOLE_WITHIN: u64 = 30_000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The first promise that was broken.
    pub broken: Option<String>,
    /// It was broken while nothing was asked of the end: no promise about when, but about what.
    pub safety: bool,
    /// What was tried.
    pub coverage: Coverage,
    /// How long the cluster took to be whole again, milliseconds.
    pub healed_in: u64,
}

/// See the module.
pub struct World {
    /// What all share.
    pub scene: Scene,
    /// Tablets.
    pub machines: Vec<Machine>,
    /// The meta group.
    pub nameserver: Nameserver,
    clients: Vec<Client>,
}

impl World {
    /// A cluster with one table, at rest.
    pub fn new(seed: u64, profile: Profile, make_core: MakeCore, law: Law, traced: bool) -> Self {
        let mut scene = Scene::new(seed, profile, traced);
        let machines = (0..profile.tablets).map(|at| Machine::new(at, &mut scene, make_core)).collect();
        let mut world = Self { scene, machines, nameserver: Nameserver::new(law), clients: Vec::new() };
        world.found();
        world
    }

    fn found(&mut self) {
        let profile = self.scene.profile;
        self.decide(&[Command::Found { cluster: "simulation".into() }]);
        for at in 0..profile.tablets {
            self.machines[at].start(&mut self.scene);
            let register = self.registration(at).expect("a process that was just started");
            let replies = self.decide(&[Command::Register(register)]);
            assert_eq!(replies, [Reply::Registered(id_of(at))]);
        }
        let rows = (0..profile.partitions).map(|pid| {
            let first = usize::try_from(pid).unwrap_or(0);
            (0..profile.tablets).map(|at| id_of((first + at) % profile.tablets)).collect()
        });
        let placement = rows.collect();
        let replies = self.decide(&[Command::CreateTable { table: table(&profile), placement }]);
        assert_eq!(replies, [Reply::Created(TableId(1))]);
        self.scene.after(0, Event::Meta(MetaEvent::TakeOver));
        self.scene.after(0, Event::Meta(MetaEvent::Pass));
        for at in 0..profile.tablets {
            self.registered(at);
        }
        let keys: Vec<PartitionKey> = self.nameserver.state.partitions.keys().copied().collect();
        for client in 0..profile.writers + profile.readers {
            let key = keys[client % keys.len()];
            self.clients.push(Client::new(client, client < profile.writers, key));
            self.scene.after(20 * MS, Event::Client(client, ClientEvent::Go));
        }
        self.scene.after(500 * MS, Event::NextFault);
    }

    fn decide(&mut self, commands: &[Command]) -> Vec<Reply> {
        self.nameserver.decide(&mut self.scene, commands)
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Ended {
        let rough = self.scene.profile.rough_ms * MS;
        self.go_to(rough);
        let mut safety = true;
        let mut healed_in = 0;
        if self.scene.ghost.verdict().is_none() {
            self.heal();
            let mut lacking = self.become_whole();
            healed_in = (self.scene.now - rough) / MS;
            if lacking.is_none() {
                // All is well: everybody is served once more.
                for client in &mut self.clients {
                    client.go_on(ClientEvent::Go, &mut self.scene);
                }
                lacking = self.become_whole();
            }
            if let Some(what) = lacking
                && self.scene.ghost.verdict().is_none()
            {
                safety = false;
                self.scene.ghost.broken(format_args!("not whole {WHOLE_WITHIN} ms after the last fault: {what}"));
            }
        }
        let mut coverage = std::mem::take(&mut self.scene.coverage);
        coverage.acknowledged = self.scene.ghost.count();
        Ended { broken: self.scene.ghost.verdict().map(str::to_owned), safety, coverage, healed_in }
    }

    /// Waits until the cluster is whole; what it lacks if it is not in time.
    fn become_whole(&mut self) -> Option<String> {
        let until = self.scene.now + WHOLE_WITHIN * MS;
        let mut lacking = self.lacking();
        while lacking.is_some() && self.scene.now < until && self.scene.ghost.verdict().is_none() {
            self.go_to(self.scene.now + 50 * MS);
            lacking = self.lacking();
        }
        lacking
    }

    fn go_to(&mut self, until: Moment) {
        while self.scene.ghost.verdict().is_none() {
            let Some(event) = self.scene.next(until) else { return };
            self.scene.coverage.steps += 1;
            self.happens(event);
            self.look();
        }
    }

    /// What must hold after every step.
    fn look(&mut self) {
        for (key, partition) in &self.nameserver.state.partitions {
            for member in partition.in_sync.iter().filter(|m| !m.untrusted) {
                let machine = &self.machines[super::tablet::place_of(member.tablet)];
                if self.scene.profile.interval {
                    if !machine.lost_tail {
                        self.scene.ghost.member(machine.at, *key, machine.disk.written(*key));
                    }
                } else {
                    self.scene.ghost.member(machine.at, *key, machine.disk.durable(*key));
                }
            }
        }
    }

    /// What is not whole.
    fn lacking(&self) -> Option<String> {
        let state = &self.nameserver.state;
        for (key, partition) in &state.partitions {
            let leader = super::tablet::place_of(partition.leader);
            let of = |at: usize| self.machines.get(at)?.process.as_ref()?.copies.get(key);
            let Some(core) = of(leader).map(|c| &c.core) else { return Some(format!("{key} has no leader that runs")) };
            if !core.serving() || core.epoch() != partition.epoch {
                return Some(format!("{key}: leader {leader} does not serve in epoch {}", partition.epoch));
            }
            if partition.in_sync.len() != partition.replicas.len() || partition.in_sync.iter().any(|m| m.untrusted) {
                return Some(format!("{key}: in sync are only {:?}", partition.in_sync));
            }
            for replica in &partition.replicas {
                let at = super::tablet::place_of(replica.tablet);
                let Some(copy) = of(at) else { return Some(format!("{key} has no replica at {at}")) };
                let (mine, theirs) = ((copy.core.last(), copy.applied), (core.last(), core.commit()));
                if mine != theirs || mine.0 != mine.1 {
                    return Some(format!("{key}: last and commit are {mine:?} at {at} and {theirs:?} at leader {leader}"));
                }
            }
        }
        let waiting = self.clients.iter().filter(|c| c.asking.is_some()).count();
        (waiting > 0).then(|| format!("{waiting} clients wait for an answer"))
    }

    // ---- what happens

    fn happens(&mut self, event: Event) {
        match event {
            Event::Tablet(at, life, doing) => self.tablet(at, life, doing),
            Event::DiskSynced(at, life, to) => {
                let machine = &mut self.machines[at];
                if machine.life == life && machine.process.is_some() {
                    machine.disk.sync(to);
                    self.scene.after(0, Event::Tablet(at, life, Doing::Synced(to)));
                }
            }
            Event::Down(conn) => self.down(conn),
            Event::Up(conn) => self.up(conn),
            Event::Dialed(from, to, incarnation) => self.dialed(from, to, incarnation),
            Event::Asked(at, request) => self.asked(at, request),
            Event::Answered(client, answer) => self.clients[client].answered(answer, &mut self.scene),
            Event::Client(client, event) => {
                if !(self.scene.healed && matches!(event, ClientEvent::Go)) {
                    self.clients[client].go_on(event, &mut self.scene);
                }
            }
            Event::Told(session) => self.told(session),
            Event::Meta(MetaEvent::Ended(session, true)) => {
                // The port refuses only if that run is gone by now.
                let of = self.nameserver.sessions.get(&session).map(|s| s.tablet);
                let gone = of.is_some_and(|(at, life)| !self.runs(at, life));
                self.nameserver.go_on(MetaEvent::Ended(session, gone), &mut self.scene);
            }
            Event::Meta(event) => self.nameserver.go_on(event, &mut self.scene),
            Event::Start(at) => self.start(at),
            Event::NextFault => self.next_fault(),
            Event::Strike(fault, at) => self.strike(fault, at),
            Event::Heal(healing) => self.end_of(healing),
            Event::OldNews(at, life, told) => {
                if self.runs(at, life) && self.paused(at).is_none() {
                    self.machines[at].act(&mut self.scene, |acting| {
                        for view in &told.views {
                            acting.view(view.clone());
                        }
                    });
                }
            }
        }
    }

    /// Does that life of the tablet's process run?
    fn runs(&self, at: usize, life: u64) -> bool {
        self.machines.get(at).is_some_and(|m| m.life == life && m.process.is_some())
    }

    /// Until when that tablet does not run, if it is paused.
    fn paused(&self, at: usize) -> Option<Moment> {
        self.machines.get(at).map(|m| m.paused_until).filter(|until| *until > self.scene.now)
    }

    fn tablet(&mut self, at: usize, life: u64, doing: Doing) {
        if !self.runs(at, life) {
            return;
        }
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Tablet(at, life, doing));
        }
        match doing {
            Doing::Register => self.register(at),
            Doing::Registered => self.registered(at),
            Doing::Outcast => {
                self.scene.ghost.broken(format_args!("the registration of {at} is refused for good"));
            }
            Doing::Attach => self.attach(at),
            Doing::Beat => self.beat(at),
            Doing::Detached(session) => self.detached(at, session),
            doing => {
                self.machines[at].act(&mut self.scene, |acting| acting.go_on(doing));
                self.propose(at);
            }
        }
    }

    fn asked(&mut self, at: usize, request: Request) {
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Asked(at, request));
        }
        let answered = self.machines[at].act(&mut self.scene, |acting| acting.ask(request)).is_some();
        if !answered {
            let answer = Answer { request, outcome: Outcome::Refused(None) };
            let delay = self.scene.latency();
            self.scene.after(delay, Event::Answered(request.client, answer));
        }
    }

    // ---- streams between tablets

    fn dialed(&mut self, from: (usize, u64), to: usize, incarnation: Incarnation) {
        if !self.runs(from.0, from.1) {
            return;
        }
        let refuse = |scene: &mut Scene, delay: u64| scene.after(delay, Event::Tablet(from.0, from.1, Doing::Undialed(to)));
        if self.scene.is_blocked(from.0, to) || self.scene.is_blocked(to, from.0) {
            return refuse(&mut self.scene, 500 * MS);
        }
        if let Some(until) = self.paused(to) {
            return self.scene.at(until, Event::Dialed(from, to, incarnation));
        }
        let machine = &mut self.machines[to];
        let fit = machine.process.as_ref().is_some_and(|p| p.incarnation == incarnation && p.tablet == id_of(to));
        if !fit {
            let delay = self.scene.latency();
            return refuse(&mut self.scene, delay);
        }
        let leader = self.machines[from.0].process.as_ref().map(|p| p.incarnation).unwrap_or_default();
        let conn = Conn(self.scene.number());
        let link = Link {
            leader: from,
            follower: (to, self.machines[to].life),
            down: Pipe::default(),
            up: Pipe::default(),
            broken: false,
            blocked: [None, None],
        };
        self.scene.links.insert(conn, link);
        trace!(self.scene, "{} opens stream {} to {to}", from.0, conn.0);
        self.machines[to].act(&mut self.scene, |acting| acting.accept(conn, from.0, leader));
    }

    /// Is a way blocked for a connection? Then what arrives waits, and after a while the connection is given up.
    fn waits(&mut self, conn: Conn, from: usize, to: usize, way: usize) -> bool {
        let blocked = self.scene.is_blocked(from, to);
        let (now, patience) = (self.scene.now, self.scene.pace.half_open * MS);
        let Some(link) = self.scene.links.get_mut(&conn) else { return false };
        if link.broken || !blocked {
            link.blocked[way] = None;
            return false;
        }
        let since = *link.blocked[way].get_or_insert(now);
        if now - since > patience {
            self.scene.break_link(conn, true);
        }
        true
    }

    fn down(&mut self, conn: Conn) {
        let Some(((from, _), (to, life))) = self.scene.links.get(&conn).map(|l| (l.leader, l.follower)) else { return };
        if let Some(until) = self.paused(to) {
            return self.scene.at(until, Event::Down(conn));
        }
        if self.waits(conn, from, to, 0) {
            return self.scene.after(10 * MS, Event::Down(conn));
        }
        let Some(pipe) = self.scene.links.get_mut(&conn).map(|l| &mut l.down) else { return };
        let Some(parcel) = pipe.arrived(self.scene.now) else {
            // It was put off.
            return pipe.next().into_iter().for_each(|at| self.scene.at(at, Event::Down(conn)));
        };
        if self.runs(to, life) {
            self.machines[to].act(&mut self.scene, |acting| acting.from_leader(conn, parcel));
            self.propose(to);
        }
        self.forget(conn);
    }

    fn up(&mut self, conn: Conn) {
        let Some(((to, life), (from, _))) = self.scene.links.get(&conn).map(|l| (l.leader, l.follower)) else { return };
        if let Some(until) = self.paused(to) {
            return self.scene.at(until, Event::Up(conn));
        }
        if self.waits(conn, from, to, 1) {
            return self.scene.after(10 * MS, Event::Up(conn));
        }
        let Some(pipe) = self.scene.links.get_mut(&conn).map(|l| &mut l.up) else { return };
        let Some(parcel) = pipe.arrived(self.scene.now) else {
            // It was put off.
            return pipe.next().into_iter().for_each(|at| self.scene.at(at, Event::Up(conn)));
        };
        if self.runs(to, life) {
            if let Parcel::Message(message) = &parcel
                && message.open.is_some()
            {
                trace!(self.scene, "{to} has stream {} to {from}", conn.0);
            }
            self.machines[to].act(&mut self.scene, |acting| acting.from_follower(conn, from, parcel));
            self.propose(to);
        }
        self.forget(conn);
    }

    /// A broken connection that has nothing under way is forgotten.
    fn forget(&mut self, conn: Conn) {
        if self.scene.links.get(&conn).is_some_and(|l| l.broken && l.down.len() + l.up.len() == 0) {
            self.scene.links.remove(&conn);
        }
    }

    // ---- between a tablet and the nameservers

    fn registration(&self, at: usize) -> Option<Register> {
        let machine = self.machines.get(at)?;
        machine.process.as_ref()?;
        Some(Register {
            endpoint: endpoint_of(at),
            starts: machine.fences.starts.clone(),
            dir_uuid: format!("directory{at}"),
            boot_id: format!("boot{}", machine.boot),
            clean: machine.fences.clean,
            damaged: Vec::new(),
            has: machine.fences.held.iter().copied().collect(),
        })
    }

    /// R14. Without an answer it is sent again.
    fn register(&mut self, at: usize) {
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
        let copies = if self.scene.random.chance(100) && !self.scene.healed { 2 } else { 1 };
        for copy in 0..copies {
            let late = if copy == 0 { 0 } else { self.scene.random.between(0, 3000 * MS) };
            let delay = self.scene.latency() + late;
            self.scene.after(delay, Event::Meta(MetaEvent::Register((at, life), register.clone())));
        }
    }

    fn registered(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.as_ref().is_some_and(|p| p.tablet.0 == 0) {
            machine.adopt(&self.scene);
            trace!(self.scene, "{at} is registered as run {:?}", machine.process.as_ref().map(|p| p.incarnation));
            machine.lost_tail = false;
            self.nameserver.unproven.remove(&at);
            let life = machine.life;
            for doing in [Doing::Attach, Doing::Beat, Doing::Tick] {
                self.scene.after(0, Event::Tablet(at, life, doing));
            }
        }
    }

    fn attach(&mut self, at: usize) {
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
        trace!(self.scene, "{at} has heartbeat stream {session}");
        self.send_beat(at);
    }

    fn beat(&mut self, at: usize) {
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

    fn send_beat(&mut self, at: usize) {
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
                serving: copy.core.serving(),
                quarantined: copy.quarantine.is_some(),
                last_epoch: log.epoch_at(log.last()),
                offset: log.last(),
                commit: copy.applied,
                ..Report::default()
            };
            (*key, report)
        });
        let beat = Beat {
            sent,
            known_index: process.known_index,
            reports: reports.collect(),
            surrendered: process.surrendered.iter().map(|(key, epoch)| (*key, *epoch)).collect(),
        };
        let arrives = self.scene.now + self.scene.latency();
        if let Some(it) = self.nameserver.sessions.get_mut(&session) {
            let arrives = it.up.send(arrives, beat);
            self.scene.at(arrives, Event::Meta(MetaEvent::Heard(session)));
        }
    }

    fn told(&mut self, session: u64) {
        let Some((at, life)) = self.nameserver.sessions.get(&session).map(|s| s.tablet) else { return };
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Told(session));
        }
        if self.scene.is_blocked(NAMESERVER, at) {
            return self.scene.after(10 * MS, Event::Told(session));
        }
        let now = self.scene.now;
        let Some(told) = self.nameserver.sessions.get_mut(&session).and_then(|s| s.down.arrived(now)) else { return };
        let listens = self.machines[at].process.as_ref().is_some_and(|p| p.session == Some(session));
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
    fn detached(&mut self, at: usize, session: u64) {
        let life = self.machines[at].life;
        if let Some(process) = self.machines[at].process.as_mut().filter(|p| p.session == Some(session)) {
            process.session = None;
            let again = self.scene.pace.again * MS;
            self.scene.after(again, Event::Tablet(at, life, Doing::Attach));
        }
    }

    /// Sends the cores' proposals (R7). No answer, or one that is not definite, is no input: the core repeats.
    fn propose(&mut self, at: usize) {
        let life = self.machines[at].life;
        let Some(process) = &mut self.machines[at].process else { return };
        let incarnation = process.incarnation;
        let connected = process.session.is_some();
        for proposal in std::mem::take(&mut process.proposals) {
            trace!(self.scene, "{at}: {} proposes on {}: {:?}", proposal.key, proposal.expected, proposal.in_sync);
            if !connected || self.scene.is_blocked(at, NAMESERVER) {
                continue;
            }
            self.scene.reached(Point::Proposed, at);
            let change = ChangeInSync {
                key: proposal.key,
                epoch: proposal.epoch,
                expected: proposal.expected,
                in_sync: proposal.in_sync,
                by: id_of(at),
                by_incarnation: incarnation,
            };
            let role = self.role(at, change.key);
            let repeated = self.befalls(Fault::Repeat, role);
            for _ in 0..=u32::from(repeated) {
                let mut held = 0;
                if self.befalls(Fault::HoldProposal, role) {
                    if self.scene.random.chance(300) {
                        continue;
                    }
                    held = self.scene.random.between(20 * MS, 1500 * MS);
                }
                let answered = !self.befalls(Fault::LoseReply, role);
                let delay = self.scene.latency();
                let event = MetaEvent::Propose((at, life), change.clone(), held, answered);
                self.scene.after(delay, Event::Meta(event));
            }
        }
    }

    fn befalls(&mut self, fault: Fault, role: Option<Role>) -> bool {
        let befalls = self.scene.befalls(fault);
        if befalls && let Some(role) = role {
            self.scene.coverage.hit(fault, role);
        }
        befalls
    }

    /// What that tablet is for a partition, if its process runs.
    pub fn role(&self, at: usize, key: PartitionKey) -> Option<Role> {
        let process = self.machines.get(at)?.process.as_ref()?;
        let partition = self.nameserver.state.partitions.get(&key)?;
        let core = &process.copies.get(&key)?.core;
        Some(if (partition.leader, partition.leader_incarnation) != (id_of(at), process.incarnation) {
            Role::Follower
        } else if core.serving() && core.epoch() == partition.epoch {
            Role::Leader
        } else {
            Role::Candidate
        })
    }

    /// A process starts.
    pub fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.is_some() || !machine.starting {
            return;
        }
        machine.start(&mut self.scene);
        let life = machine.life;
        trace!(self.scene, "{at} starts as run {:?}", machine.process.as_ref().map(|p| p.incarnation));
        self.scene.after(0, Event::Tablet(at, life, Doing::Register));
    }
}

fn table(profile: &Profile) -> Table {
    let index = Index { name: "idx0".into(), columns: Vec::new(), ts: None, ttl: Ttl::default() };
    Table {
        tid: TableId(0),
        db: String::new(),
        name: "t".into(),
        columns: Vec::new(),
        indexes: vec![index],
        partition_num: profile.partitions,
        replica_num: u32::try_from(profile.tablets).unwrap_or(1),
        options: Options {
            ack: Ack::All,
            sync: if profile.interval { Sync::Interval(100) } else { Sync::Commit },
            min_insync: profile.min_insync,
        },
        created_index: 0,
    }
}
