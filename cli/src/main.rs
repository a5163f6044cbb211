//! The one binary of Stela.

use std::process::ExitCode;

fn main() -> ExitCode {
    stela::main_with(std::env::args_os().map(|a| a.to_string_lossy().into_owned()))
}
