//! Clients at a tablet: writes that are admitted in batches, reads whose permit is checked after the work (R11).

use stela_common::clock::Millis;
use stela_common::table::Ack;
use stela_replica::core::Env;
use stela_replica::message::Refusal;

use super::batch::After;
use super::client::{Ask, Outcome, Request};
use super::clock::{MS, Moment};
use super::disk::{Entry, Id, Record};
use super::ghost::Token;
use super::point::Point;
use super::scene::{Doing, Event};
use super::shell::Acting;
use super::tablet::Waiter;

/// A read waits so long for a permit, milliseconds.
const PARKED: u64 = 1000;

impl Acting<'_> {
    /// A client's request arrives.
    pub fn ask(&mut self, request: Request) {
        match request.ask {
            Ask::Put(..) => {
                self.process.inbox.push(request);
                if !std::mem::replace(&mut self.process.draining, true) {
                    self.soon(Doing::Drain);
                }
            }
            Ask::Get => {
                let until = self.scene.now + PARKED * MS;
                self.read(request, until, self.now);
            }
            Ask::Follow(seen) => self.follow(request, seen),
        }
    }

    /// R35: what is known to be committed here, if that is enough.
    fn follow(&mut self, request: Request, seen: Token) {
        let key = request.key;
        let hint = self.process.leader_hint(key);
        let copy = self.process.copies.get(&key);
        let fit = copy.filter(|c| c.quarantine.is_none() && c.suspended.is_none());
        let Some(shown) = fit.map(|c| (c.uncleans, c.applied)).filter(|shown| *shown >= seen)
        else {
            return self.answer(request, Outcome::Refused(hint));
        };
        let run = (self.at, self.process.incarnation);
        self.scene.ghost.followed(key, run, shown, seen);
        self.scene.coverage.follower_reads += 1;
        self.answer(request, Outcome::Done(shown));
    }

    pub(super) fn drain(&mut self) {
        self.process.draining = false;
        for request in std::mem::take(&mut self.process.inbox) {
            if let Ask::Put(id, level) = request.ask {
                self.admit(request, id, level);
            }
        }
    }

    pub(super) fn admit(&mut self, request: Request, id: Id, level: Ack) {
        let key = request.key;
        let hint = self.process.leader_hint(key);
        let Some(copy) = self.process.copies.get_mut(&key) else {
            return self.answer(request, Outcome::Refused(None));
        };
        if copy.suspended.is_some() {
            return self.answer(request, Outcome::Refused(None));
        }
        if !copy.core.leads() {
            return self.answer(request, Outcome::Refused(hint));
        }
        // The weaker of the table's level and the write's.
        let level = if copy.options.ack == Ack::Leader { Ack::Leader } else { level };
        let waiter = Waiter { request, id, level };
        // R32: a repetition waits for the first, or has its result.
        match copy.ids.get(&id).copied() {
            None => {}
            Some(offset) if offset > copy.applied => {
                if level == Ack::Leader {
                    self.process.early.insert(key);
                }
                return copy.waiters.entry(offset).or_default().push(waiter);
            }
            Some(offset) if copy.core.may_acknowledge(self.now).is_ok() => {
                let (epoch, by) = (copy.core.epoch(), (self.at, self.process.incarnation));
                let uncleans = copy.uncleans;
                self.scene.ghost.repeated(key, epoch, by, offset, id);
                return self.answer(request, Outcome::Done((uncleans, offset)));
            }
            Some(_) => return self.answer(request, Outcome::Refused(None)),
        }
        match copy.core.admit(level, self.now) {
            Ok(admitted) => {
                let entry = Entry { epoch: admitted.epoch, id, commit: admitted.commit };
                copy.ids.insert(id, admitted.offset);
                self.batch.push(Record::Entry(key, admitted.offset, entry));
                self.after.push(After::Client { key, admitted, entry, waiter });
            }
            Err(_) => self.answer(request, Outcome::Refused(None)),
        }
    }

    /// R34: answers the writes that ask for the leader alone. That they will be there is not promised; that they are not
    /// discarded without a trace is, as of all entries.
    pub(super) fn answer_early(&mut self) {
        for key in std::mem::take(&mut self.process.early) {
            let Some(copy) = self.process.copies.get_mut(&key) else { continue };
            let stored = copy.core.stored(self.now).unwrap_or_default();
            let mut done = Vec::new();
            for (_, waiters) in copy.waiters.range_mut(..=stored) {
                done.extend(waiters.extract_if(.., |w| w.level == Ack::Leader));
            }
            copy.waiters.retain(|_, waiters| !waiters.is_empty());
            if copy.waiters.values().flatten().any(|w| w.level == Ack::Leader) {
                self.process.early.insert(key);
            }
            for waiter in done {
                self.early(waiter);
            }
        }
    }

    fn early(&mut self, waiter: Waiter) {
        self.scene.reached(Point::AcknowledgedEarly, self.at);
        self.answer(waiter.request, Outcome::Done(Token::default()));
    }

    /// R11: the permit is checked after the work. It came at `since`, by this tablet's clock (R38).
    pub(super) fn read(&mut self, request: Request, until: Moment, since: Millis) {
        let key = request.key;
        let hint = self.process.leader_hint(key);
        let Some(copy) = self
            .process
            .copies
            .get(&key)
            .filter(|c| c.quarantine.is_none() && c.suspended.is_none() && c.core.leads())
        else {
            return self.answer(request, Outcome::Refused(hint));
        };
        let env = Env { permits: &self.process.permits, grants: &self.process.grants };
        match copy.core.may_read(since, self.now, &env) {
            Ok(()) => {
                let (at, applied, epoch) = (self.at, copy.applied, copy.core.epoch());
                let shown = (copy.uncleans, applied);
                self.scene.ghost.served(at, key, epoch, applied);
                self.scene.coverage.reads += 1;
                self.scene.reached(Point::Served, at);
                self.answer(request, Outcome::Done(shown));
            }
            Err(Refusal::LeaseExpired | Refusal::NotServing) if self.scene.now < until => {
                self.process.parked.push((request, until, since));
                if !std::mem::replace(&mut self.process.unparking, true) {
                    let delay = self.scene.random.between(MS, 20 * MS);
                    self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::Unpark));
                }
            }
            Err(_) => self.answer(request, Outcome::Refused(hint)),
        }
    }

    pub(super) fn unpark(&mut self) {
        self.process.unparking = false;
        for (request, until, since) in std::mem::take(&mut self.process.parked) {
            self.read(request, until, since);
        }
    }
}
