//! The shell of a tablet: does with a core's outputs what `stela-tablet` does, in the same order.
//!
//! Each input is a critical section: cores are stepped, what they want written is gathered into one batch and written
//! at once, and only then the rest of what they want is done. Nothing that is sent or shown depends on a write that
//! failed: a core whose write failed is made anew from what the log has.

use std::collections::{BTreeMap, VecDeque};

use stela_common::clock::Millis;
use stela_common::ids::{Offset, PartitionKey};
use stela_replica::core::Env;
use stela_replica::message::{Conn, Input, Output, ToFollower, ToLeader, Write};

use super::batch::After;
use super::client::{Outcome, Reply, Request};
use super::clock::MS;
use super::core::MakeCore;
use super::disk::{Disk, Entry, Record};
use super::point::Point;
use super::scene::{Doing, Event, Scene, trace};
use super::tablet::{Copy, Fences, Machine, Process, Proposal, Ship};
use super::wire::{FollowerBox, LeaderBox};

/// One critical section of a process.
pub struct Acting<'a> {
    /// The machine's number.
    pub at: usize,
    /// The process.
    pub process: &'a mut Process,
    /// Everything around.
    pub scene: &'a mut Scene,
    pub(super) disk: &'a mut Disk,
    pub(super) fences: &'a mut Fences,
    pub(super) make_core: MakeCore,
    pub(super) life: u64,
    pub(super) now: Millis,
    pub(super) slow_ms: u64,
    pub(super) batch: Vec<Record>,
    pub(super) after: Vec<After>,
    pub(super) later: VecDeque<(PartitionKey, Output)>,
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
        if let Some(suspended) = &mut copy.suspended {
            // All else is void when it starts again: its connections join anew.
            if let Input::View(view) = input
                && suspended.view.as_ref().is_none_or(|v| v.version <= view.version)
            {
                suspended.view = Some(view);
            }
            return;
        }
        let env = Env { permits: &self.process.permits, grants: &self.process.grants };
        let before = copy.core.commit();
        let mut outputs = Vec::new();
        copy.core.step(self.now, &env, input, &mut outputs);
        let after = copy.core.commit();
        // What was committed is taken back only by an epoch that is recorded as unclean (R16).
        if after < before && self.scene.ghost.uncleans(key) == 0 {
            self.scene.ghost.broken(format_args!(
                "{key}: the commit offset of {} went back from {before} to {after}",
                self.at
            ));
        }
        for output in outputs {
            self.gather(key, output, frame);
            // A write of it failed: what else it wanted it wanted in vain.
            if self.is_suspended(key) {
                break;
            }
        }
    }

    pub(super) fn is_suspended(&self, key: PartitionKey) -> bool {
        self.process.copies.get(&key).is_some_and(|c| c.suspended.is_some())
    }

    pub(super) fn step_all(&mut self, wants: impl Fn(&Copy) -> bool, input: impl Fn() -> Input) {
        let keys: Vec<_> =
            self.process.copies.iter().filter(|(_, c)| wants(c)).map(|(k, _)| *k).collect();
        for key in keys {
            self.step(key, input(), &[]);
        }
    }

    pub(super) fn soon(&mut self, doing: Doing) {
        let delay = self.scene.soon();
        self.scene.after(delay, Event::Tablet(self.at, self.life, doing));
    }

    /// Sorts an output: what is written goes into the batch, the rest waits for it.
    pub(super) fn gather(&mut self, key: PartitionKey, output: Output, frame: &[(Offset, Entry)]) {
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
                // What is cut must be in the log first, and in `lost+found` (R4).
                self.flush();
                if self.is_suspended(key) {
                    return;
                }
                self.disk.save(key, to);
                let shown = self.process.copies.get(&key).map_or(Offset(0), |c| c.applied);
                let log = self.disk.written(key);
                self.scene.ghost.truncated(self.at, key, to, shown, log);
                self.scene.coverage.cut += log.last().0.saturating_sub(to.0);
                self.batch.push(Record::Truncate(key, to));
                self.after.push(After::Truncate { key, to, write });
            }
            other => self.later.push_back((key, other)),
        }
    }

    pub(super) fn finish(mut self) {
        self.perform_now();
        self.answer_early();
        self.sync();
    }

    pub(super) fn fail_waiters(&mut self, key: PartitionKey) {
        let hint = self.process.leader_hint(key);
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        for waiter in std::mem::take(&mut copy.waiters).into_values().flatten() {
            self.answer(waiter.request, Outcome::Refused(hint));
        }
    }

    pub(super) fn answer(&mut self, request: Request, outcome: Outcome) {
        let delay = self.scene.latency();
        let reply = Reply { request, outcome };
        self.scene.after(delay, Event::Answered(request.client, reply));
    }

    pub(super) fn fill_down(&mut self, conn: Conn, add: impl FnOnce(&mut FollowerBox)) {
        let Some(outgoing) = self.process.outgoing.get_mut(&conn) else { return };
        add(&mut outgoing.outbox);
        if !outgoing.sending && !outgoing.outbox.is_empty() {
            outgoing.sending = true;
            self.soon(Doing::SendDown(conn));
        }
    }

    pub(super) fn fill_up(&mut self, conn: Conn, add: impl FnOnce(&mut LeaderBox)) {
        let Some(incoming) = self.process.incoming.get_mut(&conn) else { return };
        add(&mut incoming.outbox);
        if !incoming.sending && !incoming.outbox.is_empty() {
            incoming.sending = true;
            self.soon(Doing::SendUp(conn));
        }
    }

    pub(super) fn perform(&mut self, key: PartitionKey, output: Output) {
        match output {
            Output::SendFollower(conn, message) => {
                self.scene.reached(
                    match message {
                        ToFollower::Lead { .. } => Point::Leads,
                        ToFollower::CommonPoint { .. } => Point::Truncating,
                        _ => Point::SaysCommit,
                    },
                    self.at,
                );
                trace!(self.scene, "{}: {key} to follower over {}: {message:?}", self.at, conn.0);
                self.fill_down(conn, |b| b.message(key, message));
            }
            Output::SendLeader(conn, message) => {
                let (point, epoch) = match message {
                    ToLeader::Hello { epoch, .. } => (Point::Joined, Some(epoch)),
                    ToLeader::Ack { epoch, .. } => (Point::Acks, Some(epoch)),
                    ToLeader::Left { .. } => (Point::Leaves, None),
                };
                if let Some(epoch) = epoch {
                    self.scene.ghost.speaks(self.at, key, epoch);
                }
                self.scene.reached(point, self.at);
                trace!(self.scene, "{}: {key} to leader over {}: {message:?}", self.at, conn.0);
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    match message {
                        ToLeader::Hello { .. } => _ = copy.greeted.insert(conn),
                        ToLeader::Left { .. } => _ = copy.greeted.remove(&conn),
                        ToLeader::Ack { epoch, .. } => copy.joined(epoch),
                    }
                }
                self.fill_up(conn, |b| b.message(key, message));
            }
            Output::Ship { conn, from, prev } => {
                if let Some(outgoing) = self.process.outgoing.get_mut(&conn) {
                    outgoing.ships.insert(key, Ship { next: from, prev });
                    self.fill_down(conn, |b| b.dirty(key));
                    self.scene.reached(Point::Shipping, self.at);
                }
            }
            Output::StopShip(conn) => {
                if let Some(outgoing) = self.process.outgoing.get_mut(&conn) {
                    outgoing.ships.remove(&key);
                }
                self.scene.reached(Point::ShippingEnds, self.at);
            }
            Output::FetchSnapshot { .. } => self.scene.ghost.broken(format_args!(
                "{key}: the replica on {} is to fetch a snapshot, and every log here has all",
                self.at
            )),
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
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.joined(epoch);
                    let log = self.disk.written(key);
                    let shown = copy.applied;
                    self.scene.ghost.committed(self.at, (key, epoch), Offset(0), shown, log);
                }
                self.scene.reached(Point::Serving, self.at);
            }
            Output::SteppedDown => {
                trace!(self.scene, "{}: {key} steps down", self.at);
                self.scene.reached(Point::Deposed, self.at);
                self.fail_waiters(key);
                for outgoing in self.process.outgoing.values_mut() {
                    outgoing.ships.remove(&key);
                }
                self.soon(Doing::Beat);
            }
            Output::FailWaiting => {
                self.scene.reached(Point::GaveUp, self.at);
                self.fail_waiters(key);
            }
            Output::Surrendered(epoch) => {
                trace!(self.scene, "{}: {key} surrenders epoch {epoch}", self.at);
                self.process.surrendered.insert(key, epoch);
                self.scene.reached(Point::Surrendered, self.at);
                self.soon(Doing::Beat);
            }
            Output::Quarantined(why) => {
                self.scene.ghost.broken(format_args!(
                    "{key}: the replica on {} is quarantined: {why}",
                    self.at
                ));
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.quarantine = Some(why);
                }
            }
            // Written in `gather`.
            Output::StoreEpoch { .. } | Output::Truncate { .. } | Output::Append { .. } => {}
        }
    }

    /// Entries up to `to` become readable, on leader and follower alike.
    pub(super) fn commit(&mut self, key: PartitionKey, to: Offset) {
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        if to < copy.applied {
            // Committed before, by the log of an earlier run.
            return;
        }
        let (epoch, log) = (copy.core.epoch(), self.disk.written(key));
        self.scene.ghost.committed(self.at, (key, epoch), copy.applied, to, log);
        copy.applied = to;
        self.scene.reached(Point::Committed, self.at);
    }

    /// Answers the writes up to `to`.
    pub(super) fn acknowledge(&mut self, key: PartitionKey, to: Offset) {
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        let by = (self.at, self.process.incarnation);
        let (epoch, uncleans) = (copy.core.epoch(), copy.uncleans);
        let members = copy.core.view().map_or(0, |v| v.in_sync.len());
        if u64::from(copy.options.min_insync) > members as u64 {
            self.scene.ghost.broken(format_args!(
                "{key}: {} acknowledges in epoch {epoch} with {members} in sync, {} are asked for (R36)",
                self.at, copy.options.min_insync
            ));
        }
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
            self.scene.ghost.acknowledged(key, epoch, by, offset, waiter.id);
            self.answer(waiter.request, Outcome::Done((uncleans, offset)));
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
                self.step_all(|c| !c.core.idle(), || Input::Tick);
                self.resume();
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
                self.scene.reached(Point::Answered, self.at);
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

    pub(super) fn synced(&mut self, to: usize) {
        self.process.syncing = None;
        let mut done: BTreeMap<PartitionKey, Write> = BTreeMap::new();
        while let Some(first) = self.process.unsynced.front().copied().filter(|u| u.end <= to) {
            self.process.unsynced.pop_front();
            done.insert(first.key, first.write);
        }
        for (key, write) in done {
            self.step(key, Input::Synced(write), &[]);
        }
        self.fences
            .held
            .retain(|key, _| self.process.dropping.get(&key.tid).is_none_or(|end| *end > to));
        self.scene.reached(Point::Synced, self.at);
    }
}
