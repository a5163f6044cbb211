//! D7: links that work in one direction only, a ring of majorities (each tablet reaches only one other), and a link that
//! comes and goes every 200 ms.
//!
//! Pass: nothing lost, no stale read; once such a state has lasted a while, a partition changes its leader at most once in
//! 10 s. Elections of nameservers are counted and printed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;
use rand::seq::SliceRandom;
use stela_common::client::Client;

use super::promise::Promise;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::net::{Flow, Party, between};
use crate::workload::DB;

/// A state settles in this time.
const SETTLES: Duration = Duration::from_secs(6);
const FLAP: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
enum Fault {
    OneWay,
    Ring,
    Flapping,
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { links: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let on = Duration::from_secs(plan.longest.unwrap_or(16)).max(SETTLES * 2);
    let (mut worst, mut rounds) = (0.0_f64, 0);
    let faults = [Fault::OneWay, Fault::Ring, Fault::Flapping];
    while plan.goes_on(rounds, stage.elapsed(), 75) {
        let fault = faults[rounds % faults.len()];
        rounds += 1;
        let began = Instant::now();
        let mut tablets: Vec<Party> =
            stage.cluster.of(Role::Tablet).into_iter().map(Party::Server).collect();
        tablets.shuffle(&mut stage.random);
        match fault {
            Fault::OneWay => {
                let one_way = stage.random.random_range(0..2);
                let (from, to) = (tablets[one_way], tablets[1 - one_way]);
                stage.cluster.net()?.set([((from, to), Flow::Hold)]);
            }
            Fault::Ring => {
                stage.cluster.net()?.set(between(&tablets[..1], &tablets[1..2], Flow::Hold));
            }
            Fault::Flapping => {}
        }
        let mut settled = None;
        while began.elapsed() < on {
            if matches!(fault, Fault::Flapping) {
                let flow = [Flow::Hold, Flow::Pass][usize::from(stage.random.random_bool(0.5))];
                stage.cluster.net()?.set(between(&tablets[..1], &tablets[1..2], flow));
            }
            tokio::time::sleep(FLAP).await;
            if settled.is_none() && began.elapsed() >= SETTLES {
                settled = Some((Instant::now(), epochs(&stage.client).await?));
            }
        }
        let after = epochs(&stage.client).await?;
        stage.cluster.net()?.heal();
        let (since, before) = settled.unwrap_or((began, BTreeMap::new()));
        let seconds = since.elapsed().as_secs_f64();
        let moved =
            |(key, epoch): (&(usize, u32), &u64)| epoch - before.get(key).copied().unwrap_or(0);
        let most = after.iter().map(moved).max().unwrap_or(0);
        let rate = most as f64 * 10.0 / seconds;
        worst = worst.max(rate);
        let pause = stage.load.tally.lock().longest_pause(began, Instant::now());
        let whole = stage.await_whole().await?;
        println!(
            "round {rounds}, {fault:?}: at most {most} elections of a partition in {seconds:.1} s, longest pause {pause:.3?}, whole {whole:.3?} after the heal"
        );
    }
    let elected: usize = stage
        .cluster
        .of(Role::Nameserver)
        .iter()
        .map(|at| stage.cluster.servers[*at].printed().matches("controls the tablets").count())
        .sum();
    println!("nameservers took over {elected} times");
    let seldom = format!("at most one election of a partition in 10 s (worst {worst:.2})");
    let promises = [Promise::new(seldom, worst <= 1.0)];
    stage.conclude(&promises, rounds > 0).await
}

/// The epoch of each partition.
async fn epochs(client: &Client) -> Result<BTreeMap<(usize, u32), u64>> {
    let mut epochs = BTreeMap::new();
    for (table, name) in TABLES.iter().enumerate() {
        let shown = client.admin().show_table(DB, name, false).await?;
        let partitions = shown.tables.into_iter().flat_map(|t| t.partitions);
        epochs.extend(partitions.map(|p| ((table, p.pid), p.epoch)));
    }
    Ok(epochs)
}
