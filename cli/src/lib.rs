//! The command line of Stela: one binary that is nameserver, tablet, the clients of operators, demo and import.
//!
//! ```text
//! invocation --> flags --> server (nameserver, tablet)
//!            |         \-> ns, tablet, sql: the commands --> answers --> print
//!            |                  ^--- shell: prompt, pipe or --cmd
//!            \-> demo, import
//! ```
//!
//! Invariants:
//! * Servers and the subcommands of Stela say what is wrong in one line on standard error, `stela: cause; cure`, and
//!   exit with a status other than 0: 2 for wrong usage, 1 else. The clients keep OpenMLDB's texts and its status,
//!   0 for whatever a command answers, unless `--strict-exit` is given.
//! * A command makes an answer, a value; only `print` makes text of it.

mod admin;
mod demo;
#[cfg(test)]
mod fake;
mod flags;
mod import;
mod invocation;
mod ns;
mod options;
mod print;
mod schema;
mod server;
mod shell;
mod sql;
mod tablet;

use std::io::Write as _;
use std::process::ExitCode;

pub use invocation::main_with;

/// The version, as `--version` prints it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Wrong usage: the command line is to be corrected.
const USAGE: u8 = 2;

/// Says what is wrong, in one line, and with which status the process ends.
fn fail(text: &str, status: u8) -> ExitCode {
    complain(text);
    ExitCode::from(status)
}

/// Says what is wrong on standard error; that nobody reads it is no failure.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "stela: {}", one_line(text));
}

/// Prints a text; that nobody reads it is no failure.
fn say(text: &str) {
    let mut out = std::io::stdout();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The text without line ends: whoever reads the log of a service gets the cause and the cure together.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}
