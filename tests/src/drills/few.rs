//! Fewer than three replicas, with kill -9 of their tablets in turn.
//!
//! * Two: writes go on with the other one as soon as the in-sync set has shrunk, while the killed one is away; it returns,
//!   and both are in sync again.
//! * One: it serves again by itself when it is started, in a new epoch (R1).
//!
//! Pass: nothing lost, whole again by itself, and every partition takes writes in between.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::gaps::Gaps;
use super::stage::{PARTITIONS, Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};

pub(super) async fn run(plan: Plan, tablets: usize) -> Result<Outcome> {
    let setup = Setup { tablets, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (mut gaps, mut wholes, mut rounds) = (Gaps::default(), Gaps::default(), 0);
    let tables = 0..TABLES.len();
    let places = tables.flat_map(|table| (0..PARTITIONS).map(move |pid| (table, pid))).collect();
    while plan.goes_on(rounds, stage.elapsed(), 30) {
        let servers = stage.cluster.of(Role::Tablet);
        let at = servers[rounds % servers.len()];
        rounds += 1;
        stage.load.await_acked(1000).await?;
        let cause = format!("round {rounds}, tablet {}", stage.cluster.servers[at].endpoint);
        let killed = Instant::now();
        stage.cluster.kill(at)?;
        let mut longest = Duration::ZERO;
        if tablets > 1 {
            // They go on while it is away.
            longest = stage.await_gaps(&places, killed, &cause, &mut gaps).await?;
            stage.load.await_acked(1000).await?;
        }
        stage.cluster.launch(at)?;
        let started = Instant::now();
        stage.cluster.await_ready(at).await?;
        if tablets == 1 {
            longest = stage.await_gaps(&places, killed, &cause, &mut gaps).await?;
        }
        stage.await_whole().await?;
        let whole = started.elapsed();
        println!("{cause} killed: longest pause {longest:.3?}, whole {whole:.3?} after its start");
        wholes.add(whole, cause);
    }
    println!("{gaps}\nuntil whole: {wholes}");
    stage.conclude(&[], rounds > 1).await
}
