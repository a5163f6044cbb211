//! What operators order, by the names that they use.
//!
//! Who applies an order looks the names up and checks everything in one step: an order is carried out whole, or refused in
//! the words of OpenMLDB's nameserver and nothing has changed.

use serde::{Deserialize, Serialize};
use stela_common::ids::{JobId, OpId, TableId};
use stela_common::table::{Column, Index, Ttl};

use crate::job::JobKind;
use crate::op::OpStatus;

/// A table, by name or by number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TableRef {
    /// By name.
    Name {
        /// Its database; empty: none.
        db: String,
        /// Its name.
        name: String,
    },
    /// By number.
    Id(TableId),
}

/// Who is to lead.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Candidate {
    /// Whoever suits, and only if nobody leads.
    IfNobodyLeads,
    /// Whoever suits.
    Auto,
    /// The replica there.
    Endpoint(String),
}

/// A line of `settablepartition`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Where the replica is.
    pub endpoint: String,
    /// It leads, or led.
    pub leader: bool,
    /// It is alive.
    pub alive: bool,
}

/// Which operations are to be forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Which {
    /// That one; if it has not ended it is cancelled.
    Id(OpId),
    /// Those that ended so, of that database or, if it is empty, of all.
    Ended {
        /// How.
        status: OpStatus,
        /// Where.
        db: String,
    },
}

/// A change of a table's definition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Alter {
    /// Another time to live, of one index or of all.
    Ttl {
        /// Which.
        ttl: Ttl,
        /// Of which; empty: all.
        index: String,
    },
    /// One more column, which may be null.
    AddColumn(Column),
    /// One more index; rows that are there are not found by it until they are written again.
    AddIndex(Index),
    /// An index goes.
    DeleteIndex(String),
}

/// An order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Order {
    /// `addreplica`.
    AddReplica {
        /// Of which table.
        table: TableRef,
        /// Of which partitions.
        pids: Vec<u32>,
        /// Where.
        endpoint: String,
    },
    /// `delreplica`.
    DelReplica {
        /// Of which table.
        table: TableRef,
        /// Of which partitions.
        pids: Vec<u32>,
        /// Where.
        endpoint: String,
    },
    /// `migrate`.
    Migrate {
        /// From where.
        from: String,
        /// Of which table.
        table: TableRef,
        /// Of which partitions.
        pids: Vec<u32>,
        /// To where.
        to: String,
    },
    /// `changeleader`.
    ChangeLeader {
        /// Of which table.
        table: TableRef,
        /// Of which partition.
        pid: u32,
        /// Who.
        candidate: Candidate,
        /// Also while `auto_failover` is on.
        always: bool,
    },
    /// `offlineendpoint`.
    OfflineEndpoint {
        /// Which.
        endpoint: String,
        /// How many at a time; 0: as many as there are.
        concurrency: u32,
    },
    /// `recoverendpoint`.
    RecoverEndpoint {
        /// Which.
        endpoint: String,
        /// What it led it is to lead again.
        need_restore: bool,
        /// How many at a time; 0: as many as there are.
        concurrency: u32,
    },
    /// `recovertable`.
    RecoverTable {
        /// Of which table.
        table: TableRef,
        /// Of which partition.
        pid: u32,
        /// Where.
        endpoint: String,
    },
    /// `updatetablealive`.
    SetAlive {
        /// Of which table.
        table: TableRef,
        /// Of which partition; `None`: all.
        pid: Option<u32>,
        /// Where.
        endpoint: String,
        /// `yes`.
        alive: bool,
    },
    /// `settablepartition`.
    SetPartition {
        /// Of which table.
        table: TableRef,
        /// Of which partition.
        pid: u32,
        /// How it is to be.
        rows: Vec<Row>,
    },
    /// `makesnapshot`.
    MakeSnapshot {
        /// Of which table.
        table: TableRef,
        /// Of which partition.
        pid: u32,
    },
    /// `setttl`, `addtablefield`, `addindex`, `deleteindex`.
    Alter {
        /// Which table.
        table: TableRef,
        /// How.
        change: Alter,
    },
    /// `setsdkendpoint`.
    SetSdkEndpoint {
        /// Of which tablet.
        server: String,
        /// What; empty: none.
        endpoint: String,
    },
    /// `cancelop`.
    CancelOp(OpId),
    /// `deleteop`.
    DeleteOps(Which),
    /// `stela ops recoverdata` and the like.
    StartJob {
        /// What for.
        kind: JobKind,
        /// About which tablets.
        endpoints: Vec<String>,
        /// Partitions of one replica may stay where they are.
        allow_single_replica: bool,
    },
    /// A job is to end where it is.
    CancelJob(JobId),
}
