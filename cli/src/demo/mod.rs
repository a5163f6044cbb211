//! `stela demo`: a cluster on loopback that is fed with this machine's own metrics, loses its busiest tablet to kill -9
//! under load, loses no acknowledged row, and heals.
//!
//! ```text
//! run -> story (the steps, in order) -> cluster (child processes), load (metrics -> client -> ledger), check, screen
//! ```
//!
//! Invariants:
//! * Nothing outlives the demo unless `--keep` asked for it: servers are ended by their own process id on every way out,
//!   Ctrl-C and SIGTERM included, and by the kernel if this process is itself killed (see [`bound`]).
//! * Status 0 is said only of a run in which every acknowledged row was read back, from the leaders and from each replica,
//!   and all became whole again; otherwise the servers' logs are kept and named.
//!
//! It uses the client and the commands that everybody has, and nothing of the servers' insides.

mod address;
mod bound;
mod check;
mod cluster;
mod commands;
mod home;
mod ledger;
mod load;
mod metrics;
mod outcome;
mod screen;
mod server;
mod signals;
mod story;
mod turns;
mod whole;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};

use self::cluster::Cluster;
use self::home::Home;
use self::outcome::Outcome;
use self::screen::Screen;
use self::signals::{Caught, Signals};

/// It ends by itself within a minute, whatever happens.
const LIMIT: Duration = Duration::from_secs(54);

/// What `stela demo` is asked for.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Where the servers keep their data: an empty directory, or one to be made (default: a temporary one)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Leave the cluster up, and say how to connect to it and how to stop it
    #[arg(long)]
    keep: bool,
    /// How the demo starts its servers: not for people
    #[arg(long, hide = true, value_name = "PID", requires = "server")]
    bound_to: Option<i32>,
    /// The arguments of the server that is bound to the demo
    #[arg(last = true, hide = true, requires = "bound_to")]
    server: Vec<OsString>,
}

/// Runs it. The status is 0 only if nothing was lost and all became whole.
///
/// # Errors
/// It could not begin: the directory or the address is of no use.
pub fn run(args: Args) -> Result<ExitCode> {
    if let Some(parent) = args.bound_to {
        return Err(bound::become_server(parent, &args.server));
    }
    // One thread: it is the parent of the servers, and they are bound to the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(Box::pin(perform(&args)))
}

enum Ended {
    Told(Result<Outcome>),
    Late,
    Interrupted(Caught),
}

async fn perform(args: &Args) -> Result<ExitCode> {
    let mut signals = Signals::listen().context("cannot listen for signals")?;
    let home = Home::prepare(args.dir.as_deref())?;
    let mut cluster = Cluster::plan(home, args.keep)?;
    let mut screen = Screen::new();
    let ended = tokio::select! {
        told = tokio::time::timeout(LIMIT, Box::pin(story::tell(&mut screen, &mut cluster))) => {
            told.map_or(Ended::Late, Ended::Told)
        }
        caught = signals.next() => Ended::Interrupted(caught),
    };
    screen.clear_live();
    match ended {
        Ended::Told(Ok(outcome)) if outcome.good() && args.keep => {
            outcome.conclude(&mut screen)?;
            commands::how_to_connect(&mut screen, &cluster)?;
            cluster.release();
            Ok(ExitCode::SUCCESS)
        }
        Ended::Told(Ok(outcome)) if outcome.good() => {
            cluster.stop().await;
            cluster.remove()?;
            outcome.conclude(&mut screen)?;
            Ok(ExitCode::SUCCESS)
        }
        Ended::Told(Ok(outcome)) => {
            cluster.stop().await;
            outcome.conclude(&mut screen)?;
            eprint!("{}", cluster.where_the_logs_are());
            Ok(ExitCode::FAILURE)
        }
        Ended::Told(Err(error)) if nobody_reads(&error) => {
            cluster.stop().await;
            cluster.remove()?;
            Ok(ExitCode::FAILURE)
        }
        Ended::Told(Err(error)) => Ok(failed(&mut cluster, &format!("{error:#}")).await),
        Ended::Late => {
            let text = format!("not done after {} s; it was at: {}", LIMIT.as_secs(), screen.at());
            Ok(failed(&mut cluster, &text).await)
        }
        Ended::Interrupted(caught) => {
            cluster.stop().await;
            cluster.remove()?;
            eprintln!(
                "stela: demo: {}: the servers are stopped and their directory is removed",
                caught.name()
            );
            Ok(ExitCode::from(caught.status()))
        }
    }
}

/// Says why, and where to look.
async fn failed(cluster: &mut Cluster, why: &str) -> ExitCode {
    let obituaries = cluster.obituaries();
    cluster.stop().await;
    eprint!("stela: demo: {why}\n{obituaries}{}", cluster.where_the_logs_are());
    ExitCode::FAILURE
}

/// The reader of the output is gone: there is nobody to tell anything, and nothing is wrong with the cluster.
fn nobody_reads(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
