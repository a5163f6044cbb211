//! R19: when more than half of at least three tablets fall silent, it may be this nameserver that hears nobody.
//!
//! **Invariants**
//! * Only judgement by silence waits: a port that refuses, or a run that was succeeded, is no matter of hearing.
//! * It waits for one lease at most, and not at all once another nameserver cannot reach any of them either and a quorum
//!   has said afresh that this one leads. Never for ever: two of three tablets that are lost must fail over (H15).
//! * Who has not been heard lately is counted with the silent: those who are lost together do not fall silent at once.
//!
//! Pure: the time is an input.

use std::collections::{BTreeMap, BTreeSet};

use stela_common::clock::Millis;
use stela_common::ids::TabletId;
use stela_meta_state::plan::Seen;
use stela_meta_state::state::State;

/// With fewer it is no mass.
const MASS: usize = 3;
/// Another nameserver is asked so often, ms.
const ASKS: u64 = 500;

/// What becomes of the silent.
#[derive(Debug, Default)]
pub struct Guard {
    doubt: Option<Doubt>,
}

/// Many are silent: they, or this nameserver?
#[derive(Debug)]
struct Doubt {
    since: Millis,
    missing: BTreeSet<TabletId>,
    asked: Option<Millis>,
    settled: bool,
}

impl Guard {
    /// Takes back that tablets are silent as long as there is doubt. `seen` is what the judge says of them.
    pub fn weigh(
        &mut self,
        state: &State,
        seen: &mut BTreeMap<TabletId, Seen>,
        lease: u64,
        now: Millis,
    ) {
        let healthy = |id: &TabletId| state.tablets.get(id).is_some_and(|t| t.healthy);
        let missing: BTreeSet<TabletId> = seen
            .iter()
            .filter(|(id, seen)| healthy(id) && !seen.alive && !seen.refused)
            .map(|(id, _)| *id)
            .collect();
        let all = state.tablets.values().filter(|t| t.healthy).count();
        let judged = missing.iter().any(|id| seen.get(id).is_some_and(|s| s.silent));
        let mass = missing.len() >= MASS && missing.len() * 2 > all;
        if !mass || (self.doubt.is_none() && !judged) {
            self.doubt = None;
            return;
        }
        let doubt = self.doubt.get_or_insert_with(|| Doubt {
            since: now,
            missing: BTreeSet::new(),
            asked: None,
            settled: false,
        });
        doubt.missing = missing;
        doubt.settled |= now.since(doubt.since) > lease;
        if !doubt.settled {
            seen.values_mut().for_each(|s| s.silent = false);
        }
    }

    /// This nameserver stood still: all have their grace again.
    pub fn begin_again(&mut self) {
        self.doubt = None;
    }

    /// Whom another nameserver is to be asked about now.
    pub fn question(&mut self, now: Millis) -> Option<BTreeSet<TabletId>> {
        let doubt = self.doubt.as_mut().filter(|d| !d.settled)?;
        if doubt.asked.is_some_and(|at| now.since(at) < ASKS) {
            return None;
        }
        doubt.asked = Some(now);
        Some(doubt.missing.clone())
    }

    /// Another nameserver reaches none of these either, and a quorum has said since that this one leads.
    pub fn unreachable(&mut self, asked: &BTreeSet<TabletId>) {
        if let Some(doubt) = &mut self.doubt {
            doubt.settled |= doubt.missing.is_subset(asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use stela_common::ids::Incarnation;

    use super::*;
    use crate::control::soft::tests::tablet;

    const LEASE: u64 = 2000;

    struct Scene {
        state: State,
        guard: Guard,
    }

    impl Scene {
        fn of(tablets: u32) -> Self {
            let all = (1..=tablets).map(|n| (TabletId(n), tablet(n)));
            let state = State { tablets: all.collect(), ..State::default() };
            Self { state, guard: Guard::default() }
        }

        /// Who is judged silent at that time, of those that are lost; the others are alive.
        fn silent(&mut self, lost: &[u32], at: u64) -> Vec<u32> {
            self.seen(at, |n| Seen { silent: lost.contains(&n), ..Seen::default() }, lost)
        }

        fn seen(&mut self, at: u64, of: impl Fn(u32) -> Seen, lost: &[u32]) -> Vec<u32> {
            let seen = |n: u32| {
                let incarnation = Incarnation(n.into());
                Seen { incarnation, alive: !lost.contains(&n), ..of(n) }
            };
            let mut all: BTreeMap<TabletId, Seen> =
                self.state.tablets.keys().map(|id| (*id, seen(id.0))).collect();
            self.guard.weigh(&self.state, &mut all, LEASE, Millis(at));
            all.iter().filter(|(_, s)| s.silent).map(|(id, _)| id.0).collect()
        }
    }

    /// H15: "more than half" alone would keep the promise of three replicas from coming true.
    #[test]
    fn h15_two_of_three_and_one_of_one_are_judged_at_once() {
        assert_eq!(Scene::of(3).silent(&[1, 2], 0), [1, 2]);
        assert_eq!(Scene::of(1).silent(&[1], 0), [1]);
        assert_eq!(Scene::of(2).silent(&[1, 2], 0), [1, 2]);
        assert_eq!(Scene::of(6).silent(&[1, 2, 3], 0), [1, 2, 3], "half is not more than half");
    }

    #[test]
    fn r19_a_mass_of_silent_tablets_waits_for_one_lease_and_no_longer() {
        let mut scene = Scene::of(5);
        let lost = [1, 2, 3];
        assert!(scene.silent(&lost, 100).is_empty());
        assert!(scene.silent(&lost, 100 + LEASE).is_empty());
        assert_eq!(scene.silent(&lost, 101 + LEASE), lost);
        // One is back: what is left is no mass.
        let mut scene = Scene::of(5);
        assert!(scene.silent(&lost, 0).is_empty());
        assert_eq!(scene.silent(&[1, 2], 10), [1, 2]);
    }

    #[test]
    fn r19_those_who_fall_silent_one_after_the_other_are_counted_together() {
        let mut scene = Scene::of(5);
        let first = |n| Seen { silent: n == 1, ..Seen::default() };
        assert!(scene.seen(0, first, &[1, 2, 3]).is_empty());
    }

    #[test]
    fn r19_who_is_offline_already_or_refuses_is_not_counted() {
        let mut scene = Scene::of(7);
        for n in [5, 6, 7] {
            scene.state.tablets.get_mut(&TabletId(n)).unwrap().healthy = false;
        }
        let away = |n| Seen { silent: [1, 2].contains(&n) || n > 4, ..Seen::default() };
        assert_eq!(scene.seen(0, away, &[1, 2, 5, 6, 7]), [1, 2, 5, 6, 7]);
        let dead = |n| Seen { silent: n == 1, refused: n == 2 || n == 3, ..Seen::default() };
        assert_eq!(Scene::of(4).seen(0, dead, &[1, 2, 3]), [1]);
    }

    #[test]
    fn r19_it_goes_on_at_once_when_another_nameserver_reaches_none_of_them() {
        let mut scene = Scene::of(5);
        let lost = [1, 2, 3];
        assert_eq!(scene.guard.question(Millis(0)), None, "nothing is in doubt");
        scene.silent(&lost, 0);
        let asked = scene.guard.question(Millis(10)).expect("a question");
        assert_eq!(asked, lost.map(TabletId).into());
        assert_eq!(scene.guard.question(Millis(509)), None);
        assert!(scene.guard.question(Millis(510)).is_some());
        assert!(scene.silent(&[1, 2, 3, 4], 600).is_empty());
        scene.guard.unreachable(&asked);
        assert!(scene.silent(&[1, 2, 3, 4], 700).is_empty(), "nobody was asked about the fourth");
        let asked = scene.guard.question(Millis(1100)).expect("a question");
        scene.guard.unreachable(&asked);
        assert_eq!(scene.silent(&[1, 2, 3, 4], 1100), [1, 2, 3, 4]);
        assert_eq!(scene.guard.question(Millis(9999)), None);
    }

    #[test]
    fn r19_after_a_gap_the_doubt_begins_again() {
        let mut scene = Scene::of(5);
        let lost = [1, 2, 3];
        scene.silent(&lost, 0);
        scene.guard.begin_again();
        assert!(scene.silent(&lost, 1900).is_empty());
        assert!(scene.silent(&lost, 1900 + LEASE).is_empty());
        assert_eq!(scene.silent(&lost, 1901 + LEASE), lost);
    }
}
