//! Which partitions are whole although bytes of the log are damaged (R30).
//!
//! Damage in segment k is judged by what segment k+1 begins with, where each partition ended, or by the record of a
//! clean stop; and by the entries behind the damage: one that follows the last one before it, in the same epoch, proves
//! that nothing of its partition was lost in between.
//!
//! **Invariants**
//! * In doubt a partition is a suspect. Votes and notes are not counted by anybody: their owner judges by the place.
//! * A partition that is known from nowhere but the damaged bytes cannot be named.

use std::collections::BTreeSet;

use super::ends::Ends;
use super::record::{CHECKPOINT, Kind, Record};
use crate::ids::{Offset, PartitionKey};

/// What is open about one damaged place.
#[derive(Debug, Default)]
struct Question {
    damage: usize,
    /// Known before; nothing seen since.
    unproven: BTreeSet<PartitionKey>,
    /// Something of it is missing, or may be.
    lost: BTreeSet<PartitionKey>,
}

/// Goes through the log in order.
#[derive(Debug, Default)]
pub(super) struct Judge {
    ends: Ends,
    open: Vec<Question>,
    /// For each damaged place, in order.
    suspects: Vec<BTreeSet<PartitionKey>>,
}

impl Judge {
    /// The next bytes are damaged.
    pub(super) fn damage(&mut self) {
        let damage = self.suspects.len();
        self.suspects.push(BTreeSet::new());
        self.open.push(Question {
            damage,
            unproven: self.ends.partitions().collect(),
            lost: BTreeSet::new(),
        });
    }

    /// The next record.
    pub(super) fn record(&mut self, record: &Record<'_>) {
        if record.kind == Kind::Ends {
            if record.flags & CHECKPOINT == 0 {
                self.evidence(Ends::decode(record.body));
            }
            return;
        }
        if !self.open.is_empty() {
            self.behind_damage(record);
        }
        self.ends.apply(record);
    }

    fn behind_damage(&mut self, record: &Record<'_>) {
        let known = self.ends.get(record.partition);
        let end = known.unwrap_or_default();
        for question in &mut self.open {
            let unproven = question.unproven.contains(&record.partition);
            match record.kind {
                Kind::Entry => {
                    let follows = record.offset == Offset(end.offset.0.saturating_add(1));
                    // In another epoch the last entries before it may have been cut and written anew, unseen.
                    let same = !unproven || record.epoch == end.epoch;
                    question.unproven.remove(&record.partition);
                    if !(follows && same) {
                        question.lost.insert(record.partition);
                    }
                }
                // What was before is dead (R26), or it is gone altogether.
                Kind::Installed => {
                    question.unproven.remove(&record.partition);
                    question.lost.remove(&record.partition);
                }
                Kind::Purge if record.offset == Offset(0) => {
                    question.unproven.remove(&record.partition);
                    question.lost.remove(&record.partition);
                }
                Kind::Truncate if record.offset > end.offset => {
                    question.lost.insert(record.partition);
                }
                _ => {}
            }
        }
    }

    /// Where each partition ended, by the log's own record.
    fn evidence(&mut self, recorded: Ends) {
        for mut question in self.open.drain(..) {
            let whole = |key: &PartitionKey| self.ends.get(*key) == recorded.get(*key);
            question.lost.extend(question.unproven.into_iter().filter(|key| !whole(key)));
            question.lost.extend(recorded.partitions().filter(|key| !whole(key)));
            self.suspects[question.damage] = question.lost;
        }
        self.ends = recorded;
    }

    /// The end of the log: where each partition ends, and who is suspect for each damaged place.
    pub(super) fn finish(mut self) -> (Ends, Vec<BTreeSet<PartitionKey>>) {
        for mut question in self.open {
            question.lost.append(&mut question.unproven);
            self.suspects[question.damage] = question.lost;
        }
        (self.ends, self.suspects)
    }
}
