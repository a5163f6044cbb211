//! How long partitions took no writes, and why.

use std::fmt;
use std::time::Duration;

/// One pause of one partition.
#[derive(Clone, Debug)]
struct Gap {
    length: Duration,
    cause: String,
}

/// Pauses of partitions: from the last acknowledged write before a fault to the first one after it.
#[derive(Clone, Default, Debug)]
pub struct Gaps(Vec<Gap>);

/// The upper ends of the histogram's bars, ms.
const BARS: [u64; 12] = [25, 50, 100, 200, 300, 400, 500, 750, 1000, 1500, 3000, 10_000];

impl Gaps {
    /// Adds one, with what it came from.
    pub fn add(&mut self, length: Duration, cause: impl Into<String>) {
        self.0.push(Gap { length, cause: cause.into() });
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// That part of them, of a thousand, is no longer.
    pub fn quantile(&self, of_thousand: usize) -> Duration {
        let mut lengths: Vec<Duration> = self.0.iter().map(|g| g.length).collect();
        lengths.sort_unstable();
        let at = (lengths.len() * of_thousand).div_ceil(1000).saturating_sub(1);
        lengths.get(at).copied().unwrap_or_default()
    }

    /// The one in the middle.
    pub fn median(&self) -> Duration {
        self.quantile(500)
    }

    /// The longest one.
    pub fn worst(&self) -> Duration {
        self.quantile(1000)
    }
}

/// The figures, a histogram, and the worst with its cause.
impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} gaps: median {:.3?}, 95th percentile {:.3?}, worst {:.3?}",
            self.0.len(),
            self.median(),
            self.quantile(950),
            self.worst()
        )?;
        let mut from = 0;
        for bar in BARS.into_iter().chain([u64::MAX]) {
            let within =
                |g: &&Gap| (u128::from(from)..u128::from(bar)).contains(&g.length.as_millis());
            let count = self.0.iter().filter(within).count();
            if count > 0 {
                let stars = "*".repeat((count * 60).div_ceil(self.0.len().max(1)));
                let to = if bar == u64::MAX { "more".into() } else { format!("{bar}") };
                writeln!(f, "  {from:>5} to {to:>5} ms {count:>5} {stars}")?;
            }
            from = bar;
        }
        match self.0.iter().max_by_key(|g| g.length) {
            Some(worst) => write!(f, "  the worst: {:.3?}, {}", worst.length, worst.cause),
            None => write!(f, "  none"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_there_is() {
        let mut gaps = Gaps::default();
        assert_eq!(gaps.worst(), Duration::ZERO);
        for ms in 1..=20 {
            gaps.add(Duration::from_millis(ms * 10), format!("{ms}"));
        }
        assert_eq!(gaps.median(), Duration::from_millis(100));
        assert_eq!(gaps.quantile(950), Duration::from_millis(190));
        assert_eq!(gaps.worst(), Duration::from_millis(200));
        let text = gaps.to_string();
        assert!(
            text.contains("the worst: 200.000ms, 20") && text.contains("  100 to   200 ms"),
            "{text}"
        );
    }
}
