//! An index in a file: in the order of its keys,
//!
//! ```text
//! key length u32, key, rows u32, rows x (time u64, place u64), newest first
//! ```

use std::io;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::sealed::{Writer, span, u64_at};
use crate::store::list::Point;

/// Where an index stands in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Section {
    /// Where it begins.
    pub from: u64,
    /// Where it ends.
    pub to: u64,
    /// How many keys it has.
    pub keys: u64,
    /// How many rows.
    pub rows: u64,
}

impl Section {
    /// Where it is going to stand.
    #[must_use]
    pub fn begin(to: &Writer) -> Self {
        let at = to.position();
        Self { from: at, to: at, keys: 0, rows: 0 }
    }

    /// Adds a key, behind the one before in their order, with that many rows, at least one, newest first.
    ///
    /// # Errors
    /// The disk refused.
    pub fn key(
        &mut self,
        to: &mut Writer,
        key: &[u8],
        count: usize,
        rows: impl Iterator<Item = Point>,
    ) -> io::Result<()> {
        to.sized(key)?;
        let count = u32::try_from(count).map_err(io::Error::other)?;
        to.extend(&count.to_le_bytes());
        for Point { ts, place } in rows {
            to.extend(&ts.to_le_bytes());
            to.extend(&place.to_le_bytes());
            to.spill()?;
        }
        self.to = to.position();
        self.keys += 1;
        self.rows += u64::from(count);
        Ok(())
    }

    /// Whether it can stand there; returns where the next one begins.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, begin: u64) -> Result<u64, &'static str> {
        if self.from != begin || self.to < begin {
            return Err("an index does not begin where the one before ends");
        }
        // What is reserved for them is what is there.
        let least = self.keys.saturating_mul(8).saturating_add(self.rows.saturating_mul(16));
        if least > self.to - self.from {
            return Err("an index is shorter than its keys and rows");
        }
        Ok(self.to)
    }

    /// Its bytes in the file.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        span(self.from, self.to)
    }
}

/// The keys of one index, in their order.
pub struct Keys<'a> {
    rest: &'a [u8],
}

/// The rows of one key, newest first.
#[derive(Clone, Copy)]
pub struct Rows<'a>(&'a [[u8; 16]]);

impl<'a> Rows<'a> {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Point> + ExactSizeIterator + use<'a> {
        self.0.iter().map(|row| {
            let (ts, place) = row.split_at(8);
            let number = |bytes| u64_at(bytes, 0).unwrap_or_default();
            Point { ts: number(ts), place: number(place) }
        })
    }
}

impl<'a> Keys<'a> {
    /// What stands there.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn key(&mut self) -> Option<(&'a [u8], Rows<'a>)> {
        let sized = |bytes: &'a [u8], unit: usize| {
            let (len, rest) = bytes.split_first_chunk()?;
            rest.split_at_checked((u32::from_le_bytes(*len) as usize).checked_mul(unit)?)
        };
        let (key, rest) = sized(self.rest, 1)?;
        let (rows, rest) = sized(rest, size_of::<[u8; 16]>())?;
        self.rest = rest;
        Some((key, Rows(rows.as_chunks().0)))
    }
}

impl<'a> Iterator for Keys<'a> {
    /// A key with its rows; an error ends it: what stands there is no key.
    type Item = Result<(&'a [u8], Rows<'a>), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let key = self.key();
        if key.is_none() {
            self.rest = &[];
        }
        Some(key.ok_or("an index ends within a key"))
    }
}
