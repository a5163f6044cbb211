//! D19: a monkey at the operators' client: `offlineendpoint`, `recoverendpoint`, `migrate`, `changeleader`, `recovertable`,
//! `updatetablealive` and `makesnapshot` at random, with `auto_failover` off, under load.
//!
//! Pass: in the end every partition has its three replicas, all in sync; every tablet has what the catalog says; no epoch
//! of a partition had two leaders; nothing is lost, and no command was answered with anything but its documented texts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::seq::IndexedRandom as _;
use stela_proto::tablet as tp;

use super::promise::Promise;
use super::stage::{PARTITIONS, Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::{Role, Setup};
use crate::workload::DB;

/// From one command to the next, at most, ms.
const PAUSE: u64 = 300;
/// Fewer commands than this that were carried out show nothing.
const ENOUGH: usize = 30;
const REST: Duration = Duration::from_secs(60);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let setup = Setup { tablets: 4, ..Setup::default() };
    let mut stage = Stage::begin(plan, Scene { setup, ..Scene::default() }).await?;
    stage.client.admin().conf_set("auto_failover", "false").await?;
    let tablets: Vec<String> = stage
        .cluster
        .of(Role::Tablet)
        .into_iter()
        .map(|at| stage.cluster.servers[at].endpoint.clone())
        .collect();
    let mut answers: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut strange = Vec::new();
    let mut steps = 0;
    while plan.goes_on(steps, stage.elapsed(), 600) {
        steps += 1;
        let (ok, line) = command(&mut stage, &tablets);
        let printed =
            stage.cluster.ns_client(&[&format!("--cmd={line}"), &format!("--database={DB}")])?;
        let answer = printed.lines().rfind(|l| !l.starts_with("ns leader:")).unwrap_or_default();
        let done = answer.starts_with(ok);
        let word = line.split(' ').next().unwrap_or_default().to_owned();
        *answers.entry((word, done)).or_default() += 1;
        if !done && !answer.contains("error msg") {
            strange.push(format!("{line}: {answer}"));
        }
        let pause = stage.random.random_range(0..PAUSE);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    for ((word, done), count) in &answers {
        println!("{word:16} {} {count}", if *done { "carried out" } else { "refused    " });
    }

    // Everything back, by hand.
    let begun = Instant::now();
    for tablet in &tablets {
        await_ops(&stage).await?;
        stage.client.admin().recover_endpoint(tablet, false, 0).await?;
    }
    await_ops(&stage).await?;
    let wrong = loop {
        match wrong(&stage).await? {
            None => break None,
            wrong if begun.elapsed() > REST => break wrong,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    println!("all is as it is wanted {:.1?} after the last command", begun.elapsed());
    let printed = stage.cluster.of(Role::Tablet).into_iter();
    let printed: Vec<String> = printed.map(|at| stage.cluster.servers[at].printed()).collect();
    let (epochs, doubled) = two_leaders(&printed);
    println!("{epochs} epochs were served");
    let carried_out: usize = answers.iter().filter(|((_, done), _)| *done).map(|(_, n)| n).sum();
    let promises = [
        Promise::new(format!("every replica is where it is wanted ({wrong:?})"), wrong.is_none()),
        Promise::new(format!("one leader in each epoch ({doubled:?})"), doubled.is_empty()),
        Promise::new(format!("documented answers only ({strange:?})"), strange.is_empty()),
    ];
    stage.conclude(&promises, carried_out >= ENOUGH.min(steps / 3) && epochs > 0).await
}

/// A command at random, and how its answer begins if it is carried out.
fn command(stage: &mut Stage, tablets: &[String]) -> (&'static str, String) {
    let random = &mut stage.random;
    let pid = random.random_range(0..PARTITIONS);
    let table = TABLES.choose(random).copied().unwrap_or_default();
    let endpoint = tablets.choose(random).cloned().unwrap_or_default();
    let other = tablets.choose(random).cloned().unwrap_or_default();
    match random.random_range(0..20) {
        0 => ("offline endpoint ok", format!("offlineendpoint {endpoint}")),
        1..=4 => ("recover endpoint ok", format!("recoverendpoint {endpoint}")),
        5 => ("recover endpoint ok", format!("recoverendpoint {endpoint} true 2")),
        6..=10 if endpoint != other => {
            ("partition migrate ok", format!("migrate {endpoint} {table} {pid} {other}"))
        }
        11..=13 => ("change leader ok", format!("changeleader {table} {pid} auto")),
        14 => ("change leader ok", format!("changeleader {table} {pid} {endpoint}")),
        15 | 16 => ("recover table ok", format!("recovertable {table} {pid} {endpoint}")),
        17 => ("update ok", format!("updatetablealive {table} {pid} {endpoint} no")),
        18 => ("update ok", format!("updatetablealive {table} * {endpoint} yes")),
        _ => ("MakeSnapshot ok", format!("makesnapshot {table} {pid}")),
    }
}

async fn await_ops(stage: &Stage) -> Result<()> {
    let begun = Instant::now();
    loop {
        let ops = stage.client.admin().show_op_status("", "", None).await?.ops;
        let Some(op) = ops.iter().find(|op| op.end_time == 0) else { return Ok(()) };
        ensure!(begun.elapsed() < REST, "{op:?} does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is not as it is wanted.
async fn wrong(stage: &Stage) -> Result<Option<String>> {
    let shown = stage.client.admin().show_table(DB, "", false).await?;
    let mut wanted: BTreeMap<String, BTreeSet<(u32, u32)>> = BTreeMap::new();
    for table in &shown.tables {
        let definition = table.table.as_ref().context("a table without a definition")?;
        for p in &table.partitions {
            let places: BTreeSet<&str> = p.replicas.iter().map(|r| r.endpoint.as_str()).collect();
            let leaders = p.replicas.iter().filter(|r| r.leader && r.alive).count();
            let alive = p.replicas.iter().all(|r| r.alive && r.in_sync);
            if places.len() != 3 || p.replicas.len() != 3 || leaders != 1 || !alive || !p.serving {
                return Ok(Some(format!("{} {}: {p:?}", definition.name, p.pid)));
            }
            for place in places {
                wanted.entry(place.to_owned()).or_default().insert((definition.tid, p.pid));
            }
        }
    }
    for at in stage.cluster.of(Role::Tablet) {
        let endpoint = &stage.cluster.servers[at].endpoint;
        let request = tp::GetTableStatusRequest::default();
        let mut tablet = stage.cluster.tablet_at(at, 0)?;
        let rows = tablet.get_table_status(request).await?.into_inner().rows;
        let there: BTreeSet<(u32, u32)> = rows.iter().map(|r| (r.tid, r.pid)).collect();
        let wanted = wanted.get(endpoint).cloned().unwrap_or_default();
        if there != wanted {
            return Ok(Some(format!("{endpoint} has {there:?}, not {wanted:?}")));
        }
    }
    Ok(None)
}

/// How many epochs were served in, and those that more than one tablet served in, by what each tablet said.
fn two_leaders(printed: &[String]) -> (usize, Vec<String>) {
    let mut served: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (tablet, text) in printed.iter().enumerate() {
        for (_, fields) in text.lines().filter_map(|line| line.split_once("serves as leader")) {
            let field = |name: &str| {
                let word = fields.split_whitespace().find_map(|w| w.strip_prefix(name));
                word.unwrap_or_default().to_owned()
            };
            let epoch = format!("{} epoch {}", field("key="), field("epoch="));
            served.entry(epoch).or_default().insert(tablet);
        }
    }
    let epochs = served.len();
    (epochs, served.into_iter().filter(|(_, by)| by.len() > 1).map(|(epoch, _)| epoch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_with_two_leaders_is_seen() {
        let line = |key: &str, epoch| {
            format!("t INFO x: serves as leader key={key} epoch={epoch} start=3\n")
        };
        let a = format!("{}{}", line("1_0", 1), line("1_1", 1));
        assert_eq!(two_leaders(&[a.clone(), line("1_0", 2)]), (3, vec![]));
        assert_eq!(two_leaders(&[a, line("1_1", 1)]), (2, vec!["1_1 epoch 1".to_owned()]));
    }
}
