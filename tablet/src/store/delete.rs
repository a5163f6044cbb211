//! Applying deletions.
//!
//! What a deletion finds in the index that it names goes from the other indexes, too, if it says so: a row is decoded to
//! see under which keys it stands there, and there it is known by its place, or by its bytes where one of the two indexes was
//! added and filled. **Invariants**
//! * Only what can be seen through the named index at the time that the leader wrote down is found, by the time to live
//!   that it wrote down, and what cannot be seen goes first: a replica that has swept expired rows and one that has not
//!   end with the same rows, and a row that was beyond a limit does not come back when others are taken from before it.
//! * What is missing in an index is no error: it has expired there, or is stored in another partition.

use stela_common::log::Log;
use stela_common::row;
use stela_common::table::Ttl;

use super::Store;
use super::entry::{self, Delete, Deletes, Which};
use super::index::Index;
use super::list::{List, Point};
use super::ttl;
use super::values::Values;

/// The positions of rows in a list that a deletion is about.
fn positions(list: &List, which: &Which<'_>) -> std::ops::Range<usize> {
    match which {
        Which::Key(_) => 0..list.len(),
        Which::Times { newest, oldest, .. } => {
            let from = if *newest == u64::MAX { 0 } else { list.newer_than(*newest) };
            from..oldest.map_or(list.len(), |oldest| list.newer_than(oldest))
        }
        Which::Row { ts: Some(ts), .. } => {
            let older = ts.checked_sub(1).map_or(list.len(), |ts| list.newer_than(ts));
            list.newer_than(*ts)..older
        }
        Which::Row { ts: None, .. } => 0..list.len(),
    }
}

impl Store {
    /// Applies a deletion.
    ///
    /// # Errors
    /// A value that it has to look at cannot be read.
    pub(super) fn delete_rows(&mut self, log: &Log, deletes: Deletes<'_>) -> Result<(), String> {
        let (now, everywhere) = (deletes.now, deletes.everywhere);
        for delete in deletes {
            // An index that the table does not have any more is nobody's.
            if self.kept(delete.index).is_none() {
                continue;
            }
            match delete.which.key() {
                Some(key) => self.delete_key(log, &delete, key, now, everywhere)?,
                None => {
                    let keys: Vec<Vec<u8>> =
                        self.indexes[delete.index].from(b"").map(|(key, _)| key.to_vec()).collect();
                    for key in keys {
                        self.delete_key(log, &delete, &key, now, everywhere)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn delete_key(
        &mut self,
        log: &Log,
        delete: &Delete<'_>,
        key: &[u8],
        now: u64,
        everywhere: bool,
    ) -> Result<(), String> {
        if !self.settle(delete.index, key, &delete.ttl, now) {
            return Ok(());
        }
        let Some(list) = self.indexes[delete.index].get(key) else { return Ok(()) };
        let range = positions(list, &delete.which);
        let points = |to: usize| -> Vec<Point> {
            list.from(range.start).take(to.saturating_sub(range.start)).collect()
        };
        if let Which::Row { hash, .. } = delete.which {
            let points = points(range.end);
            return self.take_alike(log, delete.index, key, points, hash);
        }
        if everywhere && self.table.has_schema() && self.table.live_indexes().count() > 1 {
            for point in points(range.end) {
                self.delete_elsewhere(log, delete.index, point, now)?;
            }
        }
        self.indexes[delete.index].change(key, |list| list.remove(range));
        Ok(())
    }

    /// Takes what has expired at wall time `now` out of a key; whether something is left.
    pub(super) fn settle(&mut self, index: usize, key: &[u8], ttl: &Ttl, now: u64) -> bool {
        let Some(list) = self.indexes[index].get(key) else { return false };
        let live = if self.expires { ttl::live(list, ttl, now) } else { list.len() };
        if live < list.len() {
            self.indexes[index].change(key, |list| live > 0 && list.keep(live) > 0);
        }
        live > 0
    }

    /// Takes a row out of the other indexes.
    fn delete_elsewhere(
        &mut self,
        log: &Log,
        not: usize,
        point: Point,
        now: u64,
    ) -> Result<(), String> {
        let table = self.table.clone();
        let seen =
            |value: &[u8]| Some((row::decode(&table.columns, value).ok()?, entry::hash(value)));
        // Who stored something that is no row is in no other index.
        let Some((values, hash)) = self.see(log, point, seen)? else { return Ok(()) };
        let found = &table.indexes[not];
        for (at, definition) in table.live_indexes().filter(|(at, _)| *at != not) {
            let key = table.key(definition, &values);
            if !self.settle(at, &key, &definition.ttl, now) {
                continue;
            }
            let Some(list) = self.indexes[at].get(&key) else { continue };
            let ts = table.time_beside(definition, &values, (found, point.ts));
            let range = positions(list, &Which::Row { key: &key, ts, hash });
            let points = || list.from(range.start).take(range.len());
            let same = points().find(|p| p.place == point.place);
            if let Some(same) = same {
                take(&mut self.indexes[at], &key, same);
            } else if found.added.version.max(definition.added.version) > 0 {
                // What was brought into an index that was added stands at a place of its own.
                let points = points().collect();
                self.take_alike(log, at, &key, points, hash)?;
            }
        }
        Ok(())
    }

    /// Takes those of a key's rows out of an index whose value has that hash.
    fn take_alike(
        &mut self,
        log: &Log,
        index: usize,
        key: &[u8],
        points: Vec<Point>,
        hash: u64,
    ) -> Result<(), String> {
        let mut gone = Vec::new();
        for point in points {
            if self.see(log, point, |value| entry::hash(value) == hash)? {
                gone.push(point);
            }
        }
        gone.into_iter().for_each(|point| take(&mut self.indexes[index], key, point));
        Ok(())
    }

    pub(super) fn see<R>(
        &self,
        log: &Log,
        point: Point,
        see: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, String> {
        let values = Values::new(log, self.snapshot.as_ref(), std::iter::once(point.place));
        values.see(point.place, see).map_err(|e| e.to_string())
    }
}

/// Takes one row out of an index.
fn take(index: &mut Index, key: &[u8], point: Point) {
    let newer = index.get(key).map(|list| list.newer_than(point.ts));
    let Some(newer) = newer else { return };
    index.change(key, |list| {
        let at = list.from(newer).take_while(|p| p.ts == point.ts).position(|p| p == point);
        at.is_none_or(|at| list.remove(newer + at..newer + at + 1))
    });
}
