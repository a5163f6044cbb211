//! The shell of a tablet: does with a core's outputs what `stela-tablet` does, in the same order.
//!
//! Each input is a critical section: cores are stepped, what they want written is gathered into one batch and written
//! at once, and only then the rest of what they want is done. Nothing that is sent or shown depends on a write that
//! failed: a core whose write failed is made anew from what the log has.

use std::collections::{BTreeMap, VecDeque};

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey};
use stela_common::wire::View;
use stela_replica::core::{Admitted, Env};
use stela_replica::message::{Conn, Input, Output, ToFollower, ToLeader, Write};

use super::client::{Ask, Outcome, Reply, Request};
use super::clock::{MS, Moment};
use super::disk::{Entry, Id, Record};
use super::fault::Point;
use super::nameserver::Told;
use super::scene::{Doing, Event, Scene, trace};
use super::tablet::{
    Copy, Incoming, Machine, Outgoing, Process, Proposal, Ship, Unsynced, Waiter, id_of, identity, place_of,
};
use super::wire::{FollowerBox, LeaderBox, Parcel, Run};

/// A read waits so long for a permit, milliseconds.
const PARKED: u64 = 1000;
/// Entries of one frame for one partition, at most.
const FRAME: u64 = 16;

/// What follows when a record is in the log.
enum After {
    Entry { key: PartitionKey, offset: Offset, entry: Entry, write: Write },
    Client { key: PartitionKey, admitted: Admitted, entry: Entry, waiter: Waiter },
    Epoch { key: PartitionKey, epoch: Epoch, leads: bool, write: Write },
    Truncate { key: PartitionKey, to: Offset, write: Write },
}

/// One critical section of a process.
pub struct Acting<'a> {
    /// The machine's number.
    pub at: usize,
    /// The process.
    pub process: &'a mut Process,
    /// Everything around.
    pub scene: &'a mut Scene,
    disk: &'a mut super::disk::Disk,
    fences: &'a mut super::tablet::Fences,
    make_core: super::tablet::MakeCore,
    life: u64,
    now: Millis,
    slow_ms: u64,
    batch: Vec<Record>,
    after: Vec<After>,
    later: VecDeque<(PartitionKey, Output)>,
}

impl Machine {
    /// One critical section, if a process runs.
    pub fn act<R>(&mut self, scene: &mut Scene, f: impl FnOnce(&mut Acting<'_>) -> R) -> Option<R> {
        let now = self.clock.at(scene.now);
        let mut acting = Acting {
            at: self.at,
            process: self.process.as_mut()?,
            scene,
            disk: &mut self.disk,
            fences: &mut self.fences,
            make_core: self.make_core,
            life: self.life,
            now,
            slow_ms: self.slow_ms,
            batch: Vec::new(),
            after: Vec::new(),
            later: VecDeque::new(),
        };
        let result = f(&mut acting);
        acting.finish();
        Some(result)
    }
}

impl Acting<'_> {
    /// Steps one replica.
    pub fn step(&mut self, key: PartitionKey, input: Input, frame: &[(Offset, Entry)]) {
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        let env = Env { permits: &self.process.permits, grants: &self.process.grants };
        let before = copy.core.commit();
        let mut outputs = Vec::new();
        copy.core.step(self.now, &env, input, &mut outputs);
        let after = copy.core.commit();
        if after < before {
            self.scene.ghost.broken(format_args!("{key}: the commit offset of {} went back from {before} to {after}", self.at));
        }
        for output in outputs {
            self.gather(key, output, frame);
        }
    }

    fn step_all(&mut self, wants: impl Fn(&Copy) -> bool, input: impl Fn() -> Input) {
        let keys: Vec<_> = self.process.copies.iter().filter(|(_, c)| wants(c)).map(|(k, _)| *k).collect();
        for key in keys {
            self.step(key, input(), &[]);
        }
    }

    fn soon(&mut self, doing: Doing) {
        let delay = self.scene.soon();
        self.scene.after(delay, Event::Tablet(self.at, self.life, doing));
    }

    /// Sorts an output: what is written goes into the batch, the rest waits for it.
    fn gather(&mut self, key: PartitionKey, output: Output, frame: &[(Offset, Entry)]) {
        match output {
            Output::StoreEpoch { write, epoch, leads, .. } => {
                self.batch.push(Record::EpochStart(key, epoch));
                self.after.push(After::Epoch { key, epoch, leads, write });
            }
            Output::Append { write, from, to } => {
                for (offset, entry) in frame.get(from..to).unwrap_or_default() {
                    self.batch.push(Record::Entry(key, *offset, *entry));
                    self.after.push(After::Entry { key, offset: *offset, entry: *entry, write });
                }
            }
            Output::Truncate { write, to } => {
                // What is cut must be in the log first (R4).
                self.flush();
                self.scene.ghost.truncated(self.at, key, to, self.disk.written(key));
                self.scene.coverage.cut += self.disk.written(key).last().0.saturating_sub(to.0);
                self.batch.push(Record::Truncate(key, to));
                self.after.push(After::Truncate { key, to, write });
            }
            other => self.later.push_back((key, other)),
        }
    }

    fn finish(mut self) {
        loop {
            self.flush();
            let Some((key, output)) = self.later.pop_front() else { break };
            self.perform(key, output);
        }
        self.sync();
    }

    /// Starts a sync of what is written, if none is under way.
    fn sync(&mut self) {
        if self.process.syncing.is_some() || self.disk.synced() == self.disk.end() {
            return;
        }
        self.process.syncing = Some(self.disk.end());
        let most = self.scene.profile.sync_ms * MS;
        let delay = self.scene.random.between(100, most) + self.slow_ms * MS;
        self.scene.after(delay, Event::DiskSynced(self.at, self.life, self.disk.end()));
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let after = std::mem::take(&mut self.after);
        match self.disk.append(&batch) {
            Some(end) => {
                for after in after {
                    self.written(after, end);
                }
                self.scene.reached(Point::Appended, self.at);
            }
            None => self.not_written(after),
        }
    }

    fn written(&mut self, after: After, end: usize) {
        let (key, write) = match after {
            After::Entry { key, offset, entry, write } => {
                self.scene.ghost.appended(self.at, key, offset, entry, self.disk.written(key));
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.ids.insert(entry.id, offset);
                }
                (key, write)
            }
            After::Client { key, admitted, entry, waiter } => {
                self.scene.ghost.appended(self.at, key, admitted.offset, entry, self.disk.written(key));
                trace!(self.scene, "{}: {key} appends {} (epoch {})", self.at, admitted.offset, admitted.epoch);
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.waiters.entry(admitted.offset).or_default().push(waiter);
                }
                let conns: Vec<_> =
                    self.process.outgoing.iter().filter(|(_, o)| o.ships.contains_key(&key)).map(|(c, _)| *c).collect();
                for conn in conns {
                    self.fill_down(conn, |b| b.dirty(key));
                }
                (key, admitted.write)
            }
            After::Epoch { key, epoch, leads, write } => {
                trace!(self.scene, "{}: {key} acts in epoch {epoch}{}", self.at, if leads { " as leader" } else { "" });
                if leads {
                    self.scene.reached(Point::Activated, self.at);
                }
                (key, write)
            }
            After::Truncate { key, to, write } => {
                trace!(self.scene, "{}: {key} truncates to {to}", self.at);
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.ids.retain(|_, offset| *offset <= to);
                }
                (key, write)
            }
        };
        self.process.unsynced.push_back(Unsynced { end, key, write });
    }

    /// The disk refused a batch: nothing of it counts.
    fn not_written(&mut self, after: Vec<After>) {
        let mut reset = Vec::new();
        for after in after.into_iter().rev() {
            match after {
                After::Client { key, admitted, entry, waiter } => {
                    let mut callers = vec![waiter];
                    if let Some(copy) = self.process.copies.get_mut(&key) {
                        copy.core.revoke(admitted);
                        copy.ids.remove(&entry.id);
                        // Repetitions in the same batch.
                        callers.extend(copy.waiters.remove(&admitted.offset).unwrap_or_default());
                    }
                    for waiter in callers {
                        self.answer(waiter.request, Outcome::Refused(None));
                    }
                }
                After::Entry { key, .. } | After::Epoch { key, .. } | After::Truncate { key, .. } => reset.push(key),
            }
        }
        reset.sort_unstable();
        reset.dedup();
        for key in reset {
            self.later.retain(|(k, _)| *k != key);
            self.reset(key);
        }
    }

    /// Starts the core of a replica again from what the log has; its connections to it are void.
    fn reset(&mut self, key: PartitionKey) {
        trace!(self.scene, "{}: {key} starts again from its log", self.at);
        let identity = identity(self.process, self.scene, key);
        self.fail_waiters(key);
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        let view = copy.core.view().cloned();
        let unsynced = self.process.unsynced.iter().rev().find(|u| u.key == key).map(|u| u.write);
        copy.reset(self.make_core, identity, self.disk, unsynced.unwrap_or_default(), self.now);
        for outgoing in self.process.outgoing.values_mut() {
            outgoing.ships.remove(&key);
        }
        // The streams start anew, and with them the joining of this replica.
        let conns: Vec<_> = self.process.incoming.keys().copied().collect();
        for conn in conns {
            self.scene.break_link(conn, false);
        }
        match view {
            Some(view) if view.leader != self.process.tablet => self.step(key, Input::View(view), &[]),
            // It was to begin as leader, and could not write that: it tries again.
            Some(view) => drop(self.process.owed.insert(key, view)),
            None => {}
        }
    }

    /// Decisions that could not be carried out, as their write failed.
    fn pay(&mut self) {
        for (_, view) in std::mem::take(&mut self.process.owed) {
            self.view(view);
        }
    }

    fn fail_waiters(&mut self, key: PartitionKey) {
        let hint = self.process.leader_hint(key);
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        for waiter in std::mem::take(&mut copy.waiters).into_values().flatten() {
            self.answer(waiter.request, Outcome::Refused(hint));
        }
    }

    fn answer(&mut self, request: Request, outcome: Outcome) {
        let delay = self.scene.latency();
        let reply = Reply { request, outcome };
        self.scene.after(delay, Event::Answered(request.client, reply));
    }

    fn fill_down(&mut self, conn: Conn, add: impl FnOnce(&mut FollowerBox)) {
        let Some(outgoing) = self.process.outgoing.get_mut(&conn) else { return };
        add(&mut outgoing.outbox);
        if !outgoing.sending && !outgoing.outbox.is_empty() {
            outgoing.sending = true;
            self.soon(Doing::SendDown(conn));
        }
    }

    fn fill_up(&mut self, conn: Conn, add: impl FnOnce(&mut LeaderBox)) {
        let Some(incoming) = self.process.incoming.get_mut(&conn) else { return };
        add(&mut incoming.outbox);
        if !incoming.sending && !incoming.outbox.is_empty() {
            incoming.sending = true;
            self.soon(Doing::SendUp(conn));
        }
    }

    fn perform(&mut self, key: PartitionKey, output: Output) {
        match output {
            Output::SendFollower(conn, message) => {
                if matches!(message, ToFollower::CommonPoint { .. }) {
                    self.scene.reached(Point::Truncating, self.at);
                }
                trace!(self.scene, "{}: {key} to follower over {}: {message:?}", self.at, conn.0);
                self.fill_down(conn, |b| b.message(key, message));
            }
            Output::SendLeader(conn, message) => {
                if matches!(message, ToLeader::Hello { .. }) {
                    self.scene.reached(Point::Joined, self.at);
                }
                trace!(self.scene, "{}: {key} to leader over {}: {message:?}", self.at, conn.0);
                self.fill_up(conn, |b| b.message(key, message));
            }
            Output::Ship { conn, from, prev } => {
                if let Some(outgoing) = self.process.outgoing.get_mut(&conn) {
                    outgoing.ships.insert(key, Ship { next: from, prev });
                    self.fill_down(conn, |b| b.dirty(key));
                }
            }
            Output::StopShip(conn) => {
                if let Some(outgoing) = self.process.outgoing.get_mut(&conn) {
                    outgoing.ships.remove(&key);
                }
            }
            Output::Propose { epoch, expected, in_sync } => {
                self.process.proposals.retain(|p| p.key != key);
                self.process.proposals.push_back(Proposal { key, epoch, expected, in_sync });
            }
            Output::Committed(to) => self.commit(key, to),
            Output::Acknowledged(to) => self.acknowledge(key, to),
            Output::Serving { epoch, start } => {
                trace!(self.scene, "{}: {key} serves in epoch {epoch} from {start} on", self.at);
                self.soon(Doing::Unpark);
                self.soon(Doing::Beat);
            }
            Output::SteppedDown => {
                trace!(self.scene, "{}: {key} steps down", self.at);
                self.fail_waiters(key);
                for outgoing in self.process.outgoing.values_mut() {
                    outgoing.ships.remove(&key);
                }
                self.soon(Doing::Beat);
            }
            Output::FailWaiting => self.fail_waiters(key),
            Output::Surrendered(epoch) => {
                trace!(self.scene, "{}: {key} surrenders epoch {epoch}", self.at);
                self.process.surrendered.insert(key, epoch);
                self.scene.reached(Point::Surrendered, self.at);
                self.soon(Doing::Beat);
            }
            Output::Quarantined(why) => {
                self.scene.ghost.broken(format_args!("{key}: the replica on {} is quarantined: {why}", self.at));
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.quarantine = Some(why);
                }
            }
            // Written in `gather`.
            Output::StoreEpoch { .. } | Output::Truncate { .. } | Output::Append { .. } => {}
        }
    }

    /// Entries up to `to` become readable, on leader and follower alike.
    fn commit(&mut self, key: PartitionKey, to: Offset) {
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        if to < copy.applied {
            // Committed before, by the log of an earlier run.
            return;
        }
        self.scene.ghost.committed(self.at, key, copy.applied, to, self.disk.written(key));
        copy.applied = to;
    }

    /// Answers the writes up to `to`.
    fn acknowledge(&mut self, key: PartitionKey, to: Offset) {
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        let by = (self.at, self.process.incarnation);
        let epoch = copy.core.epoch();
        let mut done = Vec::new();
        while let Some(entry) = copy.waiters.first_entry() {
            if *entry.key() > to {
                break;
            }
            let offset = *entry.key();
            done.extend(entry.remove().into_iter().map(|w| (offset, w)));
        }
        let any = !done.is_empty();
        for (offset, waiter) in done {
            if let Ask::Put(id) = waiter.request.ask {
                self.scene.ghost.acknowledged(key, epoch, by, offset, id);
            }
            self.answer(waiter.request, Outcome::Done);
        }
        if any {
            trace!(self.scene, "{}: {key} acknowledges up to {to} in epoch {epoch}", self.at);
            self.scene.reached(Point::Acknowledged, self.at);
        }
    }

    /// What the process does next; `false`: there is nothing of that kind to be done any more.
    pub fn go_on(&mut self, doing: Doing) {
        match doing {
            Doing::Tick => {
                self.pay();
                self.step_all(|c| !c.core.idle(), || Input::Tick);
                let delay = self.scene.pace.tick * MS;
                self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::Tick));
            }
            Doing::Drain => self.drain(),
            Doing::Synced(to) => self.synced(to),
            Doing::SendDown(conn) => self.send_down(conn),
            Doing::SendUp(conn) => self.send_up(conn),
            Doing::KeepAlive(conn) => self.keep_alive(conn),
            Doing::Peers => self.peers(),
            Doing::Dial(peer) => self.dial(peer),
            Doing::Undialed(peer) => {
                self.process.dialing.remove(&peer);
                let delay = self.scene.pace.again * MS;
                self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::Dial(peer)));
            }
            Doing::Verdict(key, expected, in_sync, applied) => {
                let word = if applied { "applied" } else { "rejected" };
                trace!(self.scene, "{}: {key} is told: proposal on {expected} {word}", self.at);
                self.step(key, Input::Verdict { expected, in_sync, applied }, &[]);
            }
            Doing::Unpark => self.unpark(),
            // These are the world's.
            Doing::Register
            | Doing::Registered
            | Doing::Outcast
            | Doing::Attach
            | Doing::Beat
            | Doing::Detached(_) => {}
        }
    }

    fn synced(&mut self, to: usize) {
        self.process.syncing = None;
        let mut done: BTreeMap<PartitionKey, Write> = BTreeMap::new();
        while let Some(first) = self.process.unsynced.front().copied().filter(|u| u.end <= to) {
            self.process.unsynced.pop_front();
            done.insert(first.key, first.write);
        }
        for (key, write) in done {
            self.step(key, Input::Synced(write), &[]);
        }
    }

    // ---- writes and reads

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

    fn drain(&mut self) {
        self.process.draining = false;
        for request in std::mem::take(&mut self.process.inbox) {
            if let Ask::Put(id) = request.ask {
                self.admit(request, id);
            }
        }
    }

    fn admit(&mut self, request: Request, id: Id) {
        let key = request.key;
        let hint = self.process.leader_hint(key);
        let Some(copy) = self.process.copies.get_mut(&key) else {
            return self.answer(request, Outcome::Refused(None));
        };
        if !copy.core.leads() {
            return self.answer(request, Outcome::Refused(hint));
        }
        let waiter = Waiter { request };
        // R32: a repetition waits for the first, or has its result.
        match copy.ids.get(&id).copied() {
            None => {}
            Some(offset) if offset > copy.applied => return copy.waiters.entry(offset).or_default().push(waiter),
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
    fn read(&mut self, request: Request, until: Moment) {
        use stela_replica::message::Refusal;
        let key = request.key;
        let hint = self.process.leader_hint(key);
        let Some(copy) = self.process.copies.get(&key).filter(|c| c.quarantine.is_none() && c.core.leads()) else {
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

    fn unpark(&mut self) {
        self.process.unparking = false;
        for (request, until) in std::mem::take(&mut self.process.parked) {
            self.read(request, until);
        }
    }

    // ---- what the meta group decided

    /// What a nameserver says: fences first (R20), then what changed, then the lease (R17). `false`: it is not obeyed.
    pub fn told(&mut self, told: &Told) -> bool {
        let orders = !told.views.is_empty();
        if told.controller < self.fences.controller || (orders && told.index < self.fences.decision) {
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
            self.process.copies.insert(key, Copy::load(self.make_core, identity, self.disk, self.now));
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

    // ---- streams

    fn peers(&mut self) {
        for peer in self.process.followers_wanted() {
            self.dial(peer);
        }
    }

    fn dial(&mut self, peer: usize) {
        let open = self.process.outgoing.values().any(|o| o.peer == peer);
        if open || self.process.dialing.contains(&peer) || !self.process.followers_wanted().contains(&peer) {
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
    }

    fn keep_alive(&mut self, conn: Conn) {
        if !self.process.outgoing.contains_key(&conn) {
            return;
        }
        let now = self.now;
        self.fill_down(conn, |b| b.asked_at = Some(now));
        let delay = self.scene.pace.keep_alive * MS;
        self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::KeepAlive(conn)));
    }

    fn send_down(&mut self, conn: Conn) {
        let Some(outgoing) = self.process.outgoing.get_mut(&conn) else { return };
        outgoing.sending = false;
        let mut gathered = std::mem::take(&mut outgoing.outbox);
        let mut left = Vec::new();
        for key in std::mem::take(&mut gathered.dirty) {
            let (Some(ship), Some(copy)) = (outgoing.ships.get_mut(&key), self.process.copies.get(&key)) else { continue };
            let log = self.disk.written(key);
            let most = 1 + self.scene.random.below(FRAME);
            let entries: Vec<_> = log.from(ship.next).take(usize::try_from(most).unwrap_or(1)).collect();
            let Some((last, entry)) = entries.last().copied() else { continue };
            let run = Run { epoch: copy.core.epoch(), prev: ship.prev, entries, commit: copy.core.commit() };
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

    fn send_up(&mut self, conn: Conn) {
        let Some(incoming) = self.process.incoming.get_mut(&conn) else { return };
        incoming.sending = false;
        let gathered = std::mem::take(&mut incoming.outbox);
        if !gathered.is_empty() {
            self.scene.send_up(conn, gathered);
        }
    }

    /// Something arrives from a leader.
    pub fn from_leader(&mut self, conn: Conn, parcel: Parcel<FollowerBox>) {
        let Some((peer, incarnation)) = self.process.incoming.get(&conn).map(|i| (i.peer, i.incarnation)) else { return };
        let frame = match parcel {
            Parcel::Message(frame) => frame,
            Parcel::End => {
                self.process.incoming.remove(&conn);
                return self.step_all(of_peer(peer), || Input::Disconnected(conn));
            }
        };
        let from = |message| Input::FromLeader { conn, peer: id_of(peer), incarnation, message };
        for (key, epoch) in frame.leads {
            self.step(key, from(ToFollower::Lead { epoch }), &[]);
        }
        for (key, point) in frame.points {
            self.step(key, from(point), &[]);
        }
        for (key, run) in frame.runs {
            let entries = run.entries.iter().map(|(offset, entry)| (*offset, entry.epoch)).collect();
            let say = ToFollower::Records { epoch: run.epoch, prev: run.prev, entries, commit: run.commit };
            self.step(key, from(say), &run.entries);
        }
        for (key, (epoch, commit)) in frame.commits {
            self.step(key, from(ToFollower::Commit { epoch, commit }), &[]);
        }
        if let Some(asked_at) = frame.asked_at {
            // After the cores have spoken: whatever they left is said before or with this grant (R11).
            self.perform_now();
            self.process.grants.grant(id_of(peer), self.now);
            self.fill_up(conn, |b| b.granted = Some(asked_at));
        }
    }

    /// Ends the critical section so far: a new one begins.
    fn perform_now(&mut self) {
        loop {
            self.flush();
            let Some((key, output)) = self.later.pop_front() else { break };
            self.perform(key, output);
        }
    }

    /// Something arrives from a follower.
    pub fn from_follower(&mut self, conn: Conn, peer: usize, parcel: Parcel<LeaderBox>) {
        let message = match parcel {
            Parcel::Message(message) => message,
            Parcel::End => {
                if self.process.outgoing.remove(&conn).is_some() {
                    self.process.permits.dropped(conn);
                    self.step_all(of_peer(peer), || Input::Disconnected(conn));
                }
                self.process.dialing.remove(&peer);
                let delay = self.scene.pace.again * MS;
                return self.scene.after(delay, Event::Tablet(self.at, self.life, Doing::Dial(peer)));
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
        }
        if !self.process.outgoing.contains_key(&conn) {
            return;
        }
        let from = |message| Input::FromFollower { conn, message };
        for (key, epoch) in message.lefts {
            self.step(key, from(ToLeader::Left { epoch }), &[]);
        }
        for (key, (epoch, nonce, history, last)) in message.hellos {
            self.step(key, from(ToLeader::Hello { epoch, nonce, history, last }), &[]);
        }
        for (key, (epoch, nonce, offset)) in message.acks {
            self.step(key, from(ToLeader::Ack { epoch, nonce, offset }), &[]);
        }
        if let Some(asked_at) = message.granted {
            self.process.permits.granted(conn, asked_at);
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
