//! When one partition acknowledged, and when its leadership turned over.
//!
//! The *gap* of a turn is the time between the last acknowledgement of the old epoch and the first of the new one: what
//! a writer of that partition has to wait, all causes included.

use std::time::{Duration, Instant};

/// From one epoch to a later one, as a writer saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Turn {
    /// The old epoch.
    pub(super) from: u64,
    /// The new one.
    pub(super) to: u64,
    /// The last acknowledgement in the old one.
    pub(super) last: Instant,
    /// The first in the new one.
    pub(super) first: Instant,
}

impl Turn {
    pub(super) fn gap(&self) -> Duration {
        self.first.saturating_duration_since(self.last)
    }
}

/// The acknowledgements of one partition, in the order in which they came.
#[derive(Clone, Default, Debug)]
pub(super) struct Acks {
    /// So many.
    pub(super) rows: u64,
    /// The epoch of the newest.
    pub(super) epoch: u64,
    last: Option<Instant>,
    pause: Duration,
    turns: Vec<Turn>,
}

impl Acks {
    /// One came, of that epoch.
    pub(super) fn note(&mut self, epoch: u64, at: Instant) {
        self.rows += 1;
        let Some(last) = self.last else {
            (self.epoch, self.last) = (epoch, Some(at));
            return;
        };
        self.pause = self.pause.max(at.saturating_duration_since(last));
        if epoch > self.epoch {
            self.turns.push(Turn { from: self.epoch, to: epoch, last, first: at });
            self.epoch = epoch;
        }
        self.last = Some(at.max(last));
    }

    /// Pauses are measured from now on.
    pub(super) fn measure(&mut self) {
        self.pause = Duration::ZERO;
    }

    /// The longest time between two acknowledgements of which the second came since [`measure`](Self::measure).
    pub(super) fn longest_pause(&self) -> Duration {
        self.pause
    }

    /// The first turn that was over after that moment.
    pub(super) fn turn_since(&self, moment: Instant) -> Option<Turn> {
        self.turns.iter().copied().find(|turn| turn.first > moment)
    }

    /// Has one come after that moment?
    pub(super) fn since(&self, moment: Instant) -> bool {
        self.last.is_some_and(|last| last > moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn the_gap_is_from_the_last_of_the_old_epoch_to_the_first_of_the_new_one() {
        let (mut acks, t) = (Acks::default(), Instant::now());
        for ms in [0, 1, 2, 10] {
            acks.note(3, at(t, ms));
        }
        let killed = at(t, 9);
        // What was on its way when the leader died still counts for the old epoch.
        assert_eq!(acks.turn_since(killed), None);
        assert!(acks.since(killed));
        acks.note(4, at(t, 410));
        acks.note(4, at(t, 411));
        let turn = acks.turn_since(killed).unwrap();
        assert_eq!((turn.from, turn.to, turn.gap()), (3, 4, Duration::from_millis(400)));
        assert_eq!((acks.rows, acks.epoch), (6, 4));
    }

    #[test]
    fn turns_before_the_moment_do_not_count() {
        let (mut acks, t) = (Acks::default(), Instant::now());
        acks.note(1, at(t, 0));
        acks.note(2, at(t, 5));
        assert_eq!(acks.turn_since(at(t, 6)), None);
        acks.note(5, at(t, 20));
        assert_eq!(acks.turn_since(at(t, 6)).map(|turn| (turn.from, turn.to)), Some((2, 5)));
    }

    #[test]
    fn pauses_are_measured_across_the_moment() {
        let (mut acks, t) = (Acks::default(), Instant::now());
        acks.note(1, at(t, 0));
        acks.note(1, at(t, 500));
        acks.measure();
        assert_eq!(acks.longest_pause(), Duration::ZERO);
        acks.note(1, at(t, 530));
        acks.note(1, at(t, 531));
        assert_eq!(acks.longest_pause(), Duration::from_millis(30));
    }

    #[test]
    fn a_late_answer_of_an_older_epoch_is_no_turn_and_takes_no_time_back() {
        let (mut acks, t) = (Acks::default(), Instant::now());
        acks.note(1, at(t, 0));
        acks.note(2, at(t, 100));
        acks.note(1, at(t, 99));
        acks.note(2, at(t, 101));
        assert_eq!(acks.turns.len(), 1);
        assert_eq!(acks.epoch, 2);
        assert_eq!(acks.longest_pause(), Duration::from_millis(100));
    }
}
