//! kill -9 of the leading nameserver, 10 times, under data load, while a client creates and drops tables with request
//! ids: each acknowledged one is there exactly once, and the data never stops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use stela_common::client::Client;
use tokio_util::sync::CancellationToken;

use super::{Outcome, Plan, conclude, median};
use crate::cluster::Cluster;
use crate::workload::{DB, Load, await_whole, create_table, read_back};

const TABLE: &str = "kill_nameserver";

/// What the catalog client was told.
#[derive(Default)]
struct Catalog {
    /// Tables by name: `true` = created, `false` = dropped, as last acknowledged.
    told: BTreeMap<String, bool>,
    writes: usize,
    errors: BTreeMap<String, usize>,
    times: Vec<Instant>,
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let rounds = plan.rounds.unwrap_or(10);
    let mut cluster = Cluster::start(3, 3).await?;
    let client = cluster.client().await?;
    let table = create_table(&client, TABLE, 8, 3).await?;
    await_whole(&client, Duration::from_secs(30)).await?;
    let load = Load::start(&client, &table, 8, Duration::from_secs(600));
    let (catalog, stop) = (Arc::new(Mutex::new(Catalog::default())), CancellationToken::new());
    let ddl = tokio::spawn(create_and_drop(cluster.client().await?, catalog.clone(), stop.clone()));

    let mut gaps = Vec::new();
    for round in 1..=rounds {
        load.await_acked(1000).await?;
        let before = catalog.lock().writes;
        while catalog.lock().writes < before + 2 {
            anyhow::ensure!(!ddl.is_finished(), "the catalog client ended");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let leader = client.leader().await?;
        let at = cluster.find(&leader).context("a nameserver that is not ours")?;
        let killed = Instant::now();
        cluster.kill(at)?;
        let gap = loop {
            if let Some(t) = catalog.lock().times.iter().find(|t| **t > killed) {
                break t.duration_since(killed);
            }
            anyhow::ensure!(
                killed.elapsed() < Duration::from_secs(60),
                "no metadata write for a minute"
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        load.await_acked(500).await?;
        cluster.launch(at)?;
        cluster.await_ready(at).await?;
        let pause = load.history.lock().longest_pause(killed, Instant::now());
        println!(
            "kill {round:>2}: {leader}, next metadata write after {gap:>7.3?}, longest pause of data writes {pause:>7.3?}"
        );
        gaps.push((gap, pause));
    }
    stop.cancel();
    ddl.await?;
    let (history, elapsed) = load.finish().await;
    await_whole(&client, Duration::from_secs(60)).await?;
    let verdict = read_back(&client, TABLE, &history).await?;
    let catalog = std::mem::take(&mut *catalog.lock());
    let wrong = check_catalog(&client, &catalog).await?;
    for what in wrong.iter().take(10) {
        println!("  {what}");
    }
    let metadata: Vec<_> = gaps.iter().map(|(g, _)| *g).collect();
    let worst = metadata.iter().max().copied().unwrap_or_default();
    let pause = gaps.iter().map(|(_, p)| *p).max().unwrap_or_default();
    println!(
        "metadata: median {:.3?}, worst {worst:.3?} of {rounds}; data: longest pause {pause:.3?}",
        median(&metadata)
    );
    let promises = [
        ("the next metadata write within 2 s".to_owned(), worst <= Duration::from_secs(2)),
        (
            "no pause of acknowledged data writes above 0.5 s".to_owned(),
            pause <= Duration::from_millis(500),
        ),
        (
            format!(
                "each of {} acknowledged creates and drops is there exactly once",
                catalog.writes
            ),
            wrong.is_empty(),
        ),
    ];
    Ok(conclude(cluster, &history, elapsed, &verdict, &promises))
}

/// One at a time: creates a table, and drops every second one again.
async fn create_and_drop(client: Client, catalog: Arc<Mutex<Catalog>>, stop: CancellationToken) {
    for n in 0u64..100_000 {
        if stop.is_cancelled() {
            return;
        }
        let name = format!("t{n}");
        let created = create_table(&client, &name, 1, 3).await.map(drop);
        note(&catalog, &name, true, created.map_err(|e| e.to_string()));
        if n % 2 == 0 && catalog.lock().told.contains_key(&name) {
            let dropped = client.admin().drop_table(DB, &name).await.map(drop);
            note(&catalog, &name, false, dropped.map_err(|e| e.to_string()));
        }
    }
}

fn note(catalog: &Mutex<Catalog>, name: &str, there: bool, outcome: Result<(), String>) {
    let mut catalog = catalog.lock();
    match outcome {
        Ok(()) => {
            catalog.told.insert(name.into(), there);
            catalog.writes += 1;
            catalog.times.push(Instant::now());
        }
        Err(e) => {
            // What was not acknowledged is not judged.
            catalog.told.remove(name);
            *catalog.errors.entry(e).or_default() += 1;
        }
    }
}

async fn check_catalog(client: &Client, catalog: &Catalog) -> Result<Vec<String>> {
    let shown = client.admin().show_table(DB, "", false).await?;
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for table in shown.tables.iter().filter_map(|t| t.table.as_ref()) {
        *count.entry(table.name.clone()).or_default() += 1;
    }
    for (error, times) in &catalog.errors {
        println!("  catalog: {times} x {error}");
    }
    let wrong = catalog.told.iter().filter_map(|(name, there)| {
        let found = count.get(name).copied().unwrap_or(0);
        (found != usize::from(*there)).then(|| format!("table {name}: {found} times, told {there}"))
    });
    Ok(wrong.collect())
}
