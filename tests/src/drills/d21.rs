//! D21: 200 of 230 tablets vanish within a second, and come back; and the leading nameserver stands still for 15 s. In turn.
//! The tablets are a [`Fleet`], with 400 partitions of three replicas.
//!
//! Pass: less than 1 of 100 partitions gets another leader in any round, the nameserver says that many tablets are silent,
//! and everything is whole again within a minute.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::SeedableRng as _;
use rand::seq::SliceRandom as _;
use stela_common::client::Client;

use super::promise::Promise;
use super::{Outcome, Plan};
use crate::cluster::{Cluster, Role, Setup};
use crate::fleet::Fleet;
use crate::workload::{await_whole, create_table};

const TABLETS: usize = 230;
const VANISH: usize = 200;
const TABLES: [&str; 2] = ["left", "right"];
const PARTITIONS: u32 = 200;
/// Longer than a lease, after which silence is judged, and shorter than the two for which a mass of them is waited (R19).
const AWAY: Duration = Duration::from_millis(3300);
const STALL: Duration = Duration::from_secs(15);
const WHOLE: Duration = Duration::from_secs(60);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { tablets: 0, ..Setup::default() };
    let cluster = Cluster::start(&setup).await?;
    let nameservers = cluster.nameservers().to_owned();
    let address = nameservers.split(':').next().context("no nameserver")?.parse()?;
    let fleet = Fleet::start(TABLETS, address, &nameservers)?;
    let client = cluster.client().await?;
    let began = Instant::now();
    while client.admin().show_tablet().await?.tablets.len() < TABLETS {
        ensure!(began.elapsed() < WHOLE, "not all tablets have registered after {WHOLE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for table in TABLES {
        create_table(&client, table, PARTITIONS, 3).await?;
    }
    await_whole(&client, WHOLE).await?;
    println!(
        "{TABLETS} tablets lead {} partitions after {:.1?}",
        epochs(&client).await?.len(),
        began.elapsed()
    );

    let mut random = rand::rngs::StdRng::seed_from_u64(plan.seed);
    let began = Instant::now();
    let (mut rounds, mut worst, mut alarms, mut healed) = (0, 0.0_f64, 0, Duration::ZERO);
    while plan.goes_on(rounds, began.elapsed(), 75) {
        rounds += 1;
        let before = epochs(&client).await?;
        let at = cluster.find(&client.leader().await?).context("a nameserver that is not ours")?;
        let what = if rounds % 2 == 1 {
            let said = warnings(&cluster);
            vanish(&fleet, &mut random).await;
            alarms += usize::from(warnings(&cluster) > said);
            format!("{VANISH} of {TABLETS} tablets were away for {AWAY:?}")
        } else {
            cluster.pause(at)?;
            tokio::time::sleep(STALL).await;
            cluster.resume(at)?;
            format!("nameserver {} stood still for {STALL:?}", cluster.servers[at].endpoint)
        };
        healed = healed.max(await_whole(&client, WHOLE).await?);
        let after = epochs(&client).await?;
        let changed = after.iter().filter(|(key, epoch)| before.get(key) != Some(epoch)).count();
        println!("round {rounds}: {what}: {changed} of {} partitions changed", after.len());
        worst = worst.max(changed as f64 / after.len().max(1) as f64);
    }
    let panics = cluster.panics();
    panics.iter().for_each(|panic| println!("  {panic}"));
    let promises = [
        Promise::new(
            format!("below 1 % of the partitions change their leader ({:.2} %)", worst * 100.0),
            worst < 0.01,
        ),
        Promise::new(
            format!("the nameserver says that many tablets are silent ({alarms} times)"),
            alarms == rounds.div_ceil(2),
        ),
        Promise::new("no server panics", panics.is_empty()),
    ];
    println!("whole at most {healed:.3?} after each round");
    promises.iter().for_each(|promise| println!("{promise}"));
    if promises.iter().any(|promise| promise.broken(plan.times)) {
        println!("the servers' directories and output are in {}", cluster.keep().display());
        return Ok(Outcome::Fail);
    }
    Ok(if rounds > 1 { Outcome::Pass } else { Outcome::Unknown })
}

/// They go one after the other within a second, and come back when all have been away for some time.
async fn vanish(fleet: &Fleet, random: &mut rand::rngs::StdRng) {
    let mut tablets: Vec<usize> = (0..fleet.len()).collect();
    tablets.shuffle(random);
    tablets.truncate(VANISH);
    let each = Duration::from_secs(1) / u32::try_from(VANISH).unwrap_or(u32::MAX);
    let began = Instant::now();
    for (n, tablet) in tablets.iter().enumerate() {
        fleet.away(*tablet, true);
        let next = began + each * u32::try_from(n).unwrap_or(u32::MAX);
        tokio::time::sleep_until(next.into()).await;
    }
    tokio::time::sleep_until((began + AWAY).into()).await;
    tablets.iter().for_each(|tablet| fleet.away(*tablet, false));
}

/// How often a nameserver has said it.
fn warnings(cluster: &Cluster) -> usize {
    let nameservers = cluster.of(Role::Nameserver).into_iter().map(|at| &cluster.servers[at]);
    nameservers.map(|server| server.printed().matches("many tablets are silent").count()).sum()
}

/// The epoch of each partition.
async fn epochs(client: &Client) -> Result<BTreeMap<(u32, u32), u64>> {
    let shown = client.admin().show_table("", "", true).await?;
    let of = |t: stela_proto::nameserver::TableRow| {
        let tid = t.table.map_or(0, |table| table.tid);
        t.partitions.into_iter().map(move |p| ((tid, p.pid), p.epoch))
    };
    Ok(shown.tables.into_iter().flat_map(of).collect())
}
