//! D14, the tablets' half: a tablet's disk is gone. It is killed, its directory is removed, and it is started again under
//! the same endpoint; every second time it is the one that leads most.
//!
//! Pass: nothing lost, every partition is whole again by itself.

use std::time::Instant;

use anyhow::Result;
use rand::RngExt as _;

use super::gaps::Gaps;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::Role;

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (mut gaps, mut wholes, mut rounds) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let (busiest, led) = stage.busiest().await?;
        let tablets = stage.cluster.of(Role::Tablet);
        let at = if rounds % 2 == 0 {
            busiest
        } else {
            tablets[stage.random.random_range(0..tablets.len())]
        };
        let killed = Instant::now();
        stage.cluster.kill(at)?;
        stage.cluster.wipe(at)?;
        if at == busiest {
            let cause = format!("round {rounds}: the leader of {} partitions is gone", led.len());
            stage.await_gaps(&led, killed, &cause, &mut gaps).await?;
        }
        stage.cluster.launch(at)?;
        let started = Instant::now();
        stage.cluster.await_ready(at).await?;
        stage.await_whole().await?;
        let whole = started.elapsed();
        println!(
            "round {rounds}: {} came back with nothing; whole {whole:.3?} later",
            stage.cluster.servers[at].endpoint
        );
        wholes.add(whole, format!("round {rounds}"));
    }
    println!("{gaps}\nuntil whole: {wholes}");
    stage.conclude(&[], rounds > 1).await
}
