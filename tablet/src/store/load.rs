//! What snapshots and log say about each partition when a tablet starts.
//!
//! One walk from front to back, in which later records overrule earlier ones (R26): a snapshot says from where on they
//! count, a truncation voids entries, an installed snapshot all before it, a purge all of a partition. A partition whose
//! entries are not all there, or of which recovery says so, is damaged (R30): it keeps what it has without a gap, and
//! neither leads nor counts until it has proven itself. What was never missed does not matter: a gap of entries that a
//! later record makes void is none, so the log may be given back up to wherever nothing before is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{End, Kind, Log, Position, Record, Recovery};
use stela_replica::epochs::Epochs;

use super::dedup::Dedup;
use super::places::Places;
use crate::checkpoint::Saved;
use crate::snapshot::Snapshot;
use crate::snapshot::files::Found;

/// One entry that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Loading {
    /// Its offset.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub at: Position,
}

/// One partition as its snapshot and its log have it.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// What is below the entries.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Earlier records of the partition are dead (R26).
    pub replay_from: Position,
    /// What stands at `replay_from` is the `Installed` record of the snapshot.
    pub installed: bool,
    /// The highest epoch that the replica acted in.
    pub epoch: Epoch,
    /// Epochs of the entries, those in the snapshot included.
    pub epochs: Epochs,
    /// The last entry.
    pub last: Offset,
    /// A lower bound of the commit offset.
    pub commit: Offset,
    /// Why the copy is not proven whole (R30).
    pub damage: Option<String>,
    /// Request ids as of the snapshot, or the saved indexes (R32).
    pub dedup: Dedup,
    /// From offset to place, also of entries in the snapshot that the log still has.
    pub places: Places,
    /// The entries behind the snapshot.
    pub entries: Vec<Loading>,
    /// The entries between the two are in indexes that were saved.
    pub saved: Option<Saved>,
    /// The partition was dropped: nothing of it is in force.
    pub purged: bool,
    /// The log may give back what it has of it.
    pub released: bool,
    /// What is wrong with its snapshot: of no consequence if the log still has all.
    wrong: Option<String>,
    /// Entries behind this one are missing, unless they are void.
    gap: Option<Offset>,
    /// Before `replay_from`: the last entry of those in `places`.
    dead: Option<Offset>,
}

/// Walks the log, on top of the snapshots that were found.
#[must_use]
pub fn replay(
    log: &Log,
    recovery: &Recovery,
    found: &BTreeMap<PartitionKey, Found>,
) -> BTreeMap<PartitionKey, Loaded> {
    let mut loaded: BTreeMap<PartitionKey, Loaded> =
        found.iter().map(|(key, found)| (*key, Loaded::begin(found))).collect();
    let mut walk = log.walk(log.start());
    while let Some((at, record)) = walk.next_at() {
        if !matches!(record.kind, Kind::Ends | Kind::Vote | Kind::Note) {
            loaded.entry(record.partition).or_default().take(at, &record, found);
        }
    }
    for key in recovery.ends.keys() {
        // Promise 5: of what the log has given back, there has to be a snapshot.
        loaded.entry(*key).or_default();
    }
    for (key, partition) in &mut loaded {
        partition.finish(recovery.ends.get(key));
    }
    for damage in &recovery.damage {
        let end = Position(damage.at.0 + damage.bytes);
        for key in &damage.suspects {
            let partition = loaded.entry(*key).or_default();
            // What its snapshot has it does not need from the log.
            if end > partition.replay_from {
                partition.damaged("its entries in the log are damaged");
            }
        }
    }
    loaded
}

impl Loaded {
    /// From where on the log is needed to load it again; `None`: nothing of it is.
    #[must_use]
    pub fn needs(&self) -> Option<Position> {
        if self.released {
            return None;
        }
        if self.damage.is_some() || self.installed {
            return Some(self.replay_from);
        }
        self.entries.first().map(|first| first.at)
    }

    /// Records before do not count when it is made again.
    #[must_use]
    pub fn counts_from(&self) -> Position {
        let first = self.entries.first().filter(|_| !self.installed && self.saved.is_none());
        first.map_or(self.replay_from, |first| first.at)
    }

    /// Its entries have been moved out of the log.
    pub fn release(&mut self) {
        self.released = true;
        self.entries.clear();
        (self.last, self.commit) = (self.base(), self.base());
        self.epochs.truncate(self.last);
        self.damaged("its entries were moved to lost+found");
    }

    fn begin(found: &Found) -> Self {
        match (&found.local, &found.wrong) {
            (Some(snapshot), _) => Self::of(snapshot, snapshot.header().replay_from),
            (None, wrong) => Self { wrong: wrong.clone(), ..Self::default() },
        }
    }

    /// What a snapshot says.
    fn of(snapshot: &Arc<Snapshot>, replay_from: Position) -> Self {
        let header = snapshot.header();
        Self {
            replay_from,
            epoch: header.epoch,
            epochs: header.epochs.clone(),
            last: header.offset,
            commit: header.offset,
            damage: header.damaged.clone(),
            dedup: (&header.dedup).into(),
            snapshot: Some(snapshot.clone()),
            ..Self::default()
        }
    }

    fn damaged(&mut self, why: impl Into<String>) {
        self.damage.get_or_insert_with(|| why.into());
    }

    fn base(&self) -> Offset {
        self.snapshot.as_ref().map_or(Offset(0), |s| s.header().offset)
    }

    fn take(&mut self, at: Position, record: &Record<'_>, found: &BTreeMap<PartitionKey, Found>) {
        if at < self.replay_from {
            return self.pass(at, record);
        }
        self.cross();
        if record.kind != Kind::Purge {
            self.purged = false;
        }
        match record.kind {
            Kind::Entry => self.entry(at, record),
            Kind::EpochStart => self.epoch = self.epoch.max(record.epoch),
            Kind::Truncate => self.truncate(record.offset, at),
            Kind::Purge if record.offset == Offset(0) || record.offset >= self.last => {
                *self = Self { purged: true, ..Self::default() };
            }
            // This version does not write it. What it cannot read, it does not claim to have.
            Kind::Purge => self.damaged("a part of it was purged by another version"),
            Kind::Installed => self.install(at, record, found.get(&record.partition)),
            Kind::Ends | Kind::Vote | Kind::Note => {}
        }
    }

    /// A record that is dead: only the places of entries that the log still has are noted.
    fn pass(&mut self, at: Position, record: &Record<'_>) {
        match record.kind {
            Kind::Entry => {
                if self.dead.map(Offset::next) != Some(record.offset) {
                    self.places = Places::default();
                }
                self.places.push(record.offset, at);
                self.dead = Some(record.offset);
            }
            Kind::Truncate if self.dead.is_some_and(|last| record.offset < last) => {
                self.places.truncate(record.offset, at);
                self.dead = Some(record.offset);
            }
            Kind::Purge | Kind::Installed => {
                (self.places, self.dead) = (Places::default(), None);
            }
            _ => {}
        }
    }

    /// What follows is in force: the places before count if they lead up to it.
    fn cross(&mut self) {
        if self.dead.take().is_some_and(|last| last != self.last) {
            self.places = Places::default();
        }
    }

    fn entry(&mut self, at: Position, record: &Record<'_>) {
        if self.gap.is_some() {
            return;
        }
        if record.offset != self.last.next() {
            self.gap = Some(self.last);
            return;
        }
        self.last = record.offset;
        self.epoch = self.epoch.max(record.epoch);
        if self.epochs.last().is_none_or(|(epoch, _)| epoch != record.epoch) {
            self.epochs.push(record.epoch, record.offset);
        }
        self.places.push(record.offset, at);
        self.entries.push(Loading { offset: record.offset, epoch: record.epoch, at });
        let known = Offset(record.offset.0.saturating_sub(u64::from(record.commit_lag)));
        self.commit = self.commit.max(known);
    }

    fn truncate(&mut self, to: Offset, at: Position) {
        if self.gap.is_some_and(|gap| to > gap) || to > self.last {
            // What it kept is not here.
            self.gap.get_or_insert(self.last);
            return;
        }
        self.gap = None;
        if to < self.base() {
            return self.damaged(format!(
                "entries above {to} were cut, but its snapshot has them up to {}",
                self.base()
            ));
        }
        self.last = to;
        self.commit = self.commit.min(to);
        self.epochs.truncate(to);
        self.places.truncate(to, at);
        self.entries.truncate(self.entries.partition_point(|e| e.offset <= to));
    }

    /// A leader's snapshot took effect here: what was before is dead (R26).
    fn install(&mut self, at: Position, record: &Record<'_>, found: Option<&Found>) {
        let epoch = self.epoch;
        let id = record.body.first_chunk().map(|id| u64::from_le_bytes(*id));
        let file = id.and_then(|id| found?.installed.get(&id));
        *self = match file {
            Some(Ok(snapshot)) if snapshot.header().offset == record.offset => {
                Self { installed: true, ..Self::of(snapshot, at) }
            }
            Some(Ok(_)) => Self::without("the snapshot that it got is another one"),
            Some(Err(why)) => Self::without(why),
            None => Self::without("the snapshot that it got is not there any more"),
        };
        // Its own: the epochs in which another replica acted are not.
        self.epoch = epoch.max(record.epoch);
    }

    fn without(why: &str) -> Self {
        Self { damage: Some(why.to_owned()), ..Self::default() }
    }

    fn finish(&mut self, end: Option<&End>) {
        self.cross();
        if self.purged {
            return;
        }
        let wrong = self.wrong.take();
        if let Some(gap) = self.gap {
            let missing = || format!("the log does not have its entries behind {gap}");
            self.damaged(wrong.clone().unwrap_or_else(missing));
        }
        let (last, epoch) = (self.last, self.epochs.epoch_at(self.last));
        match end {
            Some(end) => {
                self.epoch = self.epoch.max(end.acted);
                if (last, epoch) != (end.offset, end.epoch) {
                    let missing = format!(
                        "it ends with entry {last} of epoch {epoch}, but had entry {} of epoch {}",
                        end.offset, end.epoch
                    );
                    self.damaged(wrong.unwrap_or(missing));
                }
            }
            None if self.snapshot.is_some() || wrong.is_some() => {
                self.damaged("its log does not know of it");
            }
            None => {}
        }
    }
}
