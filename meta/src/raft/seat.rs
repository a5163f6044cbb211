//! This process's place in the group: its log and state from the start on, the running library once it is a member.
//!
//! **Invariants**
//! * The library runs under one number, which the directory's identity holds on disk before (O13).
//! * The end of the library ends the process (O15): [`Seat::died`].
//! * A process that starts leads in no term of its predecessor ([`LogStore::forget_leadership`]).

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;
use openraft::error::{CheckIsLeaderError, RaftError};
use stela_common::ids::NodeId;
use stela_meta_state::command::{Proposal, Reply};
use tokio::sync::{SetOnce, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::admit::Admission;
use super::channels::Channels;
use super::log::LogStore;
use super::machine::{Machine, Store};
use super::network::{Network, Speaker};
use super::propose::{Limits, Proposer};
use super::retain;
use super::rounds::Rounds;
use super::snapshot;
use super::standing;
use super::types::{Metrics, Peer, Raft};
use crate::config::{Config, RaftConfig};
use crate::error::StartError;
use crate::group::{DEADLINE, Leadership, NotLeading, ProposeError};
use crate::identity::Identity;

/// The directory of the log.
pub const LOG: &str = "log";

/// This process's place in the group.
pub struct Seat {
    config: Config,
    dir_uuid: String,
    log: LogStore,
    machine: Machine,
    channels: Channels,
    member: SetOnce<Member>,
    leadership: watch::Sender<Leadership>,
    waiting: watch::Sender<Option<String>>,
    pub(super) admission: Admission,
    stop: CancellationToken,
}

/// The running library, and what works through it.
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) raft: Raft,
    proposer: Proposer,
    confirms: Rounds<Result<u64, NotLeading>>,
    asks: Rounds<Option<u64>>,
}

impl Seat {
    /// Opens what the directory holds. `keep` lives as long as anything writes there.
    ///
    /// # Errors
    /// It cannot be opened, is of a newer format, or has lost something; see [`StartError`].
    pub fn open(
        config: &Config,
        identity: &Identity,
        keep: Arc<dyn Any + Send + Sync>,
        stop: CancellationToken,
        on_fatal: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        snapshot::refuse_newer(&config.dir)?;
        let log = LogStore::open(
            &config.dir.join(LOG),
            config.raft.segment_bytes,
            keep.clone(),
            on_fatal,
        )?;
        let machine = Machine::open(&config.dir, &log, keep)?;
        Ok(Self {
            config: config.clone(),
            dir_uuid: identity.dir_uuid.clone(),
            log,
            machine,
            channels: Channels::default(),
            member: SetOnce::new(),
            leadership: watch::Sender::default(),
            waiting: watch::Sender::default(),
            admission: Admission::default(),
            stop,
        })
    }

    /// Neither a vote nor an entry was ever written: the directory is in no group, whatever number it has.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.log.ends().pristine
    }

    /// The same under another identity: the directory is empty and was given a new uuid.
    #[must_use]
    pub fn renamed(self, identity: &Identity) -> Self {
        Self { dir_uuid: identity.dir_uuid.clone(), ..self }
    }

    /// Starts the library as member `id`. What the directory is called on disk is written before this.
    ///
    /// # Errors
    /// The library refuses.
    pub async fn start(self: &Arc<Self>, id: u64) -> Result<(), StartError> {
        let wrong = |what: String| StartError::Raft { dir: self.config.dir.clone(), what };
        let settings = settings(&self.config).validate().map_err(|e| wrong(e.to_string()))?;
        let network = Network::new(self.speaker(id), self.channels.clone());
        self.log.forget_leadership(id);
        let raft =
            Raft::new(id, Arc::new(settings), network, self.log.clone(), self.machine.clone());
        let raft = raft.await.map_err(|e| wrong(e.to_string()))?;
        let confirms = {
            let raft = raft.clone();
            Rounds::start(move || confirm(raft.clone()))
        };
        let asks = {
            let seat = Arc::downgrade(self);
            Rounds::start(move || {
                let seat = seat.upgrade();
                async move {
                    match seat {
                        Some(seat) => seat.ask_index().await,
                        None => None,
                    }
                }
            })
        };
        let proposer =
            Proposer::start(raft.clone(), Limits::for_segments(self.config.raft.segment_bytes));
        tokio::spawn(retain::run(raft.clone(), self.log.clone(), self.config.raft.segment_bytes));
        let metrics = raft.metrics();
        if self.member.set(Member { id, raft, proposer, confirms, asks }).is_err() {
            return Err(wrong("it was started twice".into()));
        }
        self.waiting.send_replace(None);
        tokio::spawn(standing::tell_leadership(metrics, self.leadership.clone()));
        Ok(())
    }

    /// Founds the group with these members. Once it is on disk here, this directory is one of them.
    ///
    /// # Errors
    /// The library refuses.
    pub async fn found(&self, members: BTreeMap<u64, Peer>) -> Result<(), StartError> {
        let wrong = |what: String| StartError::Raft { dir: self.config.dir.clone(), what };
        let member = self.member().ok_or_else(|| wrong("it has no number yet".into()))?;
        member.raft.initialize(members).await.map_err(|e| wrong(e.to_string()))
    }

    /// Waits until the library, once it was started, has ended; tells why.
    pub async fn died(&self) -> StartError {
        let mut metrics = self.member.wait().await.raft.metrics();
        let ended = metrics.wait_for(|m| m.running_state.is_err()).await;
        let what = match ended.as_deref() {
            Ok(Metrics { running_state: Err(why), .. }) => why.to_string(),
            _ => "it has stopped".to_owned(),
        };
        StartError::Raft { dir: self.config.dir.clone(), what }
    }

    /// Clean stop: the library first, then what it wrote to.
    pub async fn close(self: Arc<Self>) {
        if let Some(member) = self.member()
            && let Err(error) = member.raft.shutdown().await
        {
            tracing::warn!(%error, "the raft group did not stop cleanly");
        }
        let closed = tokio::task::spawn_blocking(move || {
            self.machine.close();
            self.log.close()
        });
        match closed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the log was not closed cleanly"),
            Err(error) => tracing::warn!(%error, "the state was not closed cleanly"),
        }
    }

    pub(super) fn member(&self) -> Option<&Member> {
        self.member.get()
    }

    pub(super) fn channels(&self) -> &Channels {
        &self.channels
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn dir_uuid(&self) -> &str {
        &self.dir_uuid
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub(super) async fn propose_here_until(
        &self,
        proposals: Vec<Proposal>,
        deadline: Instant,
    ) -> Result<(Vec<Reply>, u64), ProposeError> {
        match self.member() {
            Some(member) => member.proposer.propose(proposals, deadline).await,
            None => Err(ProposeError::NotLeading { hint: None }),
        }
    }

    /// See [`Group::confirm`](crate::Group::confirm).
    pub(crate) async fn confirm(&self) -> Result<u64, NotLeading> {
        match self.member() {
            Some(member) => member.confirms.join().await.unwrap_or(Err(NotLeading { hint: None })),
            None => Err(NotLeading { hint: None }),
        }
    }

    /// Takes part in a round that asks the leader.
    pub(super) async fn index_from_leader(&self) -> Option<u64> {
        self.member()?.asks.join().await?
    }

    pub(crate) fn store(&self) -> Arc<Store> {
        self.machine.store()
    }

    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    pub(crate) fn waiting(&self) -> watch::Receiver<Option<String>> {
        self.waiting.subscribe()
    }

    /// Says what an empty directory waits for; answers whether that is something else than before.
    pub(crate) fn set_waiting(&self, what: String) -> bool {
        self.waiting.send_if_modified(|now| {
            let new = now.as_ref() != Some(&what);
            *now = Some(what);
            new
        })
    }

    pub(crate) fn cluster(&self) -> &str {
        &self.config.cluster
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.config.endpoint
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        self.member().map(|m| NodeId(m.id))
    }

    pub(crate) fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    pub(super) fn speaker(&self, node: u64) -> Speaker {
        Speaker { cluster: self.config.cluster.clone(), node, dir_uuid: self.dir_uuid.clone() }
    }
}

/// One round: a quorum says that this nameserver leads. Without an answer it is asked once more (O2, R17).
async fn confirm(raft: Raft) -> Result<u64, NotLeading> {
    for _ in 0..2 {
        match timeout(DEADLINE, raft.ensure_linearizable()).await {
            Ok(Ok(id)) => return Ok(id.map_or(0, |id| id.index)),
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) => {}
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(to)))) => {
                return Err(NotLeading { hint: to.leader_node.map(|peer| peer.endpoint) });
            }
            Ok(Err(RaftError::Fatal(_))) | Err(_) => break,
        }
    }
    Err(NotLeading { hint: None })
}

fn settings(config: &Config) -> openraft::Config {
    let RaftConfig {
        heartbeat_ms,
        election_min_ms,
        election_max_ms,
        snapshot_every,
        keep_entries,
        ..
    } = config.raft;
    openraft::Config {
        cluster_name: config.cluster.clone(),
        heartbeat_interval: heartbeat_ms,
        election_timeout_min: election_min_ms,
        election_timeout_max: election_max_ms,
        install_snapshot_timeout: 10_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        max_in_snapshot_log_to_keep: keep_entries,
        // Above the policy, else a snapshot might not end the lag.
        replication_lag_threshold: snapshot_every + keep_entries,
        max_payload_entries: 64,
        purge_batch_size: 256.min(keep_entries.max(1)),
        ..openraft::Config::default()
    }
}

/// How long the library is given to answer what it answers at once when it lives.
pub(super) const SOON: Duration = Duration::from_secs(2);
