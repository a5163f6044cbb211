//! One segment: its file, its map, its header page.
//!
//! ```text
//! magic 8 B | version u32 | crc32c u32 | log identity 16 B | number u64 | segment length u64 | 0 ...   twice, at 0 and at 2048
//! ```
//!
//! **Crash story**: header, the log's own first batch and the owner's first batch are one write to a spare file,
//! which then gets the segment's name; so under that name is a whole header or, after power loss, an older one with
//! another number, which counts as none. Two copies: one bad sector does not take the identity with it.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::batch::{self, BATCH_HEADER};
use super::record::{self, Record};
use super::{LogId, Map, Position};
use crate::fs::File;

/// The bytes of a segment before its first batch.
pub(super) const HEADER: u64 = 4096;
/// The format of headers, batches and records that this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"STELALOG";
const USED: usize = 64;
const COPIES: [usize; 2] = [0, 2048];

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: LogId,
    pub(super) number: u64,
    pub(super) length: u64,
}

/// What is found where a header should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundHeader {
    Good(Header),
    Newer(u32),
    None,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut one = [0; USED];
        one[0..8].copy_from_slice(&MAGIC);
        one[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        one[16..32].copy_from_slice(&self.id.0);
        one[32..40].copy_from_slice(&self.number.to_le_bytes());
        one[40..48].copy_from_slice(&self.length.to_le_bytes());
        let crc = header_crc(&one);
        one[12..16].copy_from_slice(&crc.to_le_bytes());
        let mut page = vec![0; HEADER as usize];
        for at in COPIES {
            page[at..at + USED].copy_from_slice(&one);
        }
        page
    }

    /// The header in the first bytes of a file.
    pub(super) fn decode(page: &[u8]) -> FoundHeader {
        let copies = COPIES.iter().filter_map(|at| page.get(*at..)?.first_chunk::<USED>());
        copies
            .map(Self::decode_one)
            .find(|found| *found != FoundHeader::None)
            .unwrap_or(FoundHeader::None)
    }

    fn decode_one(one: &[u8; USED]) -> FoundHeader {
        let u32_at = |i: usize| u32::from_le_bytes([one[i], one[i + 1], one[i + 2], one[i + 3]]);
        let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
        if one[0..8] != MAGIC || header_crc(one) != u32_at(12) {
            return FoundHeader::None;
        }
        let version = u32_at(8);
        if version != FORMAT {
            return FoundHeader::Newer(version);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&one[16..32]);
        FoundHeader::Good(Self { id: LogId(id), number: u64_at(32), length: u64_at(40) })
    }
}

fn header_crc(one: &[u8; USED]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&one[..12]), &one[16..])
}

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    /// The position of byte 0.
    pub(super) base: u64,
    pub(super) file: File,
    pub(super) map: Map,
    /// Damaged or cut bytes between batches, in order.
    holes: Vec<Range<u64>>,
    /// The byte behind the last batch; [`ACTIVE`] while batches are still appended.
    end: AtomicU64,
}

const ACTIVE: u64 = u64::MAX;

impl Segment {
    pub(super) fn new(number: u64, length: u64, file: File, map: Map) -> Self {
        Self {
            number,
            base: number * length,
            file,
            map,
            holes: Vec::new(),
            end: AtomicU64::new(ACTIVE),
        }
    }

    pub(super) fn with_holes(mut self, holes: Vec<Range<u64>>) -> Self {
        self.holes = holes;
        self
    }

    /// No batch comes behind this byte any more.
    pub(super) fn seal(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// Batches come again behind the last one.
    pub(super) fn unseal(&self) {
        self.end.store(ACTIVE, Ordering::Release);
    }

    /// The byte behind the last batch that is visible when the log ends at `log_end`, and whether none comes any more.
    #[inline]
    pub(super) fn end(&self, log_end: Position) -> (u64, bool) {
        let (end, sealed) = match self.end.load(Ordering::Acquire) {
            ACTIVE => (log_end.0.saturating_sub(self.base), false),
            end => (end, true),
        };
        // A damaged file may be shorter than the log says.
        (end.min(self.map.len() as u64), sealed)
    }

    /// The first record that begins at this byte or behind it, below `limit`, and where it begins.
    #[inline]
    pub(super) fn record(&self, mut byte: u64, limit: u64) -> Option<(u64, Record<'_>)> {
        loop {
            if let Some(hole) = self.hole(byte) {
                byte = hole.end;
                continue;
            }
            let bytes = self.bytes(byte..limit).filter(|bytes| !bytes.is_empty())?;
            if batch::begins(bytes) {
                byte += BATCH_HEADER as u64;
                continue;
            }
            return match record::decode(bytes) {
                Ok(record) => Some((byte, record)),
                Err(fault) => {
                    let at = self.position(byte);
                    tracing::error!(%at, ?fault, "the log has changed on disk since it was opened: the rest of a segment is unreadable");
                    None
                }
            };
        }
    }

    /// The hole that holds this byte.
    #[inline]
    pub(super) fn hole(&self, byte: u64) -> Option<&Range<u64>> {
        self.holes.iter().find(|hole| hole.contains(&byte))
    }

    pub(super) fn position(&self, byte: u64) -> Position {
        Position(self.base + byte)
    }

    /// The bytes of this range; `None` beyond the file.
    #[inline]
    pub(super) fn bytes(&self, range: Range<u64>) -> Option<&[u8]> {
        // A segment is at most 1 GiB: no truncation.
        self.map.get(range.start as usize..range.end as usize)
    }
}
