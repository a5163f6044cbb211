//! Faults as they hit a run, and their ends.

use super::clock::MS;
use super::fault::{Fault, Healing, Role};
use super::point::Point;
use super::random::Random;
use super::scene::{Event, NAMESERVER, trace};
use super::world::World;

impl World {
    /// A fault comes by itself, and the next one is on its way.
    pub fn next_fault(&mut self) {
        if self.scene.healed {
            return;
        }
        let every = self.scene.profile.every;
        let next = self.scene.random.between(every / 4, every * 7 / 4);
        self.scene.after(next * MS, Event::NextFault);
        if let Some(fault) = weighed(&mut self.scene.random, self.scene.profile.faults) {
            let victim = self.victim(fault);
            self.strike(fault, victim, None);
        }
    }

    /// Somebody to be hit, in a role that is drawn first: most of the time most tablets are followers.
    fn victim(&mut self, fault: Fault) -> usize {
        let roles: Vec<Role> = Role::ALL.into_iter().filter(|r| fault.befalls(*r)).collect();
        let role = self.scene.random.pick(&roles).copied();
        let in_role: Vec<usize> = (0..self.machines.len())
            .filter(|at| {
                self.nameserver.state.partitions.keys().any(|key| self.role(*at, *key) == role)
            })
            .collect();
        match self.scene.random.pick(&in_role) {
            Some(at) => *at,
            None => self.scene.random.index(self.machines.len()),
        }
    }

    /// Somebody else.
    fn other(&mut self, at: usize) -> usize {
        let n = self.machines.len();
        (at + 1 + self.scene.random.index(n - 1)) % n
    }

    fn cover(&mut self, fault: Fault, at: usize) {
        let keys: Vec<_> = self.nameserver.state.partitions.keys().copied().collect();
        for key in keys {
            if let Some(role) = self.role(at, key) {
                self.scene.coverage.hit(fault, role);
            }
        }
    }

    /// A fault hits a tablet, perhaps because it is at that point.
    pub fn strike(&mut self, fault: Fault, at: usize, point: Option<Point>) {
        if self.scene.healed || !self.may_strike(fault, at) {
            return;
        }
        for hit in (0..self.machines.len()).filter(|hit| fault.is_of_all() || *hit == at) {
            self.cover(fault, hit);
        }
        if let Some(point) = point.filter(|_| {
            matches!(fault, Fault::Kill | Fault::PowerCut) && self.machines[at].process.is_some()
        }) {
            self.scene.coverage.crashed_at(point);
        }
        trace!(self.scene, "---- {fault}: {at}");
        match fault {
            Fault::Kill => self.kill(at, true),
            Fault::PowerCut => self.power_cut(at),
            Fault::Blackout => (0..self.machines.len()).for_each(|at| self.power_cut(at)),
            Fault::Stop => self.stop(at),
            Fault::Wipe | Fault::RollBack | Fault::Damage => self.ruin(fault, at),
            Fault::Pause => {
                let length = self.stand_still(at);
                trace!(self.scene, "{at} does not run for {length} ms");
            }
            Fault::Freeze => {
                let length = self.stand_still(at);
                let machine = &mut self.machines[at];
                machine.frozen_until = machine.frozen_until.max(self.scene.now + length * MS);
            }
            Fault::Drift => self.machines[at].clock.drift(self.scene.now, &mut self.scene.random),
            Fault::Delay => {
                let most = self.scene.random.between(10, self.scene.pace.timing.replica_lag);
                self.scene.lag.insert(at, most * MS);
                let length = self.scene.random.between(100, 2500);
                self.scene.after(length * MS, Event::Heal(Healing::FastWays(at)));
            }
            Fault::Break => {
                let links: Vec<_> = self
                    .scene
                    .links
                    .iter()
                    .filter(|(_, l)| !l.broken && (l.leader.0 == at || l.follower.0 == at))
                    .map(|(conn, _)| *conn)
                    .collect();
                if let Some(conn) = self.scene.random.pick(&links).copied() {
                    self.scene.break_link(conn, true);
                }
            }
            Fault::Cut => {
                let other = self.other(at);
                self.block(vec![(at, other), (other, at)]);
            }
            Fault::CutOneWay => {
                let other = self.other(at);
                self.block(vec![(at, other)]);
            }
            Fault::Deaf => self.deafen(at),
            Fault::CutOff => {
                let both = vec![(at, NAMESERVER), (NAMESERVER, at)];
                let ways = match self.scene.random.below(4) {
                    0 => both.into_iter().take(1).collect(),
                    1 => both.into_iter().skip(1).collect(),
                    _ => both,
                };
                self.block(ways);
            }
            Fault::Isolate => {
                let ends = (0..self.machines.len()).filter(|o| *o != at).chain([NAMESERVER]);
                let ways: Vec<_> = ends.flat_map(|end| [(at, end), (end, at)]).collect();
                self.scene.blocked.extend(ways.iter().copied());
                let (lag, lease) = (self.scene.pace.timing.replica_lag, self.scene.pace.lease);
                let length = self.scene.random.between(lag / 2, 2 * lease);
                self.scene.after(length * MS, Event::Heal(Healing::Ways(ways)));
            }
            Fault::WrongSuspicion => self.nameserver.suspect(at, &self.scene),
            Fault::SlowDisk => {
                let hangs = self.scene.random.chance(100);
                let slow = if hangs { 4000 } else { 600 };
                self.machines[at].slow_ms = self.scene.random.between(20, slow);
                let length = self.scene.random.between(100, 2500);
                self.scene.after(length * MS, Event::Heal(Healing::FastDisk(at)));
            }
            Fault::FullDisk => {
                self.machines[at].disk.full = true;
                let length = self.scene.random.between(5, 500);
                self.scene.after(length * MS, Event::Heal(Healing::RoomOnDisk(at)));
            }
            Fault::NameserverFailover => self.nameserver.fail(&mut self.scene),
            Fault::NameserverPause => {
                let most = self.scene.pace.lease * 2;
                let length = self.scene.random.between(20, most);
                self.nameserver.stands_until = self.scene.now + length * MS;
            }
            Fault::NameserverDrift => {
                self.nameserver.clock.drift(self.scene.now, &mut self.scene.random);
            }
            Fault::OldView => {
                if let Some((life, told)) = self.nameserver.last_told.get(&at).cloned() {
                    let delay = self.scene.random.between(0, 3000);
                    self.scene.after(delay * MS, Event::OldNews(at, life, Box::new(told)));
                }
            }
            Fault::PlannedSwitch => self.nameserver.switch(at, &mut self.scene),
            Fault::Toggle => {
                self.nameserver.set_auto_failover(false, &mut self.scene);
                let length = self.scene.random.between(100, 2000);
                self.scene.after(length * MS, Event::Heal(Healing::AutoFailover));
            }
            Fault::NewTable => self.nameserver.make_table(&mut self.scene),
            Fault::DropTable => self.nameserver.drop_table(&mut self.scene),
            Fault::Options => self.nameserver.change_table(&mut self.scene),
            Fault::HoldProposal
            | Fault::LoseReply
            | Fault::Repeat
            | Fault::LateRegistration
            | Fault::LoseRequest
            | Fault::RepeatRequest => {}
        }
    }

    /// It does not run for a while: how many milliseconds.
    fn stand_still(&mut self, at: usize) -> u64 {
        let length = self.scene.random.between(10, 200) * self.scene.random.between(1, 15);
        let machine = &mut self.machines[at];
        machine.paused_until = machine.paused_until.max(self.scene.now + length * MS);
        length
    }

    /// Nothing gets through to that tablet from the others. Perhaps one of them does not hear it either, another one does
    /// not reach the nameservers, and they take it for dead.
    fn deafen(&mut self, at: usize) {
        let mut ways: Vec<_> =
            (0..self.machines.len()).filter(|o| *o != at).map(|o| (o, at)).collect();
        let other = self.other(at);
        if self.scene.random.chance(600) {
            ways.push((at, other));
        }
        if let Some(third) = (0..self.machines.len()).find(|t| *t != at && *t != other)
            && self.scene.random.chance(300)
        {
            ways.push((third, NAMESERVER));
            self.nameserver.lose_sight(third);
        }
        if self.scene.random.chance(400) {
            ways.push((NAMESERVER, at));
            let delay = self.scene.random.below(self.scene.pace.timing.read_lease / 2);
            self.scene.after(delay * MS, Event::Strike(Fault::WrongSuspicion, at, None));
        }
        self.block(ways);
    }

    /// Blocks ways for less than it takes to give a connection up, most of the time.
    fn block(&mut self, ways: Vec<(usize, usize)>) {
        self.scene.blocked.extend(ways.iter().copied());
        let lag = self.scene.pace.timing.replica_lag;
        let most = if self.scene.random.chance(200) { 5 * lag } else { 2 * lag };
        let length = self.scene.random.between(lag / 50, most);
        self.scene.after(length * MS, Event::Heal(Healing::Ways(ways)));
    }

    /// A fault is over.
    pub fn end_of(&mut self, healing: Healing) {
        match healing {
            Healing::Ways(ways) => {
                for way in ways {
                    self.scene.blocked.remove(&way);
                }
            }
            Healing::FastDisk(at) => self.machines[at].slow_ms = 0,
            Healing::FastWays(at) => drop(self.scene.lag.remove(&at)),
            Healing::RoomOnDisk(at) => self.machines[at].disk.full = false,
            Healing::AutoFailover => self.nameserver.set_auto_failover(true, &mut self.scene),
        }
    }

    /// All faults are over.
    pub fn heal(&mut self) {
        trace!(self.scene, "==== all is healed");
        self.scene.healed = true;
        self.scene.blocked.clear();
        self.scene.lag.clear();
        self.nameserver.stands_until = 0;
        self.nameserver.set_auto_failover(true, &mut self.scene);
        for at in 0..self.machines.len() {
            let machine = &mut self.machines[at];
            machine.slow_ms = 0;
            machine.disk.full = false;
            machine.paused_until = machine.paused_until.min(self.scene.now);
            machine.frozen_until = machine.frozen_until.min(self.scene.now);
            if machine.process.is_none() {
                machine.starting = true;
                self.scene.after(0, Event::Start(at));
            }
        }
    }
}

fn weighed(random: &mut Random, faults: &[(Fault, u32)]) -> Option<Fault> {
    let all: u64 = faults.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let mut drawn = random.below(all);
    for (fault, weight) in faults {
        match drawn.checked_sub(u64::from(*weight)) {
            Some(left) => drawn = left,
            None => return Some(*fault),
        }
    }
    None
}
