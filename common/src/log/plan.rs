//! Where the log ends, and what of it is damaged: the verdict on what a scan found (R24).
//!
//! A break below the largest mark is damage: those bytes were synced once. So is one before the end of a file that is too
//! short, as the marks may have gone with its end. The first one that is neither is where the tail is torn: nothing from
//! there on was ever reported as synced, and it is cut.

use std::collections::BTreeSet;
use std::ops::Range;

use super::Position;
use super::ends::Ends;
use super::judge::Judge;
use super::scan::{Found, Scan};
use super::segment::{HEADER, Segment};
use crate::ids::PartitionKey;

/// Bytes that were synced and are not readable any more. They stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where they begin.
    pub at: Position,
    /// How many.
    pub bytes: u64,
    /// What is wrong with them.
    pub reason: &'static str,
    /// The partitions that are not proven to be whole in spite of it (R30).
    pub suspects: BTreeSet<PartitionKey>,
}

/// A tail that was never reported as synced, and is cut because a part of it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Where the log ends now.
    pub at: Position,
    /// How far behind it something was recognized.
    pub bytes: u64,
}

/// What recovery does, and what it will report.
pub(super) struct Plan {
    /// The segments that the log has. The last one is where it goes on, behind its `end`.
    pub(super) kept: Vec<Found>,
    /// Those that go with the torn tail.
    pub(super) dropped: Vec<Found>,
    /// The tail begins here: from here on nothing is known to be synced.
    pub(super) tail: Position,
    pub(super) clean: bool,
    pub(super) torn: Option<Torn>,
    pub(super) damage: Vec<(Range<u64>, &'static str)>,
}

impl Plan {
    pub(super) fn new(scan: &mut Scan) -> Self {
        let damaged = scan.mark.max(scan.short);
        let torn_at = scan.breaks.iter().position(|one| one.cut >= damaged);
        let torn = torn_at.map(|at| &scan.breaks[at]);
        let (end, clean) = torn.map_or((scan.end, scan.clean), |one| (one.cut, one.clean));
        let torn = torn.map(|one| Torn { at: one.cut, bytes: scan.end.0 - one.cut.0 });
        let damaged = &scan.breaks[..torn_at.unwrap_or(scan.breaks.len())];
        let damage = damaged.iter().map(|one| (one.bad.clone(), one.reason)).collect();
        let length = scan.length;
        // A segment of which nothing is left is not one: the log goes on at the end of the one before.
        let (mut kept, dropped): (Vec<_>, Vec<_>) = std::mem::take(&mut scan.found)
            .into_iter()
            .partition(|found| found.number * length + HEADER < end.0);
        if let Some(last) = kept.last_mut() {
            last.end = last.end.min(end.0 - last.number * length);
        }
        Self { kept, dropped, tail: scan.mark, clean, torn, damage }
    }
}

/// The damaged bytes that lie in this segment behind its header.
pub(super) fn holes(
    damage: &[(Range<u64>, &'static str)],
    number: u64,
    length: u64,
) -> Vec<Range<u64>> {
    let (first, behind) = (number * length + HEADER, (number + 1) * length);
    let inside = damage
        .iter()
        .map(|(bad, _)| bad.start.max(first)..bad.end.min(behind))
        .filter(|bad| !bad.is_empty());
    inside.map(|bad| bad.start - number * length..bad.end - number * length).collect()
}

/// Goes through the records for what they say about the ends of the partitions, and about who is whole.
pub(super) fn judge(
    segments: &[&Segment],
    end: Position,
    damage: Vec<(Range<u64>, &'static str)>,
) -> (Ends, Vec<Damage>) {
    // Each segment begins with all ends: if nothing is damaged, the last one says it all.
    let from = if damage.is_empty() { segments.len().saturating_sub(1) } else { 0 };
    let mut judge = Judge::default();
    let mut ahead = damage.iter().map(|(bad, _)| bad.start).peekable();
    for segment in &segments[from..] {
        let (limit, _) = segment.end(end);
        let mut byte = HEADER;
        loop {
            let next = segment.record(byte, limit);
            let at = segment.position(next.map_or(limit, |(start, _)| start));
            while ahead.next_if(|start| *start < at.0).is_some() {
                judge.damage();
            }
            let Some((start, record)) = next else { break };
            judge.record(&record);
            byte = start + record.raw.len() as u64;
        }
    }
    ahead.for_each(|_| judge.damage());
    let (ends, suspects) = judge.finish();
    let damage = damage.into_iter().zip(suspects);
    let damage = damage.map(|((bad, reason), suspects)| Damage {
        at: Position(bad.start),
        bytes: bad.end - bad.start,
        reason,
        suspects,
    });
    (ends, damage.collect())
}
