//! Which rows a read is about. Found under the node's lock; the values are read without it ([`Found::read`]).

use bytes::Bytes;
use stela_common::code::{Code, Refusal};
use stela_common::log::Log;

use super::list::{List, Point};
use super::values::{Damaged, Values};
use super::{ROW, Store};

/// Rows that one look under the lock finds, at most, of one time a few more.
const AT_ONCE: usize = 16_384;

/// How a time is compared with the one that is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// Equal.
    Eq,
    /// Not newer.
    Le,
    /// Older.
    Lt,
    /// Newer.
    Gt,
    /// Not older.
    Ge,
}

/// One row of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Get {
    /// Its time; 0: the newest row, whatever `kind` says.
    pub ts: u64,
    /// The newest row whose time compares with `ts` like that.
    pub kind: Match,
    /// A bound that it must keep, too.
    pub et: u64,
    /// How; [`Match::Eq`], [`Match::Gt`] or [`Match::Ge`].
    pub et_kind: Match,
}

impl Get {
    /// The row of a time, or with 0 the newest.
    #[must_use]
    pub fn at(ts: u64) -> Self {
        Self { ts, kind: Match::Eq, et: 0, et_kind: Match::Ge }
    }
}

/// A range of rows of one key, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The newest time, inclusive; 0: the newest there is.
    pub st: u64,
    /// The oldest time, exclusive.
    pub et: u64,
    /// So many rows at most; 0: all.
    pub limit: u32,
    /// So many rows at least, older ones than `et` if need be.
    pub at_least: u32,
    /// So many rows of time `st` are left out.
    pub skip: u32,
    /// Of rows with one time only the newest insert.
    pub distinct: bool,
    /// So many bytes, about.
    pub bytes: usize,
}

/// Which rows of a key are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The newest time; 0: all.
    pub st: u64,
    /// [`Match::Eq`] counts as [`Match::Le`]; or [`Match::Lt`].
    pub st_kind: Match,
    /// The oldest time; 0: all.
    pub et: u64,
    /// [`Match::Gt`] or [`Match::Ge`].
    pub et_kind: Match,
    /// Of rows with one time only one.
    pub distinct: bool,
}

/// What a scan found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Time and value of each.
    pub rows: Vec<(u64, Bytes)>,
    /// Nothing is left in the range.
    pub finished: bool,
}

/// Rows that were found, to be read.
#[derive(Debug)]
pub struct Found {
    points: Vec<Point>,
    finished: bool,
    bytes: usize,
    values: Values,
}

impl Found {
    /// Reads the values, as many as fit. Rows of one time are parted only when they are many times what a reply takes: who
    /// goes on below the last time misses none.
    ///
    /// # Errors
    /// One is damaged.
    pub fn read(self) -> Result<Scanned, Damaged> {
        let mut found =
            Scanned { rows: Vec::with_capacity(self.points.len()), finished: self.finished };
        let mut bytes = 0;
        for point in self.points {
            let parted = found.rows.last().is_some_and(|(last, _)| *last != point.ts);
            if bytes > self.bytes && (parted || bytes > self.bytes.saturating_mul(4)) {
                found.finished = false;
                break;
            }
            let value = self.values.value(point)?;
            bytes += value.len() + ROW;
            found.rows.push((point.ts, value));
        }
        Ok(found)
    }

    /// Bytes of mapped files that reading may have to wait for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Nothing is to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

fn invalid(text: &str) -> Refusal {
    Refusal::new(Code::InvalidParameter, text)
}

const KIND: &str = "st/et sub key type is invalid";
const ARGS: &str = "invalid args";

impl Store {
    /// The row of a key that is asked for.
    ///
    /// # Errors
    /// No such index or row, or a question that makes no sense.
    pub fn find(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        get: &Get,
        now: u64,
    ) -> Result<Found, Refusal> {
        let (index, ttl) = self.index(index)?;
        let Get { ts, kind, et, et_kind } = *get;
        if matches!(et_kind, Match::Le | Match::Lt) {
            return Err(invalid(KIND));
        }
        let one = kind == Match::Eq && et_kind == Match::Eq;
        if ts != 0 && (ts < et || (one && ts != et)) {
            return Err(invalid(ARGS));
        }
        let list = index.get(key).ok_or(Code::KeyNotFound)?;
        let position = match kind {
            _ if ts == 0 => 0,
            Match::Eq | Match::Le => list.newer_than(ts),
            Match::Lt => list.newer_than(ts - 1),
            Match::Gt | Match::Ge => 0,
        };
        let matches = |found: u64| match kind {
            _ if ts == 0 => true,
            Match::Eq => found == ts,
            Match::Le => found <= ts,
            Match::Lt => found < ts,
            Match::Gt => found > ts,
            Match::Ge => found >= ts,
        };
        let bound = |found: u64| match et_kind {
            Match::Eq => found == et,
            Match::Gt => found > et,
            _ => found >= et,
        };
        let point = list
            .from(position)
            .next()
            .filter(|p| matches(p.ts) && bound(p.ts))
            .filter(|p| !self.expired(ttl, p.ts, position as u64, now))
            .ok_or(Code::KeyNotFound)?;
        Ok(self.found(log, vec![point], true, usize::MAX))
    }

    /// The rows of a key in `(et, st]`, newest first.
    ///
    /// # Errors
    /// No such index, or a question that makes no sense.
    pub fn find_range(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        range: Range,
        now: u64,
    ) -> Result<Found, Refusal> {
        let (index, ttl) = self.index(index)?;
        if range.st != 0 && range.st < range.et {
            return Err(Code::StartBeforeEnd.into());
        }
        if range.limit != 0 && range.at_least > range.limit {
            return Err(invalid(ARGS));
        }
        let Some(list) = index.get(key) else {
            return Ok(self.found(log, Vec::new(), true, range.bytes));
        };
        let (limit, at_least) = (range.limit as usize, range.at_least as usize);
        let start = if range.st == 0 { 0 } else { list.newer_than(range.st) };
        let live = self.live(list, ttl, now);
        let (mut points, mut finished) = (Vec::new(), true);
        let (mut skip, mut last) = (range.skip, None);
        for point in list.from(start).take(live.saturating_sub(start)) {
            if point.ts <= range.et && points.len() >= at_least {
                break;
            }
            let again = last == Some(point.ts);
            if range.distinct && again {
                continue;
            }
            let full = points.len() >= AT_ONCE && (!again || points.len() >= AT_ONCE * 4);
            if (limit != 0 && points.len() >= limit) || full {
                finished = false;
                break;
            }
            if skip > 0 && range.st != 0 && point.ts == range.st {
                skip -= 1;
                continue;
            }
            last = Some(point.ts);
            points.push(point);
        }
        Ok(self.found(log, points, finished, range.bytes))
    }

    fn found(&self, log: &Log, points: Vec<Point>, finished: bool, bytes: usize) -> Found {
        let places = points.iter().map(|p| p.place);
        let values = Values::new(log, self.snapshot.as_ref(), places);
        Found { points, finished, bytes, values }
    }

    /// How many rows a key has: without a filter all that are stored, with one those that it lets through and that have
    /// not expired.
    ///
    /// # Errors
    /// No such index, or a question that makes no sense.
    pub fn count(
        &self,
        index: u32,
        key: &[u8],
        filter: Option<&Filter>,
        now: u64,
    ) -> Result<u64, Refusal> {
        let (index, ttl) = self.index(index)?;
        let list = index.get(key);
        let Some(filter) = filter else { return Ok(list.map_or(0, List::len) as u64) };
        if matches!(filter.st_kind, Match::Gt | Match::Ge)
            || !matches!(filter.et_kind, Match::Gt | Match::Ge)
        {
            return Err(invalid(KIND));
        }
        if filter.st != 0 && filter.st < filter.et {
            return Err(invalid(ARGS));
        }
        let Some(list) = list else { return Ok(0) };
        let from = match (filter.st, filter.st_kind) {
            (0, _) => 0,
            (st, Match::Lt) => list.newer_than(st - 1),
            (st, _) => list.newer_than(st),
        };
        let to = match (filter.et, filter.et_kind) {
            (0, _) => list.len(),
            (et, Match::Ge) => list.newer_than(et - 1),
            (et, _) => list.newer_than(et),
        };
        let to = to.min(self.live(list, ttl, now));
        if !filter.distinct {
            return Ok(to.saturating_sub(from) as u64);
        }
        let mut last = None;
        let times = list.from(from).take(to.saturating_sub(from));
        Ok(times.filter(|p| last.replace(p.ts) != Some(p.ts)).count() as u64)
    }
}
