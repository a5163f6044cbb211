//! The checkers: what a stored history must satisfy.
//!
//! * `set`: every acknowledged row is there once, wherever it is looked for; what a read at the leader must not miss.
//! * `register`: there is an order of all operations on a register that explains every answer.
//! * `replicas`: every replica has the same rows.
//!
//! A verdict has three values: what cannot be told is never a pass.

mod register;
mod replicas;
mod set;

use std::fmt;

use crate::history::{Op, Stored};

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// It did enough work, and all is as promised.
    Pass,
    /// It did too little work to tell.
    Unknown,
    /// A promise was broken.
    Fail,
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

/// What one checker found.
#[derive(Debug)]
pub struct Found {
    /// Its verdict.
    pub outcome: Outcome,
    /// What it looked at and what it found, in figures.
    pub figures: String,
    /// What is wrong, the first few.
    pub examples: Vec<String>,
}

/// So many examples are shown.
const EXAMPLES: usize = 10;

impl Found {
    fn new(outcome: Outcome, figures: String, mut examples: Vec<String>) -> Self {
        examples.truncate(EXAMPLES);
        Self { outcome, figures, examples }
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.outcome, self.figures)?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Runs every checker that has something to look at.
#[must_use]
pub fn all(history: &Stored) -> Vec<Found> {
    let is_row = |op: &Op| matches!(op, Op::Put { .. } | Op::Scan { .. });
    let (rows, registers) =
        (history.done.iter().any(|d| is_row(&d.op)), history.done.iter().any(|d| !is_row(&d.op)));
    let mut found = Vec::new();
    if rows {
        found.push(set::check(history));
        found.push(replicas::check(history));
    }
    if registers {
        found.push(register::check(history));
    }
    found
}
