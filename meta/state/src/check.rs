//! What always holds of a state, and of a step from one state to the next.
//!
//! Tests and the simulation check every state and every step with these; the first thing that is broken is named. Nothing
//! here is called by a nameserver.

use std::collections::BTreeSet;

use stela_common::ids::{PartitionKey, TabletId};
use stela_common::table::Sync;

use crate::op::OpStatus;
use crate::state::{HISTORY, JOBS, OPS, PAST, Partition, SESSIONS, State, Tablet};

/// An invariant that does not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

macro_rules! holds {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err(Broken(format!($($text)+)));
        }
    };
}

/// Does all hold that must hold of a state by itself?
///
/// # Errors
/// The first invariant that is broken.
pub fn state(state: &State) -> Result<(), Broken> {
    catalog(state)?;
    let mut switches = BTreeSet::new();
    for (key, partition) in &state.partitions {
        if let Some(switch) = partition.switch {
            let goes_on = state.ops.get(&switch.op).is_some_and(|op| !op.status.is_final());
            holds!(
                goes_on && switches.insert(switch.op),
                "the switch of {key} is no op that goes on"
            );
        }
        let interval =
            state.tables.get(&key.tid).is_some_and(|t| matches!(t.options.sync, Sync::Interval(_)));
        holds!(
            partition.may_lose_tail || !interval,
            "{key} may lose its tail and is not so marked"
        );
        holds!(state.tables.contains_key(&key.tid), "partition {key} of no table");
        shape(*key, partition)?;
        queue(state, *key, partition)?;
        members(state, *key, partition)?;
        holds!(
            partition.version.0 <= state.applied,
            "{key} has version {} of the future",
            partition.version
        );
    }
    for (key, gone) in &state.removals {
        let partition = state.partitions.get(key);
        holds!(partition.is_some() && !gone.is_empty(), "a removal from {key}, which is not there");
        let back = gone.keys().find(|t| partition.is_some_and(|p| p.replica(**t).is_some()));
        holds!(back.is_none(), "{back:?} of {key} is there and taken away");
    }
    for (id, tablet) in &state.tablets {
        runs(*id, tablet)?;
    }
    records(state)
}

/// What is queued has not ended, and only the first has begun.
fn queue(state: &State, key: PartitionKey, partition: &Partition) -> Result<(), Broken> {
    for (at, id) in partition.queue.iter().enumerate() {
        let op = state.ops.get(id);
        holds!(
            op.is_some_and(|op| op.key == key && !op.status.is_final()),
            "op {id} is queued at {key} and has ended, or is another partition's"
        );
        holds!(
            at == 0 || op.is_some_and(|op| op.status == OpStatus::Inited),
            "op {id} of {key} has begun before its turn"
        );
        holds!(!partition.queue[..at].contains(id), "op {id} is queued twice at {key}");
    }
    Ok(())
}

/// Names are unique, numbers are below their counters, a table has all of its partitions (R37).
fn catalog(state: &State) -> Result<(), Broken> {
    let mut names = BTreeSet::new();
    for (tid, table) in &state.tables {
        holds!(
            table.tid == *tid && tid.0 != 0 && tid.0 <= state.counters.table,
            "table {tid} was never numbered"
        );
        holds!(
            names.insert((&table.db, &table.name)),
            "two tables are named {}.{}",
            table.db,
            table.name
        );
        holds!(
            table.db.is_empty() || state.databases.contains_key(&table.db),
            "table {tid} is in no database"
        );
        holds!(
            table.created_index != 0 && table.created_index <= state.applied,
            "table {tid} was never created"
        );
        let pids = state.partitions_of(*tid).map(|(pid, _)| pid.0);
        holds!(pids.eq(0..table.partition_num), "table {tid} lacks partitions, or has more");
    }
    for (tid, tombstone) in &state.tombstones {
        holds!(!state.tables.contains_key(tid), "table {tid} is there and dropped");
        holds!(tid.0 <= state.counters.table, "dropped table {tid} was never numbered");
        holds!(!tombstone.waiting.is_empty(), "tombstone of {tid} waits for nobody");
    }
    let mut endpoints = BTreeSet::new();
    for (id, tablet) in &state.tablets {
        holds!(id.0 != 0 && id.0 <= state.counters.tablet, "tablet {id} was never numbered");
        holds!(endpoints.insert(&tablet.endpoint), "two tablets are at {}", tablet.endpoint);
    }
    Ok(())
}

/// A partition by itself: who leads is in the set, the set is among the replicas, the history ends with the epoch.
fn shape(key: PartitionKey, partition: &Partition) -> Result<(), Broken> {
    let distinct =
        |tablets: Vec<TabletId>| tablets.iter().collect::<BTreeSet<_>>().len() == tablets.len();
    holds!(
        distinct(partition.replicas.iter().map(|r| r.tablet).collect()),
        "{key} has two replicas on one tablet"
    );
    holds!(
        distinct(partition.in_sync.iter().map(|m| m.tablet).collect()),
        "{key} has a member twice"
    );
    holds!(
        partition.member(partition.leader).is_some(),
        "the leader of {key} is not in sync: {partition:?}"
    );
    for member in &partition.in_sync {
        holds!(
            partition.replica(member.tablet).is_some(),
            "member {} of {key} has no replica",
            member.tablet
        );
        holds!(
            partition.replica(member.tablet).is_none_or(|r| !r.was_leader || r.held),
            "member {} of {key} is shown as a former leader",
            member.tablet
        );
    }
    holds!(
        partition.last_unclean <= partition.epoch
            && (partition.last_unclean.0 == 0) == (partition.uncleans == 0),
        "{key} counts {} unclean epochs, the last one {}",
        partition.uncleans,
        partition.last_unclean
    );
    let led = partition.replica(partition.leader);
    holds!(led.is_none_or(|r| !r.was_leader), "the leader of {key} is shown as a former one");
    holds!(partition.epoch.0 != 0, "{key} has no epoch");
    let history = &partition.history;
    holds!(
        !history.is_empty() && history.len() <= HISTORY,
        "{key} has {} epochs on record",
        history.len()
    );
    holds!(
        history.windows(2).all(|w| w[0].epoch < w[1].epoch),
        "the epochs of {key} do not grow: {history:?}"
    );
    let last =
        history.last().is_some_and(|l| l.epoch == partition.epoch && l.leader == partition.leader);
    holds!(last, "the history of {key} does not end with its epoch: {partition:?}");
    Ok(())
}

/// R14: who is trusted stands in the set as the run that is registered.
fn members(state: &State, key: PartitionKey, partition: &Partition) -> Result<(), Broken> {
    for replica in &partition.replicas {
        holds!(
            state.tablets.contains_key(&replica.tablet),
            "{key} has a replica on unknown tablet {}",
            replica.tablet
        );
    }
    for replica in &partition.replicas {
        let marked = partition.member(replica.tablet).is_some_and(|m| m.untrusted);
        holds!(
            marked == replica.doubt.is_some(),
            "{} of {key} is marked without a reason, or doubted without a mark",
            replica.tablet
        );
    }
    for member in partition.in_sync.iter().filter(|m| !m.untrusted) {
        let registered = state.tablets.get(&member.tablet).map(|t| t.incarnation);
        holds!(
            registered == Some(member.incarnation),
            "member {} of {key} is trusted as run {}, registered is {registered:?}",
            member.tablet,
            member.incarnation
        );
    }
    Ok(())
}

/// R14: the list of starts ends with the run that is registered, and no superseded run is it.
fn runs(id: TabletId, tablet: &Tablet) -> Result<(), Broken> {
    holds!(tablet.incarnation.0 != 0, "tablet {id} has no run");
    holds!(
        tablet.starts.last() == Some(&tablet.incarnation),
        "the starts of tablet {id} end with another run"
    );
    holds!(
        !tablet.past.contains(&tablet.incarnation),
        "tablet {id} is registered as a superseded run"
    );
    holds!(tablet.past.len() <= PAST, "tablet {id} remembers {} past runs", tablet.past.len());
    Ok(())
}

/// Operations, sessions and settings.
fn records(state: &State) -> Result<(), Broken> {
    for (id, op) in &state.ops {
        holds!(id.0 != 0 && id.0 <= state.counters.op, "op {id} was never numbered");
        holds!(
            op.status.is_final() == (op.end != 0) || op.start == 0,
            "op {id} ends at {} as {:?}",
            op.end,
            op.status
        );
    }
    let open = state.ops.values().filter(|op| !op.status.is_final()).count();
    let queued: usize = state.partitions.values().map(|p| p.queue.len()).sum();
    holds!(open == queued, "{open} ops have not ended, and {queued} are queued");
    let going = state.jobs.values().filter(|job| !job.status.is_final()).count();
    holds!(going <= 1 && state.jobs.len() <= JOBS, "{going} of {} jobs go on", state.jobs.len());
    holds!(state.ops.len() <= OPS.max(open), "{} ops are remembered", state.ops.len());
    let mut used = BTreeSet::new();
    for (client, session) in &state.sessions {
        holds!(session.used <= state.counters.session, "session {client} was used in the future");
        holds!(used.insert(session.used), "session {client} was used at the same time as another");
    }
    holds!(state.sessions.len() <= SESSIONS, "{} sessions are remembered", state.sessions.len());
    for (key, setting) in &state.config {
        holds!(key == "auto_failover", "unknown setting {key}");
        holds!(
            setting.value == "true" || setting.value == "false",
            "{key} is set to {}",
            setting.value
        );
    }
    Ok(())
}

/// Does all hold that must hold of a step, which is one applied batch? (A real proposer cannot know the version that an
/// earlier command of the same batch gives to a partition, so a partition has one leader per batch.)
///
/// # Errors
/// The first invariant that is broken.
pub fn step(before: &State, after: &State) -> Result<(), Broken> {
    holds!(
        after.applied >= before.applied,
        "the index went back from {} to {}",
        before.applied,
        after.applied
    );
    holds!(before.cluster.is_empty() || before.cluster == after.cluster, "the cluster was renamed");
    holds!(after.controller.epoch >= before.controller.epoch, "the controller epoch went back");
    counters(before, after)?;
    for (key, was) in &before.partitions {
        if let Some(is) = after.partitions.get(key) {
            let gone = was.replicas.iter().map(|r| r.tablet).filter(|t| is.replica(*t).is_none());
            let removed = |t| after.removals.get(key).is_some_and(|gone| gone.contains_key(&t));
            let lost = gone.into_iter().find(|t| !removed(*t));
            holds!(lost.is_none(), "replica {lost:?} of {key} is forgotten");
            epochs(*key, was, is)?;
            let runs = (before.tablets.get(&is.leader), after.tablets.get(&is.leader));
            if was.epoch == is.epoch {
                same_epoch(after, *key, was, is)?
            } else {
                elected(runs, *key, was, is)?
            }
        } else {
            holds!(
                !after.tables.contains_key(&key.tid),
                "partition {key} is gone, its table is not"
            );
        }
    }
    for (id, was) in &before.tablets {
        let Some(is) = after.tablets.get(id) else {
            return Err(Broken(format!("tablet {id} is forgotten")));
        };
        holds!(was.endpoint == is.endpoint, "tablet {id} moved");
        let late = was.incarnation != is.incarnation
            && (was.starts.contains(&is.incarnation) || was.past.contains(&is.incarnation));
        holds!(!late, "tablet {id} went back to run {}", is.incarnation);
    }
    Ok(())
}

/// R37: numbers are never given twice, and a drop is remembered until it is confirmed.
fn counters(before: &State, after: &State) -> Result<(), Broken> {
    let (was, is) = (&before.counters, &after.counters);
    let grow = is.table >= was.table
        && is.tablet >= was.tablet
        && is.op >= was.op
        && is.session >= was.session;
    holds!(grow, "a counter went back: {was:?} to {is:?}");
    for (tid, table) in &after.tables {
        let known = before.tables.get(tid).map(|t| t.created_index);
        holds!(
            known.map_or(tid.0 > was.table, |index| index == table.created_index),
            "number {tid} was given to a second table"
        );
    }
    for (tid, table) in before.tables.iter().filter(|(tid, _)| !after.tables.contains_key(tid)) {
        holds!(
            after.tombstones.contains_key(tid),
            "table {tid} ({}) was dropped without a tombstone",
            table.name
        );
    }
    for (tid, tombstone) in &after.tombstones {
        let fewer =
            before.tombstones.get(tid).is_none_or(|was| tombstone.waiting.is_subset(&was.waiting));
        holds!(fewer, "the tombstone of {tid} waits for more than before");
    }
    for (id, op) in before.ops.iter().filter(|(_, op)| op.status.is_final()) {
        holds!(after.ops.get(id).is_none_or(|now| now == op), "op {id} changed after its end");
    }
    for (client, session) in &before.sessions {
        holds!(
            after.sessions.get(client).is_none_or(|now| now.seq >= session.seq),
            "session {client} went back"
        );
    }
    Ok(())
}

/// Epochs and versions only grow, and what is on record of an epoch stays.
fn epochs(key: PartitionKey, was: &Partition, is: &Partition) -> Result<(), Broken> {
    holds!(
        is.epoch >= was.epoch,
        "the epoch of {key} went back from {} to {}",
        was.epoch,
        is.epoch
    );
    holds!(
        is.version >= was.version,
        "the version of {key} went back from {} to {}",
        was.version,
        is.version
    );
    let decided = |p: &Partition| (p.epoch, p.leader, p.leader_incarnation, p.in_sync.clone());
    holds!(
        is.version > was.version || decided(is) == decided(was),
        "{key} changed within version {}",
        is.version
    );
    holds!(
        is.uncleans >= was.uncleans && is.last_unclean >= was.last_unclean,
        "an unclean epoch of {key} was forgotten"
    );
    holds!(is.may_lose_tail || !was.may_lose_tail, "{key} is trusted more than it was (R14)");
    for old in &was.history {
        let kept = is.history.iter().find(|l| l.epoch == old.epoch);
        let same = kept.is_none_or(|new| {
            (new.leader, new.unclean, new.surrendered) == (old.leader, old.unclean, old.surrendered)
                && (old.start.is_none() || new.start == old.start)
        });
        holds!(same, "epoch {} of {key} was rewritten: {old:?} to {kept:?}", old.epoch);
    }
    Ok(())
}

/// R1, R7, R8: within an epoch the leader stays, who comes into the set is healthy, registered and not held, and a mark
/// of distrust goes only with the membership.
fn same_epoch(
    after: &State,
    key: PartitionKey,
    was: &Partition,
    is: &Partition,
) -> Result<(), Broken> {
    let leader = |p: &Partition| (p.leader, p.leader_incarnation);
    holds!(leader(was) == leader(is), "epoch {} of {key} has two leaders", is.epoch);
    holds!(was.uncleans == is.uncleans, "epoch {} of {key} became unclean later", is.epoch);
    for member in &is.in_sync {
        match was.member(member.tablet) {
            None => {
                let tablet = after.tablets.get(&member.tablet);
                let fit =
                    tablet.is_some_and(|t| member.untrusted || t.incarnation == member.incarnation);
                let held = is.is_held(member.tablet) && was.is_held(member.tablet);
                holds!(fit && !held, "{} was added to {key} as {member:?}", member.tablet);
            }
            Some(known) => {
                holds!(
                    member.untrusted || !known.untrusted,
                    "{} of {key} is trusted again by itself",
                    member.tablet
                );
            }
        }
    }
    Ok(())
}

/// R13: one epoch further, to a trusted member of the set that it had, with nobody in the set who was not.
fn elected(
    (before, after): (Option<&Tablet>, Option<&Tablet>),
    key: PartitionKey,
    was: &Partition,
    is: &Partition,
) -> Result<(), Broken> {
    holds!(is.epoch == was.epoch.next(), "{key} went from epoch {} to {}", was.epoch, is.epoch);
    let unclean = is.history.last().is_some_and(|l| l.unclean);
    holds!(
        is.uncleans == was.uncleans + u64::from(unclean)
            && unclean == (is.last_unclean == is.epoch),
        "epoch {} of {key} is not counted as it began",
        is.epoch
    );
    holds!(
        !unclean || is.in_sync.len() == 1,
        "after an unclean election {key} has {:?}",
        is.in_sync
    );
    let member = was.member(is.leader);
    holds!(
        unclean || member.is_some_and(|m| !m.untrusted),
        "{key} elected {} out of {:?}",
        is.leader,
        was.in_sync
    );
    // The next run may have registered right after, in the same batch.
    let registered =
        before.into_iter().chain(after).any(|t| t.incarnation == is.leader_incarnation);
    holds!(registered, "{key} elected run {} of {}", is.leader_incarnation, is.leader);
    let subset = is.in_sync.iter().all(|m| was.member(m.tablet).is_some());
    holds!(
        unclean || subset,
        "an election brought a member into {key}: {:?} to {:?}",
        was.in_sync,
        is.in_sync
    );
    Ok(())
}
