//! Points in ascending order, equal times by order of insertion: a counted B+ tree that begins as one array.
//!
//! What a key with many rows needs of it: an insertion anywhere moves at most one leaf, the number of points that are not
//! newer than a time and the point with a given rank are found in O(log n), and the old end goes leaf by leaf. A full
//! leaf at the end stays full, as time mostly goes on.
//!
//! **Invariants**: only the root may be empty; a leaf has at most `LEAF` points, a node at most `FAN` children; a
//! child's `first` is not newer than any of its points and not older than any of the child before. The depth of leaves
//! may differ after a removal.
//!
//! Source: the order-statistic tree, e.g. Cormen et al., *Introduction to Algorithms*, ch. 14, on a B+ tree.

use std::ops::Range;

use super::list::Point;

/// Points of a leaf, at most.
const LEAF: usize = 512;
/// Children of a node, at most.
const FAN: usize = 64;

/// Points in order.
#[derive(Debug)]
pub enum Tree {
    /// All in one array.
    Leaf(Vec<Point>),
    /// In several.
    Node(Box<Node>),
}

/// What is not a leaf.
#[derive(Debug)]
pub struct Node {
    len: usize,
    heap: usize,
    children: Vec<Child>,
}

#[derive(Debug)]
struct Child {
    /// Not newer than any point in it.
    first: u64,
    tree: Tree,
}

impl Default for Tree {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

/// Room for one more, a quarter at a time.
fn grow(points: &mut Vec<Point>) {
    if points.len() == points.capacity() {
        points.reserve_exact((points.len() / 4).max(2).min(LEAF - points.len()));
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

impl Tree {
    /// The tree of points that are in order, in arrays that are no longer than they need to be.
    #[must_use]
    pub fn new(mut points: Vec<Point>) -> Self {
        if points.len() <= LEAF {
            points.shrink_to_fit();
            return Self::Leaf(points);
        }
        let mut level: Vec<Self> = points.chunks(LEAF).map(|c| Self::Leaf(c.to_vec())).collect();
        while level.len() > 1 {
            let mut rest = level.into_iter();
            level = std::iter::from_fn(|| {
                let some: Vec<Self> = rest.by_ref().take(FAN).collect();
                (!some.is_empty()).then(|| Self::over(some))
            })
            .collect();
        }
        level.pop().unwrap_or_default()
    }

    fn over(trees: Vec<Self>) -> Self {
        let children = trees.into_iter().map(|tree| Child { first: tree.first(), tree }).collect();
        let mut node = Node { len: 0, heap: 0, children };
        node.measure();
        Self::Node(Box::new(node))
    }

    fn first(&self) -> u64 {
        match self {
            Self::Leaf(points) => points.first().map_or(0, |p| p.ts),
            Self::Node(node) => node.children.first().map_or(0, |c| c.first),
        }
    }

    /// How many points there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Leaf(points) => points.len(),
            Self::Node(node) => node.len,
        }
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes behind it.
    #[must_use]
    pub fn heap(&self) -> usize {
        match self {
            Self::Leaf(points) => points.capacity() * size_of::<Point>(),
            Self::Node(node) => node.heap,
        }
    }

    /// Adds a point, behind all that are not newer.
    pub fn insert(&mut self, point: Point) {
        if let Some(right) = self.put(point) {
            let left = std::mem::take(self);
            *self = Self::over(vec![left, right]);
        }
    }

    /// The same; returns what did not find room: the points behind.
    fn put(&mut self, point: Point) -> Option<Self> {
        let points = match self {
            Self::Leaf(points) => points,
            Self::Node(node) => return node.put(point),
        };
        let at = slot(points, point.ts);
        if points.len() < LEAF {
            grow(points);
            points.insert(at, point);
            return None;
        }
        if at == LEAF {
            return Some(Self::Leaf(vec![point]));
        }
        let mut back = points.split_off(LEAF / 2);
        points.shrink_to_fit();
        let (half, at) = if at <= LEAF / 2 { (points, at) } else { (&mut back, at - LEAF / 2) };
        grow(half);
        half.insert(at, point);
        Some(Self::Leaf(back))
    }

    /// How many points are not newer than that.
    #[must_use]
    pub fn not_newer(&self, ts: u64) -> usize {
        match self {
            Self::Leaf(points) => slot(points, ts),
            Self::Node(node) => {
                let at = node.child(ts);
                let before: usize = node.children[..at].iter().map(|c| c.tree.len()).sum();
                before + node.children.get(at).map_or(0, |c| c.tree.not_newer(ts))
            }
        }
    }

    /// The leaf that has the point of that rank (0: the oldest), and its place there.
    fn leaf(&self, mut rank: usize) -> (&[Point], usize) {
        match self {
            Self::Leaf(points) => (points, rank),
            Self::Node(node) => {
                for child in &node.children {
                    let len = child.tree.len();
                    if rank < len {
                        return child.tree.leaf(rank);
                    }
                    rank -= len;
                }
                (&[], 0)
            }
        }
    }

    /// The `count` oldest points, newest of them first.
    #[must_use]
    pub fn descend(&self, count: usize) -> Descend<'_> {
        Descend { tree: self, leaf: [].iter(), left: count.min(self.len()) }
    }

    /// The newest point is taken out.
    pub fn pop(&mut self) -> Option<Point> {
        let last = self.descend(self.len()).next();
        let len = self.len();
        self.remove(len.saturating_sub(1)..len);
        last
    }

    /// Takes out the points of these ranks, and gives their memory back.
    pub fn remove(&mut self, ranks: Range<usize>) {
        if ranks.is_empty() {
            return;
        }
        match self {
            Self::Leaf(points) if ranks.start == 0 => {
                *points = points.split_off(ranks.end.min(points.len()));
            }
            Self::Leaf(points) => {
                drop(points.drain(ranks.start..ranks.end.min(points.len())));
                points.shrink_to_fit();
            }
            Self::Node(node) => {
                let mut before = 0;
                for child in &mut node.children {
                    let len = child.tree.len();
                    let from = ranks.start.saturating_sub(before).min(len);
                    let to = ranks.end.saturating_sub(before).min(len);
                    if to - from == len {
                        child.tree = Self::default();
                    } else {
                        child.tree.remove(from..to);
                    }
                    before += len;
                }
                node.children.retain(|c| !c.tree.is_empty());
                node.children.shrink_to_fit();
                node.measure();
                if node.children.len() <= 1 {
                    *self = node.children.pop().map(|c| c.tree).unwrap_or_default();
                }
            }
        }
    }
}

impl Node {
    fn measure(&mut self) {
        self.len = self.children.iter().map(|c| c.tree.len()).sum();
        let behind: usize = self.children.iter().map(|c| c.tree.heap()).sum();
        self.heap = behind + self.children.capacity() * size_of::<Child>() + size_of::<Self>();
    }

    /// Where a point of that time goes: the last child that does not begin with a newer one.
    fn child(&self, ts: u64) -> usize {
        self.children.partition_point(|c| c.first <= ts).saturating_sub(1)
    }

    fn put(&mut self, point: Point) -> Option<Tree> {
        let at = self.child(point.ts);
        let child = self.children.get_mut(at)?;
        let before = child.tree.heap();
        let right = child.tree.put(point);
        child.first = child.first.min(point.ts);
        self.len += 1;
        self.heap = self.heap + child.tree.heap() - before;
        let tree = right?;
        self.children.insert(at + 1, Child { first: tree.first(), tree });
        let mut beyond = None;
        if self.children.len() > FAN {
            // Time goes on: the full node stays full.
            let cut = if at + 2 == self.children.len() { FAN } else { FAN / 2 };
            let mut back = Self { len: 0, heap: 0, children: self.children.split_off(cut) };
            back.measure();
            self.children.shrink_to_fit();
            beyond = Some(Tree::Node(Box::new(back)));
        }
        self.measure();
        beyond
    }
}

/// Points from a rank on, newest first.
pub struct Descend<'a> {
    tree: &'a Tree,
    leaf: std::slice::Iter<'a, Point>,
    /// Points that are older than those of `leaf`.
    left: usize,
}

impl Iterator for Descend<'_> {
    type Item = Point;

    #[inline]
    fn next(&mut self) -> Option<Point> {
        loop {
            if let Some(point) = self.leaf.next_back() {
                return Some(*point);
            }
            let (points, at) = self.tree.leaf(self.left.checked_sub(1)?);
            let points = points.get(..=at)?;
            self.left -= points.len();
            self.leaf = points.iter();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(tree: &Tree) -> Vec<Point> {
        let mut points: Vec<Point> = tree.descend(usize::MAX).collect();
        points.reverse();
        points
    }

    /// Every bound, count and size, counted anew; returns its depth.
    fn check(tree: &Tree, root: bool) -> usize {
        match tree {
            Tree::Leaf(points) => {
                assert!(points.len() <= LEAF && points.capacity() <= LEAF);
                assert!(root || !points.is_empty());
                1
            }
            Tree::Node(node) => {
                assert!(node.children.len() <= FAN && node.children.len() > 1);
                for pair in node.children.windows(2) {
                    let last = pair[0].tree.descend(usize::MAX).next().unwrap();
                    assert!(last.ts <= pair[1].first);
                }
                for child in &node.children {
                    assert!(points(&child.tree).iter().all(|p| p.ts >= child.first));
                }
                let (len, heap) = (node.len, node.heap);
                let mut again = Node { len: 0, heap: 0, children: Vec::new() };
                again.measure();
                let behind: usize = node.children.iter().map(|c| c.tree.heap()).sum();
                let own = node.children.capacity() * size_of::<Child>() + size_of::<Node>();
                assert_eq!(heap, behind + own);
                assert_eq!(len, node.children.iter().map(|c| c.tree.len()).sum::<usize>());
                1 + node.children.iter().map(|c| check(&c.tree, false)).max().unwrap_or(0)
            }
        }
    }

    #[test]
    fn a_hundred_thousand_points_in_any_order_stay_in_a_shallow_tree() {
        let count = 100_000u64;
        for times in [
            (0..count).collect::<Vec<_>>(),
            (0..count).rev().collect(),
            (0..count).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).collect(),
            (0..count).map(|i| i % 7).collect(),
        ] {
            let mut tree = Tree::default();
            let mut naive = Vec::new();
            for (place, ts) in (0u64..).zip(&times) {
                tree.insert(Point { ts: *ts, place });
                naive.push(Point { ts: *ts, place });
            }
            naive.sort_by_key(|p| p.ts);
            assert!(points(&tree) == naive);
            assert!(check(&tree, true) <= 4);
            assert!(points(&Tree::new(naive.clone())) == naive);
            for ts in [0, 3, 99, count / 2, count, u64::MAX] {
                assert_eq!(tree.not_newer(ts), naive.partition_point(|p| p.ts <= ts));
            }
            for (from, to) in [(0, 1000), (500, 70_000), (3, 4), (0, 25_000), (0, 100_000)] {
                let to = to.min(naive.len());
                let from = from.min(to);
                tree.remove(from..to);
                naive.drain(from..to);
                assert!(points(&tree) == naive);
                check(&tree, true);
                if let Some(point) = naive.pop() {
                    assert_eq!(tree.pop(), Some(point));
                    tree.insert(point);
                    naive.push(point);
                }
            }
            assert_eq!((tree.len(), tree.heap(), tree.pop()), (0, 0, None));
        }
    }
}
