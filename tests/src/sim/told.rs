//! What the meta group decided, as a tablet carries it out.

use stela_common::ids::{PartitionKey, TableId};
use stela_common::table::Options;
use stela_common::wire::View;
use stela_replica::message::{Input, Write};

use super::disk::Record;
use super::nameserver::Told;
use super::point::Point;
use super::scene::{Doing, trace};
use super::shell::Acting;
use super::tablet::{Copy, Process, Unsynced, id_of, identity, place_of};

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
        for (options, view) in &told.views {
            self.fences.held.insert(view.key, *options);
            self.view(*options, view.clone());
        }
        if !told.drops.iter().all(|tid| self.drop_table(*tid)) {
            return false;
        }
        self.soon(Doing::Peers);
        self.process.known_index = self.process.known_index.max(told.index);
        if let Some((sent, length)) = told.lease {
            let until = sent.plus(length);
            if until > self.process.lease_until {
                self.process.lease_until = until;
                self.step_all(|c| c.core.leads(), || Input::MetaLease(until));
                self.scene.reached(Point::ToldLease, self.at);
            }
        }
        for (key, epoch, length) in &told.drains {
            let deadline = self.now.plus(*length);
            self.step(*key, Input::Drain { epoch: *epoch, deadline }, &[]);
            self.scene.reached(Point::ToldDrain, self.at);
        }
        true
    }

    /// A decision about one partition.
    pub fn view(&mut self, options: Options, view: View) {
        let key = view.key;
        if !view.replicas.contains(&self.process.tablet) {
            return;
        }
        self.scene.reached(Point::ToldView, self.at);
        if !self.process.copies.contains_key(&key) {
            let identity = identity(self.process, self.scene, key, options);
            let copy = Copy::load(self.make_core, identity, options, self.disk, self.now);
            self.process.copies.insert(key, copy);
        }
        if let Some(copy) = self.process.copies.get_mut(&key)
            && copy.options != options
        {
            copy.options = options;
            self.step(key, Input::Options(options), &[]);
        }
        let in_sync = view.in_sync.iter().any(|m| m.tablet == self.process.tablet);
        if !in_sync && self.disk.is_damaged(key) {
            self.rebuild(key);
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
        if let Some(copy) = self.process.copies.get_mut(&key) {
            copy.joined(copy.in_line);
        }
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

    /// A damaged copy is given up once the set does without it: it begins anew, and gets all from the leader (R30).
    fn rebuild(&mut self, key: PartitionKey) {
        let identity = |acting: &Self| {
            let options = acting.process.copies.get(&key).map(|c| c.options)?;
            Some((options, identity(acting.process, acting.scene, key, options)))
        };
        let Some((options, identity)) = identity(self) else { return };
        self.flush();
        let Some(end) = self.disk.rebuild(key) else { return };
        trace!(self.scene, "{}: {key} is damaged, and begins anew", self.at);
        self.process.unsynced.push_back(Unsynced { end, key, write: Write(1) });
        let mut copy = Copy::load(self.make_core, identity.clone(), options, self.disk, self.now);
        copy.reset(self.make_core, identity, self.disk, Write(1), self.now);
        if let Some(mut former) = self.process.copies.insert(key, copy) {
            former.waiters.clear();
        }
        self.scene.ghost.forgets(self.at);
        self.scene.reached(Point::Rebuilt, self.at);
    }

    /// R37: nothing of it stays. `false`: the disk is full.
    fn drop_table(&mut self, tid: TableId) -> bool {
        self.scene.reached(Point::ToldDrop, self.at);
        let keys: Vec<_> = self.fences.held.keys().filter(|k| k.tid == tid).copied().collect();
        self.flush();
        let records: Vec<_> = keys.iter().map(|key| Record::Purge(*key)).collect();
        let Some(end) = self.disk.append(&records) else { return false };
        for key in keys {
            self.fail_waiters(key);
            self.process.copies.remove(&key);
            self.process.proposals.retain(|p| p.key != key);
            for outgoing in self.process.outgoing.values_mut() {
                outgoing.ships.remove(&key);
            }
        }
        self.process.dropping.insert(tid, end);
        trace!(self.scene, "{}: table {tid} is dropped", self.at);
        true
    }
}
