//! Between the wire's generated types and ours. Nothing that arrives is trusted: what cannot be is [`Malformed`].

use stela_proto::common as pb;

use crate::code::{Code, Refusal};
use crate::ids::{Epoch, Incarnation, PartitionId, PartitionKey, TableId, TabletId, Version};
use crate::table::{
    Ack, Added, Column, ColumnType, Index, Options, Read, Sync, Table, Ttl, TtlKind,
};

/// A message that lacks a field or has a value out of range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed message: field {0} is missing or out of range")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for Refusal {
    fn from(e: Malformed) -> Self {
        Self::new(Code::Malformed, e.to_string())
    }
}

impl From<Malformed> for tonic::Status {
    fn from(e: Malformed) -> Self {
        Self::invalid_argument(e.to_string())
    }
}

/// The status of a success.
#[must_use]
pub fn ok() -> Option<pb::Status> {
    Some(pb::Status { code: 0, msg: Code::Ok.text().into() })
}

/// What the status of a success says if nothing was stored, as all of it was there.
pub const EXISTED: &str = "exists but ignore";

/// The status of a refusal.
#[must_use]
pub fn refused(refusal: &Refusal) -> Option<pb::Status> {
    Some(pb::Status { code: refusal.code as i32, msg: refusal.text.clone() })
}

/// A status as a result; one that is missing is malformed, a number that is not known keeps its text.
///
/// # Errors
/// The refusal that the status says.
pub fn outcome(status: Option<&pb::Status>) -> Result<(), Refusal> {
    let status = status.ok_or(Malformed("status"))?;
    match Code::from_number(status.code) {
        Some(Code::Ok) => Ok(()),
        Some(code) => Err(Refusal::new(code, status.msg.clone())),
        None => Err(Refusal::new(Code::Malformed, format!("code {}: {}", status.code, status.msg))),
    }
}

/// Whether a call failed because the port refused the connection: certainly nothing of it was received.
#[must_use]
pub fn connection_refused(status: &tonic::Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// A member of an in-sync set: a replica and the run of its process that is meant (R8).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize, serde::Deserialize,
)]
pub struct Member {
    /// The tablet.
    pub tablet: TabletId,
    /// The run of its process.
    pub incarnation: Incarnation,
    /// It cannot prove that it has all that it had acknowledged (R14).
    pub untrusted: bool,
}

/// What the meta group has decided of one partition, as tablets are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct View {
    /// Which partition.
    pub key: PartitionKey,
    /// Its current epoch.
    pub epoch: Epoch,
    /// The Raft index that last changed it: grows with each change.
    pub version: Version,
    /// Who leads in that epoch.
    pub leader: TabletId,
    /// Which run of the leader (R1).
    pub leader_incarnation: Incarnation,
    /// The in-sync set.
    pub in_sync: Vec<Member>,
    /// Where its replicas are, in placement order.
    pub replicas: Vec<TabletId>,
    /// The last epoch that began with an unclean election (R16); 0: none.
    pub last_unclean: Epoch,
    /// How many did (R35).
    pub uncleans: u64,
    /// The tablet that had surrendered before this epoch (R12).
    pub surrendered: Option<TabletId>,
    /// Replicas that an operator or `auto_failover` off holds back (R22).
    pub held: Vec<TabletId>,
}

impl From<&Member> for pb::Member {
    fn from(m: &Member) -> Self {
        Self { tablet: m.tablet.0, incarnation: m.incarnation.0, untrusted: m.untrusted }
    }
}

impl From<&pb::Member> for Member {
    fn from(m: &pb::Member) -> Self {
        Self {
            tablet: TabletId(m.tablet),
            incarnation: Incarnation(m.incarnation),
            untrusted: m.untrusted,
        }
    }
}

impl From<&View> for pb::Partition {
    fn from(v: &View) -> Self {
        Self {
            tid: v.key.tid.0,
            pid: v.key.pid.0,
            epoch: v.epoch.0,
            version: v.version.0,
            leader: v.leader.0,
            leader_incarnation: v.leader_incarnation.0,
            in_sync: v.in_sync.iter().map(Into::into).collect(),
            replicas: v.replicas.iter().map(|t| t.0).collect(),
            last_unclean: v.last_unclean.0,
            uncleans: v.uncleans,
            surrendered: v.surrendered.map_or(0, |t| t.0),
            held: v.held.iter().map(|t| t.0).collect(),
        }
    }
}

impl TryFrom<&pb::Partition> for View {
    type Error = Malformed;

    fn try_from(p: &pb::Partition) -> Result<Self, Malformed> {
        if p.in_sync.is_empty() {
            return Err(Malformed("partition.in_sync"));
        }
        if p.epoch == 0 {
            return Err(Malformed("partition.epoch"));
        }
        Ok(Self {
            key: PartitionKey { tid: TableId(p.tid), pid: PartitionId(p.pid) },
            epoch: Epoch(p.epoch),
            version: Version(p.version),
            leader: TabletId(p.leader),
            leader_incarnation: Incarnation(p.leader_incarnation),
            in_sync: p.in_sync.iter().map(Into::into).collect(),
            replicas: p.replicas.iter().map(|t| TabletId(*t)).collect(),
            last_unclean: Epoch(p.last_unclean),
            uncleans: p.uncleans,
            surrendered: (p.surrendered != 0).then_some(TabletId(p.surrendered)),
            held: p.held.iter().map(|t| TabletId(*t)).collect(),
        })
    }
}

const COLUMN_TYPES: [(ColumnType, pb::ColumnType); 9] = [
    (ColumnType::Bool, pb::ColumnType::Bool),
    (ColumnType::SmallInt, pb::ColumnType::Smallint),
    (ColumnType::Int, pb::ColumnType::Int),
    (ColumnType::BigInt, pb::ColumnType::Bigint),
    (ColumnType::Float, pb::ColumnType::Float),
    (ColumnType::Double, pb::ColumnType::Double),
    (ColumnType::Varchar, pb::ColumnType::Varchar),
    (ColumnType::Date, pb::ColumnType::Date),
    (ColumnType::Timestamp, pb::ColumnType::Timestamp),
];

const TTL_KINDS: [(TtlKind, pb::TtlKind); 4] = [
    (TtlKind::Absolute, pb::TtlKind::Absolute),
    (TtlKind::Latest, pb::TtlKind::Latest),
    (TtlKind::AbsAndLat, pb::TtlKind::AbsAndLat),
    (TtlKind::AbsOrLat, pb::TtlKind::AbsOrLat),
];

impl From<&Column> for pb::Column {
    fn from(c: &Column) -> Self {
        let kind = COLUMN_TYPES
            .iter()
            .find(|(ours, _)| *ours == c.kind)
            .map_or(0, |(_, wire)| *wire as i32);
        Self { name: c.name.clone(), r#type: kind, not_null: c.not_null }
    }
}

impl TryFrom<&pb::Column> for Column {
    type Error = Malformed;

    fn try_from(c: &pb::Column) -> Result<Self, Malformed> {
        let kind = COLUMN_TYPES
            .iter()
            .find(|(_, wire)| *wire as i32 == c.r#type)
            .ok_or(Malformed("column.type"))?
            .0;
        Ok(Self { name: c.name.clone(), kind, not_null: c.not_null })
    }
}

/// A time to live, as messages have it.
#[must_use]
pub fn ttl(ttl: &Ttl) -> pb::Ttl {
    let kind =
        TTL_KINDS.iter().find(|(ours, _)| *ours == ttl.kind).map_or(0, |(_, wire)| *wire as i32);
    pb::Ttl { kind, abs: ttl.abs, lat: ttl.lat }
}

/// A time to live of a message.
///
/// # Errors
/// It is of no kind that is known.
pub fn ttl_of(ttl: &pb::Ttl) -> Result<Ttl, Malformed> {
    let kind = TTL_KINDS.iter().find(|(_, wire)| *wire as i32 == ttl.kind);
    let kind = kind.ok_or(Malformed("ttl.kind"))?.0;
    Ok(Ttl { kind, abs: ttl.abs, lat: ttl.lat })
}

impl From<&Index> for pb::Index {
    fn from(i: &Index) -> Self {
        Self {
            name: i.name.clone(),
            columns: i.columns.clone(),
            ts_column: i.ts.clone().unwrap_or_default(),
            ttl: Some(ttl(&i.ttl)),
            deleted: i.deleted,
            version: i.added.version,
            filling: i.added.filling,
        }
    }
}

impl TryFrom<&pb::Index> for Index {
    type Error = Malformed;

    fn try_from(i: &pb::Index) -> Result<Self, Malformed> {
        Ok(Self {
            name: i.name.clone(),
            columns: i.columns.clone(),
            ts: (!i.ts_column.is_empty()).then(|| i.ts_column.clone()),
            ttl: ttl_of(&i.ttl.unwrap_or_default())?,
            deleted: i.deleted,
            added: Added { version: i.version, filling: i.filling },
        })
    }
}

impl From<&Table> for pb::Table {
    fn from(t: &Table) -> Self {
        Self {
            tid: t.tid.0,
            db: t.db.clone(),
            name: t.name.clone(),
            columns: t.columns.iter().map(Into::into).collect(),
            indexes: t.indexes.iter().map(Into::into).collect(),
            partition_num: t.partition_num,
            replica_num: t.replica_num,
            min_insync: t.options.min_insync,
            sync_interval_ms: match t.options.sync {
                Sync::Commit => 0,
                Sync::Interval(ms) => ms,
            },
            ack_leader: t.options.ack == Ack::Leader,
            read_confirm: t.options.read == Read::Confirm,
            created_index: t.created_index,
            added_columns: t.added_columns,
        }
    }
}

impl TryFrom<&pb::Table> for Table {
    type Error = Malformed;

    fn try_from(t: &pb::Table) -> Result<Self, Malformed> {
        Ok(Self {
            tid: TableId(t.tid),
            db: t.db.clone(),
            name: t.name.clone(),
            columns: t.columns.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            indexes: t.indexes.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            partition_num: t.partition_num,
            replica_num: t.replica_num,
            options: Options {
                ack: if t.ack_leader { Ack::Leader } else { Ack::All },
                sync: if t.sync_interval_ms == 0 {
                    Sync::Commit
                } else {
                    Sync::Interval(t.sync_interval_ms)
                },
                min_insync: t.min_insync.max(1),
                read: Read::from_flag(t.read_confirm),
            },
            created_index: t.created_index,
            added_columns: t.added_columns,
        })
    }
}
