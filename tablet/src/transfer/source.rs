//! What a leader keeps while a snapshot of it goes to a follower: the file, and its log behind it (R29).
//!
//! A transfer that is interrupted goes on with the same file for a while, although a newer one may have replaced it. The
//! log is kept until the follower has joined, or more than twice the file's size was written since: then the follower
//! would be outrun again, and the next attempt keeps the log for as long as it takes and the disk has room.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stela_common::clock::Millis;
use stela_common::fs::File;
use stela_common::ids::{PartitionKey, TabletId};
use stela_common::log::Position;

use crate::node::Pin;

/// What is kept for a follower that does not come back, ms.
pub(super) const KEPT: u64 = 60_000;

/// A snapshot on its way to one follower. The file is there while it is open, whatever its name is given to.
#[derive(Clone)]
pub(super) struct Source {
    /// Names the snapshot.
    pub(super) id: u64,
    /// Bytes of the file.
    pub(super) total: u64,
    pub(super) file: Arc<File>,
}

struct Kept<P> {
    source: Source,
    pin: Option<P>,
    /// The log is kept whatever is written.
    patient: bool,
    /// The end of the log when it began.
    began: Position,
    used: Millis,
}

/// All that is kept.
pub(super) struct Sources<P = Pin> {
    kept: BTreeMap<(PartitionKey, TabletId), Kept<P>>,
    /// Followers that were outrun: their next transfer is waited for.
    outrun: BTreeSet<(PartitionKey, TabletId)>,
    /// Pins that are over: they end without any lock being held.
    over: Vec<P>,
}

/// What [`Sources::tidy`] let go of.
pub(super) struct Tidied<P> {
    /// Whose log is no longer kept although the transfer goes on.
    pub(super) outrun: Vec<(PartitionKey, TabletId)>,
    /// To be dropped where no lock is held.
    pub(super) over: Vec<P>,
}

impl<P> Default for Sources<P> {
    fn default() -> Self {
        Self { kept: BTreeMap::new(), outrun: BTreeSet::new(), over: Vec::new() }
    }
}

impl<P> Sources<P> {
    /// What is kept for that follower, if it is that snapshot.
    pub(super) fn find(
        &mut self,
        key: PartitionKey,
        peer: TabletId,
        id: u64,
        now: Millis,
    ) -> Option<Source> {
        let kept = self.kept.get_mut(&(key, peer))?;
        if kept.source.id != id {
            return None;
        }
        kept.used = now;
        Some(kept.source.clone())
    }

    /// A transfer begins. Tells whether the log is kept whatever is written.
    pub(super) fn begin(
        &mut self,
        key: PartitionKey,
        peer: TabletId,
        source: Source,
        pin: P,
        began: Position,
        now: Millis,
    ) -> bool {
        let patient = self.outrun.contains(&(key, peer));
        let pin = Some(pin);
        let before = self.kept.insert((key, peer), Kept { source, pin, patient, began, used: now });
        self.over.extend(before.and_then(|kept| kept.pin));
        patient
    }

    /// Bytes go.
    pub(super) fn used(&mut self, key: PartitionKey, peer: TabletId, now: Millis) {
        if let Some(kept) = self.kept.get_mut(&(key, peer)) {
            kept.used = now;
        }
    }

    pub(super) fn joined(&mut self, key: PartitionKey, peer: TabletId) {
        let kept = self.kept.remove(&(key, peer));
        self.over.extend(kept.and_then(|kept| kept.pin));
        self.outrun.remove(&(key, peer));
    }

    /// Lets go of what is kept for too long.
    pub(super) fn tidy(&mut self, end: Position, disk_is_full: bool, now: Millis) -> Tidied<P> {
        let mut over = std::mem::take(&mut self.over);
        self.kept.retain(|_, kept| {
            let stays = now.since(kept.used) < KEPT;
            over.extend(kept.pin.take_if(|_| !stays));
            stays
        });
        let mut outrun = Vec::new();
        for (which, kept) in &mut self.kept {
            let written = end.0.saturating_sub(kept.began.0);
            let too_much = !kept.patient && written > kept.source.total * 2;
            if let Some(pin) = kept.pin.take_if(|_| too_much || disk_is_full) {
                over.push(pin);
                self.outrun.insert(*which);
                outrun.push(*which);
            }
        }
        Tidied { outrun, over }
    }
}

#[cfg(test)]
mod tests {
    use stela_common::fs::Disk;

    use super::*;

    const KEY: PartitionKey = PartitionKey::new(7, 0);
    const PEER: TabletId = TabletId(2);

    struct Bench {
        sources: Sources<Arc<()>>,
        source: Source,
        pin: Arc<()>,
        _home: tempfile::TempDir,
    }

    impl Bench {
        /// A transfer of 100 bytes that begins when the log ends at 1000.
        fn begun() -> Self {
            let home = tempfile::tempdir().unwrap();
            let file = Disk::real().create_new(&home.path().join("snapshot")).unwrap();
            let source = Source { id: 9, total: 100, file: Arc::new(file) };
            let pin = Arc::new(());
            let mut b = Self { sources: Sources::default(), source, pin, _home: home };
            assert!(!b.begin(1000, 0));
            b
        }

        fn begin(&mut self, end: u64, now: u64) -> bool {
            let (source, pin) = (self.source.clone(), self.pin.clone());
            self.sources.begin(KEY, PEER, source, pin, Position(end), Millis(now))
        }

        fn tidy(&mut self, end: u64, full: bool, now: u64) -> usize {
            self.sources.tidy(Position(end), full, Millis(now)).outrun.len()
        }

        fn pinned(&self) -> bool {
            Arc::strong_count(&self.pin) > 1
        }

        fn goes_on(&mut self, id: u64) -> bool {
            self.sources.find(KEY, PEER, id, Millis(0)).is_some()
        }
    }

    /// H22: the second attempt is not outrun.
    #[test]
    fn the_log_is_kept_for_twice_the_size_and_then_for_as_long_as_it_takes() {
        let mut b = Bench::begun();
        assert_eq!(b.tidy(1200, false, 1), 0);
        assert!(b.pinned());
        assert_eq!(b.tidy(1201, false, 2), 1);
        assert!(!b.pinned());
        assert_eq!(b.tidy(9000, false, 3), 0, "said once");
        assert!(b.goes_on(9), "the file is sent to its end");

        assert!(b.begin(9000, 4), "it is waited for");
        assert_eq!(b.tidy(99_000, false, 5), 0);
        assert!(b.pinned());
        assert_eq!(b.tidy(99_000, true, 6), 1, "as long as the disk has room");
        assert!(!b.pinned());

        b.sources.joined(KEY, PEER);
        assert!(!b.begin(99_000, 7), "another time it is as at first");
    }

    #[test]
    fn nothing_is_kept_for_who_has_joined_or_stays_away() {
        let mut b = Bench::begun();
        assert!(b.goes_on(9) && !b.goes_on(8));
        b.sources.joined(KEY, PEER);
        assert!(!b.goes_on(9));
        b.tidy(1000, false, 1);
        assert!(!b.pinned());

        b.begin(1000, 0);
        b.tidy(1000, false, KEPT - 1);
        assert!(b.pinned());
        b.sources.used(KEY, PEER, Millis(KEPT - 1));
        b.tidy(1000, false, KEPT + 1);
        assert!(b.pinned());
        b.tidy(1000, false, 2 * KEPT);
        assert!(!b.pinned() && !b.goes_on(9));
    }
}
