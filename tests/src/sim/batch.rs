//! What one critical section writes: one batch, and what follows when the log has it, or refuses it.

use std::collections::BTreeSet;

use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::table::Ack;
use stela_replica::core::Admitted;
use stela_replica::message::Write;

use super::client::Outcome;
use super::clock::MS;
use super::disk::Entry;
use super::point::Point;
use super::scene::{Event, trace};
use super::shell::Acting;
use super::tablet::{Copy, Suspended, Unsynced, Waiter, identity};

/// What follows when a record is in the log.
pub(super) enum After {
    Entry { key: PartitionKey, offset: Offset, entry: Entry, write: Write },
    Client { key: PartitionKey, admitted: Admitted, entry: Entry, waiter: Waiter },
    Epoch { key: PartitionKey, epoch: Epoch, leads: bool, write: Write },
    Truncate { key: PartitionKey, to: Offset, write: Write },
}

impl Acting<'_> {
    pub(super) fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        let after = std::mem::take(&mut self.after);
        match self.disk.append(&batch) {
            Some(end) => {
                for after in after {
                    self.written(after, end);
                }
                self.scene.reached(Point::Appended, self.at);
            }
            None => self.not_written(after),
        }
    }

    fn written(&mut self, after: After, end: usize) {
        let (key, write) = match after {
            After::Entry { key, offset, entry, write } => {
                self.scene.ghost.appended(self.at, key, offset, entry, self.disk.written(key));
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.ids.insert(entry.id, offset);
                }
                self.scene.reached(Point::Stored, self.at);
                (key, write)
            }
            After::Client { key, admitted, entry, waiter } => {
                self.scene.ghost.appended(
                    self.at,
                    key,
                    admitted.offset,
                    entry,
                    self.disk.written(key),
                );
                trace!(
                    self.scene,
                    "{}: {key} appends {} (epoch {})", self.at, admitted.offset, admitted.epoch
                );
                if waiter.level == Ack::Leader {
                    self.process.early.insert(key);
                }
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.waiters.entry(admitted.offset).or_default().push(waiter);
                }
                let conns: Vec<_> = self
                    .process
                    .outgoing
                    .iter()
                    .filter(|(_, o)| o.ships.contains_key(&key))
                    .map(|(c, _)| *c)
                    .collect();
                for conn in conns {
                    self.fill_down(conn, |b| b.dirty(key));
                }
                self.scene.reached(Point::Admitted, self.at);
                (key, admitted.write)
            }
            After::Epoch { key, epoch, leads, write } => {
                trace!(
                    self.scene,
                    "{}: {key} acts in epoch {epoch}{}",
                    self.at,
                    if leads { " as leader" } else { "" }
                );
                let point = if leads { Point::Activated } else { Point::Followed };
                self.scene.reached(point, self.at);
                (key, write)
            }
            After::Truncate { key, to, write } => {
                trace!(self.scene, "{}: {key} truncates to {to}", self.at);
                if let Some(copy) = self.process.copies.get_mut(&key) {
                    copy.ids.retain(|_, offset| *offset <= to);
                    copy.applied = copy.applied.min(to);
                }
                self.scene.reached(Point::Cut, self.at);
                (key, write)
            }
        };
        self.process.unsynced.push_back(Unsynced { end, key, write });
    }

    /// The disk refused a batch: nothing of it counts.
    pub(super) fn not_written(&mut self, after: Vec<After>) {
        let mut failed = BTreeSet::new();
        for after in after.into_iter().rev() {
            match after {
                After::Client { key, admitted, entry, waiter } => {
                    let mut callers = vec![waiter];
                    if let Some(copy) = self.process.copies.get_mut(&key) {
                        copy.core.revoke(admitted);
                        copy.ids.remove(&entry.id);
                        // Repetitions in the same batch.
                        callers.extend(copy.waiters.remove(&admitted.offset).unwrap_or_default());
                    }
                    for waiter in callers {
                        self.answer(waiter.request, Outcome::Refused(None));
                    }
                }
                After::Entry { key, .. }
                | After::Epoch { key, .. }
                | After::Truncate { key, .. } => {
                    failed.insert(key);
                }
            }
        }
        for key in failed {
            self.later.retain(|(k, _)| *k != key);
            self.suspend(key);
        }
    }

    /// Starts a sync of what is written, if none is under way.
    pub(super) fn sync(&mut self) {
        if self.process.syncing.is_some() || self.disk.synced() == self.disk.end() {
            return;
        }
        self.process.syncing = Some(self.disk.end());
        self.process.syncing_since = self.scene.now;
        let most = self.scene.profile.sync_ms * MS;
        let delay = self.scene.random.between(100, most) + self.slow_ms * MS;
        self.scene.after(delay, Event::DiskSynced(self.at, self.life, self.disk.end()));
    }

    /// A write that the core of a replica counts on failed: it does nothing more. It is made anew a little later, when
    /// the disk may have room again.
    pub(super) fn suspend(&mut self, key: PartitionKey) {
        trace!(self.scene, "{}: {key} is suspended", self.at);
        self.scene.reached(Point::Suspended, self.at);
        self.fail_waiters(key);
        let until = self.now.plus(self.scene.pace.timing.propose_again);
        let Some(copy) = self.process.copies.get_mut(&key) else { return };
        copy.suspended = Some(Suspended { until, view: copy.core.view().cloned() });
        self.process.proposals.retain(|p| p.key != key);
        for outgoing in self.process.outgoing.values_mut() {
            outgoing.ships.remove(&key);
        }
    }

    /// Suspended replicas are made anew; the streams where they had joined start anew.
    pub(super) fn resume(&mut self) {
        let due = |c: &Copy| c.suspended.as_ref().is_some_and(|s| s.until <= self.now);
        let due: Vec<_> =
            self.process.copies.iter().filter(|(_, c)| due(c)).map(|(key, _)| *key).collect();
        for key in due {
            trace!(self.scene, "{}: {key} starts again from its log", self.at);
            let Some(options) = self.process.copies.get(&key).map(|c| c.options) else { continue };
            let identity = identity(self.process, self.scene, key, options);
            let unsynced =
                self.process.unsynced.iter().rev().find(|u| u.key == key).map(|u| u.write);
            let Some(copy) = self.process.copies.get_mut(&key) else { continue };
            let view = copy.suspended.take().and_then(|s| s.view);
            copy.reset(self.make_core, identity, self.disk, unsynced.unwrap_or_default(), self.now);
            for conn in std::mem::take(&mut copy.greeted) {
                // Forgotten at once: a frame that still comes on it is not answered (R11).
                self.process.incoming.remove(&conn);
                self.scene.break_link(conn, false);
            }
            if let Some(view) = view {
                self.view(options, view);
            }
        }
    }
}
