//! Tablets that are started, stopped and killed, and their clients.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use stela_common::fs::Disk;
use stela_common::table::{Index, Table, Ttl};
use stela_proto::tablet as pb;
use stela_proto::tablet::tablet_client::TabletClient;
use stela_tablet::{Config, StartError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::nameserver::{CLUSTER, FakeNameserver};

pub const TID: u32 = 7;

/// Waits for a condition, and says what it waited for when it does not come.
pub async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Table 7 without a schema.
pub fn table(partitions: u32, replicas: u32) -> stela_proto::common::Table {
    (&plain_table(partitions, replicas)).into()
}

pub fn plain_table(partitions: u32, replicas: u32) -> Table {
    let index = Index {
        name: "key".into(),
        columns: vec![],
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        tid: TID.into(),
        db: "db".into(),
        name: "t".into(),
        columns: vec![],
        indexes: vec![index],
        partition_num: partitions,
        replica_num: replicas,
        options: Default::default(),
        created_index: 0,
        added_columns: 0,
    }
}

/// A tablet's place in the world: it stays when the tablet goes.
pub struct Home {
    dir: tempfile::TempDir,
    pub endpoint: String,
    pub nameserver: String,
}

impl Home {
    pub fn new(nameserver: &FakeNameserver) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self { dir, endpoint: port.to_string(), nameserver: nameserver.endpoint.clone() }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().join("tablet")
    }

    pub fn config(&self) -> Config {
        let nameservers = vec![self.nameserver.clone()];
        Config {
            heartbeat: Duration::from_millis(50),
            segment_bytes: 4 << 20,
            ..Config::new(self.endpoint.clone(), nameservers, self.path(), CLUSTER.into())
        }
    }

    /// Starts a tablet here, which is ready when this returns.
    pub async fn start(&self) -> Running {
        self.start_on(Disk::real()).await
    }

    /// The same on another disk.
    pub async fn start_on(&self, disk: Disk) -> Running {
        self.start_as(disk, self.config()).await
    }

    /// The same with another configuration.
    pub async fn start_with(&self, config: Config) -> Running {
        self.start_as(Disk::real(), config).await
    }

    async fn start_as(&self, disk: Disk, config: Config) -> Running {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (running, ready) = self.launch(disk.clone(), config.clone());
            if ready.await.is_ok() {
                return running;
            }
            let ended = running.ended().await;
            // The port of the one before may be free a moment later.
            assert!(
                matches!(ended, Err(StartError::Listen { .. })) && Instant::now() < deadline,
                "{ended:?}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a tablet with that configuration; the receiver hears when it is ready.
    pub fn launch(&self, disk: Disk, config: Config) -> (Running, oneshot::Receiver<()>) {
        let (ready, is_ready) = oneshot::channel();
        let (ended, outcome) = oneshot::channel();
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, killed) = (stop.clone(), kill.clone());
        let (pause, mut paused) = mpsc::unbounded_channel::<std::sync::mpsc::Receiver<()>>();
        // A runtime of its own, as a process has: when it goes, everything in it is gone without a word.
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.spawn(async move {
                while let Some(until) = paused.recv().await {
                    // Nothing else of this runtime goes on meanwhile, and that is what it is for.
                    let _ = until.recv();
                }
            });
            let run = async {
                tokio::select! {
                    outcome = stela_tablet::run_on(disk, config, stopped, move |_| ready.send(()).unwrap_or_default()) => Some(outcome),
                    () = killed.cancelled() => None,
                }
            };
            let outcome = runtime.block_on(run);
            runtime.shutdown_background();
            if let Some(outcome) = outcome {
                let _ = ended.send(outcome);
            }
        });
        let endpoint = self.endpoint.clone();
        (Running { endpoint, stop, kill, pause, thread: Some(thread), outcome }, is_ready)
    }

    pub fn lost_and_found(&self) -> Vec<PathBuf> {
        files(&self.path().join("lost+found"))
    }
}

pub fn files(dir: &Path) -> Vec<PathBuf> {
    stela_common::fs::read_dir(dir).unwrap_or_default()
}

/// A tablet. Dropped, it is killed.
pub struct Running {
    pub endpoint: String,
    stop: CancellationToken,
    kill: CancellationToken,
    pause: mpsc::UnboundedSender<std::sync::mpsc::Receiver<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
    outcome: oneshot::Receiver<Result<(), StartError>>,
}

impl Running {
    /// Ends it cleanly.
    pub async fn stop(self) {
        self.stop.cancel();
        self.ended().await.unwrap();
    }

    /// Waits for its end.
    pub async fn ended(mut self) -> Result<(), StartError> {
        let outcome = tokio::time::timeout(Duration::from_secs(20), &mut self.outcome)
            .await
            .expect("it ends")
            .unwrap();
        self.join().await;
        outcome
    }

    /// It stands still, with its connections, until what is returned is dropped.
    pub fn pause(&self) -> std::sync::mpsc::Sender<()> {
        let (paused, until) = std::sync::mpsc::channel();
        self.pause.send(until).unwrap();
        paused
    }

    /// Ends it as a crash does: nothing is said, nothing is closed.
    pub async fn kill(mut self) {
        self.kill.cancel();
        self.join().await;
    }

    async fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
        }
    }

    pub async fn client(&self) -> Client {
        Client(TabletClient::connect(format!("http://{}", self.endpoint)).await.unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

/// Unary calls to one tablet.
#[derive(Clone)]
pub struct Client(pub TabletClient<Channel>);

pub fn target(pid: u32) -> Option<pb::Target> {
    Some(pb::Target { tid: TID, pid, epoch: 0 })
}

pub fn row(key: &str, time: u64, value: &str) -> pb::Row {
    let dimensions = vec![pb::Dimension { index: 0, key: Bytes::copy_from_slice(key.as_bytes()) }];
    pb::Row { time, dimensions, value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub fn put(rows: Vec<pb::Row>, (session, seq): (u64, u64)) -> pb::PutRequest {
    pb::PutRequest { target: target(0), session, seq, rows, again: false, ..Default::default() }
}

/// Code and text of a refusal; (0, "ok") is none.
pub fn said(status: &Option<stela_proto::common::Status>) -> (i32, &str) {
    status.as_ref().map_or((-1, ""), |s| (s.code, s.msg.as_str()))
}

pub const OK: (i32, &str) = (0, "ok");

impl Client {
    pub async fn put(&mut self, request: pb::PutRequest) -> pb::PutReply {
        self.0.put(request).await.unwrap().into_inner()
    }

    /// Puts a row until it is acknowledged, as a client does that meets a leader which does not serve yet.
    pub async fn store(&mut self, key: &str, time: u64, value: &str) -> pb::PutReply {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let reply = self.put(put(vec![row(key, time, value)], (0, 0))).await;
            if said(&reply.status) == OK {
                return reply;
            }
            assert!(Instant::now() < deadline, "{reply:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub async fn get(&mut self, key: &str, ts: u64) -> pb::GetReply {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request =
            pb::GetRequest { target: target(0), key, index: 0, ts, from: 0, ..Default::default() };
        self.0.get(request).await.unwrap().into_inner()
    }

    pub async fn scan(
        &mut self,
        key: &str,
        st: u64,
        et: u64,
        limit: u32,
        from: pb::ReadFrom,
    ) -> pb::ScanReply {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = pb::ScanRequest {
            target: target(0),
            key,
            index: 0,
            st,
            et,
            limit,
            from: from.into(),
            ..Default::default()
        };
        self.0.scan(request).await.unwrap().into_inner()
    }

    /// All rows of a key.
    pub async fn rows(&mut self, key: &str, from: pb::ReadFrom) -> Vec<(u64, String)> {
        let reply = self.scan(key, 0, 0, 0, from).await;
        assert_eq!(said(&reply.status), OK, "{key}");
        reply.rows.iter().map(|r| (r.ts, String::from_utf8(r.value.to_vec()).unwrap())).collect()
    }

    pub async fn count(&mut self, key: &str) -> u64 {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let request = pb::CountRequest {
            target: target(0),
            key,
            index: 0,
            filter_expired: false,
            from: 0,
            ..Default::default()
        };
        let reply = self.0.count(request).await.unwrap().into_inner();
        assert_eq!(said(&reply.status), OK);
        reply.count
    }

    pub async fn delete(&mut self, key: &str) -> pb::PutReply {
        let dimensions =
            vec![pb::Dimension { index: 0, key: Bytes::copy_from_slice(key.as_bytes()) }];
        let request = pb::DeleteRequest { target: target(0), dimensions, ..Default::default() };
        self.0.delete(request).await.unwrap().into_inner()
    }

    pub async fn status(&mut self) -> pb::TableStatusRow {
        let request = pb::GetTableStatusRequest { tid: Some(TID), pid: Some(0) };
        self.0.get_table_status(request).await.unwrap().into_inner().rows.pop().unwrap_or_default()
    }
}

/// A session stream.
pub struct Session {
    calls: mpsc::Sender<pb::SessionFrame>,
    answers: tonic::Streaming<pb::SessionAnswer>,
}

impl Session {
    pub async fn open(client: &mut Client) -> Self {
        let (calls, frames) = mpsc::channel(8);
        let frames = tokio_stream::wrappers::ReceiverStream::new(frames);
        Self { calls, answers: client.0.session(frames).await.unwrap().into_inner() }
    }

    pub async fn say(&mut self, calls: Vec<pb::Call>) {
        self.calls.send(pb::SessionFrame { calls }).await.unwrap();
    }

    /// Says a frame and hears as many answers, sorted by the call.
    pub async fn ask(&mut self, calls: Vec<pb::call::Kind>) -> Vec<pb::answer::Kind> {
        let count = calls.len();
        let calls =
            (0u64..).zip(calls).map(|(id, kind)| pb::Call { id, kind: Some(kind) }).collect();
        self.say(calls).await;
        let mut answers = self.hear(count).await;
        answers.sort_by_key(|a| a.id);
        answers.into_iter().map(|a| a.kind.unwrap()).collect()
    }

    pub async fn hear(&mut self, count: usize) -> Vec<pb::Answer> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let answer = tokio::time::timeout(Duration::from_secs(20), self.answers.message())
                .await
                .expect("an answer");
            answers.extend(answer.unwrap().unwrap().answers);
        }
        answers
    }
}
