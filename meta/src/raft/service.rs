//! What other nameservers ask of this one.
//!
//! **Invariants**
//! * Nothing reaches the library before the identity of the caller and every field was checked: a malformed message is an
//!   error to its sender.
//! * An answer says that something was not done only if that is certain.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use stela_common::code::Refusal;
use stela_common::wire::{self, Malformed};
use stela_meta_state::command::Proposal;
use stela_proto::raft as pb;
use stela_proto::raft::raft_server::{Raft, RaftServer};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::channels::MESSAGE;
use super::codec;
use super::seat::Seat;
use super::types::{Image, Snapshot};
use crate::group::{DEADLINE, ProposeError};

/// The largest state that is taken over from a leader, bytes.
const SNAPSHOT: usize = 1 << 30;

/// The service of a seat.
pub struct Service {
    seat: Arc<Seat>,
}

/// The service, to be added to a server.
#[must_use]
pub fn server(seat: Arc<Seat>) -> RaftServer<impl Raft> {
    RaftServer::new(Service { seat })
        .max_decoding_message_size(MESSAGE)
        .max_encoding_message_size(MESSAGE)
}

#[tonic::async_trait]
impl Raft for Service {
    async fn append_entries(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> Result<Response<pb::AppendReply>, Status> {
        let request = request.into_inner();
        let member = self.seat.check(request.from.as_ref())?;
        let sender = sender(request.from.as_ref())?;
        let append = codec::append_of(request, sender)?;
        let reply = member
            .raft
            .append_entries(append)
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(codec::append_reply(&reply)))
    }

    async fn vote(
        &self,
        request: Request<pb::VoteRequest>,
    ) -> Result<Response<pb::VoteReply>, Status> {
        let request = request.into_inner();
        let member = self.seat.check(request.from.as_ref())?;
        let vote = codec::vote_request_of(&request, sender(request.from.as_ref())?)?;
        let reply = member.raft.vote(vote).await.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(codec::vote_reply(&reply)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<pb::SnapshotChunk>>,
    ) -> Result<Response<pb::SnapshotReply>, Status> {
        let mut chunks = request.into_inner();
        let head = chunks.message().await?.ok_or(Malformed("snapshot"))?;
        let member = self.seat.check(head.from.as_ref())?;
        let vote = codec::vote_of(head.vote.as_ref().ok_or(Malformed("snapshot.vote"))?);
        if !vote.committed || vote.leader_id.node_id != sender(head.from.as_ref())? {
            return Err(Malformed("snapshot.vote").into());
        }
        let meta = codec::snapshot_meta_of(head.meta.as_ref().ok_or(Malformed("snapshot.meta"))?)?;
        let image = receive(&mut chunks).await?;
        let snapshot = Snapshot { meta, snapshot: Box::new(image) };
        let reply = member.raft.install_full_snapshot(vote, snapshot).await;
        let reply = reply.map_err(|e| Status::unavailable(e.to_string()))?;
        Ok(Response::new(pb::SnapshotReply {
            vote: Some(codec::vote(&reply.vote)),
            status: wire::ok(),
        }))
    }

    async fn introduce(
        &self,
        request: Request<pb::IntroduceRequest>,
    ) -> Result<Response<pb::IntroduceReply>, Status> {
        Ok(Response::new(self.seat.introduce(request.get_ref())))
    }

    async fn forward(
        &self,
        request: Request<pb::ForwardRequest>,
    ) -> Result<Response<pb::ForwardReply>, Status> {
        let request = request.into_inner();
        self.seat.check(request.from.as_ref())?;
        let proposal: Proposal =
            rmp_serde::from_slice(&request.command).map_err(|_| Malformed("forward.command"))?;
        let reply = match self.seat.propose_one(proposal, Instant::now() + DEADLINE).await {
            Ok((reply, index)) => pb::ForwardReply {
                status: wire::ok(),
                reply: rmp_serde::to_vec_named(&reply)
                    .map_err(|e| Status::internal(e.to_string()))?
                    .into(),
                index,
                ..Default::default()
            },
            Err(ProposeError::NotLeading { hint }) => pb::ForwardReply {
                not_leader: true,
                hint: hint.unwrap_or_default(),
                ..Default::default()
            },
            Err(ProposeError::Unsent(_)) => {
                pb::ForwardReply { not_leader: true, ..Default::default() }
            }
            Err(e) => {
                pb::ForwardReply { status: wire::refused(&Refusal::from(e)), ..Default::default() }
            }
        };
        Ok(Response::new(reply))
    }

    async fn read_index(
        &self,
        request: Request<pb::ReadIndexRequest>,
    ) -> Result<Response<pb::ReadIndexReply>, Status> {
        self.seat.check(request.get_ref().from.as_ref())?;
        Ok(Response::new(match self.seat.confirm().await {
            Ok(index) => pb::ReadIndexReply { index, ..Default::default() },
            Err(e) => pb::ReadIndexReply {
                not_leader: true,
                hint: e.hint.unwrap_or_default(),
                ..Default::default()
            },
        }))
    }

    async fn reach(
        &self,
        request: Request<pb::ReachRequest>,
    ) -> Result<Response<pb::ReachReply>, Status> {
        let request = request.into_inner();
        self.seat.check(request.from.as_ref())?;
        let reached = self.seat.reaches(&request.tablets).await;
        Ok(Response::new(pb::ReachReply { reached }))
    }
}

fn sender(from: Option<&pb::Identity>) -> Result<u64, Malformed> {
    from.map(|f| f.node).ok_or(Malformed("from"))
}

/// The chunks behind the head, each verified, as a state that decodes: one that does not would end the library.
async fn receive(chunks: &mut Streaming<pb::SnapshotChunk>) -> Result<Image, Status> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        if crc32c::crc32c(&chunk.data) != chunk.crc {
            return Err(Malformed("snapshot.crc").into());
        }
        if bytes.len() + chunk.data.len() > SNAPSHOT {
            return Err(Malformed("snapshot.data").into());
        }
        bytes.extend_from_slice(&chunk.data);
    }
    let bytes: Bytes = bytes.freeze();
    let decoded = tokio::task::spawn_blocking(move || {
        let image = Image { bytes, state: None };
        image.state().map(|state| Image { state: Some(state), ..image })
    });
    decoded
        .await
        .map_err(|e| Status::internal(e.to_string()))?
        .map_err(|_| Malformed("snapshot.data").into())
}
