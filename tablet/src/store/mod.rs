//! What a replica can show: its indexes over the log, and what is known of requests.
//!
//! The log is the value store, and for what is older the snapshot: an index entry is a time and the place of a value in
//! one of them, and the value is read from the map. **Invariants**
//! * Only committed entries are applied, in the order of their offsets, so that readers need no filter, a truncation
//!   needs no undo, and every replica has the same rows in the same order (R28).
//! * Time to live is looked at when rows are read; the sweep only gives memory back. A changed one holds at once. While
//!   expiry is off ([`Store::set_expires`]) rows neither expire nor go.
//! * A deleted index keeps its place and is empty, whatever the log says of it. One that was added is empty until it is
//!   filled.
//! * A deletion removes what is stored under the keys of the indexes that it names, as of its place in the log.
//!
//! [`entry`] is the format of what is applied, [`check`] what is admitted, [`dedup`] which requests were seen,
//! [`places`] where entries are, [`load`] what snapshot and log say at the start, [`image`] what goes into a snapshot and
//! comes from it, [`replay`] entries that are applied once more, [`traverse`] all rows in pages. Called by the node, under its lock, and by whoever makes
//! a snapshot, on a store of its own.

pub mod check;
pub mod dedup;
pub mod entry;
pub mod image;
pub mod index;
pub mod list;
pub mod load;
pub mod places;
pub mod replay;
pub mod traverse;
pub mod ttl;

use std::sync::Arc;

use bytes::Bytes;
use entry::{Content, Entry, VALUE_HEADER};
use index::Index;
use list::{List, Point};
use stela_common::code::{Code, Refusal};
use stela_common::ids::Offset;
use stela_common::log::{Log, Position, RECORD_HEADER};
use stela_common::table::{Table, Ttl};
use stela_proto::tablet as pb;

pub use index::SEG_CNT;

use crate::snapshot::Snapshot;

/// In a place: it is one of the snapshot. No position in a log is that far.
const IN_SNAPSHOT: u64 = 1 << 63;

/// A range of rows of one key, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The newest time, inclusive; 0: the newest there is.
    pub st: u64,
    /// The oldest time, exclusive.
    pub et: u64,
    /// So many rows at most; 0: all.
    pub limit: u32,
    /// So many bytes, about.
    pub bytes: usize,
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Time and value of each.
    pub rows: Vec<(u64, Bytes)>,
    /// Nothing is left in the range.
    pub finished: bool,
}

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
}

/// Indexes that are not needed any more: to drop them takes a while, which nobody who holds a lock should wait for.
#[derive(Debug, Default)]
pub struct Freed(#[allow(dead_code)] Vec<Index>); // it is there to be dropped

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
        };
        drop(store.set_table(table));
        store
    }

    /// The table as this replica knows it.
    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The table has changed: columns or indexes were added at the end, or an index was deleted. Returns what is not
    /// needed any more.
    pub fn set_table(&mut self, table: Arc<Table>) -> Freed {
        self.times =
            table.indexes.iter().map(|i| i.ts.as_ref().and_then(|ts| table.column(ts))).collect();
        let mut freed = self.indexes.split_off(self.indexes.len().min(table.indexes.len()));
        self.indexes.resize_with(table.indexes.len(), Index::default);
        let deleted = self.indexes.iter_mut().zip(&table.indexes).filter(|(_, d)| d.deleted);
        freed.extend(deleted.map(|(index, _)| std::mem::take(index)));
        self.table = table;
        Freed(freed)
    }

    /// Do rows expire?
    #[must_use]
    pub fn expires(&self) -> bool {
        self.expires
    }

    /// Rows expire, or do not for the time being.
    pub fn set_expires(&mut self, expires: bool) {
        self.expires = expires;
    }

    /// The entry of a put, checked.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn put(&self, request: &pb::PutRequest) -> Result<Bytes, Refusal> {
        check::put(&self.table, &self.times, request)
    }

    /// The entry of a deletion, checked.
    ///
    /// # Errors
    /// What is wrong with the request.
    pub fn delete(&self, request: &pb::DeleteRequest) -> Result<Bytes, Refusal> {
        check::delete(&self.table, request)
    }

    /// Applies the entry whose record stands at `at`.
    ///
    /// # Errors
    /// The body is no entry: the replica cannot go on behind it.
    pub fn apply(&mut self, at: Position, body: &[u8]) -> Result<(), entry::Malformed> {
        let entry = Entry::parse(body)?;
        self.grown += (RECORD_HEADER + body.len()) as u64;
        match entry.content() {
            Content::Rows(rows) => {
                for row in rows {
                    let place = at.0 + (RECORD_HEADER + row.place) as u64;
                    for dimension in row.dimensions {
                        // An index that the table does not have any more is nobody's.
                        if let Some(index) = self.kept(dimension.index) {
                            index.insert(dimension.key, Point { ts: dimension.ts, place });
                        }
                    }
                }
            }
            Content::Keys(keys) => {
                for (index, key) in keys {
                    if let Some(index) = self.kept(index) {
                        index.remove(key);
                    }
                }
            }
        }
        Ok(())
    }

    /// The row of a key at a time, the newest insert where there are several; with `ts` 0 the newest row.
    ///
    /// # Errors
    /// No such index or row, or the log cannot give the value.
    pub fn get(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        ts: u64,
        now: u64,
    ) -> Result<(u64, Bytes), Refusal> {
        let (index, ttl) = self.index(index)?;
        let list = index.get(key).ok_or(Code::KeyNotFound)?;
        let position = if ts == 0 { 0 } else { list.newer_than(ts) };
        let point = list
            .from(position)
            .next()
            .filter(|p| ts == 0 || p.ts == ts)
            .ok_or(Code::KeyNotFound)?;
        if self.expired(ttl, point.ts, position as u64, now) {
            return Err(Code::KeyNotFound.into());
        }
        Ok((point.ts, self.value(log, point)?))
    }

    /// The rows of a key in `(et, st]`, newest first. Rows of one time are only parted by the limit, or when they are
    /// many times what a reply takes: who goes on below the last time misses none.
    ///
    /// # Errors
    /// No such index, `st` before `et`, or the log cannot give a value.
    pub fn scan(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        range: Range,
        now: u64,
    ) -> Result<Scanned, Refusal> {
        let (index, ttl) = self.index(index)?;
        if range.st != 0 && range.st < range.et {
            return Err(Code::StartBeforeEnd.into());
        }
        let Some(list) = index.get(key) else {
            return Ok(Scanned { rows: Vec::new(), finished: true });
        };
        let start = if range.st == 0 { 0 } else { list.newer_than(range.st) };
        let mut found = Scanned { rows: Vec::new(), finished: true };
        let mut bytes = 0;
        for (position, point) in (start as u64..).zip(list.from(start)) {
            if point.ts <= range.et || self.expired(ttl, point.ts, position, now) {
                break;
            }
            let limited = range.limit != 0 && found.rows.len() >= range.limit as usize;
            let parted = found.rows.last().is_some_and(|(last, _)| *last != point.ts);
            if limited || (bytes > range.bytes && (parted || bytes > range.bytes * 4)) {
                found.finished = false;
                break;
            }
            let value = self.value(log, point)?;
            bytes += value.len() + ROW;
            found.rows.push((point.ts, value));
        }
        Ok(found)
    }

    /// How many rows a key has; with `filter_expired` those that have not expired.
    ///
    /// # Errors
    /// No such index.
    pub fn count(
        &self,
        index: u32,
        key: &[u8],
        filter_expired: bool,
        now: u64,
    ) -> Result<u64, Refusal> {
        let (index, ttl) = self.index(index)?;
        let count = |list| if filter_expired { self.live(list, ttl, now) } else { list.len() };
        Ok(index.get(key).map_or(0, count) as u64)
    }

    /// Takes expired rows out of one of the [`SEG_CNT`] shards of each index.
    pub fn sweep(&mut self, shard: usize, now: u64) {
        if !self.expires {
            return;
        }
        for (index, definition) in self.indexes.iter_mut().zip(&self.table.indexes) {
            if definition.ttl.abs != 0 || definition.ttl.lat != 0 {
                index.sweep(shard, &definition.ttl, now);
            }
        }
    }

    /// Rows in the first index that is not deleted.
    #[must_use]
    pub fn records(&self) -> u64 {
        let first = self.table.first_index();
        first.and_then(|at| self.indexes.get(at)).map_or(0, Index::rows)
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

    /// The value of a row, copied: one does not hold a segment for a client that reads slowly. Its checksum was looked at
    /// when the log or the snapshot was opened, or the record received.
    fn value(&self, log: &Log, point: Point) -> Result<Bytes, Refusal> {
        self.see(log, point.place, Bytes::copy_from_slice).map_err(|e| {
            tracing::error!(error = %e, "a row cannot be read");
            Refusal::new(Code::Quarantined, format!("{}: {e}", Code::Quarantined.text()))
        })
    }

    /// Shows the value at a place.
    fn see<R>(&self, log: &Log, place: u64, see: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let absent = || format!("no value at {}", place & !IN_SNAPSHOT);
        if place & IN_SNAPSHOT != 0 {
            let value = self.snapshot.as_ref().and_then(|s| s.value(place & !IN_SNAPSHOT));
            return value.map(see).ok_or_else(absent);
        }
        let within = |bytes: &[u8]| {
            let (len, rest) = bytes.split_first_chunk::<VALUE_HEADER>()?;
            rest.get(..u32::from_le_bytes(*len) as usize).map(see)
        };
        log.peek(Position(place), within).map_err(|e| e.to_string())?.ok_or_else(absent)
    }

    /// How many rows of a list, from the newest on, can be seen.
    fn live(&self, list: &List, ttl: &Ttl, now: u64) -> usize {
        if self.expires { ttl::live(list, ttl, now) } else { list.len() }
    }

    fn expired(&self, ttl: &Ttl, ts: u64, position: u64, now: u64) -> bool {
        self.expires && ttl.expired(ts, position, now)
    }

    /// The index into which rows go; `None`: it was deleted, or never was.
    fn kept(&mut self, at: usize) -> Option<&mut Index> {
        let deleted = self.table.indexes.get(at).is_none_or(|definition| definition.deleted);
        self.indexes.get_mut(at).filter(|_| !deleted)
    }

    fn index(&self, index: u32) -> Result<(&Index, &Ttl), Refusal> {
        let at = index as usize;
        self.indexes
            .get(at)
            .zip(self.table.indexes.get(at).filter(|definition| !definition.deleted))
            .map(|(index, definition)| (index, &definition.ttl))
            .ok_or_else(|| Code::IndexNotFound.into())
    }
}

/// What a row takes in a reply beside its value, about.
const ROW: usize = 16;

#[cfg(test)]
pub(crate) mod tests;
