//! Looking at a log without opening it: every byte is verified, as at a start, and nothing is changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::ends::End;
use super::plan::{self, Damage, Plan, Torn};
use super::record::Kind;
use super::segment::{HEADER, Segment};
use super::{OpenError, Position, files, scan};
use crate::fs::Disk;
use crate::ids::{Offset, PartitionKey};

/// What a log's directory holds.
#[derive(Debug)]
pub struct Inspection {
    /// The files of its segments, each with how many bytes of it are used.
    pub segments: Vec<(PathBuf, u64)>,
    /// Where the oldest segment begins.
    pub start: Position,
    /// Behind the last record.
    pub end: Position,
    /// It was stopped cleanly.
    pub clean: bool,
    /// What a start would cut: it was never reported as synced.
    pub torn: Option<Torn>,
    /// What was synced once and is not readable any more.
    pub damage: Vec<Damage>,
    /// Where each partition ends.
    pub ends: BTreeMap<PartitionKey, End>,
    /// The first entry that is there of each; of one whose first record is not an entry, none.
    pub begins: BTreeMap<PartitionKey, Offset>,
}

/// Verifies the log in `dir`, which nobody has open.
///
/// # Errors
/// As [`Log::open`](super::Log::open): there is no log, or none that can be read at all.
pub fn inspect(disk: &Disk, dir: &Path) -> Result<Inspection, OpenError> {
    let found = files::list(dir).map_err(OpenError::io(dir))?;
    let mut scan = scan::scan(disk, dir, &found.segments)?;
    let plan = Plan::new(&mut scan);
    let mut used = Vec::new();
    let mut segments = Vec::new();
    let mut end = scan.end;
    for found in plan.kept {
        used.push((found.path.clone(), found.end));
        let holes = plan::holes(&plan.damage, found.number, scan.length);
        let segment =
            Segment::new(found.number, scan.length, found.file, found.map).with_holes(holes);
        segment.seal(found.end);
        end = Position(found.number * scan.length + found.end);
        segments.push(segment);
    }
    let start = segments.first().map_or(end, |first| first.position(0));
    let list: Vec<&Segment> = segments.iter().collect();
    let (ends, damage) = plan::judge(&list, end, plan.damage);
    let (clean, torn, ends) = (plan.clean, plan.torn, ends.sorted());
    let begins = begins(&segments, end);
    Ok(Inspection { segments: used, start, end, clean, torn, damage, ends, begins })
}

fn begins(segments: &[Segment], log_end: Position) -> BTreeMap<PartitionKey, Offset> {
    let mut begins: BTreeMap<PartitionKey, Option<Offset>> = BTreeMap::new();
    for segment in segments {
        let (limit, _) = segment.end(log_end);
        let mut byte = HEADER;
        while let Some((start, record)) = segment.record(byte, limit) {
            match record.kind {
                Kind::Entry => _ = begins.entry(record.partition).or_insert(Some(record.offset)),
                Kind::Truncate | Kind::Installed => {
                    _ = begins.entry(record.partition).or_insert(None)
                }
                Kind::Purge => _ = begins.remove(&record.partition),
                _ => {}
            }
            byte = start + record.raw.len() as u64;
        }
    }
    begins.into_iter().filter_map(|(key, first)| Some((key, first?))).collect()
}
