//! D6: only the links between a tablet and the nameservers are cut, while tablets and clients reach each other; then those
//! of all nameservers to all tablets.
//!
//! Pass: nothing lost, no stale read. The cut-off leader serves on until another one is elected; the gap is at most the
//! lease and a second. With all nameservers cut off, writes and reads of partitions with two or more in-sync copies never
//! stop. Links back: whole by itself.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::net::{Flow, Party, between};

/// The lease, and a second.
const GAP: Duration = Duration::from_millis(3200);
/// What a busy machine may take away from writers in any case.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { links: true, ..Setup::default() };
    let stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let on = Duration::from_secs(plan.longest.unwrap_or(8));
    let nameservers: Vec<Party> =
        stage.cluster.of(Role::Nameserver).into_iter().map(Party::Server).collect();
    let tablets: Vec<Party> =
        stage.cluster.of(Role::Tablet).into_iter().map(Party::Server).collect();
    let (mut gaps, mut pauses, mut rounds) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let (at, led) = stage.busiest().await?;
        let cut = Instant::now();
        stage.cluster.net()?.set(between(&[Party::Server(at)], &nameservers, Flow::Hold));
        tokio::time::sleep_until((cut + on).into()).await;
        let moved = stage.busiest().await?.0 != at;
        stage.cluster.net()?.heal();
        let longest = stage.load.tally.lock().longest_pause(cut, Instant::now());
        gaps.add(
            longest,
            format!("round {rounds}: a leader of {} cut off from the nameservers", led.len()),
        );
        let whole = stage.await_whole().await?;
        println!(
            "round {rounds}: one leader cut off: longest pause {longest:.3?}, {}, whole {whole:.3?} after the heal",
            if moved { "others lead" } else { "it still leads most" }
        );
        let cut = Instant::now();
        stage.cluster.net()?.set(between(&tablets, &nameservers, Flow::Hold));
        tokio::time::sleep_until((cut + on).into()).await;
        let longest = stage.load.tally.lock().longest_pause(cut, Instant::now());
        stage.cluster.net()?.heal();
        pauses.add(longest, format!("round {rounds}: all nameservers cut off"));
        let whole = stage.await_whole().await?;
        println!(
            "round {rounds}: all cut off: longest pause {longest:.3?}, whole {whole:.3?} after the heal"
        );
    }
    println!("one tablet cut off from the nameservers: {gaps}\nall of them: {pauses}");
    let promises = [
        Promise::within("every gap with one leader cut off", gaps.worst(), GAP),
        Promise::within("every pause with all cut off", pauses.worst(), PAUSE),
    ];
    stage.conclude(&promises, rounds > 0).await
}
