//! What every part of Stela shares: identifiers, tables and rows, the segment log and the disk underneath it,
//! clocks, configuration, and the client.
//!
//! Dependencies point one way: `proto <- common <- {meta-state <- meta, replica <- tablet} <- cli`.

pub mod client;
pub mod clock;
pub mod code;
pub mod fs;
pub mod http;
pub mod ids;
pub mod log;
pub mod point;
pub mod route;
pub mod row;
pub mod table;
pub mod wire;
