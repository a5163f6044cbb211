//! A cluster of one nameserver and one tablet in memory, for tests of what the commands print.

mod nameserver;
mod tablet;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stela_common::code::Refusal;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::NameserverServer;
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_server::TabletServer;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;

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
    /// What a tablet refuses everything with that is about one replica by hand.
    pub refuse_manual: Option<Refusal>,
    /// What tablets were asked by hand, in words.
    pub asked: Vec<String>,
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
