//! What operators ask of the nameservers.
//!
//! Invariant: metadata writes of one client go one after the other, since the meta group remembers the answer to the
//! last request of a client; a retry repeats the request with the same id, so that it is applied once.

use std::sync::Arc;
use std::time::Instant;

use stela_proto::nameserver as pb;

use super::Shared;
use crate::code::{Code, Refusal};
use crate::table::{Ack, Read, Sync, Table};

/// Options of a table that are to change; those that are `None` stay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableOptions {
    /// Who must have a write before it is acknowledged.
    pub ack: Option<Ack>,
    /// When a write counts as stored.
    pub sync: Option<Sync>,
    /// Writes are refused while fewer replicas are in sync.
    pub min_insync: Option<u32>,
    /// How reads at the leader are made safe.
    pub read: Option<Read>,
}

/// The commands that go to the nameservers. Each is asked of the next nameserver when one does not answer, until the
/// client's timeout; the replies are those of the wire, with a status that says yes.
#[derive(Clone)]
pub struct Admin(pub(super) Arc<Shared>);

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) -> $reply:ident = $call:ident($request:expr);)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// What the nameserver says, or that none answered in time.
        pub async fn $name(&self, $($arg: $type),*) -> Result<pb::$reply, Refusal> {
            let request = $request;
            self.0.nameservers.ask(false, self.deadline(), |mut c| {
                let request = request.clone();
                async move { c.$call(request).await }
            }).await
        })*
    };
}

macro_rules! writes {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $type:ty),*) = $call:ident(|$id:ident| $request:expr);)*) => {
        $($(#[$doc])*
        ///
        /// # Errors
        /// What the nameserver says; [`SetFailed`](crate::code::Code::SetFailed) if it is not known whether it was
        /// applied.
        pub async fn $name(&self, $($arg: $type),*) -> Result<pb::WriteReply, Refusal> {
            let mut seq = self.0.writes.lock().await;
            *seq += 1;
            let $id = Some(pb::RequestId { client: self.0.id, seq: *seq });
            let request = $request;
            self.0.nameservers.ask(true, self.deadline(), |mut c| {
                let request = request.clone();
                async move { c.$call(request).await }
            }).await
        })*
    };
}

impl Admin {
    fn deadline(&self) -> Instant {
        Instant::now() + self.0.timeout
    }

    reads! {
        /// The cluster's name and its nameservers.
        cluster() -> ClusterReply = cluster(pb::ClusterRequest {});
        /// The tablets.
        show_tablet() -> ShowTabletReply = show_tablet(pb::ShowTabletRequest {});
        /// Tables with their partitions and replicas: those of a database, or one of them, or all.
        show_table(db: &str, name: &str, all_databases: bool) -> ShowTableReply
            = show_table(pb::ShowTableRequest { db: db.into(), name: name.into(), all_databases });
        /// Recorded operations; empty filters take all.
        show_op_status(db: &str, name: &str, pid: Option<u32>) -> ShowOpStatusReply
            = show_op_status(pb::ShowOpStatusRequest { db: db.into(), name: name.into(), pid });
        /// One setting, or with an empty key all.
        conf_get(key: &str) -> ConfGetReply = conf_get(pb::ConfGetRequest { key: key.into() });
        /// The databases.
        show_db() -> ShowDbReply = show_db(pb::ShowDbRequest {});
        /// What is known of each replica of a partition (R16).
        candidates(db: &str, name: &str, pid: u32) -> CandidatesReply
            = candidates(pb::CandidatesRequest { db: db.into(), name: name.into(), pid });
        /// Work over many partitions: that one, or with 0 all that is remembered.
        show_jobs(id: u64) -> ShowJobsReply = show_jobs(pb::JobRequest { id, request: None });
        /// Is there a database of that name?
        use_db(name: &str) -> WriteReply = use_db(pb::DbRequest { name: name.into(), request: None });
    }

    /// Does the tablet there lead that partition, as the nameservers know it?
    ///
    /// # Errors
    /// What the nameserver says; there is no such partition.
    pub async fn leads(&self, tid: u32, pid: u32, endpoint: &str) -> Result<bool, Refusal> {
        let tables = self.show_table("", "", true).await?.tables;
        let table = tables.iter().find(|t| t.table.as_ref().is_some_and(|t| t.tid == tid));
        let partition = table
            .ok_or(Code::TableNotFound)?
            .partitions
            .iter()
            .find(|p| p.pid == pid)
            .ok_or(Code::PidNotFound)?;
        Ok(partition.replicas.iter().any(|r| r.endpoint == endpoint && r.leader && r.alive))
    }

    writes! {
        /// Hands over the leadership of a partition that is named by number; an empty endpoint is whoever suits.
        hand_over(tid: u32, pid: u32, endpoint: &str)
            = change_leader(|request| pb::ChangeLeaderRequest {
                tid, pid, endpoint: endpoint.into(), request, ..Default::default()
            });
        /// Changes a setting.
        conf_set(key: &str, value: &str)
            = conf_set(|request| pb::ConfSetRequest { key: key.into(), value: value.into(), request });
        /// Makes a database.
        create_db(name: &str) = create_db(|request| pb::DbRequest { name: name.into(), request });
        /// Removes an empty database.
        drop_db(name: &str) = drop_db(|request| pb::DbRequest { name: name.into(), request });
        /// Makes a table; its number and creation index are chosen by the cluster.
        create_table(table: &Table)
            = create_table(|request| pb::CreateTableRequest { table: Some(table.into()), request });
        /// Changes options of a table.
        set_table(db: &str, name: &str, options: TableOptions)
            = set_table(|request| pb::SetTableRequest {
                db: db.into(),
                name: name.into(),
                ack_leader: options.ack.map(|ack| ack == Ack::Leader),
                sync_interval_ms: options.sync.map(|sync| match sync {
                    Sync::Commit => 0,
                    Sync::Interval(ms) => ms,
                }),
                min_insync: options.min_insync,
                read_confirm: options.read.map(|read| read == Read::Confirm),
                request,
            });
        /// Hands a partition's leadership over to that replica, or with an empty endpoint to whichever suits (R12). It is
        /// decided when this returns; `showopstatus` tells when it is done.
        change_leader(db: &str, name: &str, pid: u32, endpoint: &str)
            = change_leader(|request| pb::ChangeLeaderRequest {
                db: db.into(), name: name.into(), pid, endpoint: endpoint.into(), request,
                ..Default::default()
            });
        /// The operators' `changeleader`: refused while `auto_failover` is on, and without a candidate (`None`) while there
        /// is a leader; an empty candidate is whoever suits.
        change_leader_by_hand(db: &str, name: &str, pid: u32, candidate: Option<&str>)
            = change_leader(|request| pb::ChangeLeaderRequest {
                db: db.into(), name: name.into(), pid, request, by_hand: true,
                endpoint: candidate.unwrap_or_default().into(),
                if_leaderless: candidate.is_none(),
                tid: 0,
            });
        /// `addreplica`.
        add_replica(table: pb::TableName, pids: Vec<u32>, endpoint: &str)
            = add_replica(|request| pb::ReplicasRequest {
                table: Some(table), pids, endpoint: endpoint.into(), request,
            });
        /// `delreplica`.
        del_replica(table: pb::TableName, pids: Vec<u32>, endpoint: &str)
            = del_replica(|request| pb::ReplicasRequest {
                table: Some(table), pids, endpoint: endpoint.into(), request,
            });
        /// `migrate`.
        migrate(from: &str, table: pb::TableName, pids: Vec<u32>, to: &str)
            = migrate(|request| pb::MigrateRequest {
                from: from.into(), table: Some(table), pids, to: to.into(), request,
            });
        /// `offlineendpoint`; a concurrency of 0 is the nameserver's own.
        offline_endpoint(endpoint: &str, concurrency: u32)
            = offline_endpoint(|request| pb::EndpointRequest {
                endpoint: endpoint.into(), need_restore: false, concurrency, request,
            });
        /// `recoverendpoint`.
        recover_endpoint(endpoint: &str, need_restore: bool, concurrency: u32)
            = recover_endpoint(|request| pb::EndpointRequest {
                endpoint: endpoint.into(), need_restore, concurrency, request,
            });
        /// `recovertable`.
        recover_table(table: pb::TableName, pid: u32, endpoint: &str)
            = recover_table(|request| pb::ReplicaRequest {
                table: Some(table), pid, endpoint: endpoint.into(), request,
            });
        /// `updatetablealive`; without a partition, of all of the table.
        update_table_alive(table: pb::TableName, pid: Option<u32>, endpoint: &str, alive: bool)
            = update_table_alive(|request| pb::AliveRequest {
                table: Some(table), pid, endpoint: endpoint.into(), alive, request,
            });
        /// `settablepartition`.
        set_table_partition(table: pb::TableName, pid: u32, rows: Vec<pb::ReplicaState>)
            = set_table_partition(|request| pb::SetTablePartitionRequest {
                table: Some(table), pid, rows, request,
            });
        /// `makesnapshot`.
        make_snapshot(table: pb::TableName, pid: u32)
            = make_snapshot(|request| pb::PartitionRequest { table: Some(table), pid, request });
        /// `cancelop`.
        cancel_op(id: u64) = cancel_op(|request| pb::OpRequest { id, request });
        /// `deleteop` of one operation.
        delete_op(id: u64) = delete_op(|request| pb::DeleteOpRequest {
            id, status: String::new(), db: String::new(), request,
        });
        /// `deleteop` of all that ended so: `done`, `failed` or `canceled`.
        delete_ops(status: &str, db: &str) = delete_op(|request| pb::DeleteOpRequest {
            id: 0, status: status.into(), db: db.into(), request,
        });
        /// `setttl`, `addtablefield`, `addindex`, `deleteindex`.
        alter_table(table: pb::TableName, change: pb::alter_table_request::Change)
            = alter_table(|request| pb::AlterTableRequest {
                table: Some(table), change: Some(change), request,
            });
        /// `setsdkendpoint`; empty: none.
        set_sdk_endpoint(server: &str, endpoint: &str)
            = set_sdk_endpoint(|request| pb::SetSdkEndpointRequest {
                server: server.into(), endpoint: endpoint.into(), request,
            });
        /// Starts work over many partitions; the reply names it.
        start_job(kind: &str, endpoints: &[String], allow_single_replica: bool)
            = start_job(|request| pb::StartJobRequest {
                kind: kind.into(), endpoints: endpoints.to_vec(), allow_single_replica, request,
            });
        /// Ends such work where it is.
        cancel_job(id: u64) = cancel_job(|request| pb::JobRequest { id, request });
        /// Makes a replica the leader that may lack acknowledged writes (R16). `version` is that of the
        /// [`candidates`](Self::candidates) that were looked at.
        elect(db: &str, name: &str, pid: u32, endpoint: &str, version: u64)
            = elect(|request| pb::ElectRequest {
                db: db.into(), name: name.into(), pid, endpoint: endpoint.into(), version, request,
            });
        /// Removes a table and its data.
        drop_table(db: &str, name: &str)
            = drop_table(|request| pb::DropTableRequest { db: db.into(), name: name.into(), request });
    }
}
