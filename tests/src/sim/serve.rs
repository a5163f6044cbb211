//! Clients at a tablet: writes that are admitted in batches, reads whose permit is checked after the work (R11).

use stela_replica::core::Env;
use stela_replica::message::Refusal;

use super::batch::After;
use super::client::{Ask, Outcome, Request};
use super::clock::{MS, Moment};
use super::disk::{Entry, Id, Record};
use super::scene::{Doing, Event};
use super::shell::Acting;
use super::tablet::Waiter;

/// A read waits so long for a permit, milliseconds.
const PARKED: u64 = 1000;

impl Acting<'_> {
    /// A client's request arrives.
    pub fn ask(&mut self, request: Request) {
        match request.ask {
            Ask::Put(_) => {
                self.process.inbox.push(request);
                if !std::mem::replace(&mut self.process.draining, true) {
                    self.soon(Doing::Drain);
                }
            }
            Ask::Get => {
                let until = self.scene.now + PARKED * MS;
                self.read(request, until);
            }
        }
    }

    pub(super) fn drain(&mut self) {
        self.process.draining = false;
        for request in std::mem::take(&mut self.process.inbox) {
            if let Ask::Put(id) = request.ask {
                self.admit(request, id);
            }
        }
    }

    pub(super) fn admit(&mut self, request: Request, id: Id) {
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
        let waiter = Waiter { request };
        // R32: a repetition waits for the first, or has its result.
        match copy.ids.get(&id).copied() {
            None => {}
            Some(offset) if offset > copy.applied => {
                return copy.waiters.entry(offset).or_default().push(waiter);
            }
            Some(offset) if copy.core.may_acknowledge(self.now).is_ok() => {
                let (epoch, by) = (copy.core.epoch(), (self.at, self.process.incarnation));
                self.scene.ghost.repeated(key, epoch, by, offset, id);
                return self.answer(request, Outcome::Done);
            }
            Some(_) => return self.answer(request, Outcome::Refused(None)),
        }
        match copy.core.admit(self.now) {
            Ok(admitted) => {
                let entry = Entry { epoch: admitted.epoch, id, commit: admitted.commit };
                copy.ids.insert(id, admitted.offset);
                self.batch.push(Record::Entry(key, admitted.offset, entry));
                self.after.push(After::Client { key, admitted, entry, waiter });
            }
            Err(_) => self.answer(request, Outcome::Refused(None)),
        }
    }

    /// R11: the permit is checked after the work.
    pub(super) fn read(&mut self, request: Request, until: Moment) {
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
        match copy.core.may_read(self.now, &env) {
            Ok(()) => {
                let (at, applied, epoch) = (self.at, copy.applied, copy.core.epoch());
                self.scene.ghost.served(at, key, epoch, applied);
                self.scene.coverage.reads += 1;
                self.answer(request, Outcome::Done);
            }
            Err(Refusal::LeaseExpired | Refusal::NotServing) if self.scene.now < until => {
                self.process.parked.push((request, until));
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
        for (request, until) in std::mem::take(&mut self.process.parked) {
            self.read(request, until);
        }
    }
}
