//! Many tables: 1,000 of 8 partitions with 3 replicas on three tablets, and then a tablet with a third of the leaders
//! killed.
//!
//! Pass: `showtable` of everything in at most 1 s, and every partition led and serving again at most 3 s after the kill.
//! Printed: how fast tables are created, and the memory of a nameserver and a tablet.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stela_common::client::Client;

use super::promise::Promise;
use super::{Outcome, Plan};
use crate::cluster::{Cluster, Role, Setup};
use crate::workload::{DB, create_table};

/// How many tables, unless `--rounds` says otherwise.
const TABLES: usize = 1_000;
const PARTITIONS: u32 = 8;
/// How many clients create tables at a time.
const CALLERS: usize = 8;
/// All is whole, or a machine is too slow for this drill.
const WHOLE: Duration = Duration::from_secs(120);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let tables = plan.rounds.unwrap_or(TABLES);
    let mut cluster = Cluster::start(&Setup::default()).await?;
    let client = cluster.client().await?;
    create_table(&client, "first", 1, 3).await?;

    let begun = Instant::now();
    let creators = (0..CALLERS).map(|caller| {
        let (client, group) = (cluster.client(), caller);
        async move {
            let client = client.await?;
            for table in (group..tables).step_by(CALLERS) {
                create_table(&client, &format!("t{table}"), PARTITIONS, 3).await?;
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(creators).await?;
    let took = begun.elapsed();
    let partitions = tables * PARTITIONS as usize + 1;
    println!(
        "{tables} tables of {PARTITIONS} partitions with 3 replicas created in {took:.1?}: {:.0} tables/s",
        tables as f64 / took.as_secs_f64()
    );
    let served = await_served(&client, partitions, WHOLE).await?;
    println!("all {partitions} partitions serve {served:.3?} after the last was created");

    let mut shows: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        let asked = Instant::now();
        let shown = client.admin().show_table(DB, "", false).await?.tables.len();
        shows.push(asked.elapsed());
        ensure!(shown == tables + 1, "{shown} tables are shown");
    }
    shows.sort_unstable();
    let command = showtable(&cluster)?;
    println!("showtable: {shows:.3?} over the wire, {command:.3?} as a command");
    for role in [Role::Nameserver, Role::Tablet] {
        let memory: Vec<String> = cluster
            .of(role)
            .into_iter()
            .filter_map(|at| Some(format!("{:.0} MiB", cluster.resident(at)? as f64 / 1024.0)))
            .collect();
        println!("memory of each {role:?}: {}", memory.join(", "));
    }

    let victim = busiest(&client).await?;
    let at = cluster.find(&victim.0).context("a tablet that is not ours")?;
    cluster.kill(at)?;
    let led = await_served(&client, partitions, WHOLE).await?;
    println!(
        "{} led {} of {partitions} partitions; killed, all are led and serve again {led:.3?} later",
        victim.0, victim.1
    );
    let again = Instant::now();
    cluster.launch(at)?;
    cluster.await_ready(at).await?;
    let whole = await_whole(&client, partitions * 3, WHOLE).await?;
    println!(
        "started again, all replicas are in sync {whole:.3?} later ({:.3?} after its start)",
        again.elapsed()
    );
    ensure!(cluster.panics().is_empty(), "a server panicked: {:?}", cluster.panics());
    let promises = [
        Promise::within("showtable", command, Duration::from_secs(1)),
        Promise::within("led again after the kill", led, Duration::from_secs(3)),
    ];
    promises.iter().for_each(|promise| println!("{promise}"));
    Ok(if promises.iter().any(|promise| promise.broken(plan.times)) {
        Outcome::Fail
    } else {
        Outcome::Pass
    })
}

/// How long the operators' command takes, the start of its process included.
fn showtable(cluster: &Cluster) -> Result<Duration> {
    let asked = Instant::now();
    let output = cluster.ns_client(&[&format!("--database={DB}"), "--cmd=showtable"])?;
    ensure!(output.lines().count() > 1, "nothing is shown: {output}");
    Ok(asked.elapsed())
}

/// Waits until that many partitions have a leader that serves; answers how long that took.
async fn await_served(client: &Client, partitions: usize, limit: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let shown = client.admin().show_table(DB, "", false).await?;
        let serving = shown.tables.iter().flat_map(|t| &t.partitions).filter(|p| p.serving).count();
        if serving == partitions {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < limit, "{serving} of {partitions} partitions serve");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until that many replicas are alive.
async fn await_whole(client: &Client, replicas: usize, limit: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let shown = client.admin().show_table(DB, "", false).await?;
        let all = shown.tables.iter().flat_map(|t| &t.partitions).flat_map(|p| &p.replicas);
        let alive = all.filter(|r| r.alive).count();
        if alive == replicas {
            return Ok(begun.elapsed());
        }
        ensure!(begun.elapsed() < limit, "{alive} of {replicas} replicas are alive");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The tablet that leads most, and how many partitions it leads.
async fn busiest(client: &Client) -> Result<(String, usize)> {
    let shown = client.admin().show_table(DB, "", false).await?;
    let mut led = std::collections::BTreeMap::<String, usize>::new();
    for partition in shown.tables.iter().flat_map(|t| &t.partitions) {
        for leader in partition.replicas.iter().filter(|r| r.leader && r.alive) {
            *led.entry(leader.endpoint.clone()).or_default() += 1;
        }
    }
    led.into_iter().max_by_key(|(_, led)| *led).context("nobody leads anything")
}
