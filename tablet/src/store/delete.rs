//! Applying deletions.
//!
//! What a deletion finds in the index that it names goes from the other indexes, too, if it says so: a row is decoded to
//! see under which keys it stands there, and there it is known by its place, or by its bytes where one of the two indexes was
//! added and filled. **Invariants**
//! * Only what can be seen through the named index at the time that the leader wrote down is found, by the time to live
//!   that it wrote down, and what cannot be seen goes first: a replica that has swept expired rows and one that has not
//!   end with the same rows, and a row that was beyond a limit does not come back when others are taken from before it.
//! * What is missing in an index is no error: it has expired there, or is stored in another partition.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;
use stela_common::log::Log;
use stela_common::row;
use stela_common::table::Ttl;

use super::Store;
use super::entry::{self, Delete, Deletes, Which};
use super::index::Index;
use super::list::{List, Point};
use super::ttl;
use super::values::Values;

/// So many rows are looked for in the other indexes at a time.
const AT_ONCE: usize = 4096;

/// What a row is known by in another index.
struct Twin {
    place: u64,
    /// Its time there; `None`: that cannot be told.
    ts: Option<u64>,
    /// Of its value.
    hash: u64,
}

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
            match delete.which.key() {
                Some(key) => self.delete_key(log, &delete, key, now, everywhere)?,
                None if delete.which == Which::ALL && !everywhere => {
                    free(std::mem::take(&mut self.indexes[delete.index]));
                }
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
            let mut gone = Vec::new();
            for point in points(range.end) {
                if self.see(log, point, |value| entry::hash(value) == hash)? {
                    gone.push(point);
                }
            }
            gone.into_iter().for_each(|point| take(&mut self.indexes[delete.index], key, point));
            return Ok(());
        }
        if everywhere && self.table.has_schema() && self.indexes.len() > 1 {
            for points in points(range.end).chunks(AT_ONCE) {
                self.delete_elsewhere(log, delete.index, points, now)?;
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

    /// Takes rows out of the other indexes, also out of those that were deleted and still have some.
    fn delete_elsewhere(
        &mut self,
        log: &Log,
        not: usize,
        points: &[Point],
        now: u64,
    ) -> Result<(), String> {
        let table = self.table.clone();
        let others = (0..self.indexes.len()).filter(|at| *at != not);
        let others: Vec<usize> = others.filter(|at| self.indexes[*at].rows() > 0).collect();
        let mut twins: BTreeMap<(usize, Bytes), Vec<Twin>> = BTreeMap::new();
        let seen =
            |value: &[u8]| Some((row::decode(&table.columns, value).ok()?, entry::hash(value)));
        for point in points {
            // Who stored something that is no row is in no other index.
            let Some((values, hash)) = self.see(log, *point, seen)? else { continue };
            for at in &others {
                let index = &table.indexes[*at];
                let ts = table.time_beside(index, &values, (&table.indexes[not], point.ts));
                let twin = Twin { place: point.place, ts, hash };
                twins.entry((*at, table.key(index, &values))).or_default().push(twin);
            }
        }
        for ((at, key), twins) in twins {
            let index = &table.indexes[at];
            if self.settle(at, &key, &index.ttl, now) {
                let brought = index.added.version.max(table.indexes[not].added.version) > 0;
                self.take_twins(log, at, &key, &twins, brought)?;
            }
        }
        Ok(())
    }

    /// Takes rows out of a key. What was `brought` into an index that was added stands at a place of its own.
    fn take_twins(
        &mut self,
        log: &Log,
        at: usize,
        key: &[u8],
        twins: &[Twin],
        brought: bool,
    ) -> Result<(), String> {
        let Some(list) = self.indexes[at].get(key) else { return Ok(()) };
        let times: Option<BTreeSet<u64>> = twins.iter().map(|twin| twin.ts).collect();
        let candidates: Vec<Point> = match times {
            Some(times) => {
                let of = |ts| list.from(list.newer_than(ts)).take_while(move |p| p.ts == ts);
                times.into_iter().flat_map(of).collect()
            }
            None => list.from(0).collect(),
        };
        let places: HashSet<u64> = twins.iter().map(|twin| twin.place).collect();
        let (mut gone, others): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|point| places.contains(&point.place));
        if brought && gone.len() < twins.len() {
            let found: HashSet<u64> = gone.iter().map(|point| point.place).collect();
            let missing = twins.iter().filter(|twin| !found.contains(&twin.place));
            let alike: HashSet<(Option<u64>, u64)> = missing.map(|t| (t.ts, t.hash)).collect();
            for point in others {
                let hash = self.see(log, point, entry::hash)?;
                if alike.contains(&(Some(point.ts), hash)) || alike.contains(&(None, hash)) {
                    gone.push(point);
                }
            }
        }
        gone.into_iter().for_each(|point| take(&mut self.indexes[at], key, point));
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

/// To drop an index takes a while, which nobody who holds the node's lock should wait for.
fn free(index: Index) {
    // Where there is no thread to be had it is dropped here.
    let _ = std::thread::Builder::new().spawn(move || drop(index));
}
