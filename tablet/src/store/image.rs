//! A store out of a snapshot, and a snapshot out of a store.
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
use crate::config::Format;
use crate::snapshot::Snapshot;
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
        // An index that the table does not have any more is nobody's; one that it has now only has no rows yet.
        for (at, section) in header.indexes.iter().enumerate() {
            let Some(index) = store.kept(at) else { continue };
            let wrong = |what: &str| snapshot.invalid(&format!("{what} (index {at})"));
            let mut before = None;
            for key in snapshot.keys(at) {
                let (key, rows) = key.map_err(wrong)?;
                if before.replace(key).is_some_and(|before| !ordered(before, key)) {
                    return Err(wrong("keys are not in order"));
                }
                if rows.iter().any(|row| row.place >= header.values_end) {
                    return Err(wrong("a row is beyond the values"));
                }
                let rows = rows.iter().map(|p| Point { place: p.place | flags, ..p });
                index.load(key, List::ordered(rows).ok_or_else(|| wrong("rows are not in order"))?);
            }
            if index.rows() != section.rows {
                return Err(wrong("rows are missing"));
            }
        }
        store.snapshot = Some(snapshot);
        Ok(store)
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
