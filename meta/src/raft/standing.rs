//! Where this nameserver stands: who leads, who is a member, and which calls of others are meant for it.
//!
//! **Invariants**
//! * A call of a peer is let through only if it means this cluster, this number and this directory, and comes from the
//!   directory that the group knows under the sender's number (O13). A sender that is not known yet is let through: the
//!   group may have taken it in since.
//! * A change of leadership is told as soon as the library tells it.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ServerState;
use stela_common::ids::NodeId;
use stela_proto::raft as pb;
use tokio::sync::watch;
use tonic::Status;

use super::seat::{Member, Seat};
use super::types::{Membership, Metrics};
use crate::group::Leadership;

impl Seat {
    pub(crate) fn members(&self) -> Vec<(NodeId, String)> {
        let mut by_endpoint = BTreeMap::new();
        self.with_membership(|m| {
            // A directory that was replaced is known under its old and its new number: the new one counts.
            by_endpoint.extend(m.nodes().map(|(id, peer)| (peer.endpoint.clone(), NodeId(*id))));
        });
        let members: BTreeSet<_> =
            by_endpoint.into_iter().map(|(endpoint, id)| (id, endpoint)).collect();
        members.into_iter().collect()
    }

    /// The numbers of those that vote, as the group knows them here.
    pub(crate) fn voters(&self) -> BTreeSet<u64> {
        self.with_membership(|m| m.voter_ids().collect()).unwrap_or_default()
    }

    /// May this member vote, as far as it knows?
    #[must_use]
    pub fn is_voter(&self) -> bool {
        self.member().is_some_and(|me| {
            self.with_membership(|m| m.voter_ids().any(|id| id == me.id)).unwrap_or(false)
        })
    }

    /// Looks at the membership in force, whether committed or not.
    pub(super) fn with_membership<T>(&self, look: impl FnOnce(&Membership) -> T) -> Option<T> {
        self.member().map(|member| {
            let stored = member.raft.metrics().borrow().membership_config.clone();
            look(stored.membership())
        })
    }

    /// Where the leader is, if another one leads, and the identity that goes with a call to it.
    pub(super) fn leader(&self) -> Option<(String, pb::Identity)> {
        let member = self.member()?;
        let metrics = member.raft.metrics();
        let metrics = metrics.borrow();
        let id = metrics.current_leader.filter(|id| *id != member.id)?;
        let peer = metrics.membership_config.membership().get_node(&id)?;
        Some((peer.endpoint.clone(), self.speaker(member.id).to(id, &peer.dir_uuid)))
    }

    /// The other members, and the identities that go with calls to them.
    pub(super) fn others(&self) -> Vec<(String, pb::Identity)> {
        let Some(me) = self.member() else { return Vec::new() };
        let speaker = self.speaker(me.id);
        let all = self.with_membership(|m| {
            let others = m.nodes().filter(|(id, _)| **id != me.id);
            others.map(|(id, p)| (p.endpoint.clone(), speaker.to(*id, &p.dir_uuid))).collect()
        });
        all.unwrap_or_default()
    }

    /// Lets a call through, or says why not.
    pub(super) fn check(&self, from: Option<&pb::Identity>) -> Result<&Member, Status> {
        let from = from.ok_or_else(|| Status::invalid_argument("a call without an identity"))?;
        let refuse = |text: String| Err(Status::permission_denied(text));
        if from.cluster != self.cluster() {
            return refuse(format!(
                "this is a nameserver of cluster '{}', not '{}'",
                self.cluster(),
                from.cluster
            ));
        }
        let Some(member) = self.member() else {
            return Err(Status::unavailable("this nameserver is in no group yet"));
        };
        if from.to != member.id || from.to_dir_uuid != self.dir_uuid() {
            return refuse(format!(
                "this is nameserver {} with another directory than the one meant",
                member.id
            ));
        }
        let known = self
            .with_membership(|m| m.get_node(&from.node).map(|peer| peer.dir_uuid.clone()))
            .flatten();
        if known.is_some_and(|uuid| uuid != from.dir_uuid) {
            return refuse(format!(
                "nameserver {} has another directory than the group knows",
                from.node
            ));
        }
        Ok(member)
    }
}

/// Tells each change of leadership, until the library ends.
pub(super) async fn tell_leadership(
    mut metrics: watch::Receiver<Metrics>,
    leadership: watch::Sender<Leadership>,
) {
    loop {
        let now = {
            let m = metrics.borrow_and_update();
            let leader =
                m.current_leader.and_then(|id| m.membership_config.membership().get_node(&id));
            let here = m.state == ServerState::Leader
                && m.current_leader == Some(m.id)
                && m.running_state.is_ok();
            let leader = leader
                .filter(|_| here || m.current_leader != Some(m.id))
                .map(|peer| peer.endpoint.clone());
            Leadership { leader, here, term: m.current_term }
        };
        leadership.send_if_modified(|old| {
            let changed = *old != now;
            // That another term began without a leader is no news for people.
            if (&old.leader, old.here) != (&now.leader, now.here) {
                tracing::info!(
                    leader = now.leader,
                    here = now.here,
                    term = now.term,
                    "leadership of the meta group"
                );
            }
            if changed {
                *old = now;
            }
            changed
        });
        if metrics.changed().await.is_err() {
            leadership.send_replace(Leadership::default());
            return;
        }
    }
}
