//! Nameservers in one process, each with a runtime, a directory and a port of its own: founding, proposals from
//! anywhere, kills, restarts, directories that were wiped, and starts that must fail.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // helpers of tests; files are spoiled on purpose

mod control;
mod founding;
mod interleavings;
mod keeping;
mod leading;
mod nodes;
mod refusing;
mod tablet;
mod waiting;
