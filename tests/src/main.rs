//! What Stela promises, shown: drills on real processes, the crash test of the log, and the simulation. One command each.

mod check;
mod cluster;
mod crash;
mod drills;
mod faults;
mod fleet;
mod history;
mod net;
mod sim;
mod terminal;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::drills::{Drill, Outcome, Plan};
use crate::history::Stored;

/// Drills and checks of Stela. Each prints what it does and PASS, FAIL or UNKNOWN (too little work to tell).
#[derive(Parser)]
#[command(name = "stela-tests", version, max_term_width = 100)]
enum Command {
    /// A fault drill on real processes on loopback
    Drill {
        /// Which
        #[arg(ignore_case = true)]
        drill: Drill,
        /// Of all that is random in it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many faults (default: as many as there is time for)
        #[arg(long)]
        rounds: Option<usize>,
        /// How long (default: the drill's own time)
        #[arg(long)]
        seconds: Option<u64>,
        /// The longest fault, in seconds (default: the drill's own)
        #[arg(long)]
        longest: Option<u64>,
        /// Show how long things took, and do not judge it: for a machine that is busy with something else
        #[arg(long)]
        untimed: bool,
    },
    /// The checkers once more on a history that was kept
    Recheck {
        /// The file, or its directory
        history: PathBuf,
    },
    /// The simulation of replication and failover: the code that decides, under a seeded scheduler
    Sim(sim::command::Args),
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == cluster::AS_STELA) {
        if let Err(e) = faults::begin() {
            eprintln!("the harness failed: {e:#}");
            return ExitCode::from(3);
        }
        return stela::main_with(
            std::iter::once("stela".to_owned()).chain(args.into_iter().skip(2)),
        );
    }
    match run(Command::parse()) {
        Ok(Outcome::Pass) => ExitCode::SUCCESS,
        Ok(Outcome::Fail) => ExitCode::from(1),
        Ok(Outcome::Unknown) => ExitCode::from(2),
        Err(e) => {
            eprintln!("the harness failed, which is no verdict: {e:#}");
            ExitCode::from(3)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Drill { drill, seed, rounds, seconds, longest, untimed } => {
            tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(
                Drill::run(Plan { drill, seed, rounds, seconds, longest, times: !untimed }),
            )
        }
        Command::Recheck { history } => {
            let stored = Stored::read(&history)?;
            let history::Head { drill, seed, commit, .. } = &stored.head;
            println!("history of drill {drill}, seed {seed}, commit {commit}");
            let found = check::all(&stored);
            found.iter().for_each(|found| println!("{found}"));
            Ok(found.iter().map(|found| found.outcome).max().unwrap_or(Outcome::Unknown))
        }
        Command::Sim(args) => sim::command::run_command(&args),
    }
}
