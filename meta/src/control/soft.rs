//! The soft state of the nameserver that leads: signs of life, reports, and who may be given a lease. None of it is
//! replicated; a nameserver that takes over begins with nothing and asks for all of it.
//!
//! **Invariants**
//! * A tablet against which an offline transition or an election is proposed gets no lease until its outcome is applied
//!   (R17): it is barred before the proposal is made, under the same lock that leases are given under.
//! * A report counts for the run that made it.
//!
//! Pure: the time is an input.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::clock::Millis;
use stela_common::ids::{
    Epoch, Incarnation, JobId, Offset, OpId, PartitionKey, TableId, TabletId, Version,
};
use stela_meta_state::command::Command;
use stela_meta_state::job::Job;
use stela_meta_state::op::{OpKind, OpStatus};
use stela_meta_state::plan::{self, Drain, Observed, Report, Seen};
use stela_meta_state::state::State;

use super::guard::Guard;
use super::judge::{Judge, Timing};
use super::trials::Trials;

/// A planned switch is given up after this, ms (R12).
const SWITCH: u64 = 10_000;
/// A snapshot that was ordered is given up after this, ms.
const SNAPSHOT: u64 = 600_000;
/// A copy that does not come to be in sync is given up after this, ms (OpenMLDB's `name_server_op_execute_timeout`).
const COPY: u64 = 7_200_000;
/// A job that has come no further for so long, ms, stands still.
const STANDS: u64 = 30_000;
/// That a partition has no leader is said after this, ms: an ordinary election is over by then.
const BLOCKED: u64 = 5_000;
/// And again after this, ms.
const AGAIN: u64 = 60_000;

/// What the nameserver that leads knows beside the state.
#[derive(Debug)]
pub struct Soft {
    /// Signs of life.
    pub judge: Judge,
    /// R19.
    pub guard: Guard,
    trials: Trials,
    /// For the planner and for display; [`Soft::plan`] brings the tablets up to date.
    observed: Observed,
    /// Up to which index each tablet has carried out what was decided; for display.
    known: BTreeMap<TabletId, u64>,
    /// Grows with each report that a decision may depend on.
    revision: u64,
    /// On what basis nothing was to be done.
    idle: Option<Basis>,
    /// When time alone will give something to do; `None`: never.
    due: Option<Millis>,
    /// Partitions that nobody leads and nobody can be elected for, as of the last plan.
    blocked: BTreeMap<PartitionKey, Blocked>,
    barred: BTreeSet<TabletId>,
    /// Operations that go on, and since when they are known here.
    ops: BTreeMap<OpId, Millis>,
    /// Jobs that go on: how far they had come when that last changed, and when it did.
    jobs: BTreeMap<JobId, ((usize, u32), Millis)>,
    drains: Vec<Drain>,
    timing: Timing,
}

/// A partition that nobody leads.
#[derive(Debug)]
struct Blocked {
    why: String,
    /// It is to be said next.
    says: Millis,
}

/// All that a plan depends on, but for the figures that only choose among candidates.
#[derive(PartialEq, Debug)]
struct Basis {
    applied: u64,
    revision: u64,
    tablets: BTreeMap<TabletId, Seen>,
}

impl Soft {
    /// A nameserver that takes over at `now`.
    #[must_use]
    pub fn new(timing: Timing, now: Millis) -> Self {
        Self {
            judge: Judge::new(timing, now),
            guard: Guard::default(),
            trials: Trials::default(),
            observed: Observed::default(),
            known: BTreeMap::new(),
            revision: 0,
            idle: None,
            due: None,
            blocked: BTreeMap::new(),
            barred: BTreeSet::new(),
            ops: BTreeMap::new(),
            jobs: BTreeMap::new(),
            drains: Vec::new(),
            timing,
        }
    }

    /// A tablet has carried out all that was decided up to there.
    pub fn carried_out(&mut self, tablet: TabletId, index: u64) {
        self.known.insert(tablet, index);
    }

    /// Up to which index a tablet has carried out what was decided; 0: it has not said.
    #[must_use]
    pub fn known(&self, tablet: TabletId) -> u64 {
        self.known.get(&tablet).copied().unwrap_or(0)
    }

    /// Time passes.
    pub fn tick(&mut self, now: Millis) {
        if self.judge.tick(now) {
            self.guard.begin_again();
        }
    }

    /// A run reports what replicas it has. Of partitions that are not there (any more) nothing is kept. `true`: there may be
    /// something to decide.
    pub fn report(
        &mut self,
        state: &State,
        tablet: TabletId,
        reports: impl IntoIterator<Item = (PartitionKey, Report)>,
    ) -> bool {
        let revision = self.revision;
        for (key, report) in reports {
            if state.partitions.get(&key).is_some_and(|p| p.replica(tablet).is_some()) {
                let before = self.observed.replicas.insert((key, tablet), report);
                self.revision += u64::from(before.map(decisive) != Some(decisive(report)));
            }
        }
        self.revision != revision
    }

    /// A tablet says of which dropped tables nothing is left on it; only those for which somebody waits are noted.
    pub fn dropped(
        &mut self,
        state: &State,
        tablet: TabletId,
        tables: impl IntoIterator<Item = TableId>,
    ) {
        let waits =
            |tid: &TableId| state.tombstones.get(tid).is_some_and(|t| t.waiting.contains(&tablet));
        for tid in tables.into_iter().filter(waits) {
            self.revision += u64::from(self.observed.dropped.insert((tablet, tid)));
        }
    }

    /// A tablet says of which replicas that were taken away nothing is left on it.
    pub fn removed(
        &mut self,
        state: &State,
        tablet: TabletId,
        replicas: impl IntoIterator<Item = (PartitionKey, Version)>,
    ) {
        let waits = |(key, version): &(PartitionKey, Version)| {
            let removal = state.removals.get(key).and_then(|gone| gone.get(&tablet));
            removal.is_some_and(|r| r.version == *version)
        };
        for (key, _) in replicas.into_iter().filter(waits) {
            self.revision += u64::from(self.observed.removed.insert((key, tablet)));
        }
    }

    /// Forgets what is about partitions, replicas and tombstones that are gone.
    pub fn prune(&mut self, state: &State) {
        self.observed.replicas.retain(|(key, tablet), _| {
            state.partitions.get(key).is_some_and(|p| p.replica(*tablet).is_some())
        });
        self.observed.removed.retain(|(key, tablet)| {
            state.removals.get(key).is_some_and(|g| g.contains_key(tablet))
        });
        self.observed.dropped.retain(|(_, tid)| state.tombstones.contains_key(tid));
    }

    /// The next safe commands. As long as nothing has changed since there were none, it costs next to nothing.
    pub fn plan(&mut self, state: &State, now: Millis) -> Vec<Command> {
        self.judge.acquaint(state, now);
        let mut tablets = self.judge.seen(state, now);
        self.guard.weigh(state, &mut tablets, self.timing.lease, now);
        let basis = Basis { applied: state.applied, revision: self.revision, tablets };
        if self.idle.as_ref() == Some(&basis) && self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.observed.tablets.clone_from(&basis.tablets);
        let ops = self.watch_ops(state, now);
        let trials = self.trials.watch(state, &mut self.observed, now);
        let jobs = self.watch_jobs(state, now);
        self.due = ops.into_iter().chain(trials).chain(jobs).min();
        let commands = plan::plan(state, &self.observed);
        self.drains = plan::drains(state, &self.observed);
        self.note_blocked(plan::obstacles(state, &self.observed), now);
        self.idle = commands.is_empty().then_some(basis);
        commands
    }

    fn note_blocked(&mut self, obstacles: Vec<(PartitionKey, String)>, now: Millis) {
        let mut before = std::mem::take(&mut self.blocked);
        let noted = obstacles.into_iter().map(|(key, why)| {
            let says = before.remove(&key).map_or(now.plus(BLOCKED), |b| b.says);
            (key, Blocked { why, says })
        });
        self.blocked = noted.collect();
    }

    /// Why nobody leads that partition, as of the last plan; `None`: somebody does, or is about to.
    #[must_use]
    pub fn obstacle(&self, key: PartitionKey) -> Option<&str> {
        self.blocked.get(&key).map(|b| b.why.as_str())
    }

    /// What is to be said now about partitions without a leader: each reason, and how many partitions it keeps back.
    pub fn complaints(&mut self, now: Millis) -> BTreeMap<String, usize> {
        let mut complaints = BTreeMap::new();
        for blocked in self.blocked.values_mut().filter(|b| b.says <= now) {
            blocked.says = now.plus(AGAIN);
            *complaints.entry(blocked.why.clone()).or_default() += 1;
        }
        complaints
    }

    /// R23: the partitions of these elections whose leader did not come to serve, and that leader.
    #[must_use]
    pub fn passed_over(&self, state: &State, commands: &[Command]) -> Vec<(PartitionKey, String)> {
        let stalled = |command: &Command| {
            let Command::Elect(elect) = command else { return None };
            let partition = state.partitions.get(&elect.key)?;
            self.observed.stalled.get(&(elect.key, partition.epoch))?;
            Some((elect.key, state.tablets.get(&partition.leader)?.endpoint.clone()))
        };
        commands.iter().filter_map(stalled).collect()
    }

    /// What each replica is known to have, for the record of an election that may lose something.
    #[must_use]
    pub fn logs(&self, state: &State, key: PartitionKey) -> String {
        plan::logs(state, &self.observed, key)
    }

    /// R12: which leaders are to surrender, as of the last plan.
    #[must_use]
    pub fn drains(&self) -> &[Drain] {
        &self.drains
    }

    /// An operation has its time from when it is first seen to go on here: a nameserver that takes over gives it all of it.
    /// Answers when the next one's is over.
    fn watch_ops(&mut self, state: &State, now: Millis) -> Option<Millis> {
        let current = state.partitions.values().filter_map(|p| state.current_op(p));
        let going: BTreeMap<OpId, u64> = current
            .filter(|(_, op)| op.status == OpStatus::Doing)
            .map(|(id, op)| {
                let time = match op.kind {
                    OpKind::MakeSnapshot => SNAPSHOT,
                    kind if kind.is_switch() => SWITCH,
                    _ => COPY,
                };
                (id, time)
            })
            .collect();
        self.ops.retain(|op, _| going.contains_key(op));
        self.observed.overdue.clear();
        let mut next = None;
        for (id, time) in going {
            let until = self.ops.entry(id).or_insert(now).plus(time);
            if until <= now {
                self.observed.overdue.insert(id);
            } else {
                next = Some(next.map_or(until, |n: Millis| n.min(until)));
            }
        }
        next
    }

    /// Which jobs stand still. Answers when one may next.
    fn watch_jobs(&mut self, state: &State, now: Millis) -> Option<Millis> {
        self.observed.standing.clear();
        let going: BTreeMap<JobId, (usize, u32)> = state
            .jobs
            .iter()
            .filter(|(_, job)| !job.status.is_final())
            .map(|(id, job)| (*id, plan::progress(state, &self.observed, job)))
            .collect();
        self.jobs.retain(|id, _| going.contains_key(id));
        let mut next = None;
        for (id, left) in going {
            let known = self.jobs.entry(id).or_insert((left, now));
            if known.0 != left {
                *known = (left, now);
            }
            let until = known.1.plus(STANDS);
            if until <= now {
                self.observed.standing.insert(id);
            } else {
                next = Some(next.map_or(until, |n: Millis| n.min(until)));
            }
        }
        next
    }

    /// How much of a job is left to do.
    #[must_use]
    pub fn remaining(&self, state: &State, job: &Job) -> usize {
        plan::remaining(state, &self.observed, job)
    }

    /// What a job that goes on waits for, in words.
    #[must_use]
    pub fn waits_for(&self, state: &State, job: &Job) -> String {
        plan::waits_for(state, &self.observed, job)
    }

    /// Bars whom these commands are directed against: those judged offline, and the leaders that are to be replaced.
    pub fn bar(&mut self, state: &State, commands: &[Command]) {
        self.barred.extend(commands.iter().filter_map(|command| match command {
            Command::Offline { tablet, .. } => Some(*tablet),
            Command::Elect(elect) => state.partitions.get(&elect.key).map(|p| p.leader),
            _ => None,
        }));
    }

    /// What was proposed is applied, or certain never to be.
    pub fn unbar(&mut self) {
        self.barred.clear();
    }

    /// The lease that a run may be given now, ms; `None`: none.
    #[must_use]
    pub fn lease(&self, state: &State, tablet: TabletId, incarnation: Incarnation) -> Option<u64> {
        let registered = state.tablets.get(&tablet).is_some_and(|t| t.incarnation == incarnation);
        (registered && !self.barred.contains(&tablet)).then_some(self.timing.lease)
    }

    /// The last report of a replica, if the run that made it is the one registered.
    #[must_use]
    pub fn report_of(&self, state: &State, key: PartitionKey, tablet: TabletId) -> Option<&Report> {
        let registered = state.tablets.get(&tablet)?.incarnation;
        self.observed.replicas.get(&(key, tablet)).filter(|r| r.incarnation == registered)
    }

    /// Was that tablet heard lately, on an open stream, as the run that is registered?
    #[must_use]
    pub fn is_alive(&self, state: &State, tablet: TabletId, now: Millis) -> bool {
        state
            .tablets
            .get(&tablet)
            .is_some_and(|t| self.judge.seen_as(tablet, t.incarnation, now).alive)
    }
}

/// What of a report can make something to be done.
fn decisive(report: Report) -> (Incarnation, Epoch, [bool; 4], Epoch, Option<Offset>) {
    let Report { incarnation, epoch, leading, serving, surrendered, start, .. } = report;
    let Report { waits_for_others, quarantined, .. } = report;
    (incarnation, epoch, [leading, serving, waits_for_others, quarantined], surrendered, start)
}

#[cfg(test)]
pub(super) mod tests {
    use stela_meta_state::command::Elect;
    use stela_meta_state::state::{Leadership, Partition, Replica, Tablet, Tombstone};

    use super::*;
    use crate::control::judge::StreamId;

    const TIMING: Timing = Timing { lease: 2000, heartbeat: 200 };
    pub(in crate::control) const KEY: PartitionKey =
        PartitionKey { tid: TableId(1), pid: stela_common::ids::PartitionId(0) };

    pub(in crate::control) fn tablet(n: u32) -> Tablet {
        Tablet {
            endpoint: format!("t:{n}"),
            incarnation: Incarnation(u64::from(n)),
            starts: vec![Incarnation(u64::from(n))],
            dir_uuid: String::new(),
            boot_id: String::new(),
            healthy: true,
            since: 0,
            version: Version(1),
            past: Vec::new(),
            leaving: false,
            sdk_endpoint: String::new(),
        }
    }

    /// Two tablets, and a partition on both that the first leads.
    pub(in crate::control) fn state() -> State {
        let both = [TabletId(1), TabletId(2)];
        let member = |t: TabletId| stela_common::wire::Member {
            tablet: t,
            incarnation: Incarnation(t.0.into()),
            untrusted: false,
        };
        let began = Leadership {
            epoch: 1.into(),
            leader: both[0],
            unclean: false,
            surrendered: None,
            start: None,
        };
        let partition = Partition {
            replicas: both
                .map(|t| Replica { tablet: t, was_leader: false, held: false, doubt: None })
                .to_vec(),
            epoch: 1.into(),
            leader: both[0],
            leader_incarnation: Incarnation(1),
            in_sync: both.map(member).to_vec(),
            version: Version(1),
            history: vec![began],
            refused_shrink_at: 0,
            refused_shrink_epoch: 0.into(),
            last_unclean: 0.into(),
            uncleans: 0,
            switch: None,
            queue: Vec::new(),
            may_lose_tail: false,
        };
        State {
            tablets: [(TabletId(1), tablet(1)), (TabletId(2), tablet(2))].into(),
            partitions: [(KEY, partition)].into(),
            ..State::default()
        }
    }

    fn soft() -> Soft {
        let mut soft = Soft::new(TIMING, Millis(0));
        for n in 1..=2 {
            soft.judge.opened(TabletId(n), Incarnation(n.into()), StreamId(n.into()), Millis(0));
        }
        soft
    }

    #[test]
    fn whoever_a_decision_is_directed_against_gets_no_lease_until_it_is_settled() {
        let (state, mut soft) = (state(), soft());
        let leases =
            |soft: &Soft| [1, 2].map(|n| soft.lease(&state, TabletId(n), Incarnation(n.into())));
        assert_eq!(leases(&soft), [Some(2000), Some(2000)]);
        let (leader, incarnation) = (TabletId(2), Incarnation(2));
        let elect = Elect {
            key: KEY,
            expected: Version(1),
            leader,
            incarnation,
            auto: true,
            surrendered: None,
            unclean: None,
        };
        soft.bar(&state, &[Command::Elect(elect)]);
        assert_eq!(leases(&soft), [None, Some(2000)], "the leader that is to be replaced");
        soft.unbar();
        soft.bar(&state, &[Command::Offline { tablet: leader, incarnation, auto: true }]);
        assert_eq!(leases(&soft), [Some(2000), None]);
        soft.unbar();
        assert_eq!(leases(&soft), [Some(2000), Some(2000)]);
        assert_eq!(soft.lease(&state, TabletId(1), Incarnation(9)), None, "another run");
    }

    #[test]
    fn a_dead_leader_is_planned_for_as_soon_as_its_port_refuses() {
        let (state, mut soft) = (state(), soft());
        assert_eq!(soft.plan(&state, Millis(10)), []);
        soft.judge.closed(TabletId(1), StreamId(1));
        assert_eq!(soft.plan(&state, Millis(10)), []);
        soft.judge.refused(TabletId(1), Incarnation(1), Millis(10));
        let commands = soft.plan(&state, Millis(10));
        assert!(
            matches!(&commands[..], [Command::Offline { .. }, Command::Elect(e)] if e.leader == TabletId(2)),
            "{commands:?}"
        );
    }

    #[test]
    fn what_leaves_nothing_to_do_is_not_looked_at_twice_and_what_changes_that_is_seen() {
        let (mut state, mut soft) = (state(), soft());
        assert_eq!(soft.plan(&state, Millis(10)), []);
        assert!(soft.idle.is_some());
        let report = Report {
            incarnation: Incarnation(1),
            epoch: Epoch(1),
            leading: true,
            ..Report::default()
        };
        assert!(soft.report(&state, TabletId(1), [(KEY, report)]));
        assert_eq!(soft.plan(&state, Millis(10)), []);
        let longer = Report { offset: Offset(9), ..report };
        let decisive = soft.report(&state, TabletId(1), [(KEY, longer)]);
        assert!(!decisive, "an offset alone makes nothing to do");
        soft.report(&state, TabletId(1), [(KEY, Report { quarantined: true, ..report })]);
        assert_eq!(soft.plan(&state, Millis(10)).len(), 1);
        soft.report(&state, TabletId(1), [(KEY, report)]);
        assert_eq!(soft.plan(&state, Millis(10)), []);
        // The state, and the time.
        (state.applied, state.tablets.get_mut(&TabletId(2)).unwrap().healthy) = (9, false);
        assert_eq!(soft.plan(&state, Millis(10)).len(), 1);
        (state.applied, state.tablets.get_mut(&TabletId(2)).unwrap().healthy) = (10, true);
        assert_eq!(soft.plan(&state, Millis(10)), []);
        assert_eq!(soft.plan(&state, Millis(2201)).len(), 2);
    }

    #[test]
    fn reports_are_kept_of_replicas_that_there_are() {
        let (mut state, mut soft) = (state(), soft());
        let report = Report { incarnation: Incarnation(1), offset: Offset(5), ..Report::default() };
        let elsewhere = PartitionKey { tid: TableId(2), ..KEY };
        soft.report(&state, TabletId(1), [(KEY, report), (elsewhere, report)]);
        soft.report(&state, TabletId(3), [(KEY, report)]);
        assert_eq!(soft.report_of(&state, KEY, TabletId(1)).map(|r| r.offset), Some(Offset(5)));
        assert_eq!(soft.observed.replicas.len(), 1);
        state.partitions.clear();
        soft.prune(&state);
        assert!(soft.observed.replicas.is_empty());
    }

    #[test]
    fn only_drops_that_are_waited_for_are_confirmed_and_each_until_it_is_known() {
        let (mut state, mut soft) = (state(), soft());
        let tombstone =
            Tombstone { created_index: 1, waiting: [TabletId(1)].into(), version: Version(2) };
        state.tombstones.insert(TableId(7), tombstone);
        soft.dropped(&state, TabletId(1), [TableId(7), TableId(8)]);
        soft.dropped(&state, TabletId(2), [TableId(7)]);
        let confirm = [Command::ConfirmDropped { tid: TableId(7), tablet: TabletId(1) }];
        assert_eq!(soft.plan(&state, Millis(10)), confirm);
        assert_eq!(soft.plan(&state, Millis(10)), confirm);
        state.tombstones.clear();
        soft.prune(&state);
        assert!(soft.plan(&state, Millis(10)).is_empty() && soft.observed.dropped.is_empty());
    }
}
