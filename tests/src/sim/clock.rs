//! Clocks: the simulation's own, in microseconds, and one for each machine that is off and runs at its own rate.
//!
//! Rates of any two machines differ by less than 5 % (R38).

use stela_common::clock::Millis;

use super::random::Random;

/// A moment of the simulation, microseconds.
pub type Moment = u64;

/// A millisecond.
pub const MS: u64 = 1000;

/// The clock of one machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Showed that at `since`, microseconds.
    shown: u64,
    since: Moment,
    /// Runs at that rate, in millionths.
    rate: u64,
}

impl Clock {
    /// Some clock.
    pub fn draw(random: &mut Random) -> Self {
        Self { shown: random.between(10_000, 100_000) * MS, since: 0, rate: draw_rate(random) }
    }

    /// What it shows.
    pub fn at(self, now: Moment) -> Millis {
        Millis(self.shows(now) / MS)
    }

    /// Runs at another rate from now on.
    pub fn drift(&mut self, now: Moment, random: &mut Random) {
        *self = Self { shown: self.shows(now), since: now, rate: draw_rate(random) };
    }

    fn shows(self, now: Moment) -> u64 {
        self.shown + (now - self.since) * self.rate / 1_000_000
    }
}

fn draw_rate(random: &mut Random) -> u64 {
    1_000_000 - 24_000 + random.below(48_001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_ends_at_its_holder_before_it_ends_at_its_grantor() {
        let slow = Clock { shown: 0, since: 0, rate: 976_000 };
        let fast = Clock { shown: 0, since: 0, rate: 1_024_000 };
        let asked = slow.at(0);
        let granted = fast.at(0);
        let over_at_grantor =
            (0..1_000_000).step_by(100).find(|t| fast.at(*t).since(granted) >= 330).unwrap();
        assert!(slow.at(over_at_grantor).since(asked) >= 300);
    }
}
