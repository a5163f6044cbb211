//! How the library reaches the other members.
//!
//! **Invariants**
//! * Every call names the cluster, the sender and the directory that is meant, and has the deadline that the library
//!   gives it.
//! * What cannot be reached, or refuses to be the one that is meant, is *unreachable*: the library waits a little before
//!   it tries again (O18). Everything else is tried again at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use stela_proto::raft as pb;
use tonic::{Code, Request, Status};

use super::channels::{Channels, Lane};
use super::codec;
use super::types::{Peer, Snapshot, TypeConfig, Vote};

/// How long an unreachable member is left alone.
const BACKOFF: Duration = Duration::from_millis(200);
/// A chunk of a snapshot, bytes.
const CHUNK: usize = 1 << 20;

type RpcError = RPCError<u64, Peer, RaftError<u64>>;

/// Who speaks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Speaker {
    /// The cluster.
    pub cluster: String,
    /// The own number.
    pub node: u64,
    /// The own directory.
    pub dir_uuid: String,
}

impl Speaker {
    /// The identity that goes with a call to a member.
    #[must_use]
    pub fn to(&self, node: u64, dir_uuid: &str) -> pb::Identity {
        pb::Identity {
            cluster: self.cluster.clone(),
            node: self.node,
            dir_uuid: self.dir_uuid.clone(),
            to: node,
            to_dir_uuid: dir_uuid.to_owned(),
        }
    }
}

/// Makes the library's clients.
#[derive(Clone)]
pub struct Network {
    speaker: Arc<Speaker>,
    channels: Channels,
}

impl Network {
    /// The network as that speaker sees it.
    #[must_use]
    pub fn new(speaker: Speaker, channels: Channels) -> Self {
        Self { speaker: Arc::new(speaker), channels }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Line;

    async fn new_client(&mut self, target: u64, node: &Peer) -> Line {
        Line { network: self.clone(), target, peer: node.clone() }
    }
}

/// The line to one member.
pub struct Line {
    network: Network,
    target: u64,
    peer: Peer,
}

impl Line {
    fn identity(&self) -> pb::Identity {
        self.network.speaker.to(self.target, &self.peer.dir_uuid)
    }

    fn request<T>(message: T, option: &RPCOption) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(option.hard_ttl());
        request
    }
}

fn is_away(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::PermissionDenied | Code::InvalidArgument | Code::Unimplemented
    )
}

fn failed(status: &Status) -> RpcError {
    if is_away(status) { Unreachable::new(status).into() } else { NetworkError::new(status).into() }
}

impl RaftNetwork<TypeConfig> for Line {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let mut client = self
            .network
            .channels
            .client(&self.peer.endpoint, Lane::Talk)
            .map_err(|e| failed(&e))?;
        let entries = rpc.entries.len() as u64;
        let message = codec::append(self.identity(), &rpc);
        match client.append_entries(Self::request(message, &option)).await {
            Ok(reply) => codec::append_reply_of(reply.get_ref())
                .map_err(|e| Unreachable::new(&Status::from(e)).into()),
            // O19: a message over the limit of the other side.
            Err(status) if status.code() == Code::OutOfRange && entries > 1 => {
                Err(PayloadTooLarge::new_entries_hint(entries / 2).into())
            }
            Err(status) => Err(failed(&status)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let mut client = self
            .network
            .channels
            .client(&self.peer.endpoint, Lane::Talk)
            .map_err(|e| failed(&e))?;
        let message = codec::vote_request(self.identity(), &rpc);
        let reply = client.vote(Self::request(message, &option)).await.map_err(|e| failed(&e))?;
        codec::vote_reply_of(reply.get_ref()).map_err(|e| Unreachable::new(&Status::from(e)).into())
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let wrong = |status: &Status| -> StreamingError<TypeConfig, Fatal<u64>> {
            if is_away(status) {
                Unreachable::new(status).into()
            } else {
                NetworkError::new(status).into()
            }
        };
        let mut client =
            self.network.channels.client(&self.peer.endpoint, Lane::Bulk).map_err(|e| wrong(&e))?;
        let head = pb::SnapshotChunk {
            from: Some(self.identity()),
            vote: Some(codec::vote(&vote)),
            meta: Some(codec::snapshot_meta(&snapshot.meta)),
            ..Default::default()
        };
        let chunks = chunks(snapshot.snapshot.bytes);
        let stream =
            futures::StreamExt::chain(futures::stream::iter([head]), futures::stream::iter(chunks));
        let sent = client.install_snapshot(Self::request(stream, &option));
        tokio::select! {
            closed = cancel => Err(closed.into()),
            reply = sent => {
                let reply = reply.map_err(|e| wrong(&e))?.into_inner();
                let vote = reply.vote.ok_or_else(|| wrong(&Status::internal("an answer without a vote")))?;
                Ok(SnapshotResponse::new(codec::vote_of(&vote)))
            }
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(BACKOFF))
    }
}

/// The chunks of a snapshot, each with its checksum; the bytes are not copied.
fn chunks(bytes: Bytes) -> impl Iterator<Item = pb::SnapshotChunk> + Send + 'static {
    (0..bytes.len()).step_by(CHUNK).map(move |at| {
        let data = bytes.slice(at..bytes.len().min(at + CHUNK));
        pb::SnapshotChunk { crc: crc32c::crc32c(&data), data, ..Default::default() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_the_whole_with_a_checksum_each() {
        let bytes: Bytes = (0..CHUNK * 2 + 5).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
        let parts: Vec<_> = chunks(bytes.clone()).collect();
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|p| crc32c::crc32c(&p.data) == p.crc));
        assert_eq!(parts.iter().flat_map(|p| p.data.iter().copied()).collect::<Vec<_>>(), bytes);
        assert_eq!(chunks(Bytes::new()).count(), 0);
    }
}
