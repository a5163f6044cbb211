//! The epochs of a replica's entries: which epoch began at which offset.
//!
//! Invariants: first offsets ascend, and in a log that keeps the rules epochs ascend with them; an epoch in which
//! nothing was written does not appear. Two logs that have the same epoch at an offset are equal up to there (an epoch
//! has one leader, which gives each offset once, and a record is only appended behind one that agrees, R5): that makes
//! a common point out of two short lists.

use stela_common::ids::{Epoch, Offset};

/// Epochs and their first offsets, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Epochs(Vec<(Epoch, Offset)>);

impl Epochs {
    /// Entries from `first` on have that epoch.
    pub fn push(&mut self, epoch: Epoch, first: Offset) {
        debug_assert!(self.0.last().is_none_or(|(_, f)| *f < first), "first offsets ascend");
        self.0.push((epoch, first));
    }

    /// The entry `offset`, the last one, has that epoch.
    pub fn appended(&mut self, epoch: Epoch, offset: Offset) {
        if self.0.last().is_none_or(|(e, _)| *e != epoch) {
            self.push(epoch, offset);
        }
    }

    /// Entries beyond `to` are void.
    pub fn truncate(&mut self, to: Offset) {
        let keep = self.0.partition_point(|(_, first)| *first <= to);
        self.0.truncate(keep);
    }

    /// The last epoch that has an entry, and the first one of it.
    #[must_use]
    pub fn last(&self) -> Option<(Epoch, Offset)> {
        self.0.last().copied()
    }

    /// The epoch of an entry that is in the log; 0 before the first.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Epoch {
        // Nearly always it is the last one that is asked for.
        match self.0.last() {
            Some((epoch, first)) if *first <= offset => return *epoch,
            _ => {}
        }
        let at = self.0.partition_point(|(_, first)| *first <= offset);
        at.checked_sub(1).map_or(Epoch(0), |i| self.0[i].0)
    }

    /// Epochs and their first offsets, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Epoch, Offset)> + '_ {
        self.0.iter().copied()
    }

    /// How many epochs have an entry.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there no entry at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last entry that two logs have in common (R4): the highest offset that both have, with the same epoch.
    #[must_use]
    pub fn common_point(&self, last: Offset, other: &Self, other_last: Offset) -> Offset {
        let (mut mine, mut others) = (self.0.as_slice(), other.0.as_slice());
        let mut end = last.min(other_last);
        while end.0 > 0 {
            mine = upto(mine, end);
            others = upto(others, end);
            let (Some((epoch, first)), Some((other_epoch, other_first))) =
                (mine.last(), others.last())
            else {
                break;
            };
            if epoch == other_epoch {
                return end;
            }
            // From here down to the later of both beginnings the epochs differ.
            let first = (*first).max(*other_first);
            end = Offset(first.0.saturating_sub(1));
        }
        Offset(0)
    }
}

/// The epochs that have an entry up to `end`.
fn upto(starts: &[(Epoch, Offset)], end: Offset) -> &[(Epoch, Offset)] {
    &starts[..starts.partition_point(|(_, first)| *first <= end)]
}

impl FromIterator<(Epoch, Offset)> for Epochs {
    fn from_iter<I: IntoIterator<Item = (Epoch, Offset)>>(starts: I) -> Self {
        let mut epochs = Self::default();
        for (epoch, first) in starts {
            epochs.push(epoch, first);
        }
        epochs
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A log as the list of its entries' epochs.
    fn epochs_of(log: &[u64]) -> Epochs {
        let mut epochs = Epochs::default();
        for (at, epoch) in log.iter().enumerate() {
            epochs.appended(Epoch(*epoch), Offset(at as u64 + 1));
        }
        epochs
    }

    fn last(log: &[u64]) -> Offset {
        Offset(log.len() as u64)
    }

    fn naive(a: &[u64], b: &[u64]) -> Offset {
        let both = a.len().min(b.len());
        Offset((1..=both).rev().find(|n| a[n - 1] == b[n - 1]).unwrap_or(0) as u64)
    }

    #[test]
    fn tells_the_epoch_of_each_entry() {
        let epochs = epochs_of(&[1, 1, 3, 3, 3, 7]);
        let found: Vec<u64> = (0..=7).map(|n| epochs.epoch_at(Offset(n)).0).collect();
        assert_eq!(found, [0, 1, 1, 3, 3, 3, 7, 7]);
        assert_eq!(epochs.last(), Some((Epoch(7), Offset(6))));
    }

    #[test]
    fn forgets_what_is_cut() {
        let mut epochs = epochs_of(&[1, 1, 3, 3, 7]);
        epochs.truncate(Offset(4));
        assert_eq!(epochs, epochs_of(&[1, 1, 3, 3]));
        epochs.truncate(Offset(2));
        assert_eq!(epochs, epochs_of(&[1, 1]));
        epochs.truncate(Offset(0));
        assert!(epochs.is_empty());
    }

    #[test]
    fn finds_where_two_logs_part() {
        let leader = epochs_of(&[1, 1, 2, 2, 4]);
        let common = |log: &[u64]| leader.common_point(Offset(5), &epochs_of(log), last(log)).0;
        assert_eq!(common(&[1, 1, 2, 2, 4]), 5, "equal");
        assert_eq!(common(&[1, 1, 2]), 3, "behind");
        assert_eq!(common(&[1, 1, 2, 2, 2, 2]), 4, "entries of epoch 2 that the leader never got");
        assert_eq!(common(&[1, 1, 2, 2, 3, 3]), 4, "entries of an epoch that the leader never saw");
        assert_eq!(common(&[1, 1, 1, 1, 1, 1]), 2, "a tail of epoch 1");
        assert_eq!(common(&[]), 0, "empty");
    }

    /// Epochs that ascend, as in a log that kept the rules.
    fn log() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(0_u64..3, 0..12).prop_map(|steps| {
            let mut epoch = 1;
            steps
                .into_iter()
                .map(|step| {
                    epoch += step;
                    epoch
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn common_point_is_the_naive_one(a in log(), b in log()) {
            let found = epochs_of(&a).common_point(last(&a), &epochs_of(&b), last(&b));
            prop_assert_eq!(found, naive(&a, &b));
            prop_assert_eq!(found, epochs_of(&b).common_point(last(&b), &epochs_of(&a), last(&a)));
        }

        /// A foreign history is not trusted to ascend in its epochs.
        #[test]
        fn common_point_is_total(a in prop::collection::vec(1_u64..4, 0..10), b in prop::collection::vec(1_u64..4, 0..10)) {
            let found = epochs_of(&a).common_point(last(&a), &epochs_of(&b), last(&b));
            prop_assert_eq!(found, naive(&a, &b));
        }
    }
}
