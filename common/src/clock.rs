//! The two clocks: one for leases and one for people.
//!
//! Leases count on `CLOCK_BOOTTIME`, which goes on while the machine sleeps (R38); rows and ops carry wall time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// A point in time on this machine's `CLOCK_BOOTTIME`, in milliseconds. Comparable only within one machine and boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let real = boot_ns();
        Self(skewed(|skewed| skewed.boot_ns(real)).unwrap_or(real) / 1_000_000)
    }

    /// `ms` milliseconds later.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this moment; 0 when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Wall time in milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    let real = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    skewed(|skewed| skewed.wall_ms(real)).unwrap_or(real)
}

fn boot_ns() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

/// How wrong the clocks of this process are: for tests only, see [`skew`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skew {
    /// Wall time is ahead by this, ms. The clock of leases never jumps.
    pub offset_ms: i64,
    /// Both clocks go faster by this, in millionths.
    pub rate_ppm: i64,
    /// Wall time jumps to and fro by this, ms, every `strobe_period`.
    pub strobe_ms: i64,
    /// Zero: it does not jump.
    pub strobe_period: Duration,
}

/// A wrong clock, and since when it goes like this.
struct Skewed {
    skew: Skew,
    /// Real and shown time of the clock of leases then, ns.
    since: (u64, u64),
}

static WRONG: AtomicBool = AtomicBool::new(false);
static SKEWED: Mutex<Skewed> = Mutex::new(Skewed {
    skew: Skew { offset_ms: 0, rate_ppm: 0, strobe_ms: 0, strobe_period: Duration::ZERO },
    since: (0, 0),
});

/// From now on the clocks of this process are wrong like that. Nothing that is shipped calls it.
pub fn skew(skew: Skew) {
    let mut skewed = SKEWED.lock();
    let real = boot_ns();
    // The clock of leases goes on from what it has shown: it never goes back.
    let shown = if WRONG.load(Ordering::Relaxed) { skewed.boot_ns(real) } else { real };
    *skewed = Skewed { skew, since: (real, shown) };
    WRONG.store(true, Ordering::Release);
}

#[inline]
fn skewed(show: impl FnOnce(&Skewed) -> u64) -> Option<u64> {
    WRONG.load(Ordering::Acquire).then(|| show(&SKEWED.lock()))
}

impl Skewed {
    fn boot_ns(&self, real: u64) -> u64 {
        let (from, shown) = self.since;
        let passed = i128::from(real.saturating_sub(from));
        let passed = passed + passed * i128::from(self.skew.rate_ppm) / 1_000_000;
        shown.saturating_add(u64::try_from(passed).unwrap_or(0))
    }

    fn wall_ms(&self, real: u64) -> u64 {
        let now = boot_ns();
        let drift = i128::from(self.boot_ns(now)) - i128::from(now);
        let period = self.skew.strobe_period.as_nanos();
        let ahead = period > 0 && (u128::from(now) / period).is_multiple_of(2);
        let strobe = if ahead { self.skew.strobe_ms } else { 0 };
        let offset = i128::from(self.skew.offset_ms + strobe) + drift / 1_000_000;
        u64::try_from(i128::from(real) + offset).unwrap_or(0)
    }
}

/// This boot of the machine, as the kernel names it; empty where it does not tell.
#[must_use]
pub fn boot_id() -> String {
    crate::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_skewed_clock_of_leases_goes_at_its_rate_and_never_jumps() {
        let skew = Skew { offset_ms: 3_600_000, rate_ppm: 50_000, ..Skew::default() };
        let fast = Skewed { skew, since: (100 * S, 130 * S) };
        assert_eq!(fast.boot_ns(100 * S), 130 * S);
        assert_eq!(fast.boot_ns(120 * S), 151 * S);
        let slow = Skewed { skew: Skew { rate_ppm: -50_000, ..skew }, since: (120 * S, 151 * S) };
        assert_eq!(slow.boot_ns(120 * S), 151 * S);
        assert_eq!(slow.boot_ns(140 * S), 170 * S);
    }

    #[test]
    fn skewed_wall_time_is_off_by_the_offset_and_by_what_the_rate_has_added() {
        let now = boot_ns();
        let skew = Skew { offset_ms: -3_600_000, ..Skew::default() };
        let back = Skewed { skew, since: (now, now) };
        assert_eq!(back.wall_ms(10_000_000), 6_400_000);
        let ahead = Skewed { skew, since: (now, now + 5 * S) };
        assert_eq!(ahead.wall_ms(10_000_000), 6_405_000);
        assert_eq!(back.wall_ms(1000), 0, "wall time has no time before 1970");
        let strobe = Skew { strobe_ms: 500, strobe_period: Duration::MAX, ..Skew::default() };
        assert_eq!(Skewed { skew: strobe, since: (now, now) }.wall_ms(1000), 1500);
    }
}
