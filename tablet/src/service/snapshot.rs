//! Snapshots by hand: making one, pausing them, and waiting until a follower has one.
//!
//! The pause is a mark of this process: it ends with it. While it holds, nothing of the log that only a snapshot could
//! replace is given back.

use std::sync::Arc;
use std::time::Duration;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Offset, PartitionKey, TabletId};
use stela_common::wire;
use stela_proto::tablet as pb;
use tokio::time::Instant;

use super::replica::{find, reply};
use crate::node::{Inner, Node};

/// How long a follower is waited for when nothing else is asked for, and at most.
const WAIT: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn make(
    node: &Arc<Node>,
    request: pb::MakeSnapshotRequest,
) -> pb::MakeSnapshotReply {
    let key = PartitionKey::new(request.tid, request.pid);
    let (status, offset) = match node.make_snapshot(key).await {
        Ok(offset) => (wire::ok(), offset.0),
        Err(refusal) => (wire::refused(&refusal), 0),
    };
    pb::MakeSnapshotReply { status, offset }
}

pub(super) fn pause(node: &Node, request: pb::ReplicaRequest) -> pb::ReplicaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    reply(find(&mut node.look(), key).and_then(|p| {
        if p.making_now {
            return Err(Code::MakingSnapshot.into());
        }
        p.paused = true;
        Ok(())
    }))
}

pub(super) fn recover(node: &Node, request: pb::ReplicaRequest) -> pb::ReplicaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    reply(find(&mut node.look(), key).map(|p| p.paused = false))
}

/// Followers fetch what they need: what is left is to wait until one has what the last snapshot here holds.
pub(super) async fn send(node: &Node, request: pb::SendSnapshotRequest) -> pb::ReplicaReply {
    let asked = Duration::from_millis(request.wait_ms.into());
    let wait = if asked.is_zero() { WAIT } else { asked.min(WAIT) };
    let deadline = Instant::now() + wait;
    let key = PartitionKey::new(request.tid, request.pid);
    reply(loop {
        let standing = standing(&mut node.look(), key, &request.endpoint);
        let (has, wanted) = match standing {
            Ok(standing) => standing,
            Err(refusal) => break Err(refusal),
        };
        if has >= wanted {
            break Ok(());
        }
        if Instant::now() >= deadline {
            let text = format!(
                "{} has acknowledged entries up to {has}, the snapshot holds them up to {wanted}: it is on its way, ask again",
                request.endpoint
            );
            break Err(Refusal::new(Code::Behind, text));
        }
        tokio::select! {
            () = node.stop.cancelled() => break Err(Code::NotServing.into()),
            () = tokio::time::sleep(LOOK) => {}
        }
    })
}

/// What a follower has acknowledged, and what the last snapshot of its leader holds.
fn standing(
    inner: &mut Inner,
    key: PartitionKey,
    endpoint: &str,
) -> Result<(Offset, Offset), Refusal> {
    let me = inner.tablet;
    let at = |(id, address): (&TabletId, &crate::node::Address)| {
        (address.endpoint == endpoint).then_some(*id)
    };
    let there = inner.addresses.iter().find_map(at);
    let p = find(inner, key)?;
    if !p.core.leads() {
        return Err(Code::TableIsFollower.into());
    }
    if !p.paused {
        return Err(Code::SnapshotNotPaused.into());
    }
    let replicas = p.core.view().map_or(&[][..], |view| &view.replicas);
    let Some(follower) = there.filter(|t| *t != me && replicas.contains(t)) else {
        let text = format!(
            "{endpoint} is no follower of partition {key}: followers fetch snapshots themselves, add it with addreplica first"
        );
        return Err(Refusal::new(Code::InvalidParameter, text));
    };
    let has = p.core.followers().find(|(tablet, ..)| *tablet == follower);
    Ok((has.map_or(Offset(0), |(_, offset, _)| offset), p.store.base()))
}
