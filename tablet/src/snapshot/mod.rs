//! Snapshots: the live rows of one partition up to an offset, in one file that is whole or is not used.
//!
//! A [`sealed`] file, whose body is:
//!
//! ```text
//! values    each: length u32, crc32c u32 of the value, value               a place is where a length stands
//! indexes   see keys
//! ```
//!
//! Its header is a [`Header`]. In version 1 values have no checksum of their own, and keys ascend; since version 2 they are in the order
//! of [`Index::from`](crate::store::index::Index::from), in which they are also loaded. **Invariants**
//! * A value stands once, whatever number of keys name it; loading an index reads no value.
//! * [`Snapshot::open`] verifies every checksum; what it returns is walked without a look at the disk. No bytes whatever
//!   make it panic.
//! * A file is written aside, synced, read back, renamed, and the directory synced, before anything relies on it (R28).
//! * A snapshot names the position in the log from which its partition is replayed on top of it: earlier records of the
//!   partition are dead (R26).
//!
//! [`header`] is what a snapshot says of itself, [`keys`] its indexes, [`write`](mod@write) how one is written, [`files`]
//! where they lie.
//! Called by the store, the start and the node; knows no roles.

pub mod files;
pub mod header;
pub mod keys;
pub mod write;

use std::io;
use std::path::{Path, PathBuf};

use stela_common::fs::Disk;
use stela_common::log::Map;

pub use header::Header;
use keys::Keys;

use crate::sealed::{self, Checked, HEAD, Wrong};

const MAGIC: [u8; 8] = *b"STELASNP";
/// The format that this version writes, and the newest that it reads.
const FORMAT: u32 = 2;
/// The first one: values without checksums of their own, keys in the order of their bytes.
pub const PLAIN: u32 = 1;
/// An open snapshot: mapped, every checksum of it verified.
pub struct Snapshot {
    path: PathBuf,
    map: Map,
    header: Header,
    format: u32,
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

    /// How many checksums there are.
    #[must_use]
    pub fn chunks(&self) -> usize {
        sealed::chunks(self.map.all())
    }

    /// Looks at one checksum again.
    ///
    /// # Errors
    /// Names the file and the place.
    pub fn verify_chunk(&self, chunk: usize) -> io::Result<()> {
        sealed::verify_chunk(self.map.all(), chunk).map_err(|Wrong(what)| self.invalid(&what))
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
        Keys::new(section.and_then(|s| self.map.get(s.range())).unwrap_or_default())
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

/// Verifies a whole file.
fn check(file: &[u8]) -> Result<(Header, u32), Wrong> {
    let Checked { version, header, header_at } = sealed::check(file, MAGIC, FORMAT)?;
    let wrong = |e: &dyn std::fmt::Display| Wrong(format!("the header at byte {header_at}: {e}"));
    let header: Header = serde_json::from_slice(header).map_err(|e| wrong(&e))?;
    header.check(header_at as u64).map_err(|e| wrong(&e))?;
    Ok((header, version))
}

#[cfg(test)]
mod tests;
