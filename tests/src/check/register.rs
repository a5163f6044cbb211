//! Registers: is there an order of all operations, each somewhere between its invocation and its end, in which every read
//! shows what was written last?
//!
//! The search of Wing and Gong as Lowe made it fast: try what may come first, go back when that leads nowhere, and never
//! try the same rest with the same value twice. An operation of unknown outcome may come at any time after its invocation,
//! or never; of several of them that do the same, the one that was invoked first comes first, for each could stand for the
//! other. Before the first write a register may have any value.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Found, Outcome};
use crate::history::{Done, End, Op, Stored};

/// What an operation did to a register. Values are numbered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Act {
    /// It is set.
    Write(u32),
    /// It was found so.
    Read(u32),
    /// It is set if it has the first value; whether it had, if that is known.
    Cas(u32, u32, Option<bool>),
}

/// One operation on one register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Operation {
    /// When it was asked for.
    pub invoked: u64,
    /// When it had an end; `None`: nobody knows whether it was done, or will be.
    pub ended: Option<u64>,
    /// What it did.
    pub act: Act,
}

/// What the search found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// There is one.
    Exists,
    /// There is none: this operation, by its number, cannot be explained.
    None(usize),
    /// It was not found in so many steps.
    GaveUp,
}

/// So many steps are tried: seconds.
const STEPS: u64 = 20_000_000;

pub(super) fn check(history: &Stored) -> Found {
    let mut registers: BTreeMap<&str, Vec<&Done>> = BTreeMap::new();
    for done in &history.done {
        if let Op::Write { key, .. } | Op::Read { key } | Op::Cas { key, .. } = &done.op {
            registers.entry(key).or_default().push(done);
        }
    }
    let (mut outcome, mut examples, mut count, mut unknown) = (Outcome::Pass, Vec::new(), 0, 0);
    for (key, all) in &registers {
        let mut numbers = HashMap::new();
        let (mut operations, mut shown) = (Vec::new(), Vec::new());
        for done in all {
            if let Some(operation) = operation(done, &mut numbers) {
                unknown += usize::from(operation.ended.is_none());
                operations.push(operation);
                shown.push(*done);
            }
        }
        count += operations.len();
        let (verdict, what) = match order(&operations, STEPS) {
            Order::Exists => (Outcome::Pass, None),
            Order::None(at) => {
                let Done { op, invoked, ended, answer, .. } = shown[at];
                let (from, to) = (invoked / 1000, ended / 1000);
                (
                    Outcome::Fail,
                    Some(format!(
                        "{key}: no order explains {op:?} from {from} to {to} us: {answer:?}"
                    )),
                )
            }
            Order::GaveUp => {
                (Outcome::Unknown, Some(format!("{key}: no order found in {STEPS} steps")))
            }
        };
        outcome = outcome.max(verdict);
        examples.extend(what);
    }
    if count == 0 {
        outcome = outcome.max(Outcome::Unknown);
    }
    let figures = format!(
        "registers: {count} operations, {unknown} of unknown outcome, on {} registers: {} not linearizable",
        registers.len(),
        examples.len()
    );
    Found::new(outcome, figures, examples)
}

/// What it may have done; `None`: nothing that matters.
fn operation<'a>(done: &'a Done, numbers: &mut HashMap<&'a str, u32>) -> Option<Operation> {
    let mut number = |value: &'a str| {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *numbers.entry(value).or_insert(next)
    };
    if done.end == End::Fail {
        return None;
    }
    let ended = (done.end == End::Ok).then_some(done.ended);
    let act = match &done.op {
        Op::Write { value, .. } => Act::Write(number(value)),
        Op::Read { .. } => Act::Read(number(ended.and(done.answer.got.as_deref())?)),
        Op::Cas { from, to, .. } => Act::Cas(number(from), number(to), done.answer.swapped),
        Op::Put { .. } | Op::Scan { .. } => return None,
    };
    Some(Operation { invoked: done.invoked, ended, act })
}

/// The value of a register; `None`: any, nothing is known yet.
type Value = Option<u32>;

impl Act {
    /// The value afterwards, if it can be done now.
    fn step(self, value: Value) -> Option<Value> {
        match self {
            Self::Write(to) => Some(Some(to)),
            Self::Read(got) => value.is_none_or(|value| value == got).then_some(Some(got)),
            Self::Cas(from, to, swapped) => match (value == Some(from), swapped) {
                (true, Some(true) | None) => Some(Some(to)),
                (true, Some(false)) => None,
                (false, Some(true)) => value.is_none().then_some(Some(to)),
                (false, Some(false) | None) => Some(value),
            },
        }
    }
}

/// Searches for an order, in at most so many steps.
pub fn order(operations: &[Operation], steps: u64) -> Order {
    Search::new(operations).run(steps)
}

/// Invocations and ends in the order of time, in a doubly linked list from which operations that have their place in the
/// order are taken out. Entry 0 is the list's head.
struct Search<'a> {
    operations: &'a [Operation],
    entries: Vec<Entry>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Of each operation the entry of its end; 0: it has none.
    ends: Vec<usize>,
    /// Of each operation of unknown outcome the one like it that was invoked before.
    likes: Vec<Option<usize>>,
    placed: Bits,
}

#[derive(Clone, Copy)]
enum Entry {
    Invocation(usize),
    End(usize),
}

impl<'a> Search<'a> {
    fn new(operations: &'a [Operation]) -> Self {
        let mut times: Vec<(u64, bool, usize)> = Vec::new();
        for (at, operation) in operations.iter().enumerate() {
            // At the same time: invocations first, so that the two overlap.
            times.push((operation.invoked, false, at));
            times.extend(operation.ended.map(|ended| (ended, true, at)));
        }
        times.sort_unstable();
        let mut ends = vec![0; operations.len()];
        let mut likes = vec![None; operations.len()];
        let mut last: HashMap<Act, usize> = HashMap::new();
        let mut entries = vec![Entry::End(usize::MAX)];
        for (_, end, at) in times {
            if end {
                ends[at] = entries.len();
                entries.push(Entry::End(at));
            } else {
                if operations[at].ended.is_none() {
                    likes[at] = last.insert(operations[at].act, at);
                }
                entries.push(Entry::Invocation(at));
            }
        }
        let count = entries.len();
        let next = (1..=count).map(|at| at % count).collect();
        let previous = (0..count).map(|at| (at + count - 1) % count).collect();
        let placed = Bits::new(operations.len());
        Self { operations, entries, next, previous, ends, likes, placed }
    }

    fn run(mut self, steps: u64) -> Order {
        let mut open = self.operations.iter().filter(|o| o.ended.is_some()).count();
        let mut value: Value = None;
        // What is placed, with the value before it.
        let mut path: Vec<(usize, usize, Value)> = Vec::new();
        let mut tried: HashSet<(Box<[u64]>, Value)> = HashSet::new();
        let (mut furthest, mut culprit) = (0, 0);
        let mut at = self.next[0];
        for _ in 0..steps {
            if open == 0 {
                return Order::Exists;
            }
            match self.entries[at] {
                Entry::Invocation(number) => {
                    let first = self.likes[number].is_none_or(|like| self.placed.has(like));
                    let after = self.operations[number].act.step(value).filter(|_| first);
                    if let Some(after) = after {
                        self.placed.set(number);
                        if tried.insert((self.placed.key(), after)) {
                            path.push((at, number, value));
                            value = after;
                            self.take_out(at, number);
                            open -= usize::from(self.ends[number] != 0);
                            at = self.next[0];
                            continue;
                        }
                        self.placed.clear(number);
                    }
                    at = self.next[at];
                }
                Entry::End(number) => {
                    // It should have been placed by now. What was placed last was wrong.
                    if at > furthest {
                        (furthest, culprit) = (at, number);
                    }
                    let Some((entry, number, before)) = path.pop() else {
                        return Order::None(culprit);
                    };
                    self.placed.clear(number);
                    self.put_back(entry, number);
                    open += usize::from(self.ends[number] != 0);
                    value = before;
                    at = self.next[entry];
                }
            }
        }
        Order::GaveUp
    }

    fn take_out(&mut self, entry: usize, number: usize) {
        self.unlink(entry);
        if self.ends[number] != 0 {
            self.unlink(self.ends[number]);
        }
    }

    fn put_back(&mut self, entry: usize, number: usize) {
        if self.ends[number] != 0 {
            self.link(self.ends[number]);
        }
        self.link(entry);
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    /// Undoes the last `unlink` that is not undone: its neighbours are what they were.
    fn link(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = at;
        self.previous[next] = at;
    }
}

/// A set of small numbers.
struct Bits {
    words: Vec<u64>,
    /// All words before this one are full.
    full: usize,
    /// All words from this one on are empty.
    end: usize,
}

impl Bits {
    fn new(count: usize) -> Self {
        Self { words: vec![0; count.div_ceil(64)], full: 0, end: 0 }
    }

    fn has(&self, number: usize) -> bool {
        self.words[number / 64] & (1 << (number % 64)) != 0
    }

    fn set(&mut self, number: usize) {
        self.words[number / 64] |= 1 << (number % 64);
        self.end = self.end.max(number / 64 + 1);
        while self.words.get(self.full) == Some(&u64::MAX) {
            self.full += 1;
        }
    }

    fn clear(&mut self, number: usize) {
        self.words[number / 64] &= !(1 << (number % 64));
        self.full = self.full.min(number / 64);
        while self.end > 0 && self.words[self.end - 1] == 0 {
            self.end -= 1;
        }
    }

    /// Names the set: where it stops being full, and what is behind.
    fn key(&self) -> Box<[u64]> {
        let rest = &self.words[self.full.min(self.end)..self.end];
        std::iter::once(self.full as u64).chain(rest.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng as _};

    use super::*;
    use crate::history::{Answer, Script};

    /// Every order is tried; of what is of unknown outcome, any part may be left out.
    fn brute_force(operations: &[Operation], done: u32, value: Value) -> bool {
        let open = |at: usize| done & (1 << at) == 0;
        if (0..operations.len()).all(|at| !open(at) || operations[at].ended.is_none()) {
            return true;
        }
        (0..operations.len()).filter(|at| open(*at)).any(|at| {
            let first = (0..operations.len())
                .filter(|other| open(*other) && *other != at)
                .all(|other| operations[other].ended.is_none_or(|e| e >= operations[at].invoked));
            let after = operations[at].act.step(value).filter(|_| first);
            after.is_some_and(|after| brute_force(operations, done | 1 << at, after))
        })
    }

    fn acts() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (0u32..3).prop_map(Act::Write),
            4 => (0u32..3).prop_map(Act::Read),
            2 => (0u32..3, 0u32..3, any::<bool>()).prop_map(|(a, b, s)| Act::Cas(a, b, Some(s))),
        ]
    }

    fn small() -> impl Strategy<Value = Vec<Operation>> {
        let one = (acts(), 0u64..12, 0u64..6, any::<prop::sample::Index>());
        prop::collection::vec(one, 1..8).prop_map(|all| {
            let make = |(act, invoked, time, luck): (Act, u64, u64, prop::sample::Index)| {
                let unknown = luck.index(4) == 0 && !matches!(act, Act::Read(_));
                let act = match act {
                    Act::Cas(from, to, _) if unknown => Act::Cas(from, to, None),
                    act => act,
                };
                Operation { invoked, ended: (!unknown).then_some(invoked + time), act }
            };
            all.into_iter().map(make).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn agrees_with_brute_force(operations in small()) {
            let expected = brute_force(&operations, 0, None);
            let found = order(&operations, u64::MAX);
            prop_assert_eq!(found == Order::Exists, expected, "{:?}", found);
        }
    }

    /// A history that some order explains: so many clients, each with one operation at a time, on a register that does
    /// each of them at some moment in between. One of `unknown` is of unknown outcome.
    fn made_up(seed: u64, clients: usize, count: usize, unknown: u32) -> Vec<Operation> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut free = vec![0u64; clients];
        let (mut moments, mut operations) = (Vec::new(), Vec::new());
        for number in 0..count {
            let client = (0..clients).min_by_key(|c| free[*c]).unwrap();
            let invoked = free[client] + random.random_range(0..20);
            let at = invoked + random.random_range(1..50);
            let ended = at + random.random_range(1..50);
            free[client] = ended + 1;
            moments.push((at, number));
            operations.push(Operation { invoked, ended: Some(ended), act: Act::Read(0) });
        }
        moments.sort_unstable();
        let mut value = 0;
        for (_, number) in moments {
            let fresh = random.random_range(0..6);
            let act = match random.random_range(0..10) {
                0..4 => Act::Read(value),
                4..7 => Act::Write(fresh),
                _ => {
                    let from = random.random_range(0..6);
                    Act::Cas(from, fresh, Some(from == value))
                }
            };
            let operation = &mut operations[number];
            operation.act = act;
            if unknown > 0 && random.random_ratio(1, unknown) && !matches!(act, Act::Read(_)) {
                operation.ended = None;
                if let Act::Cas(from, to, _) = act {
                    operation.act = Act::Cas(from, to, None);
                }
            }
            value = match act {
                Act::Write(to) | Act::Cas(_, to, Some(true)) => to,
                _ => value,
            };
        }
        operations
    }

    #[test]
    fn a_long_history_is_decided_at_once() {
        for (seed, unknown) in [(1, 0), (2, 0), (3, 200), (4, 100)] {
            let began = Instant::now();
            assert_eq!(order(&made_up(seed, 8, 5000, unknown), STEPS), Order::Exists, "{seed}");
            println!("5000 operations of 8 clients, seed {seed}: {:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(1), "seed {seed}: {:?}", began.elapsed());
        }
    }

    #[test]
    fn a_planted_violation_is_found_at_once() {
        for (seed, at) in [(1, 100), (2, 2500), (3, 4900)] {
            let mut operations = made_up(seed, 8, 5000, 0);
            // A value that nobody ever wrote.
            operations[at] = Operation { act: Act::Read(77), ..operations[at] };
            let began = Instant::now();
            assert_eq!(order(&operations, STEPS), Order::None(at), "{seed}");
            println!("a violation at {at} of 5000: {:?}", began.elapsed());
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    #[test]
    fn a_stale_read_and_a_lost_write_are_no_order() {
        let operation = |invoked, ended, act| Operation { invoked, ended: Some(ended), act };
        let stale = [
            operation(1, 2, Act::Write(0)),
            operation(3, 4, Act::Write(1)),
            operation(5, 6, Act::Read(0)),
        ];
        assert_eq!(order(&stale, STEPS), Order::None(2));
        let mut early = stale;
        early[2].invoked = 3;
        assert_eq!(order(&early, STEPS), Order::Exists);
        // It was of unknown outcome and is shown: then it cannot be gone again.
        let back = [
            operation(1, 2, Act::Write(0)),
            Operation { invoked: 3, ended: None, act: Act::Write(1) },
            operation(5, 6, Act::Read(1)),
            operation(7, 8, Act::Read(0)),
        ];
        assert_eq!(order(&back, STEPS), Order::None(3));
        assert_eq!(order(&back[..3], STEPS), Order::Exists);
        assert_eq!(
            order(&[back[0], back[1], back[3], operation(9, 10, Act::Read(1))], STEPS),
            Order::Exists
        );
    }

    #[test]
    fn too_many_steps_are_no_verdict() {
        assert_eq!(order(&made_up(1, 8, 500, 0), 100), Order::GaveUp);
    }

    #[test]
    fn each_register_is_looked_at() {
        let mut script = Script::default();
        let write = |key: &str, value: &str| Op::Write { key: key.into(), value: value.into() };
        let got = |value: &str| Answer { got: Some(value.into()), ..Answer::default() };
        script.add(1, 2, write("a", "true"), End::Ok, Answer::default());
        script.add(1, 2, write("b", "true"), End::Ok, Answer::default());
        script.add(3, 4, write("b", "false"), End::Fail, Answer::default());
        script.add(5, 6, Op::Read { key: "a".into() }, End::Ok, got("true"));
        script.add(5, 6, Op::Read { key: "b".into() }, End::Ok, got("true"));
        script.add(7, u64::MAX, Op::Read { key: "b".into() }, End::Info, Answer::default());
        let good = check(&script.stored());
        assert_eq!(good.outcome, Outcome::Pass, "{good}");
        let mut script = Script::default();
        script.add(1, 2, write("b", "true"), End::Ok, Answer::default());
        script.add(3, 4, write("b", "false"), End::Ok, Answer::default());
        script.add(5, 6, Op::Read { key: "b".into() }, End::Ok, got("true"));
        let bad = check(&script.stored());
        assert_eq!(bad.outcome, Outcome::Fail, "{bad}");
        assert_eq!(check(&Script::default().stored()).outcome, Outcome::Unknown);
    }
}
