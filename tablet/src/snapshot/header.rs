//! What a snapshot says of itself.

use serde::{Deserialize, Serialize};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::Position;
use stela_replica::epochs::Epochs;

use super::keys::Section;
use crate::sealed::HEAD;
use crate::store::dedup::Remembered;

/// All that a replica is at an offset, but for its rows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Drawn when it was made: names it in an `Installed` record.
    pub id: u64,
    /// The partition.
    pub key: PartitionKey,
    /// The Raft index that created the table; 0: not known.
    pub created_index: u64,
    /// The last entry that is in it. It was committed (R28).
    pub offset: Offset,
    /// That entry's epoch.
    pub last_epoch: Epoch,
    /// The highest epoch that the replica had acted in.
    pub epoch: Epoch,
    /// The epochs of the entries up to `offset`.
    #[serde(with = "starts")]
    pub epochs: Epochs,
    /// The request ids that are remembered at `offset` (R32).
    pub dedup: Remembered,
    /// In the log beside which it was made: earlier records of the partition are dead (R26).
    pub replay_from: Position,
    /// How many unclean elections the partition had had, as far as was known (R35).
    #[serde(default)]
    pub uncleans: u64,
    /// Why the copy of which it was made was not whole: it is still not.
    #[serde(default)]
    pub damaged: Option<String>,
    /// Where the values end.
    pub values_end: u64,
    /// Where each index stands, in the order of the table.
    pub indexes: Vec<Section>,
}

impl Header {
    /// Whether it agrees with itself and with where it stands.
    pub(super) fn check(&self, header_at: u64) -> Result<(), &'static str> {
        let mut end = self.values_end;
        if end < HEAD as u64 {
            return Err("the values end before they begin");
        }
        for section in &self.indexes {
            end = section.check(end)?;
        }
        if end != header_at {
            return Err("it does not begin where the indexes end");
        }
        if self.offset == Offset(0) || self.epochs.epoch_at(self.offset) != self.last_epoch {
            return Err("the last entry is not of the epoch that is said");
        }
        if self.epochs.last().is_some_and(|(_, first)| first > self.offset)
            || self.epoch < self.last_epoch
        {
            return Err("the epochs go on behind the last entry");
        }
        self.dedup.check(self.offset)
    }
}

/// Epochs as pairs, which must ascend.
pub(crate) mod starts {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{Epoch, Epochs, Offset};

    pub(crate) fn serialize<S: Serializer>(epochs: &Epochs, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(epochs.iter())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Epochs, D::Error> {
        let starts = Vec::<(Epoch, Offset)>::deserialize(from)?;
        let ascend = |a: &(Epoch, Offset), b: &(Epoch, Offset)| a.0 < b.0 && a.1 < b.1;
        if starts.is_sorted_by(ascend) && starts.first().is_none_or(|(_, first)| first.0 > 0) {
            Ok(starts.into_iter().collect())
        } else {
            Err(D::Error::custom("epochs do not ascend"))
        }
    }
}
