//! D8: swizzle-clog. The links of all six processes become slow and then clogged one process after the other, and are
//! unclogged in another order.
//!
//! Pass: nothing lost, no stale read, and after each round every partition is whole within 15 s.

use std::time::Duration;

use anyhow::Result;
use rand::RngExt as _;
use rand::seq::SliceRandom;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::Setup;
use crate::net::{Flow, Party, between};

const WHOLE: Duration = Duration::from_secs(15);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { links: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let everybody: Vec<Party> =
        (0..stage.cluster.servers.len()).map(Party::Server).chain([Party::Clients(0)]).collect();
    let (mut wholes, mut rounds) = (Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        let began = stage.elapsed();
        let mut order: Vec<usize> = (0..stage.cluster.servers.len()).collect();
        let late = Flow::Late(Duration::from_millis(stage.random.random_range(1..80)));
        for flow in [late, Flow::Hold, Flow::Pass] {
            order.shuffle(&mut stage.random);
            for at in &order {
                stage.cluster.net()?.set(between(&[Party::Server(*at)], &everybody, flow));
                let pause = stage.random.random_range(50..700);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
        let whole = stage.await_whole().await?;
        stage.excuse(stage.elapsed() - began);
        println!(
            "round {rounds}: clogged and unclogged, the last ones {order:?}; whole {whole:.3?} later"
        );
        wholes.add(whole, format!("round {rounds}"));
        stage.load.await_acked(1000).await?;
    }
    println!("until whole: {wholes}");
    let promises = [Promise::within("whole after each round", wholes.worst(), WHOLE)];
    stage.conclude(&promises, rounds > 0).await
}
