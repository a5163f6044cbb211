//! The segment log: one append-only log of checksummed records in segment files, for the Raft log and for the
//! tablets' binlogs alike.
//!
//! **On disk** a segment is a file of fixed length, named by its number: a header page, then batches, each a header
//! and its records. A [`Position`] is segment number times segment length plus byte, so it grows for ever.
//!
//! **Invariants**
//! * One `pwrite` per batch under the append lock; syncs on a thread of their own, never under it; idle logs sync at
//!   once, busy ones batch by themselves.
//! * What [`Log::synced`] reports survives power loss. A failed sync is fatal: nothing is reported afterwards (H7).
//! * Blocks are written before they are used: segments are zero-filled ahead or recycled; the batch checksum is
//!   seeded with the log's identity and the segment's number, so a file's former life never validates (R25).
//! * The log is never rewritten: cutting entries is a record. Order is order by position (R26).
//! * Recovery tells an unacknowledged tail, which it cuts, from damage, which it reports (R24, R30).
//! * Files are mapped read-only and are never shortened while mapped; the map is in `map.rs`, the only `unsafe`.
//!
//! Called by the Raft storage and the tablet's node. It knows no roles, no commit offsets and no indexes.

mod append;
mod batch;
mod close;
mod ends;
mod error;
mod files;
mod fill;
mod handle;
mod inspect;
mod judge;
mod map;
mod open;
mod options;
mod plan;
mod position;
mod record;
mod repair;
mod retain;
mod scan;
mod segment;
mod shared;
mod spare;
mod sync;
mod walk;

pub use append::{Appended, Piece};
pub use ends::End;
pub use error::{AppendError, Fatal, OpenError, ReadError};
pub use handle::{Log, LogSize};
pub use inspect::{Inspection, inspect};
pub use map::Map;
pub use open::Recovery;
pub use options::Options;
pub use plan::{Damage, Torn};
pub use position::{LogId, Position};
pub use record::{Kind, Malformed, NewRecord, Parse, RECORD_HEADER, Record, parse};
pub use walk::{RecordRef, SegmentRef, Walk};

#[cfg(test)]
mod tests;
