//! Batches to the cluster, several at a time.
//!
//! A batch that is refused for what is in it is sent again row by row, so that the row that is to blame is told by its
//! line. After any other failure nothing more is read: what is on its way is waited for, and told.

use std::io::Write;

use anyhow::{Context, Result};
use futures::stream::{FuturesUnordered, StreamExt as _};
use stela_common::client::{Client, Row, TableHandle, WriteError};
use stela_common::code::Code;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::batch::{Batch, Read};
use super::report::Report;

/// Batches on their way at the same time.
const AT_ONCE: usize = 16;
/// How often progress is looked at.
const TICK: std::time::Duration = std::time::Duration::from_millis(200);

/// What became of a batch.
#[derive(Default)]
pub(super) struct Done {
    /// Rows that are stored.
    pub(super) stored: u64,
    /// Rows that are no rows of this table, with their lines.
    pub(super) bad: Vec<(u64, String)>,
    /// Lines of which it is not said that they are stored.
    pub(super) failed: Option<((u64, u64), WriteError)>,
}

/// Sends everything, and tells the report what became of it.
pub(super) async fn all<W: Write>(
    client: &Client,
    table: &TableHandle,
    mut batches: mpsc::Receiver<Read>,
    report: &mut Report<W>,
) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut tick = tokio::time::interval(TICK);
    let mut under_way = FuturesUnordered::new();
    let (mut more, mut taken) = (true, 0);
    while more || !under_way.is_empty() {
        tokio::select! {
            Some(done) = under_way.next() => more &= report.done(done)?,
            read = batches.recv(), if more && under_way.len() < AT_ONCE => match read {
                Some(Read::Batch(batch)) => {
                    taken = batch.range().1;
                    under_way.push(Box::pin(send(client, table, batch)));
                }
                Some(Read::Bad { line, why }) => report.bad(line, &why)?,
                Some(Read::Stopped) => more = report.stopped(),
                Some(Read::Failed(why)) => more = report.unreadable(&why)?,
                None => more = false,
            },
            _ = tick.tick() => report.progress()?,
            _ = interrupt.recv(), if more => more = report.interrupted()?,
        }
    }
    report.rest(taken)?;
    Ok(())
}

async fn send(client: &Client, table: &TableHandle, batch: Batch) -> Done {
    let range = batch.range();
    match client.put(table, batch.rows.clone()).await {
        Ok(_) => Done { stored: batch.rows.len() as u64, ..Done::default() },
        Err(error) if blames_a_row(&error) => one_by_one(client, table, batch).await,
        Err(error) => Done { failed: Some((range, error)), ..Done::default() },
    }
}

async fn one_by_one(client: &Client, table: &TableHandle, batch: Batch) -> Done {
    let (mut done, (_, last)) = (Done::default(), batch.range());
    for (line, row) in batch.lines.into_iter().zip::<Vec<Row>>(batch.rows) {
        match client.put(table, vec![row]).await {
            Ok(_) => done.stored += 1,
            Err(error) if blames_a_row(&error) => done.bad.push((line, error.to_string())),
            Err(error) => {
                done.failed = Some(((line, last), error));
                break;
            }
        }
    }
    done
}

/// Was nothing stored, because of what is in it?
fn blames_a_row(error: &WriteError) -> bool {
    let codes = [Code::PutFailed, Code::InvalidDimension, Code::TooLarge, Code::InvalidParameter];
    matches!(error, WriteError::Refused(refusal) if codes.contains(&refusal.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_not_stored_is_sent_again() {
        assert!(blames_a_row(&WriteError::Refused(Code::InvalidDimension.into())));
        assert!(!blames_a_row(&WriteError::Refused(Code::TableNotFound.into())));
        assert!(!blames_a_row(&WriteError::Unknown("put failed".into())));
    }
}
