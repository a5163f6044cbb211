//! The thread that reads: records become rows, rows become batches, and wrong records are told.
//!
//! The channel is bounded, so that reading waits for the cluster.

use std::sync::Arc;

use anyhow::{Context, Result};
use stela_common::client::{Row, TableHandle};
use tokio::sync::mpsc;

use super::mapping::Mapping;
use super::source::Source;

/// A batch is sent when it has so many bytes, however few rows that are.
const BYTES: usize = 1 << 20;
/// Batches that may wait to be sent.
const WAITING: usize = 4;

/// Rows that are sent together, each with its line.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) lines: Vec<u64>,
    pub(super) rows: Vec<Row>,
}

impl Batch {
    /// Its first and last line.
    pub(super) fn range(&self) -> (u64, u64) {
        (
            self.lines.first().copied().unwrap_or_default(),
            self.lines.last().copied().unwrap_or_default(),
        )
    }
}

/// What reading comes to.
#[derive(Debug)]
pub(super) enum Read {
    Batch(Batch),
    /// A record that is no row.
    Bad {
        line: u64,
        why: String,
    },
    /// Nothing more is read: a bad row and `--strict`.
    Stopped,
    /// Nothing more can be read.
    Failed(String),
}

/// Starts to read.
pub(super) fn read(
    source: Source,
    mapping: Mapping,
    table: Arc<TableHandle>,
    most: usize,
    strict: bool,
) -> Result<mpsc::Receiver<Read>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let row = move |record: &csv::ByteRecord| mapping.row(&table, record);
    let run = move || {
        // When nobody takes batches any more there is nobody to tell.
        let _ = gather(source, row, most, strict, |read| sender.blocking_send(read));
    };
    std::thread::Builder::new()
        .name("stela-import".into())
        .spawn(run)
        .context("cannot start a thread")?;
    Ok(receiver)
}

fn gather<E>(
    mut source: Source,
    row: impl Fn(&csv::ByteRecord) -> Result<Row, String>,
    most: usize,
    strict: bool,
    mut send: impl FnMut(Read) -> Result<(), E>,
) -> Result<(), E> {
    let (mut batch, mut bytes) = (Batch::default(), 0);
    let end = loop {
        let (line, row) = match source.next() {
            Ok(Some((line, record))) => (line, row(record)),
            Ok(None) => break None,
            Err(error) => break Some(Read::Failed(error.to_string())),
        };
        match row {
            Ok(row) => {
                bytes += row.value.len()
                    + row.dimensions.iter().map(|(_, key)| key.len()).sum::<usize>();
                batch.lines.push(line);
                batch.rows.push(row);
            }
            Err(why) => {
                send(Read::Bad { line, why })?;
                if strict {
                    break Some(Read::Stopped);
                }
            }
        }
        if batch.rows.len() >= most || bytes >= BYTES {
            send(Read::Batch(std::mem::take(&mut batch)))?;
            bytes = 0;
        }
    };
    if !batch.rows.is_empty() {
        send(Read::Batch(batch))?;
    }
    end.map_or(Ok(()), send)
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::text;
    use super::*;

    /// Reads a file of values, of which those that begin with `x` are bad.
    fn gathered(csv: &str, most: usize, strict: bool) -> Vec<String> {
        let row = |record: &csv::ByteRecord| {
            let value = record[0].to_vec();
            if value.starts_with(b"x") {
                return Err("bad".into());
            }
            Ok(Row { time: 1, dimensions: vec![(0, b"k".to_vec().into())], value: value.into() })
        };
        let mut told = Vec::new();
        let send = |read| {
            told.push(match read {
                Read::Batch(batch) => format!("{:?}", batch.lines),
                Read::Bad { line, why } => format!("{why} {line}"),
                Read::Stopped => "stopped".into(),
                Read::Failed(why) => why,
            });
            Ok::<(), ()>(())
        };
        gather(text(csv), row, most, strict, send).unwrap();
        told
    }

    #[test]
    fn rows_are_gathered_and_bad_ones_told() {
        assert_eq!(gathered("a\nb\nx\nc\n\nd\n", 2, false), ["[1, 2]", "bad 3", "[4, 6]"]);
        assert_eq!(gathered("", 2, false), [""; 0]);
    }

    #[test]
    fn strict_stops_at_the_first_bad_row_and_sends_those_before() {
        assert_eq!(gathered("a\nb\nc\nx\nd\n", 2, true), ["[1, 2]", "bad 4", "[3]", "stopped"]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes() {
        let big = "v".repeat(BYTES / 2);
        assert_eq!(gathered(&format!("{big}\n{big}\n{big}\n"), 100, false), ["[1, 2]", "[3]"]);
    }
}
