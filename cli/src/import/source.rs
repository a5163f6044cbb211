//! Records of a CSV file (RFC 4180) and the lines on which they begin.
//!
//! Lines end with `\n` or `\r\n`; blank lines are passed over. A record may span lines inside quotes, up to a limit: a quote
//! that is never closed must not take the rest of a large file into memory.

use std::io::{self, IsTerminal as _, Read};
use std::path::Path;

use anyhow::{Context, Result};
use csv::{ByteRecord, ReaderBuilder, Terminator};
use stela_common::fs;

/// Bytes that may be read while one record is looked for: more than any row can have.
const RECORD: usize = 32 << 20;

/// Where rows come from.
pub(super) struct Source {
    reader: csv::Reader<Lines<Box<dyn Read + Send>>>,
    name: String,
    record: ByteRecord,
    /// The record has been read, and not taken.
    peeked: Option<u64>,
}

impl Source {
    /// A file, or standard input.
    pub(super) fn open(file: Option<&Path>, delimiter: u8) -> Result<Self> {
        let (input, name): (Box<dyn Read + Send>, _) =
            match file.filter(|path| *path != Path::new("-")) {
                Some(path) => {
                    let name = path.display().to_string();
                    let open = || -> io::Result<std::fs::File> {
                        let file = fs::open_read(path)?;
                        if file.metadata()?.is_dir() {
                            Err(io::ErrorKind::IsADirectory.into())
                        } else {
                            Ok(file)
                        }
                    };
                    (
                        Box::new(open().with_context(|| {
                            format!("cannot read {name}: give a CSV file, or - for standard input")
                        })?),
                        name,
                    )
                }
                None => {
                    if io::stdin().is_terminal() {
                        eprintln!("reading rows from the terminal, up to Ctrl-D");
                    }
                    (Box::new(io::stdin()), "standard input".into())
                }
            };
        Ok(Self::new(input, name, delimiter))
    }

    pub(super) fn new(input: Box<dyn Read + Send>, name: String, delimiter: u8) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            // The reader counts a line when it sees its end. With `\r\n` as one end it stops between the two bytes.
            .terminator(Terminator::Any(b'\n'))
            .from_reader(Lines { inner: input, left: RECORD, last: b'\n' });
        Self { reader, name, record: ByteRecord::new(), peeked: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The next record and its line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &ByteRecord)>> {
        let line = match self.peeked.take() {
            Some(line) => Some(line),
            None => self.read()?,
        };
        Ok(line.map(|line| (line, &self.record)))
    }

    /// The next record, which stays the next one.
    pub(super) fn peek(&mut self) -> io::Result<Option<&ByteRecord>> {
        if self.peeked.is_none() {
            self.peeked = self.read()?;
        }
        Ok(self.peeked.map(|_| &self.record))
    }

    fn read(&mut self) -> io::Result<Option<u64>> {
        loop {
            self.reader.get_mut().left = RECORD;
            if !self.reader.read_byte_record(&mut self.record).map_err(io_error)? {
                return Ok(None);
            }
            // Lines before it: those that are over now, without its own end and the line ends inside it. A record that
            // the end of the file cuts short has no end of its own.
            let inside = self.record.as_slice().iter().filter(|c| **c == b'\n').count() as u64;
            let began = self.record.position().map_or(1, csv::Position::line);
            let line = self.reader.position().line().saturating_sub(1 + inside).max(began);
            if self.record.iter().next_back().is_some_and(|field| field.ends_with(b"\r")) {
                cut_last(&mut self.record);
            }
            if self.record.len() == 1 && self.record[0].is_empty() {
                continue;
            }
            return Ok(Some(line));
        }
    }
}

/// Takes the `\r` of a `\r\n` off.
fn cut_last(record: &mut ByteRecord) {
    let last = record.len() - 1;
    let field = record[last][..record[last].len() - 1].to_vec();
    record.truncate(last);
    record.push_field(&field);
}

fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")),
    }
}

/// The input, with an end to its last line, and no more than so many bytes at a time.
struct Lines<R> {
    inner: R,
    left: usize,
    last: u8,
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            let text = format!("a row of more than {} MiB: is a quote not closed?", RECORD >> 20);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let room = buffer.len().min(self.left);
        let n = self.inner.read(&mut buffer[..room])?;
        if let Some(last) = n.checked_sub(1).and_then(|at| buffer.get(at)) {
            (self.last, self.left) = (*last, self.left - n);
            return Ok(n);
        }
        match buffer.first_mut() {
            Some(first) if self.last != b'\n' => {
                (*first, self.last) = (b'\n', b'\n');
                Ok(1)
            }
            _ => Ok(0),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A source of that text.
    pub(in crate::import) fn text(text: &str) -> Source {
        Source::new(Box::new(io::Cursor::new(text.as_bytes().to_vec())), "text".into(), b',')
    }

    fn all(mut source: Source) -> Vec<(u64, Vec<String>)> {
        let mut rows = Vec::new();
        while let Some((line, record)) = source.next().unwrap() {
            rows.push((
                line,
                record.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect(),
            ));
        }
        rows
    }

    fn row(line: u64, fields: &[&str]) -> (u64, Vec<String>) {
        (line, fields.iter().map(|f| (*f).to_owned()).collect())
    }

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        let want = [
            row(1, &["a", "b"]),
            row(3, &["c\nd", "e"]),
            row(6, &["f", "g \"h\""]),
            row(7, &["", ""]),
        ];
        let unix = "a,b\n\n\"c\nd\",e\n\nf,\"g \"\"h\"\"\"\n,\n";
        assert_eq!(all(text(unix)), want);
        assert_eq!(all(text(unix.trim_end())), want);
        let dos = unix.replace('\n', "\r\n").replace("c\r\nd", "c\nd");
        assert_eq!(all(text(&dos)), want);
        assert_eq!(all(text(&dos[..dos.len() - 2])), want);
        assert_eq!(all(text(&format!("\u{feff}{unix}"))), want);
    }

    #[test]
    fn a_quote_that_is_not_closed_ends_with_the_file_and_is_told_by_its_line() {
        assert_eq!(all(text("a,b\n\"c,d\ne")), [row(1, &["a", "b"]), row(2, &["c,d\ne\n"])]);
    }

    #[test]
    fn a_row_without_an_end_is_an_error_and_not_all_memory() {
        let endless = io::Read::chain(io::Cursor::new(b"a,b\n\"".to_vec()), io::repeat(b'x'));
        let mut source = Source::new(Box::new(endless), "endless".into(), b',');
        assert_eq!(source.next().unwrap().map(|(line, _)| line), Some(1));
        assert!(source.next().unwrap_err().to_string().contains("quote"));
    }

    #[test]
    fn peeking_takes_nothing() {
        let mut source = text("a\nb\n");
        assert_eq!(source.peek().unwrap().map(|r| r[0].to_vec()), Some(b"a".to_vec()));
        assert_eq!(all(source), [row(1, &["a"]), row(2, &["b"])]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(all(text("")), []);
        assert_eq!(all(text("\n\r\n\n")), []);
    }
}
