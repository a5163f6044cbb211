//! The Raft group of this process: the only place that names the Raft library and sled.
//!
//! * [`types`], [`codec`]: what the library is instantiated with, and its form on wire and disk.
//! * [`log`], [`machine`], [`applied`], [`snapshot`]: what is kept, and how it survives.
//! * [`channels`], [`network`], [`service`]: what nameservers say to each other; each call names who speaks and who is
//!   meant.
//! * [`seat`]: this process's place in the group; [`propose`], [`forward`], [`rounds`]: commands and reads through it;
//!   [`admit`]: others that come in; [`retain`]: the log stays small.
#![allow(clippy::result_large_err)] // the library's own storage error

pub mod admit;
pub mod applied;
pub mod channels;
pub mod codec;
pub mod forward;
pub mod log;
pub mod machine;
pub mod network;
pub mod propose;
mod reach;
pub mod retain;
pub mod rounds;
pub mod seat;
pub mod service;
pub mod snapshot;
mod standing;
pub mod types;

#[cfg(test)]
mod tests;
