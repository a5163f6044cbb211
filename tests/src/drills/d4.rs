//! D4: SIGSTOP of the tablet that leads most for a random time, then SIGCONT.
//!
//! Pass: nothing lost, no stale read, and whoever stood still acknowledges nothing in its old epoch afterwards. The gap is
//! printed: it is the lease, a tenth, and an election.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let longest = plan.longest.unwrap_or(8);
    let (mut gaps, mut rounds) = (Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let (at, led) = stage.busiest().await?;
        let time = Duration::from_millis(stage.random.random_range(1000..=longest * 1000));
        let paused = Instant::now();
        stage.cluster.pause(at)?;
        tokio::time::sleep(time).await;
        stage.cluster.resume(at)?;
        let cause = format!("pause {rounds} of {:.1} s", time.as_secs_f64());
        let gap = stage.await_gaps(&led, paused, &cause, &mut gaps).await?;
        let whole = stage.await_whole().await?;
        stage.excuse(gap);
        println!("{cause}: it led {}, longest gap {gap:.3?}, whole {whole:.3?} later", led.len());
    }
    println!("{gaps}");
    let promises = [Promise::within("every gap", gaps.worst(), Duration::from_secs(5))];
    stage.conclude(&promises, rounds > 0).await
}
