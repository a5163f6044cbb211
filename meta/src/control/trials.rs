//! R23: leaders that were elected and are yet to serve, and those that did not come to it in time.
//!
//! **Invariants**
//! * Only time counts in which the leader was heard, was not reported to wait for others, and this nameserver watched: a
//!   silent leader is the judge's affair, and one that waits has done its part.
//! * Who was passed over is passed over until it serves or its process ends, and has twice the time at each further turn:
//!   where all are slow, elections become rare instead of keeping everybody from serving.
//!
//! Pure: the time is an input.

use std::collections::BTreeMap;

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, PartitionKey};
use stela_meta_state::plan::{Observed, PassedOver};
use stela_meta_state::state::{Partition, State};

/// A leader has so long to serve the first time, ms.
const PATIENCE: u64 = 2_000;
/// The time is doubled so often at most.
const DOUBLED: u32 = 4;

/// Leaders that are yet to serve.
#[derive(Debug, Default)]
pub struct Trials {
    open: BTreeMap<PartitionKey, Trial>,
    turns: u64,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    epoch: Epoch,
    since: Millis,
}

/// How far a leader has come.
enum Progress {
    /// It serves.
    Serves,
    /// It is not up to it.
    Waits,
    /// It is up to it.
    Owes,
}

impl Trials {
    /// Notes who serves and whose time is over; answers when the next one's is.
    pub fn watch(&mut self, state: &State, observed: &mut Observed, now: Millis) -> Option<Millis> {
        observed.passed_over.retain(|(key, _), _| state.partitions.contains_key(key));
        observed.stalled.clear();
        let mut open = BTreeMap::new();
        let mut due: Option<Millis> = None;
        for (key, partition) in &state.partitions {
            match progress(state, observed, *key, partition) {
                Progress::Serves => {
                    observed.passed_over.remove(&(*key, partition.leader));
                }
                Progress::Waits => {}
                Progress::Owes => {
                    let known = self.open.get(key).filter(|t| t.epoch == partition.epoch);
                    let trial = *known.unwrap_or(&Trial { epoch: partition.epoch, since: now });
                    open.insert(*key, trial);
                    match self.judge(*key, partition, trial, observed, now) {
                        Some(until) => due = Some(due.map_or(until, |d| d.min(until))),
                        None => {
                            observed.stalled.insert((*key, partition.epoch));
                        }
                    }
                }
            }
        }
        self.open = open;
        due
    }

    /// When the time of a trial is over; `None`: it is.
    fn judge(
        &mut self,
        key: PartitionKey,
        partition: &Partition,
        trial: Trial,
        observed: &mut Observed,
        now: Millis,
    ) -> Option<Millis> {
        let leader = (key, partition.leader);
        let run = partition.leader_incarnation;
        let before = observed.passed_over.get(&leader).filter(|p| p.incarnation == run).copied();
        let before = before.unwrap_or_default();
        // The turn that this epoch was given counts only afterwards.
        let turns = before.times - u32::from(before.epoch == trial.epoch && before.times > 0);
        let until = trial.since.plus(PATIENCE << turns.min(DOUBLED));
        if now < until {
            return Some(until);
        }
        if before.epoch != trial.epoch {
            self.turns += 1;
            let times = before.times + 1;
            let turn = self.turns;
            let passed = PassedOver { incarnation: run, epoch: trial.epoch, turn, times };
            observed.passed_over.insert(leader, passed);
        }
        None
    }
}

fn progress(
    state: &State,
    observed: &Observed,
    key: PartitionKey,
    partition: &Partition,
) -> Progress {
    let (leader, run) = (partition.leader, partition.leader_incarnation);
    let alive = observed.tablets.get(&leader).is_some_and(|s| s.alive && s.incarnation == run);
    if !alive || !state.is_healthy(leader) {
        return Progress::Waits;
    }
    let report = observed
        .replicas
        .get(&(key, leader))
        .filter(|r| r.incarnation == run && r.epoch == partition.epoch);
    match report {
        Some(report) if report.serving => Progress::Serves,
        Some(r) if r.waits_for_others || r.surrendered == partition.epoch => Progress::Waits,
        _ => Progress::Owes,
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::{Incarnation, TabletId};
    use stela_meta_state::plan::{Report, Seen};

    use super::*;
    use crate::control::soft::tests::{KEY, state};

    /// The first of two tablets leads epoch 1, is heard, and has nothing to say yet.
    fn observed() -> Observed {
        let seen = |n| Seen { incarnation: Incarnation(n), alive: true, ..Seen::default() };
        Observed {
            tablets: [(TabletId(1), seen(1)), (TabletId(2), seen(2))].into(),
            ..Observed::default()
        }
    }

    fn report(epoch: u64) -> Report {
        Report {
            incarnation: Incarnation(1),
            epoch: Epoch(epoch),
            leading: true,
            ..Report::default()
        }
    }

    /// Is the epoch called stalled at that time?
    fn stalled(trials: &mut Trials, state: &State, o: &mut Observed, at: u64) -> bool {
        trials.watch(state, o, Millis(at));
        !o.stalled.is_empty()
    }

    #[test]
    fn r23_a_leader_has_two_seconds_to_serve() {
        let (state, mut o, mut trials) = (state(), observed(), Trials::default());
        assert_eq!(trials.watch(&state, &mut o, Millis(100)), Some(Millis(2100)));
        assert!(!stalled(&mut trials, &state, &mut o, 2099));
        assert!(stalled(&mut trials, &state, &mut o, 2100));
        let passed = o.passed_over[&(KEY, TabletId(1))];
        assert_eq!((passed.turn, passed.times, passed.epoch), (1, 1, Epoch(1)));
        assert!(stalled(&mut trials, &state, &mut o, 9999), "and it stays so");
        assert_eq!(o.passed_over[&(KEY, TabletId(1))], passed, "it is counted once");
        o.replicas.insert((KEY, TabletId(1)), Report { serving: true, ..report(1) });
        assert!(!stalled(&mut trials, &state, &mut o, 9999), "until it serves");
        assert!(o.passed_over.is_empty());
    }

    #[test]
    fn r23_waiting_for_others_and_silence_do_not_count() {
        let (state, mut o, mut trials) = (state(), observed(), Trials::default());
        let leader = (KEY, TabletId(1));
        trials.watch(&state, &mut o, Millis(0));
        o.replicas.insert(leader, Report { waits_for_others: true, ..report(1) });
        assert!(!stalled(&mut trials, &state, &mut o, 60_000));
        o.replicas.insert(leader, report(1));
        assert!(
            !stalled(&mut trials, &state, &mut o, 61_000),
            "its time begins when it is its turn"
        );
        assert!(stalled(&mut trials, &state, &mut o, 63_000));
        let mut trials = Trials::default();
        o.tablets.get_mut(&TabletId(1)).unwrap().alive = false;
        trials.watch(&state, &mut o, Millis(0));
        assert!(!stalled(&mut trials, &state, &mut o, 60_000), "the judge sees to the silent");
        // What it said in another epoch says nothing of this one.
        o.tablets.get_mut(&TabletId(1)).unwrap().alive = true;
        o.replicas.insert(leader, Report { serving: true, ..report(0) });
        trials.watch(&state, &mut o, Millis(60_000));
        assert!(stalled(&mut trials, &state, &mut o, 62_000));
    }

    #[test]
    fn r23_each_further_turn_has_twice_the_time() {
        let (mut state, mut o, mut trials) = (state(), observed(), Trials::default());
        let mut now = 0;
        for (turn, patience) in [2000, 4000, 8000, 16_000, 32_000, 32_000].into_iter().enumerate() {
            state.partitions.get_mut(&KEY).unwrap().epoch = Epoch(1 + turn as u64);
            trials.watch(&state, &mut o, Millis(now));
            assert!(!stalled(&mut trials, &state, &mut o, now + patience - 1), "turn {turn}");
            assert!(stalled(&mut trials, &state, &mut o, now + patience), "turn {turn}");
            now += patience;
        }
        // Another run begins anew.
        let next = Incarnation(9);
        state.partitions.get_mut(&KEY).unwrap().leader_incarnation = next;
        state.partitions.get_mut(&KEY).unwrap().epoch = Epoch(90);
        o.tablets.get_mut(&TabletId(1)).unwrap().incarnation = next;
        trials.watch(&state, &mut o, Millis(now));
        assert!(stalled(&mut trials, &state, &mut o, now + 2000));
    }
}
