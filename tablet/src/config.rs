//! How a tablet is started.

use std::path::PathBuf;
use std::time::Duration;

use stela_replica::message::Timing;

/// The settings of a tablet process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ip:port`: where it is reached, and its name in the cluster.
    pub endpoint: String,
    /// `ip:port`: where it listens, if that is another address (behind a proxy, in a container).
    pub listen: Option<String>,
    /// The nameservers' endpoints.
    pub nameservers: Vec<String>,
    /// Its directory.
    pub dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// How often it is heard by the leading nameserver.
    pub heartbeat: Duration,
    /// How often a leader asks each follower for a permit (R11).
    pub keep_alive: Duration,
    /// The length of a segment of its log, bytes.
    pub segment_bytes: u64,
    /// How often expired rows are taken out of the indexes.
    pub sweep: Duration,
    /// How entries and snapshots are written.
    pub data_format: Format,
    /// Bytes that the indexes may take; beyond, puts are refused. 0: no limit.
    pub max_memory: u64,
    /// In this time everything is read once, to see whether it is still what was written; 0: never.
    pub scrub: Duration,
    /// Bytes of disk that puts leave to what may not fail; with less, they are refused.
    pub disk_reserve: u64,
    /// Snapshots go to other tablets with so many bytes per second, all together; 0: as fast as it goes.
    pub transfer_bytes_s: u64,
    /// The timing of replication.
    pub timing: Timing,
    /// When snapshots are made.
    pub snapshots: Snapshots,
    /// Bytes that the log may take: what pins more of it is put into snapshots. A quarter is kept in any case, for
    /// followers that were away for a moment.
    pub log_keep: u64,
}

/// How entries and snapshots are written; all that there ever were are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// As version 0.1 reads them: a cluster that may have to go back to it. Values have no checksum of their own, and a
    /// deletion takes a whole key out of one index.
    Plain,
    /// The newest.
    Summed,
}

/// When snapshots are made.
#[derive(Clone, Copy, Debug)]
pub struct Snapshots {
    /// When the entries since the last one take more bytes than it does, and than this.
    pub grown: u64,
    /// When there are so many entries since the last one; 0: whatever their number.
    pub every: u64,
    /// In this hour of the local day, of every copy that has changed since its last one; 24: in none.
    pub hour: u32,
    /// How often it is looked whether one is due.
    pub look: Duration,
}

impl Config {
    /// The address to listen on.
    #[must_use]
    pub fn listen(&self) -> &str {
        self.listen.as_deref().unwrap_or(&self.endpoint)
    }

    /// The defaults around what every tablet must be told.
    #[must_use]
    pub fn new(endpoint: String, nameservers: Vec<String>, dir: PathBuf, cluster: String) -> Self {
        Self {
            endpoint,
            listen: None,
            nameservers,
            dir,
            cluster,
            heartbeat: Duration::from_millis(200),
            keep_alive: Duration::from_millis(100),
            segment_bytes: 64 << 20,
            sweep: Duration::from_secs(60),
            data_format: Format::Summed,
            max_memory: 0,
            scrub: Duration::ZERO,
            disk_reserve: 0,
            transfer_bytes_s: 64 << 20,
            timing: Timing::default(),
            snapshots: Snapshots {
                grown: 64 << 20,
                every: 0,
                hour: 24,
                look: Duration::from_secs(1),
            },
            log_keep: 1 << 30,
        }
    }
}
