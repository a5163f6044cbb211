//! A machine's disk: one log of records, of which a prefix is synced.
//!
//! A killed process loses nothing that it had written, as the page cache lives on. A power cut loses records that were
//! not synced: all, the last ones, or some in the middle; what lies behind a lost one is void. What a restart finds it
//! writes again and syncs before it says anything (R24), so all of that is synced then. A synced record that is found
//! damaged takes what is behind it in its partition with it (R30). Beside the log are the entries that were cut
//! (`lost+found`, synced before they are cut), and images may be taken of the whole, as of a virtual machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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
    /// Nothing of the partition is here any more.
    Purge(PartitionKey),
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
            Record::Purge(_) => *self = Self::default(),
        }
    }
}

impl Record {
    fn key(&self) -> PartitionKey {
        match self {
            Self::Entry(key, ..)
            | Self::EpochStart(key, _)
            | Self::Truncate(key, _)
            | Self::Purge(key) => *key,
        }
    }
}

/// All partitions as the records up to some place have them.
pub type Contents = BTreeMap<PartitionKey, Log>;

/// What a power cut took.
#[derive(Clone, Copy, Default, Debug)]
pub struct Torn {
    /// Records that are gone.
    pub lost: u64,
    /// Of these, records that were on disk behind one that was not.
    pub holes: u64,
}

/// A disk.
#[derive(Clone, Default)]
pub struct Disk {
    /// How many records are synced; all of them are in `durable`.
    synced: usize,
    /// The records behind them.
    tail: VecDeque<Record>,
    written: Contents,
    durable: Contents,
    /// Entries that were cut, and who made them.
    lost_found: BTreeSet<(PartitionKey, Id)>,
    /// Partitions in which synced records are damaged, as the next start finds them.
    damaged: BTreeSet<PartitionKey>,
    /// An entry was voided that is not in `lost+found`.
    pub unsaved: bool,
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
            if let Record::Truncate(key, to) = record {
                self.unsaved |= !self.is_saved(*key, *to);
            }
            self.written.entry(record.key()).or_default().apply(*record);
            self.tail.push_back(*record);
        }
        Some(self.end())
    }

    /// The end of what is written.
    pub fn end(&self) -> usize {
        self.synced + self.tail.len()
    }

    /// The end of what is synced.
    pub fn synced(&self) -> usize {
        self.synced
    }

    /// A sync that covered everything up to there has ended.
    pub fn sync(&mut self, to: usize) {
        while self.synced < to
            && let Some(record) = self.tail.pop_front()
        {
            self.durable.entry(record.key()).or_default().apply(record);
            self.synced += 1;
        }
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

    /// Saves the entries beyond `to` to `lost+found`, synced (R4). A full disk takes nothing.
    pub fn save(&mut self, key: PartitionKey, to: Offset) {
        if !self.full {
            let cut: Vec<_> = self.written(key).from(to.next()).map(|(_, e)| (key, e.id)).collect();
            self.lost_found.extend(cut);
        }
    }

    fn is_saved(&self, key: PartitionKey, to: Offset) -> bool {
        self.written(key).from(to.next()).all(|(_, e)| self.has_saved(key, e.id))
    }

    fn has_saved(&self, key: PartitionKey, id: Id) -> bool {
        self.lost_found.contains(&(key, id))
    }

    /// Is that write in the log or in `lost+found`?
    pub fn keeps(&self, key: PartitionKey, id: Id) -> bool {
        self.has_saved(key, id) || self.written(key).from(Offset(1)).any(|(_, e)| e.id == id)
    }

    /// The power fails.
    pub fn cut(&mut self, random: &mut Random) -> Torn {
        let unsynced = self.tail.len();
        let (kept, holes) = match random.below(10) {
            0..=5 => (0, 0),
            6 | 7 => (random.index(unsynced + 1), 0),
            _ => {
                let there: Vec<bool> = (0..unsynced).map(|_| random.chance(600)).collect();
                let kept = there.iter().position(|there| !there).unwrap_or(unsynced);
                (kept, there[kept..].iter().filter(|there| **there).count())
            }
        };
        self.tail.truncate(kept);
        self.recover();
        self.written = self.durable.clone();
        Torn { lost: (unsynced - kept) as u64, holes: holes as u64 }
    }

    /// A process starts: what it finds, it writes again and syncs before it says anything (R24).
    pub fn recover(&mut self) {
        self.sync(self.end());
    }

    /// An entry that was synced is damaged: with it goes what is behind it in its partition. Which partition that is.
    pub fn damage(&mut self, random: &mut Random) -> Option<PartitionKey> {
        let logs: Vec<_> = self.durable.iter().filter(|(_, log)| log.last().0 > 0).collect();
        let (key, log) = random.pick(&logs)?;
        let (key, kept) = (**key, random.below(log.last().0));
        for contents in [&mut self.durable, &mut self.written] {
            contents.entry(key).or_default().apply(Record::Truncate(key, Offset(kept)));
        }
        self.damaged.insert(key);
        Some(key)
    }

    /// Is that partition known to be damaged?
    pub fn is_damaged(&self, key: PartitionKey) -> bool {
        self.damaged.contains(&key)
    }

    /// The partitions that are damaged.
    pub fn damaged(&self) -> Vec<PartitionKey> {
        self.damaged.iter().copied().collect()
    }

    /// A damaged copy is given up, and begins anew. What is left of it is kept: the leader may not have all of it.
    pub fn rebuild(&mut self, key: PartitionKey) -> Option<usize> {
        self.save(key, Offset(0));
        let end = self.append(&[Record::Purge(key)])?;
        self.damaged.remove(&key);
        Some(end)
    }

    /// The disk as it would be after a power cut that loses all it can.
    pub fn image(&self) -> Self {
        Self {
            synced: self.synced,
            tail: VecDeque::new(),
            written: self.durable.clone(),
            full: false,
            ..self.clone()
        }
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
            assert!(disk.unsaved, "the cut entry is in no lost+found");
            let torn = disk.cut(&mut Random::new(seed));
            assert!(torn.holes < torn.lost.max(1), "{torn:?}");
            assert_eq!(disk.written(KEY).last(), Offset(if torn.lost == 1 { 2 } else { 1 }));
            assert_eq!(disk.durable(KEY).last(), disk.written(KEY).last());
            assert_eq!(disk.synced(), disk.end());
        }
    }

    #[test]
    fn damage_takes_the_rest_of_its_partition_and_an_image_is_the_synced_part() {
        let mut disk = Disk::default();
        let batch: Vec<_> = (1..=5).map(|n| Record::Entry(KEY, Offset(n), entry(1, n))).collect();
        disk.append(&batch[..4]).unwrap();
        disk.sync(4);
        disk.append(&batch[4..]).unwrap();
        let mut image = disk.image();
        assert_eq!((image.written(KEY).last(), image.end()), (Offset(4), 4));
        assert_eq!(image.damage(&mut Random::new(1)), Some(KEY));
        assert!(image.is_damaged(KEY) && image.written(KEY).last() < Offset(4));
        assert_eq!(disk.written(KEY).last(), Offset(5));
        image.rebuild(KEY).unwrap();
        assert!(!image.is_damaged(KEY) && image.written(KEY).last() == Offset(0));
    }

    #[test]
    fn a_full_disk_changes_nothing() {
        let mut disk = Disk { full: true, ..Default::default() };
        assert_eq!(disk.append(&[Record::EpochStart(KEY, Epoch(1))]), None);
        assert_eq!(disk.end(), 0);
    }
}
