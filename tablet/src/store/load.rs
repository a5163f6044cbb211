//! What a log says about each partition when a tablet starts.
//!
//! One walk from front to back, in which later records overrule earlier ones (R26): a truncation voids entries, a purge
//! all of a partition. A partition whose entries are not all there, or of which recovery says so, is damaged (R30): it
//! keeps what it has without a gap, and neither leads nor counts until it has proven itself.

use std::collections::BTreeMap;

use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{Kind, Log, Position, Record, Recovery};
use stela_replica::epochs::Epochs;

use super::dedup::Dedup;
use super::entry::Entry;
use super::places::Places;

/// One entry that is in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Loading {
    /// Its offset.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place.
    pub at: Position,
}

/// One partition as its log has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Loaded {
    /// The highest epoch that the replica acted in.
    pub epoch: Epoch,
    /// Epochs of the entries.
    pub epochs: Epochs,
    /// The last entry.
    pub last: Offset,
    /// A lower bound of the commit offset.
    pub commit: Offset,
    /// The copy is not proven whole (R30).
    pub damaged: bool,
    /// Request ids (R32).
    pub dedup: Dedup,
    /// From offset to place.
    pub places: Places,
    /// The entries, from 1 on.
    pub entries: Vec<Loading>,
    /// The partition was dropped: nothing of it is in force.
    pub purged: bool,
}

/// Walks the log.
#[must_use]
pub fn replay(log: &Log, recovery: &Recovery) -> BTreeMap<PartitionKey, Loaded> {
    let mut loaded: BTreeMap<PartitionKey, Loaded> = BTreeMap::new();
    let mut walk = log.walk(log.start());
    loop {
        let at = walk.position();
        let Some(record) = walk.next() else { break };
        if !matches!(record.kind, Kind::Ends | Kind::Vote | Kind::Note) {
            loaded.entry(record.partition).or_default().take(at, &record);
        }
    }
    for key in recovery.damage.iter().flat_map(|d| &d.suspects) {
        loaded.entry(*key).or_default().damaged = true;
    }
    for partition in loaded.values_mut() {
        partition.dedup.committed(partition.commit);
    }
    loaded
}

impl Loaded {
    fn take(&mut self, at: Position, record: &Record<'_>) {
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
            // This version writes neither. What it cannot read, it does not claim to have.
            Kind::Purge | Kind::Installed => self.damaged = true,
            Kind::Ends | Kind::Vote | Kind::Note => {}
        }
    }

    fn entry(&mut self, at: Position, record: &Record<'_>) {
        let body = Entry::parse(record.body);
        let (true, Ok(body)) = (record.offset == self.last.next(), body) else {
            self.damaged = true;
            return;
        };
        self.last = record.offset;
        self.epoch = self.epoch.max(record.epoch);
        if self.epochs.last().is_none_or(|(epoch, _)| epoch != record.epoch) {
            self.epochs.push(record.epoch, record.offset);
        }
        self.places.push(record.offset, at);
        self.entries.push(Loading { offset: record.offset, epoch: record.epoch, at });
        self.dedup.appended(record.offset, body.session(), body.seq());
        let known = Offset(record.offset.0.saturating_sub(u64::from(record.commit_lag)));
        if known > self.commit {
            self.commit = known;
            self.dedup.committed(known);
        }
    }

    fn truncate(&mut self, to: Offset, at: Position) {
        if to > self.last {
            // What it kept is not here.
            self.damaged = true;
            return;
        }
        self.last = to;
        self.commit = self.commit.min(to);
        self.epochs.truncate(to);
        self.places.truncate(to, at);
        self.dedup.truncated(to);
        self.entries.truncate(self.entries.partition_point(|e| e.offset <= to));
    }
}
