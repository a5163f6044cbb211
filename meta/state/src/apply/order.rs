//! What operators order: names are looked up and everything is checked, then operations are queued, or the state is
//! edited (`updatetablealive`, `settablepartition`, `setttl` and the like).
//!
//! Invariants: an order that is refused has changed nothing, also when only one of many partitions is wrong; the codes and
//! texts, and the order in which things are looked at, are those of OpenMLDB's nameserver. What would do by hand what the
//! cluster does by itself is refused while `auto_failover` is on (R21).

use std::collections::BTreeSet;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{OpId, PartitionId, PartitionKey, TableId, TabletId};
use stela_common::table::{Added, Index, Table};

use super::ops::About;
use super::{Outcome, Step};
use crate::command::{Elect, Reply};
use crate::object::Key;
use crate::op::{OpKind, OpStatus};
use crate::order::{Alter, Candidate, Order, Row, TableRef, Which};
use crate::state::Partition;

/// The most that a concurrency may be (`name_server_task_max_concurrency`).
const CONCURRENCY: u32 = 8;
/// The most columns that may be added to a table.
const ADDED_COLUMNS: usize = 63;

impl Step<'_> {
    pub(super) fn order(&mut self, order: &Order) -> Outcome {
        match order {
            Order::AddReplica { table, pids, endpoint } => self.add_replicas(table, pids, endpoint),
            Order::DelReplica { table, pids, endpoint } => self.del_replicas(table, pids, endpoint),
            Order::Migrate { from, table, pids, to } => self.migrate(from, table, pids, to),
            Order::ChangeLeader { table, pid, candidate, always } => {
                self.change_leader(table, *pid, candidate, *always)
            }
            Order::OfflineEndpoint { endpoint, concurrency } => {
                self.offline_endpoint(endpoint, *concurrency)
            }
            Order::RecoverEndpoint { endpoint, need_restore, concurrency } => {
                self.recover_endpoint(endpoint, *need_restore, *concurrency)
            }
            Order::RecoverTable { table, pid, endpoint } => {
                self.recover_table(table, *pid, endpoint)
            }
            Order::SetAlive { table, pid, endpoint, alive } => {
                self.set_alive(table, *pid, endpoint, *alive)
            }
            Order::SetPartition { table, pid, rows } => self.set_partition(table, *pid, rows),
            Order::MakeSnapshot { table, pid } => self.make_snapshot(table, *pid),
            Order::Alter { table, change } => self.alter(table, change),
            Order::SetSdkEndpoint { server, endpoint } => self.set_sdk_endpoint(server, endpoint),
            Order::CancelOp(id) => self.cancel_op(*id),
            Order::DeleteOps(which) => self.delete_ops(which),
            Order::StartJob { kind, endpoints, allow_single_replica } => {
                self.start_job(*kind, endpoints, *allow_single_replica)
            }
            Order::CancelJob(id) => self.cancel_job(*id),
        }
    }

    fn by_hand(&self) -> Result<(), Refusal> {
        if self.state.auto_failover() { Err(Code::AutoFailoverEnabled.into()) } else { Ok(()) }
    }

    fn table_of(&self, table: &TableRef) -> Result<&Table, Refusal> {
        let found = match table {
            TableRef::Name { db, name } => self.state.table(db, name),
            TableRef::Id(tid) => self.state.tables.get(tid),
        };
        found.ok_or_else(|| Code::TableNotFound.into())
    }

    fn key_of(&self, table: &TableRef, pid: u32) -> Result<PartitionKey, Refusal> {
        let tid = self.table_of(table)?.tid;
        let key = PartitionKey { tid, pid: PartitionId(pid) };
        self.partition(key).map(|_| key)
    }

    fn tablet_at(&self, endpoint: &str) -> Result<TabletId, Refusal> {
        self.state.tablet(endpoint).map(|(id, _)| id).ok_or_else(|| Code::EndpointNotFound.into())
    }

    /// A tablet that is known and healthy.
    fn healthy_at(&self, endpoint: &str, otherwise: Code) -> Result<TabletId, Refusal> {
        let found = self.state.tablet(endpoint).filter(|(_, t)| t.healthy);
        found.map(|(id, _)| id).ok_or_else(|| otherwise.into())
    }

    fn add_replicas(&mut self, table: &TableRef, pids: &[u32], endpoint: &str) -> Outcome {
        let tid = self.table_of(table)?.tid;
        let to = self.healthy_at(endpoint, Code::TabletNotHealthy)?;
        let keys = keys(tid, pids);
        for key in &keys {
            let partition = self.partition(*key).map_err(|_| Code::InvalidParameter)?;
            if partition.replica(to).is_some() || self.is_coming(partition, to) {
                let text = format!("pid {} is exist in {endpoint}", key.pid);
                return Err(Refusal::new(Code::PidExists, text));
            }
        }
        for key in keys {
            let about = About { to: Some(to), ..About::tablet(to) };
            self.enqueue(OpKind::AddReplica, key, about);
        }
        Ok(Reply::Done)
    }

    /// Is a replica on its way there?
    fn is_coming(&self, partition: &Partition, to: TabletId) -> bool {
        let mut ops = partition.queue.iter().filter_map(|id| self.state.ops.get(id));
        ops.any(|op| op.copies_to() == Some(to))
    }

    fn del_replicas(&mut self, table: &TableRef, pids: &[u32], endpoint: &str) -> Outcome {
        let tid = self.table_of(table)?.tid;
        let from = self.healthy_at(endpoint, Code::TabletNotHealthy)?;
        let keys = keys(tid, pids);
        for key in &keys {
            let partition = self.partition(*key).map_err(|_| {
                Refusal::new(Code::InvalidParameter, "max pid is greater than partition size")
            })?;
            if partition.replica(from).is_none() {
                let text = format!("pid {} is not in {endpoint}", key.pid);
                return Err(Refusal::new(Code::PidNotFound, text));
            }
            if partition.leader == from {
                let text = format!("can not del leader. pid {} endpoint {endpoint}", key.pid);
                return Err(Refusal::new(Code::TableIsLeader, text));
            }
        }
        for key in keys {
            self.enqueue(OpKind::DelReplica, key, About::tablet(from));
        }
        Ok(Reply::Done)
    }

    fn migrate(&mut self, from: &str, table: &TableRef, pids: &[u32], to: &str) -> Outcome {
        self.by_hand()?;
        let source = self.healthy_at(from, Code::SourceNotHealthy)?;
        let destination = self.healthy_at(to, Code::DestinationNotHealthy)?;
        let table = self.table_of(table)?;
        let (tid, name) = (table.tid, table.name.clone());
        let keys = keys(tid, pids);
        for key in &keys {
            let failed = |text: String| Err(Refusal::new(Code::MigrateFailed, text));
            let pid = key.pid;
            let partition = self.partition(*key)?;
            let leader = self.state.endpoint(partition.leader);
            if !self.state.leader_runs(partition) {
                return failed(format!("leader[{leader}] is offline. name[{name}] pid[{pid}]"));
            }
            if partition.leader == source {
                return failed(format!("cannot migrate leader. name[{name}] pid[{pid}]"));
            }
            if partition.replica(source).is_none() {
                return failed(format!(
                    "src_endpoint[{from}] has not partition[{pid}]. name[{name}]"
                ));
            }
            if partition.replica(destination).is_some() || self.is_coming(partition, destination) {
                return failed(format!(
                    "partition[{pid}] is already in des_endpoint[{to}]. name[{name}]"
                ));
            }
        }
        for key in keys {
            let about = About { to: Some(destination), ..About::tablet(source) };
            self.enqueue(OpKind::Migrate, key, about);
        }
        Ok(Reply::Done)
    }

    fn change_leader(
        &mut self,
        table: &TableRef,
        pid: u32,
        candidate: &Candidate,
        always: bool,
    ) -> Outcome {
        if !always {
            self.by_hand()?;
        }
        let key = self.key_of(table, pid)?;
        let partition = self.partition(key)?;
        let runs = self.state.leader_runs(partition);
        if partition.replicas.len() < 2 && runs {
            return Err(Refusal::new(Code::HasNoFollower, "no follower"));
        }
        if *candidate == Candidate::IfNobodyLeads
            && runs
            && self.state.is_alive(partition, partition.leader)
        {
            return Err(Code::LeaderIsAlive.into());
        }
        let able = |id: TabletId| {
            self.state.is_electable(partition, id) && (!runs || id != partition.leader)
        };
        let to = match candidate {
            Candidate::Endpoint(endpoint) => {
                let to = self.state.tablet(endpoint).map(|(id, _)| id);
                // One that is not in sync catches up first, if somebody leads (R22).
                let fit = |id: &TabletId| {
                    let led = runs && *id != partition.leader;
                    let back = led
                        && partition.replica(*id).is_some_and(|r| !r.held)
                        && self.state.is_healthy(*id);
                    able(*id) || back
                };
                Some(to.filter(fit).ok_or(Code::CreateOpFailed)?)
            }
            _ if partition.replicas.iter().any(|r| able(r.tablet)) => None,
            _ => {
                let text = Code::NoAliveFollower.text();
                return Err(Refusal::new(Code::NoAliveFollower, text));
            }
        };
        let about = About { to, ..About::tablet(to.unwrap_or(partition.leader)) };
        self.enqueue(OpKind::ChangeLeader, key, about);
        Ok(Reply::Done)
    }

    fn offline_endpoint(&mut self, endpoint: &str, concurrency: u32) -> Outcome {
        self.by_hand()?;
        let tablet = self.tablet_at(endpoint)?;
        if concurrency > CONCURRENCY {
            return Err(Code::InvalidParameter.into());
        }
        for key in self.keys_on(tablet) {
            let Some(partition) = self.state.partitions.get(&key) else { continue };
            let led = self.state.leader_runs(partition);
            let others = partition.replicas.iter().map(|r| r.tablet).filter(|id| *id != tablet);
            let mut others = others.filter(|id| self.state.is_electable(partition, *id));
            let kind = if partition.replicas.len() == 1 {
                OpKind::UpdatePartitionStatus
            } else if led && partition.leader != tablet {
                OpKind::OfflineReplica
            } else if others.next().is_some() {
                OpKind::ChangeLeader
            } else {
                // Nobody could lead in its place: nothing would be won.
                continue;
            };
            let hold = kind == OpKind::ChangeLeader;
            self.enqueue(kind, key, About { hold, ..About::tablet(tablet) });
        }
        Ok(Reply::Done)
    }

    fn recover_endpoint(
        &mut self,
        endpoint: &str,
        need_restore: bool,
        concurrency: u32,
    ) -> Outcome {
        self.by_hand()?;
        let tablet = self.tablet_at(endpoint)?;
        if !self.state.is_healthy(tablet) {
            return Err(Code::TabletNotHealthy.into());
        }
        if concurrency > CONCURRENCY {
            return Err(Code::InvalidParameter.into());
        }
        for key in self.keys_on(tablet) {
            let Some(partition) = self.state.partitions.get(&key) else { continue };
            let single = partition.replicas.len() == 1;
            if self.state.is_alive(partition, tablet) && !single {
                continue;
            }
            let led = partition.replica(tablet).is_some_and(|r| r.was_leader);
            let about = About { limit: concurrency, ..About::tablet(tablet) };
            self.enqueue(OpKind::RecoverTable, key, about);
            if need_restore && led {
                let about = About { to: Some(tablet), limit: concurrency, ..about };
                self.enqueue(OpKind::ChangeLeader, key, about);
            }
        }
        Ok(Reply::Done)
    }

    fn recover_table(&mut self, table: &TableRef, pid: u32, endpoint: &str) -> Outcome {
        self.by_hand()?;
        self.table_of(table)?;
        let tablet = self.tablet_at(endpoint)?;
        if !self.state.is_healthy(tablet) {
            return Err(Code::TabletNotHealthy.into());
        }
        let key = self.key_of(table, pid)?;
        if self.partition(key)?.replica(tablet).is_none() {
            return Err(Code::PidNotFound.into());
        }
        self.enqueue(OpKind::RecoverTable, key, About::tablet(tablet));
        Ok(Reply::Done)
    }

    /// R22. `yes` never adds to the set: where nobody leads, it is for one who can lead without losing anything.
    fn set_alive(
        &mut self,
        table: &TableRef,
        pid: Option<u32>,
        endpoint: &str,
        alive: bool,
    ) -> Outcome {
        self.by_hand()?;
        let tid = self.table_of(table)?.tid;
        let tablet = self.tablet_at(endpoint)?;
        let here = self.keys_on(tablet).into_iter();
        let keys: Vec<PartitionKey> =
            here.filter(|k| k.tid == tid && pid.is_none_or(|pid| pid == k.pid.0)).collect();
        if keys.is_empty() {
            return Err(Code::NoPidUpdated.into());
        }
        if !alive {
            keys.into_iter().for_each(|key| self.hold(key, tablet));
            return Ok(Reply::Done);
        }
        let mut elections = Vec::new();
        for key in &keys {
            let partition = self.partition(*key)?;
            if self.state.leader_runs(partition) {
                continue;
            }
            if let Some(why) = self.unfit(partition, tablet) {
                return Err(Refusal::new(
                    Code::InvalidParameter,
                    format!("pid {}: {why}", key.pid),
                ));
            }
            elections.push(*key);
        }
        keys.iter().for_each(|key| self.release(*key, tablet));
        for key in elections {
            self.elect_by_hand(key, tablet)?;
        }
        Ok(Reply::Done)
    }

    /// Why that replica cannot lead a partition that nobody leads; being held back is no reason.
    fn unfit(&self, partition: &Partition, tablet: TabletId) -> Option<String> {
        let endpoint = self.state.endpoint(tablet);
        if !self.state.is_healthy(tablet) {
            return Some(format!("{endpoint} is offline: start it first"));
        }
        let member = partition.member(tablet);
        let registered = self.state.tablets.get(&tablet).map(|t| t.incarnation);
        if member.is_some_and(|m| !m.untrusted && Some(m.incarnation) == registered) {
            return None;
        }
        let able = partition.in_sync.iter().filter(|m| !m.untrusted).map(|m| m.tablet);
        let able: Vec<String> = able.map(|t| self.state.endpoint(t)).collect();
        Some(if able.is_empty() {
            format!(
                "{endpoint} may lack acknowledged writes, and so may all others; stela ops elect --unclean decides"
            )
        } else {
            format!("{endpoint} may lack acknowledged writes, {} does not", able.join(" or "))
        })
    }

    fn elect_by_hand(&mut self, key: PartitionKey, leader: TabletId) -> Outcome {
        let expected = self.partition(key)?.version;
        let incarnation = self.tablet_of(leader)?.incarnation;
        let elect = Elect {
            key,
            expected,
            leader,
            incarnation,
            auto: false,
            surrendered: None,
            unclean: None,
        };
        self.elect::<crate::rules::Sound>(&elect)
    }

    /// Who is held and who leads, as a file says. Which replicas there are is not for it to say: a copy comes to be where
    /// it is sent, not where it is written down.
    fn set_partition(&mut self, table: &TableRef, pid: u32, rows: &[Row]) -> Outcome {
        self.by_hand()?;
        let key = self.key_of(table, pid)?;
        let partition = self.partition(key)?.clone();
        let mut named = BTreeSet::new();
        for row in rows {
            named.insert(self.tablet_at(&row.endpoint)?);
        }
        let there: BTreeSet<TabletId> = partition.replicas.iter().map(|r| r.tablet).collect();
        if named != there || named.len() != rows.len() {
            let text = "other replicas than there are: use addreplica and delreplica";
            return Err(Refusal::new(Code::InvalidParameter, text));
        }
        let leads = rows.iter().find(|r| r.leader && r.alive);
        let leader = leads.map(|r| self.tablet_at(&r.endpoint)).transpose()?;
        let runs = self.state.leader_runs(&partition);
        if let Some(leader) = leader.filter(|_| !runs)
            && let Some(why) = self.unfit(&partition, leader)
        {
            return Err(Refusal::new(Code::InvalidParameter, why));
        }
        if leader.is_some_and(|l| runs && l != partition.leader && !self.state.is_healthy(l)) {
            return Err(Code::TabletNotHealthy.into());
        }
        for row in rows {
            let tablet = self.tablet_at(&row.endpoint)?;
            if row.alive { self.release(key, tablet) } else { self.hold(key, tablet) }
        }
        match leader {
            Some(leader) if !runs => self.elect_by_hand(key, leader),
            Some(leader) if leader != partition.leader => {
                let about = About { to: Some(leader), ..About::tablet(leader) };
                self.enqueue(OpKind::ChangeLeader, key, about);
                Ok(Reply::Done)
            }
            _ => Ok(Reply::Done),
        }
    }

    fn make_snapshot(&mut self, table: &TableRef, pid: u32) -> Outcome {
        let key = self.key_of(table, pid)?;
        let partition = self.partition(key)?;
        if !self.state.leader_runs(partition) {
            return Err(Code::CreateOpFailed.into());
        }
        let leader = partition.leader;
        self.enqueue(OpKind::MakeSnapshot, key, About::tablet(leader));
        Ok(Reply::Done)
    }

    /// A changed definition is told to the tablets with the next news, and clients learn it when they look the table up.
    fn alter(&mut self, table: &TableRef, change: &Alter) -> Outcome {
        let mut table = self.table_of(table)?.clone();
        match change {
            Alter::Ttl { ttl, index } => {
                let named = |name: &str| index.is_empty() || name == index;
                if !table.indexes.iter().any(|i| named(&i.name)) {
                    return Err(Code::IndexNotFound.into());
                }
                for index in table.indexes.iter_mut().filter(|i| named(&i.name)) {
                    index.ttl = *ttl;
                }
            }
            Alter::AddColumn(column) => {
                if table.column(&column.name).is_some() {
                    return Err(Code::ColumnExists.into());
                }
                if !table.has_schema() {
                    let text = "the table has no schema";
                    return Err(Refusal::new(Code::InvalidParameter, text));
                }
                if table.columns.len() >= table.first_columns() + ADDED_COLUMNS {
                    return Err(Code::TooManyColumns.into());
                }
                table.added_columns += 1;
                table.columns.push(column.clone());
            }
            Alter::AddIndex(index) => {
                if table.index(&index.name).is_some() {
                    return Err(Code::IndexExists.into());
                }
                if table.filling().is_some() {
                    return Err(Code::OpExists.into());
                }
                // Nobody can tell under which key a row without a schema would be.
                let added = Added { version: table.version() + 1, filling: table.has_schema() };
                let mut index = Index { added, ..index.clone() };
                // The times of requests are known where an index has them.
                let timed = table.live_indexes().all(|(_, i)| i.ts.is_some());
                if index.ts.is_none() && timed {
                    index.ts = table.first_index().and_then(|at| table.indexes[at].ts.clone());
                }
                // At a place that no index had before: who has not heard of it must not take its rows for another's.
                table.indexes.push(index);
            }
            Alter::DeleteIndex(name) => {
                let Some(at) = table.index(name) else {
                    return Err(Refusal::new(Code::IndexNotFound, "index doesn't exist!"));
                };
                if at == 0 {
                    return Err(Code::IndexIsNeeded.into());
                }
                // Another one may be filled out of it.
                if table.filling().is_some_and(|(filling, _)| filling != at) {
                    return Err(Code::IndexFilling.into());
                }
                table.indexes[at].deleted = true;
            }
        }
        table.check().map_err(|what| Refusal::new(Code::InvalidParameter, what))?;
        let tid = table.tid;
        let fills = matches!(change, Alter::AddIndex(_)) && table.filling().is_some();
        self.state.tables.insert(tid, table);
        self.changed.insert(Key::Table(tid));
        if fills {
            let led: Vec<_> =
                self.state.partitions_of(tid).map(|(pid, p)| (pid, p.leader)).collect();
            for (pid, leader) in led {
                let key = PartitionKey { tid, pid };
                self.enqueue(OpKind::AddIndex, key, About::tablet(leader));
            }
        }
        Ok(Reply::Done)
    }

    fn set_sdk_endpoint(&mut self, server: &str, endpoint: &str) -> Outcome {
        let tablet = self.healthy_at(server, Code::ServerNotFound)?;
        let mut others = self.state.tablets.iter().filter(|(id, _)| **id != tablet);
        if !endpoint.is_empty() && others.any(|(_, t)| t.sdk_endpoint == endpoint) {
            return Err(Code::SdkEndpointTaken.into());
        }
        if let Some(tablet) = self.state.tablets.get_mut(&tablet) {
            endpoint.clone_into(&mut tablet.sdk_endpoint);
        }
        self.changed.insert(Key::Tablet(tablet));
        Ok(Reply::Done)
    }

    fn cancel_op(&mut self, id: OpId) -> Outcome {
        self.by_hand()?;
        if self.state.ops.get(&id).is_none_or(|op| op.status.is_final()) {
            return Err(Code::OpNotOpen.into());
        }
        self.end_op(id, OpStatus::Canceled, "by an operator");
        Ok(Reply::Done)
    }

    fn delete_ops(&mut self, which: &Which) -> Outcome {
        let ids: Vec<OpId> = match which {
            Which::Id(id) if self.state.ops.contains_key(id) => vec![*id],
            Which::Id(_) => return Err(Code::OpNotFound.into()),
            Which::Ended { status, db } => {
                let meant = |op: &crate::op::Op| {
                    op.status == *status && status.is_final() && (db.is_empty() || op.db == *db)
                };
                self.state.ops.iter().filter(|(_, op)| meant(op)).map(|(id, _)| *id).collect()
            }
        };
        for id in ids {
            self.end_op(id, OpStatus::Canceled, "deleted by an operator");
            self.forget_op(id);
        }
        Ok(Reply::Done)
    }

    /// The partitions that have a replica on that tablet.
    pub(super) fn keys_on(&self, tablet: TabletId) -> Vec<PartitionKey> {
        let here = self.state.partitions.iter().filter(|(_, p)| p.replica(tablet).is_some());
        here.map(|(key, _)| *key).collect()
    }
}

/// The partitions that were named, each once.
fn keys(tid: TableId, pids: &[u32]) -> BTreeSet<PartitionKey> {
    pids.iter().map(|pid| PartitionKey { tid, pid: PartitionId(*pid) }).collect()
}
