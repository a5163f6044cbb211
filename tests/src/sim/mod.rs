//! A deterministic simulation of replication and failover: the very code that decides in the servers, under one seeded
//! scheduler.
//!
//! What decides is real: [`State::apply_with`](stela_meta_state::state::State::apply_with), the planner, and
//! [`Replica`](stela_replica::core::Replica). What surrounds it is simulated: the shell of a tablet with its streams and
//! its log, disks of which a power cut takes the unsynced, connections that break with what is under way, clocks that
//! drift, a meta group whose proposals are late, lost, repeated or never answered, and nameservers that suspect the
//! living. After every step the [`ghost`] compares what is there with what was promised; at the end everything heals,
//! and the cluster must be whole in bounded time.
//!
//! Faults come by themselves and lie in ambush at the points of the protocol where they hurt ([`profile`]); what a batch
//! of seeds has met is counted ([`coverage`]), and too little is no verdict. Each of the [`mistake`]s that the rules
//! name must be noticed.
//!
//! A seed and a profile are a run: `stela-tests sim --seed N --trace` tells it again.

mod batch;
mod client;
mod clock;
pub mod command;
mod core;
pub mod coverage;
mod crash;
mod disk;
mod fault;
pub mod ghost;
mod links;
pub mod mistake;
mod nameserver;
mod operator;
mod passes;
mod point;
pub mod profile;
mod random;
mod register;
mod registry;
mod reign;
pub mod report;
mod scene;
mod serve;
mod shell;
mod streams;
mod strike;
mod tablet;
#[cfg(test)]
mod tests;
mod told;
mod wire;
mod world;
