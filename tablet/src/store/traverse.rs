//! All rows of one index, a page at a time.
//!
//! The order is that of shards, of keys in a shard, and of a key's rows, newest first: it stays the same while rows come
//! and go, so that whoever takes page after page sees each row that was there from the first to the last once.
//!
//! A cursor names the row that comes next: `shard u8 | time u64 | left u32 | key`, little endian. `left` is how many rows
//! of that key and time are still to come, this one included: newer inserts of one time come before older ones, and do not
//! change what is left. It comes from outside, and is judged as such.

use bytes::Bytes;
use stela_common::code::Refusal;
use stela_common::log::Log;
use stela_common::wire::Malformed;

use super::index::SEG_CNT;
use super::list::{List, Point};
use super::{ROW, Store};

/// Rows of one page, at most.
pub const ROWS: usize = 1000;
/// Bytes of one page, about.
const BYTES: usize = 1 << 20;
const HEAD: usize = 1 + 8 + 4;

/// A page of rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Key, time and value of each.
    pub rows: Vec<(Bytes, u64, Bytes)>,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<Bytes>,
}

/// Where a page begins.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Cursor {
    shard: usize,
    key: Bytes,
    /// Time, and rows that are left of it; `None`: from the newest row of the key on.
    at: Option<(u64, u32)>,
}

impl Cursor {
    fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let (head, key) = bytes.split_first_chunk::<HEAD>().ok_or(Malformed("cursor"))?;
        let [shard, at @ ..] = head;
        let (ts, left) = at.split_first_chunk().ok_or(Malformed("cursor"))?;
        let left = left.try_into().map_err(|_| Malformed("cursor"))?;
        let shard = usize::from(*shard);
        if shard >= SEG_CNT {
            return Err(Malformed("cursor"));
        }
        let at = Some((u64::from_le_bytes(*ts), u32::from_le_bytes(left)));
        Ok(Self { shard, key: Bytes::copy_from_slice(key), at })
    }

    /// That of a row in a list.
    fn of(shard: usize, key: &[u8], list: &List, position: usize, point: Point) -> Bytes {
        let same = list.from(position).take_while(|p| p.ts == point.ts).count();
        let mut bytes = Vec::with_capacity(HEAD + key.len());
        bytes.push(u8::try_from(shard).unwrap_or(u8::MAX));
        bytes.extend(point.ts.to_le_bytes());
        bytes.extend(u32::try_from(same).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.into()
    }

    /// The position in the list of its key from which on it goes.
    fn position(&self, list: &List) -> usize {
        let Some((ts, left)) = self.at else { return 0 };
        let newer = list.newer_than(ts);
        let same = list.from(newer).take_while(|p| p.ts == ts).count();
        newer + same.saturating_sub(left as usize)
    }
}

impl Store {
    /// At most `limit` rows of an index from a cursor on, an empty one being the beginning; 0: as many as a page takes.
    /// At least one, if there are any left.
    ///
    /// # Errors
    /// No such index, the cursor is none, or the log cannot give a value.
    pub fn traverse(
        &self,
        log: &Log,
        index: u32,
        limit: usize,
        cursor: &[u8],
        now: u64,
    ) -> Result<Page, Refusal> {
        let (index, ttl) = self.index(index)?;
        let mut cursor = Cursor::parse(cursor)?;
        let limit = if (1..=ROWS).contains(&limit) { limit } else { ROWS };
        let (mut page, mut bytes) = (Page::default(), 0);
        while cursor.shard < SEG_CNT {
            // One more than can be shown: its first row may be where the next page begins.
            let count = limit - page.rows.len() + 1;
            let seen = |list: &List| self.live(list, ttl, now) > 0;
            let keys = index.some(cursor.shard, &cursor.key, count, seen);
            let last = keys.len() < count;
            for (key, list) in keys {
                let begin = if *key == *cursor.key { cursor.position(list) } else { 0 };
                let live = self.live(list, ttl, now);
                let shared = Bytes::copy_from_slice(key);
                for (position, point) in (begin..live).zip(list.from(begin)) {
                    if page.rows.len() >= limit || bytes >= BYTES {
                        page.next = Some(Cursor::of(cursor.shard, key, list, position, point));
                        return Ok(page);
                    }
                    let value = self.value(log, point)?;
                    bytes += key.len() + value.len() + ROW;
                    page.rows.push((shared.clone(), point.ts, value));
                }
                // Behind it: nothing is between a key and the same with a zero.
                cursor.key = [key, &[0]].concat().into();
                cursor.at = None;
            }
            if last {
                cursor = Cursor { shard: cursor.shard + 1, ..Cursor::default() };
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_from_outside_is_judged() {
        assert_eq!(Cursor::parse(b""), Ok(Cursor::default()));
        for bad in [&[0; 12][..], &[8; 13], &[255; 40]] {
            assert_eq!(Cursor::parse(bad), Err(Malformed("cursor")));
        }
        let point = |ts| Point { ts, place: 0 };
        let rows = [9, 7, 7, 7, 1].map(point);
        let mut list = List::ordered(rows.into_iter()).unwrap();
        // The second of three with time 7: two are left, however many come before them.
        let bytes = Cursor::of(3, b"key", &list, 2, point(7));
        let cursor = Cursor::parse(&bytes).unwrap();
        assert_eq!((cursor.shard, &cursor.key[..], cursor.at), (3, &b"key"[..], Some((7, 2))));
        assert_eq!(cursor.position(&list), 2);
        list.insert(point(7));
        list.insert(point(8));
        assert_eq!(cursor.position(&list), 4);
        // Older ones have expired.
        list.keep(3);
        assert_eq!(cursor.position(&list), 2);
    }
}
