//! The drills: real processes, real faults, and a verdict with figures.

mod appendix;
mod d1;
mod d10;
mod d11;
mod d12;
mod d13;
mod d14;
mod d15;
mod d16;
mod d17;
mod d18;
mod d19;
mod d2;
mod d20;
mod d21;
mod d23;
mod d3;
mod d4;
mod d5;
mod d6;
mod d7;
mod d8;
mod failover_switch;
mod few;
mod gaps;
mod golden;
mod index;
mod kill_all;
mod larger;
mod promise;
mod scale;
mod stage;
mod switch;
mod tool;
mod transcript;

use std::time::Duration;

use anyhow::{Context as _, Result};

pub use crate::check::Outcome;
use crate::history::History;

/// A drill.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Drill {
    /// kill -9 of the tablet that leads most, again and again
    #[value(name = "D1", alias = "kill-leader")]
    D1,
    /// kill -9 of the leading nameserver, while tables are created and dropped
    #[value(name = "D2", alias = "kill-nameserver")]
    D2,
    /// kill -9 of both within 100 ms
    #[value(name = "D3")]
    D3,
    /// SIGSTOP of the tablet that leads most
    #[value(name = "D4")]
    D4,
    /// the leading tablet and half of the clients cut off, on and off
    #[value(name = "D5")]
    D5,
    /// tablets cut off from nameservers only
    #[value(name = "D6")]
    D6,
    /// one-way links, a ring of majorities, a flapping link
    #[value(name = "D7")]
    D7,
    /// swizzle-clog of all six processes
    #[value(name = "D8")]
    D8,
    /// a power cut at every step of a recorded run
    #[value(name = "D10")]
    D10,
    /// the power goes, for everything at once
    #[value(name = "D11")]
    D11,
    /// a tablet's disk fails: syncs that end with an error, syncs that hang, no room
    #[value(name = "D12")]
    D12,
    /// bytes rot on one server's disk
    #[value(name = "D13")]
    D13,
    /// a tablet's disk is gone
    #[value(name = "D14")]
    D14,
    /// one server's clock is wrong
    #[value(name = "D15")]
    D15,
    /// rolling restart, and rolling upgrade to the version that STELA_OTHER names and back
    #[value(name = "D16")]
    D16,
    /// a nameserver killed between every two steps of every operation
    #[value(name = "D17")]
    D17,
    /// auto_failover on and off all the time
    #[value(name = "D18")]
    D18,
    /// the operators' commands at random
    #[value(name = "D19")]
    D19,
    /// kills while snapshots are made and the log is given back
    #[value(name = "D20")]
    D20,
    /// most of 230 tablets vanish, and the leading nameserver stands still
    #[value(name = "D21")]
    D21,
    /// the other end vanishes without a farewell
    #[value(name = "D23")]
    D23,
    /// two replicas on two tablets: one dies, and comes back
    Two,
    /// one replica: its tablet dies, and is started again
    One,
    /// a planned switch of every leader, again and again
    Switch,
    /// kill -9 of everything, and restart in any order
    KillAll,
    /// `confset auto_failover false` outlives all nameservers
    FailoverSwitch,
    /// appendix D of the nameserver's description, item by item; --rounds N runs item N only
    Appendix,
    /// 1,000 tables, and a tablet with a third of the leaders killed
    Scale,
    /// a table of four times the memory that its tablet may take
    Larger,
    /// an index is added to a table that is written, and servers are killed while it is filled
    Index,
    /// every command of both clients, each success and each error, compared with golden files
    Golden,
    /// every call of the operations tool that OpenMLDB ships
    Tool,
    /// the operators' document as a session, compared with a golden file
    Transcript,
}

/// What a drill is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Which.
    pub drill: Drill,
    /// Of all that is random in it.
    pub seed: u64,
    /// How many faults; `None`: as many as there is time for.
    pub rounds: Option<usize>,
    /// How long; `None`: the drill's own time.
    pub seconds: Option<u64>,
    /// The longest fault, s; `None`: the drill's own.
    pub longest: Option<u64>,
    /// A promise about time that was not kept is a failure.
    pub times: bool,
}

impl Plan {
    /// A history of this run, in a directory of its own beside this program.
    fn history(&self) -> Result<History> {
        let program = std::env::current_exe()?;
        let (name, seed) = (format!("{:?}", self.drill), self.seed);
        let dir = program.parent().context("a program that is nowhere")?;
        History::begin(&dir.join("drills").join(format!("{name}-seed-{seed}")), &name, seed)
    }

    /// Is there to be another fault, after `done` of them and so much time? `seconds`: the drill's own time.
    fn goes_on(&self, done: usize, elapsed: Duration, seconds: u64) -> bool {
        match (self.rounds, self.seconds) {
            (Some(rounds), None) => done < rounds,
            (rounds, given) => {
                done < rounds.unwrap_or(usize::MAX)
                    && elapsed < Duration::from_secs(given.unwrap_or(seconds))
            }
        }
    }
}

impl Drill {
    /// Runs it, printing what happens, and tells how it ended.
    ///
    /// # Errors
    /// The harness failed: that is no verdict.
    pub async fn run(plan: Plan) -> Result<Outcome> {
        println!("drill {:?}, seed {}", plan.drill, plan.seed);
        let outcome = match plan.drill {
            Self::D1 => d1::run(plan).await?,
            Self::D2 => d2::run(plan).await?,
            Self::D3 => d3::run(plan).await?,
            Self::D4 => d4::run(plan).await?,
            Self::D5 => d5::run(plan).await?,
            Self::D6 => d6::run(plan).await?,
            Self::D7 => d7::run(plan).await?,
            Self::D8 => d8::run(plan).await?,
            Self::D10 => d10::run(plan)?,
            Self::D11 => d11::run(plan).await?,
            Self::D12 => d12::run(plan).await?,
            Self::D13 => d13::run(plan).await?,
            Self::D14 => d14::run(plan).await?,
            Self::D15 => d15::run(plan).await?,
            Self::D16 => d16::run(plan).await?,
            Self::D17 => d17::run(plan).await?,
            Self::D18 => d18::run(plan).await?,
            Self::D19 => d19::run(plan).await?,
            Self::D20 => d20::run(plan).await?,
            Self::D21 => d21::run(plan).await?,
            Self::D23 => d23::run(plan).await?,
            Self::Two => few::run(plan, 2).await?,
            Self::One => few::run(plan, 1).await?,
            Self::Switch => switch::run(plan).await?,
            Self::KillAll => kill_all::run(plan).await?,
            Self::FailoverSwitch => failover_switch::run(plan).await?,
            Self::Appendix => appendix::run(plan).await?,
            Self::Scale => scale::run(plan).await?,
            Self::Larger => larger::run(plan).await?,
            Self::Index => index::run(plan).await?,
            Self::Golden => golden::run(plan).await?,
            Self::Tool => tool::run(plan).await?,
            Self::Transcript => transcript::run(plan).await?,
        };
        println!("{outcome}");
        Ok(outcome)
    }
}
