//! The history of a run: what was asked and what was answered, one line of JSON for each, written while it happens.
//!
//! ```text
//! {"drill":"D1","seed":7,"commit":"67c0963","started":1764070000}
//! {"t":1204,"id":1,"p":3,"type":"invoke","op":"put","table":"left","key":"t0-w3-1","ts":1,"value":"3:1:9f"}
//! {"t":2710,"id":1,"p":3,"type":"ok","op":"put","table":"left","key":"t0-w3-1","ts":1,"value":"3:1:9f","pid":4,"epoch":2}
//! ```
//!
//! **Invariants**
//! * `t` counts nanoseconds since the run began, on a clock that never goes back. What is written first happened first:
//!   an invocation stands before it is sent, an answer after it has come.
//! * `id` names one logical operation and is never used again. `fail`: it had no effect and never will have; `info`, or no
//!   end at all: nobody knows. Such an operation is never tried again under its name.
//! * Whatever is judged is judged from the stored lines, at the end of a run as much later.

mod event;
mod recorder;
mod stored;

pub use event::{Answer, End, Head, Op};
pub use recorder::History;
#[cfg(test)]
pub use stored::tests::Script;
pub use stored::{Done, Stored};
