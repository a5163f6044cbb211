//! Snapshots from a leader to a copy that its log cannot bring up to date: one that is too far behind (R29), or is not
//! whole (R30).
//!
//! The core says when ([`Output::FetchSnapshot`](stela_replica::message::Output::FetchSnapshot), as often as the leader
//! says so). The follower pulls the file, chunk by chunk, beside the streams; when all of it is there and every checksum
//! is right, it is installed if the core still waits for it, and the copy joins again where the snapshot ends.
//!
//! **Invariants**
//! * What is here stays until what replaces it is on disk, verified, and of this very partition and creation.
//! * A transfer that breaks goes on where it ended, also in another run of either process: the file so far is named by
//!   the snapshot (`part`), and the leader keeps the file, and its log behind it, for `source::KEPT`.
//! * Reading, sending and receiving hold no lock of the node. All that is sent goes by one pace (`pace`); at most
//!   `AT_ONCE` transfers go out, and as many come in.
//!
//! `send`: the leader's side; `source`: what it keeps for it. `receive`: the follower's side; `job`: what it is about.

mod job;
mod pace;
mod part;
mod receive;
mod send;
mod source;

use std::sync::Arc;

pub use job::{Progress, Want};
use parking_lot::Mutex;
pub use receive::run;
pub use send::serve;
use stela_common::clock::Millis;
use stela_common::ids::{PartitionKey, TabletId};
use tokio::sync::{Notify, Semaphore};

use self::job::Jobs;
use self::pace::Pace;
use self::source::Sources;

/// Transfers in either direction at once, at most: more of them would only make each slower.
const AT_ONCE: usize = 2;
/// The bytes of a chunk, at most.
const CHUNK: usize = 1 << 20;

/// All transfers of a tablet. Its locks are taken after the node's, never before.
pub struct Transfers {
    pace: Pace,
    sending: Arc<Semaphore>,
    sources: Mutex<Sources>,
    jobs: Mutex<Jobs>,
    /// Something is to be fetched.
    wake: Notify,
}

impl Transfers {
    /// None yet. What is sent goes with so many bytes per second; 0: as fast as it goes.
    #[must_use]
    pub fn new(bytes_s: u64) -> Self {
        Self {
            pace: Pace::new(bytes_s),
            sending: Arc::new(Semaphore::new(AT_ONCE)),
            sources: Mutex::default(),
            jobs: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// A core wants a snapshot.
    pub fn want(&self, key: PartitionKey, want: Want) {
        self.jobs.lock().want(key, want, Millis::now());
        self.wake.notify_one();
    }

    /// How far the transfer is that is to replace the copy here, if one runs.
    #[must_use]
    pub fn progress(&self, key: PartitionKey) -> Option<Progress> {
        self.jobs.lock().progress(key)
    }

    /// The follower there has joined: its log goes on from the leader's, and nothing is kept for a transfer.
    pub fn joined(&self, key: PartitionKey, peer: TabletId) {
        self.sources.lock().joined(key, peer);
    }
}
