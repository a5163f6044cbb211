//! One codec for wire and disk: the types of the Raft library <-> `raft.proto`.
//!
//! Nothing that arrives is trusted: what the library would take for granted (entries that follow each other, a sender
//! that votes for itself) is checked here, and what is not so is [`Malformed`].

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message as _;
use stela_common::wire::Malformed;
use stela_proto::raft as pb;

use super::types::{
    Entry, LogId, Membership, Payload, Peer, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

/// Encodes a vote.
pub fn vote(v: &Vote) -> pb::Vote {
    pb::Vote { term: v.leader_id.term, node: v.leader_id.node_id, committed: v.committed }
}

/// Decodes a vote.
pub fn vote_of(v: &pb::Vote) -> Vote {
    if v.committed { Vote::new_committed(v.term, v.node) } else { Vote::new(v.term, v.node) }
}

/// Encodes the id of an entry.
pub fn log_id(id: &LogId) -> pb::LogId {
    pb::LogId { term: id.leader_id.term, node: id.leader_id.node_id, index: id.index }
}

/// Decodes the id of an entry.
pub fn log_id_of(id: &pb::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(id.term, id.node), id.index)
}

/// Encodes a membership.
pub fn membership(m: &Membership) -> pb::Membership {
    pb::Membership {
        configs: m
            .get_joint_config()
            .iter()
            .map(|set| pb::NodeSet { ids: set.iter().copied().collect() })
            .collect(),
        nodes: m
            .nodes()
            .map(|(id, peer)| pb::Node {
                id: *id,
                endpoint: peer.endpoint.clone(),
                dir_uuid: peer.dir_uuid.clone(),
            })
            .collect(),
    }
}

/// Decodes a membership: every voter must be described.
pub fn membership_of(m: &pb::Membership) -> Result<Membership, Malformed> {
    let configs: Vec<BTreeSet<u64>> =
        m.configs.iter().map(|set| set.ids.iter().copied().collect()).collect();
    let nodes: BTreeMap<u64, Peer> = m
        .nodes
        .iter()
        .map(|n| (n.id, Peer { endpoint: n.endpoint.clone(), dir_uuid: n.dir_uuid.clone() }))
        .collect();
    if configs.iter().flatten().any(|id| !nodes.contains_key(id)) {
        return Err(Malformed("membership.nodes"));
    }
    Ok(Membership::new(configs, nodes))
}

/// Encodes a membership with its entry.
pub fn stored_membership(m: &StoredMembership) -> pb::StoredMembership {
    pb::StoredMembership {
        log_id: m.log_id().as_ref().map(log_id),
        membership: Some(membership(m.membership())),
    }
}

/// Decodes a membership with its entry.
pub fn stored_membership_of(m: &pb::StoredMembership) -> Result<StoredMembership, Malformed> {
    let inner = m.membership.as_ref().ok_or(Malformed("stored_membership.membership"))?;
    Ok(StoredMembership::new(m.log_id.as_ref().map(log_id_of), membership_of(inner)?))
}

/// Encodes an entry.
pub fn entry(e: &Entry) -> pb::Entry {
    let payload = match &e.payload {
        EntryPayload::Blank => pb::entry::Payload::Blank(true),
        EntryPayload::Normal(payload) => pb::entry::Payload::Command(payload.bytes().clone()),
        EntryPayload::Membership(m) => pb::entry::Payload::Membership(membership(m)),
    };
    pb::Entry { log_id: Some(log_id(&e.log_id)), payload: Some(payload) }
}

/// Decodes an entry; its commands are decoded too when `check` says that a peer sent it.
pub fn entry_of(e: pb::Entry, check: bool) -> Result<Entry, Malformed> {
    let log_id = log_id_of(&e.log_id.ok_or(Malformed("entry.log_id"))?);
    let payload = match e.payload.ok_or(Malformed("entry.payload"))? {
        pb::entry::Payload::Blank(_) => EntryPayload::Blank,
        pb::entry::Payload::Command(bytes) if check => {
            EntryPayload::Normal(Payload::decode(bytes).map_err(|_| Malformed("entry.command"))?)
        }
        pb::entry::Payload::Command(bytes) => EntryPayload::Normal(Payload::raw(bytes)),
        pb::entry::Payload::Membership(m) => EntryPayload::Membership(membership_of(&m)?),
    };
    Ok(Entry { log_id, payload })
}

/// The bytes of an entry in the log.
pub fn entry_bytes(e: &Entry) -> Vec<u8> {
    entry(e).encode_to_vec()
}

/// The entry that the log holds.
pub fn entry_from(bytes: Bytes) -> Result<Entry, Malformed> {
    entry_of(pb::Entry::decode(bytes).map_err(|_| Malformed("entry"))?, false)
}

/// Encodes what a snapshot holds.
pub fn snapshot_meta(m: &SnapshotMeta) -> pb::SnapshotMeta {
    pb::SnapshotMeta {
        last: m.last_log_id.as_ref().map(log_id),
        membership: Some(stored_membership(&m.last_membership)),
        id: m.snapshot_id.clone(),
    }
}

/// Decodes what a snapshot holds.
pub fn snapshot_meta_of(m: &pb::SnapshotMeta) -> Result<SnapshotMeta, Malformed> {
    let membership = m.membership.as_ref().ok_or(Malformed("snapshot_meta.membership"))?;
    Ok(SnapshotMeta {
        last_log_id: m.last.as_ref().map(log_id_of),
        last_membership: stored_membership_of(membership)?,
        snapshot_id: m.id.clone(),
    })
}

/// Encodes an AppendEntries request.
pub fn append(from: pb::Identity, r: &AppendEntriesRequest<TypeConfig>) -> pb::AppendRequest {
    pb::AppendRequest {
        from: Some(from),
        vote: Some(vote(&r.vote)),
        prev: r.prev_log_id.as_ref().map(log_id),
        entries: r.entries.iter().map(entry).collect(),
        commit: r.leader_commit.as_ref().map(log_id),
    }
}

/// Decodes an AppendEntries request of node `sender`.
pub fn append_of(
    r: pb::AppendRequest,
    sender: u64,
) -> Result<AppendEntriesRequest<TypeConfig>, Malformed> {
    let vote = vote_of(&r.vote.ok_or(Malformed("append.vote"))?);
    if !vote.committed || vote.leader_id.node_id != sender {
        return Err(Malformed("append.vote"));
    }
    let prev_log_id = r.prev.as_ref().map(log_id_of);
    let entries =
        r.entries.into_iter().map(|e| entry_of(e, true)).collect::<Result<Vec<_>, _>>()?;
    let mut last = prev_log_id;
    for e in &entries {
        let follows = match &last {
            Some(l) => {
                e.log_id.index == l.index.wrapping_add(1) && e.log_id.leader_id >= l.leader_id
            }
            None => e.log_id.index == 0,
        };
        if !follows || e.log_id.leader_id > vote.leader_id {
            return Err(Malformed("append.entries"));
        }
        last = Some(e.log_id);
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id,
        entries,
        leader_commit: r.commit.as_ref().map(log_id_of),
    })
}

/// Encodes the answer to AppendEntries.
pub fn append_reply(r: &AppendEntriesResponse<u64>) -> pb::AppendReply {
    use pb::append_reply::Outcome;
    let (outcome, partial_none) = match r {
        AppendEntriesResponse::Success => (Some(Outcome::Success(true)), false),
        AppendEntriesResponse::PartialSuccess(Some(id)) => {
            (Some(Outcome::Partial(log_id(id))), false)
        }
        AppendEntriesResponse::PartialSuccess(None) => (None, true),
        AppendEntriesResponse::Conflict => (Some(Outcome::Conflict(true)), false),
        AppendEntriesResponse::HigherVote(v) => (Some(Outcome::HigherVote(vote(v))), false),
    };
    pb::AppendReply { outcome, status: stela_common::wire::ok(), partial_none }
}

/// Decodes the answer to AppendEntries.
pub fn append_reply_of(r: &pb::AppendReply) -> Result<AppendEntriesResponse<u64>, Malformed> {
    use pb::append_reply::Outcome;
    Ok(match &r.outcome {
        Some(Outcome::Success(_)) => AppendEntriesResponse::Success,
        Some(Outcome::Partial(id)) => AppendEntriesResponse::PartialSuccess(Some(log_id_of(id))),
        Some(Outcome::Conflict(_)) => AppendEntriesResponse::Conflict,
        Some(Outcome::HigherVote(v)) => AppendEntriesResponse::HigherVote(vote_of(v)),
        None if r.partial_none => AppendEntriesResponse::PartialSuccess(None),
        None => return Err(Malformed("append_reply.outcome")),
    })
}

/// Encodes a request for a vote.
pub fn vote_request(from: pb::Identity, r: &VoteRequest<u64>) -> pb::VoteRequest {
    pb::VoteRequest {
        from: Some(from),
        vote: Some(vote(&r.vote)),
        last: r.last_log_id.as_ref().map(log_id),
    }
}

/// Decodes a request for a vote of node `sender`.
pub fn vote_request_of(r: &pb::VoteRequest, sender: u64) -> Result<VoteRequest<u64>, Malformed> {
    let vote = vote_of(r.vote.as_ref().ok_or(Malformed("vote.vote"))?);
    if vote.committed || vote.leader_id.node_id != sender {
        return Err(Malformed("vote.vote"));
    }
    Ok(VoteRequest::new(vote, r.last.as_ref().map(log_id_of)))
}

/// Encodes an answer to a request for a vote.
pub fn vote_reply(r: &VoteResponse<u64>) -> pb::VoteReply {
    pb::VoteReply {
        vote: Some(vote(&r.vote)),
        granted: r.vote_granted,
        last: r.last_log_id.as_ref().map(log_id),
        status: stela_common::wire::ok(),
    }
}

/// Decodes an answer to a request for a vote.
pub fn vote_reply_of(r: &pb::VoteReply) -> Result<VoteResponse<u64>, Malformed> {
    let vote = vote_of(r.vote.as_ref().ok_or(Malformed("vote_reply.vote"))?);
    Ok(VoteResponse::new(vote, r.last.as_ref().map(log_id_of), r.granted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use stela_meta_state::command::Batch;

    fn id(term: u64, node: u64, index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(term, node), index)
    }

    /// The bytes of an entry are a format on disk: they do not change.
    #[test]
    fn golden_bytes() {
        let blank = Entry { log_id: id(3, 1, 300), payload: EntryPayload::Blank };
        assert_eq!(entry_bytes(&blank), [10, 7, 8, 3, 16, 1, 24, 172, 2, 16, 1]);
        let batch = Payload::encode(Batch::default()).unwrap();
        let normal = Entry { log_id: id(0, 2, 1), payload: EntryPayload::Normal(batch) };
        let bytes = entry_bytes(&normal);
        assert_eq!(bytes[..8], [10, 4, 16, 2, 24, 1, 26, 11]);
        assert_eq!(entry_from(bytes.into()).unwrap(), normal);
        let peer = Peer { endpoint: "a:1".into(), dir_uuid: "u".into() };
        let m = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, peer)]));
        let member = Entry { log_id: id(0, 0, 0), payload: EntryPayload::Membership(m) };
        let bytes = entry_bytes(&member);
        assert_eq!(
            bytes,
            [10, 0, 34, 17, 10, 3, 10, 1, 1, 18, 10, 8, 1, 18, 3, 97, 58, 49, 26, 1, 117]
        );
        assert_eq!(entry_from(bytes.into()).unwrap(), member);
    }

    #[test]
    fn entries_that_do_not_follow_are_malformed() {
        let blank = |term, index| pb::Entry {
            log_id: Some(pb::LogId { term, node: 1, index }),
            payload: Some(pb::entry::Payload::Blank(true)),
        };
        let request = |prev, entries| pb::AppendRequest {
            from: None,
            vote: Some(pb::Vote { term: 2, node: 1, committed: true }),
            prev,
            entries,
            commit: None,
        };
        let prev = Some(pb::LogId { term: 1, node: 1, index: 4 });
        assert!(append_of(request(prev, vec![blank(1, 5), blank(2, 6)]), 1).is_ok());
        assert!(append_of(request(prev, vec![blank(1, 5), blank(2, 7)]), 1).is_err());
        assert!(append_of(request(prev, vec![blank(3, 5)]), 1).is_err());
        assert!(append_of(request(None, vec![blank(1, 5)]), 1).is_err());
        assert!(append_of(request(prev, vec![blank(1, 5)]), 2).is_err());
        let junk = pb::Entry {
            log_id: Some(pb::LogId { term: 1, node: 1, index: 5 }),
            payload: Some(pb::entry::Payload::Command(Bytes::from_static(b"junk"))),
        };
        assert!(append_of(request(prev, vec![junk]), 1).is_err());
        assert!(
            membership_of(&pb::Membership {
                configs: vec![pb::NodeSet { ids: vec![1] }],
                nodes: vec![]
            })
            .is_err()
        );
    }

    #[test]
    fn answers_survive_the_wire() {
        for r in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::PartialSuccess(Some(id(1, 2, 3))),
            AppendEntriesResponse::HigherVote(Vote::new(4, 5)),
        ] {
            assert_eq!(append_reply_of(&append_reply(&r)).unwrap(), r);
        }
    }
}
