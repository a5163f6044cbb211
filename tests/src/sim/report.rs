//! Batches of runs, and what they show: promises that were broken, and whether enough was tried to tell.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::command::run;
use super::coverage::Coverage;
use super::point::Point;
use super::profile::Profile;
use super::world::Ended;

/// A promise that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    /// In which run.
    pub seed: u64,
    /// Steered how.
    pub profile: &'static str,
    /// What.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} ({}): {}", self.seed, self.profile, self.what)
    }
}

/// What one run had of something, or in the median of many.
#[derive(Clone, Copy, Debug)]
struct Figure {
    what: &'static str,
    of: fn(&Ran) -> u64,
    /// Less than that in the median, or more, and nothing was shown.
    enough: (u64, u64),
}

/// What the median run must have.
const FIGURES: [Figure; 6] = [
    Figure { what: "partitions", of: |r| r.partitions, enough: (2, 3) },
    Figure { what: "replicas", of: |r| r.replicas, enough: (3, 3) },
    Figure { what: "steps", of: |r| r.steps, enough: (300, u64::MAX) },
    Figure { what: "changes of leader", of: |r| r.switches, enough: (2, u64::MAX) },
    Figure { what: "crashes", of: |r| r.crashes, enough: (1, u64::MAX) },
    Figure { what: "acknowledged writes", of: |r| r.acknowledged, enough: (20, u64::MAX) },
];

/// One run of a batch, in figures.
#[derive(Clone, Copy, Debug)]
struct Ran {
    partitions: u64,
    replicas: u64,
    steps: u64,
    switches: u64,
    crashes: u64,
    acknowledged: u64,
}

/// What a batch of runs has shown.
#[derive(Clone, Default, Debug)]
pub struct Report {
    runs: Vec<Ran>,
    /// What they have tried.
    pub coverage: Coverage,
    /// The longest time that a cluster took to be whole again, milliseconds.
    pub slowest: u64,
    /// The promises that were broken.
    pub broken: Vec<Broken>,
    /// How long it took.
    pub took: Duration,
}

impl Report {
    fn add(&mut self, seed: u64, profile: Profile, ended: Ended) {
        let coverage = &ended.coverage;
        self.runs.push(Ran {
            partitions: u64::from(profile.partitions),
            replicas: profile.tablets as u64,
            steps: coverage.steps,
            switches: coverage.switches,
            crashes: coverage.crashes(),
            acknowledged: coverage.acknowledged,
        });
        self.coverage.add(coverage);
        self.slowest = self.slowest.max(ended.healed_in);
        self.broken.extend(ended.broken.map(|what| Broken { seed, profile: profile.name, what }));
    }

    fn merge(&mut self, other: Self) {
        self.runs.extend(other.runs);
        self.coverage.add(&other.coverage);
        self.slowest = self.slowest.max(other.slowest);
        self.broken.extend(other.broken);
        self.broken.sort_by_key(|b| b.seed);
    }

    /// How many runs there were.
    pub fn seeds(&self) -> usize {
        self.runs.len()
    }

    fn median(&self, figure: &Figure) -> u64 {
        let mut all: Vec<u64> = self.runs.iter().map(figure.of).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    }

    /// What was not tried, or not enough, to tell anything.
    pub fn lacking(&self) -> Vec<String> {
        let few = FIGURES.iter().filter(|f| {
            let median = self.median(f);
            median < f.enough.0 || median > f.enough.1
        });
        let few = few.map(|f| format!("{} {} in the median", self.median(f), f.what));
        few.chain(self.coverage.missing().into_iter().map(|what| format!("never met: {what}")))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coverage = &self.coverage;
        writeln!(
            f,
            "{} seeds in {:.1} s: {} steps, {} acknowledged writes, {} reads at leaders and {} at followers, {} elections, {} crashes; whole again after {} ms at most",
            self.seeds(),
            self.took.as_secs_f64(),
            coverage.steps,
            coverage.acknowledged,
            coverage.reads,
            coverage.follower_reads,
            coverage.times(Point::Elected),
            coverage.crashes(),
            self.slowest
        )?;
        let medians = FIGURES.map(|figure| format!("{} {}", self.median(&figure), figure.what));
        writeln!(f, "a seed in the median: {}", medians.join(", "))?;
        write!(f, "{coverage}")?;
        for lack in self.lacking() {
            write!(f, "\ntoo little: {lack}")?;
        }
        for broken in &self.broken {
            write!(f, "\nBROKEN {broken}")?;
        }
        Ok(())
    }
}

/// Runs of that many seeds, on all cores, until they are through or the time is over.
pub fn batch(
    from: u64,
    seeds: u64,
    most: Option<Duration>,
    choose: impl Fn(u64) -> Profile + Sync,
) -> Report {
    let (began, next) = (Instant::now(), AtomicU64::new(from));
    let work = || {
        let mut report = Report::default();
        while most.is_none_or(|most| began.elapsed() < most) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from.saturating_add(seeds) {
                break;
            }
            let profile = choose(seed);
            report.add(seed, profile, run(seed, profile, None, false));
        }
        report
    };
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            report.merge(worker.join().unwrap_or_default());
        }
    });
    report.took = began.elapsed();
    report
}
