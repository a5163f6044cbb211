//! D2: kill -9 of the leading nameserver every 5 s, while a client creates and drops tables with request ids.
//!
//! Pass: nothing lost; each acknowledged create and drop is there exactly once; the next metadata write follows within
//! 1.5 s for 95 of 100, and data writes never stop for longer than 0.5 s.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use stela_common::client::Client;
use tokio_util::sync::CancellationToken;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::workload::{DB, create_table};

const BETWEEN: Duration = Duration::from_secs(5);

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
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (catalog, stop) = (Arc::new(Mutex::new(Catalog::default())), CancellationToken::new());
    let client = stage.cluster.client().await?;
    let ddl = tokio::spawn(create_and_drop(client, catalog.clone(), stop.clone()));
    let (mut metadata, mut data, mut kills) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(kills, stage.elapsed(), 60) {
        kills += 1;
        stage.load.await_acked(1000).await?;
        let before = catalog.lock().writes;
        while catalog.lock().writes < before + 2 {
            anyhow::ensure!(!ddl.is_finished(), "the catalog client ended");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let at = stage.leading_nameserver().await?;
        let endpoint = stage.cluster.servers[at].endpoint.clone();
        let killed = Instant::now();
        stage.cluster.kill(at)?;
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
        stage.load.await_acked(500).await?;
        stage.cluster.launch(at)?;
        stage.cluster.await_ready(at).await?;
        let pause = stage.load.tally.lock().longest_pause(killed, Instant::now());
        println!(
            "kill {kills:>2} of {endpoint}: next metadata write after {gap:>7.3?}, longest pause of data writes {pause:>7.3?}"
        );
        metadata.add(gap, format!("kill {kills}"));
        data.add(pause, format!("kill {kills}"));
        tokio::time::sleep_until((killed + BETWEEN).into()).await;
    }
    stop.cancel();
    ddl.await?;
    let catalog = std::mem::take(&mut *catalog.lock());
    let wrong = check_catalog(&stage.client, &catalog).await?;
    for what in wrong.iter().take(10) {
        println!("  {what}");
    }
    println!("metadata writes, {metadata}\npauses of data writes, {data}");
    let promises = [
        Promise::within(
            "95th percentile of metadata writes",
            metadata.quantile(950),
            Duration::from_millis(1500),
        ),
        Promise::within("pause of data writes", data.worst(), Duration::from_millis(500)),
        Promise::new(
            format!(
                "each of {} acknowledged creates and drops is there exactly once",
                catalog.writes
            ),
            wrong.is_empty(),
        ),
    ];
    stage.conclude(&promises, kills > 0).await
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
