//! Values: found under the node's lock, read without it, so that no reader waits for a disk while he keeps others waiting.
//!
//! A place is that of a value's length, in the log or in the snapshot; its two highest bits say which, and whether a
//! checksum stands behind the length. **Invariants**
//! * What was taken under the lock holds all that it takes to read: segments that are held are not recycled, and a
//!   snapshot that is held stays mapped.
//! * A value is shown only if its checksum fits, each time.

use std::sync::Arc;

use bytes::Bytes;
use stela_common::log::{Log, Position, SegmentRef};

use super::list::Point;
use crate::snapshot::Snapshot;

/// In a place: it is one of the snapshot. No position in a log is that far.
pub const IN_SNAPSHOT: u64 = 1 << 63;
/// In a place: the value has no checksum of its own, as it was written by an earlier version.
pub const PLAIN: u64 = 1 << 62;

/// A value that cannot be read, or is not what was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the value at {at} of the {file} {why}")]
pub struct Damaged {
    file: &'static str,
    at: u64,
    why: &'static str,
}

/// What it takes to read values.
#[derive(Clone, Debug, Default)]
pub struct Values {
    snapshot: Option<Arc<Snapshot>>,
    segments: Vec<SegmentRef>,
}

impl Values {
    /// For values at these places.
    #[must_use]
    pub fn new(
        log: &Log,
        snapshot: Option<&Arc<Snapshot>>,
        places: impl Iterator<Item = u64>,
    ) -> Self {
        let mut values = Self::default();
        for place in places {
            if place & IN_SNAPSHOT != 0 {
                if values.snapshot.is_none() {
                    values.snapshot = snapshot.cloned();
                }
            } else if values.segment(position(place)).is_none()
                && let Ok(segment) = log.hold(position(place))
            {
                values.segments.push(segment);
            }
        }
        values
    }

    fn segment(&self, at: Position) -> Option<&[u8]> {
        // Mostly the one that was needed last.
        self.segments.iter().rev().find_map(|segment| segment.from(at))
    }

    /// Shows the value at a place.
    ///
    /// # Errors
    /// It is damaged.
    pub fn see<R>(&self, place: u64, see: impl FnOnce(&[u8]) -> R) -> Result<R, Damaged> {
        let bytes = if place & IN_SNAPSHOT != 0 {
            self.snapshot.as_ref().and_then(|s| s.from(position(place).0))
        } else {
            self.segment(position(place))
        };
        checked(bytes, place).map(see)
    }

    /// The value of a row, copied: one does not hold a segment for a client that reads slowly.
    ///
    /// # Errors
    /// It is damaged.
    pub fn value(&self, point: Point) -> Result<Bytes, Damaged> {
        self.see(point.place, Bytes::copy_from_slice)
    }
}

fn position(place: u64) -> Position {
    Position(place & !(IN_SNAPSHOT | PLAIN))
}

/// The value that these bytes begin with, if its checksum fits.
pub(crate) fn checked(bytes: Option<&[u8]>, place: u64) -> Result<&[u8], Damaged> {
    let file = if place & IN_SNAPSHOT != 0 { "snapshot" } else { "log" };
    let damaged = |why| Damaged { file, at: position(place).0, why };
    let cut = || damaged("is not there");
    let (len, rest) = bytes.and_then(<[u8]>::split_first_chunk).ok_or_else(cut)?;
    let len = u32::from_le_bytes(*len) as usize;
    if place & PLAIN != 0 {
        return rest.get(..len).ok_or_else(cut);
    }
    let (crc, rest) = rest.split_first_chunk().ok_or_else(cut)?;
    let value = rest.get(..len).ok_or_else(cut)?;
    if crc32c::crc32c(value) == u32::from_le_bytes(*crc) {
        Ok(value)
    } else {
        Err(damaged("does not have the checksum that was written"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let mut bytes = 5u32.to_le_bytes().to_vec();
        bytes.extend(crc32c::crc32c(b"value").to_le_bytes());
        bytes.extend(b"value and more");
        assert_eq!(checked(Some(&bytes), 7), Ok(&b"value"[..]));
        for bit in 0..13 * 8 {
            let mut other = bytes.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(checked(Some(&other), 7).is_err(), "bit {bit}");
        }
        assert!(checked(Some(&bytes[..12]), 7).is_err());
        assert!(
            checked(None, 7 | IN_SNAPSHOT).unwrap_err().to_string().contains("7 of the snapshot")
        );
        assert_eq!(checked(Some(b"\x01\0\0\0xy"), 7 | PLAIN), Ok(&b"x"[..]));
    }
}
