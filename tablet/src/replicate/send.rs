//! The leader's side of a stream: one task for each tablet that follows a partition led here.
//!
//! Records are read by offset: the place of a recent entry is at hand, an older one is found through the sparse table,
//! and neither ever yields a record that a truncation made void (R26, R27). So a follower that is far behind and one that
//! keeps up take the same path, and there is no hand-over to get wrong (H37).

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, PartitionKey, TabletId};
use stela_common::log::{self, RecordRef};
use stela_proto::replication::replication_client::ReplicationClient;
use stela_proto::replication::{self as pb};
use stela_replica::message::{Conn, Input, ToLeader};
use tokio_stream::StreamExt;
use tonic::transport::Endpoint;

use super::{FRAME, FollowerBox, MAX_MESSAGE, history, key};
use crate::node::{Address, Inner, Node, Outgoing};
use crate::outbox::{Gather, Outbox, Taker};
use crate::store::places;

const CONNECT: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(50);

/// Keeps a stream to every tablet that follows a partition led here, until the node stops.
pub async fn keep_peers(node: Arc<Node>) {
    let mut tasks: BTreeMap<TabletId, tokio::task::JoinHandle<()>> = BTreeMap::new();
    loop {
        let wanted = node.look().followers_wanted();
        tasks.retain(|_, t| !t.is_finished());
        for peer in wanted {
            tasks.entry(peer).or_insert_with(|| tokio::spawn(keep_peer(node.clone(), peer)));
        }
        tokio::select! {
            () = node.stop.cancelled() => break,
            () = node.peers.notified() => {}
            // A task that ended because it was not wanted may be wanted again by now.
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
    for task in tasks.into_values() {
        task.abort();
    }
}

async fn keep_peer(node: Arc<Node>, peer: TabletId) {
    loop {
        let address = {
            let inner = node.look();
            if !inner.followers_wanted().contains(&peer) {
                return;
            }
            inner.addresses.get(&peer).cloned()
        };
        if let Some(address) = address
            && let Err(e) = stream(&node, peer, &address).await
        {
            tracing::debug!(%peer, endpoint = %address.endpoint, error = %e, "stream to a follower ended");
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

/// Unregisters a connection however its task ends.
struct Open<'a> {
    node: &'a Node,
    conn: Conn,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.node.act(|inner, work| {
            let Some(outgoing) = inner.outgoing.remove(&self.conn) else { return };
            outgoing.outbox.close();
            inner.permits.dropped(self.conn);
            let peer = outgoing.peer;
            self.node.step_all(
                inner,
                work,
                |_, p| p.core.view().is_some_and(|v| v.replicas.contains(&peer)),
                || Input::Disconnected(self.conn),
            );
        });
    }
}

async fn stream(node: &Arc<Node>, peer: TabletId, address: &Address) -> Result<(), tonic::Status> {
    let endpoint = Endpoint::from_shared(format!("http://{}", address.endpoint))
        .map_err(|e| tonic::Status::invalid_argument(e.to_string()))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let channel =
        endpoint.connect().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
    let mut client = ReplicationClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);

    let conn = node.conn();
    let outbox = Outbox::<FollowerBox>::default();
    // The node's lock is taken before an outbox's, never within.
    let tablet = node.look().tablet;
    outbox.fill(|b| {
        b.open = Some(pb::Open {
            cluster: node.config.cluster.clone(),
            tablet: tablet.0,
            incarnation: node.incarnation.0,
            to_tablet: peer.0,
            to_incarnation: address.incarnation.0,
        });
    });
    let frames = Frames { node: Arc::downgrade(node), conn, taker: outbox.stream() };
    let mut answers = client.stream(frames).await?.into_inner();
    let first =
        answers.message().await?.ok_or_else(|| tonic::Status::unavailable("closed at once"))?;
    let open = first.open.ok_or_else(|| tonic::Status::invalid_argument("no greeting"))?;
    if (open.tablet, open.incarnation) != (peer.0, address.incarnation.0) {
        return Err(tonic::Status::failed_precondition(
            "another tablet or another run of it answered",
        ));
    }
    node.act(|inner, work| {
        let incarnation = address.incarnation;
        inner.outgoing.insert(
            conn,
            Outgoing {
                peer,
                incarnation,
                outbox: outbox.clone(),
                ships: std::collections::HashMap::new(),
            },
        );
        connected(node, inner, work, conn, peer, incarnation);
    });
    let _open = Open { node, conn };

    let mut keep_alive = tokio::time::interval(node.config.keep_alive);
    keep_alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return Ok(()),
            _ = keep_alive.tick() => outbox.fill(|b| b.asked_at = Millis::now().0),
            answer = answers.next() => match answer {
                Some(answer) => take(node, conn, answer?)?,
                None => return Ok(()),
            },
        }
    }
}

/// Tells every replica led here that a follower of it can be reached.
pub(crate) fn connected(
    node: &Node,
    inner: &mut Inner,
    work: &mut crate::node::Work,
    conn: Conn,
    peer: TabletId,
    incarnation: Incarnation,
) {
    node.step_all(
        inner,
        work,
        |_, p| p.core.leads() && p.core.view().is_some_and(|v| v.replicas.contains(&peer)),
        || Input::Connected { conn, peer, incarnation },
    );
}

/// What a follower says.
fn take(node: &Node, conn: Conn, message: pb::ToLeader) -> Result<(), tonic::Status> {
    let mut hellos = Vec::with_capacity(message.hellos.len());
    for hello in &message.hellos {
        let history = history(&hello.history)
            .ok_or_else(|| tonic::Status::invalid_argument("malformed history"))?;
        hellos.push((hello, history));
    }
    node.act(|inner, work| {
        for left in &message.lefts {
            let say = ToLeader::Left { epoch: Epoch(left.epoch) };
            node.step(
                inner,
                work,
                key(left.tid, left.pid),
                Input::FromFollower { conn, message: say },
                &[],
            );
        }
        for (hello, history) in hellos {
            let say = ToLeader::Hello {
                epoch: Epoch(hello.epoch),
                nonce: hello.nonce,
                history,
                last: hello.last.into(),
                rebuild: hello.rebuild,
            };
            node.step(
                inner,
                work,
                key(hello.tid, hello.pid),
                Input::FromFollower { conn, message: say },
                &[],
            );
        }
        for ack in &message.acks {
            let say = ToLeader::Ack {
                epoch: Epoch(ack.epoch),
                nonce: ack.nonce,
                offset: ack.offset.into(),
            };
            node.step(
                inner,
                work,
                key(ack.tid, ack.pid),
                Input::FromFollower { conn, message: say },
                &[],
            );
        }
        if message.granted != 0 {
            inner.permits.granted(conn, Millis(message.granted));
            let peer = inner.outgoing.get(&conn).map(|o| o.peer);
            for p in inner.partitions.values().filter(|p| p.core.leads()) {
                if p.core.view().is_some_and(|v| v.replicas.iter().any(|r| Some(*r) == peer)) {
                    p.parked.notify_waiters();
                }
            }
        }
    });
    Ok(())
}

/// The outgoing messages of a stream: what was gathered, with the records that are due, read when the transport asks.
struct Frames {
    node: Weak<Node>,
    conn: Conn,
    taker: Taker<FollowerBox>,
}

impl Stream for Frames {
    type Item = pb::ToFollower;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<pb::ToFollower>> {
        loop {
            let Some(node) = self.node.upgrade() else { return Poll::Ready(None) };
            // The box is taken under the node's lock: in between, a Hello could put its CommonPoint into the next box
            // and begin shipping anew, and records would overtake the point from which they are counted.
            let mut inner = node.look();
            let Some(mut gathered) = ready!(Pin::new(&mut self.taker).poll_next(cx)) else {
                return Poll::Ready(None);
            };
            let dirty = std::mem::take(&mut gathered.dirty);
            let due = due(&node, &mut inner, self.conn, dirty);
            drop(inner);
            let runs = runs(&node, due);
            if !runs.is_empty() || !gathered.is_empty() {
                return Poll::Ready(Some(gathered.into_message(runs)));
            }
        }
    }
}

/// Records that are due, and the run that they are to be the records of.
struct Due {
    key: PartitionKey,
    run: pb::Run,
    records: Vec<RecordRef>,
}

/// The records that are due on a connection, at most about [`FRAME`] bytes; what is left stays dirty.
fn due(node: &Node, inner: &mut Inner, conn: Conn, dirty: BTreeSet<PartitionKey>) -> Vec<Due> {
    let Inner { outgoing, partitions, .. } = inner;
    let Some(outgoing) = outgoing.get_mut(&conn) else { return Vec::new() };
    let mut found = Vec::new();
    let mut budget = FRAME;
    let mut left = Vec::new();
    let mut damaged = Vec::new();
    for key in dirty {
        let (Some(ship), Some(p)) = (outgoing.ships.get_mut(&key), partitions.get(&key)) else {
            continue;
        };
        // What the log has given back it cannot ship: that follower joins anew, and hears that it needs a snapshot.
        if ship.next > p.last() || ship.next < p.floor() {
            continue;
        }
        if budget == 0 {
            left.push(key);
            continue;
        }
        let records = match entries(node, p, key, ship.next, budget) {
            Ok(records) if !records.is_empty() => records,
            Ok(_) => continue,
            // It would be as damaged at the next attempt: this copy is not whole, and another one has to lead.
            Err(e) => {
                damaged.push((key, format!("what a follower needs cannot be read: {e}")));
                continue;
            }
        };
        budget = budget.saturating_sub(records.iter().map(|r| r.raw().len()).sum());
        let run = pb::Run {
            tid: key.tid.0,
            pid: key.pid.0,
            epoch: p.core.epoch().0,
            prev_offset: ship.prev.0.0,
            prev_epoch: ship.prev.1.0,
            commit: p.core.commit().0,
            records: Default::default(),
        };
        if let Some(last) = records.last() {
            ship.prev = (last.offset(), last.epoch());
            ship.next = last.offset().next();
        }
        if ship.next <= p.last() {
            left.push(key);
        }
        found.push(Due { key, run, records });
    }
    if !left.is_empty() {
        outgoing.outbox.fill(|b| b.dirty.extend(left));
    }
    for (key, why) in damaged {
        // Nothing of it is shipped any more, to nobody.
        node.quarantine(inner, key, why);
    }
    found
}

/// The records as they go over the wire, checked and copied without the node's lock: a follower that is far behind holds
/// up nobody.
fn runs(node: &Node, due: Vec<Due>) -> Vec<pb::Run> {
    let mut runs = Vec::with_capacity(due.len());
    for Due { key, run, records } in due {
        let mut raw = Vec::with_capacity(records.iter().map(|r| r.raw().len()).sum());
        let copied = records.iter().try_for_each(|record| {
            whole(record)?;
            raw.extend_from_slice(record.raw());
            Ok::<(), String>(())
        });
        match copied {
            Ok(()) => runs.push(pb::Run { records: raw.into(), ..run }),
            Err(e) => {
                let why = format!("what a follower needs cannot be read: {e}");
                node.act(|inner, _| node.quarantine(inner, key, why));
            }
        }
    }
    runs
}

/// A record as it goes to a follower. Its checksum was looked at when it came or the log was opened; it may have rotted
/// since, and no follower would take it.
fn whole(record: &RecordRef) -> Result<(), String> {
    match log::parse(record.raw()).next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(e)) => Err(format!("entry at {}: {e}", record.position())),
        None => Err(format!("entry at {}: it is not there", record.position())),
    }
}

fn entries(
    node: &Node,
    p: &crate::partition::Partition,
    key: PartitionKey,
    from: stela_common::ids::Offset,
    budget: usize,
) -> Result<Vec<RecordRef>, String> {
    if p.recent(from).is_none() {
        return places::read_entries(&node.log, &p.places, key, from, p.last(), budget)
            .map_err(|e| e.to_string());
    }
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut next = from;
    while let Some(recent) = p.recent(next) {
        let record = node.log.read(recent.at).map_err(|e| e.to_string())?;
        bytes += record.raw().len();
        if bytes > budget && !records.is_empty() {
            break;
        }
        records.push(record);
        next = next.next();
    }
    Ok(records)
}
