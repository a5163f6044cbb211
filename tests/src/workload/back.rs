//! Reading everything back.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use stela_common::client::{Client, Range, ReadFrom, TableHandle};
use stela_common::route;

use super::DB;
use super::history::{History, table_of};

/// What reading everything back found.
#[derive(Default, Debug)]
pub struct Verdict {
    /// Rows that were looked for, over all replicas.
    pub read: usize,
    /// Acknowledged and not there, or with another value.
    pub lost: Vec<String>,
    /// There twice.
    pub doubled: Vec<String>,
    /// There, and nobody wrote it.
    pub phantom: Vec<String>,
    /// Keys of which a replica has other rows than the leader.
    pub differ: Vec<String>,
}

impl Verdict {
    /// Is all as it was told?
    #[must_use]
    pub fn sound(&self) -> bool {
        [&self.lost, &self.doubled, &self.phantom, &self.differ].iter().all(|it| it.is_empty())
    }
}

/// Reads every row of these tables back by key, time and value: from the leader, and from each replica, and compares
/// each replica with the leader, row by row.
///
/// # Errors
/// Something cannot be read at all.
pub async fn read_back(client: &Client, tables: &[&str], history: &History) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (at, table) in tables.iter().enumerate() {
        read_table(client, at, table, history, &mut verdict).await?;
    }
    Ok(verdict)
}

async fn read_table(
    client: &Client,
    at: usize,
    table: &str,
    history: &History,
    verdict: &mut Verdict,
) -> Result<()> {
    let handle = client.table(DB, table).await?;
    let rows = client.admin().show_table(DB, table, false).await?;
    let shown = rows.tables.first().context("the table is not shown")?;
    let keys: BTreeSet<&String> = history.acked.keys().chain(history.unknown.keys()).collect();
    for key in keys.into_iter().filter(|key| table_of(key) == at) {
        let pid = route::partition_of(key.as_bytes(), handle.table().partition_num).0;
        let partition =
            shown.partitions.iter().find(|p| p.pid == pid).context("the partition is not shown")?;
        let found = scan(client, &handle, key, None)
            .await
            .with_context(|| format!("key {key} at the leader"))?;
        judge(history, key, "leader", &found, verdict);
        for replica in &partition.replicas {
            let copy = scan(client, &handle, key, Some(&replica.endpoint))
                .await
                .with_context(|| format!("key {key} at {}", replica.endpoint))?;
            if copy != found {
                verdict.differ.push(format!("{key} at {}", replica.endpoint));
            }
            judge(history, key, &replica.endpoint, &copy, verdict);
        }
    }
    Ok(())
}

fn judge(
    history: &History,
    key: &str,
    place: &str,
    found: &[(u64, String)],
    verdict: &mut Verdict,
) {
    let none = BTreeMap::new();
    let acked = history.acked.get(key).unwrap_or(&none);
    let unknown = history.unknown.get(key).unwrap_or(&none);
    verdict.read += acked.len();
    let mut seen = BTreeSet::new();
    for (ts, value) in found {
        if !seen.insert(*ts) {
            verdict.doubled.push(format!("{key}@{ts} at {place}"));
        }
        match acked.get(ts).or_else(|| unknown.get(ts)) {
            Some(written) if written == value => {}
            Some(_) => verdict.lost.push(format!("{key}@{ts} at {place} has another value")),
            None => verdict.phantom.push(format!("{key}@{ts} at {place}")),
        }
    }
    verdict.lost.extend(
        acked.keys().filter(|ts| !seen.contains(ts)).map(|ts| format!("{key}@{ts} at {place}")),
    );
}

/// All rows of a key, newest first, from the leader or from one replica.
async fn scan(
    client: &Client,
    table: &TableHandle,
    key: &str,
    at: Option<&str>,
) -> Result<Vec<(u64, String)>> {
    let mut rows = Vec::new();
    let mut range = Range::default();
    loop {
        let found = match at {
            None => client.scan(table, 0, key.as_bytes(), range, ReadFrom::Leader).await?,
            Some(endpoint) => client.scan_at(endpoint, table, 0, key.as_bytes(), range).await?,
        };
        let finished = found.finished;
        for (ts, value) in found.rows {
            rows.push((ts, String::from_utf8_lossy(&value).into_owned()));
        }
        match rows.last() {
            Some((ts, _)) if !finished && *ts > 1 => range.st = ts - 1,
            _ => return Ok(rows),
        }
    }
}
