//! All rows of one index, a page at a time.
//!
//! The order is that of [`Index::from`](super::index::Index::from), and of a key's rows, newest first: it is the same on every replica and stays while
//! rows come and go, so that whoever takes page after page sees each row that was there from the first to the last once,
//! whoever leads meanwhile.
//!
//! A cursor names the row that comes next: `version u8 | time u64 | left u32 | key`, little endian. `left` is how many rows
//! of that key and time are still to come, this one included: newer inserts of one time come before older ones, and do not
//! change what is left. It comes from outside, and is judged as such.

use bytes::Bytes;
use stela_common::code::Refusal;
use stela_common::log::Log;
use stela_common::wire::Malformed;

use super::list::{List, Point};
use super::values::{Damaged, Values};
use super::{ROW, Store};

/// Rows of one page, at most.
pub const ROWS: usize = 1000;
/// Keys that are looked at for one page, at most: there may be many of which all rows have expired.
const VISITS: usize = 16_384;
/// Bytes of one page, about.
const BYTES: usize = 1 << 20;
/// No cursor of an earlier version begins like that.
const VERSION: u8 = 0x82;
const HEAD: usize = 1 + 8 + 4;
/// The newest row of a key, whatever it is.
const NEWEST: (u64, u32) = (u64::MAX, u32::MAX);

/// Which rows are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pages<'a> {
    /// Rows of the page, at most; 0, or too many: as many as a page takes.
    pub limit: usize,
    /// Where the page begins; empty: at the first row.
    pub cursor: &'a [u8],
    /// The rest of the cursor's key is left out.
    pub skip_key: bool,
    /// Of rows with one key and time only the newest insert.
    pub distinct: bool,
}

/// A page of rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Key, time and value of each.
    pub rows: Vec<(Bytes, u64, Bytes)>,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<Bytes>,
}

/// Rows that were found, to be read.
#[derive(Debug)]
pub struct FoundPage {
    rows: Vec<(Bytes, Point)>,
    /// The row behind them.
    next: Option<Cursor>,
    values: Values,
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Cursor {
    key: Bytes,
    /// Time, and rows that are left of it.
    at: (u64, u32),
}

impl Cursor {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (head, key) = bytes.split_first_chunk::<HEAD>().ok_or(Malformed("cursor"))?;
        let [VERSION, at @ ..] = head else { return Err(Malformed("cursor")) };
        let (ts, left) = at.split_first_chunk().ok_or(Malformed("cursor"))?;
        let left = left.try_into().map_err(|_| Malformed("cursor"))?;
        let at = (u64::from_le_bytes(*ts), u32::from_le_bytes(left));
        Ok(Self { key: Bytes::copy_from_slice(key), at })
    }

    fn bytes(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(HEAD + self.key.len());
        bytes.push(VERSION);
        bytes.extend(self.at.0.to_le_bytes());
        bytes.extend(self.at.1.to_le_bytes());
        bytes.extend_from_slice(&self.key);
        bytes.into()
    }

    /// That of a row in a list.
    fn of(key: &Bytes, list: &List, position: usize, ts: u64) -> Self {
        let same = list.from(position).take_while(|p| p.ts == ts).count();
        Self { key: key.clone(), at: (ts, u32::try_from(same).unwrap_or(u32::MAX)) }
    }

    /// The position in the list of its key from which on it goes.
    fn position(&self, list: &List) -> usize {
        let (ts, left) = self.at;
        let newer = list.newer_than(ts);
        let same = list.from(newer).take_while(|p| p.ts == ts).count();
        newer + same.saturating_sub(left as usize)
    }
}

impl Store {
    /// A page of the rows of an index. It may have none although there is a next one.
    ///
    /// # Errors
    /// No such index, or the cursor is none.
    pub fn find_page(
        &self,
        log: &Log,
        index: u32,
        pages: Pages<'_>,
        now: u64,
    ) -> Result<FoundPage, Refusal> {
        let (index, ttl) = self.index(index)?;
        let begin = match pages.cursor {
            [] => Cursor { key: Bytes::new(), at: NEWEST },
            cursor => Cursor::parse(cursor)?,
        };
        let limit = if (1..=ROWS).contains(&pages.limit) { pages.limit } else { ROWS };
        let (mut rows, mut next) = (Vec::new(), None);
        for (visit, (key, list)) in index.from(&begin.key).enumerate() {
            let first = *key == *begin.key;
            if first && pages.skip_key {
                continue;
            }
            let key = Bytes::copy_from_slice(key);
            if visit == VISITS {
                next = Some(Cursor { key, at: NEWEST });
                break;
            }
            let start = if first { begin.position(list) } else { 0 };
            let live = self.live(list, ttl, now);
            // What is before the page is of an earlier one.
            let mut last = (start > 0).then(|| list.from(start - 1).next()).flatten();
            for (position, point) in (start..live).zip(list.from(start)) {
                let again = last.replace(point).is_some_and(|last| last.ts == point.ts);
                if pages.distinct && again {
                    continue;
                }
                if rows.len() >= limit {
                    next = Some(Cursor::of(&key, list, position, point.ts));
                    break;
                }
                rows.push((key.clone(), point));
            }
            if next.is_some() {
                break;
            }
        }
        let values = Values::new(log, self.snapshot.as_ref(), rows.iter().map(|(_, p)| p.place));
        Ok(FoundPage { rows, next, values })
    }
}

impl FoundPage {
    /// Reads the values, as many as fit, and one at least.
    ///
    /// # Errors
    /// One is damaged.
    pub fn read(mut self) -> Result<Page, Damaged> {
        let mut page = Page::default();
        let mut bytes = 0;
        for (at, (key, point)) in self.rows.iter().enumerate() {
            if bytes >= BYTES {
                let mut cursor = Cursor { key: key.clone(), at: (point.ts, 0) };
                let same = |(k, p): &&(Bytes, Point)| k == key && p.ts == point.ts;
                let here = self.rows[at..].iter().take_while(same).count();
                let behind = self.next.take().filter(|n| n.key == *key && n.at.0 == point.ts);
                cursor.at.1 = behind.map_or(0, |n| n.at.1) + u32::try_from(here).unwrap_or(0);
                self.next = Some(cursor);
                break;
            }
            let value = self.values.value(*point)?;
            bytes += key.len() + value.len() + ROW;
            page.rows.push((key.clone(), point.ts, value));
        }
        page.next = self.next.as_ref().map(Cursor::bytes);
        Ok(page)
    }

    /// How many rows there are to be read.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Nothing is to be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_from_outside_is_judged() {
        for bad in [&[VERSION; 12][..], &[3; 13], &[255; 40]] {
            assert_eq!(Cursor::parse(bad), Err(Malformed("cursor")));
        }
        let point = |ts| Point { ts, place: 0 };
        let rows = [9, 7, 7, 7, 1].map(point);
        let mut list = List::ordered(rows.into_iter()).unwrap();
        // The second of three with time 7: two are left, however many come before them.
        let bytes = Cursor::of(&Bytes::from_static(b"key"), &list, 2, 7).bytes();
        let cursor = Cursor::parse(&bytes).unwrap();
        assert_eq!((&cursor.key[..], cursor.at), (&b"key"[..], (7, 2)));
        assert_eq!(cursor.position(&list), 2);
        list.insert(point(7));
        list.insert(point(8));
        assert_eq!(cursor.position(&list), 4);
        // Older ones have expired.
        list.keep(3);
        assert_eq!(cursor.position(&list), 2);
        assert_eq!(Cursor { key: Bytes::new(), at: NEWEST }.position(&list), 0);
    }
}
