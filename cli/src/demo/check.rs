//! Is every acknowledged row there? Each is read back by key, time and value.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use stela_common::client::{Client, Range, ReadFrom, TableHandle};
use stela_common::row::Value;

use super::ledger::{Ledger, Series};

/// Series that are read at the same time.
const AT_ONCE: usize = 16;

/// Where rows are read.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// At the leader of each partition: linearizable.
    Leaders,
    /// At one replica, whatever it has.
    Replica(&'a str),
}

/// What reading back found.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// Acknowledged rows that were looked for.
    pub(super) rows: u64,
    /// Those that are not there, or not with their value.
    pub(super) lost: Vec<String>,
    /// Rows that are there twice, or that nobody wrote.
    pub(super) foreign: Vec<String>,
}

impl Finding {
    pub(super) fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.lost.extend(other.lost);
        self.foreign.extend(other.foreign);
    }
}

/// Reads everything back that the ledger tells of. Writers may go on: what is newer than the ledger is passed over.
pub(super) async fn read_back(
    client: &Client,
    table: &TableHandle,
    ledger: &Ledger,
    place: Place<'_>,
) -> Result<Finding> {
    let fold = |mut all: Finding, one| async move {
        all.add(one);
        Ok(all)
    };
    stream::iter(&ledger.series)
        .map(|(metric, series)| read_series(client, table, metric, series, place))
        .buffer_unordered(AT_ONCE)
        .try_fold(Finding::default(), fold)
        .await
}

async fn read_series(
    client: &Client,
    table: &TableHandle,
    metric: &str,
    series: &Series,
    place: Place<'_>,
) -> Result<Finding> {
    let found = scan(client, table, metric, place).await.with_context(|| match place {
        Place::Leaders => format!("{metric} cannot be read from its leader"),
        Place::Replica(endpoint) => format!("{metric} cannot be read from {endpoint}"),
    })?;
    Ok(judge(metric, series, &found, place))
}

fn judge(metric: &str, series: &Series, found: &[(u64, f64)], place: Place<'_>) -> Finding {
    let place = match place {
        Place::Leaders => "the leader",
        Place::Replica(endpoint) => endpoint,
    };
    let mut finding = Finding { rows: series.acked.len() as u64, ..Finding::default() };
    let mut there: BTreeMap<u64, f64> = BTreeMap::new();
    for (time, value) in found.iter().copied().filter(|(time, _)| *time <= series.until) {
        if there.insert(time, value).is_some() {
            finding.foreign.push(format!("{metric} at {time}: there twice at {place}"));
        }
    }
    for (time, value) in &series.acked {
        match there.remove(time) {
            None => finding.lost.push(format!("{metric} at {time}: not at {place}")),
            Some(other) if other.to_bits() != value.to_bits() => {
                finding
                    .lost
                    .push(format!("{metric} at {time}: {other} at {place} and not {value}"));
            }
            Some(_) => {}
        }
    }
    for (time, value) in there {
        let open = series.open.iter().any(|(t, v)| *t == time && v.to_bits() == value.to_bits());
        if !open {
            finding
                .foreign
                .push(format!("{metric} at {time}: {value} at {place} was never written"));
        }
    }
    finding
}

/// All rows of a metric, newest first.
async fn scan(
    client: &Client,
    table: &TableHandle,
    metric: &str,
    place: Place<'_>,
) -> Result<Vec<(u64, f64)>> {
    let mut rows = Vec::new();
    let mut range = Range::default();
    loop {
        let scanned = match place {
            Place::Leaders => {
                client.scan(table, 0, metric.as_bytes(), range, ReadFrom::Leader).await?
            }
            Place::Replica(endpoint) => {
                client.scan_at(endpoint, table, 0, metric.as_bytes(), range).await?
            }
        };
        for (time, bytes) in scanned.rows {
            rows.push((time, value(table, metric, time, &bytes)?));
        }
        match rows.last() {
            // No time has two rows, so that the next page begins before the last one.
            Some((time, _)) if !scanned.finished && *time > 1 => range.st = time - 1,
            _ => return Ok(rows),
        }
    }
}

/// The newest row of a metric, from its leader.
pub(super) async fn newest(
    client: &Client,
    table: &TableHandle,
    metric: &str,
) -> Result<Option<(u64, f64)>> {
    match client.get(table, 0, metric.as_bytes(), 0, ReadFrom::Leader).await? {
        None => Ok(None),
        Some((time, bytes)) => Ok(Some((time, value(table, metric, time, &bytes)?))),
    }
}

/// The number in a stored row, whose other columns must be the key and time under which it was found.
fn value(table: &TableHandle, metric: &str, time: u64, bytes: &[u8]) -> Result<f64> {
    match table.decode(bytes)?.as_slice() {
        [Value::Varchar(name), Value::Timestamp(ts), Value::Double(value)]
            if name == metric && u64::try_from(*ts) == Ok(time) =>
        {
            Ok(*value)
        }
        other => bail!("the row at {time} holds something else: {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series() -> Series {
        Series {
            acked: vec![(1, 1.0), (2, 2.0), (5, 5.0)],
            open: vec![(3, 3.0), (4, 4.0)],
            until: 5,
        }
    }

    fn judged(found: &[(u64, f64)]) -> Finding {
        judge("m", &series(), found, Place::Replica("a:1"))
    }

    #[test]
    fn rows_that_may_be_there_may_also_not_be_there() {
        for found in [
            &[(5, 5.0), (2, 2.0), (1, 1.0)][..],
            &[(9, 9.0), (5, 5.0), (3, 3.0), (2, 2.0), (1, 1.0)],
        ] {
            assert_eq!(judged(found), Finding { rows: 3, ..Finding::default() });
        }
    }

    #[test]
    fn what_is_missing_or_differs_is_lost() {
        let finding = judged(&[(5, 5.5), (1, 1.0)]);
        assert_eq!(finding.lost, ["m at 2: not at a:1", "m at 5: 5.5 at a:1 and not 5"]);
        assert!(finding.foreign.is_empty());
    }

    #[test]
    fn what_is_there_twice_or_was_never_written_is_told() {
        let finding = judged(&[(5, 5.0), (5, 5.0), (4, 4.5), (2, 2.0), (1, 1.0), (0, 0.5)]);
        assert!(finding.lost.is_empty());
        let told = finding.foreign.join("\n");
        assert_eq!(finding.foreign.len(), 3, "{told}");
        assert!(
            told.contains("at 5: there twice")
                && told.contains("at 4: 4.5")
                && told.contains("at 0: 0.5"),
            "{told}"
        );
    }
}
