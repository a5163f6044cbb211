//! What the demo does, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stela_common::client::{Client, TableHandle};
use stela_common::ids::TableId;
use stela_common::table::{Column, ColumnType, Index, Options, Table, Ttl};

use super::check::{self, Finding, Place};
use super::cluster::Cluster;
use super::commands::ns_client;
use super::load::{Load, PER_PARTITION};
use super::metrics::{self, PER_SECOND};
use super::outcome::Outcome;
use super::screen::{self, Screen, count, seconds, table, things};
use super::server::Role;
use super::whole::{self, Goal};
use crate::import::time;

/// The demo's database and table.
pub(super) const DB: &str = "demo";
pub(super) const TABLE: &str = "metrics";
const PARTITIONS: u32 = 4;
const REPLICAS: u32 = 3;
/// The load before the kill, and after it until the rows are read back.
const BEFORE: Duration = Duration::from_secs(4);
const AFTER: Duration = Duration::from_secs(2);
/// Writes go on, and all is whole, within these times, or the demo fails.
const TAKE_OVER: Duration = Duration::from_secs(20);
const HEAL: Duration = Duration::from_secs(25);
/// Metrics that are shown where the machine has them, and how many of a family at most.
const SHOWN: [&str; 8] = [
    "cpu.all.user_seconds",
    "memory.MemAvailable_bytes",
    "load.1m",
    "kernel.context_switches",
    "net.lo.sent_bytes",
    "vm.pgfault",
    "server.nameserver1.cpu_seconds",
    "server.tablet1.resident_bytes",
];

/// Runs the demo on a cluster that is only planned.
pub(super) async fn tell(screen: &mut Screen, cluster: &mut Cluster) -> Result<Outcome> {
    let (client, table) = begin(screen, cluster).await?;
    let samples = metrics::sample(cluster.processes())?;
    let mut load = Load::start(&client, &table, &samples);
    fill(screen, cluster, &client, &table, &load).await?;
    let (victim, led) = victim(&client, &load).await?;
    let at = cluster
        .find(&victim)
        .with_context(|| format!("{victim} leads, and is none of the demo's tablets"))?;
    let gap = kill(screen, cluster, &client, &load, at, &led).await?;
    check_leaders(screen, &client, &table, &load).await?;
    let (whole, load_time) = come_back(screen, cluster, &client, &mut load, at).await?;
    let ledger = load.ledger.lock().clone();
    let mut finding = Finding::default();
    let tablets = cluster.endpoints(Role::Tablet);
    for place in std::iter::once(Place::Leaders).chain(tablets.iter().map(|e| Place::Replica(e))) {
        screen.live("reading every row back, from the leaders and from each replica")?;
        finding.add(check::read_back(&client, &table, &ledger, place).await?);
    }
    screen.step(&format!(
        "read back {} from the leaders and from each of {} replicas: {} lost",
        things(ledger.acked, "row", "rows"),
        tablets.len(),
        finding.lost.len()
    ))?;
    let (acked, open, panics) = (ledger.acked, ledger.open, cluster.panics());
    Ok(Outcome { acked, open, load_time, gap, led: led.len(), whole, finding, panics })
}

/// Six processes and a table.
async fn begin(screen: &mut Screen, cluster: &mut Cluster) -> Result<(Client, Arc<TableHandle>)> {
    screen.title("Three nameservers and three tablets, each a process of its own; no ZooKeeper")?;
    screen.step(&format!("data and logs in {}", cluster.home().path().display()))?;
    screen.live("starting the nameservers")?;
    cluster.launch_all(Role::Nameserver).await?;
    let client = cluster.client().await?;
    let leader = client.leader().await?;
    screen.step(&format!(
        "nameservers {} are one group; {leader} leads",
        cluster.ports(Role::Nameserver)
    ))?;
    screen.live("starting the tablets")?;
    cluster.launch_all(Role::Tablet).await?;
    screen.step(&format!("tablets {} are ready", cluster.ports(Role::Tablet)))?;
    client.admin().create_db(DB).await?;
    client.admin().create_table(&definition()).await?;
    let table = client.table(DB, TABLE).await?;
    whole::wait(&client, (DB, TABLE), Goal::Whole, HEAL, |missing| Ok(screen.live(missing)?))
        .await?;
    screen.step(&format!(
        "table {DB}.{TABLE}: metric string (key), ts timestamp (time), value double; {PARTITIONS} partitions, {REPLICAS} replicas of each"
    ))?;
    ns_client(screen, cluster, "showtablet").await?;
    Ok((client, table))
}

fn definition() -> Table {
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: true };
    let (columns, ts) = (vec!["metric".into()], Some("ts".into()));
    Table {
        tid: TableId(0),
        db: DB.into(),
        name: TABLE.into(),
        columns: vec![
            column("metric", ColumnType::Varchar),
            column("ts", ColumnType::Timestamp),
            column("value", ColumnType::Double),
        ],
        indexes: vec![Index {
            name: "metric".into(),
            columns,
            ts,
            ttl: Ttl::default(),
            deleted: false,
            added: Default::default(),
        }],
        partition_num: PARTITIONS,
        replica_num: REPLICAS,
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

/// Real rows, at the rate at which they are acknowledged.
async fn fill(
    screen: &mut Screen,
    cluster: &Cluster,
    client: &Client,
    table: &TableHandle,
    load: &Load,
) -> Result<()> {
    let writers = PARTITIONS * PER_PARTITION;
    screen.title("This machine's own metrics, read live from /proc")?;
    load.run_for(BEFORE, screen).await?;
    let (acked, series, families) = {
        let ledger = load.ledger.lock();
        (ledger.acked, ledger.series.len() as u64, ledger.families())
    };
    ensure!(acked > 0, "no row was acknowledged: {:?}", load.ledger.lock().troubles);
    let rate = acked as f64 / load.began.elapsed().as_secs_f64();
    screen.step(&format!(
        "{writers} writers, each row acknowledged by all replicas in sync, synced to disk: {} rows, {rate:.0}/s",
        count(acked)
    ))?;
    let families: Vec<String> =
        families.into_iter().map(|(family, n)| format!("{family} {n}")).collect();
    screen.detail(&format!(
        "{} metrics, sampled {PER_SECOND} times a second: {}",
        count(series),
        families.join(", ")
    ))?;
    screen.detail("the newest of some, read back from their leaders:")?;
    let mut rows = Vec::new();
    for metric in SHOWN {
        if let Some((at, value)) = check::newest(client, table, metric).await? {
            rows.push(vec![
                metric.to_owned(),
                format!("{} UTC", time::format(at)),
                screen::number(value),
            ]);
        }
    }
    screen.detail(&self::table(&["metric", "ts", "value"], &rows, &[2]))?;
    ns_client(screen, cluster, "showtable").await
}

/// The tablet that leads most partitions; of several, the one whose partitions take most rows.
async fn victim(client: &Client, load: &Load) -> Result<(String, BTreeSet<u32>)> {
    let led = whole::leaders(&whole::partitions(client, DB, TABLE).await?);
    let ledger = load.ledger.lock();
    let rows = |pids: &BTreeSet<u32>| -> u64 {
        pids.iter()
            .filter_map(|pid| ledger.partitions.get(*pid as usize))
            .map(|acks| acks.rows)
            .sum()
    };
    led.into_iter()
        .max_by_key(|(_, pids)| (pids.len(), rows(pids)))
        .context("no partition has a leader")
}

/// kill -9, and the wait until every partition acknowledges again. Tells the longest gap of those that were led there.
async fn kill(
    screen: &mut Screen,
    cluster: &mut Cluster,
    client: &Client,
    load: &Load,
    at: usize,
    led: &BTreeSet<u32>,
) -> Result<Duration> {
    screen.title("kill -9 of the tablet that leads most, while the writers go on")?;
    load.ledger.lock().measure();
    let (name, endpoint) = (cluster.servers[at].name(), cluster.servers[at].endpoint.clone());
    let killed = Instant::now();
    let pid = cluster.kill(at).with_context(|| format!("{name} has ended before it was killed"))?;
    screen.step(&format!(
        "killed {name} at {endpoint} (process {pid}): it led {} of {PARTITIONS} partitions",
        led.len()
    ))?;
    let over = |load: &Load| {
        let ledger = load.ledger.lock();
        ledger.partitions.iter().zip(0u32..).all(|(acks, pid)| {
            if led.contains(&pid) { acks.turn_since(killed).is_some() } else { acks.since(killed) }
        })
    };
    while !over(load) {
        ensure!(
            killed.elapsed() < TAKE_OVER,
            "writes do not go on {} s after the kill: {:?}",
            TAKE_OVER.as_secs(),
            load.ledger.lock().troubles
        );
        screen
            .live(&format!("waiting for new leaders, {:.1} s", killed.elapsed().as_secs_f64()))?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The partitions that it only followed pause too, until the meta group has taken it out of their in-sync sets.
    load.run_for(AFTER, screen).await?;
    let leaders: BTreeMap<u32, String> =
        whole::leaders(&whole::partitions(client, DB, TABLE).await?)
            .into_iter()
            .flat_map(|(endpoint, pids)| pids.into_iter().map(move |pid| (pid, endpoint.clone())))
            .collect();
    let (mut gap, mut rows) = (Duration::ZERO, Vec::new());
    for (acks, pid) in load.ledger.lock().partitions.iter().zip(0u32..) {
        let turn = acks.turn_since(killed);
        let pause = turn.map_or(acks.longest_pause(), |turn| turn.gap());
        if led.contains(&pid) {
            gap = gap.max(pause);
        }
        let epoch =
            turn.map_or(acks.epoch.to_string(), |turn| format!("{} -> {}", turn.from, turn.to));
        let before = if led.contains(&pid) { "the killed one" } else { "another" };
        let now = leaders.get(&pid).cloned().unwrap_or_else(|| "-".into());
        rows.push(vec![pid.to_string(), before.into(), now, epoch, seconds(pause)]);
    }
    screen.step(&format!(
        "every partition takes writes again; the longest gap without an acknowledged row: {}",
        seconds(gap)
    ))?;
    screen.detail(&table(
        &["partition", "led before by", "led now by", "epoch", "longest pause"],
        &rows,
        &[0, 4],
    ))?;
    ns_client(screen, cluster, "showopstatus").await?;
    Ok(gap)
}

/// Reads back what was acknowledged so far, while the writers go on.
async fn check_leaders(
    screen: &mut Screen,
    client: &Client,
    table: &TableHandle,
    load: &Load,
) -> Result<()> {
    screen.live("reading back every acknowledged row")?;
    let ledger = load.ledger.lock().clone();
    let finding = check::read_back(client, table, &ledger, Place::Leaders).await?;
    let lost = finding.lost.len();
    let told =
        "each read back by key, time and value, from the leaders, with the tablet still down";
    screen.step(&format!("{} acknowledged rows, {lost} rows lost: {told}", count(finding.rows)))?;
    ensure!(
        lost == 0,
        "lost {lost} rows, such as: {}",
        finding.lost.iter().take(3).cloned().collect::<Vec<_>>().join("; ")
    );
    Ok(())
}

/// Starts the tablet again. Tells how long it took until all was whole, and how long the writers have run.
async fn come_back(
    screen: &mut Screen,
    cluster: &mut Cluster,
    client: &Client,
    load: &mut Load,
    at: usize,
) -> Result<(Duration, Duration)> {
    screen.title("The tablet returns with its own disk")?;
    let restarted = Instant::now();
    cluster.launch(at)?;
    cluster.servers[at].ready().await?;
    let (name, pid) = (cluster.servers[at].name(), cluster.servers[at].pid().unwrap_or_default());
    screen.step(&format!(
        "started {name} again (process {pid}), ready after {}",
        seconds(restarted.elapsed())
    ))?;
    whole::wait(client, (DB, TABLE), Goal::InSync, HEAL, |missing| Ok(screen.live(missing)?))
        .await?;
    screen.step(&format!(
        "in sync in every partition again, under load, {} after its start",
        seconds(restarted.elapsed())
    ))?;
    load.finish().await?;
    let load_time = load.began.elapsed();
    whole::wait(client, (DB, TABLE), Goal::Whole, HEAL, |missing| Ok(screen.live(missing)?))
        .await?;
    let whole = restarted.elapsed();
    screen.step("whole: every replica alive, in sync, and at its leader's commit offset; nobody gave a command")?;
    Ok((whole, load_time))
}
