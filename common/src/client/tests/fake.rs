//! A nameserver and tablets that do what a test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::{Nameserver, NameserverServer};
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_server::{Tablet, TabletServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status};

use crate::client::{Client, Options, TableHandle};
use crate::code::Code;
use crate::ids::TableId;
use crate::table::{Index, Table, Ttl};
use crate::wire;

/// What a fake does with a request.
pub enum Act<R> {
    /// Answers.
    Say(R),
    /// Never answers.
    Ignore,
    /// Ends the session, or fails the call.
    HangUp,
}

type Script<Q, R> = Arc<Mutex<Box<dyn FnMut(&Q) -> Act<R> + Send>>>;

/// A running server; it has ended when this is dropped.
pub struct Fake<Q> {
    pub endpoint: String,
    pub seen: Arc<Mutex<Vec<Q>>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl<Q> Drop for Fake<Q> {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Serves on a runtime of its own until `stop`, and then is gone with all of its connections, as a killed process is.
fn serve(router: Router, stop: CancellationToken) -> (SocketAddr, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            tokio::select! {
                _ = router.serve_with_incoming(TcpListenerStream::new(listener)) => {}
                () = stop.cancelled() => {}
            }
        });
    });
    (address, thread)
}

#[derive(Clone)]
struct FakeTablet {
    cluster: String,
    seen: Arc<Mutex<Vec<pb::Call>>>,
    script: Script<pb::Call, pb::answer::Kind>,
    frames: Arc<Mutex<usize>>,
}

/// A tablet of the cluster "test".
pub async fn tablet(
    script: impl FnMut(&pb::Call) -> Act<pb::answer::Kind> + Send + 'static,
) -> Fake<pb::Call> {
    tablet_of("test", Arc::default(), script).await
}

/// A tablet of any cluster, which counts the frames that it gets.
pub async fn tablet_of(
    cluster: &str,
    frames: Arc<Mutex<usize>>,
    script: impl FnMut(&pb::Call) -> Act<pb::answer::Kind> + Send + 'static,
) -> Fake<pb::Call> {
    let (seen, stop) = (Arc::default(), CancellationToken::new());
    let script: Script<_, _> = Arc::new(Mutex::new(Box::new(script)));
    let service = FakeTablet { cluster: cluster.into(), seen: Arc::clone(&seen), script, frames };
    let server = tonic::transport::Server::builder().add_service(TabletServer::new(service));
    let (address, thread) = serve(server, stop.clone());
    Fake { endpoint: address.to_string(), seen, stop, thread: Some(thread) }
}

#[tonic::async_trait]
impl Tablet for FakeTablet {
    async fn identity(
        &self,
        _: Request<pb::IdentityRequest>,
    ) -> Result<Response<pb::IdentityReply>, Status> {
        Ok(Response::new(pb::IdentityReply { cluster: self.cluster.clone(), ..Default::default() }))
    }

    async fn session(
        &self,
        request: Request<tonic::Streaming<pb::SessionFrame>>,
    ) -> Result<Response<tonic::codegen::BoxStream<pb::SessionAnswer>>, Status> {
        let this = self.clone();
        let answers = request.into_inner().flat_map(move |frame| {
            *this.frames.lock() += 1;
            let mut answers = vec![];
            let mut hang_up = false;
            for call in frame.map(|f| f.calls).unwrap_or_default() {
                this.seen.lock().push(call.clone());
                match (this.script.lock())(&call) {
                    Act::Say(kind) => answers.push(pb::Answer { id: call.id, kind: Some(kind) }),
                    Act::Ignore => {}
                    Act::HangUp => hang_up = true,
                }
            }
            let mut out = vec![Ok(pb::SessionAnswer { answers })];
            if hang_up {
                out.push(Err(Status::unavailable("hung up")));
            }
            futures::stream::iter(out)
        });
        // Nothing follows an error: the session ends.
        let answers = answers.scan(false, |ended, item| {
            let next = (!*ended).then_some(item);
            *ended |= next.as_ref().is_none_or(Result::is_err);
            futures::future::ready(next)
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn put(&self, _: Request<pb::PutRequest>) -> Result<Response<pb::PutReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn delete(
        &self,
        _: Request<pb::DeleteRequest>,
    ) -> Result<Response<pb::PutReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get(&self, _: Request<pb::GetRequest>) -> Result<Response<pb::GetReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn scan(&self, _: Request<pb::ScanRequest>) -> Result<Response<pb::ScanReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn count(
        &self,
        _: Request<pb::CountRequest>,
    ) -> Result<Response<pb::CountReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn traverse(
        &self,
        _: Request<pb::TraverseRequest>,
    ) -> Result<Response<pb::TraverseReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn table_schema(
        &self,
        _: Request<pb::TableSchemaRequest>,
    ) -> Result<Response<pb::TableSchemaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn load_table(
        &self,
        _: Request<pb::LoadTableRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn drop_replica(
        &self,
        _: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn pause_snapshot(
        &self,
        _: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn recover_snapshot(
        &self,
        _: Request<pb::ReplicaRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn send_snapshot(
        &self,
        _: Request<pb::SendSnapshotRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn set_expire(
        &self,
        _: Request<pb::SetExpireRequest>,
    ) -> Result<Response<pb::ReplicaReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_table_status(
        &self,
        _: Request<pb::GetTableStatusRequest>,
    ) -> Result<Response<pb::GetTableStatusReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_follower(
        &self,
        _: Request<pb::GetFollowerRequest>,
    ) -> Result<Response<pb::GetFollowerReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn make_snapshot(
        &self,
        _: Request<pb::MakeSnapshotRequest>,
    ) -> Result<Response<pb::MakeSnapshotReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lost_list(
        &self,
        _: Request<pb::LostListRequest>,
    ) -> Result<Response<pb::LostListReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn lost_read(
        &self,
        _: Request<pb::LostReadRequest>,
    ) -> Result<Response<pb::LostReadReply>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// The state of a fake nameserver.
#[derive(Clone, Default)]
pub struct Meta {
    pub cluster: String,
    pub tables: Arc<Mutex<Vec<ns::TableRow>>>,
    pub writes: Arc<Mutex<Vec<ns::RequestId>>>,
    /// How many metadata writes it fails before it takes one.
    pub failures: Arc<Mutex<usize>>,
}

/// A nameserver.
pub async fn nameserver(meta: Meta) -> Fake<()> {
    let stop = CancellationToken::new();
    let server = tonic::transport::Server::builder().add_service(NameserverServer::new(meta));
    let (address, thread) = serve(server, stop.clone());
    Fake { endpoint: address.to_string(), seen: Arc::default(), stop, thread: Some(thread) }
}

macro_rules! not_here {
    ($($name:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Nameserver for Meta {
            async fn cluster(&self, _: Request<ns::ClusterRequest>) -> Result<Response<ns::ClusterReply>, Status> {
                Ok(Response::new(ns::ClusterReply { cluster: self.cluster.clone(), ..Default::default() }))
            }
            async fn show_table(&self, _: Request<ns::ShowTableRequest>) -> Result<Response<ns::ShowTableReply>, Status> {
                let tables = self.tables.lock().clone();
                Ok(Response::new(ns::ShowTableReply { status: wire::ok(), tables, index: 1 }))
            }
            async fn conf_set(&self, request: Request<ns::ConfSetRequest>) -> Result<Response<ns::WriteReply>, Status> {
                self.writes.lock().extend(request.into_inner().request);
                let mut failures = self.failures.lock();
                let failed = *failures > 0;
                *failures = failures.saturating_sub(1);
                let status = if failed { wire::refused(&Code::SetFailed.into()) } else { wire::ok() };
                Ok(Response::new(ns::WriteReply { status, ..Default::default() }))
            }
            $(async fn $name(&self, _: Request<ns::$request>) -> Result<Response<ns::$reply>, Status> {
                Err(Status::unimplemented(""))
            })*
        }
    };
}

not_here! {
    show_tablet(ShowTabletRequest) -> ShowTabletReply;
    show_op_status(ShowOpStatusRequest) -> ShowOpStatusReply;
    conf_get(ConfGetRequest) -> ConfGetReply;
    show_db(ShowDbRequest) -> ShowDbReply;
    create_db(DbRequest) -> WriteReply;
    drop_db(DbRequest) -> WriteReply;
    use_db(DbRequest) -> WriteReply;
    create_table(CreateTableRequest) -> WriteReply;
    drop_table(DropTableRequest) -> WriteReply;
    set_table(SetTableRequest) -> WriteReply;
    change_leader(ChangeLeaderRequest) -> WriteReply;
    candidates(CandidatesRequest) -> CandidatesReply;
    elect(ElectRequest) -> WriteReply;
}

/// Table "t" without a schema, each partition led by the tablet at that place of the list, in epoch 1.
pub fn table_row(leaders: &[&str], replicas: &[&str]) -> ns::TableRow {
    let table = Table {
        tid: TableId(7),
        db: "db".into(),
        name: "t".into(),
        columns: vec![],
        indexes: vec![Index {
            name: "key".into(),
            columns: vec![],
            ts: None,
            ttl: Ttl::default(),
            deleted: false,
            added: Default::default(),
        }],
        partition_num: u32::try_from(leaders.len()).unwrap(),
        replica_num: 1,
        options: crate::table::Options::default(),
        created_index: 3,
        added_columns: 0,
    };
    let partitions = (0u32..).zip(leaders).map(|(pid, leader)| ns::PartitionRow {
        pid,
        epoch: 1,
        replicas: replicas
            .iter()
            .map(|e| ns::ReplicaRow {
                endpoint: (*e).into(),
                leader: e == leader,
                alive: true,
                ..Default::default()
            })
            .collect(),
        serving: true,
        ..Default::default()
    });
    ns::TableRow { table: Some((&table).into()), partitions: partitions.collect() }
}

/// A client of a cluster with table "t" as given, and the nameserver's state.
pub async fn client(
    row: ns::TableRow,
    timeout: Duration,
) -> (Client, Arc<TableHandle>, Fake<()>, Meta) {
    let meta =
        Meta { cluster: "test".into(), tables: Arc::new(Mutex::new(vec![row])), ..Meta::default() };
    let server = nameserver(meta.clone()).await;
    let options = Options { timeout, ..Options::new(vec![server.endpoint.clone()]) };
    let client = Client::connect(options).await.unwrap();
    let table = client.table("db", "t").await.unwrap();
    (client, table, server, meta)
}

/// "stored".
pub fn stored(offset: u64) -> Act<pb::answer::Kind> {
    Act::Say(pb::answer::Kind::Put(pb::PutReply {
        status: wire::ok(),
        offset,
        leader: String::new(),
        epoch: 1,
        ..Default::default()
    }))
}

/// "no".
pub fn no(code: Code, leader: &str, epoch: u64) -> Act<pb::answer::Kind> {
    let status = wire::refused(&code.into());
    Act::Say(pb::answer::Kind::Put(pb::PutReply {
        status,
        offset: 0,
        leader: leader.into(),
        epoch,
        ..Default::default()
    }))
}

/// The request ids of the puts that a tablet has seen.
pub fn ids(fake: &Fake<pb::Call>) -> Vec<(u64, u64)> {
    let id = |c: &pb::Call| match &c.kind {
        Some(pb::call::Kind::Put(p)) => Some((p.session, p.seq)),
        _ => None,
    };
    fake.seen.lock().iter().filter_map(id).collect()
}

/// A key.
pub fn key(n: u32) -> Bytes {
    Bytes::from(format!("key{n}"))
}
