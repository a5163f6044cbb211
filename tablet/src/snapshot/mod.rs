//! Snapshots: the live rows of one partition up to an offset, in one file that is whole or is not used.
//!
//! ```text
//! "STELASNP" | version u32 | 0 u32
//! values    each: length u32, crc32c u32 of the value, value               at 16: a place is where a length stands
//! indexes   each, in the order of keys: key length u32, key, rows u32, rows x (time u64, place u64), newest first
//! header    JSON: see Header
//! sums      crc32c u32 of each 64 KiB of all that stands before
//! foot      "STELASNP" | version u32 | crc32c u32 of the foot | header at u64 | sums at u64 | crc32c u32 of the sums | 0 u32
//! ```
//!
//! Little endian. In version 1 values have no checksum of their own, and keys ascend; since version 2 they are in the order
//! of [`Index::from`](crate::store::index::Index::from), in which they are also loaded. **Invariants**
//! * A value stands once, whatever number of keys name it; loading an index reads no value.
//! * Every byte is covered by one checksum, and the sums together are that of the whole file. [`Snapshot::open`]
//!   verifies all of them; what it returns is walked without a look at the disk. No bytes whatever make it panic.
//! * A file is written aside, synced, read back, renamed, and the directory synced, before anything relies on it (R28).
//! * A snapshot names the position in the log from which its partition is replayed on top of it: earlier records of the
//!   partition are dead (R26).
//!
//! [`header`] is what a snapshot says of itself, [`write`](mod@write) how one is written, [`files`] where they lie.
//! Called by the store, the start and the node; knows no roles.

pub mod files;
pub mod header;
pub mod write;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use stela_common::fs::Disk;
use stela_common::log::Map;

pub use header::Header;

use crate::store::list::Point;

const MAGIC: [u8; 8] = *b"STELASNP";
/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 2;
/// The first one: values without checksums of their own, keys in the order of their bytes.
pub const PLAIN: u32 = 1;
/// The bytes before the values.
const HEAD: usize = 16;
const FOOT: usize = 40;
/// The bytes of one checksum.
const CHUNK: usize = 64 << 10;

/// An open snapshot: mapped, every checksum of it verified.
pub struct Snapshot {
    path: PathBuf,
    map: Map,
    header: Header,
    format: u32,
}

/// What is wrong with a file, and where.
struct Wrong(String);

fn wrong<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(what.into()))
}

impl Snapshot {
    /// Maps a file and verifies every checksum of it.
    ///
    /// # Errors
    /// The disk refused, or the file is not a whole snapshot: the text names the file and the place.
    pub fn open(disk: &Disk, path: &Path) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let map = disk.open(path).and_then(|file| Map::new(&file)).map_err(named)?;
        map.sequential(true);
        let (header, format) = check(map.all()).map_err(|Wrong(what)| invalid(path, &what))?;
        map.sequential(false);
        Ok(Self { path: path.to_owned(), map, header, format })
    }

    /// Looks at every checksum again: for who copies what may have rotted since.
    ///
    /// # Errors
    /// Names the file and the place.
    pub fn verify(&self) -> io::Result<()> {
        check(self.map.all()).map(drop).map_err(|Wrong(what)| invalid(&self.path, &what))
    }

    /// Bytes under one checksum.
    pub const CHUNK: usize = CHUNK;

    /// How many checksums there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        sealed(self.map.all()).map_or(0, |(sealed, _)| sealed.len().div_ceil(CHUNK))
    }

    /// Looks at one checksum again.
    ///
    /// # Errors
    /// Names the file and the place.
    pub fn verify_chunk(&self, chunk: usize) -> io::Result<()> {
        let (sealed, sums) = sealed(self.map.all()).unwrap_or_default();
        let bytes = sealed.chunks(CHUNK).nth(chunk).unwrap_or_default();
        let sum = sums.as_chunks().0.get(chunk).map(|sum| u32::from_le_bytes(*sum));
        if sum == Some(crc32c::crc32c(bytes)) {
            return Ok(());
        }
        Err(self.invalid(&format!("{} bytes at byte {} are damaged", bytes.len(), chunk * CHUNK)))
    }

    /// What it says of itself.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file has that name now.
    pub(crate) fn renamed(&mut self, path: PathBuf) {
        self.path = path;
    }

    /// The length of the file in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Its format: 1, or 2.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.format
    }

    /// The bytes from a place among the values on.
    #[must_use]
    pub fn from(&self, place: u64) -> Option<&[u8]> {
        let at = usize::try_from(place).ok()?;
        let values = self.map.get(HEAD..usize::try_from(self.header.values_end).ok()?)?;
        values.get(at.checked_sub(HEAD)?..)
    }

    /// The keys of an index with their rows; none of one that the snapshot does not have.
    #[must_use]
    pub fn keys(&self, index: usize) -> Keys<'_> {
        let section = self.header.indexes.get(index);
        let range = section.map_or(0..0, |s| s.range());
        Keys { rest: self.map.get(range).unwrap_or_default() }
    }

    /// The error that says what is wrong with this file.
    pub(crate) fn invalid(&self, what: &str) -> io::Error {
        invalid(&self.path, what)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({}, up to {})", self.path.display(), self.header.offset)
    }
}

fn invalid(path: &Path, what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{} is not a whole snapshot: {what}", path.display()),
    )
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// What the checksums are of, and the checksums.
fn sealed(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, foot) = file.split_last_chunk::<FOOT>()?;
    body.split_at_checked(usize::try_from(u64_at(foot, 24)?).ok()?)
}

/// Verifies a whole file.
fn check(file: &[u8]) -> Result<(Header, u32), Wrong> {
    let cut = || Wrong(format!("it ends after {} bytes", file.len()));
    let (body, foot) = file.split_last_chunk::<FOOT>().ok_or_else(cut)?;
    let version = u32_at(foot, 8).ok_or_else(cut)?;
    if foot[..8] != MAGIC || u32_at(foot, 12) != Some(foot_crc(foot)) {
        return wrong(format!("no foot at byte {}", body.len()));
    }
    if version > FORMAT {
        return wrong(format!("it has format {version}, newer than {FORMAT}"));
    }
    let at = |at: usize| u64_at(foot, at).and_then(|at| usize::try_from(at).ok()).ok_or_else(cut);
    let (header_at, sums_at) = (at(16)?, at(24)?);
    let (sealed, sums) =
        body.split_at_checked(sums_at).ok_or_else(|| Wrong("its foot is not its own".into()))?;
    let Some(sums_crc) =
        u32_at(foot, 32).filter(|_| sums.len() == sealed.len().div_ceil(CHUNK) * 4)
    else {
        return wrong(format!("it has {} bytes of checksums at byte {sums_at}", sums.len()));
    };
    if crc32c::crc32c(sums) != sums_crc {
        return wrong(format!("the checksums at byte {sums_at} are damaged"));
    }
    for ((n, chunk), sum) in (0..).zip(sealed.chunks(CHUNK)).zip(sums.as_chunks().0) {
        if crc32c::crc32c(chunk) != u32::from_le_bytes(*sum) {
            return wrong(format!("{} bytes at byte {} are damaged", chunk.len(), n * CHUNK));
        }
    }
    if sealed.get(..12) != file.get(body.len()..body.len() + 12) {
        return wrong("its head is not that of its foot");
    }
    let header = sealed.get(header_at..).unwrap_or_default();
    let header: Header = serde_json::from_slice(header)
        .map_err(|e| Wrong(format!("the header at byte {header_at}: {e}")))?;
    header
        .check(header_at as u64)
        .map_err(|e| Wrong(format!("the header at byte {header_at}: {e}")))?;
    Ok((header, version))
}

fn foot_crc(foot: &[u8; FOOT]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&foot[..12]), &foot[16..])
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

/// The bytes from one place to another.
fn span(from: u64, to: u64) -> Range<usize> {
    // A file that is mapped has a length of that size; what has not is not found there.
    usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
