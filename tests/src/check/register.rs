//! Is the history of a register linearizable?
//!
//! The algorithm of Wing and Gong with Lowe's memory of what was tried ("Testing for linearizability", 2017): operations
//! are put in an order one by one, each within its own time, and a set of placed operations with the value that it leads
//! to is never tried twice. Its cost grows with how many operations overlap, not with how many there are.

use std::collections::HashSet;

/// What an operation did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// It set this value.
    Write(u64),
    /// It saw this value.
    Read(u64),
}

/// An operation of the history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op {
    /// When it began; any clock that all share.
    pub start: u64,
    /// When it was answered; `None`: its outcome is not known, it may take effect at any time from its start on, or never.
    pub end: Option<u64>,
    /// What it did.
    pub kind: Kind,
}

/// Which operations are placed.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Placed(Vec<u64>);

impl Placed {
    fn has(&self, at: usize) -> bool {
        self.0[at / 64] >> (at % 64) & 1 == 1
    }

    fn flip(&mut self, at: usize) {
        self.0[at / 64] ^= 1 << (at % 64);
    }
}

/// Is there an order of these operations, each between its start and its end, in which every read sees what was written
/// last, `initial` at first?
#[must_use]
pub fn linearizable(ops: &[Op], initial: u64) -> bool {
    let mut ops: Vec<Op> = ops
        .iter()
        // A read that was not answered says nothing.
        .filter(|op| op.end.is_some() || matches!(op.kind, Kind::Write(_)))
        .copied()
        .collect();
    ops.sort_by_key(|op| op.start);
    let must = ops.iter().filter(|op| op.end.is_some()).count();
    let (mut placed, mut done) = (Placed(vec![0; ops.len().div_ceil(64)]), 0);
    let mut tried = HashSet::from([(placed.clone(), initial)]);
    // What was placed, the value before it, and where to look for the next alternative.
    let mut path: Vec<(usize, u64)> = Vec::new();
    let (mut value, mut from) = (initial, 0);
    loop {
        if done == must {
            return true;
        }
        match next(&ops, &placed, value, from) {
            Some(at) => {
                let becomes = match ops[at].kind {
                    Kind::Write(written) => written,
                    Kind::Read(_) => value,
                };
                placed.flip(at);
                if tried.insert((placed.clone(), becomes)) {
                    path.push((at, value));
                    done += usize::from(ops[at].end.is_some());
                    (value, from) = (becomes, 0);
                } else {
                    placed.flip(at);
                    from = at + 1;
                }
            }
            None => {
                let Some((at, before)) = path.pop() else { return false };
                placed.flip(at);
                done -= usize::from(ops[at].end.is_some());
                (value, from) = (before, at + 1);
            }
        }
    }
}

/// The first operation from `from` on that may come next: it began before any that is not placed had ended, and if it
/// reads, it reads `value`.
fn next(ops: &[Op], placed: &Placed, value: u64, from: usize) -> Option<usize> {
    let open = |at: &usize| !placed.has(*at);
    let first = (0..ops.len()).find(open)?;
    let mut ends = u64::MAX;
    for at in (first..ops.len()).filter(open) {
        if ops[at].start > ends {
            break;
        }
        ends = ends.min(ops[at].end.unwrap_or(u64::MAX));
    }
    let fits = |at: &usize| match ops[*at].kind {
        Kind::Read(seen) => seen == value,
        Kind::Write(_) => true,
    };
    (from.max(first)..ops.len()).take_while(|at| ops[*at].start <= ends).filter(open).find(fits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn op(start: u64, end: u64, kind: Kind) -> Op {
        Op { start, end: Some(end), kind }
    }

    /// Every order of every subset that has all that was answered.
    fn naive(ops: &[Op], initial: u64) -> bool {
        fn go(rest: &mut Vec<Op>, value: u64) -> bool {
            if rest.iter().all(|op| op.end.is_none()) {
                return true;
            }
            let ends = rest.iter().filter_map(|op| op.end).min().unwrap_or(u64::MAX);
            for at in 0..rest.len() {
                let op = rest[at];
                let next = match op.kind {
                    _ if op.start > ends => continue,
                    Kind::Write(written) => written,
                    Kind::Read(seen) if seen == value && op.end.is_some() => value,
                    Kind::Read(_) => continue,
                };
                rest.remove(at);
                let found = go(rest, next);
                rest.insert(at, op);
                if found {
                    return true;
                }
            }
            false
        }
        go(&mut ops.to_vec(), initial)
    }

    #[test]
    fn a_read_sees_the_last_write_or_one_beside_it() {
        use Kind::{Read, Write};
        assert!(linearizable(&[op(0, 1, Write(5)), op(2, 3, Read(5))], 0));
        assert!(!linearizable(&[op(0, 1, Write(5)), op(2, 3, Read(0))], 0), "stale");
        assert!(linearizable(&[op(0, 3, Write(5)), op(1, 2, Read(0))], 0), "beside it");
        let back = [op(0, 9, Write(5)), op(1, 2, Read(5)), op(3, 4, Read(0))];
        assert!(!linearizable(&back, 0), "what was seen does not go away");
        let open = Op { start: 0, end: None, kind: Write(7) };
        assert!(linearizable(&[open, op(5, 6, Read(0)), op(7, 8, Read(7))], 0), "late");
        assert!(linearizable(&[open, op(5, 6, Read(0))], 0), "never");
    }

    /// A long history of eight clients: linearizable as it was made, and not when one read is falsified.
    #[test]
    fn a_long_history_is_decided_and_a_lie_in_it_found() {
        let mut random = proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        );
        let (mut ops, mut value, mut now) = (Vec::new(), 0, 0);
        for n in 0..5000u64 {
            now += 10;
            let spread = random.next_u64() % 40;
            let kind = if random.next_u64().is_multiple_of(2) {
                value = n;
                Kind::Write(n)
            } else {
                Kind::Read(value)
            };
            // It takes effect at `now`.
            ops.push(op(now - spread.min(now), now + random.next_u64() % 40, kind));
        }
        assert!(linearizable(&ops, 0));
        let lie = ops.iter().rposition(|op| matches!(op.kind, Kind::Read(_))).unwrap();
        ops[lie].kind = Kind::Read(1_000_000);
        assert!(!linearizable(&ops, 0));
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let one = (0u64..20, prop::option::weighted(0.8, 0u64..8), any::<bool>(), 0u64..3);
        let one = one.prop_map(|(start, length, write, value)| Op {
            start,
            end: length.map(|l| start + l),
            kind: if write { Kind::Write(value) } else { Kind::Read(value) },
        });
        prop::collection::vec(one, 0..7)
    }

    proptest! {
        #[test]
        fn it_says_what_trying_everything_says(ops in ops()) {
            prop_assert_eq!(linearizable(&ops, 0), naive(&ops, 0));
        }
    }
}
