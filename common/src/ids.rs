//! Names of things, one type each, so that an offset is never taken for an epoch.
//!
//! All are plain numbers that the meta group (ids, epochs) or the log (offsets) hands out in growing order,
//! except [`Incarnation`], which a process draws at random when it starts.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl From<$inner> for $name {
            fn from(value: $inner) -> Self {
                Self(value)
            }
        }
    };
}

id! {
    /// A table, unique in the cluster for ever (R37).
    TableId(u32)
}
id! {
    /// A partition of a table, from 0.
    PartitionId(u32)
}
id! {
    /// A member of the meta group, from 1.
    NodeId(u64)
}
id! {
    /// A tablet as the meta group knows it, from 1; the endpoint that it registered first names it for ever.
    TabletId(u32)
}
id! {
    /// One run of a tablet process: a random number, never 0 (R14).
    Incarnation(u64)
}
id! {
    /// One leadership of one partition, from 1; 0 is "before any" (R1).
    Epoch(u64)
}
id! {
    /// The index of an entry in one partition, from 1 without holes; 0 is "before the first".
    Offset(u64)
}
id! {
    /// A recorded operation.
    OpId(u64)
}
id! {
    /// A piece of work over many partitions, such as a scale-out.
    JobId(u64)
}
id! {
    /// The version of a metadata object: the Raft index that last changed it.
    Version(u64)
}

impl Offset {
    /// The offset after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The unit of storage, replication and leadership: one partition of one table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PartitionKey {
    /// The table.
    pub tid: TableId,
    /// The partition of that table.
    pub pid: PartitionId,
}

impl PartitionKey {
    /// The partition `pid` of table `tid`.
    #[must_use]
    pub const fn new(tid: u32, pid: u32) -> Self {
        Self { tid: TableId(tid), pid: PartitionId(pid) }
    }
}

impl fmt::Display for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.tid, self.pid)
    }
}

impl fmt::Debug for PartitionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
