//! Writing a snapshot, from front to back.
//!
//! **Invariant**: the bytes are synced every few megabytes, so that the last sync is short and the log's own syncs do not
//! queue behind a gigabyte of it.

use std::io;
use std::path::Path;

use stela_common::fs::{Disk, File, Why};

use super::header::{Header, Section};
use super::{CHUNK, FOOT, FORMAT, HEAD, MAGIC, PLAIN, foot_crc};
use crate::config::Format;
use crate::store::list::Point;

/// Bytes that go to the file at a time; a multiple of [`CHUNK`].
const BUFFER: usize = 1 << 20;
/// Bytes that wait for the disk, at most.
const DIRTY: u64 = 16 << 20;

/// A snapshot in the making: values first, then the indexes, one after the other.
pub struct Writer {
    format: Format,
    file: File,
    buffer: Vec<u8>,
    /// Where the buffer goes.
    at: u64,
    synced: u64,
    sums: Vec<u8>,
    values_end: Option<u64>,
    indexes: Vec<Section>,
}

fn number(format: Format) -> u32 {
    match format {
        Format::Plain => PLAIN,
        Format::Summed => FORMAT,
    }
}

impl Writer {
    /// Begins a file, which must not exist.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(disk: &Disk, path: &Path, format: Format) -> io::Result<Self> {
        let mut buffer = Vec::with_capacity(BUFFER + BUFFER / 4);
        buffer.extend(MAGIC);
        buffer.extend(number(format).to_le_bytes());
        buffer.resize(HEAD, 0);
        Ok(Self {
            format,
            file: disk.create_new(path)?,
            buffer,
            at: 0,
            synced: 0,
            sums: Vec::new(),
            values_end: None,
            indexes: Vec::new(),
        })
    }

    /// In the order of which format keys are added.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    fn position(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    fn sized(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        self.buffer.extend(len.to_le_bytes());
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER { self.flush() } else { Ok(()) }
    }

    /// Writes what is whole chunks.
    fn flush(&mut self) -> io::Result<()> {
        let whole = self.buffer.len() / CHUNK * CHUNK;
        self.put(whole)?;
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

    /// Adds a value; returns its place.
    ///
    /// # Errors
    /// The disk refused.
    pub fn value(&mut self, value: &[u8]) -> io::Result<u64> {
        let place = self.position();
        let len = u32::try_from(value.len()).map_err(io::Error::other)?;
        self.buffer.extend(len.to_le_bytes());
        if self.format != Format::Plain {
            self.buffer.extend(crc32c::crc32c(value).to_le_bytes());
        }
        self.buffer.extend_from_slice(value);
        if self.buffer.len() >= BUFFER {
            self.flush()?;
        }
        Ok(place)
    }

    /// The keys of the next index follow.
    pub fn index(&mut self) {
        let at = self.position();
        self.values_end.get_or_insert(at);
        self.indexes.push(Section { from: at, to: at, keys: 0, rows: 0 });
    }

    /// Adds a key, behind the one before in their order, with that many rows, at least one, newest first.
    ///
    /// # Errors
    /// The disk refused.
    pub fn key(
        &mut self,
        key: &[u8],
        count: usize,
        rows: impl Iterator<Item = Point>,
    ) -> io::Result<()> {
        self.sized(key)?;
        let count = u32::try_from(count).map_err(io::Error::other)?;
        self.buffer.extend(count.to_le_bytes());
        for Point { ts, place } in rows {
            self.buffer.extend(ts.to_le_bytes());
            self.buffer.extend(place.to_le_bytes());
            if self.buffer.len() >= BUFFER {
                self.flush()?;
            }
        }
        let end = self.position();
        if let Some(section) = self.indexes.last_mut() {
            section.to = end;
            section.keys += 1;
            section.rows += u64::from(count);
        }
        Ok(())
    }

    /// Ends the file, synced, with that header, of which the places are filled in.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(mut self, header: Header) -> io::Result<()> {
        let header_at = self.position();
        let values_end = self.values_end.unwrap_or(header_at);
        let header = Header { values_end, indexes: std::mem::take(&mut self.indexes), ..header };
        serde_json::to_writer(&mut self.buffer, &header)?;
        self.put(self.buffer.len())?;
        let mut foot = [0; FOOT];
        foot[..8].copy_from_slice(&MAGIC);
        foot[8..12].copy_from_slice(&number(self.format).to_le_bytes());
        foot[16..24].copy_from_slice(&header_at.to_le_bytes());
        foot[24..32].copy_from_slice(&self.at.to_le_bytes());
        foot[32..36].copy_from_slice(&crc32c::crc32c(&self.sums).to_le_bytes());
        let crc = foot_crc(&foot);
        foot[12..16].copy_from_slice(&crc.to_le_bytes());
        self.file.write_at(&[&self.sums[..], &foot].concat(), self.at)?;
        self.file.sync(Why::Replace)
    }
}
