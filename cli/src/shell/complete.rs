//! Completion: commands first, then what the client knows to come next.

use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// What can stand at a place of a line.
pub(crate) trait Names {
    /// All words that may follow those; none of them: the commands.
    fn after(&self, words: &[&str]) -> Vec<String>;
}

/// Completes the last word of a line.
pub(super) struct Completer {
    names: Box<dyn Names>,
}

impl Completer {
    pub(super) fn new(names: Box<dyn Names>) -> Self {
        Self { names }
    }

    /// Where the word begins in which the cursor is, and what it may become.
    fn candidates(&self, line: &str, pos: usize) -> (usize, Vec<String>) {
        let before = &line[..pos];
        let start = before.rfind(' ').map_or(0, |at| at + 1);
        let words: Vec<&str> = before[..start].split(' ').filter(|w| !w.is_empty()).collect();
        let mut found = self.names.after(&words);
        found.retain(|name| name.starts_with(&before[start..]));
        found.sort_unstable();
        found.dedup();
        if let [only] = &mut found[..] {
            only.push(' ');
        }
        (start, found)
    }
}

impl rustyline::completion::Completer for Completer {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.candidates(line, pos))
    }
}

impl Hinter for Completer {
    type Hint = String;
}
impl Highlighter for Completer {}
impl Validator for Completer {}
impl Helper for Completer {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Names for Fixed {
        fn after(&self, words: &[&str]) -> Vec<String> {
            let names: &[&str] = match words {
                [] => &["showtable", "showtablet", "use"],
                ["use"] => &["db1", "db2", "other"],
                _ => &[],
            };
            names.iter().map(|n| (*n).to_owned()).collect()
        }
    }

    #[test]
    fn the_word_at_the_cursor_is_completed() {
        let completer = Completer::new(Box::new(Fixed));
        let at_end = |line: &str| completer.candidates(line, line.len());
        assert_eq!(at_end("show"), (0, vec!["showtable".into(), "showtablet".into()]));
        assert_eq!(at_end("u"), (0, vec!["use ".into()]));
        assert_eq!(at_end("use db"), (4, vec!["db1".into(), "db2".into()]));
        assert_eq!(at_end("use  o"), (5, vec!["other ".into()]));
        assert_eq!(at_end("use db1 "), (8, vec![]));
        assert_eq!(completer.candidates("use db", 2), (0, vec!["use ".into()]));
    }
}
