//! Many tablets as the nameservers see them: each registers, keeps the heartbeat, says that it serves what it is told to
//! lead and brings its followers back into the in-sync set, and holds no data. All are tasks of this process, each with a
//! port of its own.
//!
//! A tablet that is *away* says nothing and takes nothing in, while its connections stay: so looks a network that swallows
//! what they send. Its port answers all the same: it is the nameserver that hears nobody.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Result;
use stela_proto::heartbeat as pb;
use stela_proto::heartbeat::registry_client::RegistryClient;
use stela_proto::{common, tablet as tp};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::transport::Endpoint;
use tonic::{Request, Response, Status};

const BEAT: Duration = Duration::from_millis(200);
/// A nameserver that is silent for so long is left for the next.
const SILENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(100);
const CLUSTER: &str = "openmldb";

/// The tablets.
pub struct Fleet {
    away: Vec<watch::Sender<bool>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fleet {
    /// Starts so many on that address.
    ///
    /// # Errors
    /// There is no port left.
    pub fn start(tablets: usize, address: Ipv4Addr, nameservers: &str) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let nameservers: Arc<[String]> = nameservers.split(',').map(Into::into).collect();
        let mut away = Vec::new();
        for _ in 0..tablets {
            let listener = std::net::TcpListener::bind((address, 0))?;
            listener.set_nonblocking(true)?;
            let (sender, receiver) = watch::channel(false);
            away.push(sender);
            let port = Port(tp::IdentityReply {
                cluster: CLUSTER.into(),
                tablet: 0,
                incarnation: rand::random_range(1..=u64::MAX),
                endpoint: listener.local_addr()?.to_string(),
                ..Default::default()
            });
            runtime.spawn(live(nameservers.clone(), port.0.clone(), receiver));
            runtime.spawn(async move {
                let incoming = TcpListenerStream::new(TcpListener::from_std(listener)?);
                let served = tonic::transport::Server::builder().add_service(port);
                served.serve_with_incoming(incoming).await.map_err(std::io::Error::other)
            });
        }
        Ok(Self { away, runtime: Some(runtime) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.away.len()
    }

    /// One of them goes away, or is back.
    pub fn away(&self, tablet: usize, away: bool) {
        self.away[tablet].send_replace(away);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What one was told, and what it has said since its stream began.
#[derive(Default)]
struct Known {
    id: u32,
    index: u64,
    sent: u64,
    views: BTreeMap<(u32, u32), common::Partition>,
    tablets: BTreeMap<u32, common::TabletAddress>,
    said: BTreeMap<(u32, u32), pb::ReplicaReport>,
}

type Me = tp::IdentityReply;

/// Goes from nameserver to nameserver, as it is told.
async fn live(nameservers: Arc<[String]>, me: Me, mut away: watch::Receiver<bool>) {
    let (mut hint, mut known) = (String::new(), Known::default());
    for turn in 0.. {
        let endpoint = match std::mem::take(&mut hint) {
            none if none.is_empty() => nameservers[turn % nameservers.len()].clone(),
            hint => hint,
        };
        hint = attend(&endpoint, &me, &mut away, &mut known).await.unwrap_or_default();
        tokio::time::sleep(AGAIN).await;
        if away.wait_for(|away| !away).await.is_err() {
            return;
        }
    }
}

async fn attend(
    endpoint: &str,
    me: &Me,
    away: &mut watch::Receiver<bool>,
    known: &mut Known,
) -> Result<String> {
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))?.connect_timeout(SILENCE);
    let mut client = RegistryClient::new(channel.connect().await?);
    if known.id == 0 {
        let mut request = Request::new(registration(me));
        request.set_timeout(SILENCE * 5);
        let reply = client.register(request).await?.into_inner();
        if reply.status.is_some_and(|s| s.code != 0) {
            return Ok(reply.leader);
        }
        known.id = reply.tablet;
    }
    known.said.clear();
    let (up, requests) = mpsc::channel(4);
    up.send(heartbeat(me, known)).await?;
    let opened = tokio::time::timeout(SILENCE, client.heartbeat(ReceiverStream::new(requests)));
    let mut answers = opened.await??.into_inner();
    let (mut timer, mut heard) = (tokio::time::interval(BEAT), Instant::now());
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut proposals = tokio::task::JoinSet::new();
    loop {
        if *away.borrow() {
            away.wait_for(|away| !away).await?;
            heard = Instant::now();
        }
        tokio::select! {
            _ = timer.tick() => {
                if heard.elapsed() > SILENCE {
                    return Ok(String::new());
                }
                // What finds no room is said the next time.
                if let Ok(room) = up.try_reserve() {
                    room.send(heartbeat(me, known));
                }
                while proposals.try_join_next().is_some() {}
                if proposals.is_empty() {
                    for change in known.changes(me) {
                        proposals.spawn(propose(client.clone(), change));
                    }
                }
            }
            answer = answers.next() => {
                let Some(down) = answer.transpose()? else { return Ok(String::new()) };
                if down.status.as_ref().is_some_and(|s| s.code != 0) {
                    return Ok(down.hint);
                }
                heard = Instant::now();
                known.take(down);
            }
            _ = away.changed() => {}
        }
    }
}

fn registration(me: &Me) -> pb::RegisterRequest {
    pb::RegisterRequest {
        cluster: CLUSTER.into(),
        endpoint: me.endpoint.clone(),
        starts: vec![me.incarnation],
        dir_uuid: format!("of {}", me.endpoint),
        boot_id: "one".into(),
        clean: true,
        inventory: Vec::new(),
    }
}

fn heartbeat(me: &Me, known: &mut Known) -> pb::HeartbeatUp {
    known.sent += 1;
    pb::HeartbeatUp {
        cluster: CLUSTER.into(),
        tablet: known.id,
        incarnation: me.incarnation,
        sent: known.sent,
        known_index: known.index,
        reports: known.reports(me.incarnation),
        removed: Vec::new(),
        dropped: Vec::new(),
        ask_lease: true,
    }
}

/// A nameserver decides, or does not; then it is asked again.
async fn propose(
    mut client: RegistryClient<tonic::transport::Channel>,
    change: pb::ChangeInSyncRequest,
) {
    let mut request = Request::new(change);
    request.set_timeout(SILENCE);
    let _ = client.change_in_sync(request).await;
}

impl Known {
    fn take(&mut self, down: pb::HeartbeatDown) {
        self.index = self.index.max(down.index);
        self.tablets.extend(down.tablets.into_iter().map(|t| (t.id, t)));
        for view in down.views.into_iter().filter_map(|v| v.partition) {
            self.views.insert((view.tid, view.pid), view);
        }
    }

    fn leads(&self, view: &common::Partition, run: u64) -> bool {
        view.leader == self.id && view.leader_incarnation == run
    }

    /// Followers that are healthy have all there is.
    fn changes(&self, me: &Me) -> Vec<pb::ChangeInSyncRequest> {
        let led = self.views.values().filter(|view| self.leads(view, me.incarnation));
        let change = |view: &common::Partition| {
            let healthy = |id: &u32| self.tablets.get(id).filter(|t| t.healthy);
            let member = |t: &common::TabletAddress| common::Member {
                tablet: t.id,
                incarnation: t.incarnation,
                untrusted: false,
            };
            let mut in_sync = view.in_sync.clone();
            let is_in = |id: &u32| view.in_sync.iter().any(|m| m.tablet == *id);
            let others = view.replicas.iter().filter(|id| !is_in(id)).filter_map(healthy);
            in_sync.extend(others.map(member));
            (in_sync.len() > view.in_sync.len()).then(|| pb::ChangeInSyncRequest {
                cluster: CLUSTER.into(),
                tid: view.tid,
                pid: view.pid,
                epoch: view.epoch,
                expected_version: view.version,
                in_sync,
                tablet: self.id,
                incarnation: me.incarnation,
            })
        };
        led.filter_map(change).collect()
    }

    /// Those that differ from the last ones.
    fn reports(&mut self, run: u64) -> Vec<pb::ReplicaReport> {
        let mut changed = Vec::new();
        for (&(tid, pid), view) in &self.views {
            let leads = self.leads(view, run);
            let report = pb::ReplicaReport {
                tid,
                pid,
                epoch: view.epoch,
                leading: leads,
                serving: leads,
                epoch_start: leads.then_some(0),
                ..Default::default()
            };
            if self.said.insert((tid, pid), report) != Some(report) {
                changed.push(report);
            }
        }
        changed
    }
}

/// What a nameserver finds that looks for the tablet (R18, R19): who it is, and nothing else.
#[derive(Clone)]
struct Port(Me);

impl tonic::server::NamedService for Port {
    const NAME: &'static str = "stela.tablet.Tablet";
}

impl tonic::server::UnaryService<tp::IdentityRequest> for Port {
    type Response = Me;
    type Future = BoxFuture<Response<Me>, Status>;

    fn call(&mut self, _: Request<tp::IdentityRequest>) -> Self::Future {
        let me = self.0.clone();
        Box::pin(async move { Ok(Response::new(me)) })
    }
}

impl Service<http::Request<Body>> for Port {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let port = self.clone();
        Box::pin(async move {
            if !request.uri().path().ends_with("/Identity") {
                return Ok(Status::unimplemented("it holds no data").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(port, request).await)
        })
    }
}
