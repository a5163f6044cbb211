//! Jobs: work over many partitions that an operator asks for once, and the leading nameserver carries out, whoever that is.
//!
//! Invariants: a job is a wish, and what it does next follows from the state ([`crate::plan`]), so that it goes on under
//! the next nameserver that leads, and an operator's program that is interrupted leaves nothing half-done; it acts through
//! operations only, and never touches the `auto_failover` switch; at most one job goes on at a time.

use serde::{Deserialize, Serialize};
use stela_common::ids::{PartitionKey, TabletId, Version};

use crate::op::OpStatus;

/// What a job is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum JobKind {
    /// Every replica on a healthy tablet is taken back, and every partition led.
    RecoverData,
    /// Replicas and leaders are spread over all tablets.
    ScaleOut,
    /// Tablets are emptied.
    ScaleIn,
    /// A tablet leads nothing any more.
    PreUpgrade,
    /// A tablet leads again what it led.
    PostUpgrade,
}

impl JobKind {
    /// Its name in commands.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RecoverData => "recoverdata",
            Self::ScaleOut => "scaleout",
            Self::ScaleIn => "scalein",
            Self::PreUpgrade => "pre-upgrade",
            Self::PostUpgrade => "post-upgrade",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::RecoverData, Self::ScaleOut, Self::ScaleIn, Self::PreUpgrade, Self::PostUpgrade]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// A leadership that a `pre-upgrade` moves away, for the `post-upgrade` to bring back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Moved {
    /// Of which partition.
    pub key: PartitionKey,
    /// Where a replica was added for the time.
    #[serde(default)]
    pub extra: Option<TabletId>,
}

/// A job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// What for.
    pub kind: JobKind,
    /// About which tablets; of a `recoverdata` and a `scaleout`, none.
    pub tablets: Vec<TabletId>,
    /// A `pre-upgrade` leaves partitions of one replica where they are.
    #[serde(default)]
    pub allow_single_replica: bool,
    /// How far.
    pub status: OpStatus,
    /// Of a `pre-upgrade`.
    #[serde(default)]
    pub moved: Vec<Moved>,
    /// Operations of it that ended well.
    #[serde(default)]
    pub done: u32,
    /// Operations of it that ended badly; they are tried again, within bounds.
    #[serde(default)]
    pub failed: u32,
    /// Wall seconds.
    pub start: u64,
    /// Wall seconds; 0: not ended.
    #[serde(default)]
    pub end: u64,
    /// Why it ended as it did, in words.
    #[serde(default)]
    pub why: String,
    /// The index that last changed it.
    pub version: Version,
}
