//! Databases and tables.
//!
//! Invariants: one command makes or drops a whole table, with all of its partitions; names are unique in their
//! database; a table number is never used twice, and a dropped table leaves a tombstone until each tablet that had a
//! replica has confirmed that nothing of it is left (R37).

use std::collections::BTreeSet;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, PartitionId, PartitionKey, TableId, TabletId, Version};
use stela_common::table::{Added, Options, Sync, Table, limits};
use stela_common::wire::Member;

use super::{Outcome, Step};
use crate::command::Reply;
use crate::object::Key;
use crate::op::OpStatus;
use crate::state::{Leadership, Partition, Replica, Tombstone};

impl Step<'_> {
    pub(super) fn create_database(&mut self, name: &str) -> Outcome {
        let bad = |c: char| c.is_whitespace() || c.is_control() || c == '/';
        if name.is_empty() || name.len() > limits::NAME || name.chars().any(bad) {
            return Err(Code::InvalidParameter.into());
        }
        if self.state.databases.contains_key(name) {
            return Err(Code::DatabaseExists.into());
        }
        self.state.databases.insert(name.to_owned(), self.version());
        self.changed.insert(Key::Database(name.to_owned()));
        Ok(Reply::Done)
    }

    pub(super) fn drop_database(&mut self, name: &str) -> Outcome {
        if !self.state.databases.contains_key(name) {
            return Err(Code::DatabaseNotFound.into());
        }
        if self.state.tables.values().any(|t| t.db == name) {
            return Err(Code::DatabaseNotEmpty.into());
        }
        self.state.databases.remove(name);
        self.changed.insert(Key::Database(name.to_owned()));
        Ok(Reply::Done)
    }

    pub(super) fn create_table(&mut self, table: &Table, placement: &[Vec<TabletId>]) -> Outcome {
        if !table.db.is_empty() && !self.state.databases.contains_key(&table.db) {
            return Err(Code::DatabaseNotFound.into());
        }
        if self.state.table(&table.db, &table.name).is_some() {
            return Err(Code::TableExists.into());
        }
        let mut table = table.clone();
        // It has no rows that an index would lack.
        table.indexes.iter_mut().for_each(|index| index.added = Added::default());
        table.check().map_err(|what| {
            Refusal::new(Code::InvalidParameter, format!("check TableMeta failed! {what}"))
        })?;
        if placement.is_empty() {
            // The proposer found too few tablets. It is said here, so that every copy of the request is told the same.
            return Err(Code::TooFewTablets.into());
        }
        if placement.len() != table.partition_num as usize {
            return Err(Refusal::new(
                Code::InvalidParameter,
                "placement does not fit partition_num",
            ));
        }
        let sets = placement
            .iter()
            .map(|row| self.members(row, table.replica_num))
            .collect::<Result<Vec<_>, _>>()?;
        let number = self
            .state
            .counters
            .table
            .checked_add(1)
            .ok_or_else(|| Refusal::new(Code::InvalidParameter, "allocate table id failed!"))?;

        let tid = TableId(number);
        self.state.counters.table = number;
        self.state.tables.insert(tid, Table { tid, created_index: self.index, ..table.clone() });
        self.changed.insert(Key::Table(tid));
        let may_lose_tail = matches!(table.options.sync, Sync::Interval(_));
        for (pid, (leader, in_sync)) in (0..table.partition_num).zip(sets) {
            let key = PartitionKey { tid, pid: PartitionId(pid) };
            let partition = first(leader, in_sync, self.version(), may_lose_tail);
            self.state.partitions.insert(key, partition);
            self.changed.insert(Key::Partition(key));
        }
        Ok(Reply::Created(tid))
    }

    /// The leader and the members of a new partition: each tablet of the row as the run that is registered.
    fn members(
        &self,
        row: &[TabletId],
        replica_num: u32,
    ) -> Result<(Member, Vec<Member>), Refusal> {
        if row.len() != replica_num as usize
            || row.iter().collect::<BTreeSet<_>>().len() != row.len()
        {
            return Err(Refusal::new(Code::InvalidParameter, "placement does not fit replica_num"));
        }
        let mut members = Vec::with_capacity(row.len());
        for id in row {
            let tablet = self.tablet_of(*id)?;
            if !tablet.healthy {
                return Err(Code::TabletNotHealthy.into());
            }
            members.push(Member { tablet: *id, incarnation: tablet.incarnation, untrusted: false });
        }
        let leader = members.first().copied().ok_or(Code::InvalidParameter)?;
        Ok((leader, members))
    }

    /// Changes a table's options. The tablets are told with the next news of each partition; which of two options holds
    /// for a write that is under way meanwhile is open, and the weaker one is what was promised.
    pub(super) fn set_table(
        &mut self,
        db: &str,
        name: &str,
        change: impl FnOnce(Options) -> Options,
    ) -> Outcome {
        let Some(table) = self.state.table(db, name) else {
            return Err(Refusal::new(Code::TableNotFound, "table does not exist!"));
        };
        let table = Table { options: change(table.options), ..table.clone() };
        table.check().map_err(|what| Refusal::new(Code::InvalidParameter, what))?;
        let tid = table.tid;
        let may_lose_tail = matches!(table.options.sync, Sync::Interval(_));
        self.state.tables.insert(tid, table);
        self.changed.insert(Key::Table(tid));
        if may_lose_tail {
            for (key, partition) in self.state.partitions.iter_mut().filter(|(k, _)| k.tid == tid) {
                if !std::mem::replace(&mut partition.may_lose_tail, true) {
                    self.changed.insert(Key::Partition(*key));
                }
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn drop_table(&mut self, db: &str, name: &str) -> Outcome {
        let Some(table) = self.state.table(db, name) else {
            return Err(Refusal::new(Code::TableNotFound, "table does not exist!"));
        };
        let (tid, created_index) = (table.tid, table.created_index);
        let keys: Vec<PartitionKey> =
            self.state.partitions_of(tid).map(|(pid, _)| PartitionKey { tid, pid }).collect();
        let mut waiting = BTreeSet::new();
        for key in keys {
            if let Some(partition) = self.state.partitions.remove(&key) {
                waiting.extend(partition.replicas.iter().map(|r| r.tablet));
                for op in partition.queue {
                    self.end_op(op, OpStatus::Canceled, "the table was dropped");
                }
            }
            self.changed.insert(Key::Partition(key));
            if let Some(gone) = self.state.removals.remove(&key) {
                waiting.extend(gone.into_keys());
                self.changed.insert(Key::Removal(key));
            }
        }
        self.state.tables.remove(&tid);
        self.changed.insert(Key::Table(tid));
        if !waiting.is_empty() {
            let version = self.version();
            self.state.tombstones.insert(tid, Tombstone { created_index, waiting, version });
            self.changed.insert(Key::Tombstone(tid));
        }
        Ok(Reply::Done)
    }

    /// Confirming what nobody waits for is done already.
    pub(super) fn confirm_dropped(&mut self, tid: TableId, tablet: TabletId) -> Outcome {
        if self.state.tables.contains_key(&tid) {
            return Err(Code::TableExists.into());
        }
        let version = self.version();
        if let Some(tombstone) = self.state.tombstones.get_mut(&tid)
            && tombstone.waiting.remove(&tablet)
        {
            tombstone.version = version;
            if tombstone.waiting.is_empty() {
                self.state.tombstones.remove(&tid);
            }
            self.changed.insert(Key::Tombstone(tid));
        }
        Ok(Reply::Done)
    }
}

/// A partition as it begins: the first of its row leads, all are in sync with nothing.
fn first(leader: Member, in_sync: Vec<Member>, version: Version, may_lose_tail: bool) -> Partition {
    let epoch = Epoch(1);
    let replicas = in_sync
        .iter()
        .map(|m| Replica { tablet: m.tablet, was_leader: false, held: false, doubt: None })
        .collect();
    let began =
        Leadership { epoch, leader: leader.tablet, unclean: false, surrendered: None, start: None };
    Partition {
        replicas,
        epoch,
        leader: leader.tablet,
        leader_incarnation: leader.incarnation,
        in_sync,
        version,
        history: vec![began],
        refused_shrink_at: 0,
        refused_shrink_epoch: Epoch(0),
        last_unclean: Epoch(0),
        uncleans: 0,
        switch: None,
        queue: Vec::new(),
        may_lose_tail,
    }
}
