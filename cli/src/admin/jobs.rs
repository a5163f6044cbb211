//! `stela ops recoverdata|scaleout|scalein|pre-upgrade|post-upgrade`: work over many partitions, which the leading
//! nameserver carries out; `list`, `show` and `cancel` are about such work.
//!
//! Invariant: this program only asks and looks: whatever becomes of it, the work goes on to its end, and `--wait` can be
//! taken up again with `show --wait`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use stela_common::client::Admin;
use stela_proto::nameserver::JobRow;

use super::{Cluster, block_on, refused};
use crate::print::{Answer, Cell, Table};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(500);

/// How a command that starts work goes on.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Start {
    /// Show the progress and come back when it has ended; the status tells how
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    cluster: Cluster,
}

/// Starts work on these tablets.
pub(crate) fn start(
    kind: &str,
    endpoints: &[String],
    allow_single_replica: bool,
    start: &Start,
) -> Result<ExitCode> {
    block_on(async {
        let client = start.cluster.connect().await?;
        let admin = client.admin();
        let started = admin.start_job(kind, endpoints, allow_single_replica).await;
        let id = started.map_err(refused(&format!("{kind} was not started")))?.job;
        if start.wait {
            return wait(&admin, id, &start.cluster).await;
        }
        start.cluster.answer(&Answer::done(format!(
            "{kind} is job {id}; stela ops show {id} --wait shows how it goes on"
        )))
    })
}

/// Shows one piece of work, or all; with `wait` until it has ended.
pub(crate) fn show(id: u64, until_ended: bool, cluster: &Cluster) -> Result<ExitCode> {
    block_on(async {
        let client = cluster.connect().await?;
        let admin = client.admin();
        if until_ended {
            return wait(&admin, id, cluster).await;
        }
        let jobs = admin.show_jobs(id).await.map_err(refused("jobs"))?.jobs;
        if jobs.is_empty() && id != 0 {
            bail!("there is no job {id}; stela ops list shows those that are remembered");
        }
        cluster.answer(&Answer::table(table(&jobs)))
    })
}

/// Ends work where it is.
pub(crate) fn cancel(id: u64, cluster: &Cluster) -> Result<ExitCode> {
    block_on(async {
        let client = cluster.connect().await?;
        client.admin().cancel_job(id).await.map_err(refused(&format!("job {id}")))?;
        cluster.answer(&Answer::done(format!("job {id} ends")))
    })
}

async fn wait(admin: &Admin, id: u64, cluster: &Cluster) -> Result<ExitCode> {
    let mut said = String::new();
    loop {
        let jobs = admin.show_jobs(id).await.map_err(refused(&format!("job {id}")))?.jobs;
        let Some(job) = jobs.first() else {
            bail!("there is no job {id}; stela ops list shows those that are remembered");
        };
        if job.end_time != 0 {
            let answer = Answer { failed: job.status != "kDone", ..Answer::table(table(&jobs)) };
            let answer = match (answer.failed, job.why.as_str()) {
                (true, why) => answer.because(format!("{} {}: {why}", job.kind, job.status)),
                (false, _) => answer,
            };
            for cause in &answer.causes {
                eprintln!("stela: {cause}");
            }
            return cluster.answer(&answer);
        }
        let now = format!("{}: {} done, {} failed; {}", job.kind, job.done, job.failed, job.why);
        if now != said {
            eprintln!("{now}");
            said = now;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn table(jobs: &[JobRow]) -> Table {
    let mut table = Table::new(&[
        "job",
        "kind",
        "endpoints",
        "status",
        "left",
        "done",
        "failed",
        "start_time",
        "end_time",
        "why",
    ]);
    for job in jobs {
        let moment = |at: u64| if at == 0 { Cell::none() } else { Cell::moment(at) };
        table.push(vec![
            Cell::number(job.id),
            Cell::text(&job.kind),
            Cell::text(job.endpoints.join(",")),
            Cell::text(&job.status),
            Cell::number(job.left),
            Cell::number(job.done),
            Cell::number(job.failed),
            moment(job.start_time),
            moment(job.end_time),
            Cell::text(&job.why),
        ]);
    }
    table
}
