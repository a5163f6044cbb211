//! D16: rolling restart of every server under load, and rolling upgrade to another version and back.
//!
//! Every server is stopped and started, one after the other, each tablet after its leaderships were moved away
//! (`pre-upgrade`), which come back afterwards (`post-upgrade`). If `STELA_OTHER` names the binary of another version, every
//! server is stopped and started as that, then as this one, and so once more: up, down and up again. Leaderships are not moved
//! before a stop then, since both versions have to understand what is decided meanwhile.
//!
//! Pass: nothing lost, no client sees an error after its own retries, and at each server 99 of 100 partitions stand still
//! for less than 1 s.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::promise::Promise;
use super::stage::{PARTITIONS, Scene, Stage, TABLES};
use super::{Outcome, Plan};
use crate::cluster::Role;

/// Names the binary of another version.
const OTHER: &str = "STELA_OTHER";
/// No partition stands still for longer at one server, but for one in a hundred.
const STILL: Duration = Duration::from_secs(1);
const JOB: Duration = Duration::from_secs(60);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let other = std::env::var_os(OTHER).map(PathBuf::from);
    let mut scene = Scene::default();
    if let Some(other) = &other {
        ensure!(other.exists(), "{OTHER} names no file: {}", other.display());
        // It is to be gone back to. That one does not know the flag, and does not look at the variable.
        let format = ("STELA_DATA_FORMAT".to_owned(), "1".to_owned());
        scene.setup.tablet.environment.push(format);
    }
    let mut stage = Stage::begin(plan, scene).await?;
    let rounds = plan.rounds.unwrap_or(usize::MAX);
    let mut worst: Vec<(String, Duration)> = Vec::new();
    let phases = match other {
        Some(other) => vec![
            ("taken to the other version", Some(other.clone()), false),
            ("upgraded to this one", None, false),
            ("taken back", Some(other), false),
            ("upgraded again", None, false),
        ],
        None => {
            println!("{OTHER} names no other version: a rolling restart only");
            vec![("restarted", None, true)]
        }
    };
    for (phase, program, moves) in phases {
        let servers: Vec<usize> = stage
            .cluster
            .of(Role::Tablet)
            .into_iter()
            .chain(stage.cluster.of(Role::Nameserver))
            .collect();
        for at in servers.into_iter().take(rounds) {
            let server = &stage.cluster.servers[at];
            let (endpoint, tablet) = (server.endpoint.clone(), server.role == Role::Tablet);
            let name = format!("{:?} {endpoint} {phase}", server.role);
            stage.load.await_acked(500).await?;
            let from = Instant::now();
            if tablet && moves {
                job(&stage, "pre-upgrade", &endpoint).await?;
            }
            stage.cluster.stop(at)?;
            stage.cluster.servers[at].program.clone_from(&program);
            stage.cluster.launch(at)?;
            stage.cluster.await_ready(at).await?;
            stage.await_whole().await?;
            if tablet && moves {
                job(&stage, "post-upgrade", &endpoint).await?;
            }
            stage.load.await_acked(500).await?;
            let still = p99(&stage, from, Instant::now());
            println!("{name}: done in {:.1?}, p99 of the pauses {still:.3?}", from.elapsed());
            worst.push((name, still));
        }
    }
    let (name, longest) =
        worst.iter().max_by_key(|(_, still)| *still).cloned().context("no server was restarted")?;
    println!("{} servers, the longest pause at {name}", worst.len());
    let errors: usize = stage.load.tally.lock().errors.values().sum();
    let promises = [
        Promise::within("p99 of the pauses at each server", longest, STILL),
        Promise::new(format!("no error seen by a client ({errors})"), errors == 0),
    ];
    stage.conclude(&promises, !worst.is_empty()).await
}

/// The longest time without an acknowledgement that 99 of 100 partitions had.
fn p99(stage: &Stage, from: Instant, to: Instant) -> Duration {
    let tally = stage.load.tally.lock();
    let mut pauses: Vec<Duration> = (0..TABLES.len())
        .flat_map(|table| (0..PARTITIONS).map(move |pid| (table, pid)))
        .map(|place| tally.longest_pause_of(place, from, to))
        .collect();
    pauses.sort_unstable();
    pauses[(pauses.len() * 99).div_ceil(100) - 1]
}

/// Work in the leading nameserver, to its end.
async fn job(stage: &Stage, kind: &str, endpoint: &str) -> Result<()> {
    let admin = stage.client.admin();
    let id = admin.start_job(kind, &[endpoint.to_owned()], false).await?.job;
    let begun = Instant::now();
    loop {
        let jobs = admin.show_jobs(id).await?.jobs;
        let job = jobs.first().context("the job is forgotten")?;
        if job.end_time != 0 {
            ensure!(job.status == "kDone", "{kind} of {endpoint}: {job:?}");
            return Ok(());
        }
        ensure!(begun.elapsed() < JOB, "{kind} of {endpoint} goes on: {job:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
