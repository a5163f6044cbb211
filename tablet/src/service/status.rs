//! `gettablestatus` and `getfollower`.

use stela_common::code::Code;
use stela_common::ids::PartitionKey;
use stela_common::wire;
use stela_proto::tablet as pb;

use crate::node::Node;
use crate::partition::Partition;
use crate::transfer::Progress;

/// The replicas here, all or those asked for; one that is not here is no row.
pub(super) fn tables(node: &Node, request: &pb::GetTableStatusRequest) -> pb::GetTableStatusReply {
    let inner = node.look();
    let wanted = |key: &PartitionKey| {
        request.tid.is_none_or(|t| t == key.tid.0) && request.pid.is_none_or(|p| p == key.pid.0)
    };
    let rows = inner
        .partitions
        .iter()
        .filter(|(key, _)| wanted(key))
        .map(|(key, p)| (key, p, node.transfers.progress(*key)))
        .map(|(key, p, rebuild)| pb::TableStatusRow {
            tid: key.tid.0,
            pid: key.pid.0,
            offset: p.last().0,
            leading: p.core.leads(),
            state: state(p, rebuild.is_some()).into(),
            enable_expire: p.store.expires(),
            memory: p.store.memory(),
            key_cnt: p.store.keys(),
            mapped: p.store.disk(),
            commit: p.applied.0,
            epoch: p.core.epoch().0,
            record_cnt: p.store.records(),
            serving: p.core.serving(),
            loaded: loaded(p, rebuild.as_ref()),
            rebuilding: rebuild.is_some(),
            rebuilt_bytes: rebuild.map_or(0, |r| r.done),
            rebuild_bytes: rebuild.map_or(0, |r| r.total),
            ttl: p
                .store
                .table()
                .live_indexes()
                .next()
                .map(|(_, index)| index.ttl.to_string())
                .unwrap_or_default(),
        })
        .collect();
    pb::GetTableStatusReply { status: wire::ok(), rows }
}

/// How much of what is loaded, or rebuilt, is there, in percent; 0 if neither is done, or that is not known.
fn loaded(p: &Partition, rebuild: Option<&Progress>) -> u64 {
    match (rebuild, &p.loading) {
        (Some(rebuild), _) => (rebuild.done * 100).checked_div(rebuild.total).unwrap_or(0),
        (None, Some(loading)) => loading.percent(),
        (None, None) => 0,
    }
}

/// The word for what a replica is doing, the most pressing one first.
fn state(p: &Partition, rebuilding: bool) -> &'static str {
    if rebuilding {
        "kTableLoading"
    } else if p.quarantine.is_some() {
        "kTableUndefined"
    } else if p.suspended.is_some() {
        "kTableLoading"
    } else if p.making_now {
        "kMakingSnapshot"
    } else if p.paused {
        "kSnapshotPaused"
    } else {
        "kTableNormal"
    }
}

/// The followers of a partition that is led here, and how far they have acknowledged.
pub(super) fn followers(node: &Node, request: &pb::GetFollowerRequest) -> pb::GetFollowerReply {
    let inner = node.look();
    let refuse = |code: Code| pb::GetFollowerReply {
        status: wire::refused(&code.into()),
        ..Default::default()
    };
    let Some(p) = inner.partitions.get(&PartitionKey::new(request.tid, request.pid)) else {
        return refuse(Code::TableNotFound);
    };
    if !p.core.leads() {
        return refuse(Code::TableIsFollower);
    }
    let mut followers: Vec<_> = p
        .core
        .followers()
        .filter_map(|(tablet, offset, _)| {
            let endpoint = inner.addresses.get(&tablet)?.endpoint.clone();
            Some(pb::FollowerRow { endpoint, offset: offset.0 })
        })
        .collect();
    if followers.is_empty() {
        return refuse(Code::HasNoFollower);
    }
    followers.sort_by(|a, b| a.endpoint.cmp(&b.endpoint));
    pb::GetFollowerReply { status: wire::ok(), leader_offset: p.last().0, followers }
}
