//! What the nameservers tell of the table: who leads what, and whether all is *whole*: every replica alive, in the in-sync
//! set, and at its leader's commit offset.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use stela_common::client::Client;
use stela_proto::nameserver::{PartitionRow, ReplicaRow};

/// How much has to be right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Goal {
    /// Every replica is alive and in the in-sync set.
    InSync,
    /// And has its leader's commit offset: only to be had when nobody writes.
    Whole,
}

/// The partitions of a table as the nameservers see them.
pub(super) async fn partitions(
    client: &Client,
    db: &str,
    table: &str,
) -> Result<Vec<PartitionRow>> {
    let shown = client.admin().show_table(db, table, false).await?;
    Ok(shown
        .tables
        .into_iter()
        .next()
        .with_context(|| format!("table {table} is not there"))?
        .partitions)
}

/// Who leads which partitions now.
pub(super) fn leaders(partitions: &[PartitionRow]) -> BTreeMap<String, BTreeSet<u32>> {
    let mut led: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for partition in partitions {
        if let Some(leader) = leader(partition) {
            led.entry(leader.endpoint.clone()).or_default().insert(partition.pid);
        }
    }
    led
}

/// The replica that leads a partition now. One that has led before it failed keeps its role until it is in sync again.
pub(super) fn leader(partition: &PartitionRow) -> Option<&ReplicaRow> {
    partition.replicas.iter().find(|r| r.leader && r.alive)
}

/// Waits until all is so. `watch` sees what is missing meanwhile.
pub(super) async fn wait(
    client: &Client,
    (db, table): (&str, &str),
    goal: Goal,
    limit: Duration,
    mut watch: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let missing = match partitions(client, db, table).await {
            Ok(partitions) => match partitions.iter().find_map(|p| missing(p, goal)) {
                None => return Ok(()),
                Some(missing) => missing,
            },
            Err(error) => error.to_string(),
        };
        ensure!(Instant::now() < deadline, "not whole after {} s: {missing}", limit.as_secs());
        watch(&missing)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What a partition lacks.
fn missing(partition: &PartitionRow, goal: Goal) -> Option<String> {
    let pid = partition.pid;
    let Some(leader) =
        leader(partition).filter(|leader| partition.serving && leader.in_sync && leader.known)
    else {
        return Some(format!("partition {pid} has no leader that serves"));
    };
    partition.replicas.iter().find_map(|replica| {
        let at = &replica.endpoint;
        if !replica.alive {
            Some(format!("partition {pid}: the replica at {at} is not alive"))
        } else if !replica.in_sync {
            Some(format!("partition {pid}: the replica at {at} is catching up"))
        } else if goal == Goal::Whole && (!replica.known || replica.commit != leader.commit) {
            Some(format!(
                "partition {pid}: the replica at {at} has offset {} of {}",
                replica.commit, leader.commit
            ))
        } else {
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(endpoint: &str, leader: bool, commit: u64) -> ReplicaRow {
        ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive: true,
            known: true,
            in_sync: true,
            commit,
            ..ReplicaRow::default()
        }
    }

    fn partition() -> PartitionRow {
        let replicas = vec![replica("a:1", true, 7), replica("b:1", false, 7)];
        PartitionRow { pid: 2, epoch: 3, replicas, serving: true, ..Default::default() }
    }

    #[test]
    fn whole_is_everything_and_each_thing_that_is_missing_is_named() {
        assert_eq!(missing(&partition(), Goal::Whole), None);
        let lacks = |change: fn(&mut PartitionRow), goal| {
            let mut partition = partition();
            change(&mut partition);
            missing(&partition, goal)
        };
        assert!(lacks(|p| p.serving = false, Goal::InSync).unwrap().contains("no leader"));
        assert!(
            lacks(|p| p.replicas[0].alive = false, Goal::InSync).unwrap().contains("no leader")
        );
        assert!(
            lacks(|p| p.replicas[1].alive = false, Goal::InSync).unwrap().contains("not alive")
        );
        assert!(
            lacks(|p| p.replicas[1].in_sync = false, Goal::InSync)
                .unwrap()
                .contains("b:1 is catching up")
        );
        assert!(lacks(|p| p.replicas[1].commit = 6, Goal::Whole).unwrap().contains("6 of 7"));
        assert!(lacks(|p| p.replicas[1].known = false, Goal::Whole).is_some());
        assert_eq!(lacks(|p| p.replicas[1].commit = 6, Goal::InSync), None);
    }

    #[test]
    fn a_dead_tablet_leads_nothing() {
        let mut one = partition();
        one.replicas[0].alive = false;
        one.replicas[1].leader = true;
        let led = leaders(&[one, partition()]);
        assert_eq!(
            led,
            BTreeMap::from([
                ("a:1".into(), BTreeSet::from([2])),
                ("b:1".into(), BTreeSet::from([2]))
            ])
        );
    }
}
