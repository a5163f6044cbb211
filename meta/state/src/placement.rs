//! Where the replicas of a new table go.
//!
//! Invariants: every partition gets as many different healthy tablets as it has replicas. The one that leads least leads
//! it, and those that hold least follow; ties are decided by the order of the endpoints, so that the same state always
//! gives the same placement.

use std::collections::BTreeMap;

use stela_common::ids::TabletId;

use crate::state::State;

/// What a tablet has to carry.
#[derive(Clone, Copy, Default)]
struct Load {
    replicas: usize,
    leaders: usize,
}

/// For each partition its tablets, the first one leads. `None`: there are fewer healthy tablets than replicas.
#[must_use]
pub fn place(state: &State, partitions: u32, replicas: u32) -> Option<Vec<Vec<TabletId>>> {
    let mut tablets: Vec<(&str, TabletId)> = state
        .tablets
        .iter()
        .filter(|(_, t)| t.healthy && !t.leaving)
        .map(|(id, t)| (t.endpoint.as_str(), *id))
        .collect();
    tablets.sort_unstable();
    let wanted = replicas as usize;
    if wanted == 0 || tablets.len() < wanted {
        return None;
    }
    let mut load = loads(state, &tablets);
    let named = |row: Vec<usize>| row.into_iter().map(|at| tablets[at].1).collect();
    Some((0..partitions).map(|_| named(row(&mut load, wanted))).collect())
}

/// What each tablet carries already, in the order of `tablets`.
fn loads(state: &State, tablets: &[(&str, TabletId)]) -> Vec<Load> {
    let mut by_id: BTreeMap<TabletId, Load> = BTreeMap::new();
    for partition in state.partitions.values() {
        for replica in &partition.replicas {
            by_id.entry(replica.tablet).or_default().replicas += 1;
        }
        by_id.entry(partition.leader).or_default().leaders += 1;
    }
    tablets.iter().map(|(_, id)| by_id.get(id).copied().unwrap_or_default()).collect()
}

/// The places of one partition: the leader, then the others in the order after it, around.
fn row(load: &mut [Load], wanted: usize) -> Vec<usize> {
    let count = load.len();
    let leader =
        (0..count).min_by_key(|at| (load[*at].leaders, load[*at].replicas, *at)).unwrap_or(0);
    let after = |at: usize| (at + count - leader) % count;
    let mut followers: Vec<usize> = (0..count).filter(|at| *at != leader).collect();
    followers.sort_by_key(|at| (load[*at].replicas, after(*at)));
    followers.truncate(wanted - 1);
    followers.sort_by_key(|at| after(*at));
    let row: Vec<usize> = std::iter::once(leader).chain(followers).collect();
    for at in &row {
        load[*at].replicas += 1;
    }
    load[leader].leaders += 1;
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::World;

    fn world(tablets: u32) -> (World, Vec<TabletId>) {
        let mut world = World::new();
        let ids = (0..tablets).map(|n| world.register(&format!("t:{n}"))).collect();
        (world, ids)
    }

    #[test]
    fn leaders_go_around_and_followers_come_after_them() {
        let (world, t) = world(3);
        let rows = place(&world.state, 3, 3).unwrap();
        assert_eq!(rows, [[t[0], t[1], t[2]], [t[1], t[2], t[0]], [t[2], t[0], t[1]]]);
    }

    #[test]
    fn leaders_and_replicas_are_even_whatever_the_sizes() {
        for tablets in 1..7 {
            for replicas in 1..=tablets {
                for partitions in [1, 2, 5, 8, 30] {
                    let (world, ids) = world(tablets);
                    let rows = place(&world.state, partitions, replicas).unwrap();
                    let leads = |t: &TabletId| rows.iter().filter(|r| r[0] == *t).count();
                    let holds = |t: &TabletId| rows.iter().filter(|r| r.contains(t)).count();
                    let spread = |count: &dyn Fn(&TabletId) -> usize| {
                        let counts: Vec<usize> = ids.iter().map(count).collect();
                        counts.iter().max().unwrap() - counts.iter().min().unwrap()
                    };
                    assert!(
                        spread(&holds) <= 1,
                        "{tablets} tablets, {replicas} replicas, {partitions} partitions: {rows:?}"
                    );
                    assert!(
                        spread(&leads) <= 1,
                        "{tablets} tablets, {replicas} replicas, {partitions} partitions: {rows:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_there_already_counts_and_who_is_offline_gets_nothing() {
        let (mut world, t) = world(3);
        world.create("first", &[&[t[0]]]);
        assert_eq!(place(&world.state, 2, 1).unwrap(), [[t[1]], [t[2]]]);
        world.offline(t[2]);
        assert_eq!(place(&world.state, 1, 2).unwrap(), [[t[1], t[0]]]);
        assert_eq!(place(&world.state, 1, 3), None);
    }
}
