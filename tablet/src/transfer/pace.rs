//! How fast snapshots go out: all transfers of a tablet share one pace.

use std::time::Duration;

use parking_lot::Mutex;
use stela_common::clock::Millis;

/// Gives out the right to send, byte by byte.
pub(super) struct Pace {
    /// Bytes; 0: no limit.
    per_second: u64,
    /// When what was given out so far has been sent, us.
    free: Mutex<u64>,
}

impl Pace {
    pub(super) fn new(per_second: u64) -> Self {
        Self { per_second, free: Mutex::new(0) }
    }

    /// Waits until so many bytes may go.
    pub(super) async fn take(&self, bytes: usize) {
        let wait = self.reserve(bytes as u64, Millis::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// The next so many bytes go then. What was not used before is lost: there are no bursts.
    fn reserve(&self, bytes: u64, now: Millis) -> Duration {
        let Some(takes) = bytes.saturating_mul(1_000_000).checked_div(self.per_second) else {
            return Duration::ZERO;
        };
        let now = now.0.saturating_mul(1000);
        let mut free = self.free.lock();
        let begins = now.max(*free);
        *free = begins.saturating_add(takes);
        Duration::from_micros(begins - now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_one_after_the_other() {
        let pace = Pace::new(1_000_000);
        let at = |ms, bytes| pace.reserve(bytes, Millis(ms)).as_millis();
        assert_eq!(at(1000, 100_000), 0);
        assert_eq!(at(1000, 50_000), 100, "behind what goes already");
        assert_eq!(at(1100, 1), 50);
        assert_eq!(at(9000, 100_000), 0, "it was idle");
        assert_eq!(at(9000, 1), 100, "and saved nothing up");
        assert_eq!(Pace::new(0).reserve(u64::MAX, Millis(5)), Duration::ZERO);
    }
}
