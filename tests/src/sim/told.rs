//! What the meta group decided, as a tablet carries it out.

use stela_common::wire::View;
use stela_replica::message::Input;

use super::nameserver::Told;
use super::scene::{Doing, trace};
use super::shell::Acting;
use super::tablet::{Copy, Process, id_of, identity, place_of};

impl Acting<'_> {
    /// What a nameserver says: fences first (R20), then what changed, then the lease (R17). `false`: it is not obeyed.
    pub fn told(&mut self, told: &Told) -> bool {
        let orders = !told.views.is_empty();
        if told.controller < self.fences.controller || (orders && told.index < self.fences.decision)
        {
            return false;
        }
        self.fences.controller = told.controller;
        if orders {
            self.fences.decision = told.index;
        }
        for (at, incarnation) in &told.addresses {
            self.process.addresses.insert(*at, *incarnation);
        }
        for view in &told.views {
            self.fences.held.insert(view.key);
            self.view(view.clone());
        }
        self.soon(Doing::Peers);
        self.process.known_index = self.process.known_index.max(told.index);
        if let Some((sent, length)) = told.lease {
            let until = sent.plus(length);
            if until > self.process.lease_until {
                self.process.lease_until = until;
                self.step_all(|c| c.core.leads(), || Input::MetaLease(until));
            }
        }
        if let Some((key, epoch, length)) = told.drain {
            let deadline = self.now.plus(length);
            self.step(key, Input::Drain { epoch, deadline }, &[]);
        }
        true
    }

    /// A decision about one partition.
    pub fn view(&mut self, view: View) {
        let key = view.key;
        if !view.replicas.contains(&self.process.tablet) {
            return;
        }
        if !self.process.copies.contains_key(&key) {
            let identity = identity(self.process, self.scene, key);
            self.process
                .copies
                .insert(key, Copy::load(self.make_core, identity, self.disk, self.now));
        }
        let leads = |process: &Process| process.copies.get(&key).is_some_and(|c| c.core.leads());
        let led = leads(self.process);
        trace!(
            self.scene,
            "{}: {key} is told version {}: epoch {}, leader {}, in sync {:?}",
            self.at,
            view.version,
            view.epoch,
            place_of(view.leader),
            view.in_sync.iter().map(|m| (place_of(m.tablet), m.untrusted)).collect::<Vec<_>>()
        );
        self.step(key, Input::View(view), &[]);
        if !leads(self.process) {
            return;
        }
        let until = self.process.lease_until;
        self.step(key, Input::MetaLease(until), &[]);
        if !led {
            let conns: Vec<_> =
                self.process.outgoing.iter().map(|(c, o)| (*c, o.peer, o.incarnation)).collect();
            for (conn, peer, incarnation) in conns {
                self.step(key, Input::Connected { conn, peer: id_of(peer), incarnation }, &[]);
            }
            self.soon(Doing::Beat);
        }
    }
}
