//! D1: kill -9 of the tablet that leads most, as soon as every partition is whole again and at the earliest 5 s after the
//! last kill; it is started again 2 s later.
//!
//! Pass: nothing lost; of the partitions that it led, the gap between two acknowledged writes is at most 0.5 s in the
//! median and 1.5 s for 95 of 100.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};

const BETWEEN: Duration = Duration::from_secs(5);
const AWAY: Duration = Duration::from_secs(2);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (mut gaps, mut kills) = (Gaps::default(), 0);
    while plan.goes_on(kills, stage.elapsed(), 60) {
        kills += 1;
        let (at, led) = stage.busiest().await?;
        let endpoint = stage.cluster.servers[at].endpoint.clone();
        let killed = Instant::now();
        stage.cluster.kill(at)?;
        let cause = format!("kill {kills} of {endpoint} which led {} partitions", led.len());
        let gap = stage.await_gaps(&led, killed, &cause, &mut gaps).await?;
        tokio::time::sleep_until((killed + AWAY).into()).await;
        stage.cluster.launch(at)?;
        stage.cluster.await_ready(at).await?;
        let whole = stage.await_whole().await?;
        println!("{cause}: longest gap {gap:.3?}, whole {whole:.3?} after its return");
        tokio::time::sleep_until((killed + BETWEEN).into()).await;
    }
    println!("{gaps}");
    let promises = [
        Promise::within("median gap", gaps.median(), Duration::from_millis(500)),
        Promise::within("95th percentile", gaps.quantile(950), Duration::from_millis(1500)),
    ];
    stage.conclude(&promises, gaps.len() > 0).await
}
