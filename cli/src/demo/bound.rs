//! A server that the kernel ends when the demo ends, whatever the demo dies of.
//!
//! The demo starts itself again with `--bound-to`, which asks the kernel for SIGKILL at the parent's death and then turns
//! into the server by `exec`: the wish survives that, the process id stays, and no code runs between `fork` and `exec`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Error, anyhow};
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// The command that runs `program` with `arguments` as a server; with `bound`, one that does not outlive this process.
///
/// It is in a process group of its own, so that Ctrl-C in a terminal reaches the demo and not the servers, which it
/// then stops in order.
pub(super) fn command(program: &Path, arguments: &[OsString], bound: bool) -> Command {
    let mut command = Command::new(program);
    if bound {
        command.args(["demo", "--bound-to"]).arg(getpid().as_raw_nonzero().to_string()).arg("--");
    }
    command.args(arguments).process_group(0);
    command
}

/// Becomes the server. Returns only if that is not possible, and says why.
pub(super) fn become_server(parent: i32, arguments: &[OsString]) -> Error {
    let bind = || -> Result<std::path::PathBuf, Error> {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // It may have died before the wish was known.
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
            return Err(anyhow!(
                "the demo that this server belongs to (process {parent}) is not its parent"
            ));
        }
        Ok(std::env::current_exe()?)
    };
    match bind() {
        Ok(program) => Error::new(Command::new(program).args(arguments).exec())
            .context("cannot start a server"),
        Err(error) => error.context("--bound-to is only for the demo itself"),
    }
}
