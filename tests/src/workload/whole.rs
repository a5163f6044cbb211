//! Is every partition led, and are all of its replicas in sync?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use stela_common::client::Client;
use stela_proto::nameserver::{PartitionRow, ShowTableReply};

/// Waits until every replica is in the in-sync set and has the leader's commit offset. Tells how long that took.
///
/// Under load the offsets of one moment are never seen: what is waited for is that every replica reaches what its leader
/// had committed when all of them were first seen in sync, and that none leaves meanwhile.
///
/// # Errors
/// It is not so within `limit`.
pub async fn await_whole(client: &Client, limit: Duration) -> Result<Duration> {
    let began = Instant::now();
    let mut goal: Option<Commits> = None;
    loop {
        let last = match client.admin().show_table("", "", true).await {
            Ok(shown) => match in_sync(&shown) {
                Ok(commits) => {
                    let goal = goal.get_or_insert(commits);
                    match behind(&shown, goal) {
                        None => return Ok(began.elapsed()),
                        Some(why) => why,
                    }
                }
                Err(why) => {
                    goal = None;
                    why
                }
            },
            Err(e) => e.to_string(),
        };
        if began.elapsed() > limit {
            bail!("not whole after {limit:?}: {last}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What leaders have committed, by table and partition.
type Commits = BTreeMap<(u32, u32), u64>;

fn partitions(shown: &ShowTableReply) -> impl Iterator<Item = ((u32, u32), &PartitionRow)> {
    shown.tables.iter().flat_map(|table| {
        let tid = table.table.as_ref().map_or(0, |t| t.tid);
        table.partitions.iter().map(move |p| ((tid, p.pid), p))
    })
}

/// The leaders' commit offsets, if every partition has a serving leader and all of its replicas in sync.
fn in_sync(shown: &ShowTableReply) -> Result<Commits, String> {
    let mut commits = Commits::new();
    for (key, partition) in partitions(shown) {
        let leader = partition.replicas.iter().find(|r| r.leader && r.alive && r.in_sync);
        let Some(leader) = leader.filter(|_| partition.serving) else {
            return Err(format!("partition {key:?} has no serving leader"));
        };
        if let Some(r) = partition.replicas.iter().find(|r| !r.in_sync || !r.alive || !r.known) {
            return Err(format!("partition {key:?}: {} is not in sync: {r:?}", r.endpoint));
        }
        commits.insert(key, leader.commit);
    }
    Ok(commits)
}

/// The first replica that does not have all of that.
fn behind(shown: &ShowTableReply, goal: &Commits) -> Option<String> {
    partitions(shown).find_map(|(key, partition)| {
        let goal = goal.get(&key).copied().unwrap_or_default();
        let r = partition.replicas.iter().find(|r| r.commit < goal)?;
        Some(format!("partition {key:?}: {} has {} of {goal}", r.endpoint, r.commit))
    })
}
