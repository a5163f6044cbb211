//! Reads. At the leader the permit is checked after the work (R11); without one the read is parked until one comes.
//! At any replica only when that is asked for, with the offset up to which it shows.

use std::sync::Arc;
use std::time::Duration;

use stela_common::clock::{Millis, wall_ms};
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::table;
use stela_common::wire;
use stela_proto::tablet as pb;
use stela_replica::core::Env;
use stela_replica::message;
use tokio::sync::futures::OwnedNotified;

use crate::node::{Inner, Node};
use crate::partition::Partition;
use crate::store::Range;
use crate::write::code_of;

/// How long a read waits for a permit, or for the leader to serve.
const PARKED: Duration = Duration::from_secs(1);
/// The bytes of one scan: what is beyond is fetched by the next.
const SCAN_BYTES: usize = 4 << 20;

/// What an answer says beside its result.
#[derive(Default)]
pub(super) struct About {
    leader: String,
    epoch: Epoch,
    commit: Offset,
}

/// A read of one partition.
pub(super) trait Read {
    /// Its answer.
    type Reply;

    fn target(&self) -> pb::Target;
    fn at_leader_only(&self) -> bool;
    /// R35: an offset that it must show at least, and the unclean epochs that it is of.
    fn at_least(&self) -> (Offset, u64);
    fn read(&self, node: &Node, partition: &Partition) -> Result<Self::Reply, Refusal>;
    fn reply(outcome: Result<Self::Reply, Refusal>, about: About) -> Self::Reply;

    /// Bytes that an answer takes, about.
    fn weight(reply: &Self::Reply) -> usize;
}

enum Look<R> {
    Answer(R),
    /// Until something has changed: what comes after the look is noticed.
    Park(OwnedNotified, Refusal, About),
}

/// Serves a read that came at `since`, at once or when a permit has come.
pub(super) async fn served<R: Read>(node: &Arc<Node>, request: &R, since: Millis) -> R::Reply {
    let deadline = tokio::time::Instant::now() + PARKED;
    loop {
        let (parked, refusal, about) = match look(node, request, since) {
            Look::Answer(reply) => return reply,
            Look::Park(parked, refusal, about) => (parked, refusal, about),
        };
        // What the clock alone changes nobody tells: look again soon.
        let again = (tokio::time::Instant::now() + Duration::from_millis(20)).min(deadline);
        if tokio::time::timeout_at(again, parked).await.is_err()
            && tokio::time::Instant::now() >= deadline
        {
            return R::reply(Err(refusal), about);
        }
    }
}

/// Serves a read that came at `since` only if that needs no waiting.
pub(super) fn at_once<R: Read>(node: &Node, request: &R, since: Millis) -> Option<R::Reply> {
    match look(node, request, since) {
        Look::Answer(reply) => Some(reply),
        Look::Park(..) => None,
    }
}

fn look<R: Read>(node: &Node, request: &R, since: Millis) -> Look<R::Reply> {
    let inner = node.look();
    let target = request.target();
    let key = PartitionKey::new(target.tid, target.pid);
    let about = |p: &Partition, hint: bool| About {
        leader: if hint { node.leader_hint(&inner, key) } else { String::new() },
        epoch: p.core.epoch(),
        commit: p.applied,
    };
    let Some(p) = inner.partitions.get(&key) else {
        return Look::Answer(R::reply(Err(Code::TableNotFound.into()), About::default()));
    };
    if let Some(why) = &p.quarantine {
        let refusal =
            Refusal::new(Code::Quarantined, format!("{}: {why}", Code::Quarantined.text()));
        return Look::Answer(R::reply(Err(refusal), about(p, true)));
    }
    if !request.at_leader_only() {
        let (offset, uncleans) = request.at_least();
        let known = p.core.view().map_or(0, |v| v.uncleans);
        if offset > Offset(0) && uncleans < known {
            // What it was told may be among what an unclean election has lost (R16).
            let text = format!("{}: leaders were elected uncleanly since", Code::Behind.text());
            return Look::Answer(R::reply(Err(Refusal::new(Code::Behind, text)), about(p, true)));
        }
        if offset > p.applied || (offset > Offset(0) && uncleans > known) {
            return Look::Park(
                p.parked.clone().notified_owned(),
                Code::Behind.into(),
                about(p, true),
            );
        }
        return Look::Answer(R::reply(request.read(node, p), about(p, false)));
    }
    if p.suspended.is_some() {
        return Look::Park(
            p.parked.clone().notified_owned(),
            Code::NotServing.into(),
            about(p, false),
        );
    }
    if !p.core.leads() {
        return Look::Answer(R::reply(Err(Code::TableIsFollower.into()), about(p, true)));
    }
    if target.epoch != 0 && target.epoch != p.core.epoch().0 {
        return Look::Answer(R::reply(Err(Code::StaleEpoch.into()), about(p, true)));
    }
    // R11: what counts is the permit after the work. That before it saves the work of who waits for one.
    let result = permitted(&inner, p, since).and_then(|()| {
        let result = request.read(node, p);
        permitted(&inner, p, since).map(|()| result)
    });
    match result {
        Ok(result) => Look::Answer(R::reply(result, about(p, false))),
        Err(refusal @ (message::Refusal::LeaseExpired | message::Refusal::NotServing)) => {
            let parked = p.parked.clone().notified_owned();
            if p.store.table().options.read == table::Read::Confirm {
                ask(&inner, p);
            }
            Look::Park(parked, code_of(refusal).into(), about(p, false))
        }
        Err(refusal) => Look::Answer(R::reply(Err(code_of(refusal).into()), about(p, true))),
    }
}

fn permitted(inner: &Inner, p: &Partition, since: Millis) -> Result<(), message::Refusal> {
    let env = Env { permits: &inner.permits, grants: &inner.grants };
    p.core.may_read(since, Millis::now(), &env)
}

/// R38: asks all that follow. One question is enough for all reads that have come before it.
fn ask(inner: &Inner, p: &Partition) {
    let replicas = p.core.view().map_or(&[][..], |view| &view.replicas);
    for outgoing in inner.outgoing.values().filter(|o| replicas.contains(&o.peer)) {
        outgoing.outbox.fill(|b| b.asked_at = Millis::now().0);
    }
}

fn of_leader(from: i32) -> bool {
    from != pb::ReadFrom::Any as i32
}

impl Read for pb::GetRequest {
    type Reply = pb::GetReply;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn read(&self, node: &Node, p: &Partition) -> Result<pb::GetReply, Refusal> {
        let (ts, value) = p.store.get(&node.log, self.index, &self.key, self.ts, wall_ms())?;
        Ok(pb::GetReply { ts, value, ..Default::default() })
    }

    fn reply(outcome: Result<pb::GetReply, Refusal>, about: About) -> pb::GetReply {
        let (reply, status) = split(outcome);
        pb::GetReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::GetReply) -> usize {
        reply.value.len()
    }
}

impl Read for pb::ScanRequest {
    type Reply = pb::ScanReply;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn read(&self, node: &Node, p: &Partition) -> Result<pb::ScanReply, Refusal> {
        let range = Range { st: self.st, et: self.et, limit: self.limit, bytes: SCAN_BYTES };
        let found = p.store.scan(&node.log, self.index, &self.key, range, wall_ms())?;
        let rows = found.rows.into_iter().map(|(ts, value)| pb::ScanRow { ts, value }).collect();
        Ok(pb::ScanReply { rows, finished: found.finished, ..Default::default() })
    }

    fn reply(outcome: Result<pb::ScanReply, Refusal>, about: About) -> pb::ScanReply {
        let (reply, status) = split(outcome);
        pb::ScanReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::ScanReply) -> usize {
        reply.rows.iter().map(|r| r.value.len() + size_of::<pb::ScanRow>()).sum()
    }
}

impl Read for pb::CountRequest {
    type Reply = pb::CountReply;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn read(&self, _: &Node, p: &Partition) -> Result<pb::CountReply, Refusal> {
        let count = p.store.count(self.index, &self.key, self.filter_expired, wall_ms())?;
        Ok(pb::CountReply { count, ..Default::default() })
    }

    fn reply(outcome: Result<pb::CountReply, Refusal>, about: About) -> pb::CountReply {
        let (reply, status) = split(outcome);
        pb::CountReply { status, leader: about.leader, epoch: about.epoch.0, ..reply }
    }

    fn weight(_: &pb::CountReply) -> usize {
        0
    }
}

impl Read for pb::TraverseRequest {
    type Reply = pb::TraverseReply;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        true
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(0), 0)
    }

    fn read(&self, node: &Node, p: &Partition) -> Result<pb::TraverseReply, Refusal> {
        let limit = self.limit as usize;
        let page = p.store.traverse(&node.log, self.index, limit, &self.cursor, wall_ms())?;
        let row = |(key, ts, value)| pb::TraverseRow { key, ts, value };
        Ok(pb::TraverseReply {
            rows: page.rows.into_iter().map(row).collect(),
            finished: page.next.is_none(),
            cursor: page.next.unwrap_or_default(),
            ..Default::default()
        })
    }

    fn reply(outcome: Result<pb::TraverseReply, Refusal>, about: About) -> pb::TraverseReply {
        let (reply, status) = split(outcome);
        pb::TraverseReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::TraverseReply) -> usize {
        let row = |r: &pb::TraverseRow| r.key.len() + r.value.len() + size_of::<pb::TraverseRow>();
        reply.rows.iter().map(row).sum()
    }
}

fn split<R: Default>(outcome: Result<R, Refusal>) -> (R, Option<stela_proto::common::Status>) {
    match outcome {
        Ok(reply) => (reply, wire::ok()),
        Err(refusal) => (R::default(), wire::refused(&refusal)),
    }
}
