//! One index of one partition: from a key to its rows, in eight shards by the key's hash.
//!
//! Shards bound what a rehash or a sweep costs at a time. Only committed rows are here (R28), so that nothing ever has
//! to be taken back.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;

use stela_common::route::murmur64;
use stela_common::table::Ttl;

use super::list::{List, Point};
use super::ttl;

/// Shards of an index.
pub const SEG_CNT: usize = 8;
/// Not the seed that chose the partition, which would fill some shards and leave others empty.
const SEED: u64 = 0x5e11_a5ed;

/// One index.
#[derive(Debug)]
pub struct Index {
    shards: [Shard; SEG_CNT],
    rows: u64,
}

#[derive(Debug)]
struct Shard {
    keys: HashMap<Box<[u8]>, List, RandomState>,
    /// Bytes of the keys and behind the lists.
    heap: usize,
}

fn shard(key: &[u8]) -> usize {
    // The highest three bits: always below 8.
    (murmur64(key, SEED) >> 61) as usize
}

impl Default for Index {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Shard { keys: HashMap::default(), heap: 0 }),
            rows: 0,
        }
    }
}

impl Index {
    /// Adds a row.
    pub fn insert(&mut self, key: &[u8], point: Point) {
        self.rows += 1;
        let shard = &mut self.shards[shard(key)];
        match shard.keys.get_mut(key) {
            Some(list) => {
                let before = list.heap();
                list.insert(point);
                shard.heap = shard.heap + list.heap() - before;
            }
            None => {
                shard.heap += key.len();
                shard.keys.insert(key.into(), List::new(point));
            }
        }
    }

    /// Room for so many keys, about.
    pub fn reserve(&mut self, keys: u64) {
        let each = usize::try_from(keys).unwrap_or(0) / SEG_CNT;
        self.shards.iter_mut().for_each(|s| s.keys.reserve(each));
    }

    /// Adds a key with all its rows; it must not be there yet.
    pub fn load(&mut self, key: &[u8], list: List) {
        self.rows += list.len() as u64;
        let shard = &mut self.shards[shard(key)];
        shard.heap += key.len() + list.heap();
        shard.keys.insert(key.into(), list);
    }

    /// The keys with their rows, ascending.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&[u8], &List)> {
        let keys = self.shards.iter().flat_map(|s| &s.keys);
        let mut keys: Vec<(&[u8], &List)> = keys.map(|(key, list)| (&**key, list)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// The keys of one shard that are not below `from` and that `wanted` wants: the first `count` of them, ascending.
    #[must_use]
    pub fn some(
        &self,
        shard: usize,
        from: &[u8],
        count: usize,
        wanted: impl Fn(&List) -> bool,
    ) -> Vec<(&[u8], &List)> {
        let keys = self.shards.get(shard).into_iter().flat_map(|s| &s.keys);
        let keys = keys.filter(|(key, list)| &***key >= from && wanted(list));
        let mut keys: Vec<(&[u8], &List)> = keys.map(|(key, list)| (&**key, list)).collect();
        if keys.len() > count {
            // The whole shard need not be sorted for one page.
            keys.select_nth_unstable_by_key(count, |(key, _)| *key);
            keys.truncate(count);
        }
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys
    }

    /// Removes a key with all its rows.
    pub fn remove(&mut self, key: &[u8]) {
        let shard = &mut self.shards[shard(key)];
        if let Some(list) = shard.keys.remove(key) {
            shard.heap -= key.len() + list.heap();
            self.rows -= list.len() as u64;
        }
    }

    /// The rows of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&List> {
        self.shards[shard(key)].keys.get(key)
    }

    /// Rows of all keys.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The bytes that the index takes.
    #[must_use]
    pub fn heap(&self) -> usize {
        // A slot and its control byte; a table is at most seven eighths full.
        let slot = size_of::<(Box<[u8]>, List)>() + 1;
        self.shards.iter().map(|s| s.heap + s.keys.capacity() * slot * 8 / 7).sum()
    }

    /// Takes expired rows out of one shard. What readers see does not change: they look at the time to live themselves.
    pub fn sweep(&mut self, at: usize, ttl: &Ttl, now: u64) {
        let Some(shard) = self.shards.get_mut(at) else { return };
        let (rows, heap) = (&mut self.rows, &mut shard.heap);
        shard.keys.retain(|key, list| {
            let live = ttl::live(list, ttl, now);
            let before = (list.len(), list.heap());
            if live == 0 {
                *rows -= before.0 as u64;
                *heap -= key.len() + before.1;
                return false;
            }
            // Below an eighth it is not worth a copy.
            if before.0 - live > live / 8 {
                *rows -= list.keep(live) as u64;
                *heap = *heap + list.heap() - before.1;
            }
            true
        });
        if shard.keys.len() < shard.keys.capacity() / 4 {
            shard.keys.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Do {
        Insert(u8, u64),
        Remove(u8),
        Sweep(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Do>> {
        let step = prop_oneof![
            20 => (0u8..12, 0u64..30).prop_map(|(k, ts)| Do::Insert(k, ts)),
            2 => (0u8..12).prop_map(Do::Remove),
            1 => (0u64..30).prop_map(Do::Sweep),
        ];
        prop::collection::vec(step, 0..300)
    }

    /// Newest first, equal times newest insert first.
    fn ordered(points: &[Point]) -> Vec<Point> {
        let mut points: Vec<Point> = points.iter().rev().copied().collect();
        points.sort_by_key(|p| std::cmp::Reverse(p.ts));
        points
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_lists(steps in steps(), lat in 1u64..6) {
            let ttl = Ttl { kind: stela_common::table::TtlKind::Latest, abs: 0, lat };
            let mut index = Index::default();
            let mut naive: BTreeMap<Vec<u8>, Vec<Point>> = BTreeMap::new();
            for (place, step) in (0u64..).zip(steps) {
                match step {
                    Do::Insert(key, ts) => {
                        index.insert(&[key; 3], Point { ts, place });
                        naive.entry(vec![key; 3]).or_default().push(Point { ts, place });
                    }
                    Do::Remove(key) => {
                        index.remove(&[key; 3]);
                        naive.remove(&vec![key; 3]);
                    }
                    // What the sweep leaves beyond the limit is up to it; what is within must stay.
                    Do::Sweep(now) => (0..SEG_CNT).for_each(|at| index.sweep(at, &ttl, now)),
                }
            }
            let mut rows = 0;
            for (key, points) in &naive {
                let list = index.get(key).unwrap();
                let expected = ordered(points);
                let kept: Vec<Point> = list.from(0).collect();
                let live = expected.len().min(usize::try_from(lat).unwrap());
                prop_assert!(kept.len() >= live);
                prop_assert_eq!(&kept[..live], &expected[..live]);
                rows += kept.len() as u64;
            }
            prop_assert_eq!(index.rows(), rows);
            for key in 0u8..12 {
                prop_assert_eq!(index.get(&[key; 3]).is_some(), naive.contains_key(&vec![key; 3]));
            }
            let heap: usize = index.shards.iter().flat_map(|s| &s.keys).map(|(k, l)| k.len() + l.heap()).sum();
            prop_assert_eq!(index.shards.iter().map(|s| s.heap).sum::<usize>(), heap);
        }
    }

    #[test]
    fn a_row_costs_at_most_22_bytes_with_64_or_more_per_key() {
        for per_key in [64u64, 65, 80, 100, 130, 1000] {
            let mut index = Index::default();
            for ts in 0..per_key {
                for key in 0..1000u32 {
                    index.insert(format!("key-{key:010}").as_bytes(), Point { ts, place: ts });
                }
            }
            let bytes = index.heap() as f64 / index.rows() as f64;
            assert!(bytes <= 22.0, "{per_key} per key: {bytes} bytes per row");
        }
    }

    #[test]
    fn keys_of_one_partition_fill_all_shards() {
        let mut seen = [0; SEG_CNT];
        for key in (0..80_000).map(|i| format!("key{i}")) {
            if stela_common::route::partition_of(key.as_bytes(), 8).0 == 3 {
                seen[shard(key.as_bytes())] += 1;
            }
        }
        assert!(seen.iter().all(|n| (1000..1500).contains(n)), "{seen:?}");
    }

    #[test]
    fn a_sweep_of_expired_keys_gives_the_memory_back() {
        let ttl = Ttl { kind: stela_common::table::TtlKind::Absolute, abs: 1, lat: 0 };
        let mut index = Index::default();
        for key in 0..1000u32 {
            index.insert(&key.to_le_bytes(), Point { ts: 1000, place: 1 });
            index.insert(&key.to_le_bytes(), Point { ts: 500_000, place: 2 });
        }
        (0..SEG_CNT).for_each(|at| index.sweep(at, &ttl, 100_000));
        assert_eq!(index.rows(), 1000);
        assert_eq!(index.get(&7u32.to_le_bytes()).unwrap().newest().place, 2);
        (0..SEG_CNT).for_each(|at| index.sweep(at, &ttl, 600_000));
        assert_eq!((index.rows(), index.heap()), (0, 0));
    }
}
