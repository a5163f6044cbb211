//! One replica by hand: its table, opening it, removing it, whether its rows expire.
//!
//! **Invariants**
//! * R22: to open a copy gives it no role and creates none. Copies that the catalog knows are open from the start on, so
//!   what is left of the command is to say whether one is.
//! * Nothing is removed here: whatever is on the disk may be the last copy, and only the catalog knows of others.

use stela_common::code::{Code, Refusal};
use stela_common::ids::PartitionKey;
use stela_common::wire;
use stela_proto::tablet as pb;

use crate::node::{Inner, Node};
use crate::partition::Partition;

/// The answer to most commands.
pub(super) fn reply(outcome: Result<(), Refusal>) -> pb::ReplicaReply {
    let status = match outcome {
        Ok(()) => wire::ok(),
        Err(refusal) => wire::refused(&refusal),
    };
    pb::ReplicaReply { status }
}

/// A replica that is here.
pub(super) fn find(inner: &mut Inner, key: PartitionKey) -> Result<&mut Partition, Refusal> {
    inner.partitions.get_mut(&key).ok_or_else(|| Code::TableNotFound.into())
}

/// The table as a replica here knows it.
pub(super) fn schema(node: &Node, request: pb::TableSchemaRequest) -> pb::TableSchemaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    match find(&mut node.look(), key) {
        Ok(p) => {
            let table = Some((&**p.store.table()).into());
            pb::TableSchemaReply { status: wire::ok(), table }
        }
        Err(refusal) => pb::TableSchemaReply { status: wire::refused(&refusal), table: None },
    }
}

/// `loadtable`: operators run it after a restart, as often as they like.
pub(super) fn load(node: &Node, request: &pb::LoadTableRequest) -> pb::ReplicaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    let inner = node.look();
    reply(match inner.partitions.get(&key) {
        Some(p) if p.store.table().name != request.name => {
            let text = format!(
                "table name does not match: {} is table {}",
                request.tid,
                p.store.table().name
            );
            Err(Refusal::new(Code::InvalidParameter, text))
        }
        Some(p) => match &p.quarantine {
            Some(why) => {
                let text = format!("{}: {why}", Code::Quarantined.text());
                Err(Refusal::new(Code::Quarantined, text))
            }
            None => Ok(()),
        },
        None if inner.orphans.contains_key(&key) => Err(Refusal::new(
            Code::TableNotFound,
            "a copy of it is here, but the catalog does not know the table: it is kept, and not loaded",
        )),
        None => Err(Code::NoCopy.into()),
    })
}

/// `drop`: only what is not here is as good as dropped.
pub(super) fn drop(node: &Node, request: pb::ReplicaRequest) -> pb::ReplicaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    let inner = node.look();
    let kept = || format!("it is kept in {}", node.config.dir.display());
    reply(match inner.partitions.get(&key) {
        Some(p) if p.making_now => Err(Code::MakingSnapshot.into()),
        Some(p) if p.core.view().is_none_or(|v| v.replicas.contains(&inner.tablet)) => {
            Err(Refusal::new(
                Code::InvalidParameter,
                "the catalog has this replica: use delreplica, or drop the table",
            ))
        }
        Some(_) => Err(Refusal::new(
            Code::InvalidParameter,
            format!("the catalog does not have this replica any more: {}", kept()),
        )),
        None if inner.orphans.contains_key(&key) => Err(Refusal::new(
            Code::InvalidParameter,
            format!("a copy of it is here, and the catalog does not know the table: {}", kept()),
        )),
        None => Ok(()),
    })
}

/// `setexpire`: until the process ends. Off, rows that have expired are seen, swept by nobody, and put into snapshots.
pub(super) fn set_expire(node: &Node, request: pb::SetExpireRequest) -> pb::ReplicaReply {
    let key = PartitionKey::new(request.tid, request.pid);
    reply(find(&mut node.look(), key).map(|p| p.store.set_expires(request.on)))
}
