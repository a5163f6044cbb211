//! A cluster of one nameserver and one tablet in memory, for tests of what the commands print.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use parking_lot::Mutex;
use stela_common::code::{Code, Refusal};
use stela_common::wire;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::{Nameserver, NameserverServer};
use stela_proto::tablet as pb;
use stela_proto::tablet::answer::Kind as Said;
use stela_proto::tablet::call::Kind as Asked;
use stela_proto::tablet::tablet_server::{Tablet, TabletServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A row under one key of one index.
#[derive(Clone, Debug)]
struct Stored {
    tid: u32,
    index: u32,
    key: Vec<u8>,
    ts: u64,
    value: bytes::Bytes,
}

/// What the cluster holds.
#[derive(Default)]
pub struct Model {
    /// Databases.
    pub databases: Vec<String>,
    /// Tables with their replicas.
    pub tables: Vec<ns::TableRow>,
    /// Tablets as `showtablet` has them.
    pub tablets: Vec<ns::TabletRow>,
    /// Recorded operations.
    pub ops: Vec<ns::OpRow>,
    /// `auto_failover`.
    pub auto_failover: bool,
    /// What a tablet says of its partitions.
    pub status: Vec<pb::TableStatusRow>,
    /// Followers; none: refused.
    pub followers: Vec<pb::FollowerRow>,
    /// What every request to the nameserver is refused with.
    pub refuse: Option<Refusal>,
    /// What every put is refused with.
    pub refuse_put: Option<Refusal>,
    /// Rows of a scan that one reply takes; 0: all.
    pub page: usize,
    rows: Vec<Stored>,
}

/// The cluster; both servers end with the runtime of the test.
pub struct Fake {
    /// The nameserver's endpoint.
    pub nameserver: String,
    /// The tablet's.
    pub tablet: String,
    /// What it holds.
    pub model: Arc<Mutex<Model>>,
}

#[derive(Clone)]
struct Service {
    model: Arc<Mutex<Model>>,
    endpoint: String,
    tablet: String,
}

/// Starts it.
pub async fn start() -> Fake {
    let (a, b) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    );
    let (endpoint, tablet) =
        (a.local_addr().unwrap().to_string(), b.local_addr().unwrap().to_string());
    let model = Arc::new(Mutex::new(Model { auto_failover: true, ..Model::default() }));
    let service =
        Service { model: model.clone(), endpoint: endpoint.clone(), tablet: tablet.clone() };
    let server =
        tonic::transport::Server::builder().add_service(NameserverServer::new(service.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(a)));
    let server = tonic::transport::Server::builder().add_service(TabletServer::new(service));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(b)));
    Fake { nameserver: endpoint, tablet, model }
}

impl Service {
    /// Ok, or what the test wants.
    fn status(&self, refusal: Option<Code>) -> Option<stela_proto::common::Status> {
        let wanted = self.model.lock().refuse.clone();
        match wanted.or(refusal.map(Into::into)) {
            Some(refusal) => wire::refused(&refusal),
            None => wire::ok(),
        }
    }

    fn wrote(
        &self,
        refusal: Option<Code>,
        change: impl FnOnce(&mut Model),
    ) -> Result<Response<ns::WriteReply>, Status> {
        let status = self.status(refusal);
        if wire::outcome(status.as_ref()).is_ok() {
            change(&mut self.model.lock());
        }
        Ok(Response::new(ns::WriteReply { status, ..Default::default() }))
    }
}

fn unless<T>(good: bool, code: T) -> Option<T> {
    (!good).then_some(code)
}

#[tonic::async_trait]
impl Nameserver for Service {
    async fn cluster(
        &self,
        _: Request<ns::ClusterRequest>,
    ) -> Result<Response<ns::ClusterReply>, Status> {
        let row = |id, endpoint: &str, leader| ns::NameserverRow {
            id,
            endpoint: endpoint.into(),
            leader,
        };
        let nameservers = vec![row(1, "0.0.0.0:1", false), row(2, &self.endpoint, true)];
        let leader = self.endpoint.clone();
        Ok(Response::new(ns::ClusterReply {
            cluster: "test".into(),
            leader,
            nameservers,
            version: String::new(),
        }))
    }

    async fn show_tablet(
        &self,
        _: Request<ns::ShowTabletRequest>,
    ) -> Result<Response<ns::ShowTabletReply>, Status> {
        let (status, tablets) = (self.status(None), self.model.lock().tablets.clone());
        Ok(Response::new(ns::ShowTabletReply { status, tablets }))
    }

    async fn show_table(
        &self,
        r: Request<ns::ShowTableRequest>,
    ) -> Result<Response<ns::ShowTableReply>, Status> {
        let (status, r) = (self.status(None), r.into_inner());
        let mut tables = self.model.lock().tables.clone();
        tables.retain(|row| {
            let table = row.table.as_ref().unwrap();
            table.db == r.db && (r.name.is_empty() || table.name == r.name)
        });
        Ok(Response::new(ns::ShowTableReply { status, tables, index: 1 }))
    }

    async fn show_op_status(
        &self,
        r: Request<ns::ShowOpStatusRequest>,
    ) -> Result<Response<ns::ShowOpStatusReply>, Status> {
        let (status, r) = (self.status(None), r.into_inner());
        let mut ops = self.model.lock().ops.clone();
        ops.retain(|op| {
            (r.name.is_empty() || op.name == r.name) && (r.pid.is_none() || op.pid == r.pid)
        });
        Ok(Response::new(ns::ShowOpStatusReply { status, ops }))
    }

    async fn conf_get(
        &self,
        r: Request<ns::ConfGetRequest>,
    ) -> Result<Response<ns::ConfGetReply>, Status> {
        let known = ["", "auto_failover"].contains(&r.into_inner().key.as_str());
        let status = self.status(unless(known, Code::InvalidParameter));
        let value = self.model.lock().auto_failover.to_string();
        Ok(Response::new(ns::ConfGetReply {
            status,
            rows: vec![ns::ConfRow { key: "auto_failover".into(), value }],
        }))
    }

    async fn conf_set(
        &self,
        r: Request<ns::ConfSetRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let r = r.into_inner();
        let value = r.value.parse::<bool>();
        let good = r.key == "auto_failover" && value.is_ok();
        self.wrote(unless(good, Code::InvalidParameter), |m| m.auto_failover = value.unwrap())
    }

    async fn show_db(
        &self,
        _: Request<ns::ShowDbRequest>,
    ) -> Result<Response<ns::ShowDbReply>, Status> {
        let (status, names) = (self.status(None), self.model.lock().databases.clone());
        Ok(Response::new(ns::ShowDbReply { status, names }))
    }

    async fn create_db(
        &self,
        r: Request<ns::DbRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let name = r.into_inner().name;
        let known = self.model.lock().databases.contains(&name);
        self.wrote(unless(!known, Code::DatabaseExists), |m| m.databases.push(name))
    }

    async fn drop_db(&self, r: Request<ns::DbRequest>) -> Result<Response<ns::WriteReply>, Status> {
        let name = r.into_inner().name;
        let full = self.model.lock().tables.iter().any(|t| t.table.as_ref().unwrap().db == name);
        self.wrote(unless(!full, Code::DatabaseNotEmpty), |m| m.databases.retain(|n| *n != name))
    }

    async fn use_db(&self, r: Request<ns::DbRequest>) -> Result<Response<ns::WriteReply>, Status> {
        let known = self.model.lock().databases.contains(&r.into_inner().name);
        self.wrote(unless(known, Code::DatabaseNotFound), |_| {})
    }

    async fn create_table(
        &self,
        r: Request<ns::CreateTableRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let mut table = r.into_inner().table.unwrap();
        let (known, tid) = {
            let model = self.model.lock();
            let same = |t: &ns::TableRow| {
                t.table.as_ref().is_some_and(|t| t.db == table.db && t.name == table.name)
            };
            (model.tables.iter().any(same), u32::try_from(model.tables.len() + 1).unwrap())
        };
        table.tid = tid;
        let replica = |leader, endpoint: &str| ns::ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive: true,
            known: true,
            offset: 8,
            record_cnt: 4,
            memory: 498,
            disk: 9347,
            ..Default::default()
        };
        let replicas: Vec<_> = (0..table.replica_num)
            .map(|n| {
                if n == 0 {
                    replica(true, &self.tablet)
                } else {
                    replica(false, &format!("0.0.0.{n}:1"))
                }
            })
            .collect();
        let partitions = (0..table.partition_num)
            .map(|pid| ns::PartitionRow {
                pid,
                epoch: 1,
                replicas: replicas.clone(),
                serving: true,
            })
            .collect();
        let row = ns::TableRow { table: Some(table), partitions };
        self.wrote(unless(!known, Code::TableExists), |m| m.tables.push(row))
    }

    async fn drop_table(
        &self,
        r: Request<ns::DropTableRequest>,
    ) -> Result<Response<ns::WriteReply>, Status> {
        let r = r.into_inner();
        let is =
            |t: &ns::TableRow| t.table.as_ref().is_some_and(|t| t.db == r.db && t.name == r.name);
        let known = self.model.lock().tables.iter().any(is);
        self.wrote(unless(known, Code::TableNotFound), |m| m.tables.retain(|t| !is(t)))
    }
}

impl Model {
    fn newest_first(&self, tid: u32, index: u32, key: &[u8]) -> Vec<Stored> {
        let mut found: Vec<_> = self
            .rows
            .iter()
            .rev()
            .filter(|r| r.tid == tid && r.index == index && r.key == key)
            .cloned()
            .collect();
        found.sort_by_key(|r| std::cmp::Reverse(r.ts));
        found
    }

    fn say(&mut self, asked: Asked) -> Said {
        let tid = |target: Option<pb::Target>| target.unwrap().tid;
        match asked {
            Asked::Put(r) => {
                let status = match &self.refuse_put {
                    Some(refusal) => wire::refused(refusal),
                    None => wire::ok(),
                };
                if self.refuse_put.is_none() {
                    for row in r.rows {
                        for d in row.dimensions {
                            let (tid, key) = (tid(r.target), d.key.to_vec());
                            self.rows.push(Stored {
                                tid,
                                index: d.index,
                                key,
                                ts: row.time,
                                value: row.value.clone(),
                            });
                        }
                    }
                }
                Said::Put(pb::PutReply { status, offset: 1, leader: String::new(), epoch: 1 })
            }
            Asked::Delete(r) => {
                let tid = tid(r.target);
                self.rows.retain(|s| {
                    !(s.tid == tid
                        && r.dimensions.iter().any(|d| d.index == s.index && d.key == s.key))
                });
                Said::Put(pb::PutReply {
                    status: wire::ok(),
                    offset: 1,
                    leader: String::new(),
                    epoch: 1,
                })
            }
            Asked::Get(r) => {
                let found = self.newest_first(tid(r.target), r.index, &r.key);
                Said::Get(match found.iter().find(|s| r.ts == 0 || s.ts == r.ts) {
                    Some(s) => pb::GetReply {
                        status: wire::ok(),
                        ts: s.ts,
                        value: s.value.clone(),
                        ..Default::default()
                    },
                    None => pb::GetReply {
                        status: wire::refused(&Code::KeyNotFound.into()),
                        ..Default::default()
                    },
                })
            }
            Asked::Scan(r) => Said::Scan(self.scan(tid(r.target), &r)),
            Asked::Count(r) => {
                let count = self.newest_first(tid(r.target), r.index, &r.key).len() as u64;
                Said::Count(pb::CountReply { status: wire::ok(), count, ..Default::default() })
            }
        }
    }

    fn scan(&self, tid: u32, r: &pb::ScanRequest) -> pb::ScanReply {
        if r.st != 0 && r.st < r.et {
            return pb::ScanReply {
                status: wire::refused(&Code::StartBeforeEnd.into()),
                ..Default::default()
            };
        }
        let mut found = self.newest_first(tid, r.index, &r.key);
        found.retain(|s| (r.st == 0 || s.ts <= r.st) && s.ts > r.et);
        let most = [r.limit as usize, self.page]
            .into_iter()
            .filter(|n| *n > 0)
            .min()
            .unwrap_or(usize::MAX);
        let finished = found.len() <= most;
        let rows = found
            .into_iter()
            .take(most)
            .map(|s| pb::ScanRow { ts: s.ts, value: s.value })
            .collect();
        pb::ScanReply { status: wire::ok(), rows, finished, ..Default::default() }
    }
}

macro_rules! unary {
    ($($name:ident($request:ident) -> $reply:ident;)*) => {
        #[tonic::async_trait]
        impl Tablet for Service {
            type SessionStream = Pin<Box<dyn Stream<Item = Result<pb::SessionAnswer, Status>> + Send>>;

            async fn identity(&self, _: Request<pb::IdentityRequest>) -> Result<Response<pb::IdentityReply>, Status> {
                Ok(Response::new(pb::IdentityReply { cluster: "test".into(), ..Default::default() }))
            }

            async fn session(
                &self,
                request: Request<tonic::Streaming<pb::SessionFrame>>,
            ) -> Result<Response<Self::SessionStream>, Status> {
                let model = self.model.clone();
                let answers = request.into_inner().map(move |frame| {
                    let answer = |call: pb::Call| {
                        pb::Answer { id: call.id, kind: Some(model.lock().say(call.kind.unwrap())) }
                    };
                    Ok(pb::SessionAnswer { answers: frame?.calls.into_iter().map(answer).collect() })
                });
                Ok(Response::new(Box::pin(answers)))
            }

            async fn get_table_status(
                &self,
                r: Request<pb::GetTableStatusRequest>,
            ) -> Result<Response<pb::GetTableStatusReply>, Status> {
                let r = r.into_inner();
                let mut rows = self.model.lock().status.clone();
                rows.retain(|row| r.tid.is_none_or(|t| t == row.tid) && r.pid.is_none_or(|p| p == row.pid));
                Ok(Response::new(pb::GetTableStatusReply { status: wire::ok(), rows }))
            }

            async fn get_follower(
                &self,
                _: Request<pb::GetFollowerRequest>,
            ) -> Result<Response<pb::GetFollowerReply>, Status> {
                let followers = self.model.lock().followers.clone();
                let status = match followers.is_empty() {
                    true => wire::refused(&Code::HasNoFollower.into()),
                    false => wire::ok(),
                };
                Ok(Response::new(pb::GetFollowerReply { status, leader_offset: 5_923_724, followers }))
            }

            $(async fn $name(&self, _: Request<pb::$request>) -> Result<Response<pb::$reply>, Status> {
                Err(Status::unimplemented("the clients use the session"))
            })*
        }
    };
}

unary! {
    put(PutRequest) -> PutReply;
    delete(DeleteRequest) -> PutReply;
    get(GetRequest) -> GetReply;
    scan(ScanRequest) -> ScanReply;
    count(CountRequest) -> CountReply;
}

/// Endpoints by what they are, so that texts can be compared.
impl Fake {
    /// The text with the tablet's endpoint as `TABLET` and the nameserver's as `NS`.
    pub fn mask(&self, text: &str) -> String {
        text.replace(&self.tablet, "TABLET").replace(&self.nameserver, "NS")
    }

    /// Everything that the cluster holds, with names.
    pub fn names(&self) -> BTreeMap<String, String> {
        let model = self.model.lock();
        model
            .tables
            .iter()
            .filter_map(|t| t.table.as_ref())
            .map(|t| (t.name.clone(), t.db.clone()))
            .collect()
    }
}
