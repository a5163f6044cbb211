//! What is done when time passes: replicas that wait, reports that are due, drops that finish, rows that expire,
//! snapshots, and the log's length.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Timelike as _;
use stela_common::clock::{Millis, wall_ms};
use stela_common::ids::{Offset, PartitionKey, TableId};
use stela_replica::message::Input;

use crate::node::{Dropping, Inner, Node, Work};
use crate::registry;
use crate::snapshot::files as snapshots;
use crate::write;

/// How often cores that wait for something are told that time has passed.
const TICK: Duration = Duration::from_millis(25);
/// A confirmation goes with so many heartbeats that are answered: the nameserver that leads has long heard it then.
pub(crate) const CONFIRM: u32 = 100;
/// A purge that the disk refused is tried again after this, ms.
const PURGE_AGAIN: u64 = 1000;
/// A copy of which a snapshot was tried by itself is not tried again before, ms: what failed would fail again.
const SNAPSHOT_AGAIN: u64 = 60_000;

/// Ticks until the node stops.
pub async fn tick(node: Arc<Node>) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut purged = Millis::default();
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            _ = timer.tick() => {}
        }
        let now = Millis::now();
        node.act(|inner, work| {
            node.step_all(inner, work, |_, p| !p.core.idle(), || Input::Tick);
            resume(&node, inner, work, now);
            // A purge that fails adds to nothing, so it may be tried at any time.
            let again = now.since(purged) > PURGE_AGAIN;
            if again {
                purged = now;
                let one = inner.removing.values().map(|(_, dropping)| dropping);
                let left = inner.dropping.values().chain(one).flat_map(|d| &d.left);
                left.for_each(|key| work.purge(*key));
                write::empty_deleted(&node, inner, work);
            }
        });
        confirm_drops(&node);
        confirm_removals(&node);
        report(&node);
    }
}

/// Replicas that were suspended are made anew.
fn resume(node: &Arc<Node>, inner: &mut Inner, work: &mut Work, now: Millis) {
    let due = |key: &&_| {
        inner.partitions.get(key).and_then(|p| p.suspended.as_ref()).is_none_or(|s| s.until <= now)
    };
    let due: Vec<_> = inner.suspended.iter().filter(due).copied().collect();
    for key in due {
        if let Some(view) = node.resume(inner, key) {
            registry::decide(node, inner, work, view);
        }
    }
}

/// A drop is confirmed when the purges are safe: nothing of the table comes back after a crash.
fn confirm_drops(node: &Arc<Node>) {
    let synced = node.log.synced();
    let done: Vec<TableId> = {
        let inner = node.look();
        let done = inner.dropping.iter().filter(|(_, d)| d.left.is_empty() && d.until <= synced);
        done.map(|(tid, _)| *tid).collect()
    };
    if done.is_empty() {
        return;
    }
    // Files of tables or snapshots are being written: the next tick comes soon.
    let Some(_files) = node.table_files.try_lock() else { return };
    let Ok(_snapshots) = node.snapshots.try_lock() else { return };
    for tid in done {
        let removed = snapshots::remove_table(node.files.disk(), &node.files.snapshots(), tid);
        if let Err(e) = removed.and_then(|()| node.files.remove_table(tid)) {
            tracing::error!(%tid, error = %e, "cannot forget a dropped table; tries again");
            continue;
        }
        let mut inner = node.look();
        inner.tables.remove(&tid);
        inner.dropping.remove(&tid);
        inner.dropped.insert(tid, CONFIRM);
        node.report.notify_one();
    }
}

/// The same for a single replica.
fn confirm_removals(node: &Arc<Node>) {
    let synced = node.log.synced();
    let safe = |dropping: &Dropping| dropping.left.is_empty() && dropping.until <= synced;
    let done: Vec<(PartitionKey, u64)> = {
        let inner = node.look();
        let done = inner.removing.iter().filter(|(_, (_, dropping))| safe(dropping));
        done.map(|(key, (removal, _))| (*key, *removal)).collect()
    };
    if done.is_empty() {
        return;
    }
    let Some(_files) = node.table_files.try_lock() else { return };
    let Ok(_snapshots) = node.snapshots.try_lock() else { return };
    for (key, removal) in done {
        let removed = snapshots::remove_replica(node.files.disk(), &node.files.snapshots(), key);
        let held = node.look().tables.get(&key.tid).cloned();
        let rest = held.map(|mut held| {
            held.pids.remove(&key.pid);
            held
        });
        let stored = removed.and_then(|()| match &rest {
            Some(held) if !held.pids.is_empty() => node.files.set_table(held),
            _ => node.files.remove_table(key.tid),
        });
        if let Err(e) = stored {
            tracing::error!(%key, error = %e, "cannot forget a dropped replica; tries again");
            continue;
        }
        let mut inner = node.look();
        match rest {
            Some(held) if !held.pids.is_empty() => drop(inner.tables.insert(key.tid, held)),
            _ => drop(inner.tables.remove(&key.tid)),
        }
        inner.removing.remove(&key);
        inner.removed.insert(key, (removal, CONFIRM));
        node.report.notify_one();
    }
}

/// What has changed goes with the next heartbeat; at once, if nothing more has changed for a tick: while a tablet is
/// busy its figures are old when they arrive anyway, but the last ones are waited for.
fn report(node: &Arc<Node>) {
    let mut inner = node.look();
    let quiet = !std::mem::take(&mut inner.changed);
    if quiet && !inner.unreported.is_empty() {
        node.report.notify_one();
    }
}

/// Something that is done once in a certain hour of each day.
struct Daily {
    hour: u32,
    /// The day on which it was done last.
    done: Option<chrono::NaiveDate>,
}

impl Daily {
    fn is_due(&mut self, now: chrono::NaiveDateTime) -> bool {
        now.hour() == self.hour && self.done.replace(now.date()) != Some(now.date())
    }
}

/// Makes the snapshots that are due, and gives back what nobody needs of the log, until the node stops.
pub async fn keep_short(node: Arc<Node>) {
    let mut tried: BTreeMap<PartitionKey, (Offset, Millis)> = BTreeMap::new();
    let mut daily = Daily { hour: node.config.snapshots.hour, done: None };
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.config.snapshots.look) => {}
        }
        if daily.is_due(chrono::Local::now().naive_local()) {
            node.snapshot_all().await;
        }
        let mut may_try = |key: PartitionKey| {
            let base = node.look().partitions.get(&key).map_or(Offset(0), |p| p.store.base());
            let now = Millis::now();
            let before = tried.insert(key, (base, now));
            let again = before.is_none_or(|(was, at)| was < base || now.since(at) > SNAPSHOT_AGAIN);
            if let Some(before) = before.filter(|_| !again) {
                tried.insert(key, before);
            }
            again
        };
        node.keep_short(&mut may_try).await;
        let inner = node.look();
        tried
            .retain(|key, _| inner.partitions.contains_key(key) || inner.orphans.contains_key(key));
    }
}

/// Sweeps expired rows out of the indexes until the node stops, some buckets of a replica at a time.
pub async fn sweep(node: Arc<Node>) {
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = tokio::time::sleep(node.config.sweep) => {}
        }
        let keys: Vec<_> = node.look().partitions.keys().copied().collect();
        for key in keys {
            let mut from = Some((0, 0));
            while let Some(at) = from {
                {
                    let mut inner = node.look();
                    let p = inner.partitions.get_mut(&key);
                    from = p.and_then(|p| p.store.sweep(at, wall_ms()));
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    #[test]
    fn once_a_day_in_its_hour_whenever_it_is_looked() {
        let mut daily = Daily { hour: 23, done: None };
        let at = |day, hour, minute| {
            NaiveDate::from_ymd_opt(2026, 3, day).unwrap().and_hms_opt(hour, minute, 0).unwrap()
        };
        let times = [(1, 22, 59), (1, 23, 0), (1, 23, 1), (2, 0, 0), (2, 23, 59), (3, 23, 0)];
        let due = times.map(|(day, hour, minute)| daily.is_due(at(day, hour, minute)));
        assert_eq!(due, [false, true, false, false, true, true]);
        let mut never = Daily { hour: 24, done: None };
        assert!((0..24).all(|hour| !never.is_due(at(1, hour, 0))));
    }
}
