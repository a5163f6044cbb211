//! Carrying out what the cores want: what is written is gathered, the rest is done when that is in the log.

use bytes::Bytes;
use stela_common::code::Code;
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::Kind;
use stela_replica::message::Output;

use super::batch::{After, Unwritten, Work};
use super::{Inner, Node, Proposal, Received};
use crate::replicate::Ship;
use crate::store::places;
use crate::transfer::Want;

impl Node {
    /// Sorts an output: what is written goes into the batch, the rest waits for it.
    pub(super) fn gather(
        &self,
        inner: &mut Inner,
        work: &mut Work,
        key: PartitionKey,
        output: Output,
        frame: &[Received],
    ) {
        match output {
            Output::StoreEpoch { write, epoch, first, leads } => {
                work.pieces.push(Unwritten::New {
                    kind: Kind::EpochStart,
                    key,
                    offset: first,
                    epoch,
                    lag: 0,
                    body: Bytes::from(vec![u8::from(leads)]),
                });
                work.after.push(After::Epoch { key, epoch, write });
            }
            Output::Append { write, from, to } => {
                let records = frame.get(from..to).unwrap_or_default();
                for record in records {
                    work.pieces.push(Unwritten::Raw(record.raw.clone()));
                    work.after.push(After::Entry {
                        key,
                        offset: record.offset,
                        epoch: record.epoch,
                        request: record.request,
                        write,
                    });
                }
            }
            Output::Truncate { write, to } => {
                // What is cut must be in the log first, and saved before the cut (R4).
                self.flush(inner, work);
                if inner.suspended.contains(&key) || !self.may_cut(inner, work, key, to) {
                    return;
                }
                if let Err(e) = self.save_tail(inner, key, to) {
                    tracing::error!(%key, error = %e, "cannot save a divergent tail: it is not cut");
                    self.suspend(inner, work, key);
                    return;
                }
                let epoch = inner.partitions.get(&key).map_or(Epoch(0), |p| p.epochs.epoch_at(to));
                work.pieces.push(Unwritten::New {
                    kind: Kind::Truncate,
                    key,
                    offset: to,
                    epoch,
                    lag: 0,
                    body: Bytes::new(),
                });
                work.after.push(After::Truncate { key, to, write });
            }
            other => work.later.push_back((key, other)),
        }
    }

    pub(super) fn perform(&self, inner: &mut Inner, key: PartitionKey, output: Output) {
        match output {
            Output::SendFollower(conn, message) => {
                if let Some(o) = inner.outgoing.get(&conn)
                    && let Some(p) = inner.partitions.get(&key)
                {
                    let created = p.store.table().created_index;
                    o.outbox.fill(|b| b.message(key, created, message));
                }
            }
            Output::SendLeader(conn, message) => {
                if let Some(i) = inner.incoming.get(&conn) {
                    if let Some(p) = inner.partitions.get_mut(&key) {
                        p.said(conn, &message);
                    }
                    i.outbox.fill(|b| b.message(key, message));
                }
            }
            Output::Ship { conn, from, prev } => {
                if let Some(o) = inner.outgoing.get_mut(&conn) {
                    o.ships.insert(key, Ship { next: from, prev });
                    o.outbox.fill(|b| b.dirty(key));
                    self.transfers.joined(key, o.peer);
                }
            }
            Output::StopShip(conn) => {
                if let Some(o) = inner.outgoing.get_mut(&conn) {
                    o.ships.remove(&key);
                }
            }
            Output::FetchSnapshot { peer, incarnation, common, offset } => {
                self.transfers.want(key, Want { peer, incarnation, common, offset });
            }
            Output::Propose { epoch, expected, in_sync } => {
                inner.proposals.insert(key, Proposal { epoch, expected, in_sync });
                self.propose.notify_one();
            }
            Output::Committed(to) => self.commit(inner, key, to),
            Output::Acknowledged(to) => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.acknowledge(to);
                }
            }
            Output::Serving { epoch, start } => {
                tracing::info!(%key, %epoch, %start, "serves as leader");
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.served = Some((epoch, start));
                    p.parked.notify_waiters();
                }
                self.report.notify_one();
            }
            Output::SteppedDown => {
                let leader = self.leader_hint(inner, key);
                if let Some(p) = inner.partitions.get_mut(&key) {
                    tracing::info!(%key, epoch = %p.core.epoch(), "steps down");
                    p.fail_waiters(&Code::TableIsFollower.into(), &leader);
                    p.parked.notify_waiters();
                }
                for outgoing in inner.outgoing.values_mut() {
                    outgoing.ships.remove(&key);
                }
                self.report.notify_one();
            }
            Output::FailWaiting => {
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.fail_waiters(&Code::LeaseExpired.into(), "");
                }
            }
            Output::Surrendered(epoch) => {
                tracing::info!(%key, %epoch, "surrendered");
                self.report.notify_one();
            }
            Output::Quarantined(why) => {
                tracing::error!(%key, %why, "replica is quarantined");
                if let Some(p) = inner.partitions.get_mut(&key) {
                    p.quarantine = Some(why);
                    p.contradicted = true;
                    p.parked.notify_waiters();
                }
                self.report.notify_one();
            }
            // Written in `gather`.
            Output::StoreEpoch { .. } | Output::Truncate { .. } | Output::Append { .. } => {}
        }
    }

    /// Entries up to `to` become readable, on leader and follower alike.
    pub(crate) fn commit(&self, inner: &mut Inner, key: PartitionKey, to: Offset) {
        let Some(p) = inner.partitions.get_mut(&key).filter(|p| p.quarantine.is_none()) else {
            return;
        };
        if let Err(why) = p.apply(&self.log, key, to) {
            self.quarantine(inner, key, format!("a committed entry cannot be read: {why}"));
        }
    }

    /// What a snapshot has cannot be cut: only an unclean election (R16) asks for that.
    fn may_cut(&self, inner: &mut Inner, work: &mut Work, key: PartitionKey, to: Offset) -> bool {
        let Some(p) = inner.partitions.get(&key) else { return true };
        let base = p.store.base();
        if to < base {
            let why = format!(
                "its leader has entries up to {to} only, and its snapshot those up to {base}: it is to be rebuilt"
            );
            work.later.retain(|(k, _)| *k != key);
            self.quarantine(inner, key, why);
            return false;
        }
        if p.making.is_some_and(|making| to < making) {
            tracing::warn!(%key, %to, "a snapshot is being made of what is to be cut: tries again");
            self.suspend(inner, work, key);
            return false;
        }
        true
    }

    fn save_tail(&self, inner: &Inner, key: PartitionKey, to: Offset) -> std::io::Result<()> {
        let Some(p) = inner.partitions.get(&key) else { return Ok(()) };
        let last = p.last();
        if last <= to {
            return Ok(());
        }
        let records = places::read_entries(&self.log, &p.places, key, to.next(), last, usize::MAX)
            .map_err(std::io::Error::other)?;
        let raw: Vec<u8> = records.iter().flat_map(|r| r.raw().iter().copied()).collect();
        let path = self.files.save_tail(key, p.epoch, to.next(), last, &raw)?;
        tracing::warn!(%key, from = %to.next(), to = %last, file = %path.display(), "a divergent tail was set aside");
        Ok(())
    }
}
