//! The disk: the only place of the workspace that opens, writes, syncs, renames or removes files.
//!
//! **Invariants**
//! * What must survive a crash goes through [`Disk`], so that the crash tests can record it and replay every
//!   moment of it; [`replace`] is the one way to change a small file durably.
//! * Free functions that take a [`Disk`] are durable when they return; those that take none promise nothing
//!   before [`sync_dir`] (tools, logs for people, files of other libraries) or only read.
//! * Nothing here retries a sync: after a failed one the caller has to stop (the pages may be clean and wrong).
//!
//! Called by everybody; knows nothing of logs, snapshots or nodes.
#![allow(clippy::disallowed_methods)]

mod disk;
mod hook;
mod lock;
mod plain;
mod record;

pub use disk::{Disk, File, Why};
pub use hook::{Hook, Synced, install_hook};
pub use lock::{DirLock, LockError, check_writable, lock_dir};
pub use plain::{
    append_line, create_dir_all, exists, free_bytes, open_append, open_read, read, read_dir,
    read_to_string, remove, remove_dir_all, remove_file, rename, replace, sync_dir, write,
};
pub use record::{Handle, Op, Recorder, Skip};

#[cfg(test)]
mod tests;
