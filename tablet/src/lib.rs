//! The tablet: it keeps partitions, serves their reads and writes, and replicates them.
//!
//! What must be right is decided in `stela_replica` (replication of one partition) and by the meta group; this crate is
//! the shell around it: it owns the log, the index, the streams and the clock.
//!
//! * [`node`]: everything that a tablet holds, under one lock; no lock is held across an `await`.
//! * [`partition`]: one replica with its store, and the execution of what its core wants done.
//! * [`mod@write`]: the write path, one task that drains what has arrived.
//! * [`loading`]: what is on disk becomes readable after a start; [`checkpoint`]: at once, after a clean stop.
//! * [`replicate`]: the streams between tablets. [`heartbeat`]: the stream to the leading nameserver;
//!   [`registry`]: carrying out what it says; [`report`]: what it is told.
//! * [`snapshot`]: the live rows of a partition in one file; [`sealed`]: files that are whole or are not used.
//! * [`transfer`]: snapshots from a leader to a copy that its log cannot bring up to date.
//! * [`store`]: index, time to live, request ids. [`lost`]: tails that were set aside. [`service`]: gRPC;
//!   [`http`]: JSON on the same port. [`chores`]: what time passing asks for.

pub mod checkpoint;
pub mod chores;
pub mod config;
pub mod disk;
pub mod heartbeat;
pub mod http;
pub mod inspect;
pub mod loading;
pub mod lost;
pub mod node;
pub mod outbox;
pub mod partition;
pub mod registry;
pub mod replicate;
pub mod report;
pub mod room;
pub mod scrub;
pub mod sealed;
pub mod service;
pub mod snapshot;
pub mod start;
pub mod store;
pub mod transfer;
pub mod write;

pub use config::Config;
pub use start::{StartError, run, run_on};
