//! Running a server in this process: its settings from flags, its log, its signals, and how it ends.
//!
//! * A server has one thread for all of its work (a current-thread runtime): measured faster here than several, since
//!   what it does is short and the disk's sync has a thread of its own.
//! * A panic ends the process: its state is not what its log says any more, and who restarts it has a whole one.
//! * The first SIGTERM or SIGINT stops it cleanly, the second ends it at once. They are waited for on a thread of their
//!   own, so that the second one works also when the server hangs.

mod config;
mod signals;

use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Once;
use std::time::Duration;

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::flags::{FlagError, Flags, Role};
use crate::{USAGE, fail};

/// The status of a server that panicked.
const PANICKED: i32 = 70;
/// What the runtime's own threads may still take after a server has ended.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Runs a nameserver until it is stopped.
pub(crate) fn nameserver(flags: &Flags) -> ExitCode {
    match config::nameserver(flags) {
        Ok(config) => run(Role::Nameserver, flags, |stop| {
            stela_meta::run(config, stop, |at| ready(Role::Nameserver, at))
        }),
        Err(error) => fail(&error.to_string(), USAGE),
    }
}

/// Runs a tablet until it is stopped.
pub(crate) fn tablet(flags: &Flags) -> ExitCode {
    match config::tablet(flags) {
        Ok(config) => run(Role::Tablet, flags, |stop| {
            stela_tablet::run(config, stop, |at| ready(Role::Tablet, at))
        }),
        Err(error) => fail(&error.to_string(), USAGE),
    }
}

/// Says that the server serves, in one line that others wait for.
fn ready(role: Role, at: SocketAddr) {
    end_on_panic();
    let mut out = std::io::stdout();
    // Nobody may be there to read it, which is no reason not to serve.
    let _ = writeln!(out, "stela {} ready at {at}", role.word()).and_then(|()| out.flush());
}

fn run<F, E>(role: Role, flags: &Flags, server: impl FnOnce(CancellationToken) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    if let Err(error) = log(flags) {
        return fail(&error.to_string(), USAGE);
    }
    config::notes(flags).iter().for_each(|note| tracing::info!("{note}"));
    raise_open_files();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return fail(&format!("cannot start: {e}; see ulimit -n and ulimit -u"), 1),
    };
    let stop = CancellationToken::new();
    if let Err(e) = signals::watch(role, stop.clone()) {
        return fail(&format!("cannot wait for signals: {e}"), 1);
    }
    let outcome = runtime.block_on(Box::pin(server(stop)));
    runtime.shutdown_timeout(AFTERWARDS);
    match outcome {
        Ok(()) => {
            tracing::info!(role = role.word(), "stopped");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string(), 1),
    }
}

/// As many open files as the system allows: connections need them.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// From now on a panic in any thread ends the process. Not before: what is found on disk at the start is opened with
/// care, and a library that panics over it is caught there. Nor in the thread that keeps the copy of the applied state,
/// which catches the same library's panics and goes on without the copy.
fn end_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let told = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            told(info);
            if std::thread::current().name() != Some("applied") {
                std::process::exit(PANICKED);
            }
        }));
    });
}

/// Standard error, whether or not somebody is there to read it: a server outlives the terminal and the logger that it was
/// started with. (The log's own way of saying that it cannot write is to write there, and that panics.)
struct Heedless;

impl std::io::Write for Heedless {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(std::io::stderr().write(bytes).unwrap_or(bytes.len()))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn log(flags: &Flags) -> Result<(), FlagError> {
    let wanted = flags.text("log");
    let filter = EnvFilter::try_new(wanted).map_err(|e| {
        FlagError::new(format!(
            "--log={wanted} is wrong: {e}; it takes error, warn, info, debug, trace or a filter"
        ))
    })?;
    let colour = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // It is set once in a process; a server that is run by a test finds the test's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Heedless)
        .with_ansi(colour)
        .try_init();
    Ok(())
}
