//! `ns_client`: the operators' commands for a cluster.
//!
//! One file per family of commands. A command takes the session and its arguments and makes an answer; what it prints,
//! and when it fails, is as OpenMLDB's `ns_client` has it, since scripts and runbooks read it.

mod alter;
mod commands;
mod conf;
mod create;
mod data;
mod database;
mod help;
mod later;
mod manual;
mod names;
mod partition;
mod servers;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::client::{Client, ConnectError, Options as Cluster};
use tokio::runtime::Runtime;

use self::data::PreviewLimits;
use crate::flags::Flags;
use crate::print::{Answer, Layout};
use crate::shell::{self, Ask, Names, Options, Shell, Words};
use crate::{VERSION, fail, say};

/// Between two commands at a prompt, a nameserver is asked who leads, for so long at most.
const GLANCE: Duration = Duration::from_millis(300);

/// What the commands share.
struct Session {
    client: Client,
    /// Whom the prompt names: the leading nameserver, or the endpoint that was given.
    leader: String,
    /// The nameservers were given as a list.
    by_list: bool,
    /// The selected database; empty: none. Completion reads it too.
    db: Arc<Mutex<String>>,
    layout: Layout,
    preview: PreviewLimits,
}

impl Session {
    fn db(&self) -> String {
        self.db.lock().clone()
    }
}

/// A cluster that answers.
pub(crate) struct Reached {
    /// On which everything runs.
    pub(crate) runtime: Runtime,
    /// Connected.
    pub(crate) client: Client,
    /// The leading nameserver, or the endpoint that was given.
    leader: String,
    by_list: bool,
}

/// Connects to the cluster that the flags name. `usage`: the status for wrong flags.
///
/// # Errors
/// The status of the process; what is wrong has been said.
pub(crate) fn reach(flags: &Flags, options: &Options, usage: u8) -> Result<Reached, ExitCode> {
    let cluster = match flags.cluster() {
        Ok(cluster) => cluster.map(Into::into),
        Err(error) => return Err(fail(&error.to_string(), usage)),
    };
    if options.command.is_none() && !options.interactive && std::io::stdin().is_terminal() {
        return Err(fail(
            "--interactive=false without a command; give one as --cmd='...', or pipe commands in",
            usage,
        ));
    }
    if options.command.is_none() && !options.style.json {
        say(&format!("Welcome to openmldb with version {VERSION}-stela\n"));
    }
    let list =
        [flags.list("zk_cluster"), flags.list("nameservers")].into_iter().find(|l| !l.is_empty());
    let by_list = list.is_some();
    let nameservers = list.unwrap_or_else(|| flags.list("endpoint"));
    if nameservers.is_empty() {
        let text = "Start failed! not set endpoint or zk_cluster";
        return Err(shell::start_failed(options, text, None));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| fail(&format!("cannot start: {e}; see ulimit -n"), 1))?;
    let patience = Duration::from_millis(flags.number("zk_session_timeout"));
    let timeout = Duration::from_millis(flags.number("request_timeout_ms"));
    let found = find(Cluster { cluster, timeout, ..Cluster::new(nameservers) }, by_list, patience);
    let found = runtime.block_on(Box::pin(found));
    let failed = |(text, cause): (_, String)| shell::start_failed(options, text, Some(&cause));
    let (client, leader) = found.map_err(failed)?;
    Ok(Reached { runtime, client, leader, by_list })
}

/// Runs the client. `usage`: the status for wrong flags.
pub(crate) fn main(flags: &Flags, usage: u8) -> ExitCode {
    let options = Options::new(flags);
    let Reached { runtime, client, leader, by_list } = match reach(flags, &options, usage) {
        Ok(reached) => reached,
        Err(status) => return status,
    };
    if by_list && !options.style.json {
        say(&format!("ns leader: {leader}\n"));
    }
    let rows = |flag| u32::try_from(flags.number(flag)).unwrap_or(u32::MAX);
    let preview = PreviewLimits {
        default: rows("preview_default_limit"),
        most: rows("preview_limit_max_num"),
    };
    let (db, layout) = (Arc::default(), options.layout);
    let mut session = Session { client, leader, by_list, db, layout, preview };
    let database = flags.text("database");
    if options.command.is_some() && !database.is_empty() {
        // A database that is not there is not selected, and nothing is said, as scripts expect.
        let _ = runtime.block_on(database::use_db(&mut session, &[database]));
    }
    shell::run(&mut session, &options, &runtime)
}

/// Connects, and finds out who leads. An error is the text for standard output and its cause.
async fn find(
    cluster: Cluster,
    by_list: bool,
    patience: Duration,
) -> Result<(Client, String), (&'static str, String)> {
    let first = cluster.nameservers.first().cloned().unwrap_or_default();
    let client = Client::connect(cluster).await.map_err(|e| match &e {
        ConnectError::NoAnswer { .. } if by_list => ("zk client init failed", e.to_string()),
        ConnectError::NoAnswer { .. } => ("client init failed", e.to_string()),
        ConnectError::WrongCluster { .. } => ("get children failed", e.to_string()),
    })?;
    if !by_list {
        return Ok((client, first));
    }
    match tokio::time::timeout(patience, client.leader()).await {
        Ok(Ok(leader)) => Ok((client, leader)),
        Ok(Err(refusal)) => Err(("get leader failed", refusal.text)),
        Err(_) => Err((
            "get leader failed",
            format!(
                "no nameserver leads within {} ms: a majority of them must be up",
                patience.as_millis()
            ),
        )),
    }
}

impl Shell for Session {
    fn prompt(&self) -> String {
        format!("{} {}> ", self.leader, self.db.lock())
    }

    async fn command(&mut self, words: &Words<'_>, ask: &mut dyn Ask) -> Answer {
        let args = words.args();
        match words.command() {
            "showtablet" => view::showtablet(self).await,
            "showns" => view::showns(self).await,
            "showtable" => view::showtable(self, args).await,
            "showopstatus" => view::showopstatus(self, args).await,
            "confget" => conf::confget(self, args).await,
            "confset" => conf::confset(self, args).await,
            "showdb" => database::showdb(self).await,
            "use" => database::use_db(self, args).await,
            "createdb" => database::createdb(self, args).await,
            "dropdb" => database::dropdb(self, args, ask).await,
            "create" => create::create(self, args).await,
            "drop" => table::drop(self, args, ask).await,
            "showschema" => table::showschema(self, args).await,
            "info" => table::info(self, args).await,
            "put" => data::put(self, args).await,
            "get" => data::get(self, args).await,
            "scan" => data::scan(self, args).await,
            "count" => data::count(self, args).await,
            "delete" => data::delete(self, args).await,
            "preview" => data::preview(self, args).await,
            "help" | "man" => help::help(args),
            "exit" | "quit" => Answer { end: true, ..Answer::done("bye") },
            "offlineendpoint" => manual::offlineendpoint(self, args).await,
            "recoverendpoint" => manual::recoverendpoint(self, args).await,
            "recovertable" => manual::recovertable(self, args).await,
            "changeleader" => manual::changeleader(self, args).await,
            "migrate" => manual::migrate(self, args).await,
            "addreplica" => manual::addreplica(self, args).await,
            "delreplica" => manual::delreplica(self, args).await,
            "updatetablealive" => manual::updatetablealive(self, args).await,
            "makesnapshot" => manual::makesnapshot(self, args).await,
            "cancelop" => manual::cancelop(self, args).await,
            "deleteop" => manual::deleteop(self, args).await,
            "gettablepartition" => partition::gettablepartition(self, args).await,
            "settablepartition" => partition::settablepartition(self, args).await,
            "setttl" => alter::setttl(self, args).await,
            "addtablefield" => alter::addtablefield(self, args).await,
            "addindex" => alter::addindex(self, args).await,
            "deleteindex" => alter::deleteindex(self, args).await,
            "showcatalogversion" => servers::showcatalogversion(self).await,
            "showsdkendpoint" => servers::showsdkendpoint(self).await,
            "setsdkendpoint" => servers::setsdkendpoint(self, args).await,
            name => {
                later::command(name, args, ask).unwrap_or_else(|| Answer::failed("unsupported cmd"))
            }
        }
    }

    async fn between(&mut self) -> Option<String> {
        if !self.by_list {
            return None;
        }
        let admin = self.client.admin();
        let reply = tokio::time::timeout(GLANCE, admin.cluster()).await.ok()?.ok()?;
        if reply.leader.is_empty() || reply.leader == self.leader {
            return None;
        }
        self.leader = reply.leader;
        Some(format!("ns leader: {}", self.leader))
    }

    fn names(&self) -> Box<dyn Names> {
        Box::new(names::Cluster { client: self.client.clone(), db: self.db.clone() })
    }
}
