//! The streams between tablets, at both of their ends: the one that leads opens it (R4).

use std::collections::BTreeMap;

use stela_common::ids::Incarnation;
use stela_replica::message::{Conn, Input, ToFollower, ToLeader};

use super::clock::MS;
use super::point::Point;
use super::scene::{Doing, Event};
use super::shell::Acting;
use super::tablet::{Copy, Incoming, Outgoing, Ship, id_of};
use super::wire::{FollowerBox, LeaderBox, Parcel, Run};

/// Entries of one frame for one partition, at most.
const FRAME: u64 = 16;

impl Acting<'_> {
    pub(super) fn peers(&mut self) {
        for peer in self.process.followers_wanted() {
            self.dial(peer);
        }
    }

    pub(super) fn dial(&mut self, peer: usize) {
        let open = self.process.outgoing.values().any(|o| o.peer == peer);
        if open
            || self.process.dialing.contains(&peer)
            || !self.process.followers_wanted().contains(&peer)
        {
            return;
        }
        let Some(incarnation) = self.process.addresses.get(&peer).copied() else { return };
        self.process.dialing.insert(peer);
        let delay = self.scene.latency();
        self.scene.after(delay, Event::Dialed((self.at, self.life), peer, incarnation));
    }

    /// A stream of a leader is accepted.
    pub fn accept(&mut self, conn: Conn, peer: usize, incarnation: Incarnation) {
        let incoming = Incoming { peer, incarnation, outbox: LeaderBox::default(), sending: false };
        self.process.incoming.insert(conn, incoming);
        let own = self.process.incarnation;
        self.fill_up(conn, |b| b.open = Some(own));
        self.scene.reached(Point::Accepts, self.at);
    }

    pub(super) fn keep_alive(&mut self, conn: Conn) {
        if !self.process.outgoing.contains_key(&conn) {
            return;
        }
        let now = self.now;
        self.fill_down(conn, |b| b.asked_at = Some(now));
        let delay = self.scene.pace.keep_alive * MS;
        self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::KeepAlive(conn)));
    }

    pub(super) fn send_down(&mut self, conn: Conn) {
        let Some(outgoing) = self.process.outgoing.get_mut(&conn) else { return };
        outgoing.sending = false;
        let mut gathered = std::mem::take(&mut outgoing.outbox);
        let mut left = Vec::new();
        for key in std::mem::take(&mut gathered.dirty) {
            let (Some(ship), Some(copy)) =
                (outgoing.ships.get_mut(&key), self.process.copies.get(&key))
            else {
                continue;
            };
            let log = self.disk.written(key);
            let most = 1 + self.scene.random.below(FRAME);
            let entries: Vec<_> =
                log.from(ship.next).take(usize::try_from(most).unwrap_or(1)).collect();
            let Some((last, entry)) = entries.last().copied() else { continue };
            let run = Run {
                epoch: copy.core.epoch(),
                prev: ship.prev,
                entries,
                commit: copy.core.commit(),
            };
            *ship = Ship { next: last.next(), prev: (last, entry.epoch) };
            if ship.next <= log.last() {
                left.push(key);
            }
            gathered.runs.push((key, run));
        }
        if !left.is_empty() {
            self.fill_down(conn, |b| b.dirty.extend(left));
        }
        if !gathered.is_empty() {
            self.scene.send_down(conn, gathered);
        }
    }

    pub(super) fn send_up(&mut self, conn: Conn) {
        let Some(incoming) = self.process.incoming.get_mut(&conn) else { return };
        incoming.sending = false;
        let gathered = std::mem::take(&mut incoming.outbox);
        if !gathered.is_empty() {
            self.scene.send_up(conn, gathered);
        }
    }

    /// Something arrives from a leader.
    pub fn hear_leader(&mut self, conn: Conn, parcel: Parcel<FollowerBox>) {
        let Some((peer, incarnation)) =
            self.process.incoming.get(&conn).map(|i| (i.peer, i.incarnation))
        else {
            return;
        };
        let frame = match parcel {
            Parcel::Message(frame) => frame,
            Parcel::End => {
                self.process.incoming.remove(&conn);
                self.scene.reached(Point::Disconnected, self.at);
                return self.step_all(of_peer(peer), || Input::Disconnected(conn));
            }
        };
        let from = |message| Input::FromLeader { conn, peer: id_of(peer), incarnation, message };
        for (key, epoch) in frame.leads {
            self.scene.reached(Point::HearsLead, self.at);
            self.step(key, from(ToFollower::Lead { epoch }), &[]);
        }
        for (key, point) in frame.points {
            self.scene.reached(Point::HearsOrder, self.at);
            self.step(key, from(point), &[]);
        }
        for (key, run) in frame.runs {
            let entries =
                run.entries.iter().map(|(offset, entry)| (*offset, entry.epoch)).collect();
            let say = ToFollower::Records {
                epoch: run.epoch,
                prev: run.prev,
                entries,
                commit: run.commit,
            };
            self.scene.reached(Point::HearsRecords, self.at);
            self.step(key, from(say), &run.entries);
        }
        for (key, (epoch, commit)) in frame.commits {
            self.scene.reached(Point::HearsCommit, self.at);
            self.step(key, from(ToFollower::Commit { epoch, commit }), &[]);
        }
        if let Some(asked_at) = frame.asked_at {
            // After the cores have spoken: whatever they left is said before or with this grant (R11).
            self.perform_now();
            self.process.grants.grant(id_of(peer), self.now);
            self.fill_up(conn, |b| b.granted = Some(asked_at));
            self.scene.reached(Point::Grants, self.at);
        }
    }

    /// Ends the critical section so far: a new one begins.
    pub(super) fn perform_now(&mut self) {
        loop {
            self.flush();
            let Some((key, output)) = self.later.pop_front() else { break };
            self.perform(key, output);
        }
    }

    /// Something arrives from a follower.
    pub fn hear_follower(&mut self, conn: Conn, peer: usize, parcel: Parcel<LeaderBox>) {
        let message = match parcel {
            Parcel::Message(message) => message,
            Parcel::End => {
                if self.process.outgoing.remove(&conn).is_some() {
                    self.process.permits.dropped(conn);
                    self.scene.reached(Point::Disconnected, self.at);
                    self.step_all(of_peer(peer), || Input::Disconnected(conn));
                }
                self.process.dialing.remove(&peer);
                let delay = self.scene.pace.again * MS;
                return self
                    .scene
                    .after(delay, Event::Tablet(self.at, self.life, Doing::Dial(peer)));
            }
        };
        if let Some(incarnation) = message.open {
            self.process.dialing.remove(&peer);
            let outgoing = Outgoing {
                peer,
                incarnation,
                outbox: FollowerBox::default(),
                sending: false,
                ships: BTreeMap::new(),
            };
            self.process.outgoing.insert(conn, outgoing);
            self.step_all(
                |c| c.core.leads() && of_peer(peer)(c),
                || Input::Connected { conn, peer: id_of(peer), incarnation },
            );
            self.soon(Doing::KeepAlive(conn));
            self.scene.reached(Point::Connected, self.at);
        }
        if !self.process.outgoing.contains_key(&conn) {
            return;
        }
        let from = |message| Input::FromFollower { conn, message };
        for (key, epoch) in message.lefts {
            self.scene.reached(Point::HearsLeft, self.at);
            self.step(key, from(ToLeader::Left { epoch }), &[]);
        }
        for (key, (epoch, nonce, history, last, rebuild)) in message.hellos {
            self.scene.reached(Point::HearsHello, self.at);
            self.step(key, from(ToLeader::Hello { epoch, nonce, history, last, rebuild }), &[]);
        }
        for (key, (epoch, nonce, offset)) in message.acks {
            self.scene.reached(Point::HearsAck, self.at);
            self.step(key, from(ToLeader::Ack { epoch, nonce, offset }), &[]);
        }
        if let Some(asked_at) = message.granted {
            self.process.permits.granted(conn, asked_at);
            self.scene.reached(Point::HearsGrant, self.at);
            if !self.process.parked.is_empty() {
                self.soon(Doing::Unpark);
            }
        }
    }
}

/// Has the replica one on that tablet beside it?
fn of_peer(peer: usize) -> impl Fn(&Copy) -> bool {
    move |copy| copy.core.view().is_some_and(|v| v.replicas.contains(&id_of(peer)))
}
