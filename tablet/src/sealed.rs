//! Files that are whole or are not used.
//!
//! ```text
//! magic, 8 bytes | version u32 | 0 u32
//! body      what the kind of file says; at 16
//! header    JSON
//! sums      crc32c u32 of each 64 KiB of all that stands before
//! foot      magic | version u32 | crc32c u32 of the foot | header at u64 | sums at u64 | crc32c u32 of the sums | 0 u32
//! ```
//!
//! Little endian. **Invariants**
//! * Every byte is covered by one checksum, and the sums together are that of the whole file. No bytes whatever make
//!   [`check`] panic.
//! * What is written is synced every few megabytes, so that the last sync is short and the log's own syncs do not queue
//!   behind a gigabyte of it.

use std::io;
use std::ops::Range;
use std::path::Path;

use stela_common::fs::{Disk, File, Why};

/// The bytes before the body.
pub const HEAD: usize = 16;
pub(crate) const FOOT: usize = 40;
/// The bytes of one checksum.
pub const CHUNK: usize = 64 << 10;
/// Bytes that go to the file at a time; a multiple of [`CHUNK`].
const BUFFER: usize = 1 << 20;
/// Bytes that wait for the disk, at most.
const DIRTY: u64 = 16 << 20;

/// What is wrong with a file, and where.
pub struct Wrong(pub String);

fn wrong<T>(what: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong(what.into()))
}

/// A file in the making.
pub struct Writer {
    magic: [u8; 8],
    version: u32,
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    at: u64,
    synced: u64,
    sums: Vec<u8>,
}

impl Writer {
    /// Begins a file, which must not exist.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(disk: &Disk, path: &Path, magic: [u8; 8], version: u32) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER + BUFFER / 4);
        buffer.extend(magic);
        buffer.extend(version.to_le_bytes());
        buffer.resize(HEAD, 0);
        let file = disk.create_new(path)?;
        Ok(Self { magic, version, file, buffer, at: 0, synced: 0, sums: Vec::new() })
    }

    /// Where the next byte goes.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    /// Adds bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Adds bytes behind their length.
    ///
    /// # Errors
    /// The disk refused.
    pub fn sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.extend(&len.to_le_bytes());
        self.extend(bytes);
        self.spill()
    }

    /// Writes what is whole chunks, if that is much.
    ///
    /// # Errors
    /// The disk refused.
    pub fn spill(&mut self) -> io::Result<()> {
        if self.buffer.len() < BUFFER {
            return Ok(());
        }
        self.put(self.buffer.len() / CHUNK * CHUNK)?;
        if self.at - self.synced >= DIRTY {
            self.file.sync(Why::Replace)?;
            self.synced = self.at;
        }
        Ok(())
    }

    /// Writes so many bytes of the buffer, and sums them.
    fn put(&mut self, len: usize) -> io::Result<()> {
        self.file.write_at(&self.buffer[..len], self.at)?;
        for chunk in self.buffer[..len].chunks(CHUNK) {
            self.sums.extend(crc32c::crc32c(chunk).to_le_bytes());
        }
        self.buffer.drain(..len);
        self.at += len as u64;
        Ok(())
    }

    /// Ends the file, synced, with that header.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(mut self, header: &impl serde::Serialize) -> io::Result<()> {
        let header_at = self.position();
        serde_json::to_writer(&mut self.buffer, header)?;
        self.put(self.buffer.len())?;
        let mut foot = [0; FOOT];
        foot[..8].copy_from_slice(&self.magic);
        foot[8..12].copy_from_slice(&self.version.to_le_bytes());
        foot[16..24].copy_from_slice(&header_at.to_le_bytes());
        foot[24..32].copy_from_slice(&self.at.to_le_bytes());
        foot[32..36].copy_from_slice(&crc32c::crc32c(&self.sums).to_le_bytes());
        let crc = foot_crc(&foot);
        foot[12..16].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&[&self.sums[..], &foot].concat(), self.at)?;
        self.file.sync(Why::Replace)
    }
}

/// A file that checks out.
pub struct Checked<'a> {
    /// Its version.
    pub version: u32,
    /// Its header.
    pub header: &'a [u8],
    /// Where that stands, and the body ends.
    pub header_at: usize,
}

/// Verifies a whole file of that kind, of which `newest` is the newest version that can be read.
///
/// # Errors
/// What is wrong, and where.
pub fn check(file: &[u8], magic: [u8; 8], newest: u32) -> Result<Checked<'_>, Wrong> {
    let cut = || Wrong(format!("it ends after {} bytes", file.len()));
    let (body, foot) = file.split_last_chunk::<FOOT>().ok_or_else(cut)?;
    let version = u32_at(foot, 8).ok_or_else(cut)?;
    if foot[..8] != magic || u32_at(foot, 12) != Some(foot_crc(foot)) {
        return wrong(format!("no foot at byte {}", body.len()));
    }
    if version > newest {
        return wrong(format!("it has format {version}, newer than {newest}"));
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
    Ok(Checked { version, header, header_at })
}

/// How many checksums a file has that was checked.
#[must_use]
pub fn chunks(file: &[u8]) -> usize {
    parts(file).map_or(0, |(sealed, _)| sealed.len().div_ceil(CHUNK))
}

/// Looks at one checksum again.
///
/// # Errors
/// What is wrong, and where.
pub fn verify_chunk(file: &[u8], chunk: usize) -> Result<(), Wrong> {
    let (sealed, sums) = parts(file).unwrap_or_default();
    let bytes = sealed.chunks(CHUNK).nth(chunk).unwrap_or_default();
    let sum = sums.as_chunks().0.get(chunk).map(|sum| u32::from_le_bytes(*sum));
    if sum == Some(crc32c::crc32c(bytes)) {
        return Ok(());
    }
    wrong(format!("{} bytes at byte {} are damaged", bytes.len(), chunk * CHUNK))
}

/// What the checksums are of, and the checksums.
fn parts(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (body, foot) = file.split_last_chunk::<FOOT>()?;
    body.split_at_checked(usize::try_from(u64_at(foot, 24)?).ok()?)
}

pub(crate) fn foot_crc(foot: &[u8; FOOT]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&foot[..12]), &foot[16..])
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

/// The number that stands there.
#[must_use]
pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// The bytes from one place to another.
#[must_use]
pub fn span(from: u64, to: u64) -> Range<usize> {
    // A file that is mapped has a length of that size; what has not is not found there.
    usize::try_from(from).unwrap_or(usize::MAX)..usize::try_from(to).unwrap_or(usize::MAX)
}
