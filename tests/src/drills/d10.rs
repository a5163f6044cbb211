//! D10: a power cut at every step of a recorded run, of the segment log (which holds what tablets write, and the entries
//! and votes of the nameservers) and of the files beside it that are replaced whole.
//!
//! Pass: recovered in every one of at least 3,000 states; what was reported as synced is there; no panic.

use anyhow::Result;

use super::{Outcome, Plan};
use crate::crash;

const STATES: usize = 3000;

pub(super) fn run(plan: Plan) -> Result<Outcome> {
    let states = plan.rounds.unwrap_or(STATES);
    let log = crash::run(plan.seed, states)?;
    println!("{log}");
    let files = crash::run_files(plan.seed, states)?;
    println!(
        "files that are replaced: {} crash states, {} failed",
        files.states,
        files.failures.len()
    );
    files.failures.iter().take(5).for_each(|failure| println!("  {failure}"));
    let passed = log.passed() && files.failures.is_empty() && files.states > 0;
    Ok(if passed { Outcome::Pass } else { Outcome::Fail })
}
