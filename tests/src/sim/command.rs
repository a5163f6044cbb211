//! The simulation as a command: one run, a batch of runs, or a hunt for planted mistakes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use stela_meta_state::rules;
use stela_replica::variant;

use super::core::{MakeCore, make_core};
use super::coverage::Coverage;
use super::mistake::{self, Mistake};
use super::nameserver::Law;
use super::profile::{self, Profile};
use super::report::{Broken, batch};
use super::world::{Ended, World};
use crate::drills::Outcome;

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
    /// How many seeds (default: 2000; with --mistake or --mistakes the most, 5000)
    #[arg(long)]
    seeds: Option<u64>,
    /// Tell what happens, step by step (for one seed)
    #[arg(long)]
    trace: bool,
    /// Plant a mistake of the rules' table (B1 ... B13): it must be noticed
    #[arg(long)]
    mistake: Option<String>,
    /// Plant each of them in turn: every one must be noticed
    #[arg(long, conflicts_with_all = ["mistake", "trace"])]
    mistakes: bool,
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
    } else if args.mistakes || mistake.is_some() {
        let planted = mistake.map_or(mistake::ALL, std::slice::from_ref);
        let most = args.seeds.unwrap_or(5000);
        // All of them are hunted, also behind one that is not noticed.
        let noticed = planted.iter().filter(|m| is_noticed(m, args.seed, most)).count();
        println!("{noticed} of {} planted mistakes noticed", planted.len());
        pass(noticed == planted.len())
    } else {
        let report = batch(args.seed, args.seeds.unwrap_or(2000), None, choose);
        println!("{report}");
        let lacking = if forced.is_some() { Vec::new() } else { report.lacking() };
        if report.broken.is_empty() && !lacking.is_empty() {
            Outcome::Unknown
        } else {
            pass(report.broken.is_empty())
        }
    };
    println!("{outcome}");
    Ok(outcome)
}

fn is_noticed(mistake: &Mistake, from: u64, seeds: u64) -> bool {
    let began = Instant::now();
    let noticed = hunt(mistake, from, seeds);
    print!("{:<4} {}: ", mistake.name, mistake.what);
    match &noticed {
        Some(broken) => println!("noticed after {} runs: {broken}", broken.seed - from + 1),
        None => println!("NOT noticed in {seeds} runs ({:.1} s)", began.elapsed().as_secs_f64()),
    }
    noticed.is_some()
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
