//! A nameserver that registers, grants leases, takes every proposal that fits, and decides what the test decides.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use stela_common::code::{Code, Refusal};
use stela_common::wire;
use stela_proto::common;
use stela_proto::heartbeat as pb;
use stela_proto::heartbeat::registry_server::{Registry, RegistryServer};
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_server::{Nameserver, NameserverServer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub const CLUSTER: &str = "test";

/// A registered tablet.
#[derive(Clone, Debug, Default)]
pub struct Tablet {
    pub endpoint: String,
    pub incarnation: u64,
    pub registrations: Vec<pb::RegisterRequest>,
}

#[derive(Debug, Default)]
pub struct State {
    pub index: u64,
    pub tablets: BTreeMap<u32, Tablet>,
    pub tables: BTreeMap<u32, common::Table>,
    /// With the index that changed it last.
    pub partitions: BTreeMap<(u32, u32), (u64, common::Partition)>,
    pub drops: BTreeMap<u32, (u64, u64)>,
    pub reports: BTreeMap<(u32, u32, u32), pb::ReplicaReport>,
    pub confirmed: Vec<u32>,
    /// How long the leases are that are granted; 0: none is.
    pub lease_ms: u32,
    /// Proposals are answered with "unknown", and nothing happens.
    pub deaf: bool,
    /// Tablets that get leases and no news.
    pub unheard: BTreeSet<u32>,
    /// Runs that are to be told that they are not known, once.
    pub forgotten: Vec<u64>,
}

#[derive(Clone)]
pub struct FakeNameserver {
    pub state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
    pub endpoint: String,
}

impl FakeNameserver {
    /// Serves on the current runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let state = State { lease_ms: 2000, ..State::default() };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
            endpoint,
        };
        let server = tonic::transport::Server::builder()
            .add_service(NameserverServer::new(fake.clone()))
            .add_service(RegistryServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        fake
    }

    /// Changes something, and pushes it.
    pub fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock();
        state.index += 1;
        let result = change(&mut state);
        self.changed.send_replace(state.index);
        result
    }

    /// A table whose partitions are all replicated to these tablets; nobody leads yet in epoch 0.
    pub fn create(&self, table: common::Table, replicas: &[u32]) {
        self.change(|s| {
            let (tid, index) = (table.tid, s.index);
            for pid in 0..table.partition_num {
                let partition = common::Partition {
                    tid,
                    pid,
                    replicas: replicas.to_vec(),
                    ..Default::default()
                };
                s.partitions.insert((tid, pid), (index, partition));
            }
            s.tables.insert(tid, common::Table { created_index: index, ..table });
        });
    }

    /// A new epoch: that tablet leads each partition of the table, and these are in sync.
    pub fn elect(&self, tid: u32, leader: u32, in_sync: &[u32]) {
        self.change(|s| {
            let index = s.index;
            let run = |id: &u32| s.tablets[id].incarnation;
            let members = in_sync.iter().map(|t| common::Member {
                tablet: *t,
                incarnation: run(t),
                untrusted: false,
            });
            let (members, incarnation): (Vec<_>, _) = (members.collect(), run(&leader));
            for ((_, _), (changed, p)) in s.partitions.iter_mut().filter(|((t, _), _)| *t == tid) {
                *changed = index;
                p.epoch += 1;
                p.version = index;
                p.leader = leader;
                p.leader_incarnation = incarnation;
                p.in_sync.clone_from(&members);
            }
        });
    }

    pub fn drop_table(&self, tid: u32) {
        self.change(|s| {
            let created = s.tables.remove(&tid).unwrap().created_index;
            s.partitions.retain(|(t, _), _| *t != tid);
            let index = s.index;
            s.drops.insert(tid, (index, created));
        });
    }

    pub fn report(&self, tablet: u32, tid: u32, pid: u32) -> pb::ReplicaReport {
        self.state.lock().reports.get(&(tablet, tid, pid)).copied().unwrap_or_default()
    }

    pub fn in_sync(&self, tid: u32, pid: u32) -> Vec<u32> {
        self.state.lock().partitions[&(tid, pid)].1.in_sync.iter().map(|m| m.tablet).collect()
    }

    pub fn runs(&self, tablet: u32) -> usize {
        self.state.lock().tablets.get(&tablet).map_or(0, |t| t.registrations.len())
    }
}

impl State {
    fn news(&self, tablet: u32, known: u64) -> pb::HeartbeatDown {
        let mine = self
            .partitions
            .values()
            .filter(|(changed, p)| *changed > known && p.epoch > 0 && p.replicas.contains(&tablet));
        let views = mine.map(|(_, p)| pb::PartitionView {
            table: self.tables.get(&p.tid).cloned(),
            partition: Some(p.clone()),
        });
        let drops = self.drops.iter().filter(|(_, (index, _))| *index > known);
        pb::HeartbeatDown {
            controller_epoch: 1,
            index: self.index,
            views: views.collect(),
            drops: drops
                .map(|(tid, (_, created))| pb::Dropped {
                    tid: *tid,
                    created_index: *created,
                    ..Default::default()
                })
                .collect(),
            tablets: self
                .tablets
                .iter()
                .map(|(id, t)| common::TabletAddress {
                    id: *id,
                    endpoint: t.endpoint.clone(),
                    incarnation: t.incarnation,
                    healthy: true,
                })
                .collect(),
            status: wire::ok(),
            ..Default::default()
        }
    }

    fn hear(&mut self, up: &pb::HeartbeatUp) -> Result<(), Refusal> {
        if let Some(at) = self.forgotten.iter().position(|run| *run == up.incarnation) {
            self.forgotten.remove(at);
            return Err(Code::StaleEpoch.into());
        }
        if self.tablets.get(&up.tablet).is_none_or(|t| t.incarnation != up.incarnation) {
            return Err(Code::StaleEpoch.into());
        }
        for report in &up.reports {
            self.reports.insert((up.tablet, report.tid, report.pid), *report);
        }
        self.confirmed.extend(&up.dropped);
        Ok(())
    }
}

#[tonic::async_trait]
impl Registry for FakeNameserver {
    async fn register(
        &self,
        request: Request<pb::RegisterRequest>,
    ) -> Result<Response<pb::RegisterReply>, Status> {
        let request = request.into_inner();
        if request.cluster != CLUSTER {
            let status = wire::refused(&Refusal::new(
                Code::WrongCluster,
                format!("this is cluster {CLUSTER}"),
            ));
            return Ok(Response::new(pb::RegisterReply { status, ..Default::default() }));
        }
        let tablet = self.change(|s| {
            let known =
                s.tablets.iter().find(|(_, t)| t.endpoint == request.endpoint).map(|(id, _)| *id);
            let id = known.unwrap_or(u32::try_from(s.tablets.len()).unwrap() + 1);
            let tablet = s.tablets.entry(id).or_default();
            tablet.endpoint.clone_from(&request.endpoint);
            tablet.incarnation = *request.starts.last().unwrap();
            tablet.registrations.push(request.clone());
            // R14: the memberships of a trusted replica go to the new run.
            let (index, run) = (s.index, tablet.incarnation);
            for (changed, p) in s.partitions.values_mut() {
                for member in
                    p.in_sync.iter_mut().filter(|m| m.tablet == id && m.incarnation != run)
                {
                    member.incarnation = run;
                    p.version = index;
                    *changed = index;
                }
            }
            id
        });
        Ok(Response::new(pb::RegisterReply { status: wire::ok(), tablet, ..Default::default() }))
    }

    async fn heartbeat(
        &self,
        request: Request<Streaming<pb::HeartbeatUp>>,
    ) -> Result<Response<tonic::codegen::BoxStream<pb::HeartbeatDown>>, Status> {
        let fake = self.clone();
        let changes =
            tokio_stream::wrappers::WatchStream::new(self.changed.subscribe()).map(|_| None);
        let inputs = futures::stream::select(request.into_inner().map(Some), changes);
        let mut known: Option<(u32, u64)> = None;
        let answers = inputs.filter_map(move |input| {
            let answer = fake.answer(input, &mut known);
            async move { answer.map(Ok) }
        });
        Ok(Response::new(until_dismissed(answers).boxed()))
    }

    async fn change_in_sync(
        &self,
        request: Request<pb::ChangeInSyncRequest>,
    ) -> Result<Response<pb::ChangeInSyncReply>, Status> {
        let request = request.into_inner();
        if self.state.lock().deaf {
            return Ok(Response::new(pb::ChangeInSyncReply::default()));
        }
        let verdict = self.change(|s| {
            let index = s.index;
            let Some((changed, p)) = s.partitions.get_mut(&(request.tid, request.pid)) else {
                return pb::Verdict::Rejected;
            };
            if (p.epoch, p.version) != (request.epoch, request.expected_version) {
                return pb::Verdict::Rejected;
            }
            p.in_sync.clone_from(&request.in_sync);
            p.version = index;
            *changed = index;
            pb::Verdict::Applied
        });
        Ok(Response::new(pb::ChangeInSyncReply { verdict: verdict.into(), ..Default::default() }))
    }
}

impl FakeNameserver {
    fn answer(
        &self,
        input: Option<Result<pb::HeartbeatUp, Status>>,
        known: &mut Option<(u32, u64)>,
    ) -> Option<pb::HeartbeatDown> {
        let mut state = self.state.lock();
        let mut lease = None;
        match input {
            Some(Ok(up)) => {
                if let Err(refusal) = state.hear(&up) {
                    return Some(pb::HeartbeatDown {
                        status: wire::refused(&refusal),
                        ..Default::default()
                    });
                }
                known.get_or_insert((up.tablet, up.known_index));
                lease = (state.lease_ms > 0).then_some(up.sent);
            }
            Some(Err(_)) => return None,
            None => {}
        }
        let (tablet, told) = known.as_mut()?;
        let mut news = state.news(*tablet, *told);
        if state.unheard.contains(tablet) {
            news = pb::HeartbeatDown { index: *told, views: vec![], drops: vec![], ..news };
        }
        *told = news.index;
        if let Some(sent) = lease {
            (news.lease_sent, news.lease_ms) = (sent, state.lease_ms);
        }
        Some(news)
    }
}

/// A dismissal is the last thing that is said.
fn until_dismissed(
    answers: impl Stream<Item = Result<pb::HeartbeatDown, Status>>,
) -> impl Stream<Item = Result<pb::HeartbeatDown, Status>> {
    answers.scan(false, |ended, answer| {
        let next = (!*ended).then_some(answer);
        *ended = next.as_ref().is_none_or(|a| {
            a.as_ref().is_ok_and(|d| d.status.as_ref().is_some_and(|s| s.code != 0))
        });
        futures::future::ready(next)
    })
}

#[tonic::async_trait]
impl Nameserver for FakeNameserver {
    async fn cluster(
        &self,
        _: Request<ns::ClusterRequest>,
    ) -> Result<Response<ns::ClusterReply>, Status> {
        Ok(Response::new(ns::ClusterReply { cluster: CLUSTER.into(), ..Default::default() }))
    }
}
