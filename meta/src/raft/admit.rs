//! Empty directories that ask to come in: the leader takes them in as learners.
//!
//! **Invariants**
//! * A directory is known by its uuid. One that was wiped has another, so that it is another member with another number:
//!   what its predecessor voted and acknowledged is not held against it, and it never votes in its place (O13).
//! * Numbers are never used twice (O11): a learner's comes from the index of an entry that was committed for it.
//! * Changes of the membership are made one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use openraft::ChangeMembers;
use stela_proto::raft as pb;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::seat::{SOON, Seat};
use super::types::{Membership, Peer};
use crate::group::DEADLINE;

/// The numbers that founders have; those of learners are above.
const FOUNDERS: u64 = 7;

/// One change of the membership at a time.
#[derive(Default)]
pub(super) struct Admission {
    busy: Arc<Mutex<()>>,
}

impl Seat {
    /// What this nameserver tells of itself, and of the one that asks.
    pub(super) fn introduce(self: &Arc<Self>, asker: &pb::IntroduceRequest) -> pb::IntroduceReply {
        let uuid = asker.from.as_ref().map(|f| f.dir_uuid.clone()).unwrap_or_default();
        let ours = asker.from.as_ref().is_some_and(|f| f.cluster == self.cluster());
        let admitted = if ours && !uuid.is_empty() { self.number_of(&uuid) } else { 0 };
        if ours && admitted == 0 && !uuid.is_empty() && !asker.endpoint.is_empty() {
            self.admit(Peer { endpoint: asker.endpoint.clone(), dir_uuid: uuid });
        }
        let state = if self.is_empty() { pb::DirState::Empty } else { pb::DirState::Group };
        pb::IntroduceReply {
            cluster: self.cluster().to_owned(),
            node: self.member().map_or(0, |m| m.id),
            dir_uuid: self.dir_uuid().to_owned(),
            state: state.into(),
            nameservers: self.config().list().into_iter().collect(),
            leader: self.leadership().borrow().leader.clone().unwrap_or_default(),
            bootstrap: self.config().bootstrap,
            voter: self.is_voter(),
            admitted,
        }
    }

    /// The number that the group gave to a directory, if that cannot be taken back any more: it is applied, or the
    /// founding itself, of which there is only one.
    fn number_of(&self, dir_uuid: &str) -> u64 {
        let of = |m: &Membership| {
            m.nodes().find(|(_, peer)| peer.dir_uuid == dir_uuid).map(|(id, _)| *id)
        };
        let applied = self.store().membership();
        let found = of(applied.membership()).or_else(|| {
            let stored = self.member()?.raft.metrics().borrow().membership_config.clone();
            stored
                .log_id()
                .as_ref()
                .filter(|id| id.index == 0)
                .and_then(|_| of(stored.membership()))
        });
        found.unwrap_or(0)
    }

    /// Takes a directory in as a learner, where this nameserver leads and nobody else is being taken in. The asker asks
    /// again, so a failure costs time only.
    fn admit(self: &Arc<Self>, peer: Peer) {
        if !self.leadership().borrow().here {
            return;
        }
        let Ok(busy) = self.admission.busy.clone().try_lock_owned() else { return };
        let seat = self.clone();
        tokio::spawn(async move {
            let _busy = busy;
            match timeout(DEADLINE, seat.add_learner(peer.clone())).await {
                Ok(Ok(id)) => tracing::info!(
                    endpoint = peer.endpoint,
                    id,
                    "an empty directory is taken in as a learner"
                ),
                Ok(Err(error)) => {
                    tracing::warn!(endpoint = peer.endpoint, error, "a learner was not taken in")
                }
                Err(_) => tracing::warn!(
                    endpoint = peer.endpoint,
                    "a learner was not taken in: no quorum"
                ),
            }
        });
    }

    async fn add_learner(&self, peer: Peer) -> Result<u64, String> {
        let member = self.member().ok_or("not a member")?;
        let deadline = Instant::now() + SOON;
        let (_, index) =
            self.propose_here_until(Vec::new(), deadline).await.map_err(|e| e.to_string())?;
        // Whatever an earlier leader, or an earlier try, has begun is applied by now.
        let known = self.number_of(&peer.dir_uuid);
        if known != 0 {
            return Ok(known);
        }
        let id = index + FOUNDERS;
        let add = ChangeMembers::AddNodes(BTreeMap::from([(id, peer.clone())]));
        member.raft.change_membership(add, true).await.map_err(|e| e.to_string())?;
        // Earlier learners at that place are gone for ever: nobody has their directory any more.
        let gone = self.with_membership(|m| {
            let voters: BTreeSet<u64> = m.voter_ids().collect();
            let same = m.nodes().filter(|(n, p)| {
                let another = **n != id && p.dir_uuid != peer.dir_uuid;
                another && p.endpoint == peer.endpoint && !voters.contains(*n)
            });
            same.map(|(n, _)| *n).collect::<BTreeSet<u64>>()
        });
        if let Some(gone) = gone.filter(|g| !g.is_empty()) {
            let remove = ChangeMembers::RemoveNodes(gone);
            member.raft.change_membership(remove, true).await.map_err(|e| e.to_string())?;
        }
        Ok(id)
    }
}
