//! A batch: what one append writes. Its header says how far the log was synced when it was written (R24).
//!
//! ```text
//! magic u32 | crc32c u32 | len u32 | count u32 | crc32c of the records' checksums u32 | version u8 | 0 x 3 | mark u64 | position u64 | records
//! ```
//!
//! **Invariants**: the checksum is seeded with (log identity, segment number), so a batch of a former life of the
//! file, or of another log, is invalid (R25); no record begins like a batch (`MAGIC` is above any length).

use super::record::{self, Fault, Record};
use super::{LogId, Position};

pub(super) const BATCH_HEADER: usize = 40;
pub(super) const MAGIC: u32 = 0xBA7C_57E1;
const VERSION: u8 = 1;

/// The seed of a segment's batch checksums.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seed(u32);

impl Seed {
    pub(super) fn new(id: LogId, number: u64) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&id.0), &number.to_le_bytes()))
    }
}

/// A valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: usize,
    pub(super) count: u32,
    pub(super) mark: Position,
    records_crc: u32,
}

/// Why there is no valid batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// No header of this segment's life is here.
    NoHeader,
    /// The header is good, what follows is not.
    Records(Head, &'static str),
    /// Both are good, but not for this version.
    Newer { what: &'static str, version: u32 },
}

/// Writes the header of the batch that `batch` holds behind [`BATCH_HEADER`] free bytes.
pub(super) fn seal(
    batch: &mut [u8],
    count: u32,
    records_crc: u32,
    seed: Seed,
    at: Position,
    mark: Position,
) {
    let len = u32::try_from(batch.len()).unwrap_or(u32::MAX); // a batch fits into a segment, at most 1 GiB
    let Some(header) = batch.first_chunk_mut::<BATCH_HEADER>() else { return };
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[8..12].copy_from_slice(&len.to_le_bytes());
    header[12..16].copy_from_slice(&count.to_le_bytes());
    header[16..20].copy_from_slice(&records_crc.to_le_bytes());
    header[20..24].copy_from_slice(&[VERSION, 0, 0, 0]);
    header[24..32].copy_from_slice(&mark.0.to_le_bytes());
    header[32..40].copy_from_slice(&at.0.to_le_bytes());
    let crc = crc32c::crc32c_append(seed.0, &header[8..]);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Whether a batch, not a record, begins here.
#[inline]
pub(super) fn begins(bytes: &[u8]) -> bool {
    bytes.first_chunk() == Some(&MAGIC.to_le_bytes())
}

/// The header at the start of `bytes`, which lies at `at`.
pub(super) fn head(bytes: &[u8], seed: Seed, at: Position) -> Result<Head, Bad> {
    let Some(header) = bytes.first_chunk::<BATCH_HEADER>() else { return Err(Bad::NoHeader) };
    let u32_at =
        |i: usize| u32::from_le_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
    let u64_at = |i: usize| u64::from(u32_at(i)) | u64::from(u32_at(i + 4)) << 32;
    // The position first: it tells a former life without a checksum.
    if u32_at(0) != MAGIC
        || u64_at(32) != at.0
        || crc32c::crc32c_append(seed.0, &header[8..]) != u32_at(4)
    {
        return Err(Bad::NoHeader);
    }
    if header[20] != VERSION || header[21..24] != [0; 3] {
        return Err(Bad::Newer { what: "a batch of a newer format", version: header[20].into() });
    }
    let head = Head {
        len: u32_at(8) as usize,
        count: u32_at(12),
        mark: Position(u64_at(24)),
        records_crc: u32_at(16),
    };
    if head.len < BATCH_HEADER || head.mark > at {
        return Err(Bad::NoHeader);
    }
    Ok(head)
}

/// The batch at the start of `bytes`, which lies at `at`, verified to the last byte; shows each record to `see`.
pub(super) fn check<'a>(
    bytes: &'a [u8],
    seed: Seed,
    at: Position,
    mut see: impl FnMut(&Record<'a>),
) -> Result<Head, Bad> {
    let head = head(bytes, seed, at)?;
    let bad = |reason| Err(Bad::Records(head, reason));
    let Some(mut rest) = bytes.get(BATCH_HEADER..head.len) else {
        return bad("the batch is longer than the file");
    };
    let mut crc = 0;
    for _ in 0..head.count {
        match record::check(rest) {
            Ok(record) => {
                crc = add(crc, record::stored_crc(record.raw));
                see(&record);
                rest = rest.get(record.raw.len()..).unwrap_or_default();
            }
            Err(Fault::Malformed(malformed)) => return bad(malformed.0),
            Err(Fault::Newer(kind)) => {
                return Err(Bad::Newer {
                    what: "a record of an unknown kind",
                    version: kind.into(),
                });
            }
        }
    }
    if rest.is_empty() && crc == head.records_crc {
        Ok(head)
    } else {
        bad("records do not fit their batch")
    }
}

/// The checksum of the records' checksums, one more added.
pub(super) fn add(crc: u32, record: u32) -> u32 {
    crc32c::crc32c_append(crc, &record.to_le_bytes())
}
