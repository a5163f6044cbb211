//! Many rows at a time, for a store that is made from its log.
//!
//! A row at a time, nearly every one waits for memory: its key is somewhere in an index that no cache holds. So rows are
//! gathered, and go into the indexes in the order of their hashes, which is that of the buckets.
//!
//! **Invariant**: rows of one key go in in the order of the log; whatever looks at what is there waits for all before it.

use stela_common::log::{Log, Position, RECORD_HEADER};

use super::Store;
use super::entry::{Content, Entry};
use super::index::{Gathered, Index};
use super::list::Point;
use super::values::PLAIN;

/// So many rows go in at a time: what is gathered stays in the cache.
const AT_ONCE: usize = 1 << 15;
/// Groups of hashes, by their first bits.
const GROUP_BITS: u32 = 12;

/// Rows that are not in the indexes yet, by index.
#[derive(Default)]
pub struct Bulk {
    rows: Vec<Vec<Gathered>>,
    count: usize,
    order: Vec<u32>,
}

impl Store {
    /// Applies an entry that it [knows](Self::knows), whose record stands at `at` in the log, in the end:
    /// [`bring_in`](Self::bring_in).
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub fn gather(
        &mut self,
        log: &Log,
        bulk: &mut Bulk,
        at: Position,
        entry: &Entry<'_>,
    ) -> Result<(), String> {
        match entry.content() {
            Content::Rows(rows) if !rows.if_absent() => {
                self.grown += (RECORD_HEADER + entry.bytes()) as u64;
                for row in rows {
                    let at = at.0 + (RECORD_HEADER + row.place) as u64;
                    let place = if row.summed { at } else { at | PLAIN };
                    for dimension in row.dimensions {
                        if bulk.rows.len() <= dimension.index {
                            bulk.rows.resize_with(dimension.index + 1, Vec::new);
                        }
                        let point = Point { ts: dimension.ts, place };
                        bulk.rows[dimension.index].push(Gathered::new(dimension.key, point));
                        bulk.count += 1;
                    }
                }
                if bulk.count >= AT_ONCE {
                    self.bring_in(bulk);
                }
                Ok(())
            }
            _ => {
                self.bring_in(bulk);
                self.apply_entry(log, at, entry).map(drop)
            }
        }
    }

    /// Brings what was gathered into the indexes.
    pub fn bring_in(&mut self, bulk: &mut Bulk) {
        for (at, rows) in bulk.rows.iter_mut().enumerate() {
            let most = self.most.get(at).copied().unwrap_or(usize::MAX);
            if let Some(index) = self.indexes.get_mut(at) {
                order(rows, &mut bulk.order);
                bring(index, rows, &bulk.order, most);
            }
            rows.clear();
        }
        bulk.count = 0;
    }
}

fn bring(index: &mut Index, rows: &[Gathered], order: &[u32], most: usize) {
    for at in order {
        index.insert_gathered(&rows[*at as usize], most);
    }
}

/// Which comes when: by groups of hashes, and within a group as they came.
fn order(rows: &[Gathered], order: &mut Vec<u32>) {
    let group = |row: &Gathered| (row.hash() >> (u64::BITS - GROUP_BITS)) as usize;
    let mut begins = vec![0u32; (1 << GROUP_BITS) + 1];
    for row in rows {
        begins[group(row) + 1] += 1;
    }
    for at in 1..begins.len() {
        begins[at] += begins[at - 1];
    }
    order.clear();
    order.resize(rows.len(), 0);
    for (at, row) in (0..).zip(rows) {
        let next = &mut begins[group(row)];
        order[*next as usize] = at;
        *next += 1;
    }
}
