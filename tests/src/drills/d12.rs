//! D12: the disk of the tablet that leads most fails: syncs end with an error; syncs hang; it is full. In turn.
//!
//! Pass: nothing lost. When syncs fail the process ends within 3 s, and writes go on elsewhere; when they hang for ten
//! seconds it loses its partitions, and they take writes again within 5 s (the 2 s of R23, and a lease). When the disk is
//! full the tablet stays up, refuses writes with an error that says so, serves reads, and takes writes again when there is
//! room.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stela_common::client::{ReadFrom, WriteError};
use stela_common::code::Code;

use super::gaps::Gaps;
use super::promise::Promise;
use super::stage::{Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::Setup;
use crate::faults::{Disk, Faults};
use crate::workload::{DB, Place};

/// A process whose syncs fail ends within this.
const ENDS: Duration = Duration::from_secs(3);
/// Partitions whose leader's syncs hang take writes again within this.
const AGAIN: Duration = Duration::from_secs(5);
const HANGS: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Shown {
    gaps: Gaps,
    ends: Gaps,
    hangs: Gaps,
    full: Vec<Promise>,
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { faults: true, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    let (mut shown, mut rounds) = (Shown::default(), 0);
    while plan.goes_on(rounds, stage.elapsed(), 60) {
        match rounds % 3 {
            0 => syncs_fail(&mut stage, &mut shown).await?,
            1 => syncs_hang(&mut stage, &mut shown).await?,
            _ => disk_is_full(&mut stage, &mut shown).await?,
        }
        rounds += 1;
        stage.await_whole().await?;
    }
    println!("{}", shown.gaps);
    let mut promises = vec![
        Promise::within("until it ends when syncs fail", shown.ends.worst(), ENDS),
        Promise::within("until others go on when syncs hang", shown.hangs.worst(), AGAIN),
    ];
    promises.append(&mut shown.full);
    stage.conclude(&promises, rounds > 2).await
}

fn disk(disk: Disk) -> Faults {
    Faults { disk, ..Faults::default() }
}

async fn syncs_fail(stage: &mut Stage, shown: &mut Shown) -> Result<()> {
    let (at, led) = stage.busiest().await?;
    let failed = Instant::now();
    // It may be gone before it has said that it heard.
    let ordered = stage.cluster.order(at, disk(Disk { sync_fails: true, ..Disk::default() }));
    drop(tokio::time::timeout(Duration::from_secs(1), ordered).await);
    let ended = stage.cluster.await_end(at, ENDS * 2).await?;
    ensure!(ended, "a tablet whose syncs fail runs on for {:?}", ENDS * 2);
    let took = failed.elapsed();
    shown.ends.add(took, "syncs fail");
    let gap = stage.await_gaps(&led, failed, "syncs fail", &mut shown.gaps).await?;
    stage.cluster.order(at, Faults::default()).await?;
    stage.cluster.launch(at)?;
    stage.cluster.await_ready(at).await?;
    println!("syncs fail: it ends after {took:.3?}, longest gap {gap:.3?}");
    Ok(())
}

async fn syncs_hang(stage: &mut Stage, shown: &mut Shown) -> Result<()> {
    let (at, led) = stage.busiest().await?;
    let stall_ms = u64::try_from(HANGS.as_millis())?;
    stage.cluster.order(at, disk(Disk { stall_ms, ..Disk::default() })).await?;
    let hung = Instant::now();
    let gap = stage.await_gaps(&led, hung, "syncs hang", &mut shown.gaps).await?;
    shown.hangs.add(gap, "syncs hang");
    tokio::time::sleep_until((hung + HANGS).into()).await;
    stage.cluster.order(at, Faults::default()).await?;
    stage.excuse(gap);
    println!("syncs hang for {HANGS:?}: longest gap {gap:.3?}");
    Ok(())
}

async fn disk_is_full(stage: &mut Stage, shown: &mut Shown) -> Result<()> {
    let (at, led) = stage.busiest().await?;
    let &(number, pid) = led.first().context("the busiest leads nothing")?;
    // A client of its own, so that one write at a time is asked for and seen.
    let client = stage.cluster.client_of(2, Duration::from_secs(5)).await?;
    let table = client.table(DB, TABLES[number]).await?;
    let key = (0..).map(|n| format!("full-{n}")).find(|k| table.partition_of(k.as_bytes()) == pid);
    let key = key.context("no key is of that partition")?;
    client.put(&table, vec![table.plain(key.clone(), "before", 1)]).await?;
    stage.cluster.order(at, disk(Disk { full: true, ..Disk::default() })).await?;
    let full = Instant::now();
    let refused = client.put(&table, vec![table.plain(key.clone(), "full", 2)]).await;
    let took = full.elapsed();
    let read = client.get(&table, 0, key.as_bytes(), 0, ReadFrom::Leader).await;
    println!("the disk is full: a write is answered after {took:.3?}: {refused:?}");
    tokio::time::sleep_until((full + AGAIN).into()).await;
    let runs = !stage.cluster.await_end(at, Duration::ZERO).await?;
    ensure!(runs, "a tablet whose disk is full has ended");
    stage.cluster.order(at, Faults::default()).await?;
    let freed = Instant::now();
    let places: std::collections::BTreeSet<Place> = led;
    stage.await_gaps(&places, freed, "the disk was full", &mut Gaps::default()).await?;
    let again = freed.elapsed();
    stage.excuse(full.elapsed());
    println!("there is room: every partition takes writes {again:.3?} later");
    let typed = match &refused {
        // Or another one leads by now, and has taken it.
        Ok(_) => true,
        Err(WriteError::Refused(refusal)) => refusal.code == Code::DiskFull,
        Err(WriteError::Unknown(_)) => false,
    };
    let right =
        matches!(&read, Ok(Some((_, value))) if value.as_ref() == b"before" || refused.is_ok());
    shown.full.extend([
        Promise::new(
            format!("a full disk refuses a write with an error that says so ({refused:?})"),
            typed,
        ),
        Promise::new(format!("a full disk does not keep reads ({read:?})"), right),
        Promise::within("until writes go on when there is room", again, AGAIN),
    ]);
    Ok(())
}
