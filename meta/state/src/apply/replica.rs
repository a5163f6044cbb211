//! The replicas of a partition: taking one in, taking one away, holding one back (R22).
//!
//! Invariants: a replica that is taken away leaves the set in the same step, and is neither the leader nor the last one;
//! it leaves a note until its tablet has confirmed that nothing is left, and no other copy of the partition is made there
//! before that. A hold makes nobody a leader and takes no leader away.

use stela_common::code::Code;
use stela_common::ids::{PartitionKey, TabletId};

use super::{Outcome, Step};
use crate::command::Reply;
use crate::object::Key;
use crate::state::{Removal, Replica};

impl Step<'_> {
    /// A replica that has nothing yet; its leader brings it into the set when it has caught up (R8).
    pub(super) fn add_replica(&mut self, key: PartitionKey, to: TabletId) -> Result<(), String> {
        let version = self.version();
        if self.state.removals.get(&key).is_some_and(|gone| gone.contains_key(&to)) {
            return Err("a former replica is still being dropped there".into());
        }
        let Some(partition) = self.state.partitions.get_mut(&key) else {
            return Err(Code::PidNotFound.text().into());
        };
        if partition.replica(to).is_some() {
            return Err("a replica is there already".into());
        }
        partition.replicas.push(Replica {
            tablet: to,
            was_leader: false,
            held: false,
            doubt: None,
        });
        partition.version = version;
        self.changed.insert(Key::Partition(key));
        Ok(())
    }

    /// Takes a replica away. Whoever stays in the set has all that was acknowledged.
    pub(super) fn take_replica(&mut self, key: PartitionKey, from: TabletId) -> Result<(), String> {
        let version = self.version();
        let created_index = self.state.tables.get(&key.tid).map_or(0, |t| t.created_index);
        let Some(partition) = self.state.partitions.get(&key) else {
            return Err(Code::PidNotFound.text().into());
        };
        if partition.replica(from).is_none() {
            return Err("no replica is there".into());
        }
        if partition.leader == from {
            return Err("can not del leader".into());
        }
        if !self.state.leader_runs(partition) {
            return Err("the partition has no leader".into());
        }
        let least = self.state.tables.get(&key.tid).map_or(1, |t| t.options.min_insync as usize);
        if partition.replicas.len() <= least {
            return Err(format!("the table wants {least} replicas in sync: min_insync"));
        }
        if let Some(partition) = self.state.partitions.get_mut(&key) {
            let stay = partition.in_sync.iter().filter(|m| m.tablet != from).copied().collect();
            partition.replicas.retain(|r| r.tablet != from);
            partition.set_in_sync(stay);
            partition.version = version;
            self.changed.insert(Key::Partition(key));
        }
        let removal = Removal { created_index, version };
        self.state.removals.entry(key).or_default().insert(from, removal);
        self.changed.insert(Key::Removal(key));
        Ok(())
    }

    /// Confirming what nobody waits for is done already.
    pub(super) fn confirm_removed(&mut self, key: PartitionKey, tablet: TabletId) -> Outcome {
        if let Some(gone) = self.state.removals.get_mut(&key)
            && gone.remove(&tablet).is_some()
        {
            if gone.is_empty() {
                self.state.removals.remove(&key);
            }
            self.changed.insert(Key::Removal(key));
        }
        Ok(Reply::Done)
    }

    /// R22: it is held, and leaves the set if somebody else leads.
    pub(super) fn hold(&mut self, key: PartitionKey, tablet: TabletId) {
        let version = self.version();
        let led = self.state.partitions.get(&key).is_some_and(|p| self.state.leader_runs(p));
        let Some(partition) = self.state.partitions.get_mut(&key) else { return };
        let Some(replica) = partition.replicas.iter_mut().find(|r| r.tablet == tablet) else {
            return;
        };
        replica.held = true;
        if led && partition.leader != tablet {
            let stay = partition.in_sync.iter().filter(|m| m.tablet != tablet).copied().collect();
            partition.set_in_sync(stay);
        }
        partition.version = version;
        self.changed.insert(Key::Partition(key));
    }

    /// It is held no longer. It is not brought into the set by that.
    pub(super) fn release(&mut self, key: PartitionKey, tablet: TabletId) {
        let version = self.version();
        let Some(partition) = self.state.partitions.get_mut(&key) else { return };
        let member = partition.member(tablet).is_some();
        let Some(replica) = partition.replicas.iter_mut().find(|r| r.tablet == tablet) else {
            return;
        };
        if !replica.held {
            return;
        }
        replica.held = false;
        replica.was_leader &= !member;
        partition.version = version;
        self.changed.insert(Key::Partition(key));
    }
}
