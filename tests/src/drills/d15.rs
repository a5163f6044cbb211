//! D15: one server's clock is wrong, each in turn: wall time an hour ahead or behind, wall time that jumps by half a second
//! ten times a second, all clocks 5 % too fast or too slow.
//!
//! Pass: nothing lost, no stale read, and leases are unaffected: nobody is elected and no partition stops.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;

use super::promise::Promise;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::Setup;
use crate::faults::{Clock, Faults};
use crate::workload::DB;

const HOUR: i64 = 3_600_000;
/// So long each clock is wrong: longer than two leases.
const WRONG: Duration = Duration::from_secs(5);
/// No partition rests longer: a lease lost would cost more.
const PAUSE: Duration = Duration::from_millis(1500);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { faults: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (before, began) = (epochs(&stage).await?, Instant::now());
    let right = Clock::default();
    let clocks = [
        ("an hour ahead", Clock { offset_ms: HOUR, ..right }),
        ("an hour behind", Clock { offset_ms: -HOUR, ..right }),
        ("jumping by half a second", Clock { strobe_ms: 500, ..right }),
        ("5 % too fast", Clock { rate_ppm: 50_000, ..right }),
        ("5 % too slow", Clock { rate_ppm: -50_000, ..right }),
    ];
    let mut rounds = 0;
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        let (name, clock) = clocks[rounds % clocks.len()];
        rounds += 1;
        let at = if stage.random.random_bool(0.5) {
            stage.leading_nameserver().await?
        } else {
            stage.busiest().await?.0
        };
        let wrong = Instant::now();
        stage.cluster.order(at, Faults { clock, ..Faults::default() }).await?;
        tokio::time::sleep(WRONG).await;
        let pause = stage.load.tally.lock().longest_pause(wrong, Instant::now());
        stage.cluster.order(at, Faults::default()).await?;
        let who = &stage.cluster.servers[at];
        println!(
            "round {rounds}: {:?} {} is {name}: longest pause {pause:.3?}",
            who.role, who.endpoint
        );
    }
    let pause = stage.load.tally.lock().longest_pause(began, Instant::now());
    let promises = [
        Promise::new("nobody is elected", epochs(&stage).await? == before),
        Promise::within("rest of a partition", pause, PAUSE),
    ];
    stage.conclude(&promises, rounds > 0).await
}

/// The epoch of every partition.
async fn epochs(stage: &Stage) -> Result<BTreeMap<(&'static str, u32), u64>> {
    let mut epochs = BTreeMap::new();
    for table in TABLES {
        let shown = stage.client.admin().show_table(DB, table, false).await?;
        for partition in shown.tables.iter().flat_map(|t| &t.partitions) {
            epochs.insert((table, partition.pid), partition.epoch);
        }
    }
    Ok(epochs)
}
