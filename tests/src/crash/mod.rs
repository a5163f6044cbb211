//! The crash test of the segment log: a recorded run of the real log on real files, and the real log opened again in
//! what a power cut leaves at every step of it.
//!
//! In each such state: every record that was reported as synced is there with its bytes; what is there is what was
//! appended, in order, without a gap; no damage is reported, for there is none; nothing panics; the log takes appends
//! again. Then the power fails once more, right after recovery and somewhere in or behind it: nothing that recovery
//! reported is lost (H7), nothing that it cut comes back (H6).

mod files;
mod image;
mod state;
mod story;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use stela_common::fs::{Op, Recorder, Skip};

pub use self::files::run as run_files;
use self::image::{Cut, Files, Image};
use self::state::{Expected, State, Tried};
use self::story::{APPENDED, PURGED, SYNCED, Story};

/// What a crash test found.
#[derive(Debug, Default)]
pub struct Report {
    seed: u64,
    /// Operations of the recorded run.
    ops: usize,
    /// Records appended in it.
    records: usize,
    /// States that were opened: after the first power cut.
    states: usize,
    /// And after the second.
    second: usize,
    /// Synced records that were missing or wrong, over all states.
    lost: usize,
    panics: usize,
    failures: usize,
    /// What failed, the first few.
    examples: Vec<String>,
    took: Duration,
}

/// So many failures are told in words.
const EXAMPLES: usize = 5;

impl Report {
    /// Whether no state failed.
    pub fn passed(&self) -> bool {
        self.failures == 0 && self.panics == 0 && self.states > 0
    }

    fn add(&mut self, tried: Tried, what: impl FnOnce() -> String) {
        self.states += 1;
        self.second += tried.second;
        self.lost += tried.lost;
        if let Some(failure) = tried.failure {
            self.failures += 1;
            if self.examples.len() < EXAMPLES {
                self.examples.push(format!("{}: {failure}", what()));
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.states += other.states;
        self.second += other.second;
        self.lost += other.lost;
        self.failures += other.failures;
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for example in &self.examples {
            writeln!(f, "  {example}")?;
        }
        write!(
            f,
            "{} crash test of the segment log, seed {}: {} crash states ({} second power cuts in them) of a run of {} \
             operations and {} records; {} lost synced records, {} panics, {} states failed; {:.1} s",
            if self.passed() { "PASS" } else { "FAIL" },
            self.seed,
            self.states,
            self.second,
            self.ops,
            self.records,
            self.lost,
            self.panics,
            self.failures,
            self.took.as_secs_f64()
        )
    }
}

/// Runs the crash test with at least so many states.
///
/// # Errors
/// The harness failed: no verdict.
pub fn run(seed: u64, states: usize) -> anyhow::Result<Report> {
    run_without(seed, states, None)
}

/// The same, of a log that leaves one step out; then it ends when something was lost.
fn run_without(seed: u64, states: usize, skip: Option<Skip>) -> anyhow::Result<Report> {
    let (began, panics) = (Instant::now(), panics());
    let base = tempfile::tempdir()?;
    let dir = base.path().join("run");
    stela_common::fs::create_dir_all(&stela_common::fs::Disk::real(), &dir)?;
    let recorder = Arc::new(Recorder::new().skip(skip).without_physical_sync());
    let story = story::record(&dir, recorder, StdRng::seed_from_u64(seed))?;

    // Every step, in as many ways as it takes, or so many of them; each thread takes the next that nobody has.
    let all = steps(&story.ops);
    let count = states.clamp(1, all.len());
    let steps: Vec<usize> = (0..count).map(|turn| all[turn * all.len() / count]).collect();
    let ways = states.div_ceil(steps.len()).max(1);
    let (next, caught) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        let mut report = Report::default();
        let mut at = Replay::new(&dir);
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            let Some(step) = steps.get(turn).filter(|_| !caught.load(Ordering::Relaxed)) else {
                return report;
            };
            at.go(&story.ops, *step);
            for way in 0..ways {
                let cut = Cut::ALL[(turn + way) % Cut::ALL.len()];
                let random = StdRng::seed_from_u64(seed ^ ((turn * ways + way) as u64) << 20);
                let tried = at.state(&story, base.path(), cut, skip).try_it(random);
                report.add(tried, || format!("step {step} of {}, {cut:?}", story.ops.len()));
            }
            caught.fetch_or(skip.is_some() && report.lost > 0, Ordering::Relaxed);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    let reports = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
    });
    let mut report =
        Report { seed, ops: story.ops.len(), records: story.entries.len(), ..Report::default() };
    for one in reports {
        report.join(one.map_err(|_| anyhow::anyhow!("the harness panicked"))?);
    }
    report.panics = self::panics() - panics;
    report.took = began.elapsed();
    Ok(report)
}

/// How many panics there were in this process, also on the threads of a log.
fn panics() -> usize {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            before(panic);
        }));
    });
    COUNT.load(Ordering::Relaxed)
}

/// The moments at which the power is cut: after each operation that changes what may be there or what must be.
fn steps(ops: &[Op]) -> Vec<usize> {
    let mut said = HashMap::new();
    let changes = |op: &Op| match op {
        Op::Mark { what: APPENDED, .. } => false,
        Op::Mark { what, value } => said.insert(*what, *value) != Some(*value),
        Op::SyncStart { .. } | Op::SyncDirStart { .. } | Op::Open { .. } => false,
        _ => true,
    };
    let changed: Vec<bool> = ops.iter().map(changes).collect();
    (0..=ops.len()).filter(|step| *step == 0 || changed[step - 1]).collect()
}

/// The recorded run up to some step.
struct Replay {
    image: Image,
    step: usize,
    synced: u64,
    purged: u64,
    appended: u64,
}

impl Replay {
    fn new(dir: &std::path::Path) -> Self {
        Self { image: Image::of(dir, &Files::new()), step: 0, synced: 0, purged: 0, appended: 0 }
    }

    fn go(&mut self, ops: &[Op], step: usize) {
        for op in &ops[self.step..step] {
            self.image.apply(op);
            match op {
                Op::Mark { what: SYNCED, value } => self.synced = *value,
                Op::Mark { what: APPENDED, value } => self.appended = *value,
                Op::Mark { what: PURGED, value } => self.purged = self.purged.max(*value),
                _ => {}
            }
        }
        self.step = step;
    }

    fn state<'a>(
        &self,
        story: &'a Story,
        base: &'a std::path::Path,
        cut: Cut,
        skip: Option<Skip>,
    ) -> State<'a> {
        let expected = Expected {
            entries: &story.entries,
            synced: self.synced,
            purged: self.purged,
            appended: self.appended,
        };
        State { image: self.image.clone(), expected, base, cut, skip }
    }
}

#[cfg(test)]
mod tests;
