//! The operators' commands, from the wire to an [`Order`]: names are looked up where it is applied.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{JobId, OpId, TableId};
use stela_common::table::{Column, Index, Ttl};
use stela_common::wire::{Malformed, ttl_of};
use stela_meta_state::job::JobKind;
use stela_meta_state::op::OpStatus;
use stela_meta_state::order::{Alter, Candidate, Order, Row, TableRef, Which};
use stela_proto::nameserver as pb;

/// A request that is an order.
pub(super) trait Ordered {
    /// What it orders.
    fn order(self) -> Result<Order, Refusal>;
}

fn table(name: Option<pb::TableName>) -> Result<TableRef, Refusal> {
    let pb::TableName { db, name, tid } = name.ok_or(Malformed("table"))?;
    Ok(if name.is_empty() && tid != 0 {
        TableRef::Id(TableId(tid))
    } else {
        TableRef::Name { db, name }
    })
}

fn pids(pids: Vec<u32>) -> Result<Vec<u32>, Refusal> {
    if pids.is_empty() { Err(Malformed("pids").into()) } else { Ok(pids) }
}

pub(super) fn add_replica(r: pb::ReplicasRequest) -> Result<Order, Refusal> {
    Ok(Order::AddReplica { table: table(r.table)?, pids: pids(r.pids)?, endpoint: r.endpoint })
}

pub(super) fn del_replica(r: pb::ReplicasRequest) -> Result<Order, Refusal> {
    Ok(Order::DelReplica { table: table(r.table)?, pids: pids(r.pids)?, endpoint: r.endpoint })
}

impl Ordered for pb::MigrateRequest {
    fn order(self) -> Result<Order, Refusal> {
        let (table, pids) = (table(self.table)?, pids(self.pids)?);
        Ok(Order::Migrate { from: self.from, table, pids, to: self.to })
    }
}

impl Ordered for pb::ChangeLeaderRequest {
    fn order(self) -> Result<Order, Refusal> {
        let candidate = match self.endpoint {
            endpoint if !endpoint.is_empty() => Candidate::Endpoint(endpoint),
            _ if self.if_leaderless => Candidate::IfNobodyLeads,
            _ => Candidate::Auto,
        };
        let name = pb::TableName { db: self.db, name: self.name, tid: self.tid };
        let (table, pid) = (table(Some(name))?, self.pid);
        Ok(Order::ChangeLeader { table, pid, candidate, always: !self.by_hand })
    }
}

pub(super) fn offline(r: pb::EndpointRequest) -> Order {
    Order::OfflineEndpoint { endpoint: r.endpoint, concurrency: r.concurrency }
}

pub(super) fn recover(r: pb::EndpointRequest) -> Order {
    let pb::EndpointRequest { endpoint, need_restore, concurrency, .. } = r;
    Order::RecoverEndpoint { endpoint, need_restore, concurrency }
}

impl Ordered for pb::ReplicaRequest {
    fn order(self) -> Result<Order, Refusal> {
        let (table, pid, endpoint) = (table(self.table)?, self.pid, self.endpoint);
        Ok(Order::RecoverTable { table, pid, endpoint })
    }
}

impl Ordered for pb::AliveRequest {
    fn order(self) -> Result<Order, Refusal> {
        let pb::AliveRequest { pid, endpoint, alive, .. } = self;
        Ok(Order::SetAlive { table: table(self.table)?, pid, endpoint, alive })
    }
}

impl Ordered for pb::SetTablePartitionRequest {
    fn order(self) -> Result<Order, Refusal> {
        let row =
            |r: pb::ReplicaState| Row { endpoint: r.endpoint, leader: r.leader, alive: r.alive };
        let rows = self.rows.into_iter().map(row).collect();
        Ok(Order::SetPartition { table: table(self.table)?, pid: self.pid, rows })
    }
}

impl Ordered for pb::PartitionRequest {
    fn order(self) -> Result<Order, Refusal> {
        Ok(Order::MakeSnapshot { table: table(self.table)?, pid: self.pid })
    }
}

impl Ordered for pb::SetSdkEndpointRequest {
    fn order(self) -> Result<Order, Refusal> {
        Ok(Order::SetSdkEndpoint { server: self.server, endpoint: self.endpoint })
    }
}

impl Ordered for pb::OpRequest {
    fn order(self) -> Result<Order, Refusal> {
        Ok(Order::CancelOp(OpId(self.id)))
    }
}

impl Ordered for pb::DeleteOpRequest {
    fn order(self) -> Result<Order, Refusal> {
        let status = match self.status.to_ascii_lowercase().as_str() {
            "" => return Ok(Order::DeleteOps(Which::Id(OpId(self.id)))),
            "done" => OpStatus::Done,
            "failed" => OpStatus::Failed,
            "canceled" => OpStatus::Canceled,
            _ => return Err(Code::InvalidParameter.into()),
        };
        Ok(Order::DeleteOps(Which::Ended { status, db: self.db }))
    }
}

impl Ordered for pb::AlterTableRequest {
    fn order(self) -> Result<Order, Refusal> {
        use pb::alter_table_request::Change;
        let change = match self.change.ok_or(Malformed("change"))? {
            Change::Ttl(pb::SetTtl { ttl, index }) => {
                let ttl: Ttl = ttl_of(&ttl.ok_or(Malformed("ttl"))?)?;
                Alter::Ttl { ttl, index }
            }
            Change::AddColumn(column) => Alter::AddColumn(Column::try_from(&column)?),
            Change::AddIndex(index) => Alter::AddIndex(Index::try_from(&index)?),
            Change::DeleteIndex(name) => Alter::DeleteIndex(name),
        };
        Ok(Order::Alter { table: table(self.table)?, change })
    }
}

impl Ordered for pb::StartJobRequest {
    fn order(self) -> Result<Order, Refusal> {
        let kind = JobKind::parse(&self.kind).ok_or(Malformed("kind"))?;
        let (endpoints, allow_single_replica) = (self.endpoints, self.allow_single_replica);
        Ok(Order::StartJob { kind, endpoints, allow_single_replica })
    }
}

impl Ordered for pb::JobRequest {
    fn order(self) -> Result<Order, Refusal> {
        Ok(Order::CancelJob(JobId(self.id)))
    }
}
