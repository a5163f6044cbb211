//! R15: when power was lost everywhere, and every member of a set may lack what `sync=interval` had not synced.
//!
//! Invariant: nobody is elected before all members are back and have said what they have. Who was lost for another reason,
//! or not at all, is never elected here: a damaged or exchanged disk is an operator's affair (R16), and a member that may
//! still come back whole is waited for.

use stela_common::ids::{Incarnation, PartitionKey, TabletId};

use super::Pass;
use crate::state::{Doubt, Partition};

impl Pass<'_> {
    /// The member with the longest log, once all are known to have lost no more than their tails. While that one is held
    /// or cannot be reached it is waited for: whoever has less must not be elected in its place.
    pub(super) fn longest(
        &self,
        key: PartitionKey,
        partition: &Partition,
    ) -> Option<(TabletId, Incarnation)> {
        let mut logs = Vec::with_capacity(partition.in_sync.len());
        for member in &partition.in_sync {
            let report = self.report(key, member.tablet).filter(|r| !r.quarantined)?;
            let back = partition.doubt(member.tablet) == Some(Doubt::Tail)
                && self.healthy.contains(&member.tablet);
            if !back {
                return None;
            }
            logs.push((report.last_epoch, report.offset, member.tablet, report.incarnation));
        }
        let most = logs.iter().map(|(epoch, offset, ..)| (*epoch, *offset)).max()?;
        let fit = |tablet: &TabletId| !partition.is_held(*tablet) && self.is_alive(*tablet);
        let longest = logs.iter().filter(|(epoch, offset, ..)| (*epoch, *offset) == most);
        longest
            .map(|(.., tablet, incarnation)| (*tablet, *incarnation))
            .find(|(tablet, _)| fit(tablet))
    }
}
