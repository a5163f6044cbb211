//! Where each partition ends (R30), as the log knows it from what is appended.
//!
//! **Invariant**: running and recovering apply the same function to the same records, so both come to the same end;
//! that is what makes a segment's first record evidence about the segment before.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use super::record::{Kind, Record};
use crate::ids::{Epoch, Offset, PartitionKey};

/// The end of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct End {
    /// The last entry.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// The highest epoch in which the replica began to act: a lost `EpochStart` shows here.
    pub acted: Epoch,
}

/// The ends of all partitions of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends(HashMap<PartitionKey, End, BuildHasherDefault<Mix>>);

const STORED: usize = 32;

impl Ends {
    pub(super) fn get(&self, partition: PartitionKey) -> Option<End> {
        self.0.get(&partition).copied()
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = PartitionKey> {
        self.0.keys().copied()
    }

    pub(super) fn sorted(&self) -> BTreeMap<PartitionKey, End> {
        self.0.iter().map(|(key, end)| (*key, *end)).collect()
    }

    /// Knows nothing of these any more.
    pub(super) fn forget(&mut self, partitions: &BTreeSet<PartitionKey>) {
        self.0.retain(|key, _| !partitions.contains(key));
    }

    /// Takes note of an appended record.
    #[inline]
    pub(super) fn apply(&mut self, record: &Record<'_>) {
        match record.kind {
            Kind::Entry | Kind::Truncate | Kind::Installed => {
                let end = self.0.entry(record.partition).or_default();
                end.offset = record.offset;
                end.epoch = record.epoch;
            }
            Kind::EpochStart => {
                let end = self.0.entry(record.partition).or_default();
                end.acted = end.acted.max(record.epoch);
            }
            Kind::Purge => {
                let last = self.get(record.partition).unwrap_or_default().offset;
                if record.offset == Offset(0) || record.offset >= last {
                    self.0.remove(&record.partition);
                }
            }
            Kind::Ends | Kind::Vote | Kind::Note => {}
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.0.len() * STORED);
        for (key, end) in self.0.iter().collect::<BTreeMap<_, _>>() {
            body.extend_from_slice(&key.tid.0.to_le_bytes());
            body.extend_from_slice(&key.pid.0.to_le_bytes());
            body.extend_from_slice(&end.offset.0.to_le_bytes());
            body.extend_from_slice(&end.epoch.0.to_le_bytes());
            body.extend_from_slice(&end.acted.0.to_le_bytes());
        }
        body
    }

    /// The body of an `Ends` record whose checksum was verified; a trailing part of an item is no item.
    pub(super) fn decode(body: &[u8]) -> Self {
        let (items, _) = body.as_chunks::<STORED>();
        let decoded = items.iter().map(|item| {
            let u64_at = |i: usize| {
                (0..8).fold(0, |sum, byte| sum | u64::from(item[i + byte]) << (8 * byte))
            };
            let halves = u64_at(0);
            // The two halves of a u64: no truncation.
            let key =
                PartitionKey::new((halves & u64::from(u32::MAX)) as u32, (halves >> 32) as u32);
            (
                key,
                End {
                    offset: Offset(u64_at(8)),
                    epoch: Epoch(u64_at(16)),
                    acted: Epoch(u64_at(24)),
                },
            )
        });
        Self(decoded.collect())
    }
}

/// Mixes two small numbers; partition keys are ours, nobody chooses them to collide.
#[derive(Default)]
pub(super) struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
    }
}
