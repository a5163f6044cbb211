//! Faults inside a server: a wrong clock, a disk that fails, and power that is cut.
//!
//! A server of a drill is this very binary, and only as such it can be made to fail: the drill names a file in its
//! environment, which the server watches for what is wrong from now on.
//!
//! `plan`: what may be wrong. `points`: ends between two steps. `inside`: the server's side. `disk`: its disk. `undo`: what was not synced, and what is left
//! of a directory when the power goes.

mod disk;
mod inside;
mod plan;
pub mod points;
mod undo;

pub use inside::{ENVIRONMENT, begin};
pub use plan::{Clock, Disk, Faults, Ordered, order, undo_dir};
pub use undo::{Cut, power_cut};
