//! `client`: the operators' commands for one tablet.
//!
//! One file per family of commands. The words are OpenMLDB's; where they have no place for the cause of a failure, it goes
//! to standard error.

mod commands;
mod data;
mod forward;
mod load;
mod snapshot;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use stela_common::code::{Code, Refusal};
use stela_common::wire;
use stela_proto::common::Status;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::{Channel, Endpoint};

use crate::flags::Flags;
use crate::print::{Answer, Layout};
use crate::shell::{self, Ask, Names, Options, Shell, Words, unsigned};
use crate::{VERSION, fail, say};

/// A tablet that is there takes no longer to accept a connection.
const CONNECT: Duration = Duration::from_millis(1500);

const NO_ZOOKEEPER: &str =
    "there is no ZooKeeper: a tablet finds the nameservers of its list by itself";

/// What the commands share.
struct Session {
    endpoint: String,
    timeout: Duration,
    layout: Layout,
}

impl Session {
    /// A connection for one command: between two of them nobody would answer the tablet's pings.
    async fn connect(&self) -> Result<TabletClient<Channel>, String> {
        let failed = |e: tonic::transport::Error| {
            let mut text = format!("Fail to connect {}", self.endpoint);
            let mut cause = std::error::Error::source(&e);
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            text
        };
        let endpoint =
            Endpoint::from_shared(format!("http://{}", self.endpoint)).map_err(failed)?;
        let channel = endpoint
            .connect_timeout(CONNECT)
            .timeout(self.timeout)
            .connect()
            .await
            .map_err(failed)?;
        Ok(TabletClient::new(channel).max_decoding_message_size(64 << 20))
    }

    /// Asks the tablet one thing.
    async fn ask<R: Reply>(
        &self,
        call: impl AsyncFnOnce(TabletClient<Channel>) -> Result<tonic::Response<R>, tonic::Status>,
    ) -> Result<R, Refusal> {
        let silent = |text: String| Refusal::new(Code::RpcFailed, text);
        let client = self.connect().await.map_err(silent)?;
        let reply = call(client).await.map_err(|s| silent(s.message().to_owned()))?.into_inner();
        wire::outcome(reply.status()).map(|()| reply)
    }
}

/// What every answer of a tablet says first.
trait Reply {
    fn status(&self) -> Option<&Status>;
}

macro_rules! replies {
    ($($reply:ident),*) => {
        $(impl Reply for pb::$reply {
            fn status(&self) -> Option<&Status> {
                self.status.as_ref()
            }
        })*
    };
}

replies!(
    GetTableStatusReply,
    GetFollowerReply,
    TableSchemaReply,
    MakeSnapshotReply,
    ReplicaReply,
    CountReply,
    PutReply
);

/// The partition that two words name, or the text to print.
fn partition(tid: &str, pid: &str) -> Result<(u32, u32), &'static str> {
    let tid = unsigned(tid).ok_or("Invalid args, tid should be uint32_t")?;
    let pid = unsigned(pid).ok_or("Invalid args, pid should be uint32_t")?;
    Ok((tid, pid))
}

/// One line: it worked, or it did not, and then the cause apart.
fn line<R>(outcome: Result<R, Refusal>, done: &str, failed: &str) -> Answer {
    match outcome {
        Ok(_) => Answer::done(done),
        Err(e) => Answer::failed(failed).because(e.text),
    }
}

/// Runs the client. `usage`: the status for wrong flags.
pub(crate) fn main(flags: &Flags, usage: u8) -> ExitCode {
    let options = Options::new(flags);
    if options.command.is_none() && !options.interactive && std::io::stdin().is_terminal() {
        return fail(
            "--interactive=false without a command; give one as --cmd='...', or pipe commands in",
            usage,
        );
    }
    let endpoint = flags.text("endpoint").to_owned();
    if endpoint.is_empty() {
        return shell::start_failed(&options, "Start failed! not set endpoint", None);
    }
    if options.command.is_none() && options.interactive && !options.style.json {
        say(&format!("Welcome to openmldb with version {VERSION}-stela\n"));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("cannot start: {e}; see ulimit -n"), 1),
    };
    let timeout = Duration::from_millis(flags.number("request_timeout_ms"));
    let mut session = Session { endpoint, timeout, layout: options.layout };
    shell::run(&mut session, &options, &runtime)
}

impl Shell for Session {
    fn prompt(&self) -> String {
        format!("{}> ", self.endpoint)
    }

    async fn command(&mut self, words: &Words<'_>, _: &mut dyn Ask) -> Answer {
        let args = words.args();
        match words.command() {
            "gettablestatus" => status::gettablestatus(self, args).await,
            "getfollower" => status::getfollower(self, args).await,
            "loadtable" => load::loadtable(self, args).await,
            "drop" => load::drop(self, args).await,
            "makesnapshot" => snapshot::makesnapshot(self, args).await,
            "pausesnapshot" => snapshot::pausesnapshot(self, args).await,
            "recoversnapshot" => snapshot::recoversnapshot(self, args).await,
            "sendsnapshot" => snapshot::sendsnapshot(self, args).await,
            "showschema" => table::showschema(self, args).await,
            "setexpire" => table::setexpire(self, args).await,
            "count" => data::count(self, args).await,
            "delete" => data::delete(self, args).await,
            "changerole" => forward::changerole(self, args).await,
            "addreplica" => forward::addreplica(self, args).await,
            "delreplica" => forward::delreplica(self, args).await,
            "setttl" => forward::setttl(self, args).await,
            "deleteindex" => forward::deleteindex(self, args).await,
            "connectzk" => Answer::failed("Fail to connect zk").because(NO_ZOOKEEPER),
            "disconnectzk" => Answer::failed("Fail to disconnect zk").because(NO_ZOOKEEPER),
            "preview" => Answer::failed("unsupport preview"),
            "help" | "man" => commands::help(args),
            "exit" | "quit" => Answer { end: true, ..Answer::done("bye") },
            _ => Answer::failed("unsupported cmd"),
        }
    }

    fn names(&self) -> Box<dyn Names> {
        Box::new(commands::Commands)
    }
}
