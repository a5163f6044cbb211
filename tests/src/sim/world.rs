//! A run: machines, nameservers and clients under one scheduler, first with faults, then without.

use std::collections::BTreeMap;

use stela_common::ids::{PartitionKey, TableId};
use stela_meta_state::command::{Command, Reply};

use super::client::{Client, ClientEvent, Outcome, Reply as Answer, Request};
use super::clock::{MS, Moment};
use super::core::MakeCore;
use super::coverage::Coverage;
use super::disk::Id;
use super::fault::Role;
use super::nameserver::{Law, MetaEvent, Nameserver, OPERATE};
use super::profile::Profile;
use super::scene::{Doing, Event, Scene, trace};
use super::tablet::{Machine, id_of, place_of};

/// After the faults the cluster must be whole within this, milliseconds.
const WHOLE_WITHIN: u64 = 15_000;

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
    lost: Vec<Lost>,
    /// Who was in which set at the last look.
    sets: BTreeMap<PartitionKey, Vec<usize>>,
}

/// An acknowledged write that an unclean election took back.
struct Lost {
    key: PartitionKey,
    id: Id,
    /// Who had it, and how often each had lost something by then.
    holders: Vec<(usize, u64)>,
}

impl World {
    /// A cluster with one table, at rest.
    pub fn new(seed: u64, profile: Profile, make_core: MakeCore, law: Law, traced: bool) -> Self {
        let mut scene = Scene::new(seed, profile, traced);
        let machines =
            (0..profile.tablets).map(|at| Machine::new(at, &mut scene, make_core)).collect();
        let nameserver = Nameserver::new(law, &mut scene);
        let mut world = Self {
            scene,
            machines,
            nameserver,
            clients: vec![],
            lost: vec![],
            sets: BTreeMap::new(),
        };
        world.found();
        world
    }

    pub(super) fn found(&mut self) {
        let profile = self.scene.profile;
        self.decide(&[Command::Found { cluster: "simulation".into() }]);
        for at in 0..profile.tablets {
            self.machines[at].start(&mut self.scene);
            let Some(register) = self.registration(at) else { continue };
            let replies = self.decide(&[Command::Register(register)]);
            assert_eq!(replies, [Reply::Registered(id_of(at))]);
        }
        let command = self.nameserver.next_table(&profile, profile.partitions);
        let replies = self.decide(&[command]);
        assert_eq!(replies, [Reply::Created(TableId(1))]);
        self.scene.after(0, Event::Meta(MetaEvent::TakeOver));
        self.scene.after(0, Event::Meta(MetaEvent::Pass));
        if profile.ruin {
            self.scene.after(OPERATE * MS, Event::Meta(MetaEvent::Operate));
        }
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

    pub(super) fn decide(&mut self, commands: &[Command]) -> Vec<Reply> {
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
                self.scene.ghost.broken(format_args!(
                    "not whole {WHOLE_WITHIN} ms after the last fault: {what}"
                ));
            }
        }
        self.look_for_the_lost();
        let mut coverage = std::mem::take(&mut self.scene.coverage);
        coverage.acknowledged = self.scene.ghost.count();
        Ended { broken: self.scene.ghost.verdict().map(str::to_owned), safety, coverage, healed_in }
    }

    /// Waits until the cluster is whole; what it lacks if it is not in time.
    pub(super) fn become_whole(&mut self) -> Option<String> {
        let until = self.scene.now + WHOLE_WITHIN * MS;
        let mut lacking = self.lacking();
        while lacking.is_some() && self.scene.now < until && self.scene.ghost.verdict().is_none() {
            self.go_to(self.scene.now + 50 * MS);
            lacking = self.lacking();
        }
        lacking
    }

    pub(super) fn go_to(&mut self, until: Moment) {
        while self.scene.ghost.verdict().is_none() {
            let Some(event) = self.scene.next(until) else { return };
            self.scene.coverage.steps += 1;
            self.happens(event);
            self.look();
        }
    }

    /// What must hold after every step.
    pub(super) fn look(&mut self) {
        if self.scene.coverage.steps.is_multiple_of(64) {
            self.look_at_roles();
        }
        for (key, partition) in &self.nameserver.state.partitions {
            if partition.uncleans > self.scene.ghost.uncleans(*key) {
                let log = self.machines[place_of(partition.leader)].stable(*key, partition);
                // R15: nobody who was in the set has more than the one that leads now.
                let kept = self.scene.ghost.known_of(*key, log);
                let members =
                    self.sets.get(key).into_iter().flatten().map(|at| &self.machines[*at]);
                let more = members
                    .map(|m| (m.at, self.scene.ghost.known_of(*key, m.stable(*key, partition))))
                    .find(|(_, known)| *known > kept);
                if let Some((at, known)) = more.filter(|_| !self.scene.profile.ruin) {
                    self.scene.ghost.broken(format_args!(
                        "{key}: {} was elected with {kept} agreed entries, member {at} has {known} (R15)",
                        place_of(partition.leader)
                    ));
                }
                let began = (partition.last_unclean, partition.uncleans);
                let lost = self.scene.ghost.unclean(*key, began, log);
                let lost = lost.into_iter().map(|id| holders(&self.machines, *key, id));
                self.lost.extend(lost);
            }
            let set = self.sets.entry(*key).or_default();
            set.clear();
            set.extend(partition.in_sync.iter().map(|m| place_of(m.tablet)));
            for member in partition.in_sync.iter().filter(|m| !m.untrusted) {
                let machine = &self.machines[place_of(member.tablet)];
                if machine.spoiled {
                    continue;
                }
                self.scene.ghost.member(machine.at, *key, machine.stable(*key, partition));
            }
        }
        if let Some(machine) = self.machines.iter().find(|m| m.disk.unsaved) {
            let at = machine.at;
            self.scene.ghost.broken(format_args!("{at} voided entries that are in no lost+found"));
        }
    }

    /// What was lost with an unclean election is kept by whoever had it and still has its disk (promise 6).
    fn look_for_the_lost(&mut self) {
        for Lost { key, id, holders } in std::mem::take(&mut self.lost) {
            self.scene.coverage.lost_writes += 1;
            for (at, losses) in holders {
                let machine = &self.machines[at];
                let disk = &machine.disk;
                let there = disk.keeps(key, id);
                if machine.losses == losses && !there && self.scene.live.contains(&key) {
                    self.scene.ghost.broken(format_args!(
                        "{key}: {at} has discarded {id:?}, which was acknowledged, and has not kept it"
                    ));
                }
            }
        }
    }

    /// What each tablet is now.
    pub(super) fn look_at_roles(&mut self) {
        let keys = self.scene.live.iter();
        let pairs = keys.flat_map(|key| (0..self.machines.len()).map(move |at| (at, *key)));
        self.scene.roles =
            pairs.filter_map(|(at, key)| Some(((at, key), self.role(at, key)?))).collect();
    }

    /// What is not whole.
    pub(super) fn lacking(&self) -> Option<String> {
        let state = &self.nameserver.state;
        for (key, partition) in &state.partitions {
            let leader = place_of(partition.leader);
            let of = |at: usize| self.machines.get(at)?.process.as_ref()?.copies.get(key);
            let Some(core) = of(leader).map(|c| &c.core) else {
                return Some(format!("{key} has no leader that runs"));
            };
            if !core.serving() || core.epoch() != partition.epoch {
                return Some(format!(
                    "{key}: leader {leader} does not serve in epoch {}",
                    partition.epoch
                ));
            }
            if partition.in_sync.len() != partition.replicas.len()
                || partition.in_sync.iter().any(|m| m.untrusted)
            {
                return Some(format!("{key}: in sync are only {:?}", partition.in_sync));
            }
            for replica in &partition.replicas {
                let at = place_of(replica.tablet);
                let Some(copy) = of(at) else {
                    return Some(format!("{key} has no replica at {at}"));
                };
                let (mine, theirs) =
                    ((copy.core.last(), copy.applied), (core.last(), core.commit()));
                if mine != theirs || mine.0 != mine.1 {
                    return Some(format!(
                        "{key}: last and commit are {mine:?} at {at} and {theirs:?} at leader {leader}"
                    ));
                }
            }
        }
        let waiting = self.clients.iter().filter(|c| c.asking.is_some()).count();
        (waiting > 0).then(|| format!("{waiting} clients wait for an answer"))
    }

    pub(super) fn happens(&mut self, event: Event) {
        match event {
            Event::Tablet(at, life, doing) => self.tablet(at, life, doing),
            Event::DiskSynced(at, life, to) => {
                let frozen = self.machines[at].frozen_until;
                if frozen > self.scene.now {
                    return self.scene.at(frozen, Event::DiskSynced(at, life, to));
                }
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
            Event::Answered(client, answer) => {
                self.clients[client].answered(answer, &mut self.scene)
            }
            Event::Client(client, event) => {
                if !(self.scene.healed && matches!(event, ClientEvent::Go)) {
                    self.clients[client].go_on(event, &mut self.scene);
                }
            }
            Event::Told(session) => self.told(session),
            Event::Meta(event)
                if self.nameserver.stands_until > self.scene.now
                    && !matches!(event, MetaEvent::Commit(_)) =>
            {
                // It stands still: what comes waits.
                self.scene.at(self.nameserver.stands_until, Event::Meta(event));
            }
            Event::Meta(MetaEvent::Probed(tablet, run, begun, _)) => {
                let found = self.machines.get(place_of(tablet)).and_then(|m| m.process.as_ref());
                let gone = found.is_none_or(|p| p.incarnation != run);
                let event = MetaEvent::Probed(tablet, run, begun, gone);
                self.nameserver.go_on(event, &mut self.scene);
            }
            Event::Meta(MetaEvent::Ended(session, true)) => {
                // The port refuses only if that run is gone by now.
                let of = self.nameserver.sessions.get(&session).map(|s| s.tablet);
                let gone = of.is_some_and(|(at, life)| !self.runs(at, life));
                self.nameserver.go_on(MetaEvent::Ended(session, gone), &mut self.scene);
            }
            Event::Meta(event) => self.nameserver.go_on(event, &mut self.scene),
            Event::Start(at) => self.start(at),
            Event::NextFault => self.next_fault(),
            Event::Strike(fault, at, point) => self.strike(fault, at, point),
            Event::Heal(healing) => self.end_of(healing),
            Event::OldNews(at, life, told) => {
                if self.runs(at, life) && self.paused(at).is_none() {
                    self.machines[at].act(&mut self.scene, |acting| {
                        for (options, view) in &told.views {
                            if acting.process.copies.contains_key(&view.key) {
                                acting.view(*options, view.clone());
                            }
                        }
                    });
                }
            }
        }
    }

    /// Does that life of the tablet's process run?
    pub(super) fn runs(&self, at: usize, life: u64) -> bool {
        self.machines.get(at).is_some_and(|m| m.life == life && m.process.is_some())
    }

    /// Until when that tablet does not run, if it is paused.
    pub(super) fn paused(&self, at: usize) -> Option<Moment> {
        self.machines.get(at).map(|m| m.paused_until).filter(|until| *until > self.scene.now)
    }

    pub(super) fn tablet(&mut self, at: usize, life: u64, doing: Doing) {
        if !self.runs(at, life) {
            return;
        }
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Tablet(at, life, doing));
        }
        match doing {
            Doing::Register => self.register(at),
            Doing::Registered => self.registered(at),
            // A run of a disk that is gone now was heard late, and has taken this one's place: it ends, and the next
            // one takes it back.
            Doing::Outcast if self.machines[at].losses > 0 => self.kill(at, true),
            Doing::Outcast => {
                self.scene
                    .ghost
                    .broken(format_args!("the registration of {at} is refused for good"));
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

    pub(super) fn asked(&mut self, at: usize, request: Request) {
        if let Some(until) = self.paused(at) {
            return self.scene.at(until, Event::Asked(at, request));
        }
        let answered =
            self.machines[at].act(&mut self.scene, |acting| acting.ask(request)).is_some();
        if !answered {
            let answer = Answer { request, outcome: Outcome::Refused(None) };
            let delay = self.scene.latency();
            self.scene.after(delay, Event::Answered(request.client, answer));
        }
    }

    /// What that tablet is for a partition, if its process runs.
    pub fn role(&self, at: usize, key: PartitionKey) -> Option<Role> {
        let process = self.machines.get(at)?.process.as_ref()?;
        let partition = self.nameserver.state.partitions.get(&key)?;
        let core = &process.copies.get(&key)?.core;
        Some(
            if (partition.leader, partition.leader_incarnation) != (id_of(at), process.incarnation)
            {
                Role::Follower
            } else if core.serving() && core.epoch() == partition.epoch {
                Role::Leader
            } else {
                Role::Candidate
            },
        )
    }

    /// A process starts.
    pub fn start(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.is_some() || !machine.starting {
            return;
        }
        machine.start(&mut self.scene);
        let life = machine.life;
        trace!(
            self.scene,
            "{at} starts as run {:?}",
            machine.process.as_ref().map(|p| p.incarnation)
        );
        self.scene.after(0, Event::Tablet(at, life, Doing::Register));
    }
}

/// Who has that write.
fn holders(machines: &[Machine], key: PartitionKey, id: Id) -> Lost {
    let has = machines.iter().filter(|m| m.disk.keeps(key, id));
    Lost { key, id, holders: has.map(|m| (m.at, m.losses)).collect() }
}
