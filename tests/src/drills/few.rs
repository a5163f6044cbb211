//! Fewer than three replicas, with kill -9 of their tablets in turn.
//!
//! * Two: writes go on with the other one as soon as the in-sync set has shrunk, while the killed one is away; it returns,
//!   and both are in sync again.
//! * One: it serves again by itself when it is started, in a new epoch (R1).
//!
//! Pass: nothing lost, whole again by itself, and every partition takes writes in between.

use std::collections::BTreeSet;
use std::time::Instant;

use anyhow::Result;

use super::gaps::Gaps;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::workload::{Place, leaders};

pub(super) async fn run(plan: Plan, tablets: usize) -> Result<Outcome> {
    let setup = Setup { tablets, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (mut gaps, mut wholes, mut rounds) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 30) {
        let servers = stage.cluster.of(Role::Tablet);
        let at = servers[rounds % servers.len()];
        rounds += 1;
        let places = everything(&stage).await?;
        let killed = Instant::now();
        stage.cluster.kill(at)?;
        if tablets == 1 {
            stage.cluster.launch(at)?;
        }
        let cause = format!("round {rounds}, tablet {}", stage.cluster.servers[at].endpoint);
        let longest = stage.await_gaps(&places, killed, &cause, &mut gaps).await?;
        // Of two, while the killed one is still away.
        stage.load.await_acked(1000).await?;
        if tablets > 1 {
            stage.cluster.launch(at)?;
        }
        let started = Instant::now();
        stage.cluster.await_ready(at).await?;
        stage.await_whole().await?;
        let whole = started.elapsed();
        println!("{cause} killed: longest pause {longest:.3?}, whole {whole:.3?} after its start");
        wholes.add(whole, cause);
    }
    println!("{gaps}\nuntil whole: {wholes}");
    stage.conclude(&[], rounds > 1).await
}

/// Every partition of every table.
async fn everything(stage: &Stage) -> Result<BTreeSet<Place>> {
    let mut places = BTreeSet::new();
    for (table, name) in TABLES.iter().enumerate() {
        let led = leaders(&stage.client, name).await?;
        places.extend(led.into_values().flatten().map(|pid| (table, pid)));
    }
    Ok(places)
}
