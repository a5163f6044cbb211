//! Batches of seeds, and what is said about them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use stela_meta_state::rules;
use stela_replica::variant;

use super::core::{MakeCore, make_core};
use super::coverage::Coverage;
use super::fault::Point;
use super::mistake::{self, Mistake};
use super::nameserver::Law;
use super::profile::{self, Profile};
use super::world::{Ended, World};
use crate::drills::Outcome;

/// Fewer acknowledged writes per seed than this, and nothing was shown.
const ENOUGH: u64 = 50;

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

/// What a batch of seeds has shown.
#[derive(Clone, Default, Debug)]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
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
    /// Did it do enough to tell?
    pub fn is_enough(&self) -> bool {
        self.coverage.acknowledged >= self.seeds * ENOUGH
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coverage = &self.coverage;
        writeln!(
            f,
            "{} seeds, {} steps, {} acknowledged writes, {} reads, {} elections, {} crashes in {:.1} s; whole again after {} ms at most",
            self.seeds,
            coverage.steps,
            coverage.acknowledged,
            coverage.reads,
            coverage.times(Point::Elected),
            coverage.crashes(),
            self.took.as_secs_f64(),
            self.slowest
        )?;
        write!(f, "{coverage}")?;
        for (fault, role) in coverage.missing() {
            write!(f, "\nnever met: {fault} of a {role}")?;
        }
        for broken in &self.broken {
            write!(f, "\nBROKEN {broken}")?;
        }
        Ok(())
    }
}

/// One run. A panic is a broken promise, too.
pub fn run(seed: u64, profile: Profile, mistake: Option<&Mistake>, traced: bool) -> Ended {
    let make_core = mistake.map_or(make_core::<variant::Sound> as MakeCore, |m| m.make_core);
    let law = mistake.map_or_else(|| Law::of::<rules::Sound>(true), |m| (m.law)());
    let run = || World::new(seed, profile, make_core, law, traced).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let what = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()))
            .unwrap_or_default();
        Ended {
            broken: Some(format!("panicked: {what}")),
            safety: true,
            coverage: Coverage::default(),
            healed_in: 0,
        }
    })
}

/// Seeds one after the other, until there are `seeds` of them or the time is over.
pub fn batch(
    from: u64,
    seeds: u64,
    most: Option<Duration>,
    choose: impl Fn(u64) -> Profile,
) -> Report {
    let began = Instant::now();
    let mut report = Report::default();
    for seed in from..from.saturating_add(seeds) {
        if most.is_some_and(|most| began.elapsed() > most) {
            break;
        }
        let profile = choose(seed);
        let ended = run(seed, profile, None, false);
        report.seeds += 1;
        report.coverage.add(&ended.coverage);
        report.slowest = report.slowest.max(ended.healed_in);
        if let Some(what) = ended.broken {
            report.broken.push(Broken { seed, profile: profile.name, what });
        }
    }
    report.took = began.elapsed();
    report
}

/// Seeds one after the other until a mistake is noticed.
pub fn hunt(mistake: &Mistake, from: u64, seeds: u64) -> Option<Broken> {
    (from..from.saturating_add(seeds)).find_map(|seed| {
        let ended = run(seed, mistake.profile, Some(mistake), false);
        let what = ended.broken.filter(|_| ended.safety)?;
        Some(Broken { seed, profile: mistake.profile.name, what })
    })
}

/// The simulation as a command.
#[derive(clap::Args)]
pub struct Args {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// Tell what happens, step by step (for one seed)
    #[arg(long)]
    trace: bool,
    /// Plant a mistake of the rules' table (B1 ... B13): it must be noticed
    #[arg(long)]
    mistake: Option<String>,
    /// Steer all seeds in one way instead of each in its own
    #[arg(long)]
    profile: Option<String>,
}

/// Runs it, printing what was found.
///
/// # Errors
/// No such mistake or profile.
pub fn run_command(args: &Args) -> anyhow::Result<Outcome> {
    let mistake = args.mistake.as_deref().map(mistake_named).transpose()?;
    let forced =
        args.profile.as_deref().map(profile_named).transpose()?.or(mistake.map(|m| m.profile));
    let choose = |seed| forced.unwrap_or_else(|| profile::of_seed(seed));
    let outcome = if args.trace {
        println!("seed {}, profile {}", args.seed, choose(args.seed).name);
        let ended = run(args.seed, choose(args.seed), mistake, true);
        println!("{}", ended.broken.as_deref().unwrap_or("all promises were kept"));
        pass(ended.broken.is_some() == mistake.is_some())
    } else if let Some(mistake) = mistake {
        let mistake = Mistake { profile: choose(args.seed), ..*mistake };
        let noticed = hunt(&mistake, args.seed, args.seeds);
        println!("{}: {}", mistake.name, mistake.what);
        match &noticed {
            Some(broken) => {
                println!("noticed after {} seeds: {broken}", broken.seed - args.seed + 1)
            }
            None => println!("not noticed in {} seeds", args.seeds),
        }
        pass(noticed.is_some())
    } else {
        let report = batch(args.seed, args.seeds, None, choose);
        println!("{report}");
        let enough =
            report.is_enough() && (forced.is_some() || report.coverage.missing().is_empty());
        if report.broken.is_empty() && !enough {
            Outcome::Unknown
        } else {
            pass(report.broken.is_empty())
        }
    };
    println!("{outcome}");
    Ok(outcome)
}

fn pass(kept: bool) -> Outcome {
    if kept { Outcome::Pass } else { Outcome::Fail }
}

fn mistake_named(name: &str) -> anyhow::Result<&'static Mistake> {
    let names = || mistake::ALL.iter().map(|m| m.name).collect::<Vec<_>>().join(", ");
    let found = mistake::ALL.iter().find(|m| m.name.eq_ignore_ascii_case(name));
    found.ok_or_else(|| anyhow::anyhow!("no mistake {name}: there are {}", names()))
}

fn profile_named(name: &str) -> anyhow::Result<Profile> {
    let names = || profile::ALL.iter().map(|p| p.name).collect::<Vec<_>>().join(", ");
    let found = profile::ALL.iter().find(|p| p.name == name).copied();
    found.ok_or_else(|| anyhow::anyhow!("no profile {name}: there are {}", names()))
}
