//! The body of an entry: one request of one partition, applied whole (R32, R33).
//!
//! ```text
//! kind u8 | session u64 | seq u64 | count u32 | count items
//! put (kind 3), an item is a row:  dimensions u16 | each: index u16, ts u64, key length u32, key
//!                                  | value length u32 | crc32c u32 of the value | value
//! delete (kind 4): now u64, everywhere u8 | an item is: what u8, index u16, key length u32, key, a u64, b u64,
//!                                  time to live: kind u8, abs u64, lat u64
//! put if absent (kind 5): now u64 | as kind 3, each row with the time to live of its first index before it
//! put (kind 1): as kind 3, without checksums. delete (kind 2), an item is: index u16, key length u32, key
//! ```
//!
//! Little endian; kinds 1 and 2 are of earlier versions, and are read. **Invariants**
//! * A dimension carries its own time, so that a put is applied without a schema, and no row is decoded.
//! * A deletion, and a put of what is absent, carries what its leader's clock said and what the time to live was, so that
//!   every replica finds the same rows.
//! * A value carries its checksum from the leader that admitted it to the client that reads it.
//! * [`Entry::parse`] looks at every length once; what it returned is walked without a failure. No bytes whatever make
//!   a function here panic.
//! * A value is found by the place of its length alone ([`Row::place`]): an index entry points there.

use bytes::Bytes;
use stela_common::route::murmur64;
use stela_common::table::{Ttl, TtlKind, limits};

const PLAIN_PUT: u8 = 1;
const PLAIN_DELETE: u8 = 2;
const PUT: u8 = 3;
const DELETE: u8 = 4;
const PUT_IF_ABSENT: u8 = 5;
const HEAD: usize = 1 + 8 + 8 + 4;

const KEY: u8 = 0;
const TIMES: u8 = 1;
const ALL_TIMES: u8 = 2;
const ROW: u8 = 3;
/// No such time. No row is newer, and no column holds it.
const NONE: u64 = u64::MAX;

/// The bytes before a value: its length and its checksum.
pub const VALUE_HEADER: usize = 8;

/// These bytes are no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed entry: {0}")]
pub struct Malformed(pub &'static str);

/// An entry's body in the making.
pub struct Writer {
    bytes: Vec<u8>,
    count: u32,
    kind: u8,
}

impl Writer {
    /// A put without rows yet, of about so many bytes in the end.
    #[must_use]
    pub fn put(session: u64, seq: u64, bytes: usize) -> Self {
        Self::new(PUT, session, seq, bytes)
    }

    /// The same as earlier versions read it.
    #[must_use]
    pub fn plain_put(session: u64, seq: u64, bytes: usize) -> Self {
        Self::new(PLAIN_PUT, session, seq, bytes)
    }

    /// A put at wall time `now` (ms), of rows that are stored only if they are not there.
    #[must_use]
    pub fn put_if_absent(session: u64, seq: u64, bytes: usize, now: u64) -> Self {
        let mut writer = Self::new(PUT_IF_ABSENT, session, seq, bytes);
        writer.bytes.extend(now.to_le_bytes());
        writer
    }

    /// A deletion of nothing yet, at wall time `now` (ms); `everywhere`: what it finds goes from all indexes.
    #[must_use]
    pub fn delete(session: u64, seq: u64, now: u64, everywhere: bool) -> Self {
        let mut writer = Self::new(DELETE, session, seq, 0);
        writer.bytes.extend(now.to_le_bytes());
        writer.bytes.push(everywhere.into());
        writer
    }

    /// A deletion of nothing yet, as earlier versions read it: of whole keys, each in one index.
    #[must_use]
    pub fn plain_delete(session: u64, seq: u64) -> Self {
        Self::new(PLAIN_DELETE, session, seq, 0)
    }

    fn new(kind: u8, session: u64, seq: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + capacity);
        bytes.push(kind);
        bytes.extend(session.to_le_bytes());
        bytes.extend(seq.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        Self { bytes, count: 0, kind }
    }

    /// Begins a row with so many dimensions; that many calls of [`dimension`](Self::dimension) and one of
    /// [`value`](Self::value) follow. The time to live is that of the index of the first.
    pub fn row(&mut self, dimensions: u16, ttl: &Ttl) {
        self.count += 1;
        if self.kind == PUT_IF_ABSENT {
            self.ttl(ttl);
        }
        self.bytes.extend(dimensions.to_le_bytes());
    }

    /// Where the row is found. A key is at most [`limits::KEY`] long.
    pub fn dimension(&mut self, index: u16, ts: u64, key: &[u8]) {
        self.bytes.extend(index.to_le_bytes());
        self.bytes.extend(ts.to_le_bytes());
        self.sized(key);
    }

    /// What the row holds.
    pub fn value(&mut self, value: &[u8]) {
        self.length(value);
        if self.kind != PLAIN_PUT {
            self.bytes.extend(crc32c::crc32c(value).to_le_bytes());
        }
        self.bytes.extend_from_slice(value);
    }

    /// Rows that go: of a plain deletion, all of a key.
    pub fn rows(&mut self, index: u16, which: Which<'_>, ttl: &Ttl) {
        self.count += 1;
        let (what, key, a, b) = match which {
            Which::Key(key) => (KEY, key, 0, 0),
            Which::Times { key: Some(key), newest, oldest } => {
                (TIMES, key, newest, oldest.unwrap_or(NONE))
            }
            Which::Times { key: None, newest, oldest } => {
                (ALL_TIMES, &b""[..], newest, oldest.unwrap_or(NONE))
            }
            Which::Row { key, ts, hash } => (ROW, key, ts.unwrap_or(NONE), hash),
        };
        if self.kind == PLAIN_DELETE {
            self.bytes.extend(index.to_le_bytes());
            return self.sized(key);
        }
        self.bytes.push(what);
        self.bytes.extend(index.to_le_bytes());
        self.sized(key);
        self.bytes.extend(a.to_le_bytes());
        self.bytes.extend(b.to_le_bytes());
        self.ttl(ttl);
    }

    fn ttl(&mut self, ttl: &Ttl) {
        self.bytes.push(match ttl.kind {
            TtlKind::Absolute => 0,
            TtlKind::Latest => 1,
            TtlKind::AbsAndLat => 2,
            TtlKind::AbsOrLat => 3,
        });
        self.bytes.extend(ttl.abs.to_le_bytes());
        self.bytes.extend(ttl.lat.to_le_bytes());
    }

    fn sized(&mut self, bytes: &[u8]) {
        self.length(bytes);
        self.bytes.extend_from_slice(bytes);
    }

    fn length(&mut self, bytes: &[u8]) {
        // Checked before (`check`): no request is near 4 GiB.
        self.bytes.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// The body.
    #[must_use]
    pub fn finish(mut self) -> Bytes {
        self.bytes[HEAD - 4..HEAD].copy_from_slice(&self.count.to_le_bytes());
        self.bytes.into()
    }
}

/// An entry's body, every length of which is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    session: u64,
    seq: u64,
    bytes: usize,
    indexes: usize,
    content: Content<'a>,
}

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// Stores rows.
    Rows(Rows<'a>),
    /// Deletes rows.
    Deletes(Deletes<'a>),
}

/// The rows of a put, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows<'a> {
    cursor: Cursor<'a>,
    summed: bool,
    /// Of a put of what is absent, when it was admitted.
    if_absent: Option<u64>,
}

/// The parts of a deletion, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deletes<'a> {
    cursor: Cursor<'a>,
    plain: bool,
    /// When it was admitted, wall time in ms; 0: not known.
    pub now: u64,
    /// What it finds in one index goes from the others, too.
    pub everywhere: bool,
}

/// One part of a deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delete<'a> {
    /// In which index.
    pub index: usize,
    /// Which rows.
    pub which: Which<'a>,
    /// The index's time to live, as its leader knew it: what has expired by it is not found.
    pub ttl: Ttl,
}

/// Which rows of an index go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which<'a> {
    /// All of a key.
    Key(&'a [u8]),
    /// Those in a range of time.
    Times {
        /// Of this key; `None`: of all keys.
        key: Option<&'a [u8]>,
        /// Newer ones stay.
        newest: u64,
        /// Those of this time and older ones stay; `None`: none do.
        oldest: Option<u64>,
    },
    /// Those of a key and time with this value.
    Row {
        /// The key.
        key: &'a [u8],
        /// The time; `None`: whatever it is.
        ts: Option<u64>,
        /// Of the value: see [`hash`].
        hash: u64,
    },
}

impl<'a> Which<'a> {
    /// All rows of all keys.
    pub const ALL: Self = Self::Times { key: None, newest: u64::MAX, oldest: None };

    /// The key that it is about, if it is one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        match self {
            Self::Key(key) | Self::Row { key, .. } => Some(key),
            Self::Times { key, .. } => *key,
        }
    }
}

/// What stands for a value where a row is named by it.
#[must_use]
pub fn hash(value: &[u8]) -> u64 {
    murmur64(value, 0x0076_a1ce)
}

/// The dimensions of a row, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dimensions<'a>(Cursor<'a>);

/// A row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row<'a> {
    /// Where it is found.
    pub dimensions: Dimensions<'a>,
    /// What it holds.
    pub value: &'a [u8],
    /// Where, in the body, the value's length stands.
    pub place: usize,
    /// Its checksum stands behind the length; else the value does.
    pub summed: bool,
    /// It is stored only if it is not there under its first dimension: as of this wall time in ms, and time to live.
    pub if_absent: Option<(u64, Ttl)>,
}

/// Where a row is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dimension<'a> {
    /// Which index.
    pub index: usize,
    /// Its time there.
    pub ts: u64,
    /// Its key there.
    pub key: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The bytes are no entry of this version.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor { body, at: 0, left: 0 };
        let cut = Malformed("shorter than it says");
        let [kind] = cursor.array().ok_or(cut)?;
        let session = cursor.u64().ok_or(cut)?;
        let seq = cursor.u64().ok_or(cut)?;
        cursor.left = cursor.u32().ok_or(cut)?;
        let plain = matches!(kind, PLAIN_PUT | PLAIN_DELETE);
        let content = match kind {
            PUT | PLAIN_PUT => Content::Rows(Rows { cursor, summed: !plain, if_absent: None }),
            PUT_IF_ABSENT => {
                let now = cursor.u64().ok_or(cut)?;
                Content::Rows(Rows { cursor, summed: true, if_absent: Some(now) })
            }
            DELETE | PLAIN_DELETE => {
                let (mut now, mut everywhere) = (0, false);
                if !plain {
                    now = cursor.u64().ok_or(cut)?;
                    everywhere = cursor.array().ok_or(cut)? == [1];
                }
                Content::Deletes(Deletes { cursor, plain, now, everywhere })
            }
            _ => return Err(Malformed("of a kind that this version does not know")),
        };
        let (mut count, mut indexes) = (0, 0);
        let rest = match content {
            Content::Rows(mut rows) => {
                for row in rows.by_ref() {
                    count += 1;
                    indexes = row.dimensions.fold(indexes, |most, d| most.max(d.index + 1));
                }
                rows.cursor
            }
            Content::Deletes(mut deletes) => {
                for delete in deletes.by_ref() {
                    count += 1;
                    indexes = indexes.max(delete.index + 1);
                }
                deletes.cursor
            }
        };
        if count != cursor.left {
            return Err(cut);
        }
        if indexes > limits::INDEXES {
            return Err(Malformed("of an index that no table can have"));
        }
        if rest.at != body.len() {
            return Err(Malformed("longer than it says"));
        }
        Ok(Self { session, seq, bytes: body.len(), indexes, content })
    }

    /// The session of its request; 0: none.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Its number in the session.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Its length in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// One more than the highest index that it names.
    #[must_use]
    pub fn indexes(&self) -> usize {
        self.indexes
    }

    /// What it does.
    #[must_use]
    pub fn content(&self) -> Content<'a> {
        self.content
    }
}

impl Rows<'_> {
    /// Are they stored only where they are absent?
    #[must_use]
    pub fn if_absent(&self) -> bool {
        self.if_absent.is_some()
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let mut cursor = self.cursor.item()?;
        let if_absent = match self.if_absent {
            Some(now) => Some((now, cursor.ttl()?)),
            None => None,
        };
        let count = cursor.u16()?;
        let dimensions = Cursor { left: count.into(), ..cursor };
        for _ in 0..dimensions.left {
            cursor.dimension()?;
        }
        let place = cursor.at;
        let len = cursor.u32()? as usize;
        if self.summed {
            cursor.u32()?;
        }
        let value = cursor.take(len)?;
        self.cursor = cursor;
        let dimensions = Dimensions(dimensions);
        Some(Row { dimensions, value, place, summed: self.summed, if_absent })
    }
}

impl<'a> Iterator for Dimensions<'a> {
    type Item = Dimension<'a>;

    fn next(&mut self) -> Option<Dimension<'a>> {
        let mut cursor = self.0.item()?;
        let dimension = cursor.dimension()?;
        self.0 = cursor;
        Some(dimension)
    }
}

impl<'a> Iterator for Deletes<'a> {
    type Item = Delete<'a>;

    fn next(&mut self) -> Option<Delete<'a>> {
        let mut cursor = self.cursor.item()?;
        let [what] = if self.plain { [KEY] } else { cursor.array()? };
        let index = usize::from(cursor.u16()?);
        let key = cursor.sized()?;
        let (mut a, mut b, mut ttl) = (0, 0, Ttl::default());
        if !self.plain {
            (a, b) = (cursor.u64()?, cursor.u64()?);
            ttl = cursor.ttl()?;
        }
        let oldest = (b != NONE).then_some(b);
        let which = match what {
            KEY => Which::Key(key),
            TIMES => Which::Times { key: Some(key), newest: a, oldest },
            ALL_TIMES => Which::Times { key: None, newest: a, oldest },
            ROW => Which::Row { key, ts: (a != NONE).then_some(a), hash: b },
            _ => return None,
        };
        self.cursor = cursor;
        Some(Delete { index, which, ttl })
    }
}

/// Where reading is, and how many items are left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cursor<'a> {
    body: &'a [u8],
    at: usize,
    left: u32,
}

impl<'a> Cursor<'a> {
    /// For the next item: the cursor as it is behind it if all of the item is there.
    fn item(&self) -> Option<Self> {
        Some(Self { left: self.left.checked_sub(1)?, ..*self })
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(len)?;
        let bytes = self.body.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn ttl(&mut self) -> Option<Ttl> {
        let [kind] = self.array()?;
        let kind = match kind {
            0 => TtlKind::Absolute,
            1 => TtlKind::Latest,
            2 => TtlKind::AbsAndLat,
            3 => TtlKind::AbsOrLat,
            _ => return None,
        };
        Some(Ttl { kind, abs: self.u64()?, lat: self.u64()? })
    }

    fn dimension(&mut self) -> Option<Dimension<'a>> {
        let index = usize::from(self.u16()?);
        let ts = self.u64()?;
        Some(Dimension { index, ts, key: self.sized()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Owned = Vec<(Vec<(u16, u64, Vec<u8>)>, Vec<u8>)>;

    fn rows() -> impl Strategy<Value = Owned> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let index = 0..u16::try_from(limits::INDEXES).unwrap();
        let dimensions = prop::collection::vec((index, any::<u64>(), bytes(20)), 0..4);
        prop::collection::vec((dimensions, bytes(60)), 0..5)
    }

    fn write(rows: &Owned) -> Bytes {
        let mut writer = Writer::put(7, 9, 100);
        for (dimensions, value) in rows {
            writer.row(u16::try_from(dimensions.len()).unwrap(), &Ttl::default());
            for (index, ts, key) in dimensions {
                writer.dimension(*index, *ts, key);
            }
            writer.value(value);
        }
        writer.finish()
    }

    fn read(body: &[u8]) -> Owned {
        let entry = Entry::parse(body).unwrap();
        assert_eq!((entry.session(), entry.seq()), (7, 9));
        let Content::Rows(rows) = entry.content() else { panic!("not a put") };
        rows.map(|row| {
            let len =
                u32::from_le_bytes(body[row.place..row.place + 4].try_into().unwrap()) as usize;
            assert_eq!(row.value, &body[row.place + VALUE_HEADER..][..len]);
            let crc = body[row.place + 4..row.place + VALUE_HEADER].try_into().unwrap();
            assert_eq!(u32::from_le_bytes(crc), crc32c::crc32c(row.value));
            let dimensions =
                row.dimensions.map(|d| (u16::try_from(d.index).unwrap(), d.ts, d.key.to_vec()));
            (dimensions.collect(), row.value.to_vec())
        })
        .collect()
    }

    #[test]
    fn an_index_that_no_table_can_have_is_no_entry() {
        let most = u16::try_from(limits::INDEXES).unwrap();
        let named = |index| write(&vec![(vec![(0, 1, vec![1]), (index, 1, vec![1])], vec![])]);
        assert_eq!(Entry::parse(&named(most - 1)).unwrap().indexes(), limits::INDEXES);
        assert!(Entry::parse(&named(most)).is_err());
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in rows()) {
            prop_assert_eq!(read(&write(&rows)), rows);
        }

        #[test]
        fn a_cut_or_longer_body_is_refused(rows in rows(), cut in any::<prop::sample::Index>()) {
            let body = write(&rows);
            prop_assert!(Entry::parse(&body[..cut.index(body.len())]).is_err());
            prop_assert!(Entry::parse(&[&body[..], b"x"].concat()).is_err());
        }

        #[test]
        fn foreign_bytes_do_not_panic(kind in 0u8..6, bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0u32..5) {
            let _ = Entry::parse(&bytes);
            let shaped = [&[kind][..], &[1; 16], &count.to_le_bytes(), &bytes].concat();
            if let Ok(entry) = Entry::parse(&shaped) {
                match entry.content() {
                    Content::Rows(rows) => rows.for_each(|r| r.dimensions.for_each(drop)),
                    Content::Deletes(deletes) => deletes.for_each(drop),
                }
            }
        }
    }

    #[test]
    fn deletions_come_back() {
        let mut writer = Writer::delete(1, 2, 99, true);
        let ttl = Ttl { kind: TtlKind::AbsOrLat, abs: 7, lat: 8 };
        let some = [
            (0, Which::Key(b"a"), Ttl::default()),
            (3, Which::Times { key: Some(b""), newest: 9, oldest: Some(4) }, ttl),
            (2, Which::Times { key: None, newest: u64::MAX, oldest: None }, ttl),
            (1, Which::Row { key: b"b", ts: Some(5), hash: hash(b"value") }, ttl),
        ];
        some.iter().for_each(|(index, which, ttl)| writer.rows(*index, *which, ttl));
        let body = writer.finish();
        let Content::Deletes(deletes) = Entry::parse(&body).unwrap().content() else {
            panic!("not a deletion")
        };
        assert_eq!((deletes.now, deletes.everywhere), (99, true));
        let of = |(index, which, ttl): (u16, _, _)| Delete { index: index.into(), which, ttl };
        assert!(deletes.eq(some.map(of)));
    }

    #[test]
    fn entries_of_earlier_versions_are_read() {
        let put = [
            &[1][..],
            &[0; 16],
            &1u32.to_le_bytes(),
            &[1, 0, 0, 0],
            &5u64.to_le_bytes(),
            &[1, 0, 0, 0, b'k', 1, 0, 0, 0, b'v'],
        ]
        .concat();
        let Content::Rows(mut rows) = Entry::parse(&put).unwrap().content() else {
            panic!("not a put")
        };
        let row = rows.next().unwrap();
        assert_eq!(
            (row.value, row.summed, &put[row.place..]),
            (&b"v"[..], false, &[1, 0, 0, 0, b'v'][..])
        );
        let delete = [&[2][..], &[0; 16], &1u32.to_le_bytes(), &[3, 0, 1, 0, 0, 0, b'k']].concat();
        let Content::Deletes(mut deletes) = Entry::parse(&delete).unwrap().content() else {
            panic!("not a deletion")
        };
        let found = deletes.next().unwrap();
        assert_eq!((found.index, found.which, deletes.everywhere), (3, Which::Key(b"k"), false));
    }

    #[test]
    fn another_kind_is_told_as_such() {
        let mut body = write(&vec![]).to_vec();
        body[0] = 9;
        assert_eq!(
            Entry::parse(&body),
            Err(Malformed("of a kind that this version does not know"))
        );
    }
}
