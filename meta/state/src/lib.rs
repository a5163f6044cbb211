//! The metadata of a cluster as a pure state machine, and the planner over it.
//!
//! [`State::apply`](state::State::apply) takes one command at one Raft index and is the only way the state changes; it
//! reads no clock and draws no number, so every nameserver that applies the same log holds the same state.
//! [`plan`] looks at the state and at what tablets report, and names the next safe commands.

pub mod apply;
pub mod check;
pub mod command;
pub mod plan;
pub mod state;
