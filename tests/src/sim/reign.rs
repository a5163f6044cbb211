//! Heartbeat streams at the nameserver that leads: what it hears, what it tells, and whom it takes for dead.

use stela_common::clock::Millis;
use stela_common::ids::{PartitionKey, TableId};
use stela_meta::control::judge::StreamId;
use stela_meta_state::state::{Partition, Tombstone};

use super::clock::MS;
use super::nameserver::{DRAIN, MetaEvent, Nameserver, Told};
use super::scene::{Doing, Event, NAMESERVER, Scene, trace};
use super::tablet::{id_of, place_of};

impl Nameserver {
    /// A nameserver fails, and its observations with it; of what it had proposed some is applied later.
    pub fn fail(&mut self, scene: &mut Scene) {
        if !std::mem::replace(&mut self.up, false) {
            return;
        }
        trace!(scene, "meta: the leading nameserver fails");
        self.reports.clear();
        self.passing = None;
        self.accused.clear();
        self.wanted.clear();
        self.drains.clear();
        self.handing.clear();
        self.dropped.clear();
        self.pending.retain(|_, _| scene.random.chance(500));
        let sessions: Vec<u64> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.hang_up(session, scene);
        }
        let delay = scene.random.between(20 * MS, 1200 * MS);
        scene.after(delay, Event::Meta(MetaEvent::TakeOver));
    }

    /// Ends a heartbeat stream at this end; the tablet notices now, or by the silence.
    pub fn hang_up(&mut self, session: u64, scene: &mut Scene) {
        let Some(it) = self.sessions.get_mut(&session) else { return };
        it.open = false;
        self.judge.closed(id_of(it.tablet.0), StreamId(session));
        if scene.random.chance(700) {
            let delay = scene.latency();
            scene.after(delay, Event::Tablet(it.tablet.0, it.tablet.1, Doing::Detached(session)));
        }
    }

    /// Heartbeat streams of a tablet break, and it does not notice.
    pub fn lose_sight(&mut self, at: usize) {
        for (number, session) in self.sessions.iter_mut().filter(|(_, s)| s.tablet.0 == at) {
            session.open = false;
            self.judge.closed(id_of(at), StreamId(*number));
        }
    }

    /// The nameserver takes a tablet for dead, and it is not (H1).
    pub fn suspect(&mut self, at: usize, scene: &Scene) {
        let now = self.local(scene);
        self.lose_sight(at);
        if let Some(tablet) = self.state.tablets.get(&id_of(at)) {
            self.judge.refused(id_of(at), tablet.incarnation, now);
        }
    }

    pub(super) fn heard(&mut self, session: u64, scene: &mut Scene) {
        let Some(it) = self.sessions.get_mut(&session) else { return };
        let at = it.tablet.0;
        if scene.is_blocked(at, NAMESERVER) {
            return scene.after(10 * MS, Event::Meta(MetaEvent::Heard(session)));
        }
        let Some(beat) = it.up.arrived(scene.now) else { return };
        if !it.open {
            return;
        }
        let registered = self.state.tablets.get(&id_of(at)).map(|t| t.incarnation);
        if registered != Some(it.incarnation) {
            // Another run has registered.
            return self.hang_up(session, scene);
        }
        let first = it.told.is_none();
        it.told.get_or_insert(beat.known_index);
        let now = self.clock.at(scene.now);
        if first {
            self.judge.opened(id_of(at), it.incarnation, StreamId(session), now);
        } else if beat.sent.is_some() {
            self.judge.heard(id_of(at), StreamId(session), now);
        }
        for (key, report) in beat.reports {
            self.reports.insert((key, id_of(at)), report);
        }
        self.dropped.extend(beat.dropped.into_iter().map(|tid| (id_of(at), tid)));
        if first {
            // What it holds is told before its first lease.
            self.tell(session, None, scene);
        }
        if let Some(sent) = beat.sent {
            let read = scene.random.between(MS / 2, 4 * MS);
            scene.after(read, Event::Meta(MetaEvent::Read(session, sent)));
        }
    }

    /// R17: not to a tablet against which something is proposed whose outcome is not known.
    pub(super) fn read(&mut self, session: u64, sent: Millis, scene: &mut Scene) {
        let Some(it) = self.sessions.get(&session).filter(|s| s.open) else { return };
        let at = it.tablet.0;
        let fit = self
            .state
            .tablets
            .get(&id_of(at))
            .is_some_and(|t| t.incarnation == it.incarnation && t.healthy);
        let lease = (fit && !self.accused.contains(&at)).then_some((sent, scene.pace.lease));
        self.tell(session, lease, scene);
    }

    /// Tells every tablet what has changed for it.
    pub(super) fn push(&mut self, scene: &mut Scene) {
        if !self.up {
            return;
        }
        let behind: Vec<u64> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.open && s.told.is_some_and(|told| self.concerns(s.tablet.0, told)))
            .map(|(number, _)| *number)
            .collect();
        for session in behind {
            self.tell(session, None, scene);
        }
    }

    pub(super) fn concerns(&self, at: usize, told: u64) -> bool {
        let partitions = &self.state.partitions;
        partitions.iter().any(|(key, p)| self.is_news(*key, p, told) && has(p, at))
            || self.state.tablets.values().any(|t| t.version.0 > told)
            || self.drops(at, told).next().is_some()
    }

    fn is_news(&self, key: PartitionKey, partition: &Partition, told: u64) -> bool {
        let changed = self.changed_tables.get(&key.tid).copied().unwrap_or(0);
        partition.version.0.max(changed) > told
    }

    fn drops(&self, at: usize, told: u64) -> impl Iterator<Item = TableId> + '_ {
        let waits = move |t: &Tombstone| t.version.0 > told && t.waiting.contains(&id_of(at));
        self.state.tombstones.iter().filter(move |(_, t)| waits(t)).map(|(tid, _)| *tid)
    }

    pub(super) fn tell(&mut self, session: u64, lease: Option<(Millis, u64)>, scene: &mut Scene) {
        let Some(it) = self.sessions.get(&session).filter(|s| s.open) else { return };
        let Some(since) = it.told else { return };
        let at = it.tablet.0;
        let index = self.state.applied;
        let views = self.state.partitions.iter();
        let views = views.filter(|(key, p)| self.is_news(**key, p, since) && has(p, at));
        let views = views.filter_map(|(key, p)| {
            let table = self.state.tables.get(&key.tid)?;
            Some((table.options, p.view(*key)))
        });
        let views = views.collect();
        let drops = self.drops(at, since).collect();
        let addresses = self.state.tablets.iter().filter(|(_, t)| t.version.0 > since);
        let addresses = addresses.map(|(id, t)| (place_of(*id), t.incarnation)).collect();
        let drains = self.drains.iter().filter(|d| d.leader == id_of(at));
        let drains = drains.map(|d| (d.key, d.epoch, DRAIN)).collect();
        let controller = self.controller;
        let told = Told { controller, index, views, drops, addresses, lease, drains };
        let Some(it) = self.sessions.get_mut(&session) else { return };
        it.told = Some(index);
        if !told.views.is_empty() {
            self.last_told.insert(at, (it.tablet.1, told.clone()));
        }
        let arrives = scene.now + scene.latency();
        let arrives = it.down.send(arrives, told);
        scene.at(arrives, Event::Told(session));
    }

    pub(super) fn ended(&mut self, session: u64, refuses: bool, scene: &Scene) {
        let now = self.local(scene);
        let Some(it) = self.sessions.remove(&session) else { return };
        let tablet = id_of(it.tablet.0);
        if self.judge.closed(tablet, StreamId(session)) && refuses {
            // Its port refuses, or belongs to another run (R18).
            self.judge.refused(tablet, it.incarnation, now);
        }
    }
}

fn has(partition: &Partition, at: usize) -> bool {
    partition.replica(id_of(at)).is_some()
}
