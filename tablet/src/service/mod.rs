//! gRPC: unary calls for anyone, a session stream for programs, and the stream between tablets.

mod fill;
mod lost;
mod read;
mod replica;
mod session;
mod snapshot;
mod status;

use std::sync::Arc;

use futures::Stream;
use futures::stream::BoxStream;
use stela_common::clock::Millis;
use stela_common::code::Code;
use stela_common::table::limits;
use stela_proto::replication::replication_server::{Replication, ReplicationServer};
use stela_proto::replication::{FetchChunk, FetchRequest, ToFollower, ToLeader};
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_server::{Tablet, TabletServer};
use tokio::sync::{Semaphore, oneshot};
use tonic::{Request, Response, Status, Streaming};

use self::read::{About, Read};
use crate::disk::Files;
use crate::node::Node;
use crate::partition::Caller;
use crate::replicate;
use crate::transfer;
use crate::write::{self, Inbox};

/// The largest message of a client, bytes: a request, and others that came with it.
const MAX_REQUEST: usize = limits::REQUEST + (5 << 20);
/// The largest answer, bytes.
const MAX_ANSWER: usize = 64 << 20;
/// Reads outside of sessions that wait for a permit, at most.
pub(crate) const PARKED: usize = 4096;

/// The services of one tablet.
#[derive(Clone)]
pub struct Service {
    node: Arc<Node>,
    inbox: Arc<Inbox>,
    parked: Arc<Semaphore>,
}

impl Service {
    /// Serves `node`, whose writes go through `inbox`.
    #[must_use]
    pub fn new(node: Arc<Node>, inbox: Arc<Inbox>) -> Self {
        Self { node, inbox, parked: Arc::new(Semaphore::new(PARKED)) }
    }

    /// What clients call.
    #[must_use]
    pub fn tablet(&self) -> TabletServer<Self> {
        TabletServer::new(self.clone())
            .max_decoding_message_size(MAX_REQUEST)
            .max_encoding_message_size(MAX_ANSWER)
    }

    /// What tablets call.
    #[must_use]
    pub fn replication(&self) -> ReplicationServer<Self> {
        ReplicationServer::new(self.clone())
            .max_decoding_message_size(replicate::MAX_MESSAGE)
            .max_encoding_message_size(replicate::MAX_MESSAGE)
    }

    /// What reads the disk, on a thread that may wait for it.
    async fn with_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let files = self.node.files.clone();
        tokio::task::spawn_blocking(move || work(&files))
            .await
            .map(Response::new)
            .map_err(|_| Status::unavailable("the tablet stops"))
    }

    async fn read<R: Read>(&self, request: Request<R>) -> Result<Response<R::Reply>, Status> {
        let (request, since) = (request.into_inner(), Millis::now());
        if let Some(reply) = read::at_once(&self.node, &request, since) {
            return Ok(Response::new(reply));
        }
        Ok(Response::new(match self.parked.try_acquire() {
            Ok(_place) => read::served(&self.node, &request, since).await,
            Err(_) => R::reply(Err(Code::Busy.into()), About::default()),
        }))
    }

    async fn write(&self, request: write::Request) -> Result<Response<pb::PutReply>, Status> {
        let (sender, receiver) = oneshot::channel();
        self.inbox.offer(request, Caller::Unary(sender));
        receiver
            .await
            .map(Response::new)
            .map_err(|_| Status::unavailable("the tablet stops; the outcome is unknown"))
    }
}

#[tonic::async_trait]
impl Tablet for Service {
    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutReply>, Status> {
        self.write(write::Request::Put(request.into_inner())).await
    }

    async fn delete(
        &self,
        request: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::PutReply>, Status> {
        self.write(write::Request::Delete(request.into_inner())).await
    }

    async fn get(
        &self,
        request: Request<pb::GetRequest>,
    ) -> Result<Response<pb::GetReply>, Status> {
        self.read(request).await
    }

    async fn scan(
        &self,
        request: Request<pb::ScanRequest>,
    ) -> Result<Response<pb::ScanReply>, Status> {
        self.read(request).await
    }

    async fn count(
        &self,
        request: Request<pb::CountRequest>,
    ) -> Result<Response<pb::CountReply>, Status> {
        self.read(request).await
    }

    async fn get_table_status(
        &self,
        request: Request<pb::GetTableStatusRequest>,
    ) -> Result<Response<pb::GetTableStatusReply>, Status> {
        Ok(Response::new(status::tables(&self.node, &request.into_inner())))
    }

    async fn get_follower(
        &self,
        request: Request<pb::GetFollowerRequest>,
    ) -> Result<Response<pb::GetFollowerReply>, Status> {
        Ok(Response::new(status::followers(&self.node, &request.into_inner())))
    }

    async fn make_snapshot(
        &self,
        request: Request<pb::MakeSnapshotRequest>,
    ) -> Result<Response<pb::MakeSnapshotReply>, Status> {
        Ok(Response::new(snapshot::make(&self.node, request.into_inner()).await))
    }

    async fn pause_snapshot(
        &self,
        request: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(snapshot::pause(&self.node, request.into_inner())))
    }

    async fn recover_snapshot(
        &self,
        request: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(snapshot::recover(&self.node, request.into_inner())))
    }

    async fn send_snapshot(
        &self,
        request: Request<pb::SendSnapshotRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(snapshot::send(&self.node, request.into_inner()).await))
    }

    async fn fill_index(
        &self,
        request: Request<pb::FillIndexRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        let filled = fill::fill(&self.node, request.into_inner()).await;
        Ok(Response::new(replica::reply(filled)))
    }

    async fn traverse(
        &self,
        request: Request<pb::TraverseRequest>,
    ) -> Result<Response<pb::TraverseReply>, Status> {
        self.read(request).await
    }

    async fn table_schema(
        &self,
        request: Request<pb::TableSchemaRequest>,
    ) -> Result<Response<pb::TableSchemaReply>, Status> {
        Ok(Response::new(replica::schema(&self.node, request.into_inner())))
    }

    async fn load_table(
        &self,
        request: Request<pb::LoadTableRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(replica::load(&self.node, &request.into_inner())))
    }

    async fn drop_replica(
        &self,
        request: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(replica::drop(&self.node, request.into_inner())))
    }

    async fn set_expire(
        &self,
        request: Request<pb::SetExpireRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Ok(Response::new(replica::set_expire(&self.node, request.into_inner())))
    }

    async fn identity(
        &self,
        _: Request<pb::IdentityRequest>,
    ) -> Result<Response<pb::IdentityReply>, Status> {
        Ok(Response::new(pb::IdentityReply {
            cluster: self.node.config.cluster.clone(),
            tablet: self.node.look().tablet.0,
            incarnation: self.node.incarnation.0,
            endpoint: self.node.config.endpoint.clone(),
            nameservers: self.node.config.nameservers.clone(),
        }))
    }

    async fn lost_list(
        &self,
        request: Request<pb::LostListRequest>,
    ) -> Result<Response<pb::LostListReply>, Status> {
        let request = request.into_inner();
        self.with_files(move |files| lost::list(files, &request)).await
    }

    async fn lost_read(
        &self,
        request: Request<pb::LostReadRequest>,
    ) -> Result<Response<pb::LostReadReply>, Status> {
        let request = request.into_inner();
        self.with_files(move |files| lost::read(files, &request)).await
    }

    async fn session(
        &self,
        request: Request<Streaming<pb::SessionFrame>>,
    ) -> Result<Response<tonic::codegen::BoxStream<pb::SessionAnswer>>, Status> {
        Ok(Response::new(session::serve(
            self.node.clone(),
            self.inbox.clone(),
            request.into_inner(),
        )))
    }
}

#[tonic::async_trait]
impl Replication for Service {
    async fn stream(
        &self,
        request: Request<Streaming<ToFollower>>,
    ) -> Result<Response<tonic::codegen::BoxStream<ToLeader>>, Status> {
        let answers = replicate::serve(self.node.clone(), request.into_inner()).await?;
        Ok(Response::new(boxed(answers)))
    }

    async fn fetch(
        &self,
        request: Request<FetchRequest>,
    ) -> Result<Response<tonic::codegen::BoxStream<FetchChunk>>, Status> {
        let chunks = transfer::serve(self.node.clone(), request.into_inner()).await?;
        Ok(Response::new(boxed(chunks)))
    }
}

fn boxed<T>(stream: impl Stream<Item = T> + Send + 'static) -> BoxStream<'static, T> {
    Box::pin(stream)
}
