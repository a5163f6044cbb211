//! Replication of one partition as a pure state machine: PacificA's protocol with Kafka's in-sync sets and leader
//! epochs, decided by the meta group.
//!
//! A [`Replica`](core::Replica) takes inputs (what the meta group decided, what peers said, what the disk has finished,
//! time) and returns outputs (what to write, send, propose, show). It knows offsets and epochs and never the bytes of
//! an entry. The shell in `stela-tablet` and the simulation in `stela-tests` drive the very same code.

mod commit;
pub mod core;
pub mod epochs;
mod journal;
pub mod lease;
pub mod message;
mod progress;
pub mod variant;
