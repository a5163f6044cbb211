//! The rows of one key: points (time, place), ordered by time, newest first, equal times newest insert first.
//!
//! The newest point stands in the slot of the key itself, so a key with one row costs no allocation; older ones in a
//! [`Tree`], which is one array that grows by a quarter until there are many. A position counts from the newest row on,
//! which has 0.
//!
//! **Invariant**: no point in the tree is newer than `newest`.

use std::ops::Range;

use super::tree::Tree;

/// One row in an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its time.
    pub ts: u64,
    /// Where its value stands.
    pub place: u64,
}

/// The rows of one key; at least one.
#[derive(Debug)]
pub struct List {
    newest: Point,
    older: Tree,
}

impl List {
    /// A key with one row.
    #[must_use]
    pub fn new(point: Point) -> Self {
        Self { newest: point, older: Tree::default() }
    }

    /// A key with these rows, newest first, in arrays that are no longer than they need to be; `None`: there are none, or
    /// not in that order.
    #[must_use]
    pub fn ordered(
        mut rows: impl DoubleEndedIterator<Item = Point> + ExactSizeIterator,
    ) -> Option<Self> {
        let newest = rows.next()?;
        let mut points = Vec::with_capacity(rows.len());
        points.extend(rows.rev());
        let last = points.last().map_or(0, |p: &Point| p.ts);
        if last > newest.ts || !points.is_sorted_by_key(|p| p.ts) {
            return None;
        }
        Some(Self { newest, older: Tree::new(points) })
    }

    /// Adds a row.
    pub fn insert(&mut self, point: Point) {
        let older = if point.ts >= self.newest.ts {
            std::mem::replace(&mut self.newest, point)
        } else {
            point
        };
        self.older.insert(older);
    }

    /// How many rows there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        1 + self.older.len()
    }

    /// The newest row.
    #[must_use]
    pub fn newest(&self) -> Point {
        self.newest
    }

    /// How many rows are newer than that: the position of the first that is not.
    #[must_use]
    pub fn newer_than(&self, ts: u64) -> usize {
        if self.newest.ts <= ts {
            return 0;
        }
        1 + self.older.len() - self.older.not_newer(ts)
    }

    /// The rows from a position on, newest first.
    pub fn from(&self, position: usize) -> impl Iterator<Item = Point> + '_ {
        let newest = (position == 0).then_some(self.newest);
        let skip = position.saturating_sub(1);
        newest.into_iter().chain(self.older.descend(self.older.len().saturating_sub(skip)))
    }

    /// Keeps the `count` newest rows, at least one; returns how many went.
    pub fn keep(&mut self, count: usize) -> usize {
        let gone = self.len().saturating_sub(count.max(1));
        self.older.remove(0..gone);
        gone
    }

    /// Takes out the rows of these positions; `false`: that would be all of them, and none is.
    pub fn remove(&mut self, positions: Range<usize>) -> bool {
        let positions = positions.start..positions.end.min(self.len());
        if positions.len() == self.len() {
            return false;
        }
        let older = self.older.len();
        let rank = |position: usize| older - (position.max(1) - 1).min(older);
        self.older.remove(rank(positions.end)..rank(positions.start));
        if positions.contains(&0)
            && let Some(next) = self.older.pop()
        {
            self.newest = next;
        }
        true
    }

    /// The bytes behind the slot.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.older.heap()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition: a stable order by descending time of what was inserted, last insert first.
    #[derive(Default)]
    struct Naive(Vec<Point>);

    impl Naive {
        fn insert(&mut self, point: Point) {
            let at = self.0.iter().position(|p| p.ts <= point.ts).unwrap_or(self.0.len());
            self.0.insert(at, point);
        }
    }

    fn check(list: &List, naive: &Naive, at: usize, ts: u64) {
        assert_eq!(list.len(), naive.0.len());
        assert_eq!(list.newest(), naive.0[0]);
        assert_eq!(list.from(0).collect::<Vec<_>>(), naive.0);
        assert_eq!(list.from(at).collect::<Vec<_>>(), naive.0[at.min(naive.0.len())..]);
        assert_eq!(list.newer_than(ts), naive.0.iter().filter(|p| p.ts > ts).count());
    }

    fn inserted(times: impl IntoIterator<Item = u64>) -> (List, Naive) {
        let mut naive = Naive::default();
        let mut list = None;
        for (place, ts) in (0u64..).zip(times) {
            let point = Point { ts, place };
            naive.insert(point);
            match &mut list {
                None => list = Some(List::new(point)),
                Some(list) => list.insert(point),
            }
        }
        (list.unwrap(), naive)
    }

    proptest! {
        #[test]
        fn short_lists_agree_with_the_definition(
            times in prop::collection::vec(0u64..20, 1..80), at in 0usize..90, ts in 0u64..22, keep in 0usize..90,
        ) {
            let (mut list, mut naive) = inserted(times);
            check(&list, &naive, at, ts);
            let gone = naive.0.len().saturating_sub(keep.max(1));
            prop_assert_eq!(list.keep(keep), gone);
            naive.0.truncate(keep.max(1));
            check(&list, &naive, at, ts);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn long_lists_agree_with_the_definition(
            times in prop::collection::vec(0u64..500, 1..200), span in 1u64..4000, at in 0usize..4000, keep in 0usize..4000,
        ) {
            // A long ascending run, then strays anywhere.
            let (mut list, mut naive) = inserted((0..3000).map(|i| i * span / 3000));
            for (place, ts) in (10_000..).zip(times) {
                let point = Point { ts: ts * span / 400, place };
                list.insert(point);
                naive.insert(point);
            }
            check(&list, &naive, at, span / 2);
            list.keep(keep);
            naive.0.truncate(keep.max(1));
            check(&list, &naive, at, span / 2);
            let point = Point { ts: span / 3, place: 1 };
            list.insert(point);
            naive.insert(point);
            check(&list, &naive, 0, span / 3);
        }
    }

    #[test]
    fn a_list_is_made_of_its_rows() {
        for count in [1, 2, 50, 5000] {
            let (list, mut naive) = inserted((0..count).map(|i| i * 7 % 100));
            let mut again = List::ordered(list.from(0).collect::<Vec<_>>().into_iter()).unwrap();
            check(&again, &naive, 3, 50);
            assert!(again.heap() <= list.heap());
            let point = Point { ts: 51, place: 1 };
            again.insert(point);
            naive.insert(point);
            check(&again, &naive, 0, 50);
        }
        let point = |ts| Point { ts, place: 0 };
        assert!(List::ordered([].into_iter()).is_none());
        assert!(List::ordered([point(1), point(2)].into_iter()).is_none());
        assert!(List::ordered([point(9), point(1), point(2)].into_iter()).is_none());
    }

    #[test]
    fn rows_are_taken_out_by_position() {
        for count in [2u64, 5, 40, 2000] {
            for (from, to) in
                [(0, 1), (0, 2), (1, 2), (1, 3), (3, 3), (0, 30), (7, 1990), (0, 4000)]
            {
                let (mut list, mut naive) = inserted((0..count).map(|i| i * 7 % 100));
                let rest = to.min(naive.0.len()) - from.min(naive.0.len());
                let all = rest == naive.0.len();
                assert_eq!(list.remove(from..to), !all, "{from}..{to} of {count}");
                if !all {
                    naive.0.drain(from.min(naive.0.len())..to.min(naive.0.len()));
                }
                check(&list, &naive, 1, 50);
            }
        }
    }
}
