//! Tables as users define them: columns, indexes, time to live, and the options of a table.
//!
//! These types are also what is stored (in the Raft state and beside each partition), so a field is only ever added,
//! with a default.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::TableId;
use crate::row::Value;

/// The type of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ColumnType {
    /// `bool`
    Bool,
    /// `smallint`, 16 bits
    SmallInt,
    /// `int`, 32 bits
    Int,
    /// `bigint`, 64 bits
    BigInt,
    /// `float`, 32 bits
    Float,
    /// `double`, 64 bits
    Double,
    /// `string`
    Varchar,
    /// `date`, a day
    Date,
    /// `timestamp`, milliseconds since 1970
    Timestamp,
}

impl ColumnType {
    /// The type that a word of the `create` command names, or `None`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "bool" => Self::Bool,
            "smallint" | "uint16" | "int16" => Self::SmallInt,
            "int" | "int32" | "uint32" => Self::Int,
            "bigint" | "int64" | "uint64" => Self::BigInt,
            "float" => Self::Float,
            "double" => Self::Double,
            "varchar" | "string" => Self::Varchar,
            "date" => Self::Date,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }

    /// May a column of this type be part of a key?
    #[must_use]
    pub fn is_key(self) -> bool {
        !matches!(self, Self::Float | Self::Double)
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One column.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Column {
    /// Its name, unique in the table.
    pub name: String,
    /// Its type.
    pub kind: ColumnType,
    /// Whether a row without a value here is refused.
    #[serde(default)]
    pub not_null: bool,
}

/// How the two limits of a [`Ttl`] are combined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TtlKind {
    /// By age.
    #[default]
    Absolute,
    /// By number of newer records of the key.
    Latest,
    /// Expired when both say so.
    AbsAndLat,
    /// Expired when either says so.
    AbsOrLat,
}

/// Time to live. 0 is "no limit".
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ttl {
    /// How the limits are combined.
    pub kind: TtlKind,
    /// Age in minutes.
    pub abs: u64,
    /// Number of records.
    pub lat: u64,
}

impl Ttl {
    /// Is the record at `position` (0 = newest) of its key, with time `ts` (ms), expired at wall time `now` (ms)?
    #[must_use]
    pub fn expired(&self, ts: u64, position: u64, now: u64) -> bool {
        let old = self.abs != 0 && ts <= now.saturating_sub(self.abs.saturating_mul(60_000));
        let deep = self.lat != 0 && position >= self.lat;
        match self.kind {
            TtlKind::Absolute => old,
            TtlKind::Latest => deep,
            TtlKind::AbsAndLat => old && deep,
            TtlKind::AbsOrLat => old || deep,
        }
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TtlKind::Absolute => write!(f, "{}min", self.abs),
            TtlKind::Latest => write!(f, "{}", self.lat),
            TtlKind::AbsAndLat => write!(f, "{}min&&{}", self.abs, self.lat),
            TtlKind::AbsOrLat => write!(f, "{}min||{}", self.abs, self.lat),
        }
    }
}

/// One index: where rows are found, by key and by time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Index {
    /// Its name, unique in the table.
    pub name: String,
    /// Its key columns; empty in a table without a schema, where the key comes with the request.
    pub columns: Vec<String>,
    /// The column that holds the time; `None`: the time of the request.
    pub ts: Option<String>,
    /// When its records expire.
    #[serde(default)]
    pub ttl: Ttl,
    /// It was deleted. Its place stays, since dimensions name indexes by number; nothing is stored or found in it.
    #[serde(default)]
    pub deleted: bool,
    /// How it came to a table that was there before.
    #[serde(default)]
    pub added: Added,
}

/// An index that was added to a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Added {
    /// The [version](Table::version) of the table since which it is there; 0: it was made with it.
    pub version: u32,
    /// Rows from before are still being brought into it: nothing is read by it, and nothing deleted from the table.
    pub filling: bool,
}

/// When a write counts as stored on one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Sync {
    /// `fdatasync` before the acknowledgement, grouped.
    #[default]
    Commit,
    /// Written; synced every so many milliseconds.
    Interval(u32),
}

/// Who must have a write before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Ack {
    /// The whole in-sync set.
    #[default]
    All,
    /// The leader alone: outside the promises (R34).
    Leader,
}

/// How a leader knows that no other one serves when it answers a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Read {
    /// Every other member of the commit set has permitted it to read for a while (R11).
    #[default]
    Permit,
    /// It asks all of them, for each batch of reads: for machines whose clocks cannot be trusted (R38).
    Confirm,
}

impl Read {
    /// As messages say it.
    #[must_use]
    pub fn from_flag(confirm: bool) -> Self {
        if confirm { Self::Confirm } else { Self::Permit }
    }
}

/// The options of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Who must have a write before it is acknowledged.
    #[serde(default)]
    pub ack: Ack,
    /// When a write counts as stored.
    #[serde(default)]
    pub sync: Sync,
    /// Writes are refused while fewer replicas than this are in sync. At least 1.
    pub min_insync: u32,
    /// How reads at the leader are made safe.
    #[serde(default)]
    pub read: Read,
}

impl Default for Options {
    fn default() -> Self {
        Self { ack: Ack::All, sync: Sync::Commit, min_insync: 1, read: Read::Permit }
    }
}

/// A table as the catalog knows it. Without columns it holds opaque values under one key each.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Table {
    /// Its number, for ever.
    pub tid: TableId,
    /// Its database; empty: none.
    pub db: String,
    /// Its name, unique in its database.
    pub name: String,
    /// Its columns; empty: no schema.
    pub columns: Vec<Column>,
    /// Its indexes, at least one.
    pub indexes: Vec<Index>,
    /// How many partitions its keys are spread over.
    pub partition_num: u32,
    /// How many replicas each partition has, the leader included.
    pub replica_num: u32,
    /// Its options.
    #[serde(default)]
    pub options: Options,
    /// The Raft index that created it (R20: names this creation).
    #[serde(default)]
    pub created_index: u64,
    /// How many of the columns, the last ones, were added after it was made: older rows end before them.
    #[serde(default)]
    pub added_columns: u32,
}

/// The most rows, bytes and indexes that one request may have.
pub mod limits {
    /// A key, in bytes.
    pub const KEY: usize = 64 << 10;
    /// A value, in bytes.
    pub const VALUE: usize = 8 << 20;
    /// All rows of one request, in bytes.
    pub const REQUEST: usize = 15 << 20;
    /// Indexes of a table.
    pub const INDEXES: usize = 200;
    /// Partitions of a table.
    pub const PARTITIONS: u32 = 65_536;
    /// A name of a database, table, column or index, in bytes.
    pub const NAME: usize = 255;
    /// Of `sync=interval`, ms.
    pub const SYNC_INTERVAL: u32 = 60_000;
}

impl Table {
    /// Does it have a schema?
    #[must_use]
    pub fn has_schema(&self) -> bool {
        !self.columns.is_empty()
    }

    /// How many columns it was made with.
    #[must_use]
    pub fn first_columns(&self) -> usize {
        self.columns.len().saturating_sub(self.added_columns as usize)
    }

    /// The position of the column of that name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }

    /// The key of a row in an index: the texts of its columns, joined by `|` as OpenMLDB does.
    #[must_use]
    pub fn key(&self, index: &Index, values: &[Value]) -> Bytes {
        let columns = index.columns.iter().filter_map(|c| values.get(self.column(c)?));
        Bytes::from(columns.map(Value::text).collect::<Vec<_>>().join("|"))
    }

    /// The indexes that are not deleted, each with its position.
    pub fn live_indexes(&self) -> impl Iterator<Item = (usize, &Index)> {
        self.indexes.iter().enumerate().filter(|(_, i)| !i.deleted)
    }

    /// The first index that is not deleted: the one that is meant where none is named.
    #[must_use]
    pub fn first_index(&self) -> Option<usize> {
        self.live_indexes().next().map(|(at, _)| at)
    }

    /// Grows with each index that is added: whoever writes has to know of all of them.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.indexes.iter().map(|i| i.added.version).max().unwrap_or(0)
    }

    /// The index that is being filled, with its position. There is one at a time.
    #[must_use]
    pub fn filling(&self) -> Option<(usize, &Index)> {
        self.live_indexes().find(|(_, i)| i.added.filling)
    }

    /// The position of the index of that name.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.live_indexes().find(|(_, i)| i.name == name).map(|(at, _)| at)
    }

    /// The time that a row has in an index by its values; `None`: its request says that, or nothing does.
    #[must_use]
    pub fn time(&self, index: &Index, values: &[Value]) -> Option<u64> {
        match values.get(self.column(index.ts.as_ref()?)?) {
            Some(Value::BigInt(ts) | Value::Timestamp(ts)) => u64::try_from(*ts).ok(),
            _ => None,
        }
    }

    /// The same of a row that stands in another index, with the time that it has there.
    #[must_use]
    pub fn time_beside(
        &self,
        index: &Index,
        values: &[Value],
        (other, ts): (&Index, u64),
    ) -> Option<u64> {
        match index.ts {
            Some(_) => self.time(index, values),
            // The time of the request, which an index with a column for it does not tell.
            None => other.ts.is_none().then_some(ts),
        }
    }

    /// Does every index take the time from the request, and not from a column?
    #[must_use]
    pub fn time_from_request(&self) -> bool {
        self.live_indexes().all(|(_, i)| i.ts.is_none())
    }

    /// Checks the definition: the text names the first thing that is wrong, in the words of `ns_client`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        let name_ok = |n: &str| {
            !n.is_empty()
                && n.len() <= limits::NAME
                && !n.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/')
        };
        if !name_ok(&self.name) {
            return Err(format!(
                "table name '{}' is not valid: 1 to {} bytes without blanks and '/'",
                self.name,
                limits::NAME
            ));
        }
        if self.partition_num == 0 || self.partition_num > limits::PARTITIONS {
            return Err(format!("partition_num must be between 1 and {}", limits::PARTITIONS));
        }
        if self.replica_num == 0 {
            return Err("replica_num should be large than zero".into());
        }
        if self.options.min_insync == 0 || self.options.min_insync > self.replica_num {
            return Err("min_insync must be between 1 and replica_num".into());
        }
        if let Sync::Interval(ms) = self.options.sync
            && !(1..=limits::SYNC_INTERVAL).contains(&ms)
        {
            return Err(format!("sync=interval takes 1 to {} ms", limits::SYNC_INTERVAL));
        }
        for (at, column) in self.columns.iter().enumerate() {
            if !name_ok(&column.name) {
                return Err(format!("check column_desc name failed. name is {}", column.name));
            }
            if self.columns[..at].iter().any(|c| c.name == column.name) {
                return Err(format!("Duplicated column {}", column.name));
            }
        }
        if self.first_index().is_none() {
            return Err("no index".into());
        }
        if self.indexes.len() > limits::INDEXES {
            return Err(format!(
                "a table has at most {} indexes, deleted ones included",
                limits::INDEXES
            ));
        }
        // What is said of a deleted one concerns nobody any more, its name is free.
        for (at, index) in self.live_indexes() {
            if index.name.is_empty() {
                return Err("not set index_name in column_key".into());
            }
            if self.index(&index.name) != Some(at) {
                return Err(format!("duplicate index_name {}", index.name));
            }
            if index.ttl.abs > 30 * 365 * 24 * 60 || index.ttl.lat > 1000 {
                return Err(format!(
                    "ttl of index {} is too large: at most 30 years and 1000 records",
                    index.name
                ));
            }
            self.check_columns_of(index)?;
        }
        Ok(())
    }

    fn check_columns_of(&self, index: &Index) -> Result<(), String> {
        if self.has_schema() == index.columns.is_empty() {
            return Err(format!("index {} names no column", index.name));
        }
        for name in &index.columns {
            match self.column(name) {
                None => return Err(format!("column :{name} is not member of columns")),
                Some(at) if !self.columns[at].kind.is_key() => {
                    return Err("float or double column can not be index".into());
                }
                Some(_) => {}
            }
        }
        if let Some(ts) = &index.ts {
            match self.column(ts).map(|at| self.columns[at].kind) {
                None => return Err(format!("invalid ts_name {ts}")),
                Some(ColumnType::BigInt | ColumnType::Timestamp) => {}
                Some(_) => return Err(format!("invalid ts type ts_name {ts}")),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_index_keeps_its_place_and_is_found_by_nobody() {
        let index = |name: &str, ts: Option<&str>, deleted| Index {
            name: name.into(),
            columns: vec!["a".into()],
            ts: ts.map(Into::into),
            ttl: Ttl::default(),
            deleted,
            added: Default::default(),
        };
        let column = |name: &str, kind| Column { name: name.into(), kind, not_null: false };
        let mut table = Table {
            tid: TableId(1),
            db: String::new(),
            name: "t".into(),
            columns: vec![column("a", ColumnType::Varchar), column("t", ColumnType::BigInt)],
            indexes: vec![
                index("x", Some("t"), true),
                index("y", None, false),
                index("x", None, false),
            ],
            partition_num: 1,
            replica_num: 1,
            options: Options::default(),
            created_index: 0,
            added_columns: 0,
        };
        assert_eq!(table.check(), Ok(()));
        assert_eq!((table.index("x"), table.first_index()), (Some(2), Some(1)));
        assert!(table.time_from_request());
        let again = Table::try_from(&stela_proto::common::Table::from(&table)).unwrap();
        assert_eq!(again, table);
        table.indexes[1].name = "x".into();
        assert_eq!(table.check(), Err("duplicate index_name x".into()));
        table.indexes.iter_mut().for_each(|i| i.deleted = true);
        assert_eq!((table.check(), table.index("x")), (Err("no index".into()), None));
    }
}
