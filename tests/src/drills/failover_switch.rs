//! `confset auto_failover false`, then kill -9 of all nameservers: when they are back, `confget` still says false. While it
//! does, a leader that is killed is not replaced; with `true` it is, and all becomes whole. In the end SIGTERM stops
//! every server cleanly.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stela_common::client::Client;
use stela_proto::nameserver::PartitionRow;

use super::{Outcome, Plan};
use crate::cluster::{Cluster, Role, Setup};
use crate::workload::{DB, await_whole, busiest_leader, create_table};

const TABLE: &str = "failover_switch";
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup::default()).await?;
    let client = cluster.client().await?;
    create_table(&client, TABLE, 1, 3).await?;
    await_whole(&client, LIMIT).await?;
    let mut kept = true;
    for value in
        ["false", "true"].into_iter().cycle().take(plan.rounds.unwrap_or(3)).chain(["false"])
    {
        kept &= outlives(&mut cluster, &client, value).await?;
    }
    kept &= nobody_is_elected_but_on_demand(&mut cluster, &client).await?;
    kept &= cluster.panics().is_empty();
    for at in 0..cluster.servers.len() {
        cluster.stop(at)?;
    }
    println!("SIGTERM: all six have stopped cleanly");
    if kept {
        return Ok(Outcome::Pass);
    }
    println!("the servers' directories and output are in {}", cluster.keep().display());
    Ok(Outcome::Fail)
}

/// Sets the switch, kills all nameservers, starts them, and asks the first one that answers.
async fn outlives(cluster: &mut Cluster, client: &Client, value: &str) -> Result<bool> {
    client.admin().conf_set("auto_failover", value).await?;
    for at in cluster.of(Role::Nameserver) {
        cluster.kill(at)?;
    }
    cluster.launch_all().await?;
    let asked = tokio::time::timeout(LIMIT, client.admin().conf_get("auto_failover")).await??;
    let got = asked.rows.first().map(|r| r.value.clone()).unwrap_or_default();
    println!(
        "confset auto_failover {value}; all nameservers killed and started: confget says {got}"
    );
    Ok(got == value)
}

/// With the switch off: the leader is killed and stays the leader that is not alive, until the switch is on.
async fn nobody_is_elected_but_on_demand(cluster: &mut Cluster, client: &Client) -> Result<bool> {
    let before = shown(client).await?;
    let (leader, _) = busiest_leader(client, TABLE).await?;
    let at = cluster.find(&leader).context("a tablet that is not ours")?;
    cluster.kill(at)?;
    let offline = |p: &PartitionRow| p.replicas.iter().any(|r| r.endpoint == leader && !r.alive);
    let judged = until(client, "the killed leader is seen as offline", offline).await?;
    let idle = judged.epoch == before.epoch;
    println!("off: the leader was killed, its epoch is {} as before: {idle}", judged.epoch);

    client.admin().conf_set("auto_failover", "true").await?;
    let again = until(client, "another one leads", |p| p.epoch > before.epoch && p.serving).await?;
    println!("on: another one leads in epoch {}", again.epoch);
    cluster.launch(at)?;
    cluster.await_ready(at).await?;
    println!("the killed one is back; whole after {:.3?}", await_whole(client, LIMIT).await?);
    Ok(idle)
}

async fn shown(client: &Client) -> Result<PartitionRow> {
    let shown = client.admin().show_table(DB, TABLE, false).await?;
    let partition = shown.tables.into_iter().next().and_then(|t| t.partitions.into_iter().next());
    partition.context("the table has no partition")
}

async fn until(
    client: &Client,
    what: &str,
    condition: impl Fn(&PartitionRow) -> bool,
) -> Result<PartitionRow> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let row = shown(client).await?;
        if condition(&row) {
            return Ok(row);
        }
        ensure!(Instant::now() < deadline, "in vain waited until {what}: {row:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
