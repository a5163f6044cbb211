//! A store out of a snapshot, or of indexes that were saved, and the reverse.
//!
//! **Invariants**
//! * Loading reads indexes only, and takes nothing for granted that a checksum does not say: what is not in order is an
//!   error.
//! * Saving leaves out rows that have expired, unless expiry is off, and writes each value once, next to those of its key in the first index
//!   that names it. Places of one index are in order, so that a scan reads the file forward.

use std::io;
use std::sync::Arc;

use stela_common::log::Log;
use stela_common::table::Table;

use super::Store;
use super::index::Index;
use super::list::{List, Point};
use super::values::{IN_SNAPSHOT, PLAIN, Values};
use crate::checkpoint::Saved;
use crate::config::Format;
use crate::sealed;
use crate::snapshot::Snapshot;
use crate::snapshot::keys::{Keys, Section};
use crate::snapshot::write::Writer;

/// Keys between two looks at whether to go on.
const STRIDE: usize = 256;

impl Store {
    /// What a snapshot holds.
    ///
    /// # Errors
    /// Its indexes are not in order.
    pub fn load(table: Arc<Table>, snapshot: Arc<Snapshot>) -> io::Result<Self> {
        let mut store = Self::new(table);
        let header = snapshot.header();
        let plain = snapshot.format() == crate::snapshot::PLAIN;
        let flags = if plain { IN_SNAPSHOT | PLAIN } else { IN_SNAPSHOT };
        let ordered = |a: &[u8], b: &[u8]| if plain { a < b } else { Index::before(a, b) };
        let place = |place| (place < header.values_end).then_some(place | flags);
        for (at, section) in header.indexes.iter().enumerate() {
            store
                .fill(at, snapshot.keys(at), section.rows, ordered, place)
                .map_err(|what| snapshot.invalid(&format!("{what} (index {at})")))?;
        }
        store.snapshot = Some(snapshot);
        Ok(store)
    }

    /// What was [frozen](Self::freeze), over the snapshot of then.
    ///
    /// # Errors
    /// Its indexes are not in order.
    pub fn thaw(
        table: Arc<Table>,
        snapshot: Option<Arc<Snapshot>>,
        saved: &Saved,
    ) -> Result<Self, String> {
        let mut store = Self { snapshot, grown: saved.grown(), ..Self::new(table) };
        for (at, (keys, rows)) in saved.indexes().enumerate() {
            store
                .fill(at, keys, rows, Index::before, Some)
                .map_err(|what| format!("{what} (index {at} of {saved:?})"))?;
        }
        Ok(store)
    }

    /// Fills an index with the keys of a file.
    fn fill(
        &mut self,
        at: usize,
        keys: Keys<'_>,
        rows: u64,
        ordered: impl Fn(&[u8], &[u8]) -> bool,
        place: impl Fn(u64) -> Option<u64>,
    ) -> Result<(), &'static str> {
        let index = self.indexes.get_mut(at).ok_or("the table does not have the index")?;
        let mut before = None;
        for key in keys {
            let (key, rows) = key?;
            if before.replace(key).is_some_and(|before| !ordered(before, key)) {
                return Err("keys are not in order");
            }
            if rows.iter().any(|row| place(row.place).is_none()) {
                return Err("a row is beyond the values");
            }
            let rows = rows.iter().map(|p| Point { place: place(p.place).unwrap_or(p.place), ..p });
            index.load(key, List::ordered(rows).ok_or("rows are not in order")?);
        }
        if index.rows() != rows {
            return Err("rows are missing");
        }
        Ok(())
    }

    /// Writes the indexes as they are, with the places that their rows have now.
    ///
    /// # Errors
    /// The disk refused.
    pub fn freeze(&self, to: &mut sealed::Writer) -> io::Result<Vec<Section>> {
        let section = |index: &Index| {
            let mut section = Section::begin(to);
            for (key, list) in index.from(b"") {
                section.key(to, key, list.len(), list.from(0))?;
            }
            Ok(section)
        };
        self.indexes.iter().map(section).collect()
    }

    /// Writes what is live at wall time `now`, for as long as it may go on.
    ///
    /// # Errors
    /// The disk refused, a value cannot be read, or it may not go on.
    pub fn save(
        &self,
        log: &Log,
        to: &mut Writer,
        now: u64,
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        let indexes: Vec<Vec<(&[u8], &List, usize)>> = self
            .indexes
            .iter()
            .zip(&self.table.indexes)
            .map(|(index, definition)| {
                let live = |list| self.live(list, &definition.ttl, now);
                let keys = index.from(b"").map(|(key, list)| (key, list, live(list)));
                let mut keys: Vec<_> = keys.filter(|k| k.2 > 0).collect();
                if to.format() == Format::Plain {
                    keys.sort_unstable_by_key(|k| k.0);
                }
                keys
            })
            .collect();
        let places = || {
            let keys = indexes.iter().flatten();
            keys.flat_map(|(_, list, live)| list.from(0).take(*live).map(|point| point.place))
        };
        let values = Values::new(log, self.snapshot.as_ref(), places());
        let mut moved = Moved::new(places());
        for (at, keys) in indexes.iter().flat_map(|keys| keys.iter().enumerate()) {
            if at.is_multiple_of(STRIDE) && !go_on() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let (_, list, live) = keys;
            for point in list.from(0).take(*live) {
                moved.value(point.place, || {
                    values
                        .see(point.place, |value| to.value(value))
                        .map_err(io::Error::other)
                        .and_then(|written| written)
                })?;
            }
        }
        let mut found = moved.walk();
        for keys in &indexes {
            to.index();
            for (key, list, live) in keys {
                let rows = list.from(0).take(*live);
                let rows = rows.map(|p| Point { ts: p.ts, place: found(p.place) });
                to.key(key, *live, rows)?;
            }
        }
        Ok(())
    }
}

/// Where values have gone.
struct Moved {
    /// Where they were, ascending; empty if no two rows have the same value: then in the order in which they are met.
    from: Vec<u64>,
    /// Where they are; 0: not written yet.
    to: Vec<u64>,
}

impl Moved {
    fn new(places: impl Iterator<Item = u64>) -> Self {
        let mut from: Vec<u64> = places.collect();
        from.sort_unstable();
        let rows = from.len();
        from.dedup();
        if from.len() == rows {
            return Self { from: Vec::new(), to: Vec::with_capacity(rows) };
        }
        Self { to: vec![0; from.len()], from }
    }

    /// The value at that place is met: writes it, unless it was before.
    fn value(&mut self, from: u64, write: impl FnOnce() -> io::Result<u64>) -> io::Result<()> {
        match self.from.binary_search(&from) {
            Ok(at) if self.to[at] != 0 => {}
            Ok(at) => self.to[at] = write()?,
            Err(_) => self.to.push(write()?),
        }
        Ok(())
    }

    /// The places of the values as they are met once more.
    fn walk(&self) -> impl FnMut(u64) -> u64 + '_ {
        let mut met = self.to.iter();
        move |from| {
            let at = self.from.binary_search(&from).ok();
            at.map(|at| self.to[at]).or_else(|| met.next().copied()).unwrap_or_default()
        }
    }
}
