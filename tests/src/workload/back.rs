//! Reading everything back.

use anyhow::{Context, Result};
use stela_common::client::{Client, Range, ReadFrom, TableHandle};
use stela_common::route;

use super::DB;
use super::load::text;
use super::tally::Tally;
use crate::history::{Answer, History, Op};

/// Who reads back.
const PROCESS: u64 = 1000;

/// Reads every key of these tables, at the leader and at each replica, into the history.
///
/// # Errors
/// Something cannot be read at all.
pub async fn read_back(
    client: &Client,
    tables: &[&str],
    tally: &Tally,
    history: &History,
) -> Result<()> {
    for (at, table) in tables.iter().enumerate() {
        let handle = client.table(DB, table).await?;
        let rows = client.admin().show_table(DB, table, false).await?;
        let shown = rows.tables.first().context("the table is not shown")?;
        for key in tally.keys.iter().filter(|(_, table)| **table == at).map(|(key, _)| key) {
            let pid = route::partition_of(key.as_bytes(), handle.table().partition_num).0;
            let partition = shown.partitions.iter().find(|p| p.pid == pid);
            let replicas = &partition.context("the partition is not shown")?.replicas;
            let copies = replicas.iter().map(|r| Some(r.endpoint.clone()));
            for at in std::iter::once(None).chain(copies) {
                let context = || format!("key {key} at {at:?}");
                let table = handle.name().to_owned();
                let op = Op::Scan { table, key: key.clone(), limit: 0, at: at.clone() };
                let call = history.invoke(PROCESS, op);
                match scan(client, &handle, key.as_bytes(), at.as_deref()).await {
                    Ok(rows) => history.ok(call, Answer { rows: Some(rows), ..Answer::default() }),
                    Err(e) => {
                        history.fail(call, e.to_string());
                        return Err(e).with_context(context);
                    }
                }
            }
        }
    }
    Ok(())
}

/// All rows of a key, newest first, from the leader or from one replica.
async fn scan(
    client: &Client,
    table: &TableHandle,
    key: &[u8],
    at: Option<&str>,
) -> Result<Vec<(u64, String)>> {
    let mut rows = Vec::new();
    let mut range = Range::default();
    loop {
        let found = match at {
            None => client.scan(table, 0, key, range, ReadFrom::Leader).await?,
            Some(endpoint) => client.scan_at(endpoint, table, 0, key, range).await?,
        };
        let finished = found.finished;
        for (ts, value) in found.rows {
            rows.push((ts, text(&value)));
        }
        match rows.last() {
            Some((ts, _)) if !finished && *ts > 1 => range.st = ts - 1,
            _ => return Ok(rows),
        }
    }
}
