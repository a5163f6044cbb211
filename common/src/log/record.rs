//! One record: what it says and its bytes, which are the same in the log, on the wire and in `lost+found`.
//!
//! ```text
//! len u32 | crc32c u32 | kind u8 | flags u8 | reserved u16 | tid u32 | pid u32 | offset u64 | epoch u64 | commit_lag u32 | body
//! ```
//!
//! Little endian; `len` counts header and body. **Invariants**: the checksum covers all but itself and is not
//! seeded, so a record travels unchanged (R25); no bytes whatever make a function here panic.

use crate::ids::{Epoch, Offset, PartitionKey};

/// The bytes of a record before its body.
pub const RECORD_HEADER: usize = 40;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An entry: takes an offset of its partition.
    Entry = 1,
    /// A replica begins to act in `epoch`; body: the owner's epoch history. Takes no offset.
    EpochStart = 2,
    /// Entries of the partition above `offset` are void from here on; `epoch` is that of the entry at `offset`.
    Truncate = 3,
    /// Entries up to `offset` are gone; offset 0, or none below the last: the whole partition is.
    Purge = 4,
    /// Where each partition ends (R30). Only the log writes it.
    Ends = 5,
    /// Raft: the vote.
    Vote = 6,
    /// The owner's, opaque.
    Note = 7,
    /// A received snapshot takes effect: the partition's last entry is now `offset`, of `epoch` (R26).
    Installed = 8,
}

impl Kind {
    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Entry,
            2 => Self::EpochStart,
            3 => Self::Truncate,
            4 => Self::Purge,
            5 => Self::Ends,
            6 => Self::Vote,
            7 => Self::Note,
            8 => Self::Installed,
            _ => return None,
        })
    }
}

/// `Ends`: the log was stopped cleanly here.
pub(super) const CLEAN: u8 = 1;
/// `Ends`: the body is the owner's checkpoint instead.
pub(super) const CHECKPOINT: u8 = 2;

/// A record to be appended.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// What it is.
    pub kind: Kind,
    /// The partition that it is about.
    pub partition: PartitionKey,
    /// See [`Kind`].
    pub offset: Offset,
    /// See [`Kind`].
    pub epoch: Epoch,
    /// An entry's offset minus the commit offset that its leader knew when it wrote the entry, saturating: after a
    /// restart, `offset - commit_lag` is a lower bound of the commit offset.
    pub commit_lag: u32,
    /// The body, gathered from these.
    pub body: &'a [&'a [u8]],
}

/// A record, borrowed from the map or from received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What it is.
    pub kind: Kind,
    pub(super) flags: u8,
    /// The partition that it is about.
    pub partition: PartitionKey,
    /// See [`Kind`].
    pub offset: Offset,
    /// See [`Kind`].
    pub epoch: Epoch,
    /// See [`NewRecord::commit_lag`].
    pub commit_lag: u32,
    /// Header and body as on disk, checksum included.
    pub raw: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl Record<'_> {
    /// Whether the checksum fits: for those who read again what may have rotted since.
    #[must_use]
    pub fn verify(&self) -> bool {
        fits(self.raw)
    }
}

/// These bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed record: {0}")]
pub struct Malformed(pub &'static str);

/// Why bytes are not a record that this version can use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Malformed(Malformed),
    /// The checksum fits, so somebody meant it.
    Newer(u8),
}

/// Appends the record's bytes to `to`; returns its checksum.
pub(super) fn encode(
    to: &mut Vec<u8>,
    record: &NewRecord<'_>,
    flags: u8,
) -> Result<u32, Malformed> {
    let start = to.len();
    let len = RECORD_HEADER + record.body.iter().map(|part| part.len()).sum::<usize>();
    let len32 = u32::try_from(len).map_err(|_| Malformed("longer than 4 GiB"))?;
    to.reserve(len);
    let mut header = [0; RECORD_HEADER];
    header[0..4].copy_from_slice(&len32.to_le_bytes());
    header[8] = record.kind as u8;
    header[9] = flags;
    header[12..16].copy_from_slice(&record.partition.tid.0.to_le_bytes());
    header[16..20].copy_from_slice(&record.partition.pid.0.to_le_bytes());
    header[20..28].copy_from_slice(&record.offset.0.to_le_bytes());
    header[28..36].copy_from_slice(&record.epoch.0.to_le_bytes());
    header[36..40].copy_from_slice(&record.commit_lag.to_le_bytes());
    to.extend_from_slice(&header);
    for part in record.body {
        to.extend_from_slice(part);
    }
    let raw = &mut to[start..];
    let crc = checksum(raw);
    raw[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(crc)
}

/// The record at the start of `bytes`, its checksum not verified.
#[inline]
pub(super) fn decode(bytes: &[u8]) -> Result<Record<'_>, Fault> {
    let malformed = |reason| Err(Fault::Malformed(Malformed(reason)));
    let Some(header) = bytes.first_chunk::<RECORD_HEADER>() else {
        return malformed("shorter than a header");
    };
    let len = stored_len(header);
    let Some(raw) = bytes.get(..len) else { return malformed("longer than what is there") };
    let Some(body) = raw.get(RECORD_HEADER..) else {
        return malformed("length below that of a header");
    };
    let (kind, flags) = (header[8], header[9]);
    let known =
        if kind == Kind::Ends as u8 { flags & !(CLEAN | CHECKPOINT) == 0 } else { flags == 0 };
    let kind = match Kind::from_number(kind) {
        Some(kind) if known && header[10] == 0 && header[11] == 0 => kind,
        _ => return Err(Fault::Newer(kind)),
    };
    Ok(Record {
        kind,
        flags,
        partition: PartitionKey::new(u32_at(header, 12), u32_at(header, 16)),
        offset: Offset(u64_at(header, 20)),
        epoch: Epoch(u64_at(header, 28)),
        commit_lag: u32_at(header, 36),
        raw,
        body,
    })
}

/// The record at the start of `bytes`, its checksum verified.
pub(super) fn check(bytes: &[u8]) -> Result<Record<'_>, Fault> {
    let verdict = decode(bytes);
    let raw = match &verdict {
        Ok(record) => record.raw,
        Err(Fault::Malformed(_)) => return verdict,
        // Malformed was ruled out: the length is good.
        Err(Fault::Newer(_)) => {
            bytes.first_chunk().and_then(|h| bytes.get(..stored_len(h))).unwrap_or_default()
        }
    };
    if fits(raw) { verdict } else { Err(Fault::Malformed(Malformed("checksum does not fit"))) }
}

/// The stored checksum of a record's bytes.
#[inline]
pub(super) fn stored_crc(raw: &[u8]) -> u32 {
    raw.first_chunk::<RECORD_HEADER>().map_or(0, |header| u32_at(header, 4))
}

fn fits(raw: &[u8]) -> bool {
    raw.len() >= RECORD_HEADER && checksum(raw) == stored_crc(raw)
}

fn checksum(raw: &[u8]) -> u32 {
    let (len, rest) = raw.split_at(4);
    crc32c::crc32c_append(crc32c::crc32c(len), &rest[4..])
}

fn stored_len(header: &[u8; RECORD_HEADER]) -> usize {
    u32_at(header, 0) as usize
}

#[inline]
fn u32_at(header: &[u8; RECORD_HEADER], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[inline]
fn u64_at(header: &[u8; RECORD_HEADER], at: usize) -> u64 {
    u64::from(u32_at(header, at)) | u64::from(u32_at(header, at + 4)) << 32
}

/// Walks raw records one after the other (as received from a leader), verifying each checksum. After an error it
/// ends: nothing behind a malformed record can be trusted to be one.
#[must_use]
pub fn parse(raw: &[u8]) -> Parse<'_> {
    Parse { rest: raw }
}

/// See [`parse`].
#[derive(Clone, Debug)]
pub struct Parse<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parse<'a> {
    type Item = Result<Record<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.rest);
        Some(match check(rest) {
            Ok(record) => {
                self.rest = rest.get(record.raw.len()..).unwrap_or_default();
                Ok(record)
            }
            Err(Fault::Malformed(malformed)) => Err(malformed),
            Err(Fault::Newer(_)) => Err(Malformed("of a kind that this version does not know")),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut raw = Vec::new();
        let record = NewRecord {
            kind,
            partition: PartitionKey::new(3, 4),
            offset: Offset(u64::MAX - 5),
            epoch: Epoch(6),
            commit_lag: 7,
            body: &[body, b"!"],
        };
        encode(&mut raw, &record, 0).unwrap();
        raw
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let bytes = raw(Kind::Vote, b"body");
        let record = parse(&bytes).next().unwrap().unwrap();
        assert_eq!(
            (record.kind, record.partition, record.offset),
            (Kind::Vote, PartitionKey::new(3, 4), Offset(u64::MAX - 5))
        );
        assert_eq!((record.epoch, record.commit_lag, record.body), (Epoch(6), 7, &b"body!"[..]));
        assert_eq!(record.raw, bytes);
    }

    #[test]
    fn an_unknown_kind_is_newer_only_if_the_checksum_fits() {
        let mut bytes = raw(Kind::Entry, b"x");
        bytes[8] = 99;
        assert_eq!(check(&bytes), Err(Fault::Malformed(Malformed("checksum does not fit"))));
        let crc = checksum(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check(&bytes), Err(Fault::Newer(99)));
        assert!(parse(&bytes).next().unwrap().is_err());
    }

    proptest! {
        #[test]
        fn any_changed_bit_is_noticed(body in prop::collection::vec(any::<u8>(), 0..200), bit in any::<prop::sample::Index>()) {
            let mut bytes = raw(Kind::Entry, &body);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(parse(&bytes).next().unwrap().is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(parse(&bytes).count() <= 1 + bytes.len() / RECORD_HEADER);
        }
    }
}
