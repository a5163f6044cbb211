//! D23: the other end vanishes without a farewell: nothing arrives any more, and nothing is reset.
//!
//! Pass: nothing lost. Between two tablets: the leader goes on without the other in less than 5 s. Between a client and a
//! tablet, and a client and the nameserver that it talks to: the client notices in less than 5 s, and gets its answer
//! elsewhere where somebody else can give it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::net::{Flow, Party, between};
use crate::workload::DB;

/// The group that is cut off from single servers.
const LONELY: u8 = 3;
const NOTICED: Duration = Duration::from_secs(5);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { links: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let client = stage.cluster.client_of(LONELY, Duration::from_secs(60)).await?;
    let table = client.table(DB, TABLES[0]).await?;
    let (mut gaps, mut told, mut rounds) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 45) {
        rounds += 1;
        let (leader, led) = stage.busiest().await?;
        let tablets = stage.cluster.of(Role::Tablet);
        let follower = *tablets.iter().find(|at| **at != leader).context("a second tablet")?;
        let cut = Instant::now();
        stage.cluster.net()?.set(between(
            &[Party::Server(leader)],
            &[Party::Server(follower)],
            Flow::Hold,
        ));
        let cause = format!("round {rounds}: a follower has vanished");
        let gap = stage.await_gaps(&led, cut, &cause, &mut gaps).await?;

        // A client that asks a tablet which vanishes.
        let endpoint = stage.cluster.servers[follower].endpoint.clone();
        client.get_at(&endpoint, &table, 0, b"nothing", 0).await?;
        stage.cluster.net()?.set(between(
            &[Party::Clients(LONELY)],
            &[Party::Server(follower)],
            Flow::Hold,
        ));
        let asked = Instant::now();
        let answer = client.get_at(&endpoint, &table, 0, b"nothing", 0).await;
        let tablet = asked.elapsed();
        told.add(tablet, format!("round {rounds}: a tablet has vanished"));
        anyhow::ensure!(answer.is_err(), "an answer came through a link that holds everything");

        // One that asks a nameserver which vanishes: another one answers.
        client.admin().show_db().await?;
        let nameserver = stage.leading_nameserver().await?;
        stage.cluster.net()?.set(between(
            &[Party::Clients(LONELY)],
            &[Party::Server(nameserver)],
            Flow::Hold,
        ));
        let asked = Instant::now();
        client.admin().show_db().await?;
        let catalog = asked.elapsed();
        told.add(catalog, format!("round {rounds}: a nameserver has vanished"));
        stage.cluster.net()?.heal();
        let whole = stage.await_whole().await?;
        println!(
            "{cause}: gap {gap:.3?}; a client notices a tablet after {tablet:.3?}, a nameserver after {catalog:.3?}; whole {whole:.3?} later"
        );
    }
    println!("{gaps}\nuntil a client knows: {told}");
    let promises = [
        Promise::within(
            "until a leader goes on without a vanished follower",
            gaps.worst(),
            NOTICED,
        ),
        Promise::within("until a client notices", told.worst(), NOTICED),
    ];
    stage.conclude(&promises, rounds > 0).await
}
