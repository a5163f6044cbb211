//! The built binary, as users start it: what it prints, where, and with which status it ends.

// A helper that fails fails its test.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod clients;
mod http;
mod process;
mod servers;
