//! What a replica has written to its log, and what of it is on disk.
//!
//! Invariants: offsets have no holes; a write's number is never used twice in a process; an entry counts as synced only
//! when a write at or behind it is reported as synced; whoever asks whether something may be said ([`Journal::settled`])
//! gets no before the last epoch start and the last truncation are on disk (R2, R4), whatever the table's `sync`.

use std::collections::VecDeque;

use stela_common::ids::{Epoch, Offset};
use stela_common::table::Sync;

use crate::epochs::Epochs;
use crate::message::{Stored, Write};
use crate::variant::Variant;

/// The log of one replica, as far as decisions rest on it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    epoch: Epoch,
    epochs: Epochs,
    last: Offset,
    written: Write,
    done: Write,
    awaited: Write,
    synced: Offset,
    /// Writes of entries that are not known to be synced, and the last entry of each.
    unsynced: VecDeque<(Write, Offset)>,
}

impl Journal {
    /// What a log holds.
    pub(crate) fn new(stored: Stored) -> Self {
        let Stored { epoch, epochs, last, written, .. } = stored;
        let (synced, unsynced) = match written {
            Write(0) => (last, VecDeque::new()),
            written => (Offset(0), VecDeque::from([(written, last)])),
        };
        Self { epoch, epochs, last, written, done: Write(0), awaited: written, synced, unsynced }
    }

    /// The highest epoch that was stored, or is about to be.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The epochs of the entries.
    pub(crate) fn epochs(&self) -> &Epochs {
        &self.epochs
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Offset {
        self.last
    }

    /// Up to where entries are stored as the table asks: synced, or written.
    pub(crate) fn stable<V: Variant>(&self, sync: Sync) -> Offset {
        match sync {
            Sync::Commit if !V::ACK_BEFORE_SYNC => self.synced,
            _ => self.last,
        }
    }

    /// Are the epoch and the last truncation on disk, so that something may be said in that epoch?
    pub(crate) fn settled(&self) -> bool {
        self.done >= self.awaited
    }

    /// An epoch begins: the number of the record that says so.
    pub(crate) fn store_epoch(&mut self, epoch: Epoch) -> Write {
        self.epoch = self.epoch.max(epoch);
        self.awaited = self.number();
        self.awaited
    }

    /// Entries beyond `to` are cut: the number of the record that says so.
    pub(crate) fn truncate(&mut self, to: Offset) -> Write {
        self.forget(to);
        self.awaited = self.number();
        self.awaited
    }

    /// The next entry, alone in its write.
    pub(crate) fn append(&mut self, epoch: Epoch) -> Write {
        self.append_all([epoch].into_iter())
    }

    /// The next entries, in one write.
    pub(crate) fn append_all(&mut self, epochs: impl Iterator<Item = Epoch>) -> Write {
        for epoch in epochs {
            self.last = self.last.next();
            self.epochs.appended(epoch, self.last);
        }
        let write = self.number();
        self.unsynced.push_back((write, self.last));
        write
    }

    /// The log did not take the last entry.
    pub(crate) fn revoke(&mut self, write: Write, offset: Offset) {
        debug_assert_eq!(offset, self.last, "writes are revoked from the end");
        if offset == self.last && self.unsynced.back().is_some_and(|(w, _)| *w == write) {
            self.unsynced.pop_back();
            self.forget(Offset(offset.0.saturating_sub(1)));
        }
    }

    /// Everything up to that write is on disk.
    pub(crate) fn synced(&mut self, write: Write) {
        self.done = self.done.max(write);
        while let Some((_, offset)) = self.unsynced.front().filter(|(w, _)| *w <= write) {
            self.synced = self.synced.max(*offset);
            self.unsynced.pop_front();
        }
    }

    fn forget(&mut self, to: Offset) {
        self.last = self.last.min(to);
        self.epochs.truncate(self.last);
        self.synced = self.synced.min(self.last);
        for (_, offset) in &mut self.unsynced {
            *offset = self.last.min(*offset);
        }
    }

    /// The last number given.
    #[cfg(test)]
    pub(crate) fn written(&self) -> Write {
        self.written
    }

    fn number(&mut self) -> Write {
        self.written = Write(self.written.0 + 1);
        self.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variant::Sound;

    fn journal(written: u64) -> Journal {
        let epochs = [(Epoch(1), Offset(1))].into_iter().collect();
        Journal::new(Stored {
            epoch: Epoch(1),
            epochs,
            last: Offset(3),
            written: Write(written),
            ..Stored::default()
        })
    }

    fn stable(journal: &Journal) -> (u64, u64) {
        (journal.stable::<Sound>(Sync::Commit).0, journal.stable::<Sound>(Sync::Interval(10)).0)
    }

    #[test]
    fn what_is_written_is_stable_when_it_is_synced() {
        let mut j = journal(0);
        assert_eq!(stable(&j), (3, 3));
        let first = j.append(Epoch(1));
        let second = j.append_all([Epoch(2), Epoch(2)].into_iter());
        assert_eq!(stable(&j), (3, 6));
        assert_eq!(j.epochs().epoch_at(Offset(5)), Epoch(2));
        j.synced(first);
        assert_eq!(stable(&j), (4, 6));
        j.synced(second);
        assert_eq!(stable(&j), (6, 6));
    }

    #[test]
    fn a_cut_waits_for_its_own_record_and_what_was_cut_is_never_stable() {
        let mut j = journal(0);
        let cut = j.append_all([Epoch(1), Epoch(1)].into_iter());
        let truncate = j.truncate(Offset(4));
        let after = j.append(Epoch(2));
        assert!(!j.settled());
        j.synced(cut);
        assert_eq!(stable(&j), (4, 5));
        assert!(!j.settled());
        j.synced(truncate);
        assert!(j.settled());
        assert_eq!(stable(&j), (4, 5));
        j.synced(after);
        assert_eq!(stable(&j), (5, 5));
    }

    #[test]
    fn revoked_writes_leave_nothing_behind() {
        let mut j = journal(0);
        let (first, second) = (j.append(Epoch(2)), j.append(Epoch(2)));
        j.revoke(second, Offset(5));
        j.revoke(first, Offset(4));
        assert_eq!((j.last(), j.epochs().last()), (Offset(3), Some((Epoch(1), Offset(1)))));
        let third = j.append(Epoch(2));
        assert!(third > second, "numbers are not used again");
        j.synced(third);
        assert_eq!(stable(&j), (4, 4));
    }

    /// A core made anew after a failed write: what its predecessor wrote may not be on disk yet.
    #[test]
    fn numbers_go_on_behind_those_of_a_predecessor() {
        let mut j = journal(7);
        assert_eq!(stable(&j), (0, 3));
        assert!(!j.settled());
        let next = j.store_epoch(Epoch(2));
        assert_eq!(next, Write(8));
        j.synced(Write(7));
        assert_eq!(stable(&j), (3, 3));
        assert!(!j.settled());
        j.synced(next);
        assert!(j.settled());
    }
}
