//! What a job does next, and when it has ended.
//!
//! Invariants: it follows from the state alone, so that it goes on under another nameserver; only so much is ordered at a
//! time, each partition one thing after the other; a job ends: when what it is for is reached, when nothing more can be
//! done for it, or when too much of it has failed.

use std::collections::BTreeSet;

use stela_common::ids::{JobId, PartitionKey, TabletId};

use super::Pass;
use super::balance::Balance;
use crate::command::{Command, Work};
use crate::job::{Job, JobKind, Moved};
use crate::op::{OpKind, OpStatus};
use crate::state::{Partition, State};

/// So many partitions of a job are worked on at a time.
const AT_A_TIME: usize = 8;
/// A job of which more operations than this fail, and more than succeed, is given up.
const FAILURES: u32 = 20;

/// How much of a job is left to do.
#[must_use]
pub fn remaining(state: &State, observed: &super::Observed, job: &Job) -> usize {
    Pass::new(state, observed).remaining(job)
}

/// Something that changes whenever a job comes further, for noticing that it stands still.
#[must_use]
pub fn progress(state: &State, observed: &super::Observed, job: &Job) -> (usize, u32) {
    let left = match job.kind {
        JobKind::RecoverData => remaining(state, observed, job),
        // It comes further by operations only.
        _ => 0,
    };
    (left, job.done + job.failed)
}

/// What a job that goes on waits for, in words.
#[must_use]
pub fn waits_for(state: &State, observed: &super::Observed, job: &Job) -> String {
    Pass::new(state, observed).why_not(job)
}

/// A piece of work of one operation.
fn work(kind: OpKind, key: PartitionKey, tablet: TabletId, to: Option<TabletId>) -> Work {
    Work { kind, key, tablet, to }
}

impl Pass<'_> {
    pub(super) fn advance_jobs(&mut self) {
        for (id, job) in self.state.jobs.iter().filter(|(_, job)| !job.status.is_final()) {
            if let Some(command) = self.advance(*id, job) {
                self.commands.push(command);
            }
        }
    }

    fn advance(&self, id: JobId, job: &Job) -> Option<Command> {
        let end = |status, why: String| Some(Command::EndJob { job: id, status, why });
        let busy: BTreeSet<PartitionKey> = self
            .state
            .partitions
            .iter()
            .filter(|(_, p)| !p.queue.is_empty())
            .map(|(key, _)| *key)
            .collect();
        let ours = |key: &PartitionKey| {
            let mut queue = self.state.partitions.get(key).into_iter().flat_map(|p| &p.queue);
            queue.any(|op| self.state.ops.get(op).is_some_and(|op| op.job == Some(id)))
        };
        let open = busy.iter().filter(|key| ours(key)).count();
        let left = self.remaining(job);
        if left == 0 && open == 0 {
            return end(OpStatus::Done, String::new());
        }
        if job.failed > FAILURES && job.failed > job.done {
            return end(
                OpStatus::Failed,
                format!("{} operations failed: showopstatus", job.failed),
            );
        }
        if open < AT_A_TIME {
            let work = self.next_work(job, &busy, AT_A_TIME - open);
            if !work.is_empty() {
                return Some(Command::GoOn { job: id, work });
            }
        }
        if open == 0 && self.observed.standing.contains(&id) {
            return end(OpStatus::Failed, self.why_not(job));
        }
        None
    }

    /// What is missing of what the job is for.
    fn remaining(&self, job: &Job) -> usize {
        let partitions = self.state.partitions.iter();
        match job.kind {
            JobKind::RecoverData => partitions.map(|(key, p)| self.lacks(*key, p)).sum(),
            JobKind::ScaleOut => Balance::new(self.state).moves_left(),
            JobKind::ScaleIn => {
                let here = |p: &Partition| {
                    p.replicas.iter().filter(|r| job.tablets.contains(&r.tablet)).count()
                };
                let dropping = self.state.removals.values().flat_map(|gone| gone.keys());
                let dropping = dropping
                    .filter(|t| job.tablets.contains(t) && self.state.is_healthy(**t))
                    .count();
                partitions.map(|(_, p)| here(p)).sum::<usize>() + dropping
            }
            JobKind::PreUpgrade => partitions.filter(|(_, p)| self.is_to_leave(job, p)).count(),
            JobKind::PostUpgrade => {
                let back = |m: &&Moved| {
                    self.state.partitions.get(&m.key).is_some_and(|p| {
                        job.tablets.iter().any(|home| self.is_to_come_back(p, m, *home))
                    })
                };
                job.moved.iter().filter(back).count()
            }
        }
    }

    /// How many replicas of a partition are not as they should be; one that nobody leads lacks all.
    fn lacks(&self, key: PartitionKey, partition: &Partition) -> usize {
        let serves = self.report(key, partition.leader).is_some_and(|r| {
            r.serving && r.epoch == partition.epoch && r.incarnation == partition.leader_incarnation
        });
        if !serves || !self.is_led(key, partition) {
            return partition.replicas.len();
        }
        let missing = |tablet| !self.state.is_alive(partition, tablet);
        partition.replicas.iter().filter(|r| missing(r.tablet)).count()
    }

    fn is_to_leave(&self, job: &Job, partition: &Partition) -> bool {
        let stays = job.allow_single_replica && partition.replicas.len() == 1;
        job.tablets.contains(&partition.leader) && !stays
    }

    fn is_to_come_back(&self, partition: &Partition, moved: &Moved, home: TabletId) -> bool {
        partition.replica(home).is_some()
            && (partition.leader != home
                || moved.extra.is_some_and(|extra| partition.replica(extra).is_some()))
    }

    fn next_work(&self, job: &Job, busy: &BTreeSet<PartitionKey>, room: usize) -> Vec<Work> {
        let mut balance = Balance::new(self.state);
        match job.kind {
            // The cluster does it by itself; what was held was released when the job began.
            JobKind::RecoverData => Vec::new(),
            JobKind::ScaleOut => balance.moves(busy, room),
            JobKind::ScaleIn => {
                let free = self.state.partitions.iter().filter(|(key, _)| !busy.contains(key));
                let mut all = Vec::new();
                let mut partitions = 0;
                for (key, partition) in free {
                    let here = partition.replicas.iter().map(|r| r.tablet);
                    let mut here = here.filter(|t| job.tablets.contains(t));
                    if let Some(from) = here.next().filter(|_| partitions < room) {
                        let moved = balance.move_away(*key, partition, from);
                        partitions += usize::from(!moved.is_empty());
                        all.extend(moved);
                    }
                }
                all
            }
            JobKind::PreUpgrade => {
                let free = self.state.partitions.iter().filter(|(key, _)| !busy.contains(key));
                let leaving = free.filter(|(_, p)| self.is_to_leave(job, p)).take(room);
                let handed = leaving.flat_map(|(key, p)| balance.hand_over(*key, p));
                handed.collect()
            }
            JobKind::PostUpgrade => {
                let free = job.moved.iter().filter(|m| !busy.contains(&m.key));
                let back = free.filter_map(|m| {
                    let partition = self.state.partitions.get(&m.key)?;
                    let home = *job.tablets.first()?;
                    self.is_to_come_back(partition, m, home).then(|| {
                        let back = work(OpKind::ChangeLeader, m.key, home, Some(home));
                        let extra = m.extra.filter(|extra| partition.replica(*extra).is_some());
                        let gone = extra.map(|extra| work(OpKind::DelReplica, m.key, extra, None));
                        let back = (partition.leader != home).then_some(back);
                        back.into_iter().chain(gone).collect::<Vec<_>>()
                    })
                });
                back.take(room).flatten().collect()
            }
        }
    }

    /// Why nothing more can be done.
    fn why_not(&self, job: &Job) -> String {
        let left = self.remaining(job);
        match job.kind {
            JobKind::RecoverData => {
                let why = super::obstacles(self.state, self.observed);
                let leaderless = why.len();
                let first = why.into_iter().next().map(|(key, why)| format!(" ({key} {why})"));
                let away = self.state.tablets.iter().filter(|(_, t)| !t.healthy);
                let away: Vec<&str> = away.map(|(_, t)| t.endpoint.as_str()).collect();
                let away = match away.is_empty() {
                    true => String::new(),
                    false => format!("; offline: {}", away.join(", ")),
                };
                format!(
                    "{left} replicas are not in sync, {leaderless} partitions have no leader{}{away}",
                    first.unwrap_or_default()
                )
            }
            JobKind::ScaleIn => format!("{left} replicas find no other tablet"),
            JobKind::PreUpgrade => format!("{left} partitions have nobody else to lead them"),
            JobKind::ScaleOut => format!("{left} moves are not possible"),
            JobKind::PostUpgrade => format!("{left} leaderships do not come back"),
        }
    }
}
