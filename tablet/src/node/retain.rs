//! What of the log is given back, and what is done when too much of it is pinned (R29).
//!
//! The log is kept from the least position that somebody needs: a replica to be made again (what is behind its snapshot),
//! a follower that is being shipped old entries, a transfer. The followers count only while the log is within its bound:
//! who is that far behind gets a snapshot. What pins the most of a log beyond its bound is put into a snapshot, be it
//! ever so small; where that is not possible, its records are moved into files of their own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{Kind, Position};

use stela_replica::message::Input;

use super::snapshot::Unmade;
use super::{Inner, Node};
use crate::partition::Partition;

/// Bytes of records in one file, about.
const MOVED: usize = 16 << 20;

/// Entries for one file.
struct Gathered {
    first: Offset,
    last: Offset,
    epoch: Epoch,
    raw: Vec<u8>,
}

/// Keeps the log from a position on, as long as it lives.
pub struct Pin {
    node: Arc<Node>,
    name: u64,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.node.pins.lock().remove(&self.name);
    }
}

impl Node {
    /// Keeps the log from there on until the guard goes: if it still has that then, which its start tells. Neither this
    /// nor the guard's end may be under the node's lock.
    #[must_use]
    pub fn pin(self: &Arc<Self>, from: Position) -> Pin {
        let name = self.conns.fetch_add(1, Ordering::Relaxed);
        self.pins.lock().insert(name, from);
        Pin { node: self.clone(), name }
    }

    /// Puts into snapshots what is due, and shortens the log. One who makes snapshots waits until this is done.
    pub(crate) async fn keep_short(self: &Arc<Self>, tried: &mut impl FnMut(PartitionKey) -> bool) {
        for key in self.due() {
            if tried(key) {
                // It has been said why not.
                let _ = self.make_snapshot(key).await;
            }
        }
        let mut pinning = self.look().needs().collect::<Vec<_>>();
        pinning.sort_by_key(|(_, at)| *at);
        let mut pinning = pinning.into_iter();
        loop {
            let node = self.clone();
            let given = tokio::task::spawn_blocking(move || node.give_back()).await;
            if let Ok(Err(error)) = given {
                tracing::warn!(%error, "the log cannot be shortened");
                return;
            }
            // What begins in the last segment makes the log no longer than it is anyway.
            let last = self.log.end().0 / self.segment_length();
            let next = pinning.next().filter(|(_, at)| at.0 / self.segment_length() < last);
            let Some((key, _)) = next.filter(|_| self.log_is_long()) else { return };
            if tried(key) {
                self.shorten(key).await;
            }
        }
    }

    /// Makes a snapshot of every copy that has changed since its last one.
    pub(crate) async fn snapshot_all(self: &Arc<Self>) {
        let changed: Vec<PartitionKey> = {
            let inner = self.look();
            let changed =
                |p: &Partition| p.quarantine.is_none() && !p.paused && p.applied > p.store.base();
            inner.partitions.iter().filter(|(_, p)| changed(p)).map(|(key, _)| *key).collect()
        };
        for key in changed {
            // Why one was not made is in the log; the next one is tried.
            let _ = self.make_snapshot(key).await;
        }
    }

    /// The copies of which a snapshot is due, those that have grown most first.
    fn due(&self) -> Vec<PartitionKey> {
        let when = self.config.snapshots;
        let inner = self.look();
        let due = inner.partitions.iter().filter(|(_, p)| {
            let entries = p.applied.0.saturating_sub(p.store.base().0);
            let below = p.store.snapshot().map_or(0, |s| s.bytes());
            let many = when.every != 0 && entries >= when.every;
            p.quarantine.is_none() && !p.paused && (many || p.store.grown() > when.grown.max(below))
        });
        let mut due: Vec<_> = due.map(|(key, p)| (p.store.grown(), *key)).collect();
        due.sort_unstable_by(|a, b| b.cmp(a));
        due.into_iter().map(|(_, key)| key).collect()
    }

    /// A copy that pins too much of the log is put into a snapshot, or its records into files of their own.
    async fn shorten(self: &Arc<Self>, key: PartitionKey) {
        let whole = self.look().partitions.get(&key).is_some_and(|p| p.quarantine.is_none());
        if whole {
            let _ = self.make_snapshot(key).await;
            return;
        }
        let _one = self.snapshots.lock().await;
        let node = self.clone();
        let moved = tokio::task::spawn_blocking(move || node.release(key)).await;
        match moved {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%key, %error, "a damaged copy keeps the log from being shortened")
            }
            Err(error) => {
                tracing::error!(%key, %error, "a damaged copy keeps the log from being shortened")
            }
        }
    }

    /// Moves what a copy has in the log out of it: what can be read goes into a snapshot, which says that the copy is not
    /// whole, the other records as they are into `lost+found`.
    fn release(&self, key: PartitionKey) -> Result<(), Unmade> {
        let here = self.look().partitions.contains_key(&key);
        let base = if here { self.make(key, true)? } else { Offset(0) };
        let Some(from) = self.look().needs().find(|(k, _)| *k == key).map(|(_, at)| at) else {
            return Ok(());
        };
        self.move_out(key, from, |offset, _| offset > base)?;
        let mut inner = self.look();
        if let Some(p) = inner.partitions.get_mut(&key) {
            p.released = true;
        }
        if let Some(loaded) = inner.orphans.get_mut(&key) {
            loaded.release();
        }
        Ok(())
    }

    /// Copies those entries of a partition that are to be kept, as they stand in the log from there on, to `lost+found`,
    /// synced.
    pub(super) fn move_out(
        &self,
        key: PartitionKey,
        from: Position,
        kept: impl Fn(Offset, Epoch) -> bool,
    ) -> io::Result<()> {
        let mut walk = self.log.walk(from.max(self.log.start()));
        let mut gathered: Option<Gathered> = None;
        loop {
            let record = walk.next();
            let full = gathered.as_ref().is_some_and(|g| g.raw.len() >= MOVED);
            if let Some(g) = gathered.take_if(|_| record.is_none() || full) {
                let path = self.files.save_tail(key, g.epoch, g.first, g.last, &g.raw)?;
                let (first, last, file) = (g.first, g.last, path.display());
                tracing::warn!(%key, %first, %last, %file, "entries were set aside");
            }
            let Some(record) = record else { return Ok(()) };
            if (record.partition, record.kind) == (key, Kind::Entry)
                && kept(record.offset, record.epoch)
            {
                let g = gathered.get_or_insert_with(|| Gathered {
                    first: record.offset,
                    last: record.offset,
                    epoch: record.epoch,
                    raw: Vec::new(),
                });
                (g.last, g.epoch) = (record.offset, record.epoch);
                g.raw.extend_from_slice(record.raw);
            }
        }
    }

    /// Is the log longer than it should be?
    fn log_is_long(&self) -> bool {
        let segments = self.log.size().segments as u64;
        segments > 2 && segments * self.segment_length() > self.config.log_keep
    }

    fn segment_length(&self) -> u64 {
        let size = self.log.size();
        (size.bytes / (size.segments + size.spares).max(1) as u64).max(1)
    }

    /// Gives back what nobody needs.
    fn give_back(&self) -> io::Result<()> {
        let long = self.log_is_long();
        // Held until it is given back: who pins sees by the log's start whether that was before.
        let pins = self.pins.lock();
        let upto = {
            let mut inner = self.look();
            let pinned = pins.values().min().copied();
            let followers = inner.shipped_from().filter(|_| !long);
            let needed = inner.needs().map(|(_, at)| at).min();
            let recent = Position(self.log.end().0.saturating_sub(self.config.log_keep / 4));
            let least = [pinned, followers, needed].into_iter().flatten().fold(recent, Ord::min);
            let length = self.segment_length();
            let upto = Position(least.0 / length * length);
            if upto <= self.log.start() {
                return Ok(());
            }
            // Before it is gone: nobody looks for an entry where none is any more.
            inner.partitions.values_mut().for_each(|p| p.trim(upto));
            upto
        };
        self.tell_floors();
        self.log.purge(upto)
    }

    /// Followers that are shipped what is about to go join anew (R29).
    fn tell_floors(&self) {
        self.act(|inner, work| {
            let floors: Vec<_> = inner.partitions.iter().map(|(k, p)| (*k, p.below())).collect();
            for (key, below) in floors {
                self.step(inner, work, key, Input::Floor(below), &[]);
            }
        });
    }
}

impl Inner {
    /// From where on each copy here needs the log.
    fn needs(&self) -> impl Iterator<Item = (PartitionKey, Position)> + '_ {
        let here = self.partitions.iter().filter_map(|(key, p)| Some((*key, p.needs()?)));
        let orphans = self.orphans.iter().filter_map(|(key, l)| Some((*key, l.needs()?)));
        here.chain(orphans)
    }

    /// From where on followers are being shipped.
    fn shipped_from(&self) -> Option<Position> {
        let ships = self.outgoing.values().flat_map(|o| &o.ships);
        ships.filter_map(|(key, ship)| self.partitions.get(key)?.places.before(ship.next)).min()
    }
}
