//! `stela table`, `stela ops`, `stela lost` and `stela inspect`: what operators decide beyond OpenMLDB's commands.
//!
//! Invariants: nothing that could lose data is done before what would be lost was shown and a person, or `--yes`, agreed;
//! what was done is said on standard output, what went wrong in one line on standard error with a status other than 0.

mod elect;
pub(crate) mod inspect;
mod jobs;
pub(crate) mod lost;
pub(crate) mod ops;
pub(crate) mod table;

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use stela_common::client::{Client, Options};
use stela_common::code::Refusal;

use crate::print::{Answer, Style, write};

/// Which cluster, and how answers are printed.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// The cluster's nameservers; one that answers is enough
    #[arg(
        long,
        alias = "zk_cluster",
        value_name = "HOST:PORT,...",
        required = true,
        value_delimiter = ',',
        global = false
    )]
    nameservers: Vec<String>,
    /// The cluster that is meant (default: the one that answers)
    #[arg(long, alias = "zk_root_path", value_name = "NAME")]
    cluster: Option<String>,
    /// Seconds after which a request is given up
    #[arg(long, value_name = "S", default_value_t = 30)]
    timeout: u64,
    /// Tables as JSON, for scripts
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

impl Cluster {
    async fn connect(&self) -> Result<Client> {
        let cluster = self.cluster.as_deref().map(|name| name.trim_start_matches('/').to_owned());
        let timeout = Duration::from_secs(self.timeout.max(1));
        let nameservers = self.nameservers.clone();
        Ok(Client::connect(Options { cluster, timeout, ..Options::new(nameservers) }).await?)
    }

    /// Prints an answer, and tells the status that it means.
    fn answer(&self, answer: &Answer) -> Result<ExitCode> {
        let style = Style { json: self.output == "json", longest_cell: usize::MAX };
        write(&mut std::io::stdout(), answer, style)?;
        Ok(if answer.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// Runs a command to its end.
fn block_on(run: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    runtime.block_on(Box::pin(run))
}

/// `db.table` as database and name; without a dot, a table of no database.
fn split(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or(("", name))
}

fn refused(what: &str) -> impl FnOnce(Refusal) -> anyhow::Error {
    move |refusal| anyhow!("{what}: {}", refusal.text)
}

/// Asks a person; `yes` was given on the command line. Where nobody can be asked the answer is no, with the cure.
fn agree(question: &str, yes: bool) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked; give --yes if it is to be done");
    }
    let mut out = std::io::stderr();
    write!(out, "{question} Type yes to go on: ")?;
    out.flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}
