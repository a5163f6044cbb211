//! D18: three clients set `auto_failover` to true or false at random every 2 s and read it in between, while the tablet
//! that leads most is killed and started again.
//!
//! Pass: nothing lost; the value is linearizable over all clients; by the index at which the group decided, no leader was
//! elected by the cluster itself while the value was false.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;
use rand::RngExt as _;
use stela_common::client::Client;
use tokio_util::sync::CancellationToken;

use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::check::register::{Kind, Op, linearizable};
use crate::cluster::Role;

const SWITCH: &str = "auto_failover";
const AWAY: Duration = Duration::from_secs(2);

/// What the clients did to the switch.
#[derive(Default)]
struct Told {
    ops: Vec<Op>,
    /// The value from that index on.
    values: BTreeMap<u64, bool>,
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (told, stop) = (Arc::new(Mutex::new(Told::default())), CancellationToken::new());
    let began = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..3 {
        let client = stage.cluster.client().await?;
        clients.spawn(toggle(client, told.clone(), began, stop.clone()));
    }
    let mut kills = 0;
    while plan.goes_on(kills, stage.elapsed(), 45) {
        kills += 1;
        let (at, led) = stage.busiest().await?;
        stage.cluster.kill(at)?;
        tokio::time::sleep(AWAY).await;
        stage.cluster.launch(at)?;
        stage.cluster.await_ready(at).await?;
        println!("kill {kills} of a leader of {} partitions", led.len());
        tokio::time::sleep(AWAY).await;
    }
    stop.cancel();
    while clients.join_next().await.is_some() {}
    stage.client.admin().conf_set(SWITCH, "true").await?;
    let told = std::mem::take(&mut *told.lock());
    let off = |index: u64| told.values.range(..=index).next_back().is_some_and(|(_, on)| !on);
    let elected = elections(&stage);
    let wrong: Vec<u64> = elected.iter().copied().filter(|index| off(*index)).collect();
    println!(
        "{} operations on the switch, {} values; {} elections, {} of them while it was off {wrong:?}",
        told.ops.len(),
        told.values.len(),
        elected.len(),
        wrong.len()
    );
    let promises = [
        ("the value is linearizable".to_owned(), linearizable(&told.ops, 1)),
        ("nobody is elected while it is off".to_owned(), wrong.is_empty()),
    ];
    let enough = kills > 1 && told.values.len() > 5 && !elected.is_empty();
    // Half of the time nobody is elected in the place of the killed: writes are not expected to go on.
    let time = stage.elapsed();
    stage.excuse(time / 2);
    stage.conclude(&promises, enough).await
}

async fn toggle(client: Client, told: Arc<Mutex<Told>>, began: Instant, stop: CancellationToken) {
    let now = || u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    while !stop.is_cancelled() {
        let on = rand::rng().random_bool(0.5);
        let start = now();
        let outcome = client.admin().conf_set(SWITCH, &on.to_string()).await;
        let end = outcome.is_ok().then(now);
        {
            let mut told = told.lock();
            told.ops.push(Op { start, end, kind: Kind::Write(on.into()) });
            told.values.extend(outcome.iter().map(|reply| (reply.index, on)));
        }
        for _ in 0..4 {
            let start = now();
            if let Ok(reply) = client.admin().conf_get(SWITCH).await {
                let on = reply.rows.first().is_some_and(|r| r.value == "true");
                told.lock().ops.push(Op { start, end: Some(now()), kind: Kind::Read(on.into()) });
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The indexes at which leaders were elected, as the nameservers have logged them.
fn elections(stage: &Stage) -> Vec<u64> {
    let printed = stage.cluster.of(Role::Nameserver).into_iter();
    let printed: Vec<String> = printed.map(|at| stage.cluster.servers[at].printed()).collect();
    let index = |line: &str| {
        let number = line.split("elected index=").nth(1)?;
        number.split_ascii_whitespace().next()?.parse().ok()
    };
    printed.iter().flat_map(|text| text.lines().filter_map(index)).collect()
}
