//! What lies on disk: every batch is verified to the last byte, nothing is changed and nothing decided.
//!
//! **Invariants**
//! * A place where the chain of batches breaks is noted with the place where the log would end if it were cut there,
//!   and the search goes on behind it: only marks found later tell a torn tail from damage (R24).
//! * A batch counts only under its segment's seed and at its own place (R25).
//! * A newer format anywhere ends the scan (nothing was changed).

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::batch::{self, Bad, Seed};
use super::record::{CHECKPOINT, CLEAN, Kind, Record};
use super::segment::{FoundHeader, HEADER, Header};
use super::{LogId, Map, OpenError, Position};
use crate::fs::{Disk, File};

/// A segment file as it was found.
pub(super) struct Found {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    pub(super) map: Map,
    header: FoundHeader,
    /// Behind its last batch, as a byte of the file.
    pub(super) end: u64,
}

/// Bytes that are no batch where one should be.
pub(super) struct Break {
    /// Where the log ends if it is cut here.
    pub(super) cut: Position,
    /// The bad bytes, or all that are missing.
    pub(super) bad: Range<u64>,
    pub(super) reason: &'static str,
    /// Whether the last record before is that of a clean stop.
    pub(super) clean: bool,
}

/// What the log's own first batch of a segment says.
pub(super) struct Opening {
    /// Where the segment before ended.
    pub(super) previous: Position,
    /// The owner's.
    pub(super) checkpoint: Option<Vec<u8>>,
}

/// What a scan found.
pub(super) struct Scan {
    pub(super) id: LogId,
    pub(super) length: u64,
    pub(super) found: Vec<Found>,
    pub(super) breaks: Vec<Break>,
    /// The largest mark: everything before it was synced once.
    pub(super) mark: Position,
    /// Behind the bytes that a file is short of: a segment's file has its whole length on disk before it is used.
    pub(super) short: Position,
    /// Behind everything that was recognized.
    pub(super) end: Position,
    /// Whether the last record is that of a clean stop.
    pub(super) clean: bool,
    batches: u64,
}

/// Reads all segments.
pub(super) fn scan(
    disk: &Disk,
    dir: &Path,
    segments: &BTreeMap<u64, PathBuf>,
) -> Result<Scan, OpenError> {
    let mut found = segments
        .iter()
        .map(|(number, path)| open(disk, *number, path))
        .collect::<Result<Vec<_>, _>>()?;
    let (id, length) = identity(dir, &found)?;
    let base = found.first().map_or(0, |first| first.number * length);
    let mut scan = Scan {
        id,
        length,
        found: Vec::new(),
        breaks: Vec::new(),
        // The beginning of the oldest segment is durable: it was before the log was used, or the one before it freed.
        mark: Position(base + HEADER + 1),
        short: Position(0),
        end: Position(base),
        clean: false,
        batches: 0,
    };
    for at in 0..found.len() {
        let (segment, next) = (&found[at], found.get(at + 1));
        let behind = at.checked_sub(1).map(|before| (found[before].number + 1) * length);
        let limit = next
            .and_then(|next| scan.opening(next))
            .and_then(|opening| scan.within(segment, opening.previous));
        found[at].end = scan.segment(segment, behind, limit)?;
    }
    scan.found = found;
    if scan.batches == 0 {
        return Err(OpenError::Unreadable { dir: dir.to_owned() });
    }
    Ok(scan)
}

fn open(disk: &Disk, number: u64, path: &Path) -> Result<Found, OpenError> {
    let file = disk.open_write(path).map_err(OpenError::io(path))?;
    let map = Map::new(&file).map_err(OpenError::io(path))?;
    // A segment's header page: no truncation.
    let header = Header::decode(map.get(0..map.len().min(HEADER as usize)).unwrap_or_default());
    if let FoundHeader::Newer(version) = header {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            what: "a segment of a newer format".into(),
            version,
        });
    }
    Ok(Found { number, path: path.to_owned(), file, map, header, end: HEADER })
}

/// Which log this is: what most headers say, the oldest if they are equally many.
fn identity(dir: &Path, found: &[Found]) -> Result<(LogId, u64), OpenError> {
    let headers = || {
        found.iter().filter_map(|found| match found.header {
            FoundHeader::Good(header) => Some((header, found)),
            _ => None,
        })
    };
    let votes = |id: LogId| headers().filter(|(header, _)| header.id == id).count();
    let ours = headers()
        .map(|(header, _)| header)
        .reduce(|best, one| if votes(one.id) > votes(best.id) { one } else { best });
    let Some(ours) =
        ours.filter(|ours| (super::Options::LEAST..=super::Options::MOST).contains(&ours.length))
    else {
        return Err(OpenError::Unreadable { dir: dir.to_owned() });
    };
    match headers().find(|(header, _)| header.id != ours.id) {
        Some((header, found)) => {
            Err(OpenError::Foreign { path: found.path.clone(), found: header.id, ours: ours.id })
        }
        None => Ok((ours.id, ours.length)),
    }
}

impl Scan {
    pub(super) fn seed(&self, number: u64) -> Seed {
        Seed::new(self.id, number)
    }

    fn base(&self, segment: &Found) -> u64 {
        segment.number * self.length
    }

    /// The log's own first batch of the segment, if it is readable.
    pub(super) fn opening(&self, segment: &Found) -> Option<Opening> {
        let bytes = segment.map.all().get(HEADER as usize..)?;
        let (mut previous, mut checkpoint) = (None, None);
        let see = |record: &Record<'_>| match (record.kind, record.flags) {
            (Kind::Ends, CHECKPOINT) => checkpoint = Some(record.body.to_vec()),
            (Kind::Ends, 0) => previous = Some(Position(record.offset.0)),
            _ => {}
        };
        let at = Position(self.base(segment) + HEADER);
        batch::check(bytes, self.seed(segment.number), at, see).ok()?;
        Some(Opening { previous: previous?, checkpoint })
    }

    /// The place as a byte of the segment, if it is one.
    fn within(&self, segment: &Found, at: Position) -> Option<u64> {
        let byte = at.0.checked_sub(self.base(segment))?;
        (HEADER..=self.length).contains(&byte).then_some(byte)
    }

    fn broken(&mut self, bad: Range<u64>, reason: &'static str) {
        let behind = Position(bad.end);
        self.breaks.push(Break { cut: self.end, bad, reason, clean: self.clean });
        self.end = behind;
    }

    /// Goes through one segment, which should begin at `begin`, and ends at `limit` if that is known; returns where it
    /// does end.
    fn segment(
        &mut self,
        segment: &Found,
        begin: Option<u64>,
        limit: Option<u64>,
    ) -> Result<u64, OpenError> {
        let base = self.base(segment);
        if let Some(begin) = begin.filter(|begin| *begin < base) {
            self.broken(begin..base, "the file of a segment is missing");
        }
        let ours = Header { id: self.id, number: segment.number, length: self.length };
        if segment.header != FoundHeader::Good(ours) {
            self.broken(base..base + HEADER, "a segment's header is not readable");
        } else if !segment.map.all().starts_with(&ours.encode()) {
            // Nothing is lost as long as a copy of it is left; the disk is one to look after.
            tracing::warn!(path = %segment.path.display(), "a segment's header page is damaged, a copy in it is whole");
        }
        segment.map.sequential(true);
        let known = limit.is_some();
        let wanted = limit.unwrap_or(self.length);
        let limit = wanted.min(segment.map.len() as u64);
        let seed = self.seed(segment.number);
        let mut byte = HEADER;
        while byte < limit {
            let at = Position(base + byte);
            // A segment is at most 1 GiB: no truncation.
            let bytes = segment.map.get(byte as usize..limit as usize).unwrap_or_default();
            let mut clean = false;
            let see = |record: &Record<'_>| {
                clean |= record.kind == Kind::Ends && record.flags & CLEAN != 0
            };
            match batch::check(bytes, seed, at, see) {
                Ok(head) => {
                    self.mark = self.mark.max(head.mark);
                    self.clean = clean;
                    self.batches += 1;
                    byte += head.len as u64;
                    self.end = Position(base + byte);
                }
                Err(Bad::Records(head, reason)) => {
                    self.mark = self.mark.max(head.mark);
                    let len = (head.len as u64).min(limit - byte);
                    self.broken(at.0..at.0 + len, reason);
                    byte += len;
                }
                Err(Bad::Newer { what, version }) => {
                    return Err(OpenError::Newer {
                        path: segment.path.clone(),
                        what: what.into(),
                        version,
                    });
                }
                Err(Bad::NoHeader) => {
                    let next = search(bytes, seed, at).map(|skipped| byte + skipped);
                    // At its begin there always was one; and up to where the next segment says that this one ended.
                    let Some(next) = next.or((known || byte == HEADER).then_some(limit)) else {
                        break;
                    };
                    self.broken(at.0..base + next, "no batch is readable");
                    byte = next;
                }
            }
        }
        segment.map.sequential(false);
        if limit < wanted {
            let before = self.breaks.pop_if(|before| before.bad.end == base + byte);
            let (cut, start) = before.map_or((self.end, base + byte), |b| (b.cut, b.bad.start));
            self.end = cut;
            self.broken(start..base + wanted, "the file of a segment is too short");
            (self.short, self.clean) = (self.end, false);
            byte = wanted;
        }
        Ok(byte)
    }
}

/// The distance to the next header of a batch behind the start of `bytes`, which lies at `at`.
fn search(bytes: &[u8], seed: Seed, at: Position) -> Option<u64> {
    let [first, ..] = batch::MAGIC.to_le_bytes();
    let mut rest = bytes.get(1..)?;
    loop {
        // The quickest way to the next such byte: tens of megabytes of a file's former life may have to be passed.
        rest.skip_until(first).ok().filter(|skipped| *skipped > 0)?;
        let start = bytes.len() - rest.len() - 1;
        let candidate = &bytes[start..];
        if batch::begins(candidate)
            && batch::head(candidate, seed, Position(at.0 + start as u64)) != Err(Bad::NoHeader)
        {
            return Some(start as u64);
        }
    }
}
