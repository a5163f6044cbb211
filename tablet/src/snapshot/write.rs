//! Writing a snapshot, from front to back.

use std::io;
use std::path::Path;

use stela_common::fs::Disk;

use super::header::Header;
use super::keys::Section;
use super::{FORMAT, MAGIC, PLAIN};
use crate::config::Format;
use crate::sealed;
use crate::store::list::Point;

/// A snapshot in the making: values first, then the indexes, one after the other.
pub struct Writer {
    format: Format,
    file: sealed::Writer,
    values_end: Option<u64>,
    indexes: Vec<Section>,
}

impl Writer {
    /// Begins a file, which must not exist.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(disk: &Disk, path: &Path, format: Format) -> io::Result<Self> {
        let number = match format {
            Format::Plain => PLAIN,
            Format::Summed => FORMAT,
        };
        let file = sealed::Writer::create(disk, path, MAGIC, number)?;
        Ok(Self { format, file, values_end: None, indexes: Vec::new() })
    }

    /// In the order of which format keys are added.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// Adds a value; returns its place.
    ///
    /// # Errors
    /// The disk refused.
    pub fn value(&mut self, value: &[u8]) -> io::Result<u64> {
        let place = self.file.position();
        let len = u32::try_from(value.len()).map_err(io::Error::other)?;
        self.file.extend(&len.to_le_bytes());
        if self.format != Format::Plain {
            self.file.extend(&crc32c::crc32c(value).to_le_bytes());
        }
        self.file.extend(value);
        self.file.spill()?;
        Ok(place)
    }

    /// The keys of the next index follow.
    pub fn index(&mut self) {
        let section = Section::begin(&self.file);
        self.values_end.get_or_insert(section.from);
        self.indexes.push(section);
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
        match self.indexes.last_mut() {
            Some(section) => section.key(&mut self.file, key, count, rows),
            None => Err(io::Error::other("a key of no index")),
        }
    }

    /// Ends the file, synced, with that header, of which the places are filled in.
    ///
    /// # Errors
    /// The disk refused.
    pub fn finish(mut self, header: Header) -> io::Result<()> {
        let values_end = self.values_end.unwrap_or(self.file.position());
        let header = Header { values_end, indexes: std::mem::take(&mut self.indexes), ..header };
        self.file.finish(&header)
    }
}
