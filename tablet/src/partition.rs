//! One replica: its core, its store, and what ties the two to the log.
//!
//! **Invariants**
//! * `recent` holds an unbroken run of entries that ends with the last one in the log.
//! * Everything up to `applied` is in the store and nothing beyond (R28).
//! * A waiter waits for an entry that is in the log, or is being written in the same critical section.
//! * A core whose write failed is void: the replica is [`Suspended`] until a core is made anew from what the log has.
//! * While it is being loaded it is suspended, too, and its store is empty: nobody may take that for what it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{Log, Position};
use stela_common::table::{Ack, Table};
use stela_common::wire::View;
use stela_proto::tablet as pb;
use stela_replica::core::Replica;
use stela_replica::epochs::Epochs;
use stela_replica::message::{Conn, Identity, Stored, ToLeader, Write};
use tokio::sync::{Notify, oneshot};

use crate::loading::{Progress, Ready};
use crate::outbox::{Gather, Outbox};
use crate::snapshot::Snapshot;
use crate::store::dedup::Dedup;
use crate::store::load::{Loaded, Loading};
use crate::store::places::{self, Places};
use crate::store::replay::Source;
use crate::store::{Applied, Store};

/// Committed entries whose places are kept at hand beyond the uncommitted ones, for followers that are a little behind.
const RECENT: usize = 256;
/// A replica whose write failed tries again after this, ms: at first, and at most.
const PAUSE: (u64, u64) = (500, 10_000);

/// Answers of one session, gathered.
#[derive(Default)]
pub struct Answers(pub Vec<pb::Answer>, usize);

impl Gather for Answers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn weight(&self) -> usize {
        self.1
    }
}

impl Answers {
    /// Adds an answer that takes about so many bytes.
    pub fn push(&mut self, answer: pb::Answer, bytes: usize) {
        self.0.push(answer);
        self.1 += bytes + size_of::<pb::Answer>();
    }
}

/// Who waits for a write.
pub enum Caller {
    /// A unary call.
    Unary(oneshot::Sender<pb::PutReply>),
    /// A call of a session, by its id.
    Session(Outbox<Answers>, u64),
}

impl Caller {
    /// Answers.
    pub fn answer(self, reply: pb::PutReply) {
        match self {
            // A caller that is gone needs no answer.
            Self::Unary(sender) => drop(sender.send(reply)),
            Self::Session(outbox, id) => {
                outbox.fill(|a| {
                    a.push(pb::Answer { id, kind: Some(pb::answer::Kind::Put(reply)) }, 0)
                });
            }
        }
    }
}

/// A write in the log that is not acknowledged yet.
pub struct Waiter {
    /// Who.
    pub caller: Caller,
    /// It came with a request id, so that it can be repeated.
    pub repeatable: bool,
    /// Who must have it.
    pub level: Ack,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
pub struct Recent {
    /// Its place.
    pub at: Position,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A replica whose core counted on a write that failed, or whose store is not there yet: it does nothing until it is made
/// anew from what the log has.
#[derive(Clone, Debug)]
pub struct Suspended {
    /// Not before.
    pub until: Millis,
    /// What the meta group has decided meanwhile.
    pub view: Option<View>,
}

/// One replica on this tablet.
pub struct Partition {
    /// The decisions.
    pub core: Replica,
    /// What can be read.
    pub store: Store,
    /// Request ids (R32).
    pub dedup: Dedup,
    /// From offset to place.
    pub places: Places,
    /// The run of entries at the end of the log: the first one's offset, and their places.
    recent: (Offset, VecDeque<Recent>),
    /// Epochs of the entries in the log, as written (the core's may be ahead while a write fails).
    pub epochs: Epochs,
    /// The highest epoch in the log.
    pub epoch: Epoch,
    /// The last entry that the store has.
    pub applied: Offset,
    /// Writes that wait for their acknowledgement.
    pub waiters: BTreeMap<Offset, Vec<Waiter>>,
    /// Those of them that stored nothing: it was there already.
    pub ignored: BTreeSet<Offset>,
    /// Wakes reads that wait for a permit.
    pub parked: Arc<Notify>,
    /// The epoch in which it served last, and its log end when that began (R10).
    pub served: Option<(Epoch, Offset)>,
    /// Why it is quarantined.
    pub quarantine: Option<String>,
    /// It is quarantined as a leader lacked what is committed here (R4), or as it is of another table that had its number
    /// (H26): it is kept as it is.
    pub contradicted: bool,
    /// The last report that the nameserver got.
    pub reported: Option<stela_proto::heartbeat::ReplicaReport>,
    /// Something of the report has changed since.
    pub unreported: bool,
    /// It does nothing at the moment.
    pub suspended: Option<Suspended>,
    /// What it holds is being made readable; meanwhile it is suspended.
    pub loading: Option<Arc<Progress>>,
    /// Connections where Hello was said and not taken back by Left: there a grant covers this replica (R11).
    pub greeted: BTreeSet<Conn>,
    /// How long it stands still when its next write fails, ms.
    pause: u64,
    /// Records before do not count when it is made again (R26).
    replay_from: Position,
    /// At `replay_from` stands the `Installed` record of its snapshot: that has to stay.
    installed: bool,
    /// How often readable entries were taken back.
    pub rebuilt: u64,
    /// A snapshot up to there is being made: nothing below is cut until that has ended.
    pub making: Option<Offset>,
    /// One is being made at this moment.
    pub making_now: bool,
    /// None are made until an operator says so, or the process ends.
    pub paused: bool,
    /// The log may give back what it has of it: what cannot be in a snapshot stands in files of its own (R29).
    pub released: bool,
    /// The entry by which it last took away, as a leader, the rows of deleted indexes.
    pub emptied: Offset,
    /// The entry that waits for this replica to be told of an index.
    waits: Offset,
}

impl Partition {
    /// A replica from what the log held.
    #[must_use]
    pub fn new(identity: Identity, table: Arc<Table>, loaded: Loaded, now: Millis) -> Self {
        let epochs = loaded.epochs.clone();
        let stored = Stored {
            epoch: loaded.epoch,
            epochs: epochs.clone(),
            last: loaded.last,
            commit: loaded.commit,
            damaged: loaded.damage.is_some(),
            ..Stored::default()
        };
        Self {
            core: Replica::new(identity, stored, now),
            store: Store::new(table),
            dedup: Dedup::default(),
            places: loaded.places,
            recent: (loaded.last.next(), VecDeque::new()),
            epochs,
            epoch: loaded.epoch,
            applied: Offset(0),
            waiters: BTreeMap::new(),
            ignored: BTreeSet::new(),
            parked: Arc::new(Notify::new()),
            served: None,
            // R30: it keeps what it has, and neither shows it nor leads.
            quarantine: loaded.damage,
            contradicted: false,
            reported: None,
            unreported: false,
            suspended: None,
            loading: None,
            greeted: BTreeSet::new(),
            pause: PAUSE.0,
            replay_from: loaded.replay_from,
            installed: loaded.installed,
            rebuilt: 0,
            making: None,
            making_now: false,
            paused: false,
            released: loaded.released,
            emptied: Offset(0),
            waits: Offset(0),
        }
    }

    /// What was found can be read from now on, the rest waits for a leader's word.
    pub fn loaded(&mut self, ready: Ready) {
        let Ready { mut store, dedup, applied, tail, wrong } = ready;
        store.set_expires(self.store.expires());
        if store.table() != self.store.table() {
            store.set_table(self.store.table().clone());
        }
        self.recent = (Offset(self.last().0 + 1 - tail.len() as u64), tail);
        (self.store, self.dedup, self.applied) = (store, dedup, applied);
        if self.quarantine.is_none() {
            self.quarantine = wrong;
        }
        self.loading = None;
    }

    /// Entries up to `to` become readable, as far as this replica has been told of the indexes that they name. A leader
    /// has: the decision by which it leads brought the table along, and it lets in nothing that names others.
    ///
    /// # Errors
    /// One cannot be read: the replica cannot go on behind it.
    pub fn apply(&mut self, log: &Log, key: PartitionKey, to: Offset) -> Result<(), String> {
        // What it has is being made elsewhere, and comes with `loaded`.
        if self.loading.is_some() {
            return Ok(());
        }
        while self.applied < to {
            let next = self.applied.next();
            let at = self.place(log, key, next)?;
            let record = log.read(at).map_err(|e| e.to_string())?;
            let applied = self.store.apply(log, at, record.body());
            match applied.map_err(|e| format!("entry {next}: {e}"))? {
                Applied::Done => {}
                Applied::Existed if self.waiters.contains_key(&next) => {
                    self.ignored.insert(next);
                }
                Applied::Existed => {}
                Applied::NotYet if self.core.leads() => {
                    return Err(format!(
                        "entry {next} names an index that the table does not have"
                    ));
                }
                Applied::NotYet => {
                    if std::mem::replace(&mut self.waits, next) != next {
                        tracing::warn!(%key, entry = %next, "an entry waits until a nameserver tells of its index");
                    }
                    break;
                }
            }
            self.applied = next;
        }
        self.dedup.committed(self.applied);
        Ok(())
    }

    /// The last entry in the log.
    #[must_use]
    pub fn last(&self) -> Offset {
        Offset(self.recent.0.0 + self.recent.1.len() as u64 - 1)
    }

    /// The place of an entry near the end of the log.
    #[must_use]
    pub fn recent(&self, offset: Offset) -> Option<Recent> {
        let at = offset.0.checked_sub(self.recent.0.0)?;
        self.recent.1.get(usize::try_from(at).ok()?).copied()
    }

    /// An entry is in the log.
    pub fn appended(&mut self, offset: Offset, epoch: Epoch, at: Position) {
        debug_assert_eq!(offset, self.last().next());
        if offset == self.store.base().next() && !self.installed {
            self.replay_from = at;
        }
        self.recent.1.push_back(Recent { at, epoch });
        self.places.push(offset, at);
        self.epochs.appended(epoch, offset);
        self.epoch = self.epoch.max(epoch);
        while self.recent.1.len() > RECENT && self.recent.0 <= self.applied {
            self.recent.1.pop_front();
            self.recent.0 = self.recent.0.next();
        }
    }

    /// Entries above `to` are void, by the record at `cut`.
    pub fn truncated(&mut self, log: &Log, key: PartitionKey, to: Offset, cut: Position) {
        if to < self.recent.0 {
            self.recent = (to.next(), VecDeque::new());
        } else {
            self.recent
                .1
                .truncate(usize::try_from(to.0 + 1 - self.recent.0.0).unwrap_or(usize::MAX));
        }
        self.places.truncate(to, cut);
        self.dedup.truncated(to);
        self.epochs.truncate(to);
        self.emptied = self.emptied.min(to);
        if to < self.applied {
            self.rebuild(log, key, to);
        }
    }

    /// Readable entries were voided: only behind an unclean election (R16). What is left is applied anew, and what it says
    /// of requests with it: those were committed, and are not taken back one by one (R32).
    fn rebuild(&mut self, log: &Log, key: PartitionKey, to: Offset) {
        let table = self.store.table().clone();
        let (store, mut dedup) = match self.store.snapshot().cloned() {
            Some(snapshot) => {
                let dedup = (&snapshot.header().dedup).into();
                (Store::load(table, snapshot).map_err(|e| e.to_string()), dedup)
            }
            None => (Ok(Store::new(table)), Dedup::default()),
        };
        let source = Source { log, places: &self.places, key };
        let rebuilt = store.and_then(|mut store| {
            let from = store.base().next();
            source.replay(from, to, &mut store, Some(&mut dedup), &|| true)?;
            store.set_expires(self.store.expires());
            Ok(store)
        });
        self.rebuilt += 1;
        match rebuilt {
            Ok(store) => (self.store, self.dedup, self.applied) = (store, dedup, to),
            Err(why) => self.quarantine = Some(why),
        }
    }

    /// A snapshot made here, and the store that was made of it and of the entries up to `applied`, take the place of
    /// those before. Returns that: to drop it takes a while, which nobody should wait for.
    #[must_use]
    pub fn switch(&mut self, mut store: Store, replay_from: Position) -> Store {
        debug_assert!(store.base() <= self.applied);
        store.set_expires(self.store.expires());
        (self.replay_from, self.installed) = (replay_from, false);
        std::mem::replace(&mut self.store, store)
    }

    /// A leader's snapshot, by the record at `at`, and the store that was made of it take the place of all that was here.
    /// Returns the store before.
    #[must_use]
    pub fn installed(&mut self, mut store: Store, snapshot: &Snapshot, at: Position) -> Store {
        let header = snapshot.header();
        store.set_expires(self.store.expires());
        self.rebuilt += 1;
        self.dedup = (&header.dedup).into();
        self.epochs = header.epochs.clone();
        self.epoch = self.epoch.max(header.last_epoch);
        self.places = Places::default();
        self.recent = (header.offset.next(), VecDeque::new());
        self.applied = header.offset;
        self.quarantine = None;
        (self.replay_from, self.installed, self.released) = (at, true, false);
        std::mem::replace(&mut self.store, store)
    }

    /// Records before do not count when it is made again (R26).
    #[must_use]
    pub fn replay_from(&self) -> Position {
        self.replay_from
    }

    /// At [`replay_from`](Self::replay_from) stands the `Installed` record of its snapshot.
    #[must_use]
    pub fn is_installed(&self) -> bool {
        self.installed
    }

    /// The entries behind that one, which is not before the last readable one.
    #[must_use]
    pub fn behind(&self, offset: Offset) -> Vec<Loading> {
        let all = (self.recent.0.0..).map(Offset).zip(&self.recent.1);
        let behind = all.filter(|(o, _)| *o > offset);
        behind.map(|(offset, r)| Loading { offset, epoch: r.epoch, at: r.at }).collect()
    }

    /// From where on the log is needed to make this replica again; `None`: nothing of it is.
    #[must_use]
    pub fn needs(&self) -> Option<Position> {
        let whole = self.quarantine.is_none() && !self.installed;
        let idle = whole && self.last() == self.store.base();
        (!self.released && !idle).then_some(self.replay_from)
    }

    /// The first entry that the log still has of it: who needs an earlier one needs a snapshot.
    #[must_use]
    pub fn floor(&self) -> Offset {
        self.places.first().map_or(self.recent.0, |first| first.min(self.recent.0))
    }

    /// Entries up to there are not in the log any more.
    #[must_use]
    pub fn below(&self) -> Offset {
        Offset(self.floor().0.saturating_sub(1))
    }

    /// The log before `start` is about to be given back.
    pub fn trim(&mut self, start: Position) {
        let first = self.store.base().next();
        let needed = (self.last() >= first && self.replay_from >= start)
            .then_some((first, self.replay_from))
            .filter(|_| !self.installed);
        self.places.trim(start, needed);
        while self.recent.1.front().is_some_and(|r| r.at < start) && self.recent.0 <= self.applied {
            self.recent.1.pop_front();
            self.recent.0 = self.recent.0.next();
        }
    }

    /// The place of an entry that the log has.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn place(&self, log: &Log, key: PartitionKey, offset: Offset) -> Result<Position, String> {
        if let Some(recent) = self.recent(offset) {
            return Ok(recent.at);
        }
        let found = places::read_entries(log, &self.places, key, offset, offset, 0)
            .map_err(|e| e.to_string())?;
        found.first().map(|r| r.position()).ok_or_else(|| "it is not there".into())
    }

    /// It has said that on a connection to its leader.
    pub fn said(&mut self, conn: Conn, message: &ToLeader) {
        match message {
            ToLeader::Hello { .. } => _ = self.greeted.insert(conn),
            ToLeader::Left { .. } => _ = self.greeted.remove(&conn),
            ToLeader::Ack { .. } => {}
        }
    }

    /// A write of it failed: how long it stands still, ms. Longer each time: a full disk is seldom empty a moment later,
    /// and each attempt costs its leader a joining.
    pub fn pause(&mut self) -> u64 {
        let next = (self.pause * 2).min(PAUSE.1);
        std::mem::replace(&mut self.pause, next)
    }

    /// The log took a write of it.
    pub fn writes_again(&mut self) {
        self.pause = PAUSE.0;
    }

    /// The core that the log alone would give, of which all is synced but for what a write not above `written` brought.
    pub fn restart(&mut self, identity: Identity, written: Write, now: Millis) {
        let stored = Stored {
            epoch: self.epoch,
            epochs: self.epochs.clone(),
            last: self.last(),
            // Where the leader's word is enough more is readable than is committed (R34); of a snapshot all is (R28).
            commit: self.applied.min(self.core.commit()).max(self.store.base()),
            damaged: self.quarantine.is_some(),
            contradicted: self.contradicted,
            floor: self.below(),
            snapshot: self.store.base(),
            written,
        };
        self.core = Replica::new(identity, stored, now);
    }

    /// Answers every waiting write: it may have been applied or not. With a request id it is to be repeated.
    pub fn fail_waiters(&mut self, refusal: &Refusal, leader: &str) {
        self.ignored.clear();
        for waiter in std::mem::take(&mut self.waiters).into_values().flatten() {
            let refusal =
                if waiter.repeatable { refusal.clone() } else { Code::UnknownOutcome.into() };
            waiter.caller.answer(refusal_of_write(&refusal, leader, self.core.epoch()));
        }
    }

    /// Answers the writes up to `to` that ask for the leader alone (R34).
    pub fn acknowledge_early(&mut self, to: Offset) {
        let answer = self.answer();
        for (offset, waiters) in self.waiters.range_mut(..=to) {
            for waiter in waiters.extract_if(.., |w| w.level == Ack::Leader) {
                waiter.caller.answer(pb::PutReply { offset: offset.0, ..answer.clone() });
            }
        }
        self.waiters.retain(|_, waiters| !waiters.is_empty());
    }

    /// The answer to a write that is acknowledged, but for its offset.
    #[must_use]
    pub fn answer(&self) -> pb::PutReply {
        pb::PutReply {
            status: stela_common::wire::ok(),
            epoch: self.core.epoch().0,
            uncleans: self.core.view().map_or(0, |v| v.uncleans),
            ..pb::PutReply::default()
        }
    }

    /// Answers the writes up to `to`.
    pub fn acknowledge(&mut self, to: Offset) {
        let answer = self.answer();
        while let Some(entry) = self.waiters.first_entry() {
            if *entry.key() > to {
                break;
            }
            let offset = *entry.key();
            let mut answer = pb::PutReply { offset: offset.0, ..answer.clone() };
            if self.ignored.remove(&offset)
                && let Some(status) = &mut answer.status
            {
                status.msg = stela_common::wire::EXISTED.into();
            }
            for waiter in entry.remove() {
                waiter.caller.answer(answer.clone());
            }
        }
    }
}

/// The reply to a write that is refused.
#[must_use]
pub fn refusal_of_write(refusal: &Refusal, leader: &str, epoch: Epoch) -> pb::PutReply {
    pb::PutReply {
        status: stela_common::wire::refused(refusal),
        leader: leader.into(),
        epoch: epoch.0,
        ..pb::PutReply::default()
    }
}

/// A write of this replica and where it ends in the log.
#[derive(Clone, Copy, Debug)]
pub struct Unsynced {
    /// Behind its batch.
    pub end: Position,
    /// The partition.
    pub key: PartitionKey,
    /// Its number there.
    pub write: Write,
}
