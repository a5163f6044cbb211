//! D11: the power goes, for all six machines at once: every process is killed under load, and what it had not synced is
//! taken back, all of it or a random part; the nameservers' derived data is damaged too. Then all start in a random order,
//! with no command given.
//!
//! Pass: nothing lost, every partition is whole within 30 s of the restart.

use std::time::{Duration, Instant};

use anyhow::Result;
use rand::RngExt as _;
use rand::seq::SliceRandom as _;
use stela_common::fs;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::faults::Cut;

const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { power: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (mut wholes, mut rounds, mut taken) = (Gaps::default(), 0, 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        rounds += 1;
        stage.load.await_acked(3000).await?;
        let mut order: Vec<usize> = (0..stage.cluster.servers.len()).collect();
        order.shuffle(&mut stage.random);
        let killed = Instant::now();
        for at in &order {
            stage.cluster.kill(*at)?;
        }
        let cut = if rounds % 2 == 1 { Cut::Drop } else { Cut::Some };
        let (mut undone, mut open) = (0, 0);
        for at in &order {
            let (these, all) = stage.cluster.power_cut(*at, cut, &mut stage.random)?;
            (undone, open) = (undone + these, open + all);
            if stage.cluster.servers[*at].role == Role::Nameserver {
                damage_derived(&mut stage, *at)?;
            }
        }
        taken += undone;
        order.shuffle(&mut stage.random);
        let restarted = Instant::now();
        for at in &order {
            stage.cluster.launch(*at)?;
        }
        let recovered = stage.await_whole().await;
        let whole = restarted.elapsed();
        wholes.add(whole, format!("round {rounds}"));
        if let Err(e) = recovered {
            println!("round {rounds}: no power for all six, and they do not recover: {e:#}");
            break;
        }
        stage.load.await_acked(1).await?;
        stage.excuse(killed.elapsed());
        println!(
            "round {rounds}: no power for all six; {undone} of {open} operations that were not synced are gone; restarted \
             in the order {order:?}, whole {whole:.3?} after"
        );
    }
    let worst = wholes.worst();
    let promises = [Promise::within("until every partition is whole", worst, LIMIT)];
    stage.conclude(&promises, rounds > 1 && taken > 0).await
}

/// What sled had not synced is anything, and it may take all of it with it (R31).
fn damage_derived(stage: &mut Stage, at: usize) -> Result<()> {
    let applied = stage.cluster.servers[at].dir.join("applied");
    let file = applied.join("db");
    match stage.random.random_range(0..3) {
        0 => fs::remove_dir_all(&applied)?,
        1 if fs::exists(&file) => {
            let bytes = fs::read(&file)?;
            fs::write(&file, &bytes[..bytes.len() / 2])?;
        }
        _ => {}
    }
    Ok(())
}
