//! Which replicas are here: what the meta group decided is carried out.
//!
//! A replica is created when the meta group names this tablet among a partition's replicas, and removed only by a drop
//! that names its creation (R20). A copy that the catalog does not know is kept and reported (R37).

use std::collections::BTreeMap;
use std::sync::Arc;

use stela_common::clock::Millis;
use stela_common::ids::{Incarnation, PartitionKey, TableId, TabletId};
use stela_common::table::Table;
use stela_common::wire::{Malformed, View};
use stela_proto::heartbeat as pb;
use stela_replica::message::Input;

use crate::disk::Held;
use crate::node::{Address, Inner, Node, Work};
use crate::partition::Partition;

/// What a nameserver told, checked.
#[derive(Default)]
pub struct Told {
    /// Partitions with their tables.
    pub views: Vec<(Table, View)>,
    /// Tables that were dropped: which, and the Raft index of their creation.
    pub drops: Vec<(TableId, u64)>,
    /// Where tablets are.
    pub addresses: Vec<(TabletId, Address)>,
}

impl TryFrom<&pb::HeartbeatDown> for Told {
    type Error = Malformed;

    fn try_from(down: &pb::HeartbeatDown) -> Result<Self, Malformed> {
        let mut told = Self::default();
        for view in &down.views {
            let table = view.table.as_ref().ok_or(Malformed("view.table"))?.try_into()?;
            let partition = view.partition.as_ref().ok_or(Malformed("view.partition"))?.try_into()?;
            told.views.push((table, partition));
        }
        told.drops.extend(down.drops.iter().map(|d| (TableId(d.tid), d.created_index)));
        told.addresses.extend(down.tablets.iter().map(|t| {
            (TabletId(t.id), Address { endpoint: t.endpoint.clone(), incarnation: Incarnation(t.incarnation) })
        }));
        Ok(told)
    }
}

/// Carries out what was told, in order: addresses, new replicas, views, drops.
///
/// # Errors
/// The disk refused to remember a new replica; nothing of `told` counts then, and it is to be asked for again.
pub fn apply(node: &Arc<Node>, told: Told) -> std::io::Result<()> {
    let mut activated = false;
    node.act(|inner, work| {
        for (id, address) in told.addresses {
            inner.addresses.insert(id, address);
        }
        remember(node, inner, &told.views)?;
        for (table, view) in told.views {
            activated |= take(node, inner, work, table, view);
        }
        for (tid, created) in told.drops {
            drop_table(node, inner, work, tid, created)?;
        }
        Ok::<_, std::io::Error>(())
    })?;
    node.peers.notify_one();
    if activated {
        node.report.notify_one();
    }
    Ok(())
}

/// Makes durable which replicas are here, one file for each table, before any of them exists.
fn remember(node: &Node, inner: &mut Inner, views: &[(Table, View)]) -> std::io::Result<()> {
    let mut changed: BTreeMap<TableId, Held> = BTreeMap::new();
    for (table, view) in views.iter().filter(|(_, v)| v.replicas.contains(&inner.tablet)) {
        let known = changed.get(&table.tid).or_else(|| inner.tables.get(&table.tid));
        if known.is_some_and(|h| h.table == *table && h.pids.contains(&view.key.pid)) {
            continue;
        }
        let mut held = known.cloned().unwrap_or_else(|| Held { table: table.clone(), pids: Default::default() });
        held.table = table.clone();
        held.pids.insert(view.key.pid);
        changed.insert(table.tid, held);
    }
    for (tid, held) in changed {
        node.files.set_table(&held)?;
        inner.tables.insert(tid, held);
    }
    Ok(())
}

/// A decision about one partition. Tells whether this tablet leads by it.
fn take(node: &Arc<Node>, inner: &mut Inner, work: &mut Work, table: Table, view: View) -> bool {
    let key = view.key;
    if !view.replicas.contains(&inner.tablet) {
        return false;
    }
    let table = Arc::new(table);
    match inner.partitions.get_mut(&key) {
        None => {
            let identity = node.identity(inner.tablet, key, &table);
            let loaded = inner.orphans.remove(&key).unwrap_or_default();
            let known = loaded.commit;
            let partition = Partition::new(identity, table, loaded, Millis::now());
            inner.partitions.insert(key, partition);
            tracing::info!(%key, offset = %known, "replica is here");
        }
        Some(p) => {
            if **p.store.table() != *table {
                p.store.set_table(table);
            }
        }
    }
    let led = inner.partitions.get(&key).is_some_and(|p| p.core.leads());
    node.step(inner, work, key, Input::View(view), &[]);
    let leads = inner.partitions.get(&key).is_some_and(|p| p.core.leads());
    if leads {
        node.step(inner, work, key, Input::MetaLease(inner.lease_until), &[]);
    }
    if leads && !led {
        let conns: Vec<_> = inner.outgoing.iter().map(|(c, o)| (*c, o.peer, o.incarnation)).collect();
        for (conn, peer, incarnation) in conns {
            let follows = inner.partitions.get(&key).and_then(|p| p.core.view()).is_some_and(|v| v.replicas.contains(&peer));
            if follows {
                node.step(inner, work, key, Input::Connected { conn, peer, incarnation }, &[]);
            }
        }
    }
    leads && !led
}

fn drop_table(node: &Node, inner: &mut Inner, work: &mut Work, tid: TableId, created: u64) -> std::io::Result<()> {
    if inner.tables.get(&tid).is_some_and(|h| h.table.created_index > created) {
        tracing::warn!(%tid, created, "a drop of an earlier creation is refused");
        return Ok(());
    }
    let keys: Vec<PartitionKey> = inner.partitions.keys().filter(|k| k.tid == tid).copied().collect();
    for key in keys {
        if let Some(mut p) = inner.partitions.remove(&key) {
            p.fail_waiters(&stela_common::code::Code::TableNotFound.into(), "");
            p.parked.notify_waiters();
        }
        for outgoing in inner.outgoing.values_mut() {
            outgoing.ships.remove(&key);
        }
        work.purge(key);
        tracing::info!(%key, "replica is dropped");
    }
    node.files.remove_table(tid)?;
    inner.tables.remove(&tid);
    if !inner.dropped.contains(&tid) {
        inner.dropped.push(tid);
    }
    Ok(())
}
