//! The writers: the newest sample of the machine's metrics into the table, one acknowledged row after the other.
//!
//! Two writers for each partition, so that a partition without a leader stops its own writers and nobody else's. A writer
//! that falls behind skips samples: it always writes what is new.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use stela_common::client::{Client, TableHandle};
use stela_common::route::murmur64;
use stela_common::row::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, Shared};
use super::metrics::Sample;
use super::screen::{Screen, count};

/// Writers of each partition.
pub(super) const PER_PARTITION: u32 = 2;

/// A running load.
pub(super) struct Load {
    pub(super) ledger: Shared,
    pub(super) began: Instant,
    stop: CancellationToken,
    writers: JoinSet<Result<()>>,
}

/// One writer, and which metrics are its own.
struct Writer {
    client: Client,
    table: Arc<TableHandle>,
    ledger: Shared,
    pid: u32,
    lane: u32,
}

impl Load {
    /// Starts the writers.
    pub(super) fn start(
        client: &Client,
        table: &Arc<TableHandle>,
        samples: &watch::Receiver<Arc<Sample>>,
    ) -> Self {
        let partitions = table.table().partition_num;
        let (ledger, stop, mut writers) =
            (Ledger::of(partitions), CancellationToken::new(), JoinSet::new());
        for (pid, lane) in
            (0..partitions).flat_map(|pid| (0..PER_PARTITION).map(move |lane| (pid, lane)))
        {
            let (client, table, ledger) = (client.clone(), table.clone(), ledger.clone());
            let writer = Writer { client, table, ledger, pid, lane };
            writers.spawn(writer.run(samples.clone(), stop.clone()));
        }
        Self { ledger, began: Instant::now(), stop, writers }
    }

    /// So many rows were acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.ledger.lock().acked
    }

    /// Lets it run for a time, and shows how it goes.
    pub(super) async fn run_for(&self, time: Duration, screen: &mut Screen) -> Result<()> {
        let (until, before) = (Instant::now() + time, (Instant::now(), self.acked()));
        while Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let acked = self.acked();
            let rate = (acked - before.1) as f64 / before.0.elapsed().as_secs_f64().max(0.001);
            screen.live(&format!("writing: {} rows acknowledged, {rate:.0}/s", count(acked)))?;
        }
        Ok(())
    }

    /// Ends the writers; the rows on their way are waited for.
    pub(super) async fn finish(&mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.writers.join_next().await {
            ended??;
        }
        Ok(())
    }
}

impl Writer {
    async fn run(
        self,
        mut samples: watch::Receiver<Arc<Sample>>,
        stop: CancellationToken,
    ) -> Result<()> {
        loop {
            let sample = samples.borrow_and_update().clone();
            for (metric, value) in sample.values.iter().filter(|(metric, _)| self.owns(metric)) {
                if stop.is_cancelled() {
                    return Ok(());
                }
                self.write(metric, sample.at, *value).await?;
            }
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = samples.changed() => ensure!(changed.is_ok(), "the metrics are not read any more"),
            }
        }
    }

    async fn write(&self, metric: &str, at: u64, value: f64) -> Result<()> {
        let time = Value::Timestamp(i64::try_from(at).unwrap_or(i64::MAX));
        let row =
            self.table.row(&[Value::Varchar(metric.to_owned()), time, Value::Double(value)], at)?;
        let outcome = self.client.put(&self.table, vec![row]).await;
        let now = Instant::now();
        let mut ledger = self.ledger.lock();
        match outcome {
            Ok(stored) => {
                let epoch = stored
                    .parts
                    .iter()
                    .find(|part| part.pid == self.pid)
                    .map_or(0, |part| part.epoch);
                ledger.acknowledged(metric, (at, value), self.pid, epoch, now);
            }
            Err(error) => ledger.failed(metric, (at, value), &error),
        }
        Ok(())
    }

    fn owns(&self, metric: &str) -> bool {
        let lane = murmur64(metric.as_bytes(), 1) % u64::from(PER_PARTITION);
        self.table.partition_of(metric.as_bytes()) == self.pid && lane == u64::from(self.lane)
    }
}
