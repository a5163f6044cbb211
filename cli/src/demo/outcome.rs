//! What a run of the demo came to, and its last lines.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::check::Finding;
use super::screen::{Screen, count, seconds, things};

/// What a run came to.
pub(super) struct Outcome {
    /// Acknowledged rows.
    pub(super) acked: u64,
    /// Rows of which it was not said whether they are stored.
    pub(super) open: u64,
    /// How long the writers wrote.
    pub(super) load_time: Duration,
    /// The longest time without an acknowledged row of a partition that the killed tablet led.
    pub(super) gap: Duration,
    /// How many it led.
    pub(super) led: usize,
    /// From its restart until all was whole.
    pub(super) whole: Duration,
    /// What reading back found, at all places together.
    pub(super) finding: Finding,
    /// Lines in which a server says that it panicked.
    pub(super) panics: Vec<String>,
}

impl Outcome {
    /// Is all as promised?
    pub(super) fn good(&self) -> bool {
        self.acked > 0
            && self.finding.lost.is_empty()
            && self.finding.foreign.is_empty()
            && self.panics.is_empty()
    }

    /// The last lines.
    pub(super) fn conclude(&self, screen: &mut Screen) -> io::Result<()> {
        screen.title("Result")?;
        let rate = self.acked as f64 / self.load_time.as_secs_f64().max(0.001);
        let open = match self.open {
            0 => String::new(),
            n => format!(
                "; of {} it is not known, and each was found whole or not at all",
                things(n, "row", "rows")
            ),
        };
        screen.lines(&format!(
            "  written       {} rows in {:.1} s, {rate:.0}/s{open}\n\
             \x20 gap           {} without an acknowledged row, the longest of {}\n\
             \x20 whole again   {} after the restart of the tablet\n\
             \x20 read back     every row, from the leaders and from each replica: {} looked for\n",
            count(self.acked),
            self.load_time.as_secs_f64(),
            seconds(self.gap),
            things(self.led as u64, "partition", "partitions"),
            seconds(self.whole),
            things(self.finding.rows, "row", "rows"),
        ))?;
        for (what, lines) in [
            ("LOST", &self.finding.lost),
            ("WRONG", &self.finding.foreign),
            ("PANIC", &self.panics),
        ] {
            for line in lines.iter().take(10) {
                screen.lines(&format!("  {what}: {line}\n"))?;
            }
        }
        screen.lines(&format!(
            "\n{} acknowledged rows, {} rows lost\n",
            count(self.acked),
            self.lost()
        ))
    }

    /// Rows that were lost anywhere; one that two replicas lack is one.
    fn lost(&self) -> usize {
        let row = |line: &str| line.split(": ").next().unwrap_or(line).to_owned();
        self.finding.lost.iter().map(|line| row(line)).collect::<BTreeSet<_>>().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(finding: Finding) -> Outcome {
        let (time, panics) = (Duration::from_secs(1), Vec::new());
        Outcome {
            acked: 5,
            open: 0,
            load_time: time,
            gap: time,
            led: 2,
            whole: time,
            finding,
            panics,
        }
    }

    #[test]
    fn only_a_run_that_lost_nothing_is_good() {
        assert!(outcome(Finding::default()).good());
        let nothing_written = Outcome { acked: 0, ..outcome(Finding::default()) };
        assert!(!nothing_written.good());
        let panicked =
            Outcome { panics: vec!["tablet 1: panicked at".into()], ..outcome(Finding::default()) };
        assert!(!panicked.good());
        assert!(
            !outcome(Finding { foreign: vec!["m at 1: there twice".into()], ..Finding::default() })
                .good()
        );
    }

    #[test]
    fn a_row_that_several_places_lack_is_one_row() {
        let lost = ["m at 1: not at the leader", "m at 1: not at a:1", "m at 2: not at a:1"]
            .map(Into::into)
            .to_vec();
        let outcome = outcome(Finding { lost, ..Finding::default() });
        assert_eq!(outcome.lost(), 2);
        assert!(!outcome.good());
    }
}
