//! The follower's side of a stream: a frame is judged per partition, appended with one `pwrite`, and acknowledged when
//! its sync has ended (R3, R5).

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TabletId};
use stela_common::log::{self, Kind};
use stela_proto::replication as pb;
use stela_replica::message::{Conn, Input, ToFollower};
use tonic::{Status, Streaming};

use super::{LeaderBox, key};
use crate::node::{Incoming, Node, Received};
use crate::outbox::Outbox;
use crate::store::entry::Entry;

/// Serves the stream that a leader opened.
///
/// # Errors
/// The greeting is missing, or meant for another cluster, tablet or run (R3).
pub async fn serve(
    node: Arc<Node>,
    mut frames: Streaming<pb::ToFollower>,
) -> Result<impl futures::Stream<Item = Result<pb::ToLeader, Status>> + Send + 'static, Status> {
    let first = frames.message().await?.ok_or_else(|| Status::invalid_argument("no greeting"))?;
    let open = first.open.as_ref().ok_or_else(|| Status::invalid_argument("no greeting"))?;
    let tablet = node.look().tablet;
    if open.cluster != node.config.cluster {
        return Err(Status::failed_precondition(format!(
            "this is cluster {}",
            node.config.cluster
        )));
    }
    if open.to_tablet != tablet.0 || open.to_incarnation != node.incarnation.0 || tablet.0 == 0 {
        return Err(Status::failed_precondition("meant for another tablet or another run of it"));
    }
    let (peer, incarnation) = (TabletId(open.tablet), Incarnation(open.incarnation));
    let conn = node.conn();
    let outbox = Outbox::<LeaderBox>::default();
    outbox.fill(|b| {
        b.open = Some(pb::Open {
            cluster: node.config.cluster.clone(),
            tablet: tablet.0,
            incarnation: node.incarnation.0,
            to_tablet: peer.0,
            to_incarnation: incarnation.0,
        });
    });
    node.look().incoming.insert(conn, Incoming { peer, outbox: outbox.clone() });
    let answers = outbox.stream().map(|b| Ok(b.into_message()));

    tokio::spawn(async move {
        let _open = Open { node: node.clone(), conn, peer };
        let mut rotten = BTreeSet::new();
        let mut next = Some(first);
        loop {
            if let Some(frame) = next.take()
                && let Err(e) = take(&node, conn, peer, incarnation, frame, &mut rotten)
            {
                tracing::warn!(%peer, error = %e, "malformed frame: the stream is closed");
                break;
            }
            tokio::select! {
                () = node.stop.cancelled() => break,
                message = frames.message() => match message {
                    Ok(Some(frame)) => next = Some(frame),
                    Ok(None) => break,
                    Err(e) => {
                        tracing::debug!(%peer, error = %e, "stream of a leader ended");
                        break;
                    }
                },
            }
        }
    });
    Ok(answers)
}

/// Unregisters a connection however its task ends.
struct Open {
    node: Arc<Node>,
    conn: Conn,
    peer: TabletId,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.node.act(|inner, work| {
            if let Some(incoming) = inner.incoming.remove(&self.conn) {
                incoming.outbox.close();
            }
            for p in inner.partitions.values_mut() {
                p.greeted.remove(&self.conn);
            }
            let peer = self.peer;
            self.node.step_all(
                inner,
                work,
                |_, p| p.core.view().is_some_and(|v| v.replicas.contains(&peer)),
                || Input::Disconnected(self.conn),
            );
        });
    }
}

/// Why a run is not taken.
#[derive(Debug, thiserror::Error)]
enum Bad {
    /// What rots on the way or in the leader's log: it concerns this partition only (R5).
    #[error(transparent)]
    Rotten(log::Malformed),
    /// No leader sends it: nothing of the stream can be trusted.
    #[error(transparent)]
    Foreign(log::Malformed),
}

/// The records of a run, checked (R25).
fn records(run: &pb::Run) -> Result<Vec<Received>, Bad> {
    let mut received = Vec::new();
    for record in log::parse(&run.records) {
        let record = record.map_err(Bad::Rotten)?;
        if record.kind != Kind::Entry || record.partition != key(run.tid, run.pid) {
            return Err(Bad::Foreign(log::Malformed("a record of another kind or partition")));
        }
        let entry = Entry::parse(record.body)
            .map_err(|_| Bad::Rotten(log::Malformed("malformed entry: its body")))?;
        received.push(Received {
            raw: run.records.slice_ref(record.raw),
            offset: record.offset,
            epoch: record.epoch,
            request: (entry.session(), entry.seq()),
        });
    }
    Ok(received)
}

fn take(
    node: &Node,
    conn: Conn,
    peer: TabletId,
    incarnation: Incarnation,
    frame: pb::ToFollower,
    rotten: &mut BTreeSet<PartitionKey>,
) -> Result<(), log::Malformed> {
    let mut runs: Vec<(PartitionKey, &pb::Run, Vec<Received>)> = Vec::new();
    for run in &frame.runs {
        let key = key(run.tid, run.pid);
        match records(run) {
            Ok(received) => runs.push((key, run, received)),
            // As if it had not come, and the others go on (R5). It comes again: said once for a stream.
            Err(Bad::Rotten(e)) => {
                if rotten.insert(key) {
                    tracing::error!(%key, %peer, error = %e, "records of a leader are damaged: they are not taken");
                }
            }
            Err(Bad::Foreign(e)) => return Err(e),
        }
    }
    node.act(|inner, work| {
        let from = |message| Input::FromLeader { conn, peer, incarnation, message };
        for lead in &frame.leads {
            let key = key(lead.tid, lead.pid);
            let held = inner.partitions.get(&key).map(|p| p.store.table().created_index);
            if held != Some(lead.created_index) {
                // H26. Once the nameserver has said which table it is, the leader says again that it leads.
                tracing::debug!(%key, ?held, led = lead.created_index, "another table's leader is not followed");
                continue;
            }
            node.step(inner, work, key, from(ToFollower::Lead { epoch: Epoch(lead.epoch) }), &[]);
        }
        for point in &frame.common_points {
            let say = ToFollower::CommonPoint {
                epoch: Epoch(point.epoch),
                nonce: point.nonce,
                offset: Offset(point.offset),
                unclean: point.unclean,
            };
            node.step(inner, work, key(point.tid, point.pid), from(say), &[]);
        }
        for need in &frame.need_snapshots {
            let say = ToFollower::NeedSnapshot {
                epoch: Epoch(need.epoch),
                nonce: need.nonce,
                common: Offset(need.common),
                offset: Offset(need.offset),
                unclean: need.unclean,
            };
            node.step(inner, work, key(need.tid, need.pid), from(say), &[]);
        }
        for (key, run, received) in &runs {
            let say = ToFollower::Records {
                epoch: Epoch(run.epoch),
                prev: (Offset(run.prev_offset), Epoch(run.prev_epoch)),
                entries: received.iter().map(|r| (r.offset, r.epoch)).collect(),
                commit: Offset(run.commit),
            };
            node.step(inner, work, *key, from(say), received);
        }
        for commit in &frame.commits {
            let say =
                ToFollower::Commit { epoch: Epoch(commit.epoch), commit: Offset(commit.commit) };
            node.step(inner, work, key(commit.tid, commit.pid), from(say), &[]);
        }
    });
    if frame.asked_at != 0 {
        // After the cores have spoken: whatever they left is said before or with this grant (R11).
        let mut inner = node.look();
        inner.grants.grant(peer, Millis::now());
        if let Some(incoming) = inner.incoming.get(&conn) {
            incoming.outbox.fill(|b| b.granted = frame.asked_at);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_records_are_told_from_foreign_ones() {
        let dir = tempfile::tempdir().unwrap();
        let options = log::Options { segment_bytes: 256 << 10, spares: 0, mark_idle: false };
        let disk = stela_common::fs::Disk::real();
        let (log, _) = log::Log::open(disk, dir.path(), options, |e| panic!("{e}")).unwrap();
        let raw = |kind, body: &[u8]| {
            let new = log::NewRecord {
                kind,
                partition: key(7, 1),
                offset: Offset(1),
                epoch: Epoch(1),
                commit_lag: 0,
                body: &[body],
            };
            let appended = log.append(&[new]).unwrap();
            log.read(appended.positions[0]).unwrap().raw().to_vec()
        };
        let run = |pid, records: Vec<u8>| pb::Run {
            tid: 7,
            pid,
            records: records.into(),
            ..Default::default()
        };
        let body = crate::store::entry::Writer::put(0, 0, 0).finish();
        let good = raw(Kind::Entry, &body);
        assert_eq!(records(&run(1, good.clone())).unwrap().len(), 1);
        assert!(matches!(records(&run(2, good.clone())), Err(Bad::Foreign(_))));
        assert!(matches!(records(&run(1, raw(Kind::Truncate, b""))), Err(Bad::Foreign(_))));
        let mut rotten = good.clone();
        *rotten.last_mut().unwrap() ^= 1;
        assert!(matches!(records(&run(1, rotten)), Err(Bad::Rotten(_))));
        assert!(matches!(records(&run(1, good[..good.len() - 1].to_vec())), Err(Bad::Rotten(_))));
        assert!(matches!(records(&run(1, raw(Kind::Entry, b"?"))), Err(Bad::Rotten(_))));
    }
}
