//! The two clocks: one for leases and one for people.
//!
//! Leases count on `CLOCK_BOOTTIME`, which goes on while the machine sleeps (R38); rows and ops carry wall time.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// A point in time on this machine's `CLOCK_BOOTTIME`, in milliseconds. Comparable only within one machine and boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Millis(pub u64);

impl Millis {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let t = clock_gettime(ClockId::Boottime);
        Self(t.tv_sec.unsigned_abs() * 1000 + t.tv_nsec.unsigned_abs() / 1_000_000)
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
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// This boot of the machine, as the kernel names it; empty where it does not tell.
#[must_use]
pub fn boot_id() -> String {
    crate::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|s| s.trim().to_owned())
        .unwrap_or_default()
}
