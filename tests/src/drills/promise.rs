//! What a drill is to show beside the checks that every drill ends with.

use std::fmt;
use std::time::Duration;

/// One thing that has to hold, and whether it did.
#[derive(Clone, Debug)]
pub struct Promise {
    what: String,
    kept: bool,
    /// It is about how long something took, which a machine that is busy with something else can spoil.
    timed: bool,
}

impl Promise {
    /// It does not depend on how quick the machine is.
    pub fn new(what: impl Into<String>, kept: bool) -> Self {
        Self { what: what.into(), kept, timed: false }
    }

    /// That took no longer than this.
    pub fn within(what: &str, took: Duration, most: Duration) -> Self {
        let what = format!("{what} at most {most:?} ({took:.3?})");
        Self { what, kept: took <= most, timed: true }
    }

    /// Whether the drill failed by it; `times`: those that are about time count as well.
    pub fn broken(&self, times: bool) -> bool {
        !self.kept && (times || !self.timed)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match (self.kept, self.timed) {
            (true, _) => "kept",
            (false, false) => "BROKEN",
            (false, true) => "TOO SLOW",
        };
        write!(f, "{word}: {}", self.what)
    }
}
