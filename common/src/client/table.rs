//! A table as a client uses it: its definition, where its partitions are led, and the request ids in use.

use std::sync::Arc;

use bytes::Bytes;

use super::routing::Routes;
use super::session::Session;
use crate::route::partition_of;
use crate::row::{self, RowError, Value};
use crate::table::{Index, Table};

/// The indexes of a table with a schema that are newer than that version of it.
pub(super) fn added_since(table: &Table, version: u32) -> impl Iterator<Item = (u32, &Index)> {
    let added =
        table.live_indexes().filter(move |(_, i)| table.has_schema() && i.added.version > version);
    added.filter_map(|(at, index)| Some((u32::try_from(at).ok()?, index)))
}

/// A row to be stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Milliseconds since 1970: the time of the indexes without a ts column.
    pub time: u64,
    /// Under which key it is found, by index.
    pub dimensions: Vec<(u32, Bytes)>,
    /// Its bytes.
    pub value: Bytes,
}

impl Row {
    pub(super) fn size(&self) -> usize {
        self.value.len() + self.dimensions.iter().map(|(_, key)| key.len() + 8).sum::<usize>() + 16
    }
}

/// A table of a cluster, opened by [`Client::table`](super::Client::table). It stays usable while partitions move;
/// when the table is dropped, requests are refused with `TableNotFound`.
pub struct TableHandle {
    table: Table,
    pub(super) routes: Arc<Routes>,
    pub(super) sessions: Vec<Session>,
}

impl TableHandle {
    pub(super) fn new(table: Table, routes: Routes) -> Self {
        let sessions = (0..table.partition_num).map(|_| Session::new()).collect();
        Self { table, routes: Arc::new(routes), sessions }
    }

    /// The definition.
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.table.name
    }

    /// Its database; empty: none.
    #[must_use]
    pub fn db(&self) -> &str {
        &self.table.db
    }

    /// Its number.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.table.tid.0
    }

    /// The partition of a key.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> u32 {
        partition_of(key, self.table.partition_num).0
    }

    /// The endpoint of a partition's leader, as far as it is known now.
    #[must_use]
    pub fn leader(&self, pid: u32) -> Option<String> {
        self.routes.of(pid).leader.map(|l| l.endpoint().to_owned())
    }

    /// The endpoints of a partition's replicas, as they were last told.
    #[must_use]
    pub fn replicas(&self, pid: u32) -> Vec<String> {
        self.routes.of(pid).replicas.iter().map(|l| l.endpoint().to_owned()).collect()
    }

    /// A row of a table with a schema, from one value for each column. `time` (ms) is that of the indexes without a
    /// ts column.
    ///
    /// # Errors
    /// The values do not fit the columns.
    pub fn row(&self, values: &[Value], time: u64) -> Result<Row, RowError> {
        let value = Bytes::from(row::encode(&self.table.columns, values)?);
        let dimensions = self.table.live_indexes().filter_map(|(at, index)| {
            Some((u32::try_from(at).ok()?, self.table.key(index, values)))
        });
        Ok(Row { time, dimensions: dimensions.collect(), value })
    }

    /// Gives rows the keys of the indexes that were added after the table was opened.
    ///
    /// # Errors
    /// The bytes of one are no row of this table.
    pub(super) fn complete(&self, newest: &Table, rows: &mut [Row]) -> Result<(), RowError> {
        let added: Vec<_> = added_since(newest, self.table.version()).collect();
        for row in rows.iter_mut().filter(|_| !added.is_empty()) {
            let values = row::decode(&newest.columns, &row.value)?;
            row.dimensions.retain(|(at, _)| !added.iter().any(|(new, _)| new == at));
            row.dimensions
                .extend(added.iter().map(|(at, index)| (*at, newest.key(index, &values))));
        }
        Ok(())
    }

    /// A row of a table without a schema.
    #[must_use]
    pub fn plain(&self, key: impl Into<Bytes>, value: impl Into<Bytes>, time: u64) -> Row {
        Row { time, dimensions: vec![(self.first_index(), key.into())], value: value.into() }
    }

    /// The index that is meant where none is named: the first that is not deleted.
    #[must_use]
    pub fn first_index(&self) -> u32 {
        self.table.first_index().and_then(|at| u32::try_from(at).ok()).unwrap_or(0)
    }

    /// The values of a stored row, one for each column.
    ///
    /// # Errors
    /// The bytes are no row of this table.
    pub fn decode(&self, value: &[u8]) -> Result<Vec<Value>, RowError> {
        row::decode(&self.table.columns, value)
    }
}
