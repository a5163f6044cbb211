//! 8 writers; kill -9 of the tablet that leads most, 20 times; restarted and whole before the next.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Outcome, Plan, conclude, median};
use crate::cluster::Cluster;
use crate::workload::{Load, await_whole, busiest_leader, create_table, read_back};

const TABLE: &str = "kill_leader";

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let rounds = plan.rounds.unwrap_or(20);
    let mut cluster = Cluster::start(3, 3).await?;
    let client = cluster.client().await?;
    let table = create_table(&client, TABLE, 8, 3).await?;
    await_whole(&client, Duration::from_secs(30)).await?;
    let load = Load::start(&client, &table, 8, Duration::from_secs(600));
    let mut kills = Vec::new();
    let mut faulty = Duration::ZERO;
    for round in 1..=rounds {
        load.await_acked(1000).await?;
        let (endpoint, led) = busiest_leader(&client, TABLE).await?;
        let at = cluster.find(&endpoint).context("a tablet that is not ours")?;
        let killed = Instant::now();
        cluster.kill(at)?;
        // The other tablets take over while it is away.
        load.await_acked(1000).await?;
        let gap = loop {
            if let Some(gap) = load.history.lock().gap(&led, killed) {
                break gap;
            }
            anyhow::ensure!(
                killed.elapsed() < Duration::from_secs(60),
                "partitions {led:?} do not take writes again"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        cluster.launch(at)?;
        cluster.await_ready(at).await?;
        let whole = await_whole(&client, Duration::from_secs(60)).await?;
        faulty += gap;
        println!(
            "kill {round:>2}: {endpoint} led {} of 8, gap {gap:>7.3?}, whole {whole:>7.3?} after its return",
            led.len()
        );
        kills.push(gap);
    }
    let (history, elapsed) = load.finish().await;
    await_whole(&client, Duration::from_secs(60)).await?;
    let verdict = read_back(&client, TABLE, &history).await?;
    let (middle, worst) = (median(&kills), kills.iter().max().copied().unwrap_or_default());
    println!("gap: median {middle:.3?}, worst {worst:.3?} of {rounds}");
    let promises = [("median gap at most 1 s".to_owned(), middle <= Duration::from_secs(1))];
    Ok(conclude(cluster, &history, elapsed.saturating_sub(faulty), &verdict, &promises))
}
