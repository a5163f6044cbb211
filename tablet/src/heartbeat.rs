//! The stream to the leading nameserver: registration (R14), the lease (R17), and all that the meta group decides.
//!
//! A lease counts from when its heartbeat was sent, and only after what came with it was carried out. A nameserver that
//! does not lead says who does; one that is silent for a second is left for the next. One that does not know this run
//! any more (its state was restored) is registered with again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stela_common::clock::Millis;
use stela_common::code::Code;
use stela_common::ids::{Incarnation, PartitionKey, TabletId};
use stela_common::wire;
use stela_proto::heartbeat as pb;
use stela_proto::heartbeat::registry_client::RegistryClient;
use stela_replica::message::{Input, Write};
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::disk::Fences;
use crate::node::{Inner, Node, Proposal};
use crate::registry::{self, Told};

const CONNECT: Duration = Duration::from_millis(400);
const SILENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(50);
/// From one report out of turn to the next, at least.
const REPORT: Duration = Duration::from_millis(10);
/// A sync that takes longer than this, ms, is that of a disk that hangs (R23).
const HANGS: u64 = 2_000;
const MAX_MESSAGE: usize = 64 << 20;

/// Why a tablet cannot be part of its cluster.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Outcast {
    /// The nameservers are another cluster's.
    #[error("{0}")]
    WrongCluster(String),
    /// The registration was refused for good.
    #[error("the nameservers refuse this tablet: {0}")]
    Refused(String),
}

/// The nameserver that leads, as far as this tablet knows.
type Leader = RegistryClient<Channel>;

enum Ended {
    /// Try another, or the one named.
    Elsewhere(String),
    /// It does not know this run: register, here if it leads.
    Unknown,
    Outcast(Outcast),
}

impl From<tonic::Status> for Ended {
    fn from(_: tonic::Status) -> Self {
        Self::Elsewhere(String::new())
    }
}

/// Registers, then keeps the heartbeat, until the node stops or is cast out. `ready` becomes true when the tablet is
/// registered and was told what it holds.
///
/// # Errors
/// The cluster does not want this tablet.
pub async fn run(node: Arc<Node>, ready: watch::Sender<bool>) -> Result<(), Outcast> {
    let leader = watch::Sender::new(None);
    let proposer = tokio::spawn(propose(node.clone(), leader.subscribe()));
    let mut registered = false;
    let mut hint = String::new();
    let mut turn = 0;
    let mut warned = Millis::default();
    let outcome = loop {
        if node.stop.is_cancelled() {
            break Ok(());
        }
        let endpoint = if hint.is_empty() {
            turn = (turn + 1) % node.config.nameservers.len();
            node.config.nameservers[turn].clone()
        } else {
            std::mem::take(&mut hint)
        };
        let ended = tokio::select! {
            () = node.stop.cancelled() => break Ok(()),
            ended = attend(&node, &endpoint, &mut registered, &leader, &ready) => ended,
        };
        leader.send_replace(None);
        match ended {
            Ended::Outcast(why) => break Err(why),
            Ended::Elsewhere(to) => hint = to,
            Ended::Unknown => {
                tracing::warn!(
                    nameserver = endpoint,
                    "does not know this run of the tablet: registers again"
                );
                registered = false;
                hint = endpoint;
            }
        }
        if Millis::now().since(warned) > 2000 && !*ready.borrow() {
            warned = Millis::now();
            tracing::warn!(
                nameservers = node.config.nameservers.join(","),
                "waits for a leading nameserver"
            );
        }
        tokio::time::sleep(AGAIN).await;
    };
    proposer.abort();
    outcome
}

async fn connect(endpoint: &str) -> Option<RegistryClient<Channel>> {
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))
        .ok()?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .connect()
        .await
        .ok()?;
    Some(
        RegistryClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE),
    )
}

/// One nameserver, for as long as it leads.
async fn attend(
    node: &Arc<Node>,
    endpoint: &str,
    registered: &mut bool,
    leader: &watch::Sender<Option<Leader>>,
    ready: &watch::Sender<bool>,
) -> Ended {
    let Some(mut client) = connect(endpoint).await else { return Ended::Elsewhere(String::new()) };
    if !*registered {
        match register(node, &mut client).await {
            Ok(()) => *registered = true,
            Err(ended) => return ended,
        }
    }
    match beat(node, &mut client, leader, ready).await {
        Ok(()) => Ended::Elsewhere(String::new()),
        Err(ended) => ended,
    }
}

/// R14. The list of starts is synced before it is sent, and shortened, synced, before anything is served.
async fn register(node: &Arc<Node>, client: &mut RegistryClient<Channel>) -> Result<(), Ended> {
    let disk = |e: std::io::Error| {
        Ended::Outcast(Outcast::Refused(format!("cannot write the directory's fences: {e}")))
    };
    set_fences(node, |fences| {
        if fences.starts.last() != Some(&node.incarnation) {
            fences.starts.push(node.incarnation);
        }
    })
    .map_err(disk)?;
    let identity = node.files.identity().ok().flatten();
    let request = {
        let inner = node.look();
        pb::RegisterRequest {
            cluster: node.config.cluster.clone(),
            endpoint: node.config.endpoint.clone(),
            starts: inner.fences.starts.iter().map(|i| i.0).collect(),
            dir_uuid: identity.map(|i| i.dir_uuid).unwrap_or_default(),
            boot_id: stela_common::clock::boot_id(),
            clean: !inner.fences.unclean,
            inventory: inner.inventory(),
        }
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(SILENCE * 2);
    let reply = client.register(request).await?.into_inner();
    match wire::outcome(reply.status.as_ref()) {
        Ok(()) => {}
        Err(r) if r.code == Code::WrongCluster => {
            return Err(Ended::Outcast(Outcast::WrongCluster(r.text)));
        }
        // R14: with a stale registration another run has taken this one's place; it does not come back.
        Err(r) if matches!(r.code, Code::InvalidParameter | Code::StaleEpoch) => {
            return Err(Ended::Outcast(Outcast::Refused(r.text)));
        }
        Err(_) => return Err(Ended::Elsewhere(reply.leader)),
    }
    set_fences(node, |fences| {
        fences.starts = vec![node.incarnation];
        fences.unclean = false;
    })
    .map_err(disk)?;
    let mut inner = node.look();
    let tablet = TabletId(reply.tablet);
    if inner.tablet == TabletId(0) {
        inner.adopt(node, tablet);
    } else if inner.tablet != tablet {
        // Its replicas have acted under the other number: only a new run can be somebody else.
        let text = format!("it was tablet {} and is to be {tablet}; start it again", inner.tablet);
        return Err(Ended::Outcast(Outcast::Refused(text)));
    }
    tracing::info!(tablet = reply.tablet, incarnation = node.incarnation.0, "registered");
    Ok(())
}

/// Changes the fences: durable first, then they count. The heartbeat's task alone changes them, so nobody has to wait
/// for the disk under the node's lock.
fn set_fences(node: &Node, change: impl FnOnce(&mut Fences)) -> std::io::Result<()> {
    let mut fences = node.look().fences.clone();
    change(&mut fences);
    node.files.set_fences(&fences)?;
    node.look().fences = fences;
    Ok(())
}

async fn beat(
    node: &Arc<Node>,
    client: &mut RegistryClient<Channel>,
    leader: &watch::Sender<Option<Leader>>,
    ready: &watch::Sender<bool>,
) -> Result<(), Ended> {
    let (up, requests) = mpsc::channel(4);
    node.look().forget_reports();
    say(node, &up);
    let mut answers =
        tokio::time::timeout(SILENCE, client.heartbeat(ReceiverStream::new(requests)))
            .await
            .map_err(|_| Ended::Elsewhere(String::new()))??
            .into_inner();
    let mut timer = tokio::time::interval(node.config.heartbeat);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    let mut out_of_turn = tokio::time::Instant::now();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return Ok(()),
            _ = timer.tick() => {
                if heard.elapsed() > SILENCE {
                    return Ok(());
                }
                say(node, &up);
            }
            () = due(node, out_of_turn) => {
                say(node, &up);
                out_of_turn = tokio::time::Instant::now() + REPORT;
            }
            answer = answers.next() => {
                let Some(down) = answer else { return Ok(()) };
                take(node, &down?)?;
                heard = tokio::time::Instant::now();
                leader.send_if_modified(|l| l.is_none() && { *l = Some(client.clone()); true });
                ready.send_if_modified(|r| !std::mem::replace(r, true));
            }
        }
    }
}

/// Something is to be reported, and the last report out of turn is not too near.
async fn due(node: &Node, not_before: tokio::time::Instant) {
    // What is notified while this waits is kept for the next call.
    tokio::time::sleep_until(not_before).await;
    node.report.notified().await;
}

/// A full channel is a nameserver that does not read: the silence will tell, and nothing counts as reported.
fn say(node: &Node, up: &mpsc::Sender<pb::HeartbeatUp>) {
    if let Ok(room) = up.try_reserve() {
        room.send(message(node));
    }
}

/// What a nameserver says: fences first (R20), then what changed, then the lease (R17).
fn take(node: &Arc<Node>, down: &pb::HeartbeatDown) -> Result<(), Ended> {
    if let Some(status) = &down.status {
        match Code::from_number(status.code) {
            Some(Code::Ok) => {}
            Some(Code::WrongCluster) => {
                return Err(Ended::Outcast(Outcast::WrongCluster(status.msg.clone())));
            }
            // It knows another run, or none.
            Some(Code::StaleEpoch) => return Err(Ended::Unknown),
            _ => return Err(Ended::Elsewhere(down.hint.clone())),
        }
    }
    let orders = !down.views.is_empty() || !down.drops.is_empty();
    let told = Told::try_from(down).map_err(|e| {
        tracing::error!(error = %e, "the nameserver's message is not understood");
        Ended::Elsewhere(String::new())
    })?;
    {
        let fences = node.look().fences.clone();
        if down.controller_epoch < fences.controller || (orders && down.index < fences.decision) {
            tracing::warn!(
                controller = down.controller_epoch,
                index = down.index,
                "a deposed nameserver is not obeyed"
            );
            return Err(Ended::Elsewhere(String::new()));
        }
        if down.controller_epoch > fences.controller || (orders && down.index > fences.decision) {
            set_fences(node, |fences| {
                fences.controller = down.controller_epoch;
                fences.decision = fences.decision.max(down.index);
            })
            .map_err(|e| {
                tracing::error!(error = %e, "cannot store the fences: the order is not obeyed");
                Ended::Elsewhere(String::new())
            })?;
        }
    }
    registry::apply(node, told).map_err(|e| {
        tracing::error!(error = %e, "cannot carry out what the nameserver decided");
        Ended::Elsewhere(String::new())
    })?;
    node.act(|inner, work| {
        inner.known_index = inner.known_index.max(down.index);
        if down.lease_sent != 0 {
            inner.dropped.retain(|_, left| {
                *left = left.saturating_sub(1);
                *left > 0
            });
            inner.removed.retain(|_, (_, left)| {
                *left = left.saturating_sub(1);
                *left > 0
            });
            let until = Millis(down.lease_sent).plus(u64::from(down.lease_ms));
            if until > inner.lease_until {
                inner.lease_until = until;
                node.step_all(inner, work, |_, p| p.core.leads(), || Input::MetaLease(until));
            }
        }
    });
    Ok(())
}

fn message(node: &Node) -> pb::HeartbeatUp {
    let mut inner = node.look();
    let reports = inner.reports();
    pb::HeartbeatUp {
        cluster: node.config.cluster.clone(),
        tablet: inner.tablet.0,
        incarnation: node.incarnation.0,
        sent: Millis::now().0,
        known_index: inner.known_index,
        reports,
        dropped: inner.dropped.keys().map(|t| t.0).collect(),
        removed: inner
            .removed
            .iter()
            .map(|(key, (removal, _))| pb::Removed {
                tid: key.tid.0,
                pid: key.pid.0,
                removal: *removal,
            })
            .collect(),
        ask_lease: !hangs(node),
    }
}

/// R23: whoever cannot make its log durable asks for no lease, so that others lead in its place.
fn hangs(node: &Node) -> bool {
    let since = node.log.syncing_since();
    let hangs = since.is_some_and(|since| Millis::now().since(since) > HANGS);
    if node.hangs.swap(hangs, Ordering::Relaxed) != hangs {
        if hangs {
            tracing::error!(
                "the disk has not finished a sync for {HANGS} ms: asks for no lease; look at the disk"
            );
        } else {
            tracing::info!("the disk syncs again");
        }
    }
    hangs
}

/// Sends the cores' proposals (R7). No answer, or one that is not definite, is no input: the core repeats.
async fn propose(node: Arc<Node>, mut leader: watch::Receiver<Option<Leader>>) {
    loop {
        let current = leader.borrow_and_update().clone();
        if let Some(current) = current {
            for (key, proposal) in std::mem::take(&mut node.look().proposals) {
                tokio::spawn(send_proposal(node.clone(), current.clone(), key, proposal));
            }
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.propose.notified() => {}
            changed = leader.changed() => if changed.is_err() { return },
        }
    }
}

async fn send_proposal(node: Arc<Node>, mut leader: Leader, key: PartitionKey, proposal: Proposal) {
    let tablet = node.look().tablet.0;
    let mut request = tonic::Request::new(pb::ChangeInSyncRequest {
        cluster: node.config.cluster.clone(),
        tid: key.tid.0,
        pid: key.pid.0,
        epoch: proposal.epoch.0,
        expected_version: proposal.expected.0,
        in_sync: proposal.in_sync.iter().map(Into::into).collect(),
        tablet,
        incarnation: node.incarnation.0,
    });
    request.set_timeout(SILENCE);
    let Ok(reply) = leader.change_in_sync(request).await else { return };
    let applied = match reply.into_inner().verdict() {
        pb::Verdict::Applied => true,
        pb::Verdict::Rejected => false,
        pb::Verdict::Unknown => return,
    };
    node.act(|inner, work| {
        let input =
            Input::Verdict { expected: proposal.expected, in_sync: proposal.in_sync, applied };
        node.step(inner, work, key, input, &[]);
    });
}

impl Inner {
    /// It is registered under that id: its replicas are told who they are.
    pub(crate) fn adopt(&mut self, node: &Node, tablet: TabletId) {
        self.tablet = tablet;
        for (key, p) in &mut self.partitions {
            let identity = node.identity(tablet, *key, p.store.table());
            // Nothing was written yet: replicas act when they are told to, which takes a registration.
            p.restart(identity, Write(0), Millis::now());
        }
    }
}

/// A number for this run that no other has (R14).
#[must_use]
pub fn draw_incarnation() -> Incarnation {
    Incarnation(rand::random::<u64>().max(1))
}
