//! `client`: the operators' commands for one tablet.

mod commands;
mod status;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::{Channel, Endpoint};

use crate::flags::Flags;
use crate::print::{Answer, Layout};
use crate::shell::{self, Ask, Names, Options, Shell, Words};
use crate::{VERSION, fail, say};

/// A tablet that is there takes no longer to accept a connection.
const CONNECT: Duration = Duration::from_millis(1500);

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
            "preview" => Answer::failed("unsupport preview"),
            "help" | "man" => commands::help(args),
            "exit" | "quit" => Answer { end: true, ..Answer::done("bye") },
            name => commands::later(name).unwrap_or_else(|| Answer::failed("unsupported cmd")),
        }
    }

    fn names(&self) -> Box<dyn Names> {
        Box::new(commands::Commands)
    }
}
