//! Which replicas are here: what the meta group decided is carried out.
//!
//! A replica is created when the meta group names this tablet among a partition's replicas, and removed only by a drop
//! that names its creation (R20). A copy that the catalog does not know is kept and reported (R37), also when the catalog
//! comes to give its number to another table.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionKey, TableId, TabletId};
use stela_common::log::Position;
use stela_common::table::Table;
use stela_common::wire::{Malformed, View};
use stela_proto::heartbeat as pb;
use stela_replica::message::Input;

use crate::chores::CONFIRM;
use crate::disk::Held;
use crate::loading;
use crate::node::{Address, Dropping, Inner, Node, Work};

/// No order keeps a leader from admitting writes for longer, ms.
const LONGEST_DRAIN: u64 = 10_000;

/// What a nameserver told, checked.
#[derive(Default)]
pub struct Told {
    /// Partitions with their tables.
    pub views: Vec<(Table, View)>,
    /// Tables that were dropped: which, and the Raft index of their creation.
    pub drops: Vec<(TableId, u64)>,
    /// Single replicas that were taken away from here: which, the Raft index of their table's creation, and of the removal.
    pub removals: Vec<(PartitionKey, u64, u64)>,
    /// Where tablets are.
    pub addresses: Vec<(TabletId, Address)>,
    /// R12: what is to be surrendered, in which epoch, within so many ms.
    pub drains: Vec<(PartitionKey, Epoch, u64)>,
}

impl TryFrom<&pb::HeartbeatDown> for Told {
    type Error = Malformed;

    fn try_from(down: &pb::HeartbeatDown) -> Result<Self, Malformed> {
        let mut told = Self::default();
        for view in &down.views {
            let table = view.table.as_ref().ok_or(Malformed("view.table"))?.try_into()?;
            let partition =
                view.partition.as_ref().ok_or(Malformed("view.partition"))?.try_into()?;
            told.views.push((table, partition));
        }
        for d in &down.drops {
            match d.pid {
                None => told.drops.push((TableId(d.tid), d.created_index)),
                Some(pid) => {
                    let key = PartitionKey::new(d.tid, pid);
                    told.removals.push((key, d.created_index, d.removal));
                }
            }
        }
        told.addresses.extend(down.tablets.iter().map(|t| {
            (
                TabletId(t.id),
                Address { endpoint: t.endpoint.clone(), incarnation: Incarnation(t.incarnation) },
            )
        }));
        told.drains.extend(
            down.drains.iter().map(|d| {
                (PartitionKey::new(d.tid, d.pid), Epoch(d.epoch), u64::from(d.deadline_ms))
            }),
        );
        Ok(told)
    }
}

/// Carries out what was told, in order: addresses, new replicas, views, drops.
///
/// # Errors
/// The disk refused to remember a new replica; nothing of `told` counts then, and it is to be asked for again.
pub fn apply(node: &Arc<Node>, told: Told) -> std::io::Result<()> {
    // Held until what was written counts: a table that is forgotten meanwhile would take the file with it.
    let files = node.table_files.lock();
    let views = set_apart(node, told.views);
    let held = to_remember(&node.look(), &views);
    for held in held.values() {
        node.files.set_table(held)?;
    }
    let (mut activated, mut moved) = (false, !views.is_empty());
    node.act(|inner, work| {
        for (id, address) in told.addresses {
            moved |=
                inner.addresses.insert(id, address.clone()).is_none_or(|known| known != address);
        }
        inner.tables.extend(held);
        for (table, view) in views {
            activated |= take(node, inner, work, (table, view));
        }
        for (tid, created) in told.drops {
            drop_table(inner, work, tid, created);
        }
        for (key, created, removal) in told.removals {
            drop_replica(inner, work, key, created, removal);
        }
        for (key, epoch, ms) in told.drains {
            let deadline = Millis::now().plus(ms.min(LONGEST_DRAIN));
            node.step(inner, work, key, Input::Drain { epoch, deadline }, &[]);
        }
    });
    drop(files);
    if moved {
        node.peers.notify_one();
    }
    if activated {
        node.report.notify_one();
    }
    Ok(())
}

/// What remains to be carried out: not what is about a partition of which a copy is here that is of another creation of
/// the table, or of one that nothing tells. The catalog was lost and gave the number out again (H26): what is here is kept,
/// and shown to nobody.
fn set_apart(node: &Node, views: Vec<(Table, View)>) -> Vec<(Table, View)> {
    let mut inner = node.look();
    let (ours, others) = views.into_iter().partition::<Vec<_>, _>(|(table, view)| {
        let created = |created| created == table.created_index;
        match (inner.tables.get(&table.tid), inner.orphans.get(&view.key)) {
            (Some(held), _) => created(held.table.created_index),
            (None, Some(orphan)) => match &orphan.snapshot {
                Some(snapshot) => created(snapshot.header().created_index),
                None => orphan.last == Offset(0),
            },
            (None, None) => true,
        }
    });
    for key in others.iter().map(|(_, view)| view.key) {
        // Whoever leads the new table has nothing to put in its place.
        let set_apart = inner
            .partitions
            .get_mut(&key)
            .is_none_or(|p| std::mem::replace(&mut p.contradicted, true));
        if set_apart {
            tracing::warn!(%key, "not created: a copy of another table that had its number is here");
            continue;
        }
        let why = "it is of another table that had this number before; it is kept, and not served";
        node.quarantine(&mut inner, key, why.into());
    }
    ours
}

/// Which replicas are to be here: made durable, one file for each table, before any of them exists, and without the
/// node's lock.
fn to_remember(inner: &Inner, views: &[(Table, View)]) -> BTreeMap<TableId, Held> {
    let mut changed: BTreeMap<TableId, Held> = BTreeMap::new();
    for (table, view) in views.iter().filter(|(_, v)| v.replicas.contains(&inner.tablet)) {
        let known = changed.get(&table.tid).or_else(|| inner.tables.get(&table.tid));
        if known.is_some_and(|h| h.table == *table && h.pids.contains(&view.key.pid)) {
            continue;
        }
        let mut held = known
            .cloned()
            .unwrap_or_else(|| Held { table: table.clone(), pids: Default::default() });
        held.table = table.clone();
        held.pids.insert(view.key.pid);
        changed.insert(table.tid, held);
    }
    changed
}

/// A decision about one partition with its table. Tells whether this tablet leads by it.
fn take(
    node: &Arc<Node>,
    inner: &mut Inner,
    work: &mut Work,
    (table, view): (Table, View),
) -> bool {
    let key = view.key;
    let table = Arc::new(table);
    match inner.partitions.get_mut(&key) {
        None if !view.replicas.contains(&inner.tablet) => return false,
        None => {
            let loaded = inner.orphans.remove(&key).unwrap_or_default();
            tracing::info!(%key, offset = %loaded.last, "replica is here");
            if let Some(pending) = loading::host(node, inner, key, table, loaded) {
                let node = node.clone();
                std::thread::spawn(move || loading::run(&node, vec![pending]));
            }
            inner.touch(key);
        }
        Some(p) if **p.store.table() != *table => {
            let options = table.options;
            p.store.set_table(table);
            // What a void core takes for committed may not be what the log has.
            let committed = p.suspended.is_none().then(|| p.core.commit());
            node.step(inner, work, key, Input::Options(options), &[]);
            // It may have waited to be told of an index.
            committed.into_iter().for_each(|to| node.commit(inner, key, to));
            node.show_at_once(inner, key);
            inner.touch(key);
        }
        Some(_) => {}
    }
    decide(node, inner, work, view)
}

/// Tells a replica what the meta group decided. Returns whether it leads by it.
pub(crate) fn decide(node: &Node, inner: &mut Inner, work: &mut Work, view: View) -> bool {
    let key = view.key;
    let leads = |inner: &Inner| inner.partitions.get(&key).is_some_and(|p| p.core.leads());
    let followers = |inner: &Inner| {
        inner
            .partitions
            .get(&key)
            .and_then(|p| p.core.view())
            .map_or(vec![], |v| v.replicas.clone())
    };
    let (led, before) = (leads(inner), followers(inner));
    node.step(inner, work, key, Input::View(view), &[]);
    if !leads(inner) {
        return false;
    }
    node.step(inner, work, key, Input::MetaLease(inner.lease_until), &[]);
    // Those who could be reached before they mattered here.
    let new: Vec<TabletId> =
        followers(inner).into_iter().filter(|t| !led || !before.contains(t)).collect();
    let conns = inner.outgoing.iter().filter(|(_, o)| new.contains(&o.peer));
    let conns: Vec<_> = conns.map(|(conn, o)| (*conn, o.peer, o.incarnation)).collect();
    for (conn, peer, incarnation) in conns {
        node.step(inner, work, key, Input::Connected { conn, peer, incarnation }, &[]);
    }
    !led
}

/// R20: only what the drop means goes; a later creation under the same number would be another table. Confirmed when
/// nothing of it can come back ([`chores`](crate::chores)).
fn drop_table(inner: &mut Inner, work: &mut Work, tid: TableId, created: u64) {
    match inner.tables.get(&tid).map(|h| h.table.created_index.cmp(&created)) {
        Some(Ordering::Greater) => {
            tracing::warn!(%tid, created, "a drop of an earlier creation is refused");
            return;
        }
        // Nothing of it came to be here: what is here is of another table (H26).
        Some(Ordering::Less) => {
            inner.dropped.insert(tid, CONFIRM);
            return;
        }
        _ => {}
    }
    if inner.dropping.contains_key(&tid) {
        return;
    }
    let replicas = inner.partitions.keys().chain(inner.orphans.keys());
    let left: BTreeSet<PartitionKey> = replicas.filter(|k| k.tid == tid).copied().collect();
    left.iter().for_each(|key| forget(inner, work, *key));
    inner.dropping.insert(tid, Dropping { left, until: Position::default() });
}

/// R20, for one replica. No other one of the partition comes to be here before this was confirmed, so what is here is what
/// is meant; an order that is older than what this tablet has been told since was refused before (the fences).
fn drop_replica(inner: &mut Inner, work: &mut Work, key: PartitionKey, created: u64, removal: u64) {
    let held = inner.tables.get(&key.tid);
    let other = held.is_some_and(|h| h.table.created_index != created);
    if other || inner.dropping.contains_key(&key.tid) || inner.removing.contains_key(&key) {
        return;
    }
    inner.removed.remove(&key);
    let here = inner.partitions.contains_key(&key) || inner.orphans.contains_key(&key);
    let mut left = BTreeSet::new();
    if here {
        forget(inner, work, key);
        left.insert(key);
    }
    inner.removing.insert(key, (removal, Dropping { left, until: Position::default() }));
}

/// A copy serves nobody any more, and its records in the log become void.
fn forget(inner: &mut Inner, work: &mut Work, key: PartitionKey) {
    inner.orphans.remove(&key);
    inner.suspended.remove(&key);
    inner.proposals.remove(&key);
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
