//! What can go wrong, by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{LogId, Malformed, Position};

/// Why a log does not open. Nothing was changed on disk by [`Newer`](Self::Newer), [`Foreign`](Self::Foreign),
/// [`Unreadable`](Self::Unreadable) and [`Options`](Self::Options).
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Written by a newer version.
    #[error("{} holds {what}, which this version does not know (it knows format {}); start the newer version again, nothing was changed", path.display(), super::segment::FORMAT)]
    Newer {
        /// The file.
        path: PathBuf,
        /// What is unknown.
        what: String,
        /// The format version that it claims, or the number of the unknown kind.
        version: u32,
    },
    /// A file of another log lies here.
    #[error("{} belongs to log {found}, the others to log {ours}; move it out of the directory, nothing was changed", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The log that it is from.
        found: LogId,
        /// The log of the other files.
        ours: LogId,
    },
    /// There are segments, but none of which the beginning is readable.
    #[error("no segment in {} is readable; move the directory aside and rebuild this copy from a replica, nothing was changed", dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
    },
    /// The options make no sense.
    #[error("log options: {0}")]
    Options(String),
    /// The disk refused.
    #[error("{}: {source}; check the disk and its mount, then start again", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl OpenError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// Why nothing was appended. The log stays usable but for [`Fatal`](Self::Fatal) and [`Closed`](Self::Closed).
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The batch does not fit into a segment.
    #[error("a batch of {bytes} bytes does not fit into a segment, {max} would")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// What would fit.
        max: u64,
    },
    /// A raw piece is not one record, or a record is of a kind that only the log writes.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The disk refused, e.g. because it is full.
    #[error("the log cannot be written: {0}")]
    Io(#[from] io::Error),
    /// A sync failed before.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
}

impl AppendError {
    /// Whether it is for want of space: it may come back.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io(error) if kinds.contains(&error.kind()))
    }
}

/// A sync failed, or the log was dropped before it was synced: what is not reported as synced never will be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the log cannot be synced: {0}")]
pub struct Fatal(pub Arc<str>);

impl From<Fatal> for io::Error {
    fn from(fatal: Fatal) -> Self {
        Self::other(fatal)
    }
}

/// Why there is no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It was purged.
    #[error("{at} was purged, the log begins at {start}")]
    Purged {
        /// What was asked for.
        at: Position,
        /// The oldest kept.
        start: Position,
    },
    /// Nothing was ever written there, or it is damaged.
    #[error("there is no record at {at}")]
    Absent {
        /// What was asked for.
        at: Position,
    },
}
