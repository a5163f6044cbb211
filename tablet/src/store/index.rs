//! One index of one partition: from a key to its rows, as a hash table that grows a bucket at a time.
//!
//! Extendible hashing (Fagin et al., *ACM TODS* 4(3), 1979): a directory over the first bits of the key's hash leads to
//! buckets of at most `BUCKET` keys; a full one is split in two. So nothing ever takes long: there is no rehash, a sweep
//! goes bucket by bucket, and keys can be gone through in the order of their hashes, which is the same on every replica
//! and stays while keys come and go. Only committed rows are here (R28), so that nothing ever has to be taken back.
//!
//! **Invariants**: the directory has two to the power of `depth` entries, and as many that lead to a bucket as its depth
//! says; every key is in the bucket of its hash; `tags` and `slots` of a bucket go together.

use smallvec::SmallVec;
use stela_common::route::murmur64;
use stela_common::table::Ttl;

use super::list::{List, Point};
use super::ttl;

/// Keys of a bucket, at most.
const BUCKET: usize = 128;
/// Bits of a hash that the directory may look at: with more, keys are alike on purpose, and stay in one bucket.
const DEPTH: u32 = 28;
/// Rows of a key beyond those that are kept, at least, before they are cut: not one at a time.
const SLACK: usize = 8;
/// Not the seed that chose the partition, which would fill some buckets and leave others empty. Part of the format of
/// snapshots and cursors.
const SEED: u64 = 0x5e11_a5ed;

/// A key; a short one stands in its slot.
type Key = SmallVec<[u8; 16]>;

/// One index.
#[derive(Debug, Default)]
pub struct Index {
    /// Empty until there is a key.
    directory: Vec<u32>,
    depth: u32,
    buckets: Vec<Bucket>,
    keys: u64,
    rows: u64,
    /// Bytes behind the buckets.
    heap: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    depth: u32,
    /// Of each key, the last bits of its hash.
    tags: Vec<u32>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    list: List,
}

/// A row that is to go into an index.
#[derive(Debug)]
pub struct Gathered {
    hash: u64,
    key: Key,
    point: Point,
}

impl Gathered {
    /// A row of that key.
    #[must_use]
    pub fn new(key: &[u8], point: Point) -> Self {
        Self { hash: hash(key), key: Key::from_slice(key), point }
    }

    /// The order of its key.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// The order of keys.
fn hash(key: &[u8]) -> u64 {
    murmur64(key, SEED)
}

#[allow(clippy::cast_possible_truncation)] // that is what it is for
fn tag(hash: u64) -> u32 {
    hash as u32
}

/// Room for one more, an eighth at a time.
fn grow<T>(items: &mut Vec<T>) {
    if items.len() == items.capacity() {
        items.reserve_exact((items.len() / 8).max(2));
    }
}

impl Slot {
    fn heap(&self) -> usize {
        self.list.heap() + if self.key.spilled() { self.key.capacity() } else { 0 }
    }
}

impl Bucket {
    fn find(&self, tag: u32, key: &[u8]) -> Option<usize> {
        const LANES: usize = 8;
        for (at, tags) in self.tags.chunks(LANES).enumerate() {
            // Without an early exit it is done in one go.
            if !tags.iter().fold(false, |any, t| any | (*t == tag)) {
                continue;
            }
            let at = at * LANES;
            let found = (at..at + tags.len())
                .find(|i| self.tags[*i] == tag && self.slots[*i].key.as_slice() == key);
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The bytes of its arrays.
    fn heap(&self) -> usize {
        self.tags.capacity() * size_of::<u32>() + self.slots.capacity() * size_of::<Slot>()
    }

    fn push(&mut self, tag: u32, slot: Slot) {
        grow(&mut self.tags);
        grow(&mut self.slots);
        self.tags.push(tag);
        self.slots.push(slot);
    }

    fn remove(&mut self, at: usize) -> Slot {
        self.tags.swap_remove(at);
        let slot = self.slots.swap_remove(at);
        // Not for each key that goes.
        if self.slots.len() < self.slots.capacity() / 2 {
            self.tags.shrink_to_fit();
            self.slots.shrink_to_fit();
        }
        slot
    }

    /// Its slots in the order of keys.
    fn ordered(&self) -> Vec<(u64, &Slot)> {
        let mut slots: Vec<(u64, &Slot)> = self.slots.iter().map(|s| (hash(&s.key), s)).collect();
        slots.sort_unstable_by(|(a, x), (b, y)| a.cmp(b).then_with(|| x.key.cmp(&y.key)));
        slots
    }
}

impl Index {
    /// Where in the directory a hash leads.
    fn entry(&self, hash: u64) -> usize {
        // Below two to the power of `DEPTH`.
        hash.checked_shr(u64::BITS - self.depth).unwrap_or(0) as usize
    }

    fn bucket(&self, hash: u64) -> Option<&Bucket> {
        self.directory.get(self.entry(hash)).and_then(|at| self.buckets.get(*at as usize))
    }

    /// The bucket of a hash, to change it; what its arrays take is not counted any more.
    fn open(&mut self, hash: u64) -> Option<&mut Bucket> {
        let at = self.entry(hash);
        let at = *self.directory.get(at)?;
        let bucket = self.buckets.get_mut(at as usize)?;
        self.heap -= bucket.heap();
        Some(bucket)
    }

    /// Adds a row that was gathered. Of a key that has clearly more than `most` rows, only the newest are kept.
    pub fn insert_gathered(&mut self, row: &Gathered, most: usize) {
        self.insert_hashed(row.hash, &row.key, row.point, most);
    }

    /// Adds a row. Of a key that has clearly more than `most` rows, only the newest are kept.
    pub fn insert(&mut self, key: &[u8], point: Point, most: usize) {
        self.insert_hashed(hash(key), key, point, most);
    }

    fn insert_hashed(&mut self, hash: u64, key: &[u8], point: Point, most: usize) {
        self.rows += 1;
        let Some(at) = self.bucket(hash).and_then(|b| b.find(tag(hash), key)) else {
            return self.add(hash, Slot { key: Key::from_slice(key), list: List::new(point) });
        };
        let entry = self.entry(hash);
        let list = &mut self.buckets[self.directory[entry] as usize].slots[at].list;
        let before = list.heap();
        list.insert(point);
        if list.len() > most.saturating_add(most / 8 + SLACK) {
            self.rows -= list.keep(most) as u64;
        }
        self.heap = self.heap + list.heap() - before;
    }

    /// Adds a key with all its rows; it must not be there yet.
    pub fn load(&mut self, key: &[u8], list: List) {
        self.rows += list.len() as u64;
        self.add(hash(key), Slot { key: Key::from_slice(key), list });
    }

    /// Adds a key that is not there.
    fn add(&mut self, hash: u64, slot: Slot) {
        if self.buckets.is_empty() {
            self.buckets.push(Bucket::default());
            self.directory.push(0);
        }
        while self.bucket(hash).is_some_and(|b| b.slots.len() >= BUCKET && b.depth < DEPTH) {
            self.split(hash);
        }
        self.keys += 1;
        let (at, more) = (self.directory[self.entry(hash)] as usize, slot.heap());
        let bucket = &mut self.buckets[at];
        let before = bucket.heap();
        bucket.push(tag(hash), slot);
        self.heap = self.heap + more + bucket.heap() - before;
    }

    /// Splits the bucket of a hash in two.
    fn split(&mut self, hash: u64) {
        let new = self.buckets.len() as u32;
        let Some(bucket) = self.open(hash) else { return };
        bucket.depth += 1;
        let depth = bucket.depth;
        let one = |key: &[u8]| self::hash(key) >> (u64::BITS - depth) & 1 == 1;
        let (mut right, mut left) =
            (Bucket { depth, ..Bucket::default() }, Bucket { depth, ..Bucket::default() });
        let slots = std::mem::take(bucket);
        let ones = slots.slots.iter().filter(|s| one(&s.key)).count();
        for (half, len) in [(&mut right, ones), (&mut left, slots.slots.len() - ones)] {
            half.tags.reserve_exact(len + len / 8);
            half.slots.reserve_exact(len + len / 8);
        }
        for (tag, slot) in slots.tags.into_iter().zip(slots.slots) {
            if one(&slot.key) { right.push(tag, slot) } else { left.push(tag, slot) }
        }
        let both = right.heap() + left.heap();
        *bucket = left;
        self.heap += both;
        if self.depth < depth {
            self.depth = depth;
            self.directory = self.directory.iter().flat_map(|at| [*at, *at]).collect();
        }
        grow(&mut self.buckets);
        self.buckets.push(right);
        // The entries with its prefix, of which the upper half leads to the new one.
        let span = 1usize << (self.depth - depth);
        let begin = ((hash >> (u64::BITS - depth)) as usize | 1) * span;
        self.directory[begin..begin + span].fill(new);
    }

    /// The rows of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&List> {
        let hash = hash(key);
        let bucket = self.bucket(hash)?;
        bucket.find(tag(hash), key).map(|at| &bucket.slots[at].list)
    }

    /// Changes the rows of a key; `false` from `change`: the key goes with all of them.
    pub fn change(&mut self, key: &[u8], change: impl FnOnce(&mut List) -> bool) {
        let hash = hash(key);
        let Some(at) = self.bucket(hash).and_then(|b| b.find(tag(hash), key)) else { return };
        let entry = self.entry(hash);
        let bucket = self.directory[entry];
        self.edit(bucket as usize, at, change);
    }

    /// Removes a key with all its rows.
    pub fn remove(&mut self, key: &[u8]) {
        self.change(key, |_| false);
    }

    /// Changes the rows of one slot; whether its key is still there.
    fn edit(&mut self, bucket: usize, at: usize, change: impl FnOnce(&mut List) -> bool) -> bool {
        let bucket = &mut self.buckets[bucket];
        let before = (bucket.heap(), bucket.slots[at].heap(), bucket.slots[at].list.len());
        let kept = change(&mut bucket.slots[at].list);
        let after = if kept {
            let slot = &bucket.slots[at];
            (slot.heap(), slot.list.len())
        } else {
            bucket.remove(at);
            self.keys -= 1;
            (0, 0)
        };
        self.heap = self.heap + bucket.heap() + after.0 - before.0 - before.1;
        self.rows = self.rows + after.1 as u64 - before.2 as u64;
        if self.keys == 0 {
            *self = Self::default();
        }
        kept
    }

    /// The keys with their rows in the order of keys, from that one on, or where it would be; from the first on if it is
    /// empty.
    pub fn from(&self, key: &[u8]) -> impl Iterator<Item = (&[u8], &List)> {
        let first = if key.is_empty() { 0 } else { hash(key) };
        let key = key.to_vec();
        let mut entry = self.entry(first);
        let buckets = std::iter::from_fn(move || {
            let bucket = self.buckets.get(*self.directory.get(entry)? as usize)?;
            let span = 1usize << (self.depth - bucket.depth);
            entry = (entry / span + 1) * span;
            Some(bucket)
        });
        buckets
            .flat_map(Bucket::ordered)
            .skip_while(move |(hash, slot)| (*hash, slot.key.as_slice()) < (first, &key[..]))
            .map(|(_, slot)| (slot.key.as_slice(), &slot.list))
    }

    /// Does the first of two keys come before the second?
    #[must_use]
    pub fn before(one: &[u8], other: &[u8]) -> bool {
        (hash(one), one) < (hash(other), other)
    }

    /// Rows of all keys.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.keys
    }

    /// The bytes that the index takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.heap
            + self.directory.capacity() * size_of::<u32>()
            + self.buckets.capacity() * size_of::<Bucket>()
    }

    /// Takes expired rows out of `count` buckets from one on; returns where to go on, or `None` at the end. What readers
    /// see does not change: they look at the time to live themselves.
    pub fn sweep(&mut self, from: usize, count: usize, ttl: &Ttl, now: u64) -> Option<usize> {
        let to = self.buckets.len().min(from.saturating_add(count));
        for bucket in from..to {
            let mut at = 0;
            while at < self.buckets.get(bucket).map_or(0, |b| b.slots.len()) {
                let list = &self.buckets[bucket].slots[at].list;
                let (live, len) = (ttl::live(list, ttl, now), list.len());
                // Below an eighth it is not worth a copy.
                let kept = live > 0 && len - live <= live / 8;
                if kept || self.edit(bucket, at, |list| live > 0 && list.keep(live) > 0) {
                    at += 1;
                }
            }
        }
        (to < self.buckets.len()).then_some(to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use stela_common::table::TtlKind;

    use super::*;

    const ALL: usize = usize::MAX;

    #[derive(Clone, Debug)]
    enum Do {
        Insert(u16, u64),
        Remove(u16),
        Take(u16, usize, usize),
        Sweep(u64),
    }

    fn steps(keys: u16) -> impl Strategy<Value = Vec<Do>> {
        let step = prop_oneof![
            20 => (0..keys, 0u64..30).prop_map(|(k, ts)| Do::Insert(k, ts)),
            2 => (0..keys).prop_map(Do::Remove),
            2 => (0..keys, 0usize..4, 0usize..9).prop_map(|(k, from, to)| Do::Take(k, from, to)),
            1 => (0u64..30).prop_map(Do::Sweep),
        ];
        prop::collection::vec(step, 0..400)
    }

    fn key(number: u16) -> Vec<u8> {
        // Some stand in their slot, some do not.
        vec![b'k'; usize::from(number % 30)].into_iter().chain(number.to_le_bytes()).collect()
    }

    /// Newest first, equal times newest insert first.
    fn ordered(points: &[Point]) -> Vec<Point> {
        let mut points: Vec<Point> = points.iter().rev().copied().collect();
        points.sort_by_key(|p| std::cmp::Reverse(p.ts));
        points
    }

    fn sweep(index: &mut Index, ttl: &Ttl, now: u64) {
        let mut from = Some(0);
        while let Some(at) = from {
            from = index.sweep(at, 1, ttl, now);
        }
    }

    fn check(index: &Index) {
        let buckets = &index.buckets;
        let heap: usize =
            buckets.iter().map(|b| b.heap() + b.slots.iter().map(Slot::heap).sum::<usize>()).sum();
        assert_eq!(index.heap, heap);
        assert_eq!(index.keys, buckets.iter().map(|b| b.slots.len() as u64).sum::<u64>());
        assert_eq!(
            index.rows,
            buckets.iter().flat_map(|b| &b.slots).map(|s| s.list.len() as u64).sum::<u64>()
        );
        for (at, bucket) in (0u32..).zip(buckets) {
            let led = index.directory.iter().filter(|to| **to == at).count();
            assert_eq!(led, 1 << (index.depth - bucket.depth));
            assert!(bucket.slots.len() <= BUCKET);
        }
        let keys: Vec<&[u8]> = index.from(b"").map(|(key, _)| key).collect();
        assert!(keys.windows(2).all(|pair| Index::before(pair[0], pair[1])));
        assert_eq!(keys.len() as u64, index.keys);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_map_of_lists(steps in prop_oneof![steps(12), steps(2000)], lat in 1u64..6) {
            let ttl = Ttl { kind: TtlKind::Latest, abs: 0, lat };
            let mut index = Index::default();
            let mut naive: BTreeMap<Vec<u8>, Vec<Point>> = BTreeMap::new();
            let mut swept = false;
            for (place, step) in (0u64..).zip(steps) {
                match step {
                    Do::Insert(number, ts) => {
                        index.insert(&key(number), Point { ts, place }, ALL);
                        naive.entry(key(number)).or_default().push(Point { ts, place });
                    }
                    Do::Remove(number) => {
                        index.remove(&key(number));
                        naive.remove(&key(number));
                    }
                    Do::Take(number, from, to) if !swept => {
                        index.change(&key(number), |list| list.remove(from..to));
                        let points = naive.entry(key(number)).or_default();
                        let mut kept = ordered(points);
                        let to = to.min(kept.len());
                        kept.drain(from.min(to)..to);
                        points.retain(|p| kept.contains(p));
                        naive.retain(|_, points| !points.is_empty());
                    }
                    Do::Take(..) => {}
                    // What the sweep leaves beyond the limit is up to it; what is within must stay.
                    Do::Sweep(now) => {
                        sweep(&mut index, &ttl, now);
                        swept = true;
                    }
                }
            }
            for (key, points) in &naive {
                let list = index.get(key).unwrap();
                let expected = ordered(points);
                let kept: Vec<Point> = list.from(0).collect();
                let live = if swept { expected.len().min(usize::try_from(lat).unwrap()) } else { expected.len() };
                prop_assert!(kept.len() >= live);
                prop_assert_eq!(&kept[..live], &expected[..live]);
            }
            prop_assert_eq!(index.keys(), naive.len() as u64);
            check(&index);
        }
    }

    #[test]
    fn ten_thousand_keys_are_gone_through_in_one_order_whatever_came_before() {
        let key = |i: u32| format!("key-{:06}", i * 7919 % 10_007).into_bytes();
        let mut index = Index::default();
        for i in 0..10_000 {
            index.insert(&key(i), Point { ts: 1, place: i.into() }, ALL);
        }
        check(&index);
        assert!(index.buckets.len() > 80);
        // Another one, in which there were others between.
        let mut other = Index::default();
        for i in (0..10_000u32).rev() {
            other.insert(&i.to_le_bytes(), Point { ts: 1, place: 1 }, ALL);
            other.insert(&key(i), Point { ts: 1, place: i.into() }, ALL);
        }
        (0..10_000u32).for_each(|i| other.remove(&i.to_le_bytes()));
        check(&other);
        let order: Vec<&[u8]> = index.from(b"").map(|(key, _)| key).collect();
        assert!(other.from(b"").map(|(key, _)| key).eq(order.iter().copied()));
        for at in [0, 1, 4999, 9999] {
            assert!(index.from(order[at]).map(|(key, _)| key).eq(order[at..].iter().copied()));
        }
        (0..10_000).for_each(|i| other.remove(&key(i)));
        assert_eq!((other.keys(), other.rows(), other.heap()), (0, 0, 0));
    }

    #[test]
    fn a_row_costs_at_most_22_bytes_with_64_or_more_per_key_and_100_alone() {
        for (per_key, most) in [
            (64u64, 22.0),
            (65, 22.0),
            (80, 22.0),
            (100, 22.0),
            (130, 22.0),
            (1000, 22.0),
            (1, 100.0),
        ] {
            for keys in [1000u32, 1500, 2000, 20_000 / u32::try_from(per_key).unwrap().min(20)] {
                let mut index = Index::default();
                for ts in 0..per_key {
                    for key in 0..keys {
                        index.insert(
                            format!("key-{key:010}").as_bytes(),
                            Point { ts, place: ts },
                            ALL,
                        );
                    }
                }
                let bytes = index.heap() as f64 / index.rows() as f64;
                assert!(bytes <= most, "{keys} keys, {per_key} per key: {bytes} bytes per row");
            }
        }
    }

    #[test]
    fn a_hot_key_keeps_about_what_its_limit_says() {
        let mut index = Index::default();
        for ts in 0..100_000 {
            index.insert(b"hot", Point { ts, place: ts }, 10);
            assert!(index.rows() <= 20);
        }
        let kept: Vec<u64> = index.get(b"hot").unwrap().from(0).take(10).map(|p| p.ts).collect();
        assert_eq!(kept, (99_990..100_000).rev().collect::<Vec<_>>());
        check(&index);
    }

    #[test]
    fn a_sweep_of_expired_keys_gives_the_memory_back() {
        let ttl = Ttl { kind: TtlKind::Absolute, abs: 1, lat: 0 };
        let mut index = Index::default();
        for key in 0..1000u32 {
            index.insert(&key.to_le_bytes(), Point { ts: 1000, place: 1 }, ALL);
            index.insert(&key.to_le_bytes(), Point { ts: 500_000, place: 2 }, ALL);
        }
        sweep(&mut index, &ttl, 100_000);
        assert_eq!(index.rows(), 1000);
        assert_eq!(index.get(&7u32.to_le_bytes()).unwrap().newest().place, 2);
        check(&index);
        sweep(&mut index, &ttl, 600_000);
        assert_eq!((index.rows(), index.heap()), (0, 0));
    }
}
