//! kill -9 of all six processes under load; restarted in a random order, with no command given.
//!
//! Pass: nothing lost, every partition is whole within 30 s of the restart.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::seq::SliceRandom;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (mut wholes, mut rounds) = (Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 30) {
        rounds += 1;
        stage.load.await_acked(3000).await?;
        let mut order: Vec<usize> = (0..stage.cluster.servers.len()).collect();
        order.shuffle(&mut stage.random);
        let killed = Instant::now();
        for at in &order {
            stage.cluster.kill(*at)?;
        }
        order.shuffle(&mut stage.random);
        let restarted = Instant::now();
        for at in &order {
            stage.cluster.launch(*at)?;
        }
        stage.await_whole().await?;
        let whole = restarted.elapsed();
        stage.load.await_acked(1).await?;
        stage.excuse(killed.elapsed());
        println!(
            "round {rounds}: all six killed, restarted in the order {order:?}; whole {whole:.3?} after"
        );
        wholes.add(whole, format!("round {rounds}"));
    }
    let worst = wholes.worst();
    let promises = [Promise::within("until every partition is whole", worst, LIMIT)];
    stage.conclude(&promises, rounds > 0).await
}
