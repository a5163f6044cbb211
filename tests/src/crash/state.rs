//! One crash state: the log is opened in it, checked, used, and loses power again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stela_common::fs::{self, Op, Recorder, Skip};
use stela_common::log::{Log, Position, Recovery};

use super::image::{Cut, Files, Image};
use super::story::{self, APPENDED, Author, Entry, OPENED, SYNCED};

/// What must be in a log.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    /// What was appended, in order: the log holds these from some place to some place.
    pub entries: &'a [Entry],
    /// Up to here all of them.
    pub synced: u64,
    /// From here on, or from an earlier place.
    pub purged: u64,
    /// So many were appended when the power was cut.
    pub appended: u64,
}

/// A moment of the run and what becomes of it.
pub struct State<'a> {
    pub image: Image,
    pub expected: Expected<'a>,
    /// Where directories may be made.
    pub base: &'a Path,
    pub cut: Cut,
    pub skip: Option<Skip>,
}

/// What came of a state.
#[derive(Default)]
pub struct Tried {
    /// Second power cuts tried.
    pub second: usize,
    /// Synced records that are missing or wrong.
    pub lost: usize,
    pub failure: Option<String>,
}

/// A state is not as it must be.
struct Wrong {
    lost: usize,
    text: String,
}

impl From<anyhow::Error> for Wrong {
    fn from(error: anyhow::Error) -> Self {
        Self { lost: 0, text: format!("{error:#}") }
    }
}

fn wrong<T>(text: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { lost: 0, text: text.into() })
}

impl State<'_> {
    /// Opens and checks it.
    pub fn try_it(self, random: StdRng) -> Tried {
        let mut tried = Tried::default();
        match catch_unwind(AssertUnwindSafe(|| self.check(random, &mut tried.second))) {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => {
                tried.lost = wrong.lost;
                tried.failure = Some(wrong.text);
            }
            Err(_) => tried.failure = Some("it panicked".into()),
        }
        tried
    }

    fn check(self, mut random: StdRng, second: &mut usize) -> Result<(), Wrong> {
        let dir = tempfile::tempdir_in(self.base).map_err(anyhow::Error::from)?;
        let files = self.image.cut(self.cut, &mut random);
        let image = match self.cut {
            // Killed: the next process sees it all, but the disk has not got it.
            Cut::Keep => self.image.killed(dir.path()),
            _ => Image::of(dir.path(), &files),
        };
        lay(dir.path(), &files)?;
        let recorder = Arc::new(Recorder::new().skip(self.skip).without_physical_sync());
        let (log, recovery) = story::open(&recorder, dir.path(), false)?;
        recorder.mark(OPENED, 0);
        let reported = compare(&log, &recovery, self.expected)?;
        let mut entries = self.expected.entries[..reported].to_vec();
        let start = log.start();
        story::note(&recorder, &log, &entries);

        // Writable again; what is synced of it is marked.
        let mut author = Author::new(StdRng::seed_from_u64(random.random()));
        let roll = random.random_bool(0.4);
        for at in 0..random.random_range(1..8) {
            if at == 1 && roll {
                author.fill(&log, &mut entries)?;
            } else {
                author.append(&log, &mut entries)?;
            }
            story::note(&recorder, &log, &entries);
        }
        let end = log.end();
        story::await_that("a recovered log syncs", || log.synced() >= end)?;
        story::note(&recorder, &log, &entries);
        drop(log);

        // The power fails again: right after recovery, during it, and some time later.
        let ops = recorder.ops();
        let opened = ops
            .iter()
            .position(|op| matches!(op, Op::Mark { what: OPENED, .. }))
            .map_or(0, |at| at + 1);
        let again = Again {
            image: &image,
            ops: &ops,
            opened,
            first: self.expected,
            start,
            reported,
            entries: &entries,
        };
        let any = |random: &mut StdRng| Cut::ALL[random.random_range(0..Cut::ALL.len())];
        let at_once = if random.random_bool(0.5) { Cut::Drop } else { Cut::Tear };
        let cuts = [
            (opened, at_once),
            (random.random_range(0..=opened), any(&mut random)),
            (random.random_range(opened..=ops.len()), any(&mut random)),
        ];
        for (step, cut) in cuts {
            *second += 1;
            again.check(self.base, step, cut, self.skip, &mut random).map_err(|wrong| Wrong {
                lost: wrong.lost,
                text: format!(
                    "second power cut at step {step} of {} ({opened} in recovery), {cut:?}: {}",
                    ops.len(),
                    wrong.text
                ),
            })?;
        }
        Ok(())
    }
}

/// The run that followed the first power cut.
struct Again<'a> {
    image: &'a Image,
    ops: &'a [Op],
    /// So many operations belong to recovery.
    opened: usize,
    /// What was expected of recovery.
    first: Expected<'a>,
    /// Where the recovered log began.
    start: Position,
    /// What recovery reported ends before this entry; the others came afterwards.
    reported: usize,
    entries: &'a [Entry],
}

impl Again<'_> {
    fn check(
        &self,
        base: &Path,
        step: usize,
        cut: Cut,
        skip: Option<Skip>,
        random: &mut StdRng,
    ) -> Result<(), Wrong> {
        let mut image = self.image.clone();
        let mut expected = self.first;
        if step >= self.opened {
            let synced =
                self.entries.get(self.reported.wrapping_sub(1)).map_or(0, |last| last.at.0 + 1);
            let appended = self.reported as u64;
            expected = Expected { entries: self.entries, synced, purged: self.start.0, appended };
        }
        for op in &self.ops[..step] {
            image.apply(op);
            match op {
                Op::Mark { what: SYNCED, value } => expected.synced = expected.synced.max(*value),
                Op::Mark { what: APPENDED, value } => expected.appended = *value,
                _ => {}
            }
        }
        let dir = tempfile::tempdir_in(base).map_err(anyhow::Error::from)?;
        lay(dir.path(), &image.cut(cut, random))?;
        let recorder = Arc::new(Recorder::new().skip(skip).without_physical_sync());
        let (log, recovery) = story::open(&recorder, dir.path(), false)?;
        compare(&log, &recovery, expected).map(drop)
    }
}

fn lay(dir: &Path, files: &Files) -> anyhow::Result<()> {
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes)?;
    }
    Ok(())
}

/// Before which of the expected entries the log ends, if it is as it must be.
fn compare(log: &Log, recovery: &Recovery, expected: Expected<'_>) -> Result<usize, Wrong> {
    let mut found = Vec::new();
    let mut walk = log.walk(Position(0));
    loop {
        let at = walk.position();
        let Some(record) = walk.next() else { break };
        found.push(Entry { at, raw: record.raw.into() });
    }
    let start = log.start();
    let from = expected.entries.partition_point(|entry| entry.at < start);
    let possible = &expected.entries[from..];
    let synced = possible.partition_point(|entry| entry.at.0 < expected.synced);
    let same = found.iter().zip(possible).take_while(|(found, entry)| found == entry).count();
    if same < synced {
        let at = possible[same].at;
        return Err(Wrong {
            lost: synced - same,
            text: format!(
                "{} records up to {} were synced, from {at} on {} are lost",
                synced,
                expected.synced,
                synced - same
            ),
        });
    }
    if !recovery.damage.is_empty() {
        return wrong(format!("damage where there is none: {:?}", recovery.damage));
    }
    if same < found.len() {
        return wrong(format!("a record at {} that was never appended there", found[same].at));
    }
    if recovery.clean && ((from + found.len()) as u64) < expected.appended {
        return wrong("a clean stop, it says, but appended records are missing");
    }
    let first = expected.entries.first().map_or(0, |entry| entry.at.0);
    if start.0 > expected.purged.max(first) {
        return wrong(format!(
            "the log begins at {start}, but was purged only up to {}",
            expected.purged
        ));
    }
    if let Some(checkpoint) = &recovery.checkpoint {
        let set =
            checkpoint.first_chunk().map_or(u64::MAX, |set| u64::from_le_bytes(*set)) as usize;
        if set > from || from - set > 6 {
            return wrong(format!("a checkpoint of record {set} in front of record {from}"));
        }
    }
    Ok(from + found.len())
}
