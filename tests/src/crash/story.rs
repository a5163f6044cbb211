//! A run of the real log on real files, recorded: appends, rolls, truncations, purges with recycled segments, stops of
//! both kinds; with bursts in which a slow disk lets unsynced batches pile up over several segments.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use stela_common::fs::{Disk, Op, Recorder};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::log::{Kind, Log, NewRecord, Options, Position};

/// Remark: everything before this position was reported as synced.
pub const SYNCED: u32 = 1;
/// Remark: what lies before this position may be given back from now on.
pub const PURGED: u32 = 2;
/// Remark: recovery has reported.
pub const OPENED: u32 = 3;

/// Remark: so many records were appended.
pub const APPENDED: u32 = 4;

/// A header's length, of a batch as of a record.
const UNIT: usize = 40;

/// A segment's length, small.
pub const SEGMENT: u64 = 64 << 10;

/// One appended record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub at: Position,
    /// Its bytes.
    pub raw: Arc<[u8]>,
}

/// A recorded run.
pub struct Story {
    /// What happened.
    pub ops: Vec<Op>,
    /// All that was appended, in order.
    pub entries: Vec<Entry>,
}

/// The options of the logs here.
pub fn options(mark_idle: bool) -> Options {
    Options { segment_bytes: SEGMENT, mark_idle, ..Options::default() }
}

/// Makes up records: entries of a few partitions without holes, and all that lies between them.
pub struct Author {
    random: StdRng,
    lasts: [u64; 4],
}

impl Author {
    /// One that repeats itself for the same randomness.
    pub fn new(random: StdRng) -> Self {
        Self { random, lasts: [0; 4] }
    }

    /// Appends a batch, and notes it. All lengths are multiples of one unit: after a power cut a new batch often ends
    /// where one that was cut began, and that must not come back behind it (H6).
    pub fn append(&mut self, log: &Log, entries: &mut Vec<Entry>) -> anyhow::Result<Position> {
        let (count, units) = match self.random.random_range(0..20) {
            0 => (1, 500),
            1..10 => (self.random.random_range(1..6), 50),
            _ => (self.random.random_range(1..3), 4),
        };
        let lengths: Vec<usize> =
            (0..count).map(|_| UNIT * self.random.random_range(0..units)).collect();
        self.batch(log, entries, &lengths)
    }

    /// Fills the segment, nearly: the log soon goes on in another.
    pub fn fill(&mut self, log: &Log, entries: &mut Vec<Entry>) -> anyhow::Result<Position> {
        let room = usize::try_from(SEGMENT - log.end().0 % SEGMENT)? / UNIT;
        let length = UNIT * room.saturating_sub(self.random.random_range(3..10)).min(1500);
        self.batch(log, entries, &[length])
    }

    fn batch(
        &mut self,
        log: &Log,
        entries: &mut Vec<Entry>,
        lengths: &[usize],
    ) -> anyhow::Result<Position> {
        log.set_checkpoint((entries.len() as u64).to_le_bytes().to_vec());
        let mut bodies = Vec::new();
        for length in lengths {
            let mut body = vec![0; *length];
            self.random.fill(&mut body[..]);
            bodies.push(body);
        }
        let parts: Vec<[&[u8]; 1]> = bodies.iter().map(|body| [body.as_slice()]).collect();
        let records: Vec<NewRecord<'_>> = parts.iter().map(|body| self.record(body)).collect();
        let appended = log.append(&records)?;
        for at in appended.positions {
            entries.push(Entry { at, raw: log.read(at)?.raw().into() });
        }
        Ok(appended.end)
    }

    fn record<'a>(&mut self, body: &'a [&'a [u8]]) -> NewRecord<'a> {
        let pid = self.random.random_range(0..self.lasts.len());
        let last = &mut self.lasts[pid];
        let kind = match self.random.random_range(0..20) {
            0 => Kind::EpochStart,
            1 => Kind::Truncate,
            2 => Kind::Vote,
            3 => Kind::Note,
            _ => Kind::Entry,
        };
        match kind {
            Kind::Entry => *last += 1,
            Kind::Truncate => *last -= self.random.random_range(0..=(*last).min(5)),
            _ => {}
        }
        let partition = PartitionKey::new(1, u32::try_from(pid).unwrap_or_default());
        NewRecord { kind, partition, offset: Offset(*last), epoch: Epoch(1), commit_lag: 0, body }
    }
}

/// Opens the log; a failed sync would be a failure of the test itself.
pub fn open(
    recorder: &Arc<Recorder>,
    dir: &Path,
    mark_idle: bool,
) -> anyhow::Result<(Log, stela_common::log::Recovery)> {
    Ok(Log::open(Disk::recording(recorder.clone()), dir, options(mark_idle), |_| {})?)
}

/// Remarks on what the log has said up to now.
pub fn note(recorder: &Recorder, log: &Log, entries: &[Entry]) {
    recorder.mark(APPENDED, entries.len() as u64);
    recorder.mark(SYNCED, log.synced().0);
}

/// Waits until `done`.
pub fn await_that(what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        ensure!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::sleep(Duration::from_micros(50));
    }
    Ok(())
}

/// Runs and records.
pub fn record(dir: &Path, recorder: Arc<Recorder>, random: StdRng) -> anyhow::Result<Story> {
    let mut author = Author::new(random);
    let mut entries: Vec<Entry> = Vec::new();
    let lives = 7;
    for life in 0..lives {
        let (log, recovery) = open(&recorder, dir, life == 2)?;
        ensure!(
            recovery.damage.is_empty() && recovery.torn.is_none(),
            "a run without a power cut: {recovery:?}"
        );
        note(&recorder, &log, &entries);
        for _ in 0..60 {
            match author.random.random_range(0..100) {
                0..5 => {
                    // Up to several segments that the disk has not seen.
                    recorder.slow(true);
                    for _ in 0..author.random.random_range(2..40) {
                        author.append(&log, &mut entries)?;
                        note(&recorder, &log, &entries);
                        if author.random.random_bool(0.05) {
                            // What nobody needs, but what follows is not synced.
                            recorder.mark(PURGED, log.end().0);
                            log.purge(log.end())?;
                        }
                    }
                    recorder.slow(false);
                }
                5..12 => {
                    let back = author.random.random_range(20..100);
                    let upto = entries
                        .len()
                        .checked_sub(back)
                        .and_then(|at| entries.get(at))
                        .map_or(0, |e| e.at.0);
                    recorder.mark(PURGED, upto);
                    log.purge(Position(upto))?;
                }
                12..15 => {
                    // All or nothing, and it goes on.
                    recorder.inject(|op| {
                        matches!(op, Op::Write { .. }).then(|| io::ErrorKind::StorageFull.into())
                    });
                    ensure!(author.append(&log, &mut entries).is_err(), "an append to a full disk");
                    recorder.heal();
                }
                15..60 => {
                    let end = author.append(&log, &mut entries)?;
                    await_that("an append is synced", || log.synced() >= end)?;
                }
                _ => drop(author.append(&log, &mut entries)?),
            }
            note(&recorder, &log, &entries);
            if let Some(entry) = entries.get(author.random.random_range(0..entries.len().max(1)))
                && entry.at >= log.start()
            {
                ensure!(
                    log.read(entry.at)?.raw() == &*entry.raw,
                    "a record is not what was appended"
                );
            }
        }
        if life == 2 {
            let end = log.end();
            await_that("an idle log is marked", || log.end() > end && log.synced() == log.end())?;
            note(&recorder, &log, &entries);
        }
        if life % 3 == 1 {
            log.close().context("clean stop")?;
        } else {
            // In the middle of it: the thread that syncs may be busy.
            recorder.slow(true);
            for _ in 0..3 {
                author.append(&log, &mut entries)?;
                note(&recorder, &log, &entries);
            }
            let stopping = std::thread::spawn(move || drop(log));
            recorder.slow(false);
            ensure!(stopping.join().is_ok(), "the log panicked");
        }
    }
    Ok(Story { ops: recorder.ops(), entries })
}
