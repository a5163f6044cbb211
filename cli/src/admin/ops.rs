//! `stela ops`: what operators decide beyond OpenMLDB's commands, and the work that its scripts do.

use std::process::ExitCode;

use anyhow::Result;

use super::jobs::{self, Start};
use super::{Cluster, elect};

/// What is to be done.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Bring back every replica and every leader, whatever auto_failover says
    #[command(after_help = "\
The one-click recovery of the operators' document. The auto_failover switch stays as it is.

Example: stela ops recoverdata --wait --nameservers 10.0.0.1:6527")]
    Recoverdata(Start),
    /// Spread replicas and leaders over all tablets, new ones among them
    #[command(after_help = "\
Example: stela ops scaleout --wait --nameservers 10.0.0.1:6527")]
    Scaleout(Start),
    /// Empty tablets, so that they can be switched off
    #[command(after_help = "\
Example: stela ops scalein --endpoints 10.0.0.4:9527 --wait --nameservers 10.0.0.1:6527")]
    Scalein {
        /// The tablets
        #[arg(long, value_name = "HOST:PORT,...", required = true, value_delimiter = ',')]
        endpoints: Vec<String>,
        #[command(flatten)]
        start: Start,
    },
    /// Let others lead what a tablet leads, before it is stopped
    #[command(after_help = "\
Example: stela ops pre-upgrade --endpoints 10.0.0.4:9527 --wait --nameservers 10.0.0.1:6527")]
    PreUpgrade {
        /// The tablet
        #[arg(long, value_name = "HOST:PORT", required = true)]
        endpoints: String,
        /// Partitions of one replica stay, and are away while it is; else they get a second one for the time
        #[arg(long, alias = "allow_single_replica")]
        allow_single_replica: bool,
        #[command(flatten)]
        start: Start,
    },
    /// Let a tablet lead again what it led before its pre-upgrade
    #[command(after_help = "\
Example: stela ops post-upgrade --endpoints 10.0.0.4:9527 --wait --nameservers 10.0.0.1:6527")]
    PostUpgrade {
        /// The tablet
        #[arg(long, value_name = "HOST:PORT", required = true)]
        endpoints: String,
        #[command(flatten)]
        start: Start,
    },
    /// The work that is remembered
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// How a piece of work goes on
    Show {
        /// Its number
        job: u64,
        /// Show the progress and come back when it has ended; the status tells how
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// End work where it is
    Cancel {
        /// Its number
        job: u64,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Make a replica the leader although it may lack acknowledged writes
    #[command(after_help = "\
Only for a partition that nobody can lead any more, because every in-sync replica is gone for good. What each replica is
known to have is shown first, and what would be lost. Whoever comes back later keeps its tail in lost+found: see
stela lost.

Example: stela ops elect --unclean db1.orders 3 10.0.0.2:9527 --nameservers 10.0.0.1:6527")]
    Elect {
        /// Yes, acknowledged writes may be lost
        #[arg(long, required = true)]
        unclean: bool,
        /// db.table
        table: String,
        /// The partition
        pid: u32,
        /// Who is to lead
        endpoint: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        cluster: Cluster,
    },
}

/// Runs it.
///
/// # Errors
/// What went wrong, and the cure.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Recoverdata(start) => jobs::start("recoverdata", &[], false, &start),
        Command::Scaleout(start) => jobs::start("scaleout", &[], false, &start),
        Command::Scalein { endpoints, start } => jobs::start("scalein", &endpoints, false, &start),
        Command::PreUpgrade { endpoints, allow_single_replica, start } => {
            jobs::start("pre-upgrade", &[endpoints], allow_single_replica, &start)
        }
        Command::PostUpgrade { endpoints, start } => {
            jobs::start("post-upgrade", &[endpoints], false, &start)
        }
        Command::List { cluster } => jobs::show(0, false, &cluster),
        Command::Show { job, wait, cluster } => jobs::show(job, wait, &cluster),
        Command::Cancel { job, cluster } => jobs::cancel(job, &cluster),
        Command::Elect { unclean: _, table, pid, endpoint, yes, cluster } => {
            elect::run(&table, pid, &endpoint, yes, &cluster)
        }
    }
}
