//! What a command answers, and how it is printed: in the two table layouts that operators and their tools know, or as
//! JSON.
//!
//! Invariant: commands make values; only this module makes text of tables, so each layout is in one place.

mod answer;
mod cell;
mod json;
mod plain;
mod ruled;
mod units;

pub(crate) use answer::{Answer, Part};
pub(crate) use cell::{Cell, Table};

use std::io::{self, Write};

/// Which columns and words the tables have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// What the operators' document shows: states as `kTabletHealthy`, a `ttl` column, no `diskused`.
    Classic,
    /// What OpenMLDB 0.9 prints, which scripts read by position.
    Current,
}

/// How answers are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Style {
    /// Every table as JSON.
    pub(crate) json: bool,
    /// The longest cell of a plain table, in bytes.
    pub(crate) longest_cell: usize,
}

/// Prints an answer, whole, and flushes.
pub(crate) fn write(out: &mut dyn Write, answer: &Answer, style: Style) -> io::Result<()> {
    let text = if style.json { json::answer(answer) } else { text(answer, style.longest_cell) };
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn text(answer: &Answer, longest_cell: usize) -> String {
    let mut text = String::new();
    for part in &answer.parts {
        match part {
            Part::Line(line) => {
                text.push_str(line);
                text.push('\n');
            }
            Part::Plain(table) => text.push_str(&plain::table(table, longest_cell)),
            Part::Ruled(table) => text.push_str(&ruled::table(table)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_printed_in_its_order() {
        let mut table = Table::new(&["#", "name"]);
        table.push(vec![Cell::number(1u64), Cell::text("demo_db")]);
        let answer = Answer {
            parts: vec![Part::Line("ok".into()), Part::Plain(table)],
            ..Answer::default()
        };
        let style = Style { json: false, longest_cell: 256 };
        let mut out = Vec::new();
        write(&mut out, &answer, style).unwrap();
        // D12 of the reference.
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "ok\n  #  name   \n--------------\n  1  demo_db\n"
        );
    }
}
