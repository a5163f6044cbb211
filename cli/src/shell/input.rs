//! Where lines come from: a terminal with editing, a terminal without, or a pipe.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{CompletionType, Config, Editor};

use super::complete::{Completer, Names};

/// Lines that are remembered, in memory only.
const HISTORY: usize = 1000;
/// Terminals that cannot move their cursor.
const PLAIN: [&str; 3] = ["dumb", "cons25", "emacs"];

/// Where lines come from.
pub(super) enum Input {
    /// A terminal: lines are edited, remembered and completed.
    Edited(Box<Editor<Completer, MemHistory>>),
    /// A terminal that cannot move its cursor: a prompt, and lines as they come.
    Plain,
    /// A pipe or a file: lines as they come, no prompt.
    Piped,
}

impl Input {
    /// Standard input.
    pub(super) fn open(names: Box<dyn Names>) -> Self {
        if !io::stdin().is_terminal() {
            return Self::Piped;
        }
        let plain =
            std::env::var("TERM").is_ok_and(|t| PLAIN.iter().any(|p| p.eq_ignore_ascii_case(&t)));
        match editor(names) {
            Ok(editor) if !plain => Self::Edited(Box::new(editor)),
            _ => Self::Plain,
        }
    }

    /// Is somebody sitting there?
    pub(super) fn is_terminal(&self) -> bool {
        !matches!(self, Self::Piped)
    }

    /// The next line; `None` at the end (also after Ctrl-C and Ctrl-D).
    pub(super) fn line(&mut self, prompt: &str) -> io::Result<Option<String>> {
        match self {
            Self::Edited(editor) => {
                let line = edited(editor, prompt)?;
                if let Some(line) = &line {
                    // A line that cannot be remembered can still be answered.
                    let _ = editor.add_history_entry(line);
                }
                Ok(line)
            }
            Self::Plain => {
                let mut out = io::stdout();
                out.write_all(prompt.as_bytes())?;
                out.flush()?;
                read_line(&mut io::stdin().lock())
            }
            Self::Piped => read_line(&mut io::stdin().lock()),
        }
    }

    /// The next word, from as many lines as it takes.
    pub(super) fn token(&mut self) -> io::Result<Option<String>> {
        loop {
            let line = match self {
                Self::Edited(editor) => edited(editor, "")?,
                Self::Plain | Self::Piped => read_line(&mut io::stdin().lock())?,
            };
            let Some(line) = line else { return Ok(None) };
            if let Some(word) = line.split_ascii_whitespace().next() {
                return Ok(Some(word.to_owned()));
            }
        }
    }
}

fn editor(names: Box<dyn Names>) -> rustyline::Result<Editor<Completer, MemHistory>> {
    let config = Config::builder()
        .max_history_size(HISTORY)?
        .history_ignore_dups(true)?
        .completion_type(CompletionType::List)
        // Lines that are pasted are commands, one by one, as if they were typed.
        .bracketed_paste(false)
        .build();
    let mut editor = Editor::with_history(config.clone(), MemHistory::with_config(&config))?;
    editor.set_helper(Some(Completer::new(names)));
    Ok(editor)
}

fn edited(editor: &mut Editor<Completer, MemHistory>, prompt: &str) -> io::Result<Option<String>> {
    match editor.readline(prompt) {
        Ok(line) => Ok(Some(line)),
        Err(ReadlineError::Eof | ReadlineError::Interrupted) => Ok(None),
        Err(ReadlineError::Io(e)) => Err(e),
        Err(e) => Err(io::Error::other(e)),
    }
}

/// The next line, with its end; bytes that are no text are an error rather than another key or value than was meant.
fn read_line(from: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let not_text =
        |_| io::Error::new(io::ErrorKind::InvalidData, "a line of the input is not UTF-8");
    String::from_utf8(bytes).map(Some).map_err(not_text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_until_the_end() {
        let mut from: &[u8] = b"one\n\ntwo";
        assert_eq!(read_line(&mut from).unwrap().as_deref(), Some("one\n"));
        assert_eq!(read_line(&mut from).unwrap().as_deref(), Some("\n"));
        assert_eq!(read_line(&mut from).unwrap().as_deref(), Some("two"));
        assert_eq!(read_line(&mut from).unwrap(), None);
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
    }
}
