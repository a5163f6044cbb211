//! A cluster of one nameserver and one tablet in memory, which says to each row what its value asks for; and imports into it.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use stela_common::client::{Client, Options};
use stela_common::code::Code;
use stela_common::ids::TableId;
use stela_common::table::{Index, Table, Ttl};
use stela_common::wire;
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::{Nameserver, NameserverServer};
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_server::{Tablet, TabletServer};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::columns::Columns;
use super::mapping::{Mapping, Wanted};
use super::report::{Progress, Report};
use super::source::tests::text;
use super::{batch, send};

/// The rows that were stored: key, time, value.
type Stored = Arc<Mutex<Vec<(String, u64, String)>>>;

#[derive(Clone, Default)]
struct Fake {
    endpoint: String,
    stored: Stored,
}

impl Fake {
    /// Stores a request whole or not at all. A row says by its value what is wrong with it.
    fn put(&self, request: pb::PutRequest) -> pb::PutReply {
        let refused = |row: &pb::Row| match &row.value[..] {
            b"bad" => Some(Code::PutFailed),
            b"full" => Some(Code::DiskFull),
            b"maybe" => Some(Code::WriteDataFailed),
            _ => None,
        };
        let status = match request.rows.iter().find_map(refused) {
            Some(code) => wire::refused(&code.into()),
            None => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let rows = request
                    .rows
                    .iter()
                    .map(|r| (text(&r.dimensions[0].key), r.time, text(&r.value)));
                self.stored.lock().extend(rows);
                wire::ok()
            }
        };
        pb::PutReply { status, offset: 1, leader: String::new(), epoch: 1, ..Default::default() }
    }

    fn table(&self) -> ns::TableRow {
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
            partition_num: 1,
            replica_num: 1,
            options: stela_common::table::Options::default(),
            created_index: 3,
            added_columns: 0,
        };
        let endpoint = self.endpoint.clone();
        let replica = ns::ReplicaRow { endpoint, leader: true, alive: true, ..Default::default() };
        let partition = ns::PartitionRow {
            replicas: vec![replica],
            epoch: 1,
            serving: true,
            ..Default::default()
        };
        ns::TableRow { table: Some((&table).into()), partitions: vec![partition] }
    }
}

#[tonic::async_trait]
impl Tablet for Fake {
    async fn identity(
        &self,
        _: Request<pb::IdentityRequest>,
    ) -> Result<Response<pb::IdentityReply>, Status> {
        Ok(Response::new(pb::IdentityReply { cluster: "test".into(), ..Default::default() }))
    }

    async fn session(
        &self,
        request: Request<tonic::Streaming<pb::SessionFrame>>,
    ) -> Result<Response<tonic::codegen::BoxStream<pb::SessionAnswer>>, Status> {
        let this = self.clone();
        let answers = request.into_inner().map(move |frame| {
            let answer = |call: pb::Call| {
                let Some(pb::call::Kind::Put(request)) = call.kind else { return None };
                Some(pb::Answer {
                    id: call.id,
                    kind: Some(pb::answer::Kind::Put(this.put(request))),
                })
            };
            Ok(pb::SessionAnswer { answers: frame?.calls.into_iter().filter_map(answer).collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}

#[tonic::async_trait]
impl Nameserver for Fake {
    async fn cluster(
        &self,
        _: Request<ns::ClusterRequest>,
    ) -> Result<Response<ns::ClusterReply>, Status> {
        Ok(Response::new(ns::ClusterReply { cluster: "test".into(), ..Default::default() }))
    }

    async fn show_table(
        &self,
        _: Request<ns::ShowTableRequest>,
    ) -> Result<Response<ns::ShowTableReply>, Status> {
        Ok(Response::new(ns::ShowTableReply {
            status: wire::ok(),
            tables: vec![self.table()],
            index: 1,
        }))
    }
}

/// How an import went.
struct Import {
    stored: Vec<(String, u64, String)>,
    said: Vec<String>,
    summary: String,
    good: bool,
}

/// Imports the text into a table without a schema, so many rows at a time.
fn import(csv: &str, most: usize, strict: bool) -> Import {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake { endpoint: listener.local_addr().unwrap().to_string(), ..Fake::default() };
        let server = tonic::transport::Server::builder()
            .add_service(TabletServer::new(fake.clone()))
            .add_service(NameserverServer::new(fake.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(server);
        let options = Options {
            timeout: Duration::from_secs(10),
            ..Options::new(vec![fake.endpoint.clone()])
        };
        let client = Client::connect(options).await.unwrap();
        let table = client.table("db", "t").await.unwrap();
        let mut source = text(csv);
        let columns = Columns::of(&mut source, false, &[]).unwrap();
        let mapping = Mapping::new(table.table(), &columns, &Wanted::default()).unwrap();
        let mut report = Report::on(Vec::new(), "db.t".into(), Progress::None, false);
        let batches = batch::read(source, mapping, table.clone(), most, strict).unwrap();
        send::all(&client, &table, batches, &mut report).await.unwrap();
        serving.abort();
        let said = String::from_utf8_lossy(report.said()).lines().map(Into::into).collect();
        let mut stored = fake.stored.lock().clone();
        stored.sort();
        Import { stored, said, summary: report.summary(), good: report.good() }
    })
}

fn stored(rows: &[(&str, u64, &str)]) -> Vec<(String, u64, String)> {
    rows.iter().map(|(key, time, value)| ((*key).into(), *time, (*value).into())).collect()
}

#[test]
fn every_row_arrives_once() {
    let rows: String = (0..5000).map(|n| format!("k{n:04},{n},v{n}\n")).collect();
    let import = import(&format!("key,time,value\n{rows}"), 100, false);
    let want: Vec<_> = (0..5000).map(|n| (format!("k{n:04}"), n, format!("v{n}"))).collect();
    assert!(import.stored == want, "{} rows", import.stored.len());
    assert!(import.good && import.said.is_empty(), "{:?}", import.said);
    assert!(
        import.summary.starts_with("5000 rows stored in db.t, 0 bad rows, "),
        "{}",
        import.summary
    );
}

#[test]
fn the_row_that_a_tablet_refuses_is_told_and_those_beside_it_are_stored() {
    let import = import("key,time,value\na,1,x\nb,soon,x\nc,3,bad\nd,4,x\n", 100, false);
    assert_eq!(import.stored, stored(&[("a", 1, "x"), ("d", 4, "x")]));
    assert_eq!(import.said.len(), 2, "{:?}", import.said);
    assert!(import.said[0].starts_with("line 3: 'soon' is no time"), "{:?}", import.said);
    assert_eq!(import.said[1], "line 4: put failed");
    assert!(
        import.good && import.summary.contains("2 rows stored in db.t, 2 bad rows"),
        "{}",
        import.summary
    );
}

#[test]
fn strict_stops_at_the_first_bad_row() {
    let import = import("key,time,value\na,1,x\nb,soon,x\nc,3,x\n", 1, true);
    assert_eq!(import.stored, stored(&[("a", 1, "x")]));
    assert!(!import.good);
    assert_eq!(import.said[1..], ["nothing after line 2 is stored"], "{:?}", import.said);
}

#[test]
fn a_batch_that_fails_is_told_by_its_lines_and_nothing_more_is_read() {
    let more: String = (0..100_000).map(|n| format!("z,{n},x\n")).collect();
    let import =
        import(&format!("key,time,value\na,1,x\nb,2,x\nc,3,full\nd,4,x\n{more}"), 2, false);
    assert!(!import.good && import.said.contains(&"lines 4-5: not stored: disk is full: the partition is read-only until space is back".into()), "{:?}", import.said);
    assert!(import.stored.len() < 50_000, "{}", import.stored.len());
}

#[test]
fn what_is_not_known_is_not_called_stored() {
    let import = import("key,time,value\na,1,x\nb,2,maybe\n", 1, false);
    assert!(
        !import.good && import.said[0].starts_with("line 3: it is not known"),
        "{:?}",
        import.said
    );
    assert!(import.summary.starts_with("1 row stored"), "{}", import.summary);
}
