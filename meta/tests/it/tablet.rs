//! A tablet as the nameservers see one: it registers, keeps the heartbeat, takes what it is told, and holds no data.
//!
//! It leads as soon as it is told to, and reports so. A kill drops its runtime: its sockets close as those of a process
//! that was killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stela_proto::common;
use stela_proto::heartbeat as pb;
use stela_proto::heartbeat::registry_client::RegistryClient;
use stela_proto::tablet as tp;
use stela_proto::tablet::tablet_server::{Tablet, TabletServer};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::nodes::until;

/// Between heartbeats.
const BEAT: Duration = Duration::from_millis(50);

/// What a tablet was told, and what it says.
#[derive(Default)]
pub struct Known {
    pub id: u32,
    pub index: u64,
    pub controller: u64,
    pub views: BTreeMap<(u32, u32), common::Partition>,
    pub addresses: BTreeMap<u32, common::TabletAddress>,
    pub dropped: BTreeSet<u32>,
    /// Leases, by the heartbeat that they answer.
    pub leases: Vec<u64>,
    pub sent: u64,
    /// The nameserver that gave the last lease.
    pub leader: String,
    /// Holds its tongue, with an open stream.
    pub mute: bool,
    /// Leads, and never comes to serve.
    pub stuck: bool,
    /// Figures to report, by partition: offset and the epoch of the last entry.
    pub offsets: BTreeMap<(u32, u32), (u64, u64)>,
    /// The partitions that it was told on this stream.
    told: BTreeSet<(u32, u32)>,
    reported: BTreeMap<(u32, u32), pb::ReplicaReport>,
}

/// A running tablet.
pub struct FakeTablet {
    pub endpoint: String,
    pub run: u64,
    pub known: Arc<Mutex<Known>>,
    nameservers: Vec<String>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// What a tablet keeps on its disk.
pub struct Disk {
    pub endpoint: String,
    pub starts: Vec<u64>,
    pub dir_uuid: String,
    pub boot_id: String,
}

impl FakeTablet {
    /// The first run on an empty disk.
    pub fn start(nameservers: &[String]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        Self::on(
            nameservers,
            listener,
            Disk {
                dir_uuid: format!("dir of {endpoint}"),
                endpoint,
                starts: Vec::new(),
                boot_id: "boot".into(),
            },
        )
    }

    fn on(nameservers: &[String], listener: std::net::TcpListener, disk: Disk) -> Self {
        let run = rand::random_range(1..=u64::MAX);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let known: Arc<Mutex<Known>> = Arc::default();
        listener.set_nonblocking(true).unwrap();
        let identity = tp::IdentityReply {
            cluster: "test".into(),
            tablet: 0,
            incarnation: run,
            endpoint: disk.endpoint.clone(),
            ..Default::default()
        };
        runtime.spawn(async move {
            let incoming =
                TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let service = TabletServer::new(Port(identity));
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        let endpoint = disk.endpoint.clone();
        runtime.spawn(live(nameservers.to_vec(), disk, run, known.clone()));
        Self { endpoint, run, known, nameservers: nameservers.to_vec(), runtime: Some(runtime) }
    }

    /// kill -9: when it returns, its port refuses, as that of a process does which has ended.
    pub fn kill(&mut self) {
        self.runtime.take().expect("it does not run").shutdown_background();
        until("its port is closed", || std::net::TcpStream::connect(&self.endpoint).is_err());
    }

    /// The next run, on the same disk, which knows the last one.
    pub fn restart(&mut self) {
        self.restart_in("boot");
    }

    /// The same, after its machine lost power.
    pub fn restart_after_power_cut(&mut self) {
        self.restart_in("next boot");
    }

    fn restart_in(&mut self, boot_id: &str) {
        let listener = loop {
            match std::net::TcpListener::bind(&self.endpoint) {
                Ok(listener) => break listener,
                Err(_) => std::thread::sleep(Duration::from_millis(5)), // the killed one still holds the port
            }
        };
        let disk = Disk {
            endpoint: self.endpoint.clone(),
            starts: vec![self.run],
            dir_uuid: format!("dir of {}", self.endpoint),
            boot_id: boot_id.into(),
        };
        *self = Self::on(&self.nameservers.clone(), listener, disk);
    }

    pub fn id(&self) -> u32 {
        self.known.lock().id
    }

    pub fn leads(&self) -> usize {
        let known = self.known.lock();
        known
            .views
            .values()
            .filter(|v| v.leader == known.id && v.leader_incarnation == self.run)
            .count()
    }
}

impl Drop for FakeTablet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub async fn connect(endpoint: &str) -> Option<RegistryClient<Channel>> {
    let address = tonic::transport::Endpoint::from_shared(format!("http://{endpoint}")).ok()?;
    Some(RegistryClient::new(
        address.connect_timeout(Duration::from_millis(500)).connect().await.ok()?,
    ))
}

/// Goes from nameserver to nameserver, as it is told.
async fn live(nameservers: Vec<String>, disk: Disk, run: u64, known: Arc<Mutex<Known>>) {
    let mut hint = String::new();
    for turn in 0.. {
        let endpoint = if hint.is_empty() {
            nameservers[turn % nameservers.len()].clone()
        } else {
            std::mem::take(&mut hint)
        };
        if let Some(mut client) = connect(&endpoint).await {
            hint = attend(&endpoint, &mut client, &disk, run, &known).await.unwrap_or_default();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn attend(
    endpoint: &str,
    client: &mut RegistryClient<Channel>,
    disk: &Disk,
    run: u64,
    known: &Mutex<Known>,
) -> Result<String, Status> {
    if known.lock().id == 0 {
        let reply = client.register(registration(disk, run)).await?.into_inner();
        if reply.status.as_ref().is_some_and(|s| s.code != 0) {
            return Ok(reply.leader);
        }
        known.lock().id = reply.tablet;
    }
    let (up, requests) = mpsc::channel(4);
    {
        let mut known = known.lock();
        known.reported.clear();
        known.told.clear();
    }
    let _ = up.send(heartbeat(run, known)).await;
    let mut answers = client.heartbeat(ReceiverStream::new(requests)).await?.into_inner();
    let mut timer = tokio::time::interval(BEAT);
    let mut heard = tokio::time::Instant::now();
    loop {
        tokio::select! {
            _ = timer.tick() => {
                if known.lock().mute {
                    heard = tokio::time::Instant::now();
                } else if heard.elapsed() > Duration::from_secs(1) {
                    return Ok(String::new());
                } else {
                    let _ = up.try_send(heartbeat(run, known));
                }
            }
            answer = answers.next() => {
                let Some(down) = answer else { return Ok(String::new()) };
                let down = down?;
                if down.status.as_ref().is_some_and(|s| s.code != 0) {
                    return Ok(down.hint);
                }
                heard = tokio::time::Instant::now();
                known.lock().take(endpoint, down);
            }
        }
    }
}

pub fn registration(disk: &Disk, run: u64) -> pb::RegisterRequest {
    pb::RegisterRequest {
        cluster: "test".into(),
        endpoint: disk.endpoint.clone(),
        starts: disk.starts.iter().copied().chain([run]).collect(),
        dir_uuid: disk.dir_uuid.clone(),
        boot_id: disk.boot_id.clone(),
        clean: false,
        inventory: Vec::new(),
    }
}

fn heartbeat(run: u64, known: &Mutex<Known>) -> pb::HeartbeatUp {
    let mut known = known.lock();
    known.sent += 1;
    pb::HeartbeatUp {
        cluster: "test".into(),
        tablet: known.id,
        incarnation: run,
        sent: known.sent,
        known_index: known.index,
        reports: known.reports(run),
        removed: Vec::new(),
        dropped: known.dropped.iter().copied().collect(),
        ask_lease: true,
    }
}

impl Known {
    fn take(&mut self, from: &str, down: pb::HeartbeatDown) {
        assert!(down.controller_epoch >= self.controller, "a deposed nameserver is heard");
        self.controller = down.controller_epoch;
        self.addresses.extend(down.tablets.into_iter().map(|t| (t.id, t)));
        for view in down.views.into_iter().filter_map(|v| v.partition) {
            let key = (view.tid, view.pid);
            let before = self.views.insert(key, view.clone()).map(|b| b.version);
            assert!(before.is_none_or(|b| b <= view.version), "told of an earlier time: {view:?}");
            assert!(
                self.told.insert(key) || before < Some(view.version),
                "told twice on one stream: {view:?}"
            );
        }
        for drop in down.drops {
            self.views.retain(|(tid, _), _| *tid != drop.tid);
            self.dropped.insert(drop.tid);
        }
        assert!(down.index >= self.index);
        self.index = down.index;
        if down.lease_sent != 0 {
            assert!(down.lease_sent <= self.sent && down.lease_ms > 0);
            self.leases.push(down.lease_sent);
            self.leader = from.to_owned();
        }
    }

    /// Those that differ from the last ones.
    fn reports(&mut self, run: u64) -> Vec<pb::ReplicaReport> {
        let mut reports = Vec::new();
        for (key, view) in &self.views {
            let leads = view.leader == self.id && view.leader_incarnation == run;
            let (offset, last_epoch) = self.offsets.get(key).copied().unwrap_or_default();
            let report = pb::ReplicaReport {
                tid: key.0,
                pid: key.1,
                epoch: view.epoch,
                serving: leads && !self.stuck,
                leading: leads,
                offset,
                commit: offset,
                record_cnt: offset,
                last_epoch,
                epoch_start: (leads && !self.stuck).then_some(offset),
                ..Default::default()
            };
            if self.reported.insert(*key, report) != Some(report) {
                reports.push(report);
            }
        }
        reports
    }
}

/// Its port: it says who it is, and nothing else.
struct Port(tp::IdentityReply);

type Answer<T> = Result<Response<T>, Status>;

fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("it holds no data"))
}

#[tonic::async_trait]
impl Tablet for Port {
    async fn identity(&self, _: Request<tp::IdentityRequest>) -> Answer<tp::IdentityReply> {
        Ok(Response::new(self.0.clone()))
    }

    async fn put(&self, _: Request<tp::PutRequest>) -> Answer<tp::PutReply> {
        nothing()
    }

    async fn delete(&self, _: Request<tp::DeleteRequest>) -> Answer<tp::PutReply> {
        nothing()
    }

    async fn get(&self, _: Request<tp::GetRequest>) -> Answer<tp::GetReply> {
        nothing()
    }

    async fn scan(&self, _: Request<tp::ScanRequest>) -> Answer<tp::ScanReply> {
        nothing()
    }

    async fn count(&self, _: Request<tp::CountRequest>) -> Answer<tp::CountReply> {
        nothing()
    }

    async fn get_table_status(
        &self,
        _: Request<tp::GetTableStatusRequest>,
    ) -> Answer<tp::GetTableStatusReply> {
        nothing()
    }

    async fn get_follower(
        &self,
        _: Request<tp::GetFollowerRequest>,
    ) -> Answer<tp::GetFollowerReply> {
        nothing()
    }

    async fn make_snapshot(
        &self,
        _: Request<tp::MakeSnapshotRequest>,
    ) -> Answer<tp::MakeSnapshotReply> {
        nothing()
    }

    async fn fill_index(&self, _: Request<tp::FillIndexRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn traverse(&self, _: Request<tp::TraverseRequest>) -> Answer<tp::TraverseReply> {
        nothing()
    }

    async fn table_schema(
        &self,
        _: Request<tp::TableSchemaRequest>,
    ) -> Answer<tp::TableSchemaReply> {
        nothing()
    }

    async fn load_table(&self, _: Request<tp::LoadTableRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn drop_replica(&self, _: Request<tp::ReplicaRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn pause_snapshot(&self, _: Request<tp::ReplicaRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn recover_snapshot(&self, _: Request<tp::ReplicaRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn send_snapshot(&self, _: Request<tp::SendSnapshotRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn set_expire(&self, _: Request<tp::SetExpireRequest>) -> Answer<tp::ReplicaReply> {
        nothing()
    }

    async fn lost_list(&self, _: Request<tp::LostListRequest>) -> Answer<tp::LostListReply> {
        nothing()
    }

    async fn lost_read(&self, _: Request<tp::LostReadRequest>) -> Answer<tp::LostReadReply> {
        nothing()
    }

    async fn session(
        &self,
        _: Request<Streaming<tp::SessionFrame>>,
    ) -> Answer<tonic::codegen::BoxStream<tp::SessionAnswer>> {
        nothing()
    }
}
