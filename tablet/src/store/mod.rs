//! What a replica can show: its indexes over the log, and what is known of requests.
//!
//! The log is the value store, and for what is older the snapshot: an index entry is a time and the place of a value in
//! one of them, and the value is read from the map. **Invariants**
//! * Only committed entries are applied, in the order of their offsets, so that readers need no filter, a truncation
//!   needs no undo, and every replica has the same rows in the same order (R28).
//! * Time to live is looked at when rows are read; the sweep only gives memory back. A changed one holds at once. While
//!   expiry is off ([`Store::set_expires`]) rows neither expire nor go.
//! * A deleted index keeps its place, and nothing is read by it. Its rows stay until an entry of the log takes them away
//!   ([`emptying`](Store::emptying)): deletions that were made by it are applied to the same rows by every replica, and
//!   whenever the log is read again. One that was added is empty until it is filled.
//! * A replica may hear of an added index after entries that name it have arrived. Those are not applied before it has, nor
//!   any behind them ([`Applied::NotYet`]): what it left out it would lack for good.
//! * A deletion removes what is stored under the keys of the indexes that it names, as of its place in the log.
//!
//! [`entry`] is the format of what is applied, [`check`] what is admitted, [`dedup`] which requests were seen,
//! [`places`] where entries are, [`load`] what snapshot and log say at the start, [`image`] what goes into a snapshot and
//! comes from it, [`replay`] entries that are applied once more, [`bulk`] many rows at a time. [`index`], [`list`] and [`tree`] are where rows are found,
//! [`query`] and [`traverse`] which rows a read is about, [`values`] what they hold, `delete` which rows go. Called by the
//! node, under its lock, and by whoever makes a snapshot, on a store of its own.

mod absent;
pub mod bulk;
pub mod check;
pub mod dedup;
mod delete;
pub mod entry;
pub mod image;
pub mod index;
pub mod list;
pub mod load;
pub mod places;
pub mod query;
pub mod replay;
pub mod traverse;
pub mod tree;
pub mod ttl;
pub mod values;

use std::sync::Arc;

use bytes::Bytes;
use entry::{Content, Entry, Which};
use index::Index;
use list::{List, Point};
use stela_common::code::{Code, Refusal};
use stela_common::ids::Offset;
use stela_common::log::{Log, Position, RECORD_HEADER};
use stela_common::table::{Table, Ttl, TtlKind};
use stela_proto::tablet as pb;
use values::PLAIN;

use crate::config::Format;
use crate::snapshot::Snapshot;

/// What can be read of one replica.
#[derive(Debug)]
pub struct Store {
    table: Arc<Table>,
    /// Of each index, the column that holds its time.
    times: Vec<Option<usize>>,
    indexes: Vec<Index>,
    /// What was committed before the entries that were applied.
    snapshot: Option<Arc<Snapshot>>,
    /// Bytes of the entries that were applied.
    grown: u64,
    /// Rows expire.
    expires: bool,
    /// Of each index, how many rows a key may have; more need not be kept.
    most: Vec<usize>,
}

/// What became of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Applied {
    /// It was applied.
    Done,
    /// It stores only what is absent, and all of it was there.
    Existed,
    /// It names an index of which this replica has not been told: nothing was done.
    NotYet,
}

impl Store {
    /// Nothing yet.
    #[must_use]
    pub fn new(table: Arc<Table>) -> Self {
        let mut store = Self {
            table: table.clone(),
            times: Vec::new(),
            indexes: Vec::new(),
            snapshot: None,
            grown: 0,
            expires: true,
            most: Vec::new(),
        };
        store.set_table(table);
        store
    }

    /// The table as this replica knows it.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The table has changed: columns or indexes were added at the end, or an index was deleted.
    pub fn set_table(&mut self, table: Arc<Table>) {
        self.times =
            table.indexes.iter().map(|i| i.ts.as_ref().and_then(|ts| table.column(ts))).collect();
        self.indexes.resize_with(table.indexes.len(), Index::default);
        self.table = table;
        self.limit();
    }

    /// A hot key does not wait for the sweep.
    fn limit(&mut self) {
        let most = |ttl: &Ttl| match ttl.kind {
            TtlKind::Latest | TtlKind::AbsOrLat if ttl.lat != 0 && self.expires => {
                usize::try_from(ttl.lat).unwrap_or(usize::MAX)
            }
            _ => usize::MAX,
        };
        self.most = self.table.indexes.iter().map(|i| most(&i.ttl)).collect();
    }

    /// Do rows expire?
    #[must_use]
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Rows expire, or do not for the time being.
    pub fn set_expires(&mut self, expires: bool) {
        self.expires = expires;
        self.limit();
    }

    /// The entry of a put, checked.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn put(
        &self,
        request: &pb::PutRequest,
        format: Format,
        now: u64,
    ) -> Result<Bytes, Refusal> {
        check::put(&self.table, &self.times, request, format, now)
    }

    /// The entry of a deletion, checked.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn delete(
        &self,
        request: &pb::DeleteRequest,
        format: Format,
        now: u64,
    ) -> Result<Bytes, Refusal> {
        // What is deleted could come back by way of the index that is being filled.
        if self.table.filling().is_some() {
            return Err(Code::IndexFilling.into());
        }
        check::delete(&self.table, request, format, now)
    }

    /// The entry, admitted at wall time `now` (ms), that takes away the rows of indexes that were deleted; `None`: they
    /// have none.
    #[must_use]
    pub fn emptying(&self, now: u64) -> Option<Bytes> {
        let indexes = self.indexes.iter().zip(&self.table.indexes);
        let left = (0..).zip(indexes).filter(|(_, (index, d))| d.deleted && index.rows() > 0);
        let mut left = left.map(|(at, _)| at).peekable();
        left.peek()?;
        let mut writer = entry::Writer::delete(0, 0, now, false);
        left.for_each(|at| writer.rows(at, Which::ALL, &Ttl::default()));
        Some(writer.finish())
    }

    /// Applies the entry whose record stands at `at` in the log.
    ///
    /// # Errors
    /// The body is no entry, or what it is about cannot be looked at: the replica cannot go on behind it.
    pub fn apply(&mut self, log: &Log, at: Position, body: &[u8]) -> Result<Applied, String> {
        let entry = Entry::parse(body).map_err(|e| e.to_string())?;
        if !self.knows(&entry) {
            return Ok(Applied::NotYet);
        }
        let done = self.apply_entry(log, at, &entry)?;
        Ok(if done { Applied::Done } else { Applied::Existed })
    }

    /// Has this replica been told of every index that an entry names?
    #[must_use]
    pub fn knows(&self, entry: &Entry<'_>) -> bool {
        entry.indexes() <= self.indexes.len()
    }

    /// Applies what it knows. `false`: all of it was there.
    fn apply_entry(&mut self, log: &Log, at: Position, entry: &Entry<'_>) -> Result<bool, String> {
        self.grown += (RECORD_HEADER + entry.bytes()) as u64;
        match entry.content() {
            Content::Rows(rows) => {
                let mut stored = !rows.if_absent();
                for row in rows {
                    if let Some((now, ttl)) = row.if_absent
                        && let Some(first) = row.dimensions.clone().next()
                        && self.is_there(log, &first, row.value, &ttl, now)?
                    {
                        continue;
                    }
                    stored = true;
                    let at = at.0 + (RECORD_HEADER + row.place) as u64;
                    let place = if row.summed { at } else { at | PLAIN };
                    for dimension in row.dimensions {
                        let most = self.most.get(dimension.index).copied();
                        if let (Some(index), Some(most)) =
                            (self.indexes.get_mut(dimension.index), most)
                        {
                            let point = Point { ts: dimension.ts, place };
                            index.insert(dimension.key, point, most);
                        }
                    }
                }
                Ok(stored)
            }
            Content::Deletes(deletes) => self.delete_rows(log, deletes).map(|()| true),
        }
    }

    /// Takes expired rows out of some buckets of one index, from one on; returns where to go on: which index, and bucket.
    pub fn sweep(&mut self, (at, bucket): (usize, usize), now: u64) -> Option<(usize, usize)> {
        let definition = self.table.indexes.get(at)?;
        let index = self.indexes.get_mut(at)?;
        if !self.expires || (definition.ttl.abs == 0 && definition.ttl.lat == 0) {
            return Some((at + 1, 0));
        }
        let next = index.sweep(bucket, SWEPT, &definition.ttl, now);
        Some(next.map_or((at + 1, 0), |bucket| (at, bucket)))
    }

    /// Rows in the first index that is not deleted.
    #[must_use]
    pub fn records(&self) -> u64 {
        let first = self.table.first_index();
        first.and_then(|at| self.indexes.get(at)).map_or(0, Index::rows)
    }

    /// Keys in that index.
    #[must_use]
    pub fn keys(&self) -> u64 {
        let first = self.table.first_index();
        first.and_then(|at| self.indexes.get(at)).map_or(0, Index::keys)
    }

    /// Bytes that the indexes take in memory.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.indexes.iter().map(|i| i.heap() as u64).sum()
    }

    /// The snapshot below the entries that were applied.
    #[must_use]
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The last entry that the snapshot has.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.snapshot.as_ref().map_or(Offset(0), |s| s.header().offset)
    }

    /// Bytes of the entries that were applied since the snapshot.
    #[must_use]
    pub fn grown(&self) -> u64 {
        self.grown
    }

    /// Bytes of the snapshot, and of the applied entries since.
    #[must_use]
    pub fn disk(&self) -> u64 {
        self.grown + self.snapshot.as_ref().map_or(0, |s| s.bytes())
    }

    /// How many rows of a list, from the newest on, can be seen.
    fn live(&self, list: &List, ttl: &Ttl, now: u64) -> usize {
        if self.expires { ttl::live(list, ttl, now) } else { list.len() }
    }

    fn expired(&self, ttl: &Ttl, ts: u64, position: u64, now: u64) -> bool {
        self.expires && ttl.expired(ts, position, now)
    }

    fn index(&self, index: u32) -> Result<(&Index, &Ttl), Refusal> {
        let at = index as usize;
        if self.table.filling().is_some_and(|(filling, _)| filling == at) {
            return Err(Code::IndexFilling.into());
        }
        self.indexes
            .get(at)
            .zip(self.table.indexes.get(at).filter(|definition| !definition.deleted))
            .map(|(index, definition)| (index, &definition.ttl))
            .ok_or_else(|| Code::IndexNotFound.into())
    }
}

/// Buckets that one step of the sweep goes through.
const SWEPT: usize = 32;
/// What a row takes in a reply beside its value, about.
const ROW: usize = 16;

#[cfg(test)]
pub(crate) mod tests;
