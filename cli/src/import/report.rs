//! What is said of an import: bad rows and progress while it runs, and the summary.

use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use stela_common::client::WriteError;

use super::send::Done;

/// So many bad rows are told one by one.
const TOLD: u64 = 20;
/// Between two lines of progress where standard error is no terminal.
const SPARSE: Duration = Duration::from_secs(5);

/// How progress is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Progress {
    /// One line, written over.
    Live,
    /// A line now and then.
    Lines,
    None,
}

/// The report, on standard error until the summary.
pub(super) struct Report<W = io::Stderr> {
    out: W,
    table: String,
    progress: Progress,
    quiet: bool,
    began: Instant,
    said: Instant,
    /// The cursor is in the live line.
    live: bool,
    stored: u64,
    bad: u64,
    /// Something went wrong that is not a bad row.
    failed: bool,
}

impl Report {
    pub(super) fn new(db: &str, table: &str, progress: bool, quiet: bool) -> Self {
        let progress = match (quiet, io::stderr().is_terminal(), progress) {
            (true, ..) | (false, false, false) => Progress::None,
            (_, true, _) => Progress::Live,
            (_, false, true) => Progress::Lines,
        };
        let table = if db.is_empty() { table.to_owned() } else { format!("{db}.{table}") };
        Self::on(io::stderr(), table, progress, quiet)
    }

    /// Prints the summary on standard output, and tells the status.
    pub(super) fn conclude(mut self) -> io::Result<ExitCode> {
        self.clear()?;
        writeln!(io::stdout(), "{}", self.summary())?;
        Ok(if self.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

impl<W: Write> Report<W> {
    pub(super) fn on(out: W, table: String, progress: Progress, quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            out,
            table,
            progress,
            quiet,
            began: now,
            said: now,
            live: false,
            stored: 0,
            bad: 0,
            failed: false,
        }
    }

    /// Names the file's columns that are not used.
    pub(super) fn unused(&mut self, columns: &[String]) {
        if !columns.is_empty() && !self.quiet {
            // If standard error is gone, the rows are still to be imported.
            let _ = self.say(&format!(
                "columns of the file that table {} has not: {}",
                self.table,
                columns.join(", ")
            ));
        }
    }

    /// A bad row.
    pub(super) fn bad(&mut self, line: u64, why: &str) -> io::Result<()> {
        self.bad += 1;
        if self.quiet || self.bad > TOLD + 1 {
            return Ok(());
        }
        if self.bad == TOLD + 1 {
            return self
                .say(&format!("line {line} is bad too; from here on bad rows are only counted"));
        }
        self.say(&format!("line {line}: {why}"))
    }

    /// What became of a batch. `false`: nothing more shall be read.
    pub(super) fn done(&mut self, done: Done) -> io::Result<bool> {
        self.stored += done.stored;
        for (line, why) in done.bad {
            self.bad(line, &why)?;
        }
        let Some(((first, last), error)) = done.failed else { return Ok(true) };
        let lines =
            if first == last { format!("line {first}") } else { format!("lines {first}-{last}") };
        let text = match error {
            WriteError::Refused(refusal) => format!("{lines}: not stored: {refusal}"),
            WriteError::Unknown(why) => {
                format!(
                    "{lines}: it is not known which of them are stored: {why}; look before importing them again"
                )
            }
        };
        self.fail(&text)
    }

    /// Reading stopped at a bad row.
    pub(super) fn stopped(&mut self) -> bool {
        self.failed = true;
        false
    }

    /// The input cannot be read any further.
    pub(super) fn unreadable(&mut self, why: &str) -> io::Result<bool> {
        self.fail(&format!("cannot read on: {why}"))
    }

    /// Ctrl-C.
    pub(super) fn interrupted(&mut self) -> io::Result<bool> {
        self.fail("interrupted: nothing more is read; the batches on their way are waited for")
    }

    /// Everything that was taken is done. Says what was not taken: `last` is the last line of the rows that were.
    pub(super) fn rest(&mut self, last: u64) -> io::Result<()> {
        match (self.failed, last) {
            (false, _) => Ok(()),
            (true, 0) => self.say("no row is stored"),
            (true, _) => self.say(&format!("nothing after line {last} is stored")),
        }
    }

    fn fail(&mut self, text: &str) -> io::Result<bool> {
        self.failed = true;
        self.say(text)?;
        Ok(false)
    }

    /// Shows how far it is, if it is time to.
    pub(super) fn progress(&mut self) -> io::Result<()> {
        let text = format!("{} rows, {}/s", self.stored, self.rate());
        match self.progress {
            Progress::Live => {
                self.live = true;
                write!(self.out, "\r\x1b[K{text}")?;
                self.out.flush()
            }
            Progress::Lines if self.said.elapsed() >= SPARSE => self.say(&text),
            _ => Ok(()),
        }
    }

    /// Is every row that was not bad stored?
    pub(super) fn good(&self) -> bool {
        !self.failed && (self.bad == 0 || self.stored > 0)
    }

    /// The last line.
    pub(super) fn summary(&self) -> String {
        format!(
            "{} stored in {}, {}, {:.3} s, {} rows/s",
            counted(self.stored, "row"),
            self.table,
            counted(self.bad, "bad row"),
            self.began.elapsed().as_secs_f64(),
            self.rate()
        )
    }

    /// What was said so far.
    #[cfg(test)]
    pub(super) fn said(&self) -> &W {
        &self.out
    }

    fn rate(&self) -> u64 {
        (self.stored as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64
    }

    fn say(&mut self, text: &str) -> io::Result<()> {
        self.clear()?;
        self.said = Instant::now();
        writeln!(self.out, "{text}")
    }

    fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.live) { write!(self.out, "\r\x1b[K") } else { Ok(()) }
    }
}

fn counted(n: u64, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use stela_common::code::{Code, Refusal};

    use super::*;

    fn report(quiet: bool) -> Report<Vec<u8>> {
        Report::on(Vec::new(), "d.t".into(), Progress::None, quiet)
    }

    fn said(report: &Report<Vec<u8>>) -> Vec<String> {
        String::from_utf8(report.out.clone()).unwrap().lines().map(Into::into).collect()
    }

    #[test]
    fn the_first_twenty_bad_rows_are_told_and_all_are_counted() {
        let mut report = report(false);
        report.stored = 1;
        for line in 1..=50 {
            report.bad(line, "no").unwrap();
        }
        let lines = said(&report);
        assert_eq!(lines.len(), 21);
        assert_eq!((lines[0].as_str(), lines[19].as_str()), ("line 1: no", "line 20: no"));
        assert!(lines[20].contains("only counted"));
        assert!(
            report.summary().starts_with("1 row stored in d.t, 50 bad rows, "),
            "{}",
            report.summary()
        );
        assert!(report.good());
    }

    #[test]
    fn quiet_only_counts_but_failures_are_told() {
        let mut report = report(true);
        report.bad(3, "no").unwrap();
        report.unused(&["x".into()]);
        assert!(said(&report).is_empty());
        let failed = Some(((5, 9), WriteError::Unknown("no answer".into())));
        assert!(!report.done(Done { stored: 0, bad: Vec::new(), failed }).unwrap());
        assert!(said(&report)[0].starts_with("lines 5-9: it is not known"));
        assert!(!report.good());
    }

    #[test]
    fn a_refused_batch_says_that_nothing_is_stored() {
        let mut report = report(false);
        let refusal = WriteError::Refused(Refusal::new(Code::DiskFull, "disk is full"));
        let more = report
            .done(Done { stored: 4, bad: vec![(6, "no".into())], failed: Some(((7, 7), refusal)) })
            .unwrap();
        assert!(!more);
        assert_eq!(said(&report), ["line 6: no", "line 7: not stored: disk is full"]);
        assert_eq!((report.stored, report.bad), (4, 1));
    }

    #[test]
    fn only_bad_rows_or_a_strict_stop_is_a_failure() {
        let mut all_bad = report(false);
        all_bad.bad(1, "no").unwrap();
        assert!(!all_bad.good());
        let mut strict = report(false);
        strict.stored = 5;
        strict.stopped();
        assert!(!strict.good());
        assert!(report(false).good());
    }
}
