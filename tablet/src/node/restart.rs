//! A replica whose core is void is made anew from what the log has, without the process.

use stela_common::clock::Millis;
use stela_common::code::Code;
use stela_common::ids::PartitionKey;
use stela_common::wire::View;
use stela_replica::message::Write;

use super::batch::Work;
use super::{Inner, Node};
use crate::partition::{Partition, Suspended};

impl Node {
    /// A write that the core of a replica counts on failed: it does nothing more. It is made anew a little later, when
    /// the disk may have room again.
    pub(super) fn suspend(&self, inner: &mut Inner, work: &mut Work, key: PartitionKey) {
        work.later.retain(|(k, _)| *k != key);
        let pause = inner.partitions.get_mut(&key).map_or(0, Partition::pause);
        self.stand_still(inner, key, pause);
    }

    /// Its copy is not whole: it is made anew as one that neither shows what it has nor leads (R30).
    pub(crate) fn quarantine(&self, inner: &mut Inner, key: PartitionKey, why: String) {
        let Some(p) = inner.partitions.get_mut(&key) else { return };
        tracing::error!(%key, %why, "replica is quarantined");
        p.quarantine = Some(why);
        self.stand_still(inner, key, 0);
        self.report.notify_one();
    }

    /// The replica does nothing for so many ms, and then is made anew.
    pub(crate) fn stand_still(&self, inner: &mut Inner, key: PartitionKey, ms: u64) {
        let leader = self.leader_hint(inner, key);
        let Some(p) = inner.partitions.get_mut(&key) else { return };
        p.fail_waiters(&Code::TableIsFollower.into(), &leader);
        p.parked.notify_waiters();
        p.suspended =
            Some(Suspended { until: Millis::now().plus(ms), view: p.core.view().cloned() });
        inner.suspended.insert(key);
        inner.proposals.remove(&key);
        for outgoing in inner.outgoing.values_mut() {
            outgoing.ships.remove(&key);
        }
        inner.touch(key);
    }

    /// Makes a suspended replica anew; the streams where it had joined start anew. Returns what it is to be told then.
    pub(crate) fn resume(&self, inner: &mut Inner, key: PartitionKey) -> Option<View> {
        inner.suspended.remove(&key);
        let written =
            inner.unsynced.iter().rev().find(|u| u.key == key).map_or(Write(0), |u| u.write);
        let tablet = inner.tablet;
        let p = inner.partitions.get_mut(&key)?;
        let suspended = p.suspended.take()?;
        let identity = self.identity(tablet, key, p.store.table());
        p.restart(identity, written, Millis::now());
        // Where it was greeted, a grant covers this partition although its core no longer knows of a joining: those
        // streams are over, and forgotten at once, so that a frame that still comes on one is not answered (R11). The
        // others stay: what is joined there is other partitions', and whoever leads this one says so again.
        for conn in std::mem::take(&mut p.greeted) {
            if let Some(incoming) = inner.incoming.remove(&conn) {
                incoming.outbox.close();
            }
        }
        inner.touch(key);
        suspended.view
    }
}
