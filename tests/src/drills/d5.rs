//! D5, the test that Sentinel fails: the tablet that leads most and half of the clients are cut off from everybody else, on
//! and off.
//!
//! Pass: nothing lost; the cut-off leader refuses writes within 2.5 s of the cut, the lease and a margin; no client,
//! whichever side it is on, reads stale at a leader.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use stela_common::client::TableHandle;
use stela_common::wire;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::Channel;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::Setup;
use crate::net::{Flow, Party, between};
use crate::workload::{DB, Place};

/// The client group on the leader's side.
const FAR: u8 = 1;
const LEASE: Duration = Duration::from_millis(2500);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { links: true, ..Setup::default() };
    let scene = Scene { setup, two_groups: true, ..Scene::default() };
    let mut stage = Stage::begin(plan, scene).await?;
    let on = Duration::from_secs(plan.longest.unwrap_or(8));
    let (mut gaps, mut refusals, mut cycles) = (Gaps::default(), Gaps::default(), 0);
    while plan.goes_on(cycles, stage.elapsed(), 60) {
        cycles += 1;
        let (at, led) = stage.busiest().await?;
        let minority = [Party::Server(at), Party::Clients(FAR)];
        let majority: Vec<Party> = (0..stage.cluster.servers.len())
            .filter(|other| *other != at)
            .map(Party::Server)
            .chain([Party::Clients(0)])
            .collect();
        let cut = Instant::now();
        stage.cluster.net()?.set(between(&minority, &majority, Flow::Hold));
        let refused = until_refused(&stage, at, &led, cut).await?;
        refusals.add(refused, format!("cycle {cycles}"));
        // Its writers on the other side see the failover.
        let cause = format!("cut {cycles} of a leader of {} partitions", led.len());
        let gap = stage.await_gaps(&led, cut, &cause, &mut gaps).await?;
        tokio::time::sleep_until((cut + on).into()).await;
        stage.cluster.net()?.heal();
        let healed = Instant::now();
        let whole = stage.await_whole().await?;
        println!(
            "{cause}: it refuses after {refused:.3?}, longest gap {gap:.3?}, whole {whole:.3?} after the heal"
        );
        tokio::time::sleep_until((healed + on).into()).await;
    }
    println!("{gaps}\nuntil the cut-off leader refuses, {refusals}");
    let promises = [
        Promise::within("until a cut-off leader refuses", refusals.worst(), LEASE),
        Promise::within("every gap", gaps.worst(), Duration::from_secs(4)),
    ];
    stage.conclude(&promises, cycles > 0).await
}

/// Writes to each partition of the cut-off leader, as a client on its side: how long after the cut it has refused all.
async fn until_refused(
    stage: &Stage,
    at: usize,
    led: &BTreeSet<Place>,
    cut: Instant,
) -> Result<Duration> {
    let mut told = FuturesUnordered::new();
    for (table, pid) in led {
        let handle = stage.client.table(DB, TABLES[*table]).await?;
        told.push(refusal(stage.cluster.tablet_at(at, FAR)?, handle, *pid));
    }
    while let Some(refused) = told.next().await {
        refused?;
    }
    Ok(cut.elapsed())
}

/// Ends when a write to that partition is not acknowledged but answered.
async fn refusal(
    mut tablet: TabletClient<Channel>,
    table: Arc<TableHandle>,
    pid: u32,
) -> Result<()> {
    let mut keys = (0u64..).map(|n| format!("asked{n}"));
    let key = keys.find(|key| table.partition_of(key.as_bytes()) == pid).unwrap_or_default();
    for n in 0..100 {
        let dimension = pb::Dimension { index: 0, key: key.clone().into() };
        let row = pb::Row { time: n, dimensions: vec![dimension], value: "asked".into() };
        let mut request = tonic::Request::new(pb::PutRequest {
            target: Some(pb::Target { tid: table.tid(), pid, epoch: 0 }),
            session: rand::random(),
            seq: 1,
            rows: vec![row],
            ..Default::default()
        });
        request.set_timeout(Duration::from_secs(20));
        let reply = tablet.put(request).await?.into_inner();
        if wire::outcome(reply.status.as_ref()).is_err() {
            return Ok(());
        }
    }
    bail!("a leader that is cut off goes on")
}
