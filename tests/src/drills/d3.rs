//! D3: kill -9 of the leading nameserver and of the tablet that leads most, within the same 100 ms; both are started again
//! when the others have taken over.
//!
//! Pass: nothing lost; the gap of the partitions that it led is at most 4.5 s for 95 of 100.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (mut gaps, mut rounds) = (Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let (tablet, led) = stage.busiest().await?;
        let nameserver = stage.leading_nameserver().await?;
        let apart = Duration::from_millis(stage.random.random_range(0..100));
        let mut both = [tablet, nameserver];
        if stage.random.random_bool(0.5) {
            both.reverse();
        }
        let mut killed = Instant::now();
        for (at, rest) in both.into_iter().zip([apart, Duration::ZERO]) {
            if at == tablet {
                killed = Instant::now();
            }
            stage.cluster.kill(at)?;
            tokio::time::sleep(rest).await;
        }
        let cause = format!("round {rounds}: {} of 16 partitions lost their leader", led.len());
        let gap = stage.await_gaps(&led, killed, &cause, &mut gaps).await?;
        stage.cluster.launch_all().await?;
        let whole = stage.await_whole().await?;
        println!("{cause}: longest gap {gap:.3?}, whole {whole:.3?} after their return");
    }
    println!("{gaps}");
    let most = Duration::from_millis(4500);
    let promises = [Promise::within("95th percentile", gaps.quantile(950), most)];
    stage.conclude(&promises, gaps.len() > 0).await
}
