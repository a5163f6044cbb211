//! The body of an entry: one request of one partition, applied whole (R32, R33).
//!
//! ```text
//! kind u8 | session u64 | seq u64 | count u32 | count items
//! put (kind 1), an item is a row:  dimensions u16 | each: index u16, ts u64, key length u32, key | value length u32 | value
//! delete (kind 2), an item is:     index u16, key length u32, key
//! ```
//!
//! Little endian. **Invariants**
//! * A dimension carries its own time, so that applying an entry needs no schema and decodes no row.
//! * [`Entry::parse`] looks at every length once; what it returned is walked without a failure. No bytes whatever make
//!   a function here panic.
//! * A value is found by the place of its length alone ([`Row::place`]): an index entry points there.

use bytes::Bytes;

const PUT: u8 = 1;
const DELETE: u8 = 2;
const HEAD: usize = 1 + 8 + 8 + 4;

/// The bytes before a value: its length.
pub const VALUE_HEADER: usize = 4;

/// These bytes are no entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed entry: {0}")]
pub struct Malformed(pub &'static str);

/// An entry's body in the making.
pub struct Writer {
    bytes: Vec<u8>,
    count: u32,
}

impl Writer {
    /// A put without rows yet, of about so many bytes in the end.
    #[must_use]
    pub fn put(session: u64, seq: u64, bytes: usize) -> Self {
        Self::new(PUT, session, seq, bytes)
    }

    /// A deletion without keys yet.
    #[must_use]
    pub fn delete(session: u64, seq: u64) -> Self {
        Self::new(DELETE, session, seq, 0)
    }

    fn new(kind: u8, session: u64, seq: u64, capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + capacity);
        bytes.push(kind);
        bytes.extend(session.to_le_bytes());
        bytes.extend(seq.to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        Self { bytes, count: 0 }
    }

    /// Begins a row with so many dimensions; that many calls of [`dimension`](Self::dimension) and one of
    /// [`value`](Self::value) follow.
    pub fn row(&mut self, dimensions: u16) {
        self.count += 1;
        self.bytes.extend(dimensions.to_le_bytes());
    }

    /// Where the row is found. A key is at most [`limits::KEY`](stela_common::table::limits::KEY) long.
    pub fn dimension(&mut self, index: u16, ts: u64, key: &[u8]) {
        self.bytes.extend(index.to_le_bytes());
        self.bytes.extend(ts.to_le_bytes());
        self.sized(key);
    }

    /// What the row holds.
    pub fn value(&mut self, value: &[u8]) {
        self.sized(value);
    }

    /// A key that goes.
    pub fn key(&mut self, index: u16, key: &[u8]) {
        self.count += 1;
        self.bytes.extend(index.to_le_bytes());
        self.sized(key);
    }

    fn sized(&mut self, bytes: &[u8]) {
        // Checked before (`check`): no request is near 4 GiB.
        self.bytes.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.bytes.extend_from_slice(bytes);
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
    content: Content<'a>,
}

/// What an entry does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content<'a> {
    /// Stores rows.
    Rows(Rows<'a>),
    /// Deletes all that is stored under keys.
    Keys(Keys<'a>),
}

/// The rows of a put, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows<'a>(Cursor<'a>);

/// The keys of a deletion, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keys<'a>(Cursor<'a>);

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
    /// Where, in the body, the value's length stands; the value follows.
    pub place: usize,
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
        let content = match kind {
            PUT => Content::Rows(Rows(cursor)),
            DELETE => Content::Keys(Keys(cursor)),
            _ => return Err(Malformed("of a kind that this version does not know")),
        };
        let (count, rest) = match content {
            Content::Rows(mut rows) => (rows.by_ref().count(), rows.0),
            Content::Keys(mut keys) => (keys.by_ref().count(), keys.0),
        };
        if count != cursor.left as usize {
            return Err(cut);
        }
        if rest.at != body.len() {
            return Err(Malformed("longer than it says"));
        }
        Ok(Self { session, seq, content })
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

    /// What it does.
    #[must_use]
    pub fn content(&self) -> Content<'a> {
        self.content
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let mut cursor = self.0.item()?;
        let count = cursor.u16()?;
        let dimensions = Cursor { left: count.into(), ..cursor };
        for _ in 0..dimensions.left {
            cursor.dimension()?;
        }
        let place = cursor.at;
        let value = cursor.sized()?;
        self.0 = cursor;
        Some(Row { dimensions: Dimensions(dimensions), value, place })
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

impl<'a> Iterator for Keys<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<(usize, &'a [u8])> {
        let mut cursor = self.0.item()?;
        let index = cursor.u16()?;
        let key = cursor.sized()?;
        self.0 = cursor;
        Some((usize::from(index), key))
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
        let dimensions = prop::collection::vec((any::<u16>(), any::<u64>(), bytes(20)), 0..4);
        prop::collection::vec((dimensions, bytes(60)), 0..5)
    }

    fn write(rows: &Owned) -> Bytes {
        let mut writer = Writer::put(7, 9, 100);
        for (dimensions, value) in rows {
            writer.row(u16::try_from(dimensions.len()).unwrap());
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
                u32::from_le_bytes(body[row.place..row.place + VALUE_HEADER].try_into().unwrap())
                    as usize;
            assert_eq!(row.value, &body[row.place + VALUE_HEADER..][..len]);
            let dimensions =
                row.dimensions.map(|d| (u16::try_from(d.index).unwrap(), d.ts, d.key.to_vec()));
            (dimensions.collect(), row.value.to_vec())
        })
        .collect()
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
        fn foreign_bytes_do_not_panic(kind in 0u8..4, bytes in prop::collection::vec(any::<u8>(), 0..120), count in 0u32..5) {
            let _ = Entry::parse(&bytes);
            let shaped = [&[kind][..], &[1; 16], &count.to_le_bytes(), &bytes].concat();
            if let Ok(entry) = Entry::parse(&shaped) {
                match entry.content() {
                    Content::Rows(rows) => rows.for_each(|r| r.dimensions.for_each(drop)),
                    Content::Keys(keys) => keys.for_each(drop),
                }
            }
        }
    }

    #[test]
    fn keys_come_back() {
        let mut writer = Writer::delete(1, 2);
        writer.key(0, b"a");
        writer.key(3, b"");
        let body = writer.finish();
        let entry = Entry::parse(&body).unwrap();
        let Content::Keys(keys) = entry.content() else { panic!("not a deletion") };
        assert_eq!(keys.collect::<Vec<_>>(), [(0, &b"a"[..]), (3, &b""[..])]);
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
