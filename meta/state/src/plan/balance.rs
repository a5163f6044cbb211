//! Which replicas and leaders are to move so that all tablets carry about the same.
//!
//! Invariants: what is ordered and not done yet counts as done; no partition has two replicas on one tablet; nothing moves
//! to a tablet that is offline or to be emptied. Replicas are even when no tablet has two more than another; then leaders
//! are evened among those that have a replica.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::ids::{PartitionKey, TabletId};

use crate::command::Work;
use crate::op::OpKind;
use crate::state::{Partition, State};

/// What each tablet carries, and who holds what.
pub(super) struct Balance<'a> {
    state: &'a State,
    /// The tablets that take part: healthy, and not to be emptied.
    tablets: Vec<TabletId>,
    holders: BTreeMap<PartitionKey, BTreeSet<TabletId>>,
    replicas: BTreeMap<TabletId, usize>,
    leaders: BTreeMap<TabletId, usize>,
}

impl<'a> Balance<'a> {
    pub(super) fn new(state: &'a State) -> Self {
        let taking_part = state.tablets.iter().filter(|(_, t)| t.healthy && !t.leaving);
        let mut this = Self {
            state,
            tablets: taking_part.map(|(id, _)| *id).collect(),
            holders: BTreeMap::new(),
            replicas: BTreeMap::new(),
            leaders: BTreeMap::new(),
        };
        for (key, partition) in &state.partitions {
            let mut holders: BTreeSet<TabletId> =
                partition.replicas.iter().map(|r| r.tablet).collect();
            for op in partition.queue.iter().filter_map(|id| state.ops.get(id)) {
                holders.extend(op.copies_to());
                if matches!(op.kind, OpKind::Migrate | OpKind::DelReplica) {
                    holders.remove(&op.tablet);
                }
            }
            for holder in &holders {
                *this.replicas.entry(*holder).or_default() += 1;
            }
            *this.leaders.entry(partition.leader).or_default() += 1;
            this.holders.insert(*key, holders);
        }
        this
    }

    fn load(&self, tablet: TabletId) -> usize {
        self.replicas.get(&tablet).copied().unwrap_or(0)
    }

    fn led(&self, tablet: TabletId) -> usize {
        self.leaders.get(&tablet).copied().unwrap_or(0)
    }

    fn most(&self, by: impl Fn(TabletId) -> usize) -> Option<TabletId> {
        self.tablets.iter().copied().max_by_key(|t| (by(*t), std::cmp::Reverse(*t)))
    }

    fn least(&self, by: impl Fn(TabletId) -> usize) -> Option<TabletId> {
        self.tablets.iter().copied().min_by_key(|t| (by(*t), *t))
    }

    /// How many moves are still missing until all is even. Leaders count when the replicas are even, and as long as one
    /// can be moved: who leads has to have a replica.
    pub(super) fn moves_left(&mut self) -> usize {
        match self.uneven(|t| self.load(t)) {
            0 if self.next_leader(&BTreeSet::new()).is_some() => {
                // The one that was just found counts as moved.
                1 + self.uneven(|t| self.led(t))
            }
            0 => 0,
            moves => moves,
        }
    }

    /// How many have to move until no tablet has two more than another.
    fn uneven(&self, by: impl Fn(TabletId) -> usize) -> usize {
        let counts: Vec<usize> = self.tablets.iter().map(|t| by(*t)).collect();
        let (sum, tablets) = (counts.iter().sum::<usize>(), counts.len().max(1));
        let (least, most) = (sum / tablets, sum.div_ceil(tablets));
        let over: usize = counts.iter().map(|count| count.saturating_sub(most)).sum();
        let under: usize = counts.iter().map(|count| least.saturating_sub(*count)).sum();
        over.max(under)
    }

    /// The next moves of partitions that are free, as many as there is room for.
    pub(super) fn moves(&mut self, busy: &BTreeSet<PartitionKey>, room: usize) -> Vec<Work> {
        let mut all = Vec::new();
        let mut touched: BTreeSet<PartitionKey> = busy.clone();
        let mut count = 0;
        while count < room {
            let Some(moved) = self.next_move(&touched) else { break };
            touched.extend(moved.first().map(|w| w.key));
            all.extend(moved);
            count += 1;
        }
        // Leaders only when the replicas stay where they are.
        if count == 0 && busy.is_empty() {
            while count < room {
                let Some(handed) = self.next_leader(&touched) else { break };
                touched.insert(handed.key);
                all.push(handed);
                count += 1;
            }
        }
        all
    }

    /// From the fullest tablet to the emptiest.
    fn next_move(&mut self, touched: &BTreeSet<PartitionKey>) -> Option<Vec<Work>> {
        let (from, to) = (self.most(|t| self.load(t))?, self.least(|t| self.load(t))?);
        if self.load(from) < self.load(to) + 2 {
            return None;
        }
        let movable = self.holders.iter().filter(|(key, holders)| {
            !touched.contains(key) && holders.contains(&from) && !holders.contains(&to)
        });
        // A follower moves without anybody noticing.
        let key = *movable.min_by_key(|(key, _)| self.leads(**key, from)).map(|(key, _)| key)?;
        let partition = self.state.partitions.get(&key)?;
        Some(self.relocate(key, partition, from, to))
    }

    fn leads(&self, key: PartitionKey, tablet: TabletId) -> bool {
        self.state.partitions.get(&key).is_some_and(|p| p.leader == tablet)
    }

    /// The replica of `from` goes to whoever carries least and has none.
    pub(super) fn move_away(
        &mut self,
        key: PartitionKey,
        partition: &Partition,
        from: TabletId,
    ) -> Vec<Work> {
        let Some(to) = self.elsewhere(key) else { return Vec::new() };
        self.relocate(key, partition, from, to)
    }

    fn elsewhere(&self, key: PartitionKey) -> Option<TabletId> {
        let holders = self.holders.get(&key)?;
        let free = self.tablets.iter().copied().filter(|t| !holders.contains(t));
        free.min_by_key(|t| (self.load(*t), *t))
    }

    fn relocate(
        &mut self,
        key: PartitionKey,
        partition: &Partition,
        from: TabletId,
        to: TabletId,
    ) -> Vec<Work> {
        let work = |kind, tablet, to| Work { kind, key, tablet, to };
        if let Some(holders) = self.holders.get_mut(&key) {
            holders.remove(&from);
            holders.insert(to);
        }
        *self.replicas.entry(from).or_default() -= 1;
        *self.replicas.entry(to).or_default() += 1;
        if partition.leader != from {
            return vec![work(OpKind::Migrate, from, Some(to))];
        }
        if partition.replicas.len() == 1 {
            return vec![
                work(OpKind::AddReplica, to, Some(to)),
                work(OpKind::ChangeLeader, to, Some(to)),
                work(OpKind::DelReplica, from, None),
            ];
        }
        match self.successor(partition, from) {
            Some(next) => vec![
                work(OpKind::ChangeLeader, next, Some(next)),
                work(OpKind::Migrate, from, Some(to)),
            ],
            None => Vec::new(),
        }
    }

    /// Who is to lead in the place of `from`: of those that can, the one that leads least.
    fn successor(&mut self, partition: &Partition, from: TabletId) -> Option<TabletId> {
        let others = partition.replicas.iter().map(|r| r.tablet).filter(|t| *t != from);
        let able = others.filter(|t| self.state.is_electable(partition, *t));
        let stays = |t: &TabletId| !self.tablets.contains(t);
        let next = able.min_by_key(|t| (stays(t), self.led(*t), *t))?;
        *self.leaders.entry(next).or_default() += 1;
        if let Some(count) = self.leaders.get_mut(&from) {
            *count = count.saturating_sub(1);
        }
        Some(next)
    }

    /// Another one leads; where there is no other replica, one is added for the time.
    pub(super) fn hand_over(&mut self, key: PartitionKey, partition: &Partition) -> Vec<Work> {
        let work = |kind, to| Work { kind, key, tablet: to, to: Some(to) };
        if partition.replicas.len() > 1 {
            let next = self.successor(partition, partition.leader);
            return next.map(|to| work(OpKind::ChangeLeader, to)).into_iter().collect();
        }
        let Some(to) = self.elsewhere(key) else { return Vec::new() };
        *self.replicas.entry(to).or_default() += 1;
        vec![work(OpKind::AddReplica, to), work(OpKind::ChangeLeader, to)]
    }

    fn next_leader(&mut self, touched: &BTreeSet<PartitionKey>) -> Option<Work> {
        let from = self.most(|t| self.led(t))?;
        let most = self.led(from);
        let led = self.state.partitions.iter();
        let led = led.filter(|(key, p)| p.leader == from && !touched.contains(key));
        let choices = led.filter_map(|(key, partition)| {
            let others = partition.replicas.iter().map(|r| r.tablet);
            let able = others.filter(|t| {
                self.tablets.contains(t)
                    && self.led(*t) + 2 <= most
                    && self.state.is_electable(partition, *t)
            });
            let to = able.min_by_key(|t| (self.led(*t), *t))?;
            Some((self.led(to), *key, to))
        });
        let (_, key, to) = choices.min()?;
        *self.leaders.entry(to).or_default() += 1;
        *self.leaders.entry(from).or_default() -= 1;
        Some(Work { kind: OpKind::ChangeLeader, key, tablet: to, to: Some(to) })
    }
}
