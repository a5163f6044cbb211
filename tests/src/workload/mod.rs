//! Writers and readers, and what they were told.
//!
//! Every row is written once and never again: its key and time name it. All that is asked and answered goes into a
//! [`History`](crate::history::History), from which the checkers judge.
//!
//! `load`: the writers and readers. `tally`: what a drill looks at while they work. `back`: reading everything back.
//! `whole`: waiting until every partition has its leader and all its replicas. `tables`: the tables they work on.

mod back;
mod load;
mod tables;
mod tally;
mod whole;

pub use back::read_back;
pub use load::{Load, Parties};
pub use tables::{DB, busiest_leader, create, create_table, leaders};
pub use tally::Place;
pub use whole::await_whole;
