//! What everybody in a run shares: virtual time with what is going to happen, chance, the ways between tablets, and
//! those who watch (ghost, coverage, trace).
//!
//! Invariants: everything that happens comes out of the one queue, in the order of time and then of its putting in; all
//! chance comes out of the one source: a seed and a profile are a run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt;

use stela_common::ids::{Incarnation, PartitionKey, Version};
use stela_common::wire::Member;
use stela_replica::message::{Conn, Timing};

use super::client::{ClientEvent, Reply, Request};
use super::clock::{MS, Moment};
use super::coverage::Coverage;
use super::fault::{Fault, Healing, Role};
use super::ghost::Ghost;
use super::nameserver::{MetaEvent, Told};
use super::point::{Lurker, Point};
use super::profile::Profile;
use super::random::Random;
use super::wire::{FollowerBox, LeaderBox, Link, Parcel};

/// Stands for the nameservers where a way is named.
pub const NAMESERVER: usize = usize::MAX;

/// How long things take beside [`Timing`]; the figures of the real shells.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What the replicas are told.
    pub timing: Timing,
    /// A meta lease, for its holder.
    pub lease: u64,
    /// Between two heartbeats.
    pub heartbeat: u64,
    /// Between two keep-alives of a stream.
    pub keep_alive: u64,
    /// Between two ticks.
    pub tick: u64,
    /// A nameserver that is silent for so long is left; a call without an answer for so long is given up.
    pub silence: u64,
    /// Until the next try.
    pub again: u64,
    /// A connection over which nothing gets for so long is given up.
    pub half_open: u64,
}

impl Pace {
    /// As the servers have it.
    pub const REAL: Self = Self {
        timing: Timing {
            read_lease: 300,
            read_lease_grantor: 330,
            replica_lag: 1000,
            propose_again: 500,
        },
        lease: 2000,
        heartbeat: 200,
        keep_alive: 100,
        tick: 25,
        silence: 1000,
        again: 50,
        half_open: 4000,
    };

    /// The same relations in a third of the time: more happens in a run.
    pub const BRISK: Self = Self {
        timing: Timing {
            read_lease: 100,
            read_lease_grantor: 110,
            replica_lag: 300,
            propose_again: 150,
        },
        lease: 700,
        heartbeat: 70,
        keep_alive: 35,
        tick: 25,
        silence: 350,
        again: 20,
        half_open: 1400,
    };
}

/// What a process of a tablet does next. It waits while the process is paused, and is void when the process has died.
#[derive(Clone, Debug)]
pub enum Doing {
    /// Time passes for its cores.
    Tick,
    /// Takes the writes that have arrived.
    Drain,
    /// Learns that its log is synced up to there.
    Synced(usize),
    /// Sends what has gathered for a follower.
    SendDown(Conn),
    /// Sends what has gathered for a leader.
    SendUp(Conn),
    /// Asks for the next permit.
    KeepAlive(Conn),
    /// Looks which followers should be connected.
    Peers,
    /// Opens a stream to that tablet, if it is still wanted.
    Dial(usize),
    /// The attempt to open a stream to that tablet came to nothing.
    Undialed(usize),
    /// Registers, if it has not yet.
    Register,
    /// It is registered.
    Registered,
    /// The registration is refused for good.
    Outcast,
    /// Opens a heartbeat stream, if there is none.
    Attach,
    /// Heartbeat.
    Beat,
    /// The heartbeat stream of that number is gone.
    Detached(u64),
    /// The answer to a proposal.
    Verdict(PartitionKey, Version, Vec<Member>, bool),
    /// Looks again at reads that wait.
    Unpark,
}

/// What happens next.
#[derive(Clone, Debug)]
pub enum Event {
    /// A process of a tablet acts: which tablet, which life of it.
    Tablet(usize, u64, Doing),
    /// A sync of a disk ends that covers everything up to there.
    DiskSynced(usize, u64, usize),
    /// Something arrives at the follower of a connection.
    Down(Conn),
    /// Something arrives at the leader of a connection.
    Up(Conn),
    /// A stream is asked for: by whom, at whom, which run is meant.
    Dialed((usize, u64), usize, Incarnation),
    /// A client's request arrives at a tablet.
    Asked(usize, Request),
    /// An answer arrives at a client.
    Answered(usize, Reply),
    /// A client acts.
    Client(usize, ClientEvent),
    /// Something arrives at a tablet on a heartbeat stream.
    Told(u64),
    /// The nameservers.
    Meta(MetaEvent),
    /// A process starts on that tablet.
    Start(usize),
    /// The next fault that comes by itself.
    NextFault,
    /// A fault hits a tablet, perhaps because it is at that point.
    Strike(Fault, usize, Option<Point>),
    /// A fault ends.
    Heal(Healing),
    /// Something older is told again to that life of a tablet's process.
    OldNews(usize, u64, Box<Told>),
}

struct Scheduled {
    at: Moment,
    order: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// See the module.
pub struct Scene {
    /// This moment.
    pub now: Moment,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    /// Chance.
    pub random: Random,
    /// How the run is steered.
    pub profile: Profile,
    /// How long things take.
    pub pace: Pace,
    /// Nothing goes wrong any more.
    pub healed: bool,
    /// Connections between tablets.
    pub links: BTreeMap<Conn, Link>,
    /// Ways on which nothing gets through: from, to.
    pub blocked: BTreeSet<(usize, usize)>,
    /// What was promised so far.
    pub ghost: Ghost,
    /// What was tried so far.
    pub coverage: Coverage,
    /// The partitions that there are.
    pub live: Vec<PartitionKey>,
    /// What each tablet is for which partition, as of the last look.
    pub roles: BTreeMap<(usize, PartitionKey), Role>,
    /// How much longer messages to and from a tablet take, microseconds at most.
    pub lag: BTreeMap<usize, u64>,
    lurkers: Vec<Lurker>,
    numbers: u64,
    traced: bool,
}

impl Scene {
    /// The beginning of a run.
    pub fn new(seed: u64, profile: Profile, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let lurkers = (0..profile.lurkers).map(|_| Lurker::draw(&mut random)).collect();
        Self {
            now: 0,
            queue: BinaryHeap::new(),
            order: 0,
            random,
            profile,
            pace: profile.pace,
            healed: false,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            ghost: Ghost::default(),
            coverage: Coverage::default(),
            live: Vec::new(),
            roles: BTreeMap::new(),
            lag: BTreeMap::new(),
            lurkers,
            numbers: 0,
            traced,
        }
    }

    /// Lets something happen so many microseconds from now.
    pub fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    /// Lets something happen at a moment.
    pub fn at(&mut self, at: Moment, event: Event) {
        self.order += 1;
        self.queue.push(Reverse(Scheduled { at: at.max(self.now), order: self.order, event }));
    }

    /// The next thing that happens, up to a moment; time goes there.
    pub fn next(&mut self, until: Moment) -> Option<Event> {
        if self.queue.peek().is_none_or(|Reverse(next)| next.at > until) {
            self.now = until;
            return None;
        }
        let Reverse(next) = self.queue.pop()?;
        self.now = next.at;
        Some(next.event)
    }

    /// A number that was never given before: connections, heartbeat streams, runs.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// How long a message takes, microseconds.
    pub fn latency(&mut self) -> u64 {
        let slow = self.random.chance(30) && !self.healed;
        let most = if slow { 100 * MS } else { self.profile.latency_ms * MS };
        self.random.between(100, most)
    }

    /// How long something takes that a busy process puts off a little.
    pub fn soon(&mut self) -> u64 {
        let busy = self.random.chance(100);
        let most = if busy { 5 * MS } else { MS / 2 };
        self.random.between(10, most)
    }

    /// A point of the protocol is reached at a tablet: what lies in ambush there strikes.
    pub fn reached(&mut self, point: Point, tablet: usize) {
        if self.healed {
            return;
        }
        self.coverage.reached(point);
        for ambush in self.profile.ambushes {
            let struck = ambush.strikes(point, tablet, self.profile.tablets, &mut self.random);
            if let Some((fault, victim, delay)) = struck {
                let here = (victim == tablet && delay == 0).then_some(point);
                self.after(delay, Event::Strike(fault, victim, here));
            }
        }
        for at in 0..self.lurkers.len() {
            if let Some(fault) = self.lurkers[at].passed(point) {
                self.after(0, Event::Strike(fault, tablet, Some(point)));
            }
        }
    }

    /// Does that fault befall a message now that is about a partition, to or from a tablet?
    pub fn befalls(&mut self, fault: Fault, at: usize, key: PartitionKey) -> bool {
        let befalls = !self.healed
            && self.profile.ambushes.iter().any(|a| a.befalls(fault, &mut self.random));
        if befalls && let Some(role) = self.roles.get(&(at, key)) {
            self.coverage.hit(fault, *role);
        }
        befalls
    }

    /// How long a message takes to or from one of these tablets.
    fn latency_of(&mut self, tablets: [usize; 2]) -> u64 {
        let lag = tablets.iter().filter_map(|at| self.lag.get(at)).max().copied();
        self.latency() + lag.map_or(0, |most| self.random.below(most))
    }

    /// Does nothing get through from one to the other?
    pub fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Tells what happens, if somebody wants to read it.
    pub fn trace(&self, what: fmt::Arguments<'_>) {
        if self.traced {
            println!("{:>9}.{:03} {what}", self.now / MS, self.now % MS);
        }
    }
}

/// Tells what happens in a run whose trace is asked for.
macro_rules! trace {
    ($scene:expr, $($what:tt)*) => { $scene.trace(format_args!($($what)*)) };
}
pub(super) use trace;

impl Scene {
    /// Puts what a leader says on its way.
    pub fn send_down(&mut self, conn: Conn, message: FollowerBox) {
        let ends = self.links.get(&conn).map(|l| [l.leader.0, l.follower.0]);
        let arrives = self.now + self.latency_of(ends.unwrap_or_default());
        if let Some(link) = self.links.get_mut(&conn).filter(|l| !l.broken) {
            let at = link.down.send(arrives, Parcel::Message(message));
            self.at(at, Event::Down(conn));
        }
    }

    /// Puts what a follower says on its way.
    pub fn send_up(&mut self, conn: Conn, message: LeaderBox) {
        let ends = self.links.get(&conn).map(|l| [l.leader.0, l.follower.0]);
        let arrives = self.now + self.latency_of(ends.unwrap_or_default());
        if let Some(link) = self.links.get_mut(&conn).filter(|l| !l.broken) {
            let at = link.up.send(arrives, Parcel::Message(message));
            self.at(at, Event::Up(conn));
        }
    }

    /// A connection is gone: some of what is under way is lost, if `lossy`, and each end notices in its own time.
    pub fn break_link(&mut self, conn: Conn, lossy: bool) {
        let Some(link) = self.links.get_mut(&conn).filter(|l| !l.broken) else { return };
        link.broken = true;
        link.blocked = [None, None];
        if lossy {
            let (down, up) = (link.down.len(), link.up.len());
            link.down.lose(self.random.index(down + 1));
            link.up.lose(self.random.index(up + 1));
        }
        let half_open = self.profile.half_open;
        let healed = self.healed;
        let late = |random: &mut Random| {
            let late = random.chance(half_open) && !healed;
            if late { random.between(MS, 1500 * MS) } else { random.between(10, 20 * MS) }
        };
        let (down, up) = (late(&mut self.random), late(&mut self.random));
        // What is under way may come late, too: it was sent again and again.
        if self.random.chance(half_open) && !healed {
            link.down.delay(self.random.below(down));
            link.up.delay(self.random.below(up));
        }
        let down = link.down.send(self.now + down, Parcel::End);
        let up = link.up.send(self.now + up, Parcel::End);
        self.at(down, Event::Down(conn));
        self.at(up, Event::Up(conn));
    }
}
