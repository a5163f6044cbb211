//! What the demo prints: titles, one line per step with the time since the start, tables, and one live line.
//!
//! The live line is overwritten in place on a terminal; where the output is no terminal, what it says is printed now and
//! then as an ordinary line, so that a log shows that things go on. Text goes out at once.

use std::io::{self, IsTerminal as _, Stdout, Write as _};
use std::time::{Duration, Instant};

/// Between two lines that are live on a terminal, where there is none.
const SPARSE: Duration = Duration::from_secs(5);

/// Standard output.
pub(super) struct Screen {
    out: Stdout,
    began: Instant,
    terminal: bool,
    /// The cursor is in the live line.
    live: bool,
    /// When something was printed last.
    said: Instant,
    /// What the demo is at.
    at: String,
    /// There is a section.
    begun: bool,
    /// A blank line comes before whatever is printed next.
    apart: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let (out, now) = (io::stdout(), Instant::now());
        let terminal = out.is_terminal();
        Self {
            out,
            began: now,
            terminal,
            live: false,
            said: now,
            at: String::new(),
            begun: false,
            apart: false,
        }
    }

    /// What the demo is at: the last live line or step.
    pub(super) fn at(&self) -> &str {
        &self.at
    }

    /// Begins a section.
    pub(super) fn title(&mut self, text: &str) -> io::Result<()> {
        self.apart |= std::mem::replace(&mut self.begun, true);
        self.print(&format!("{text}\n"))
    }

    /// Something is done.
    pub(super) fn step(&mut self, text: &str) -> io::Result<()> {
        text.clone_into(&mut self.at);
        let stamp = stamp(self.began.elapsed());
        self.print(&format!("{stamp}  {text}\n"))
    }

    /// Lines that belong to the step before, under its text.
    pub(super) fn detail(&mut self, lines: &str) -> io::Result<()> {
        let indent = " ".repeat(stamp(Duration::ZERO).len() + 2);
        let text: String = lines.lines().map(|line| format!("{indent}{line}\n")).collect();
        self.print(&text)
    }

    /// Lines as they are.
    pub(super) fn lines(&mut self, lines: &str) -> io::Result<()> {
        self.print(lines)
    }

    /// Lines as they are, with a blank line before and after.
    pub(super) fn block(&mut self, lines: &str) -> io::Result<()> {
        self.apart = true;
        self.print(lines)?;
        self.apart = true;
        Ok(())
    }

    /// Something goes on.
    pub(super) fn live(&mut self, text: &str) -> io::Result<()> {
        text.clone_into(&mut self.at);
        let line = format!("{}  {text}", stamp(self.began.elapsed()));
        if self.terminal {
            let width = rustix::termios::tcgetwinsize(&self.out)
                .map_or(80, |size| usize::from(size.ws_col))
                .max(20);
            let line: String = line.chars().take(width - 1).collect();
            self.live = true;
            write!(self.out, "\r\x1b[K{line}")?;
            self.out.flush()
        } else if self.said.elapsed() >= SPARSE {
            self.print(&format!("{line}\n"))
        } else {
            Ok(())
        }
    }

    /// Takes the live line away.
    pub(super) fn clear_live(&mut self) {
        if std::mem::take(&mut self.live) {
            // Nobody reads it any more if this fails.
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
        }
    }

    fn print(&mut self, text: &str) -> io::Result<()> {
        self.clear_live();
        self.said = Instant::now();
        if std::mem::take(&mut self.apart) {
            self.out.write_all(b"\n")?;
        }
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }
}

fn stamp(elapsed: Duration) -> String {
    format!("{:>6.1} s", elapsed.as_secs_f64())
}

/// A count with commas: 1,234,567.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number as people read it: whole ones with commas, others with two decimals.
pub(super) fn number(value: f64) -> String {
    // Up to here every whole number is one that a double holds.
    if value.fract() == 0.0 && (0.0..9e15).contains(&value) {
        count(value as u64)
    } else {
        format!("{value:.2}")
    }
}

/// `n` things, in the right number.
pub(super) fn things(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// Seconds, to the millisecond.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// Rows of cells under a header, aligned; numbers stand right where `right` says so.
pub(super) fn table(header: &[&str], rows: &[Vec<String>], right: &[usize]) -> String {
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(|c| c.chars().count())
            .chain([header[at].len()])
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cell = |(at, text): (usize, &String)| {
            let wide = widths.get(at).copied().unwrap_or(0);
            if right.contains(&at) { format!("{text:>wide$}") } else { format!("{text:<wide$}") }
        };
        let cells: Vec<String> = cells.iter().enumerate().map(cell).collect();
        format!("{}\n", cells.join("   ").trim_end())
    };
    let head: Vec<String> = header.iter().map(|h| (*h).to_owned()).collect();
    std::iter::once(line(&head)).chain(rows.iter().map(|row| line(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_commas() {
        for (n, text) in
            [(0, "0"), (12, "12"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(n), text);
        }
        assert_eq!(
            (number(23_303_471_104.0), number(0.5)),
            ("23,303,471,104".into(), "0.50".into())
        );
        assert_eq!(things(1, "row", "rows"), "1 row");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = vec![vec!["a".into(), "1.5".into()], vec!["long".into(), "10.25".into()]];
        assert_eq!(
            table(&["name", "value"], &rows, &[1]),
            "name   value\na        1.5\nlong   10.25\n"
        );
    }
}
