//! The drills: real processes, real faults, and a verdict with figures.

mod failover_switch;
mod kill_all;
mod kill_leader;
mod kill_nameserver;
mod transcript;

use std::fmt;
use std::time::Duration;

use anyhow::Result;

use crate::cluster::Cluster;
use crate::workload::{History, Verdict};

/// A drill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Drill {
    /// kill -9 of the tablet that leads most, under load, again and again
    KillLeader,
    /// kill -9 of the leading nameserver, under load and with tables created and dropped
    KillNameserver,
    /// kill -9 of everything under load, and restart in any order
    KillAll,
    /// `confset auto_failover false` outlives all nameservers
    FailoverSwitch,
    /// the operators' document as a session, compared with a golden file
    Transcript,
}

/// How a drill ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It did enough work, and all is as promised.
    Pass,
    /// A promise was broken.
    Fail,
    /// It did too little work to tell.
    Unknown,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// What a drill is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Of all that is random in it.
    pub seed: u64,
    /// How many faults; `None`: the drill's own number.
    pub rounds: Option<usize>,
}

/// Fewer acknowledged writes per second than this between faults, and a drill has shown nothing.
pub const ENOUGH: f64 = 500.0;

impl Drill {
    /// Runs it, printing what happens, and tells how it ended.
    ///
    /// # Errors
    /// The harness failed: that is no verdict.
    pub async fn run(self, plan: Plan) -> Result<Outcome> {
        println!("drill {self:?}, seed {}", plan.seed);
        let outcome = match self {
            Self::KillLeader => kill_leader::run(plan).await?,
            Self::KillNameserver => kill_nameserver::run(plan).await?,
            Self::KillAll => kill_all::run(plan).await?,
            Self::FailoverSwitch => failover_switch::run(plan).await?,
            Self::Transcript => transcript::run(plan).await?,
        };
        println!("{outcome}");
        Ok(outcome)
    }
}

/// Prints what reading back found, and folds it into the outcome. `busy`: the time without faults.
fn conclude(
    cluster: Cluster,
    history: &History,
    busy: Duration,
    verdict: &Verdict,
    promises: &[(String, bool)],
) -> Outcome {
    let rate = history.count as f64 / busy.as_secs_f64().max(0.001);
    println!(
        "acknowledged {} rows, {rate:.0}/s between faults; {} unknown",
        history.count,
        history.errors.values().sum::<usize>()
    );
    for (error, times) in &history.errors {
        println!("  {times} x {error}");
    }
    println!(
        "read back {} rows over leaders and replicas: {} lost, {} doubled, {} phantom",
        verdict.read,
        verdict.lost.len(),
        verdict.doubled.len(),
        verdict.phantom.len()
    );
    for what in verdict.lost.iter().chain(&verdict.doubled).chain(&verdict.phantom).take(10) {
        println!("  {what}");
    }
    let panics = cluster.panics();
    for panic in &panics {
        println!("  {panic}");
    }
    for (promise, kept) in promises {
        println!("{}: {promise}", if *kept { "kept" } else { "BROKEN" });
    }
    if !verdict.sound() || !panics.is_empty() || promises.iter().any(|(_, kept)| !kept) {
        println!("the servers' directories and output are in {}", cluster.keep().display());
        return Outcome::Fail;
    }
    if rate < ENOUGH { Outcome::Unknown } else { Outcome::Pass }
}

/// The middle of some durations.
fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
