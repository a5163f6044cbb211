//! A planned switch (R12) of every leader, again and again, under load.
//!
//! Pass: nothing lost, no client sees an error, and the longest pause of a partition around its switch is at most 100 ms
//! in the median.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{PARTITIONS, Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::workload::DB;

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let mut stage = Stage::begin(plan, Scene::default()).await?;
    let (mut gaps, mut switches) = (Gaps::default(), 0);
    let admin = stage.client.admin();
    'all: loop {
        for (table, name) in TABLES.iter().enumerate() {
            for pid in 0..PARTITIONS {
                if !plan.goes_on(switches, stage.elapsed(), 60) {
                    break 'all;
                }
                switches += 1;
                let before = leader(&stage, name, pid).await?;
                let asked = Instant::now();
                admin.change_leader(DB, name, pid, "").await?;
                let after = loop {
                    let now = leader(&stage, name, pid).await?;
                    if now.0 > before.0 && now.2 {
                        break now;
                    }
                    ensure!(
                        asked.elapsed() < Duration::from_secs(30),
                        "partition {pid} of '{name}' does not change its leader"
                    );
                    tokio::time::sleep(Duration::from_millis(2)).await;
                };
                let cause = format!("switch {switches} from {} to {}", before.1, after.1);
                ensure!(before.1 != after.1, "{cause}: no switch");
                let place = [(table, pid)].into();
                stage.await_gaps(&place, asked, &cause, &mut gaps).await?;
            }
        }
    }
    println!("{switches} switches, {gaps}");
    let errors: usize = stage.load.tally.lock().errors.values().sum();
    let promises = [
        Promise::within("median of the longest pauses", gaps.median(), Duration::from_millis(100)),
        Promise::new(format!("no error seen by a client ({errors})"), errors == 0),
    ];
    stage.conclude(&promises, switches > 0).await
}

/// Epoch, endpoint, and whether it serves.
async fn leader(stage: &Stage, table: &str, pid: u32) -> Result<(u64, String, bool)> {
    let shown = stage.client.admin().show_table(DB, table, false).await?;
    let partitions = shown.tables.into_iter().flat_map(|t| t.partitions);
    let found = partitions.into_iter().find(|p| p.pid == pid).and_then(|p| {
        let leader = p.replicas.iter().find(|r| r.leader && r.alive)?;
        Some((p.epoch, leader.endpoint.clone(), p.serving))
    });
    Ok(found.unwrap_or_default())
}
