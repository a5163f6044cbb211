//! A machine's disk: one log of records, of which a prefix is synced.
//!
//! A killed process loses nothing that it had written, as the page cache lives on; a power cut loses the records that
//! were not synced, all of them or all behind some place. What a restart finds it writes again and syncs before it says
//! anything (R24), so all of that is synced then.

use std::collections::BTreeMap;

use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_replica::epochs::Epochs;
use stela_replica::message::Stored;

use super::random::Random;

/// What names a client's write: session and number (R32). It stands for the value, too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Id {
    /// The client.
    pub session: u64,
    /// Its write.
    pub seq: u64,
}

/// An entry as it stands in the log and travels: unchanged for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The epoch that it was made in.
    pub epoch: Epoch,
    /// The value.
    pub id: Id,
    /// The leader's commit offset when it was made.
    pub commit: Offset,
}

/// A record of the shared log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// The next entry of a partition.
    Entry(PartitionKey, Offset, Entry),
    /// A replica begins to act in an epoch (R2).
    EpochStart(PartitionKey, Epoch),
    /// Entries beyond are void.
    Truncate(PartitionKey, Offset),
}

/// One partition as the records up to some place have it.
#[derive(Clone, Default, Debug)]
pub struct Log {
    entries: Vec<Entry>,
    /// The highest epoch that it acted in.
    pub epoch: Epoch,
}

impl Log {
    /// The last entry.
    pub fn last(&self) -> Offset {
        Offset(self.entries.len() as u64)
    }

    /// The entry at an offset.
    pub fn entry(&self, offset: Offset) -> Option<&Entry> {
        self.entries.get(usize::try_from(offset.0.checked_sub(1)?).ok()?)
    }

    /// The epoch of the entry at an offset; 0 before the first.
    pub fn epoch_at(&self, offset: Offset) -> Epoch {
        self.entry(offset).map_or(Epoch(0), |e| e.epoch)
    }

    /// The entries from an offset on, with their offsets.
    pub fn from(&self, first: Offset) -> impl Iterator<Item = (Offset, Entry)> {
        let skipped = usize::try_from(first.0.max(1) - 1).unwrap_or(usize::MAX);
        self.entries.iter().enumerate().skip(skipped).map(|(at, e)| (Offset(at as u64 + 1), *e))
    }

    /// Epochs of the entries.
    pub fn epochs(&self) -> Epochs {
        let mut epochs = Epochs::default();
        let mut before = Epoch(0);
        for (offset, entry) in self.from(Offset(1)) {
            if entry.epoch != before {
                epochs.push(entry.epoch, offset);
                before = entry.epoch;
            }
        }
        epochs
    }

    /// What a replica starts from.
    pub fn stored(&self) -> Stored {
        let commit =
            self.entries.iter().map(|e| e.commit).max().unwrap_or_default().min(self.last());
        Stored {
            epoch: self.epoch,
            epochs: self.epochs(),
            last: self.last(),
            commit,
            ..Stored::default()
        }
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::Entry(_, offset, entry) => {
                debug_assert_eq!(offset, self.last().next());
                self.entries.push(entry);
                self.epoch = self.epoch.max(entry.epoch);
            }
            Record::EpochStart(_, epoch) => self.epoch = self.epoch.max(epoch),
            Record::Truncate(_, to) => {
                self.entries.truncate(usize::try_from(to.0).unwrap_or(usize::MAX))
            }
        }
    }
}

impl Record {
    fn key(&self) -> PartitionKey {
        match self {
            Self::Entry(key, ..) | Self::EpochStart(key, _) | Self::Truncate(key, _) => *key,
        }
    }
}

/// All partitions as the records up to some place have them.
pub type Contents = BTreeMap<PartitionKey, Log>;

/// A disk.
#[derive(Default)]
pub struct Disk {
    records: Vec<Record>,
    synced: usize,
    written: Contents,
    durable: Contents,
    /// It refuses to write: full.
    pub full: bool,
}

impl Disk {
    /// Writes one batch; its end, or nothing when the disk refuses.
    pub fn append(&mut self, batch: &[Record]) -> Option<usize> {
        if self.full {
            return None;
        }
        for record in batch {
            self.written.entry(record.key()).or_default().apply(*record);
            self.records.push(*record);
        }
        Some(self.records.len())
    }

    /// The end of what is written.
    pub fn end(&self) -> usize {
        self.records.len()
    }

    /// The end of what is synced.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// A sync that covered everything up to there has ended.
    pub fn sync(&mut self, to: usize) {
        for record in self.records.get(self.synced..to).unwrap_or_default() {
            self.durable.entry(record.key()).or_default().apply(*record);
        }
        self.synced = self.synced.max(to.min(self.records.len()));
    }

    /// A partition as it is written.
    pub fn written(&self, key: PartitionKey) -> &Log {
        static NONE: Log = Log { entries: Vec::new(), epoch: Epoch(0) };
        self.written.get(&key).unwrap_or(&NONE)
    }

    /// A partition as it would be after a power cut that loses all it can.
    pub fn durable(&self, key: PartitionKey) -> &Log {
        static NONE: Log = Log { entries: Vec::new(), epoch: Epoch(0) };
        self.durable.get(&key).unwrap_or(&NONE)
    }

    /// The power fails: of what is not synced a prefix stays, often nothing. Returns how many records are lost.
    pub fn cut(&mut self, random: &mut Random) -> usize {
        let unsynced = self.records.len() - self.synced;
        let kept = if random.chance(600) { 0 } else { random.index(unsynced + 1) };
        let lost = unsynced - kept;
        self.records.truncate(self.synced + kept);
        self.sync(self.records.len());
        self.written = self.durable.clone();
        lost
    }

    /// A process starts: what it finds, it writes again and syncs before it says anything (R24).
    pub fn recover(&mut self) {
        self.sync(self.records.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey =
        PartitionKey { tid: stela_common::ids::TableId(1), pid: stela_common::ids::PartitionId(0) };

    fn entry(epoch: u64, seq: u64) -> Entry {
        Entry { epoch: Epoch(epoch), id: Id { session: 1, seq }, commit: Offset(0) }
    }

    #[test]
    fn a_power_cut_loses_the_unsynced_and_nothing_else() {
        for seed in 0..50 {
            let mut disk = Disk::default();
            disk.append(&[
                Record::EpochStart(KEY, Epoch(1)),
                Record::Entry(KEY, Offset(1), entry(1, 1)),
            ])
            .unwrap();
            disk.sync(disk.end());
            disk.append(&[
                Record::Entry(KEY, Offset(2), entry(1, 2)),
                Record::Truncate(KEY, Offset(1)),
            ])
            .unwrap();
            assert_eq!(disk.written(KEY).last(), Offset(1));
            let lost = disk.cut(&mut Random::new(seed));
            assert_eq!(disk.written(KEY).last(), Offset(if lost == 1 { 2 } else { 1 }));
            assert_eq!(disk.durable(KEY).last(), disk.written(KEY).last());
            assert_eq!(disk.synced(), disk.end());
        }
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        let mut disk = Disk { full: true, ..Default::default() };
        assert_eq!(disk.append(&[Record::EpochStart(KEY, Epoch(1))]), None);
        assert_eq!(disk.end(), 0);
    }
}
