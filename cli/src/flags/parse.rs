//! The parser: `--f=v`, `--f v`, `-f=v`, `-f v`, `--f` and `--nof` of a truth value, `--flagfile=path`.
//!
//! Invariant: after a first error the rest is still read, so that the caller learns the role, and with it how errors
//! are told; the error that is told is the first.

use std::path::Path;

use stela_common::fs;

use super::Flags;
use super::table::{FLAGS, Kind};

/// Flag files that name flag files that name flag files.
const DEEPEST: usize = 8;

/// What is wrong with the flags: the cause and the cure in one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FlagError(String);

impl FlagError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Flags, and the first thing that is wrong with them.
#[derive(Debug)]
pub(crate) struct Parsed {
    /// What was understood.
    pub(crate) flags: Flags,
    /// What was not.
    pub(crate) error: Option<FlagError>,
}

/// Reads arguments, after the environment.
pub(crate) fn parse(args: &[String], environment: impl Fn(&str) -> Option<String>) -> Parsed {
    let mut parser = Parser { flags: Flags::default(), error: None };
    for flag in FLAGS.iter().filter(|f| !["flagfile", "help", "version"].contains(&f.name)) {
        let variable = format!("STELA_{}", flag.name.to_ascii_uppercase());
        if let Some(value) = environment(&variable).filter(|v| !v.is_empty()) {
            let set = parser.flags.set(flag.name, flag.kind, &value);
            parser
                .note(set.map_err(|e| FlagError(format!("environment variable {variable}: {e}"))));
        }
    }
    parser.words(args, 0);
    Parsed { flags: parser.flags, error: parser.error }
}

struct Parser {
    flags: Flags,
    error: Option<FlagError>,
}

impl Parser {
    fn note(&mut self, result: Result<(), FlagError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }

    fn words(&mut self, words: &[String], depth: usize) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let result = match word.strip_prefix("--").or_else(|| word.strip_prefix('-')) {
                Some("") if word == "--" && words.as_slice().is_empty() => Ok(()),
                Some(flag) if !flag.is_empty() => self.one(flag, || words.next().cloned(), depth),
                _ => Err(FlagError(format!(
                    "unexpected argument '{word}': flags are written --name=value"
                ))),
            };
            self.note(result);
        }
    }

    /// One flag, without its dashes. `next` gives the argument after it.
    fn one(
        &mut self,
        text: &str,
        next: impl FnOnce() -> Option<String>,
        depth: usize,
    ) -> Result<(), FlagError> {
        let (written, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        let name = if written == "h" { "help".to_owned() } else { written.replace('-', "_") };
        let Some((name, kind)) = Flags::find(&name) else {
            return match name.strip_prefix("no").and_then(Flags::find) {
                Some((name, Kind::Truth)) if value.is_none() => {
                    self.flags.set(name, Kind::Truth, "false")
                }
                Some((name, Kind::Truth)) => {
                    Err(FlagError(format!("--no{name} takes no value; write --{name}=false")))
                }
                _ => Err(unknown(&name)),
            };
        };
        let value = match value {
            Some(value) => value,
            None if kind == Kind::Truth => "true".into(),
            None => next()
                .ok_or_else(|| FlagError(format!("--{name} needs a value; write --{name}=...")))?,
        };
        if name == "flagfile" {
            return value
                .split(',')
                .filter(|p| !p.is_empty())
                .try_for_each(|path| self.file(path, depth + 1));
        }
        self.flags.set(name, kind, &value)
    }

    fn file(&mut self, path: &str, depth: usize) -> Result<(), FlagError> {
        if depth > DEEPEST {
            return Err(FlagError(format!("--flagfile={path}: files name each other in a circle")));
        }
        let text = fs::read_to_string(Path::new(path)).map_err(|e| {
            FlagError(format!("cannot read --flagfile={path}: {e}; correct the path"))
        })?;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let result = match line.strip_prefix("--").or_else(|| line.strip_prefix('-')) {
                Some(flag) => {
                    let (flag, rest) = match flag.split_once(char::is_whitespace) {
                        // A blank before any `=` separates a value; one after it is part of the value.
                        Some((name, rest)) if !name.contains('=') => {
                            (name, Some(rest.trim().to_owned()))
                        }
                        _ => (flag, None),
                    };
                    let unused = std::cell::Cell::new(rest);
                    let result = self.one(flag, || unused.take(), depth);
                    match (result, unused.take()) {
                        (Ok(()), Some(rest)) => {
                            Err(FlagError(format!("unexpected '{rest}'; write --name=value")))
                        }
                        (result, _) => result,
                    }
                }
                None => Err(FlagError(format!(
                    "'{line}' is not a flag; write --name=value, or # before a comment"
                ))),
            };
            self.note(result.map_err(|e| FlagError(format!("{path}, line {}: {e}", at + 1))));
        }
        Ok(())
    }
}

fn unknown(name: &str) -> FlagError {
    let close = FLAGS.iter().map(|f| (distance(name, f.name), f.name)).min();
    match close {
        Some((far, close)) if far <= 1 + name.len() / 4 => {
            FlagError(format!("unknown flag --{name}; did you mean --{close}?"))
        }
        _ => FlagError(format!("unknown flag --{name}; --help lists the flags")),
    }
}

/// How many letters have to be changed, added or taken away.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
