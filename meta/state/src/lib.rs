//! The metadata of a cluster as a pure state machine, and the planner over it.
//!
//! [`State::apply`](state::State::apply) takes one batch of commands at one Raft index and is the only way the state
//! changes; it reads no clock and draws no number, so every nameserver that applies the same log holds the same state.
//! [`plan`] looks at the state and at what tablets report, and names the next safe commands.
//!
//! Invariants: nothing here reads a clock, a disk, the network or an unordered map; time is an input; every refusal
//! is a value. [`check`] says what holds of a state and of a step.

pub mod apply;
pub mod check;
pub mod command;
pub mod job;
pub mod object;
pub mod op;
pub mod order;
pub mod placement;
pub mod plan;
pub mod rules;
pub mod state;

#[cfg(test)]
mod tests;
