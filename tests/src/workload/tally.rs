//! What writers and readers were told, as far as a drill looks at it while it runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A partition of the tables that are worked on: which table, which partition.
pub type Place = (usize, u32);

/// Around a fault so much is looked at.
const AROUND: Duration = Duration::from_millis(100);

/// What writers and readers were told.
#[derive(Default)]
pub struct Tally {
    /// When rows of that partition were acknowledged, in order.
    pub times: BTreeMap<Place, Vec<Instant>>,
    /// How many were acknowledged.
    pub count: usize,
    /// What was said when a write did not succeed, and how often.
    pub errors: BTreeMap<String, usize>,
    /// What was said when a read was not answered, and how often.
    pub unread: BTreeMap<String, usize>,
    /// Every key that was written, and the table that it is of.
    pub keys: BTreeMap<String, usize>,
}

/// The key of a writer's row: it names the table.
pub(super) fn key_of(table: usize, writer: u64, n: u64) -> String {
    format!("t{table}-w{writer}-{n}")
}

impl Tally {
    /// The longest time between two acknowledgements of a partition around a fault at `at`; `None`: it is not over. What a client is told a little later than the fault may have been acknowledged before it.
    #[must_use]
    pub fn gap(&self, place: Place, at: Instant) -> Option<Duration> {
        let times = self.times.get(&place)?;
        let after = times.partition_point(|t| *t <= at + AROUND);
        let before = times.partition_point(|t| at.duration_since(*t) > AROUND).saturating_sub(1);
        times.get(after)?;
        let longest = times[before..=after].windows(2).map(|w| w[1] - w[0]).max();
        longest.or_else(|| Some(times[after].duration_since(at)))
    }

    /// The longest time between two acknowledgements of one partition, begun after `from` and before `to`.
    #[must_use]
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let pauses = self.times.keys().map(|place| self.longest_pause_of(*place, from, to));
        pauses.max().unwrap_or_default()
    }

    /// The same of that partition.
    #[must_use]
    pub fn longest_pause_of(&self, place: Place, from: Instant, to: Instant) -> Duration {
        let times = self.times.get(&place).into_iter().flat_map(|times| times.windows(2));
        let pauses = times.filter(|w| w[1] > from && w[0] < to).map(|w| w[1] - w[0]);
        pauses.max().unwrap_or_default()
    }
}
