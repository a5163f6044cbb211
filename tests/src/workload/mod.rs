//! Writers and readers, what they were told, and whether it is true.
//!
//! Every row is written once and never again: its key and time name it. A row is *acknowledged*, or its outcome is
//! *unknown*; it is *lost* when it was acknowledged and cannot be read, *doubled* when it is there twice, and a *phantom*
//! when nobody wrote it. A read at the leader is *stale* when it misses a row that was acknowledged before it began.
//!
//! `history`: what the writers and readers were told. `load`: the writers and readers. `back`: reading everything back.
//! `whole`: waiting until every partition has its leader and all its replicas. `tables`: the tables they work on.

mod back;
mod history;
mod load;
mod tables;
mod whole;

pub use back::read_back;
pub use history::Place;
pub use load::{Load, Parties};
pub use tables::{DB, busiest_leader, create, create_table, leaders};
pub use whole::await_whole;
