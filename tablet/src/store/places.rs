//! From an offset to a place in the log, for entries that are not the last ones.
//!
//! Kept sparsely, about one for 32 KiB of log; from there the log is walked.
//!
//! **Invariants** (R26, R27)
//! * Marks ascend in offset and in place.
//! * The entries from one mark's offset up to the next one's are found by walking from the mark's place: each is the
//!   first of its offset there. Entries that a truncation made void lie before the mark which the truncation left, and
//!   are of offsets from that mark's on: so no walk ever takes one of them for the entry that replaced it.

use serde::{Deserialize, Serialize};
use stela_common::ids::{Offset, PartitionKey};
use stela_common::log::{Kind, Log, Position, ReadError, RecordRef};

/// Bytes of log from one mark to the next, about.
const SPARSE: u64 = 32 << 10;

/// Where the entries of one partition are.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Places(Vec<(Offset, Position)>);

/// Why entries could not be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unreadable {
    /// They are older than what is kept, or were never here.
    #[error("the log does not have entry {0} any more")]
    Gone(Offset),
    /// The log's end, or damage, came before the entry.
    #[error("entry {0} is not where it should be: the log is damaged")]
    Missing(Offset),
    /// The log refused.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Places {
    /// The entry with that offset, the one after the last, stands there.
    pub fn push(&mut self, offset: Offset, at: Position) {
        match self.0.last_mut() {
            // The mark of a truncation was set before its first entry came: between the two there may be much of other
            // partitions, which nobody has to walk over any more.
            Some((last, place)) if *last == offset => *place = (*place).max(at),
            Some((last, place)) if *last > offset || at.0.saturating_sub(place.0) < SPARSE => {}
            _ => self.0.push((offset, at)),
        }
    }

    /// Entries above `to` are void; those that replace them come behind the record at `cut`.
    pub fn truncate(&mut self, to: Offset, cut: Position) {
        self.0.truncate(self.0.partition_point(|(offset, _)| *offset <= to));
        self.0.push((to.next(), cut));
    }

    /// The first entry that is found.
    #[must_use]
    pub fn first(&self) -> Option<Offset> {
        self.0.first().map(|(offset, _)| *offset)
    }

    /// The log before `start` is given back. `needed`, an entry that stands there or behind, is still found.
    pub fn trim(&mut self, start: Position, needed: Option<(Offset, Position)>) {
        self.0.drain(..self.0.partition_point(|(_, place)| *place < start));
        if let Some(needed) = needed.filter(|(offset, _)| self.first().is_none_or(|f| f > *offset))
        {
            self.0.insert(0, needed);
        }
    }

    /// A place at or before which no entry from that one on stands.
    #[must_use]
    pub fn before(&self, offset: Offset) -> Option<Position> {
        self.find(offset).map(|(place, _)| place)
    }

    /// The mark at or before an offset, and where it ends to hold.
    fn find(&self, offset: Offset) -> Option<(Position, Option<Offset>)> {
        let behind = self.0.partition_point(|(o, _)| *o <= offset);
        let (_, place) = self.0.get(behind.checked_sub(1)?)?;
        Some((*place, self.0.get(behind).map(|(o, _)| *o)))
    }
}

/// The entries `from..=to`, at least one and then as many as fit into `budget` bytes.
///
/// # Errors
/// The log does not have them.
pub fn read_entries(
    log: &Log,
    places: &Places,
    key: PartitionKey,
    from: Offset,
    to: Offset,
    budget: usize,
) -> Result<Vec<RecordRef>, Unreadable> {
    let mut found = Vec::new();
    let (mut next, mut bytes) = (from, 0);
    'marks: while next <= to {
        let (place, until) = places.find(next).ok_or(Unreadable::Gone(next))?;
        let mut walk = log.walk(place);
        loop {
            let at = walk.position();
            let Some(record) = walk.next() else { return Err(Unreadable::Missing(next)) };
            if record.partition != key || record.kind != Kind::Entry || record.offset != next {
                continue;
            }
            bytes += record.raw.len();
            if bytes > budget && !found.is_empty() {
                return Ok(found);
            }
            found.push(log.read(at)?);
            next = next.next();
            if next > to {
                return Ok(found);
            }
            if until == Some(next) {
                continue 'marks;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncation_s_mark_moves_to_the_entry_that_comes() {
        let mut places = Places::default();
        places.push(Offset(1), Position(100));
        places.push(Offset(2), Position(200));
        places.truncate(Offset(1), Position(300));
        assert_eq!(places.find(Offset(2)), Some((Position(300), None)));
        places.push(Offset(2), Position(900_000));
        assert_eq!(places.find(Offset(2)), Some((Position(900_000), None)));
        assert_eq!(places.find(Offset(1)), Some((Position(100), Some(Offset(2)))));
    }
}
