//! D20: the tablet that leads most is killed again and again and stays away until the others have given back the log that
//! it misses; snapshots are made every 200 entries, and the log keeps as little as it can.
//!
//! Pass: nothing lost, whoever falls behind is whole again each time, from the log or from a snapshot.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::gaps::Gaps;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::{Extra, Role, Setup};
use crate::workload::Parties;

/// Away for at most this.
const AWAY: Duration = Duration::from_secs(12);
/// So much is in a row, that the log fills its segments.
const VALUE: usize = 4 << 10;

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let flags = vec!["--snapshot_every=200".into(), "--log_keep_mb=1".into()];
    let tablet = Extra { flags, ..Extra::default() };
    let scene = Scene {
        setup: Setup { tablet, ..Setup::default() },
        parties: Parties { value: VALUE, ..Parties::default() },
        ..Scene::default()
    };
    let mut stage = Stage::begin(plan, scene).await?;
    let (mut gaps, mut wholes, mut rounds, mut fetched) = (Gaps::default(), Gaps::default(), 0, 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let (at, led) = stage.busiest().await?;
        let killed = Instant::now();
        stage.cluster.kill(at)?;
        let cause = format!("kill {rounds}");
        let gap = stage.await_gaps(&led, killed, &cause, &mut gaps).await?;
        // Odd rounds: back soon, from the log. Even rounds: back late, from snapshots.
        let away = if rounds % 2 == 1 { Duration::from_secs(1) } else { AWAY };
        tokio::time::sleep_until((killed + away).into()).await;
        let before = snapshots_fetched(&stage);
        let started = Instant::now();
        stage.cluster.launch(at)?;
        stage.cluster.await_ready(at).await?;
        stage.await_whole().await?;
        let whole = started.elapsed();
        let now = snapshots_fetched(&stage) - before;
        fetched += now;
        println!(
            "{cause}: it led {}, longest gap {gap:.3?}; back after {away:.0?}, whole {whole:.3?} later, {now} snapshots \
             fetched",
            led.len()
        );
        wholes.add(whole, cause);
    }
    println!("{gaps}\nuntil whole: {wholes}\n{fetched} copies came from snapshots");
    stage.conclude(&[], rounds > 1).await
}

/// How often the tablets say that a copy came from a snapshot.
fn snapshots_fetched(stage: &Stage) -> usize {
    let tablets = stage.cluster.of(Role::Tablet).into_iter();
    let printed = tablets.map(|at| stage.cluster.servers[at].printed());
    printed.map(|text| text.matches("a leader's snapshot is installed").count()).sum()
}
