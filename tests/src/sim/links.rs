//! Connections between tablets as the network has them: they carry in order, stand still while the way is blocked, and
//! are given up after a while.

use stela_common::ids::Incarnation;
use stela_replica::message::Conn;

use super::clock::MS;
use super::scene::{Doing, Event, Scene, trace};
use super::tablet::id_of;
use super::wire::{Link, Parcel, Pipe};
use super::world::World;

impl World {
    pub(super) fn dialed(&mut self, from: (usize, u64), to: usize, incarnation: Incarnation) {
        if !self.runs(from.0, from.1) {
            return;
        }
        let refuse = |scene: &mut Scene, delay: u64| {
            scene.after(delay, Event::Tablet(from.0, from.1, Doing::Undialed(to)))
        };
        if self.scene.is_blocked(from.0, to) || self.scene.is_blocked(to, from.0) {
            return refuse(&mut self.scene, 500 * MS);
        }
        if let Some(until) = self.paused(to) {
            return self.scene.at(until, Event::Dialed(from, to, incarnation));
        }
        let machine = &mut self.machines[to];
        let fit = machine
            .process
            .as_ref()
            .is_some_and(|p| p.incarnation == incarnation && p.tablet == id_of(to));
        if !fit {
            let delay = self.scene.latency();
            return refuse(&mut self.scene, delay);
        }
        let leader =
            self.machines[from.0].process.as_ref().map(|p| p.incarnation).unwrap_or_default();
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
    pub(super) fn waits(&mut self, conn: Conn, from: usize, to: usize, way: usize) -> bool {
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

    pub(super) fn down(&mut self, conn: Conn) {
        let Some(((from, _), (to, life))) =
            self.scene.links.get(&conn).map(|l| (l.leader, l.follower))
        else {
            return;
        };
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
            self.machines[to].act(&mut self.scene, |acting| acting.hear_leader(conn, parcel));
            self.propose(to);
        }
        self.forget(conn);
    }

    pub(super) fn up(&mut self, conn: Conn) {
        let Some(((to, life), (from, _))) =
            self.scene.links.get(&conn).map(|l| (l.leader, l.follower))
        else {
            return;
        };
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
            self.machines[to]
                .act(&mut self.scene, |acting| acting.hear_follower(conn, from, parcel));
            self.propose(to);
        }
        self.forget(conn);
    }

    /// A broken connection that has nothing under way is forgotten.
    pub(super) fn forget(&mut self, conn: Conn) {
        if self.scene.links.get(&conn).is_some_and(|l| l.broken && l.down.len() + l.up.len() == 0) {
            self.scene.links.remove(&conn);
        }
    }
}
