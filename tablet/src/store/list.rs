//! The rows of one key: points (time, place), ordered by time, newest first, equal times newest insert first.
//!
//! **Layout**: the newest point stands in the slot of the key itself, so a key with one row costs no allocation; older
//! ones in one array that grows by a quarter; beyond a thousand of them, in chunks of at most 512, so that an
//! insertion anywhere moves at most one chunk and growing copies at most one.
//!
//! **Invariants**: inside, older points ascend by time, equal times by order of insertion, so that the common case is a
//! push; no chunk is empty; no point is newer than `newest`.

/// Points of a chunk, at most.
const CHUNK: usize = 512;
/// From so many older points on they stand in chunks.
const SPLIT: usize = 2 * CHUNK;

/// One row in an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Point {
    /// Its time.
    pub ts: u64,
    /// Where its value stands in the log.
    pub place: u64,
}

/// The rows of one key; at least one.
#[derive(Debug)]
pub struct List {
    newest: Point,
    older: Older,
}

#[derive(Debug)]
enum Older {
    Few(Vec<Point>),
    Many(Box<Chunks>),
}

#[derive(Debug)]
struct Chunks {
    chunks: Vec<Vec<Point>>,
    len: usize,
    /// Points for which there is room.
    capacity: usize,
}

/// Room for one more, a quarter at a time.
fn grow(points: &mut Vec<Point>) {
    if points.len() == points.capacity() {
        points.reserve_exact((points.len() / 4).max(2));
    }
}

/// Where a point of that time goes: behind all that are not newer.
fn slot(points: &[Point], ts: u64) -> usize {
    // Time mostly goes on.
    match points.last() {
        Some(last) if last.ts > ts => points.partition_point(|p| p.ts <= ts),
        _ => points.len(),
    }
}

impl List {
    /// A key with one row.
    #[must_use]
    pub fn new(point: Point) -> Self {
        Self { newest: point, older: Older::Few(Vec::new()) }
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
        let older = if points.len() < SPLIT {
            Older::Few(points)
        } else {
            Older::Many(Box::new(Chunks::new(points)))
        };
        Some(Self { newest, older })
    }

    /// Adds a row.
    pub fn insert(&mut self, point: Point) {
        let older = if point.ts >= self.newest.ts {
            std::mem::replace(&mut self.newest, point)
        } else {
            point
        };
        match &mut self.older {
            Older::Few(points) => {
                grow(points);
                points.insert(slot(points, older.ts), older);
                if points.len() >= SPLIT {
                    self.older = Older::Many(Box::new(Chunks::new(std::mem::take(points))));
                }
            }
            Older::Many(chunks) => chunks.insert(older),
        }
    }

    /// How many rows there are.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        1 + match &self.older {
            Older::Few(points) => points.len(),
            Older::Many(chunks) => chunks.len,
        }
    }

    /// The newest row.
    #[must_use]
    pub fn newest(&self) -> Point {
        self.newest
    }

    /// How many rows are newer than that: the position (0 = newest) of the first that is not.
    #[must_use]
    pub fn newer_than(&self, ts: u64) -> usize {
        if self.newest.ts <= ts {
            return 0;
        }
        1 + match &self.older {
            Older::Few(points) => points.len() - slot(points, ts),
            Older::Many(chunks) => chunks.newer_than(ts),
        }
    }

    /// The rows from a position on, newest first.
    pub fn from(&self, position: usize) -> impl Iterator<Item = Point> + '_ {
        let skip = position.saturating_sub(1);
        let (few, many) = match &self.older {
            Older::Few(points) => (&points[..points.len().saturating_sub(skip)], None),
            Older::Many(chunks) => (&[][..], Some(chunks.from(skip))),
        };
        let newest = (position == 0).then_some(self.newest);
        newest.into_iter().chain(few.iter().rev().copied()).chain(many.into_iter().flatten())
    }

    /// Keeps the `count` newest rows, at least one; returns how many went.
    pub fn keep(&mut self, count: usize) -> usize {
        let before = self.len();
        let older = count.max(1) - 1;
        match &mut self.older {
            Older::Few(points) if points.len() > older => {
                // A new array: the room of what went is given back.
                *points = points.split_off(points.len() - older);
            }
            Older::Few(_) => {}
            Older::Many(chunks) => chunks.keep(older),
        }
        before - self.len()
    }

    /// The bytes behind the slot.
    #[must_use]
    pub fn heap(&self) -> usize {
        match &self.older {
            Older::Few(points) => points.capacity() * size_of::<Point>(),
            Older::Many(chunks) => {
                size_of::<Chunks>()
                    + chunks.chunks.capacity() * size_of::<Vec<Point>>()
                    + chunks.capacity * size_of::<Point>()
            }
        }
    }
}

impl Chunks {
    fn new(points: Vec<Point>) -> Self {
        let chunks: Vec<Vec<Point>> = points.chunks(CHUNK).map(<[Point]>::to_vec).collect();
        Self { len: points.len(), capacity: chunks.iter().map(Vec::capacity).sum(), chunks }
    }

    fn insert(&mut self, point: Point) {
        self.len += 1;
        let at = self.chunk(point.ts);
        let last = at + 1 == self.chunks.len();
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.capacity += 1;
            self.chunks.push(vec![point]);
            return;
        };
        let slot = slot(chunk, point.ts);
        if chunk.len() < CHUNK {
            self.capacity -= chunk.capacity();
            grow(chunk);
            self.capacity += chunk.capacity();
            chunk.insert(slot, point);
        } else if last && slot == CHUNK {
            // Time goes on: the full chunk stays full.
            self.capacity += 1;
            self.chunks.push(vec![point]);
        } else {
            self.capacity -= chunk.capacity();
            let mut back = chunk.split_off(CHUNK / 2);
            chunk.shrink_to_fit();
            if slot <= CHUNK / 2 {
                chunk.insert(slot, point)
            } else {
                back.insert(slot - CHUNK / 2, point)
            }
            self.capacity += chunk.capacity() + back.capacity();
            self.chunks.insert(at + 1, back);
        }
    }

    /// The chunk into which a point of that time goes: the last that does not begin with a newer one.
    fn chunk(&self, ts: u64) -> usize {
        self.chunks.partition_point(|c| c.first().is_some_and(|p| p.ts <= ts)).saturating_sub(1)
    }

    fn newer_than(&self, ts: u64) -> usize {
        let mut newer = 0;
        for chunk in self.chunks.iter().rev() {
            let slot = slot(chunk, ts);
            newer += chunk.len() - slot;
            if slot > 0 {
                break;
            }
        }
        newer
    }

    fn from(&self, position: usize) -> impl Iterator<Item = Point> + '_ {
        let (mut whole, mut skip) = (self.chunks.len(), position);
        while whole > 0 && skip >= self.chunks[whole - 1].len() {
            skip -= self.chunks[whole - 1].len();
            whole -= 1;
        }
        let (rest, first) = self.chunks[..whole]
            .split_last()
            .map_or((&[][..], &[][..]), |(c, rest)| (rest, &c[..c.len() - skip]));
        first.iter().rev().chain(rest.iter().rev().flat_map(|c| c.iter().rev())).copied()
    }

    fn keep(&mut self, count: usize) {
        let mut surplus = self.len.saturating_sub(count);
        self.len -= surplus;
        let whole = self
            .chunks
            .iter()
            .take_while(|c| {
                let goes = c.len() <= surplus;
                surplus -= if goes { c.len() } else { 0 };
                goes
            })
            .count();
        self.chunks.drain(..whole);
        if let Some(first) = self.chunks.first_mut().filter(|_| surplus > 0) {
            *first = first.split_off(surplus);
        }
        self.chunks.shrink_to_fit();
        self.capacity = self.chunks.iter().map(Vec::capacity).sum();
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
    fn chunks_stay_small_in_any_order() {
        for times in [
            (0..6000).collect::<Vec<u64>>(),
            (0..6000).rev().collect(),
            (0..6000).map(|i| i % 7).collect(),
        ] {
            let (list, naive) = inserted(times);
            check(&list, &naive, 1777, 3);
            let Older::Many(chunks) = &list.older else { panic!("in chunks") };
            assert!(chunks.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
            assert_eq!(chunks.capacity, chunks.chunks.iter().map(Vec::capacity).sum::<usize>());
        }
    }
}
