//! Processes that end, and disks that lose something.

use stela_common::ids::Incarnation;
use stela_meta_state::state::Partition;

use super::clock::MS;
use super::fault::Fault;
use super::nameserver::MetaEvent;
use super::scene::{Event, trace};
use super::tablet::{id_of, place_of};
use super::world::World;

impl World {
    /// The process ends. `told`: the machine lives, and tells whoever is connected.
    pub(super) fn kill(&mut self, at: usize, told: bool) {
        let machine = &mut self.machines[at];
        let life = machine.life;
        let Some(process) = machine.process.take() else { return };
        if let Some(to) = process.syncing
            && self.scene.random.chance(500)
        {
            machine.disk.sync(to);
        }
        let links: Vec<_> = self
            .scene
            .links
            .iter()
            .filter(|(_, l)| l.leader == (at, life) || l.follower == (at, life))
            .map(|(conn, _)| *conn)
            .collect();
        for conn in links {
            let lossy = self.scene.random.chance(700);
            self.scene.break_link(conn, lossy);
        }
        if let Some(session) = process.session {
            let known = told || self.scene.random.chance(300);
            let after = if known { self.scene.random.between(MS, 60 * MS) } else { 3_000 * MS };
            self.scene.after(after, Event::Meta(MetaEvent::Ended(session, known)));
        }
        machine.starting = true;
        let most = self.scene.profile.away_ms;
        let away = if self.scene.random.chance(300) { most * 5 } else { most };
        let away = self.scene.random.between(1, away);
        self.scene.after(away * MS, Event::Start(at));
    }

    pub(super) fn power_cut(&mut self, at: usize) {
        self.kill(at, false);
        let machine = &mut self.machines[at];
        if machine.process.is_none() {
            let torn = machine.disk.cut(&mut self.scene.random);
            trace!(self.scene, "{at} loses {} records", torn.lost);
            self.scene.coverage.lost_records += torn.lost;
            self.scene.coverage.holes += torn.holes;
            machine.boot += 1;
            machine.clean = false;
            if self.nameserver.state.partitions.values().any(|p| p.may_lose_tail) {
                self.spoil(at);
            }
        }
    }

    pub(super) fn stop(&mut self, at: usize) {
        let machine = &mut self.machines[at];
        if machine.process.is_some() {
            machine.disk.sync(machine.disk.end());
            machine.clean = true;
            self.kill(at, true);
        }
    }

    /// Something that was synced is not on the disk any more at the next start.
    pub(super) fn ruin(&mut self, fault: Fault, at: usize) {
        self.kill(at, false);
        let registered = self.registered_run(at);
        let machine = &mut self.machines[at];
        match fault {
            Fault::Wipe => machine.wipe(&mut self.scene),
            Fault::RollBack => {
                machine.roll_back(registered);
            }
            _ => {
                machine.disk.recover();
                let key = machine.disk.damage(&mut self.scene.random);
                trace!(self.scene, "{at}: the log of {key:?} is damaged");
            }
        }
        self.spoil(at);
    }

    fn spoil(&mut self, at: usize) {
        self.machines[at].spoil();
        self.scene.ghost.forgets(at);
        self.nameserver.spoiled.insert(at);
    }

    fn registered_run(&self, at: usize) -> Incarnation {
        let tablet = self.nameserver.state.tablets.get(&id_of(at));
        tablet.map(|t| t.incarnation).unwrap_or_default()
    }

    /// Is that fault possible, and would nothing be lost that must not be?
    pub(super) fn may_strike(&self, fault: Fault, at: usize) -> bool {
        let machine = &self.machines[at];
        match fault {
            Fault::PowerCut => self.may_lose(at, |p| p.may_lose_tail),
            // R15: nothing but the tails of the members is lost.
            Fault::Blackout => self.scene.profile.ruin || self.nothing_is_lost(),
            // R14 tells a disk of an earlier run from the last one. (One of the same run it cannot tell.)
            Fault::RollBack => {
                machine.has_image_before(self.registered_run(at)) && self.may_lose(at, |_| true)
            }
            Fault::Damage => machine.disk.end() > 0 && self.may_lose(at, |_| true),
            Fault::Wipe => self.may_lose(at, |_| true),
            _ => true,
        }
    }

    fn nothing_is_lost(&self) -> bool {
        let mut partitions = self.nameserver.state.partitions.values();
        self.nameserver.spoiled.is_empty()
            && partitions.all(|p| p.in_sync.iter().all(|m| !m.untrusted))
    }

    /// What is on a disk may be lost while another trusted member of each set has all of it on its own (promise 1);
    /// or in a profile that tries what comes then.
    fn may_lose(&self, at: usize, concerned: impl Fn(&Partition) -> bool) -> bool {
        let concerned = |p: &&Partition| concerned(p);
        self.scene.profile.ruin
            || self.nameserver.state.partitions.values().filter(concerned).all(|partition| {
                partition.in_sync.iter().filter(|m| !m.untrusted).any(|m| {
                    let other = place_of(m.tablet);
                    other != at && !self.nameserver.spoiled.contains(&other)
                })
            })
    }
}
