//! A replica against a model that is simple enough to be believed: a list of rows.
//!
//! Random puts, deletions of all kinds, reads of all kinds, snapshots, sweeps, clean restarts and crashes. The seed is
//! printed; `STELA_SEED` and `STELA_STEPS` give another one, and another length.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stela_common::row::{Value, encode};
use stela_common::table::{Column, ColumnType, Index, TtlKind};

use super::*;
use crate::store::query::{Filter, Get, Match};
use crate::store::traverse::Pages;

const KEYS: u32 = 12;
const TIMES: u64 = 40;
/// Rows of a key in the third index.
const LATEST: usize = 5;
/// Requests that are under way at once.
const AT_ONCE: usize = 64;

/// `a`, and the time of the request; `b`, and the time in `t`; both, and only the newest few.
fn table() -> Table {
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: true };
    let index = |name: &str, columns: &[&str], ts: Option<&str>, lat| Index {
        name: name.into(),
        columns: columns.iter().map(|c| (*c).to_owned()).collect(),
        ts: ts.map(Into::into),
        ttl: Ttl { kind: TtlKind::Latest, abs: 0, lat },
        deleted: false,
        added: Default::default(),
    };
    let columns = vec![
        column("a", ColumnType::Varchar),
        column("b", ColumnType::Varchar),
        column("t", ColumnType::BigInt),
        column("n", ColumnType::BigInt),
    ];
    let indexes = vec![
        index("a", &["a"], None, 0),
        index("b", &["b"], Some("t"), 0),
        index("ab", &["a", "b"], None, LATEST as u64),
    ];
    Table { columns, indexes, ..plain() }
}

#[derive(Clone, Debug)]
struct Row {
    id: usize,
    /// Its key and time in each index.
    keys: [(String, u64); 3],
    value: Bytes,
    /// Is it there?
    there: [bool; 3],
}

/// Rows in the order in which they came.
#[derive(Default)]
struct Model {
    rows: Vec<Row>,
    made: usize,
}

impl Model {
    /// The rows of a key, newest first, of one time the newest insert first.
    fn rows(&self, index: usize, key: &str) -> Vec<&Row> {
        let of_key = |r: &&Row| r.there[index] && r.keys[index].0 == key;
        let mut rows: Vec<&Row> = self.rows.iter().rev().filter(of_key).collect();
        rows.sort_by_key(|r| std::cmp::Reverse(r.keys[index].1));
        rows
    }

    fn put(&mut self, keys: [(String, u64); 3], value: Bytes) {
        let key = keys[2].0.clone();
        self.made += 1;
        self.rows.push(Row { id: self.made, keys, value, there: [true; 3] });
        let over: Vec<usize> = self.rows(2, &key).iter().skip(LATEST).map(|r| r.id).collect();
        for row in self.rows.iter_mut().filter(|r| over.contains(&r.id)) {
            row.there[2] = false;
        }
    }

    fn is_there(&self, keys: &[(String, u64); 3], value: &Bytes) -> bool {
        let (key, ts) = &keys[0];
        self.rows(0, key).iter().any(|r| r.keys[0].1 == *ts && r.value == *value)
    }

    fn delete(
        &mut self,
        index: usize,
        key: Option<&str>,
        newest: u64,
        oldest: Option<u64>,
        everywhere: bool,
    ) {
        for row in &mut self.rows {
            let (of, ts) = &row.keys[index];
            let hit = row.there[index]
                && key.is_none_or(|key| key == of)
                && *ts <= newest
                && oldest.is_none_or(|oldest| *ts > oldest);
            if hit {
                row.there[index] = false;
                if everywhere {
                    row.there = [false; 3];
                }
            }
        }
        self.rows.retain(|r| r.there.contains(&true));
    }
}

struct Scene {
    rng: StdRng,
    dir: tempfile::TempDir,
    running: Running,
    model: Model,
    epoch: u64,
    made: i64,
    rows_read: u64,
}

fn target() -> Option<pb::Target> {
    Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 })
}

impl Scene {
    fn key(&mut self) -> String {
        format!("k{}", self.rng.random_range(0..KEYS))
    }

    fn time(&mut self) -> u64 {
        self.rng.random_range(1..TIMES)
    }

    fn put(&mut self) -> Request {
        let mut rows = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let (a, b, t, time) = (self.key(), self.key(), self.time(), self.time());
            self.made += 1;
            #[allow(clippy::cast_possible_wrap)]
            let values = [
                Value::Varchar(a.clone()),
                Value::Varchar(b.clone()),
                Value::BigInt(t as i64),
                Value::BigInt(self.made),
            ];
            let value = Bytes::from(encode(&table().columns, &values).unwrap());
            let keys = [(a.clone(), time), (b.clone(), t), (format!("{a}|{b}"), time)];
            let dimension = |(at, (key, _)): (u32, &(String, u64))| pb::Dimension {
                index: at,
                key: key.clone().into(),
            };
            let dimensions = (0..).zip(&keys).map(dimension).collect();
            rows.push(pb::Row { time, dimensions, value: value.clone() });
            self.model.put(keys, value);
        }
        Request::Put(pb::PutRequest { target: target(), rows, ..Default::default() })
    }

    /// A row that was there once, and may still be.
    fn put_again(&mut self) -> Option<Request> {
        let at = self.rng.random_range(0..self.model.rows.len().max(1));
        let Row { keys, value, .. } = self.model.rows.get(at)?.clone();
        let dimension = |(at, (key, _)): (u32, &(String, u64))| pb::Dimension {
            index: at,
            key: key.clone().into(),
        };
        let dimensions = (0..).zip(&keys).map(dimension).collect();
        let rows = vec![pb::Row { time: keys[0].1, dimensions, value: value.clone() }];
        if !self.model.is_there(&keys, &value) {
            self.model.put(keys, value);
        }
        let target = target();
        Some(Request::Put(pb::PutRequest { target, rows, if_absent: true, ..Default::default() }))
    }

    fn index_key(&mut self, index: usize) -> String {
        let key = self.key();
        if index == 2 { format!("{key}|{}", self.key()) } else { key }
    }

    fn delete(&mut self) -> Request {
        let index = self.rng.random_range(0..3);
        let only_there = self.rng.random_ratio(1, 4);
        let (mut ts, mut end_ts) = (None, None);
        let all_keys = self.rng.random_ratio(1, 20);
        if all_keys || self.rng.random_ratio(1, 2) {
            let (one, other) = (self.time(), self.time());
            ts = Some(one.max(other));
            end_ts = self.rng.random_bool(0.7).then_some(one.min(other));
        }
        let newest = ts.unwrap_or(u64::MAX);
        let mut request =
            pb::DeleteRequest { target: target(), ts, end_ts, only_there, ..Default::default() };
        if all_keys {
            // Without a column: of the indexes that have the time of the request.
            let indexes: &[usize] = if index == 1 { &[1] } else { &[0, 2] };
            request.ts_name = if index == 1 { "t".into() } else { String::new() };
            for index in indexes {
                self.model.delete(*index, None, newest, end_ts, !only_there);
            }
        } else {
            let key = self.index_key(index);
            self.model.delete(index, Some(&key), newest, end_ts, !only_there);
            let dimension = pb::Dimension { index: u32::try_from(index).unwrap(), key: key.into() };
            request.dimensions = vec![dimension];
        }
        Request::Delete(request)
    }

    async fn write(&mut self, most: usize) {
        let mut requests = Vec::new();
        for _ in 0..most {
            let request = match self.rng.random_range(0..16) {
                0..2 => Some(self.delete()),
                2..4 => self.put_again(),
                _ => Some(self.put()),
            };
            requests.extend(request);
        }
        let running = &self.running;
        let replies = requests.into_iter().map(|request| running.say(request));
        for reply in futures::future::join_all(replies).await {
            assert_eq!(reply.status.unwrap().code, 0);
        }
    }

    fn read(&mut self) {
        let index = self.rng.random_range(0..3);
        let at = u32::try_from(index).unwrap();
        let key = self.index_key(index);
        let (one, other) = (self.rng.random_range(0..TIMES), self.rng.random_range(0..TIMES));
        let (et, st) = (one.min(other), one.max(other));
        let (limit, at_least, skip) =
            (self.rng.random_range(0..9), self.rng.random_range(0..4), self.rng.random_range(0..3));
        let distinct = self.rng.random_bool(0.3);
        let kinds = [Match::Eq, Match::Le, Match::Lt, Match::Gt, Match::Ge];
        let kind = kinds[self.rng.random_range(0..kinds.len())];
        let rows = self.model.rows(index, &key);
        let time = |row: &Row| row.keys[index].1;
        let inner = self.running.node.look();
        let (store, log) = (&inner.partitions[&KEY].store, &self.running.node.log);

        let get = Get { ts: st, kind, et, et_kind: Match::Ge };
        let fits = |ts: u64| match kind {
            _ if st == 0 => true,
            Match::Eq => ts == st,
            Match::Le => ts <= st,
            Match::Lt => ts < st,
            Match::Gt => ts > st,
            Match::Ge => ts >= st,
        };
        // The first that compares so, if it keeps the bound: for newer ones that is the newest of all.
        let expected = rows.iter().find(|r| fits(time(r))).filter(|r| time(r) >= et);
        let found = store.find(log, at, key.as_bytes(), &get, 0);
        let found = found.ok().map(|f| f.read().unwrap().rows.remove(0));
        assert_eq!(found, expected.map(|r| (time(r), r.value.clone())), "{key} {get:?}");

        let limit = if limit != 0 && at_least > limit { at_least } else { limit };
        let range = Range { st, et, limit, at_least, skip, distinct, bytes: usize::MAX / 8 };
        let (mut expected, mut left) = (Vec::new(), skip);
        for (n, row) in rows.iter().enumerate() {
            let ts = time(row);
            let doubled = distinct && expected.last().is_some_and(|(last, _)| *last == ts);
            if st != 0 && ts > st || doubled {
                continue;
            }
            if ts <= et && expected.len() >= at_least as usize {
                break;
            }
            if limit != 0 && expected.len() >= limit as usize {
                break;
            }
            if st != 0 && ts == st && left > 0 {
                left -= 1;
                continue;
            }
            let _ = n;
            expected.push((ts, row.value.clone()));
        }
        let found = store.scan(log, at, key.as_bytes(), range, 0).unwrap();
        assert_eq!(found.rows, expected, "{key} {range:?}");
        self.rows_read += found.rows.len() as u64;

        let filter = Filter { st, st_kind: Match::Le, et, et_kind: Match::Gt, distinct };
        let mut times: Vec<u64> =
            rows.iter().map(|r| time(r)).filter(|ts| *ts > et && (st == 0 || *ts <= st)).collect();
        if distinct {
            times.dedup();
        }
        let count = store.count(at, key.as_bytes(), Some(&filter), 0);
        assert_eq!(count, Ok(times.len() as u64), "{key} {filter:?}");
    }

    /// Everything, by pages.
    fn read_all(&mut self) {
        let inner = self.running.node.look();
        let (store, log) = (&inner.partitions[&KEY].store, &self.running.node.log);
        for (index, at) in (0..3).zip(0u32..) {
            let (mut seen, mut cursor) =
                (BTreeMap::<String, Vec<(u64, Bytes)>>::new(), Bytes::new());
            loop {
                let pages = Pages { limit: 97, cursor: &cursor, ..Pages::default() };
                let page = store.find_page(log, at, pages, 0).unwrap().read().unwrap();
                for (key, ts, value) in page.rows {
                    let key = String::from_utf8(key.to_vec()).unwrap();
                    seen.entry(key).or_default().push((ts, value));
                }
                match page.next {
                    Some(next) => cursor = next,
                    None => break,
                }
            }
            let keys: std::collections::BTreeSet<&String> = self
                .model
                .rows
                .iter()
                .filter(|r| r.there[index])
                .map(|r| &r.keys[index].0)
                .collect();
            assert!(seen.keys().eq(keys.iter().copied()), "keys of index {index}");
            for (key, found) in &seen {
                let rows = self.model.rows(index, key);
                let expected: Vec<_> =
                    rows.iter().map(|r| (r.keys[index].1, r.value.clone())).collect();
                assert_eq!(*found, expected, "{key} of index {index}");
            }
            self.rows_read += seen.values().map(|rows| rows.len() as u64).sum::<u64>();
        }
    }

    async fn restart(self, clean: bool) -> Self {
        let Self { rng, dir, running, model, epoch, made, rows_read } = self;
        if clean {
            running.stop().await;
        } else {
            running.kill().await;
        }
        let running = Running::on(Disk::real(), dir.path());
        running.lead_table(KEY, epoch + 1, table()).await;
        Self { rng, dir, running, model, epoch: epoch + 1, made, rows_read }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_steps_agree_with_a_list_of_rows() {
    let seed = number("STELA_SEED", rand::random());
    let steps = number("STELA_STEPS", 100_000);
    println!("seed {seed}, {steps} steps");
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead_table(KEY, 1, table()).await;
    let rng = StdRng::seed_from_u64(seed);
    let model = Model::default();
    let mut scene = Scene { rng, dir, running, model, epoch: 1, made: 0, rows_read: 0 };
    let (mut done, mut restarts, mut snapshots) = (0, 0, 0);
    while done < steps {
        let most = scene.rng.random_range(1..=AT_ONCE);
        scene.write(most).await;
        done += most as u64;
        for _ in 0..most {
            scene.read();
        }
        done += most as u64;
        match scene.rng.random_range(0..60) {
            0 => {
                scene.running.node.make_snapshot(KEY).await.unwrap();
                snapshots += 1;
            }
            1 => {
                let mut inner = scene.running.node.look();
                let store = &mut inner.partitions.get_mut(&KEY).unwrap().store;
                let mut from = Some((0, 0));
                while let Some(at) = from {
                    from = store.sweep(at, 0);
                }
            }
            2 => {
                let clean = scene.rng.random_bool(0.5);
                scene = scene.restart(clean).await;
                restarts += 1;
                scene.read_all();
            }
            3 => scene.read_all(),
            _ => {}
        }
    }
    scene.read_all();
    println!("{restarts} restarts, {snapshots} snapshots, {} rows read", scene.rows_read);
    assert!(restarts > 0 && snapshots > 0 && scene.rows_read > done / 2, "too little was done");
}
