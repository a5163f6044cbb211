//! kill -9 of all six processes under load; restarted in a random order, with no command given: every acknowledged row
//! is there and every partition is whole within 30 s.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::seq::SliceRandom;
use rand::{SeedableRng, rngs::StdRng};

use super::{Outcome, Plan, conclude};
use crate::cluster::Cluster;
use crate::workload::{Load, await_whole, create_table, read_back};

const TABLE: &str = "kill_all";
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut cluster = Cluster::start(3, 3).await?;
    let client = cluster.client().await?;
    let table = create_table(&client, TABLE, 8, 3).await?;
    await_whole(&client, LIMIT).await?;
    let load = Load::start(&client, &table, 8, Duration::from_secs(600));
    let mut faulty = Duration::ZERO;
    let mut wholes = Vec::new();
    for round in 1..=plan.rounds.unwrap_or(3) {
        load.await_acked(3000).await?;
        let mut order: Vec<usize> = (0..cluster.servers.len()).collect();
        order.shuffle(&mut random);
        let killed = Instant::now();
        for at in &order {
            cluster.kill(*at)?;
        }
        order.shuffle(&mut random);
        let restarted = Instant::now();
        for at in &order {
            cluster.launch(*at)?;
        }
        let names: Vec<_> = order.iter().map(|at| cluster.servers[*at].endpoint.clone()).collect();
        await_whole(&client, LIMIT * 2).await?;
        let whole = restarted.elapsed();
        load.await_acked(1).await?;
        faulty += killed.elapsed();
        println!(
            "round {round}: all six killed, restarted as {}; whole {whole:.3?} after",
            names.join(" ")
        );
        wholes.push(whole);
    }
    let (history, elapsed) = load.finish().await;
    await_whole(&client, LIMIT).await?;
    let verdict = read_back(&client, TABLE, &history).await?;
    let worst = wholes.iter().max().copied().unwrap_or_default();
    let promises =
        [(format!("every partition whole within 30 s (worst {worst:.3?})"), worst <= LIMIT)];
    Ok(conclude(cluster, &history, elapsed.saturating_sub(faulty), &verdict, &promises))
}
