//! How a nameserver is started, and what is wrong with a configuration before anything is touched.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::StartError;

/// The settings of a nameserver process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `ip:port`: where it is reached, and its name in the group.
    pub endpoint: String,
    /// `ip:port`: where it listens, if that is another address (behind a proxy, in a container).
    pub listen: Option<String>,
    /// The nameservers of the cluster, itself among them, in any order.
    pub nameservers: Vec<String>,
    /// Its directory.
    pub dir: PathBuf,
    /// The cluster's name.
    pub cluster: String,
    /// Found a group with the other nameservers, if none of them has one and every directory is empty.
    pub bootstrap: bool,
    /// The lease of a tablet, ms (R17). The grantor counts a tenth more.
    pub lease_ms: u64,
    /// How often a tablet is expected to be heard, ms.
    pub heartbeat_ms: u64,
    /// The timing and the sizes of the Raft group.
    pub raft: RaftConfig,
}

/// Timing and sizes of the Raft group. Failover of the group takes `election_max_ms` plus a random time between
/// `election_min_ms` and `election_max_ms`, counted from the last heartbeat: 0.65 to 0.9 s.
#[derive(Clone, Copy, Debug)]
pub struct RaftConfig {
    /// Between heartbeats of the leader; also the deadline of every message between nameservers, so not below 100.
    pub heartbeat_ms: u64,
    /// Shortest wait before an election.
    pub election_min_ms: u64,
    /// Longest wait before an election, and the lease of the leader.
    pub election_max_ms: u64,
    /// A snapshot is made after so many entries.
    pub snapshot_every: u64,
    /// So many entries behind a snapshot stay in the log.
    pub keep_entries: u64,
    /// The length of a segment of the log, bytes.
    pub segment_bytes: u64,
}

impl Default for RaftConfig {
    fn default() -> Self {
        Self {
            heartbeat_ms: 150,
            // Far enough below the longest that two members seldom stand for election at once: the lease comes before it.
            election_min_ms: 200,
            election_max_ms: 450,
            snapshot_every: 2_000,
            keep_entries: 1_000,
            segment_bytes: 16 << 20,
        }
    }
}

impl Config {
    /// The address to listen on.
    #[must_use]
    pub fn listen(&self) -> &str {
        self.listen.as_deref().unwrap_or(&self.endpoint)
    }

    /// The defaults around what every nameserver must be told.
    #[must_use]
    pub fn new(endpoint: String, nameservers: Vec<String>, dir: PathBuf, cluster: String) -> Self {
        Self {
            endpoint,
            listen: None,
            nameservers,
            dir,
            cluster,
            bootstrap: false,
            lease_ms: 2_000,
            heartbeat_ms: 200,
            raft: RaftConfig::default(),
        }
    }

    /// The list as a set: node ids of a founded group are the positions in it, from 1.
    #[must_use]
    pub fn list(&self) -> BTreeSet<String> {
        self.nameservers.iter().map(|e| e.trim().to_owned()).filter(|e| !e.is_empty()).collect()
    }

    /// What is wrong with it, without looking at the disk or the network.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(&self) -> Result<(), StartError> {
        let wrong = |text: String| Err(StartError::Config(text));
        let list = self.list();
        let named = self.nameservers.iter().filter(|e| !e.trim().is_empty()).count();
        if named != list.len() {
            return wrong("a nameserver is named twice; correct --nameservers".into());
        }
        if !list.contains(&self.endpoint) {
            return Err(StartError::NotInList {
                endpoint: self.endpoint.clone(),
                list: list.into_iter().collect::<Vec<_>>().join(","),
            });
        }
        if let Some(bad) = list.iter().find(|e| !is_endpoint(e)) {
            return wrong(format!("nameserver '{bad}' is not host:port; correct --nameservers"));
        }
        if list.len() > 7 {
            return wrong(format!(
                "{} nameservers are too many: give 1, 3 or 5 with --nameservers",
                list.len()
            ));
        }
        if self.cluster.is_empty()
            || self.cluster.len() > 255
            || self.cluster.chars().any(char::is_control)
        {
            return wrong(
                "the cluster's name must have 1 to 255 printable characters; correct --cluster"
                    .into(),
            );
        }
        if self.lease_ms < 3 * self.heartbeat_ms.max(1) {
            return wrong(format!(
                "the lease of {} ms is shorter than three heartbeats of {} ms; raise tablet_heartbeat_timeout",
                self.lease_ms, self.heartbeat_ms
            ));
        }
        let r = &self.raft;
        if r.heartbeat_ms < 20
            || r.election_min_ms <= r.heartbeat_ms
            || r.election_max_ms <= r.election_min_ms
            || r.election_max_ms < 2 * r.heartbeat_ms
        {
            return wrong(
                "raft timing: needs heartbeat >= 20 ms, election_min above it, election_max above that and >= 2 heartbeats"
                    .into(),
            );
        }
        if r.segment_bytes < 256 << 10 {
            return wrong("the segments of the log need at least 256 KiB".into());
        }
        Ok(())
    }
}

fn is_endpoint(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && !host.chars().any(|c| c.is_whitespace() || c == '/')
            && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_lacks_the_own_endpoint_or_is_no_list_is_refused() {
        let config = |own: &str, list: &[&str]| {
            Config::new(
                own.into(),
                list.iter().map(|e| (*e).into()).collect(),
                "/nowhere".into(),
                "c".into(),
            )
            .check()
        };
        assert!(config("a:1", &["a:1"]).is_ok());
        assert!(config("a:1", &["a:1", " b:2", ""]).is_ok());
        assert!(matches!(config("a:1", &["b:1"]), Err(StartError::NotInList { .. })));
        assert!(matches!(config("a:1", &["a:1", "b"]), Err(StartError::Config(_))));
        assert!(matches!(config("a:1", &["a:1", "b:0"]), Err(StartError::Config(_))));
    }
}
