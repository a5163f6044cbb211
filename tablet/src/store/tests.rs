//! The store over a real log.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use stela_common::fs::Disk;
use stela_common::ids::{Epoch, Offset, PartitionKey, TableId};
use stela_common::log::{Kind, NewRecord, Options, Recovery};
use stela_common::row::{self, Value};
use stela_common::table::{self, Column, ColumnType, TtlKind};

use super::dedup::{Dedup, Verdict};
use super::entry::Which;
use super::load::{Loaded, replay};
use super::places::{Unreadable, read_entries};
use super::query::{Filter, Get, Match, Range, Scanned};
use super::traverse::{Page, Pages};
use super::*;
use crate::loading::{Pending, Ready, make};
use crate::snapshot::Header;
use crate::snapshot::write::Writer;

const KEY: PartitionKey = PartitionKey { tid: TableId(7), pid: stela_common::ids::PartitionId(1) };

/// A table without a schema, with one index.
pub(crate) fn plain() -> Table {
    let index = table::Index {
        name: "key".into(),
        columns: vec![],
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        tid: TableId(7),
        db: "db".into(),
        name: "t".into(),
        columns: vec![],
        indexes: vec![index],
        partition_num: 2,
        replica_num: 1,
        options: table::Options::default(),
        created_index: 3,
        added_columns: 0,
    }
}

/// A table with two indexes, the second of which takes its time from a column.
pub(crate) fn with_times() -> Table {
    let column = |name: &str, kind, not_null| Column { name: name.into(), kind, not_null };
    let index = |name: &str, ts: Option<&str>| table::Index {
        name: name.into(),
        columns: vec!["a".into()],
        ts: ts.map(Into::into),
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        columns: vec![
            column("a", ColumnType::Varchar, true),
            column("t", ColumnType::BigInt, false),
        ],
        indexes: vec![index("plain", None), index("timed", Some("t"))],
        ..plain()
    }
}

fn open(dir: &std::path::Path) -> (Log, Recovery) {
    let options = Options { segment_bytes: 256 << 10, spares: 0, mark_idle: false };
    Log::open(Disk::real(), dir, options, |e| panic!("{e}")).unwrap()
}

pub(crate) fn an_empty_log() -> (Log, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (open(dir.path()).0, dir)
}

/// A log and what is in force of one partition, by the definition.
struct Scene {
    log: Log,
    dir: tempfile::TempDir,
    entries: Vec<(Epoch, u64, Bytes)>,
    session: (u64, u64),
}

impl Scene {
    fn new() -> Self {
        let (log, dir) = an_empty_log();
        Self { log, dir, entries: vec![], session: (0, 0) }
    }

    fn record(
        &self,
        kind: Kind,
        partition: PartitionKey,
        offset: u64,
        epoch: u64,
        lag: u32,
        body: &[u8],
    ) -> Position {
        let (offset, epoch) = (Offset(offset), Epoch(epoch));
        let record = NewRecord { kind, partition, offset, epoch, commit_lag: lag, body: &[body] };
        self.log.append(&[record]).unwrap().positions[0]
    }

    fn put(&mut self, epoch: u64, lag: u32, key: &str, ts: u64, value: &str) -> Position {
        let mut writer = entry::Writer::put(self.session.0, self.session.1, 0);
        writer.row(1, &Ttl::default());
        writer.dimension(0, ts, key.as_bytes());
        writer.value(value.as_bytes());
        self.entry(epoch, lag, writer.finish())
    }

    fn entry(&mut self, epoch: u64, lag: u32, body: Bytes) -> Position {
        let offset = self.entries.len() as u64 + 1;
        let at = self.record(Kind::Entry, KEY, offset, epoch, lag, &body);
        self.entries.push((Epoch(epoch), at.0, body));
        at
    }

    fn truncate(&mut self, to: usize, epoch: u64) -> Position {
        self.entries.truncate(to);
        self.record(Kind::Truncate, KEY, to as u64, epoch, 0, &[])
    }

    /// Another partition writes too.
    fn noise(&self, bytes: usize) {
        self.record(Kind::Entry, PartitionKey::new(9, 9), 1, 1, 0, &vec![7; bytes]);
    }

    fn loaded(&self) -> Loaded {
        replay(&self.log, &Recovery::default(), &BTreeMap::new()).remove(&KEY).unwrap_or_default()
    }

    /// What a start makes of it.
    fn ready(&self) -> Ready {
        let mut loaded = self.loaded();
        let pending = vec![Pending::new(KEY, Arc::new(plain()), &mut loaded)];
        let mut made = None;
        make(pending, &self.log, || true, |_, _, ready| made = Some(ready));
        made.unwrap()
    }

    fn store(&self, table: Table) -> Store {
        let mut store = Store::new(Arc::new(table));
        for (_, at, body) in &self.entries {
            let applied = store.apply(&self.log, Position(*at), body).unwrap();
            assert_ne!(applied, Applied::NotYet);
        }
        store
    }
}

/// As readers do it, in two steps.
impl Store {
    pub(crate) fn scan(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        range: Range,
        now: u64,
    ) -> Result<Scanned, Refusal> {
        self.find_range(log, index, key, range, now).map(|found| found.read().unwrap())
    }

    fn get(
        &self,
        log: &Log,
        index: u32,
        key: &[u8],
        ts: u64,
        now: u64,
    ) -> Result<(u64, Bytes), Refusal> {
        let found = self.find(log, index, key, &Get::at(ts), now)?;
        Ok(found.read().unwrap().rows.remove(0))
    }

    fn traverse(
        &self,
        log: &Log,
        index: u32,
        limit: usize,
        cursor: &[u8],
        now: u64,
    ) -> Result<Page, Refusal> {
        let pages = Pages { limit, cursor, ..Pages::default() };
        self.find_page(log, index, pages, now).map(|found| found.read().unwrap())
    }

    /// How many rows of a key are stored.
    pub(crate) fn stored(&self, index: u32, key: &[u8]) -> Result<u64, Refusal> {
        self.count(index, key, None, 0)
    }

    /// How many of them can be seen.
    fn visible(&self, index: u32, key: &[u8], now: u64) -> Result<u64, Refusal> {
        let all = Filter { st: 0, st_kind: Match::Le, et: 0, et_kind: Match::Ge, distinct: false };
        self.count(index, key, Some(&all), now)
    }

    fn sweep_all(&mut self, now: u64) {
        let mut from = Some((0, 0));
        while let Some(at) = from {
            from = self.sweep(at, now);
        }
    }
}

fn scan(
    store: &Store,
    log: &Log,
    key: &str,
    st: u64,
    et: u64,
    limit: u32,
) -> (Vec<(u64, String)>, bool) {
    let range = Range { st, et, limit, bytes: 1 << 20, ..Range::default() };
    let found = store.scan(log, 0, key.as_bytes(), range, 0).unwrap();
    let text = |v: Bytes| String::from_utf8(v.to_vec()).unwrap();
    (found.rows.into_iter().map(|(ts, v)| (ts, text(v))).collect(), found.finished)
}

fn get(store: &Store, log: &Log, key: &str, ts: u64) -> Result<(u64, String), Code> {
    let found = store.get(log, 0, key.as_bytes(), ts, 0).map_err(|r| r.code)?;
    Ok((found.0, String::from_utf8(found.1.to_vec()).unwrap()))
}

#[test]
fn rows_are_read_newest_first_in_the_range_that_is_asked_for() {
    let mut scene = Scene::new();
    for ts in [3, 1, 5, 2, 4] {
        scene.put(1, 0, "k", ts, &format!("v{ts}"));
    }
    scene.put(1, 0, "k", 4, "again");
    let store = scene.store(plain());
    let row = |ts: u64| (ts, format!("v{ts}"));
    let all = vec![row(5), (4, "again".into()), row(4), row(3), row(2), row(1)];
    assert_eq!(scan(&store, &scene.log, "k", 0, 0, 0), (all.clone(), true));
    assert_eq!(scan(&store, &scene.log, "k", 4, 2, 0), (all[1..4].to_vec(), true));
    assert_eq!(scan(&store, &scene.log, "k", 0, 0, 2), (all[..2].to_vec(), false));
    assert_eq!(scan(&store, &scene.log, "k", 2, 0, 2), (all[4..].to_vec(), true));
    assert_eq!(scan(&store, &scene.log, "other", 0, 0, 0), (vec![], true));
    let backwards = Range { st: 2, et: 5, ..Range::default() };
    assert_eq!(
        store.scan(&scene.log, 0, b"k", backwards, 0).unwrap_err().code,
        Code::StartBeforeEnd
    );
    assert_eq!(
        store.scan(&scene.log, 1, b"k", Range::default(), 0).unwrap_err().code,
        Code::IndexNotFound
    );

    assert_eq!(get(&store, &scene.log, "k", 0), Ok(row(5)));
    assert_eq!(get(&store, &scene.log, "k", 4), Ok((4, "again".into())));
    assert_eq!(get(&store, &scene.log, "k", 6), Err(Code::KeyNotFound));
    assert_eq!(get(&store, &scene.log, "none", 0), Err(Code::KeyNotFound));
    assert_eq!(store.stored(0, b"k"), Ok(6));
    assert_eq!(store.stored(0, b"none"), Ok(0));
    assert_eq!(store.records(), 6);
}

#[test]
fn a_scan_cut_by_size_goes_on_below_its_last_time() {
    let mut scene = Scene::new();
    for i in 0..300u64 {
        scene.put(1, 0, "k", 1 + i / 3, &"x".repeat(100));
    }
    let store = scene.store(plain());
    let (mut st, mut seen) = (0, 0);
    loop {
        let range = Range { st, bytes: 2000, ..Range::default() };
        let found = store.scan(&scene.log, 0, b"k", range, 0).unwrap();
        assert!(found.rows.len() <= 24, "about what was asked for: {}", found.rows.len());
        seen += found.rows.len();
        if found.finished {
            break;
        }
        st = found.rows.last().unwrap().0 - 1;
    }
    assert_eq!(seen, 300);
}

#[test]
fn a_deleted_key_is_gone_until_it_is_written_again() {
    let mut scene = Scene::new();
    scene.put(1, 0, "k", 1, "a");
    scene.put(1, 0, "l", 1, "b");
    let mut writer = entry::Writer::delete(0, 0, 0, true);
    writer.rows(0, Which::Key(b"k"), &Ttl::default());
    scene.entry(1, 0, writer.finish());
    scene.put(1, 0, "k", 2, "c");
    let store = scene.store(plain());
    assert_eq!(scan(&store, &scene.log, "k", 0, 0, 0), (vec![(2, "c".into())], true));
    assert_eq!(get(&store, &scene.log, "l", 0), Ok((1, "b".into())));
}

#[test]
fn expired_rows_are_not_seen_and_a_changed_ttl_holds_at_once() {
    let mut scene = Scene::new();
    for minute in 1..=10u64 {
        scene.put(1, 0, "k", minute * 60_000, "v");
    }
    let mut table = plain();
    let mut store = scene.store(table.clone());
    let now = 11 * 60_000;
    let mut live = |kind, abs, lat| {
        table.indexes[0].ttl = Ttl { kind, abs, lat };
        store.set_table(Arc::new(table.clone()));
        let seen = store
            .scan(&scene.log, 0, b"k", Range { bytes: 1 << 20, ..Range::default() }, now)
            .unwrap()
            .rows
            .len();
        assert_eq!(store.visible(0, b"k", now), Ok(seen as u64));
        assert_eq!(store.stored(0, b"k"), Ok(10));
        let oldest = (11 - seen as u64) * 60_000;
        assert!(seen == 0 || store.get(&scene.log, 0, b"k", oldest, now).is_ok());
        assert!(seen == 10 || store.get(&scene.log, 0, b"k", oldest - 60_000, now).is_err());
        seen
    };
    assert_eq!(live(TtlKind::Absolute, 0, 0), 10);
    assert_eq!(live(TtlKind::Absolute, 4, 0), 3);
    assert_eq!(live(TtlKind::Latest, 0, 4), 4);
    assert_eq!(live(TtlKind::AbsAndLat, 4, 6), 6);
    assert_eq!(live(TtlKind::AbsOrLat, 4, 6), 3);
    assert_eq!(live(TtlKind::Absolute, 1, 0), 0);
    assert_eq!(live(TtlKind::Absolute, 0, 0), 10);
}

#[test]
fn replay_finds_what_is_in_force() {
    let mut scene = Scene::new();
    scene.record(Kind::EpochStart, KEY, 1, 2, 0, &[1]);
    scene.session = (5, 1);
    scene.put(2, 1, "k", 1, "a");
    scene.session = (5, 2);
    scene.put(2, 1, "k", 2, "b");
    scene.session = (5, 3);
    scene.put(2, 2, "k", 3, "void");
    scene.truncate(2, 2);
    scene.record(Kind::EpochStart, KEY, 3, 4, 0, &[0]);
    scene.session = (6, 1);
    scene.put(4, 1, "k", 3, "c");
    scene.record(Kind::EpochStart, KEY, 4, 9, 0, &[0]);

    let loaded = scene.loaded();
    assert_eq!((loaded.epoch, loaded.last, loaded.commit), (Epoch(9), Offset(3), Offset(2)));
    assert_eq!(
        loaded.epochs.iter().collect::<Vec<_>>(),
        [(Epoch(2), Offset(1)), (Epoch(4), Offset(3))]
    );
    assert!(loaded.damage.is_none() && !loaded.purged);
    let places: Vec<u64> = loaded.entries.iter().map(|e| e.at.0).collect();
    assert_eq!(places, scene.entries.iter().map(|e| e.1).collect::<Vec<_>>());
    let ready = scene.ready();
    assert_eq!((ready.applied, ready.tail.len(), ready.wrong), (Offset(2), 1, None));
    assert_eq!(ready.dedup.look(5, 1, false), Verdict::Committed(Offset(1)));
    assert_eq!(ready.dedup.look(5, 2, false), Verdict::Committed(Offset(2)));
    assert_eq!(ready.dedup.look(5, 3, false), Verdict::New);
    assert_eq!(ready.dedup.look(6, 1, false), Verdict::Pending(Offset(3)));
}

#[test]
fn a_purged_partition_is_gone_and_may_begin_anew() {
    let mut scene = Scene::new();
    scene.put(1, 0, "k", 1, "a");
    scene.record(Kind::Purge, KEY, 0, 0, 0, &[]);
    let loaded = scene.loaded();
    assert!(loaded.purged && loaded.entries.is_empty() && loaded.dedup == Dedup::default());
    assert_eq!((loaded.last, loaded.epoch), (Offset(0), Epoch(0)));
    scene.entries.clear();
    scene.put(3, 0, "k", 1, "b");
    let loaded = scene.loaded();
    assert_eq!((loaded.last, loaded.purged, loaded.epoch), (Offset(1), false, Epoch(3)));
}

#[test]
fn a_gap_is_damage_and_what_is_before_it_stays() {
    let mut scene = Scene::new();
    scene.put(1, 0, "k", 1, "a");
    let body = scene.entries[0].2.clone();
    scene.record(Kind::Entry, KEY, 3, 1, 0, &body);
    let loaded = scene.loaded();
    assert_eq!((loaded.last, loaded.damage.is_some()), (Offset(1), true));
    let scene = Scene::new();
    scene.record(Kind::Entry, KEY, 1, 1, 0, b"no entry");
    let ready = scene.ready();
    assert_eq!((ready.applied, ready.wrong.is_some()), (Offset(0), true));
}

#[test]
fn the_log_is_the_same_after_a_restart() {
    let mut scene = Scene::new();
    for i in 0..500 {
        scene.put(1, 0, &format!("k{}", i % 7), i, &"v".repeat(100));
    }
    let before = scene.loaded();
    scene.log.close().unwrap();
    let (log, recovery) = open(scene.dir.path());
    assert!(recovery.clean);
    let after = replay(&log, &recovery, &BTreeMap::new()).remove(&KEY).unwrap();
    assert_eq!((after.last, after.commit, after.epoch), (before.last, before.commit, before.epoch));
    assert_eq!(
        (after.entries, after.places, after.epochs),
        (before.entries, before.places, before.epochs)
    );
    assert_eq!((after.dedup, after.damage), (before.dedup, None));
    let store = scene.store(plain());
    // 493 is the last that is 3 modulo 7.
    assert_eq!(scan(&store, &log, "k3", 0, 0, 1), (vec![(493, "v".repeat(100))], false));
}

/// A snapshot of a store, and the store that is loaded from it.
fn through_a_snapshot(scene: &Scene, store: &Store, now: u64) -> (tempfile::TempDir, Store) {
    through(Format::Summed, scene, store, now)
}

fn through(format: Format, scene: &Scene, store: &Store, now: u64) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let mut writer = Writer::create(&Disk::real(), &path, format).unwrap();
    store.save(&scene.log, &mut writer, now, &|| true).unwrap();
    let offset = Offset(scene.entries.len() as u64);
    let mut dedup = Dedup::default();
    dedup.committed(offset);
    let header = Header {
        id: 1,
        key: KEY,
        created_index: 3,
        offset,
        last_epoch: Epoch(1),
        epoch: Epoch(1),
        epochs: [(Epoch(1), Offset(1))].into_iter().collect(),
        dedup: dedup.remembered(),
        replay_from: scene.log.end(),
        uncleans: 0,
        damaged: None,
        values_end: 0,
        indexes: vec![],
    };
    writer.finish(header).unwrap();
    let snapshot = Arc::new(Snapshot::open(&Disk::real(), &path).unwrap());
    let loaded = Store::load(store.table().clone(), snapshot).unwrap();
    (dir, loaded)
}

#[test]
fn a_value_stands_once_in_a_snapshot_whatever_number_of_keys_name_it() {
    let mut scene = Scene::new();
    let mut writer = entry::Writer::put(0, 0, 0);
    writer.row(4, &Ttl::default());
    for (index, key) in [(0, "a"), (0, "b"), (1, "a"), (1, "a")] {
        writer.dimension(index, 7, key.as_bytes());
    }
    writer.value(&[b'v'; 10_000]);
    scene.entry(1, 0, writer.finish());
    scene.put(1, 0, "a", 9, "other");
    let (_dir, loaded) = through_a_snapshot(&scene, &scene.store(with_times()), 0);
    let bytes = loaded.snapshot().unwrap().bytes();
    assert!((10_000..12_000).contains(&bytes), "{bytes}");
    let rows = |index, key: &[u8]| {
        let range = Range { bytes: 1 << 20, ..Range::default() };
        let rows = loaded.scan(&scene.log, index, key, range, 0).unwrap().rows;
        rows.into_iter().map(|(ts, value)| (ts, value.len())).collect::<Vec<_>>()
    };
    assert_eq!(rows(0, b"a"), [(9, 5), (7, 10_000)]);
    assert_eq!(rows(0, b"b"), [(7, 10_000)]);
    assert_eq!(rows(1, b"a"), [(7, 10_000), (7, 10_000)]);
    assert_eq!(loaded.records(), 3);
}

#[test]
fn what_has_expired_is_not_in_a_snapshot() {
    let mut scene = Scene::new();
    for minute in 1..=10 {
        scene.put(1, 0, "k", minute * 60_000, "v");
        scene.put(1, 0, &format!("k{minute}"), minute * 60_000, "v");
    }
    let mut table = plain();
    table.indexes[0].ttl = Ttl { kind: TtlKind::Absolute, abs: 3, lat: 0 };
    let (_dir, loaded) = through_a_snapshot(&scene, &scene.store(table), 10 * 60_000);
    assert_eq!((loaded.stored(0, b"k"), loaded.records()), (Ok(3), 6));
}

#[test]
fn a_snapshot_is_given_up_when_the_tablet_stops() {
    let mut scene = Scene::new();
    scene.put(1, 0, "k", 1, "v");
    let store = scene.store(plain());
    let path = scene.dir.path().join("a");
    let mut writer = Writer::create(&Disk::real(), &path, Format::Summed).unwrap();
    let given_up = store.save(&scene.log, &mut writer, 0, &|| false).unwrap_err();
    assert_eq!(given_up.kind(), std::io::ErrorKind::Interrupted);
}

#[derive(Clone, Debug)]
enum Do {
    Append(usize),
    Truncate(usize),
    Noise(usize),
}

fn history() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        6 => (1usize..4000).prop_map(Do::Append),
        2 => (0usize..12).prop_map(Do::Truncate),
        2 => (1usize..40_000).prop_map(Do::Noise),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// R26, R27: entries are found by offset, and never one that a truncation made void.
    #[test]
    fn entries_are_found_by_their_offset(steps in history(), asked in prop::collection::vec((1u64..40, 1u64..40, 1usize..9000), 8)) {
        let mut scene = Scene::new();
        let (mut places, mut epoch) = (places::Places::default(), 1);
        for (n, step) in (0u64..).zip(steps) {
            match step {
                Do::Append(bytes) => {
                    let at = scene.put(epoch, 0, "k", n, &"x".repeat(bytes));
                    places.push(Offset(scene.entries.len() as u64), at);
                }
                Do::Truncate(back) => {
                    let to = scene.entries.len() - back.min(scene.entries.len());
                    let cut = scene.truncate(to, epoch);
                    places.truncate(Offset(to as u64), cut);
                    epoch += 1;
                }
                Do::Noise(bytes) => scene.noise(bytes),
            }
        }
        prop_assert_eq!(&scene.loaded().places, &places);
        let last = scene.entries.len() as u64;
        for (from, count, budget) in asked {
            let to = from + count - 1;
            let found = read_entries(&scene.log, &places, KEY, Offset(from), Offset(to), budget);
            if from > last {
                prop_assert!(matches!(found, Err(Unreadable::Missing(_) | Unreadable::Gone(_))));
                continue;
            }
            // Asked for more than there is: what there is, if the budget ends before.
            let Ok(found) = found else {
                prop_assert!(to > last);
                continue;
            };
            let expected = &scene.entries[usize::try_from(from).unwrap() - 1..];
            prop_assert!(!found.is_empty() && found.len() <= expected.len());
            for (record, (epoch, at, body)) in found.iter().zip(expected) {
                prop_assert_eq!((record.epoch(), record.position().0, record.body()), (*epoch, *at, &body[..]));
            }
            let bytes: usize = found.iter().map(|r| r.raw().len()).sum();
            prop_assert!(bytes <= budget || found.len() == 1);
        }
    }

    /// Rows are what a naive reading of the log gives, in whatever order times come.
    #[test]
    fn rows_are_what_the_log_says(rows in prop::collection::vec((0u8..4, 0u64..6, any::<u8>(), 0u8..12), 1..80)) {
        let mut scene = Scene::new();
        let mut naive: BTreeMap<String, Vec<(u64, String)>> = BTreeMap::new();
        for (key, ts, value, deletes) in rows {
            let (key, ts, value) = (format!("k{key}"), ts + 1, format!("v{value}"));
            if deletes == 0 {
                let mut writer = entry::Writer::delete(0, 0, 0, true);
                writer.rows(0, Which::Key(key.as_bytes()), &Ttl::default());
                scene.entry(1, 0, writer.finish());
                naive.remove(&key);
            } else {
                scene.put(1, 0, &key, ts, &value);
                naive.entry(key).or_default().insert(0, (ts, value));
            }
        }
        let store = scene.store(plain());
        let (_dir, loaded) = through_a_snapshot(&scene, &store, 0);
        // And a snapshot of what was loaded from one, and of what came later.
        let (_dir, again) = through_a_snapshot(&scene, &loaded, 0);
        let (_dir, plain) = through(Format::Plain, &scene, &again, 0);
        for key in ["k0", "k1", "k2", "k3"] {
            let mut expected = naive.remove(key).unwrap_or_default();
            expected.sort_by_key(|(ts, _)| std::cmp::Reverse(*ts));
            prop_assert_eq!(scan(&store, &scene.log, key, 0, 0, 0), (expected.clone(), true));
            prop_assert_eq!(scan(&loaded, &scene.log, key, 0, 0, 0), (expected.clone(), true));
            prop_assert_eq!(scan(&again, &scene.log, key, 0, 0, 0), (expected.clone(), true));
            prop_assert_eq!(scan(&plain, &scene.log, key, 0, 0, 0), (expected, true));
        }
    }
}

/// All rows of the first index by pages of `limit`, while `meanwhile` changes the store between two pages.
fn pages(
    store: &mut Store,
    log: &Log,
    limit: usize,
    now: u64,
    mut meanwhile: impl FnMut(&mut Store),
) -> Vec<(String, u64, String)> {
    let text = |b: &Bytes| String::from_utf8_lossy(b).into_owned();
    let (mut rows, mut cursor) = (Vec::new(), Bytes::new());
    loop {
        let page = store.traverse(log, 0, limit, &cursor, now).unwrap();
        assert!(page.rows.len() <= if limit == 0 { traverse::ROWS } else { limit });
        assert!(page.next.is_none() || !page.rows.is_empty());
        rows.extend(page.rows.iter().map(|(key, ts, value)| (text(key), *ts, text(value))));
        let Some(next) = page.next else { return rows };
        cursor = next;
        meanwhile(store);
    }
}

#[test]
fn every_row_is_met_once_however_long_the_pages_are() {
    let mut scene = Scene::new();
    for n in 0..60u64 {
        scene.put(1, 0, &format!("k{}", n % 13), n % 4 + 1, &format!("v{n}"));
    }
    let mut store = scene.store(plain());
    let all = pages(&mut store, &scene.log, 0, 0, |_| {});
    let mut each: Vec<_> = all.iter().map(|(_, _, value)| value.clone()).collect();
    each.sort();
    each.dedup();
    assert_eq!((all.len(), each.len()), (60, 60));
    for key in all.chunk_by(|a, b| a.0 == b.0) {
        let rows: Vec<_> = key.iter().map(|(_, ts, value)| (*ts, value.clone())).collect();
        assert_eq!(rows, scan(&store, &scene.log, &key[0].0, 0, 0, 0).0);
    }
    for limit in 1..70 {
        assert_eq!(pages(&mut store, &scene.log, limit, 0, |_| {}), all, "{limit}");
    }
}

#[test]
fn rows_that_come_and_go_meanwhile_neither_double_nor_hide_others() {
    let mut scene = Scene::new();
    for n in 0..30u64 {
        scene.put(1, 0, &format!("k{}", n % 3), 5, &format!("v{n}"));
    }
    let mut store = scene.store(plain());
    let mut later = Vec::new();
    for n in 0..60u64 {
        scene.put(1, 0, &format!("k{}", n % 7), 5 + n % 2, &format!("new{n}"));
        later.push(scene.entries.last().unwrap().clone());
    }
    let mut later = later.into_iter();
    let rows = pages(&mut store, &scene.log, 2, 0, |store| {
        let (_, at, body) = later.next().unwrap();
        store.apply(&scene.log, Position(at), &body).unwrap();
    });
    let mut seen: Vec<_> = rows.iter().map(|row| row.2.clone()).collect();
    assert_eq!(seen.iter().filter(|v| v.starts_with('v')).count(), 30);
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count);
}

#[test]
fn a_page_is_bounded_and_shows_nothing_that_has_expired() {
    let mut scene = Scene::new();
    for minute in 1..=10u64 {
        scene.put(1, 0, &format!("k{minute}"), minute * 60_000, "v");
    }
    let mut table = plain();
    table.indexes[0].ttl = Ttl { kind: TtlKind::Absolute, abs: 3, lat: 0 };
    let mut store = scene.store(table);
    let now = 10 * 60_000;
    assert_eq!(pages(&mut store, &scene.log, 1, now, |_| {}).len(), 3);
    // Expiry off: all is seen, by every kind of read, and the sweep leaves it.
    store.set_expires(false);
    store.sweep_all(now);
    assert_eq!(pages(&mut store, &scene.log, 4, now, |_| {}).len(), 10);
    assert_eq!(store.visible(0, b"k1", now), Ok(1));
    assert!(store.get(&scene.log, 0, b"k1", 0, now).is_ok());
    let range = Range { bytes: 1 << 20, ..Range::default() };
    assert_eq!(store.scan(&scene.log, 0, b"k1", range, now).unwrap().rows.len(), 1);
    store.set_expires(true);
    store.sweep_all(now);
    assert_eq!(store.records(), 3);

    let mut scene = Scene::new();
    for ts in 1..=30 {
        scene.put(1, 0, "k", ts, &"x".repeat(100 << 10));
    }
    let page = scene.store(plain()).traverse(&scene.log, 0, 0, b"", 0).unwrap();
    assert_eq!((page.rows.len(), page.next.is_some()), (11, true));
    let store = scene.store(plain());
    assert_eq!(store.traverse(&scene.log, 1, 0, b"", 0).unwrap_err().code, Code::IndexNotFound);
    assert_eq!(store.traverse(&scene.log, 0, 0, b"x", 0).unwrap_err().code, Code::Malformed);
}

#[test]
fn a_deleted_index_is_emptied_by_an_entry_and_keeps_its_place() {
    let mut scene = Scene::new();
    let two = |ts: u64| {
        let mut writer = entry::Writer::put(0, 0, 0);
        writer.row(2, &Ttl::default());
        writer.dimension(0, ts, b"a");
        writer.dimension(1, ts, b"b");
        writer.value(b"v");
        writer.finish()
    };
    scene.entry(1, 0, two(1));
    let mut table = with_times();
    let mut store = scene.store(table.clone());
    assert_eq!(store.emptying(0), None);
    let memory = store.memory();
    table.indexes[0].deleted = true;
    store.set_table(Arc::new(table.clone()));
    let look = |store: &Store| (store.stored(0, b"a"), store.stored(1, b"b"));
    let gone = Err(Code::IndexNotFound.into());
    // Nothing is read by it. What the log still has for it goes there all the same: others may not have heard of it yet.
    let at = scene.entry(1, 0, two(2));
    store.apply(&scene.log, at, &two(2)).unwrap();
    assert_eq!((look(&store), store.records()), ((gone.clone(), Ok(2)), 2));
    assert!(store.memory() >= memory);
    let emptying = store.emptying(0).unwrap();
    let at = scene.entry(1, 0, emptying.clone());
    store.apply(&scene.log, at, &emptying).unwrap();
    assert!(store.memory() < memory, "its memory is given back");
    assert_eq!((look(&store), store.emptying(0)), ((gone.clone(), Ok(2)), None));
    let (_dir, mut loaded) = through_a_snapshot(&scene, &store, 0);
    assert_eq!((look(&loaded), loaded.emptying(0)), ((gone, Ok(2)), None));

    // An index and a column that are added.
    let index = table::Index { name: "third".into(), deleted: false, ..table.indexes[0].clone() };
    table.indexes.push(index);
    table.columns.push(Column { name: "c".into(), kind: ColumnType::Int, not_null: false });
    loaded.set_table(Arc::new(table));
    assert_eq!((look(&loaded).1, loaded.stored(2, b"a")), (Ok(2), Ok(0)));
}

/// A replica that is not told yet of an index left out of it what came before it was.
#[test]
fn an_entry_waits_until_the_replica_is_told_of_its_index() {
    let mut scene = Scene::new();
    scene.put(1, 0, "a", 1, "v");
    let mut writer = entry::Writer::put(0, 0, 0);
    writer.row(2, &Ttl::default());
    writer.dimension(0, 2, b"a");
    writer.dimension(1, 2, b"b");
    writer.value(b"v");
    let at = scene.entry(1, 0, writer.finish());
    scene.put(1, 0, "a", 3, "v");
    let mut writer = entry::Writer::delete(0, 0, 0, true);
    writer.rows(1, Which::Key(b"b"), &Ttl::default());
    let deletion = scene.entry(1, 0, writer.finish());

    let body = |at: usize| scene.entries[at].2.clone();
    let mut store = Store::new(Arc::new(plain()));
    for (entry, at) in [(1, at), (3, deletion)] {
        assert_eq!(store.apply(&scene.log, at, &body(entry)), Ok(Applied::NotYet));
    }
    assert_eq!((store.records(), store.grown()), (0, 0));
    // A start stops before it, too, and what is behind is not lost.
    let mut ready = scene.ready();
    assert_eq!((ready.applied, ready.tail.len(), ready.wrong), (Offset(1), 3, None));
    assert_eq!(ready.store.stored(0, b"a"), Ok(1));
    ready.store.set_table(Arc::new(with_times()));
    assert_eq!(ready.store.apply(&scene.log, at, &body(1)), Ok(Applied::Done));
    assert_eq!(ready.store.stored(1, b"b"), Ok(1));

    let (_dir, told) = through_a_snapshot(&scene, &ready.store, 0);
    let snapshot = told.snapshot().unwrap().clone();
    assert!(Store::load(Arc::new(plain()), snapshot).is_err(), "a snapshot is not read in part");
}

/// Rows that were brought into an index that was added stayed there when they were deleted by another one: they are known
/// by their place only where they were put together.
#[test]
fn a_row_that_was_brought_into_an_index_goes_with_the_others() {
    let named = |column: &str| table::Index {
        name: column.into(),
        columns: vec![column.into()],
        ..plain().indexes.remove(0)
    };
    let by_time = |column: &str| table::Index { ts: Some("t".into()), ..named(column) };
    // The second index was added: it, and the first, with and without a column for the time.
    for (first, added) in [
        (by_time("a"), by_time("b")),
        (by_time("a"), named("b")),
        (named("a"), by_time("b")),
        (named("a"), named("b")),
    ] {
        let mut table = with_times();
        table.columns.push(Column { name: "b".into(), ..table.columns[0].clone() });
        let request_time = first.ts.is_none() && added.ts.is_none();
        table.indexes = vec![
            first,
            table::Index { added: table::Added { version: 1, filling: false }, ..added },
        ];
        for by in 0..2 {
            let mut scene = Scene::new();
            let mut put = |index: u16, key: &str, ts: u64, value: &[u8]| {
                let mut writer = entry::Writer::put(0, 0, 0);
                writer.row(1, &Ttl::default());
                writer.dimension(index, ts, key.as_bytes());
                writer.value(value);
                scene.entry(1, 0, writer.finish());
            };
            let value = |b: &str, t: i64| {
                let text = |s: &str| Value::Varchar(s.into());
                row::encode(&table.columns, &[text("a"), Value::BigInt(t), text(b)]).unwrap()
            };
            // Three rows of one key, each put and then brought in; one of them has another key there.
            for (t, b) in [(5i64, "b"), (6, "b"), (7, "c")] {
                let time = if request_time { 100 + t } else { t };
                put(0, "a", time.unsigned_abs(), &value(b, t));
                put(1, b, time.unsigned_abs(), &value(b, t));
            }
            let mut writer = entry::Writer::delete(0, 0, 0, true);
            let key: &[u8] = if by == 0 { b"a" } else { b"b" };
            writer.rows(by, Which::Key(key), &Ttl::default());
            scene.entry(1, 0, writer.finish());
            let store = scene.store(table.clone());
            let left = (store.stored(0, b"a"), store.stored(1, b"b"), store.stored(1, b"c"));
            let expected = if by == 0 { (Ok(0), Ok(0), Ok(0)) } else { (Ok(1), Ok(0), Ok(1)) };
            assert_eq!(left, expected, "{:?}, deleted by {by}", table.indexes);
        }
    }
}

/// A deletion by an index found nothing any more when the log was read again after the index had been deleted: its rows
/// came back in the others.
#[test]
fn what_was_deleted_by_an_index_that_is_deleted_later_does_not_come_back() {
    let mut table = with_times();
    let mut scene = Scene::new();
    let value = row::encode(&table.columns, &[Value::Varchar("a".into()), Value::BigInt(5)]);
    let mut writer = entry::Writer::put(0, 0, 0);
    writer.row(2, &Ttl::default());
    writer.dimension(0, 100, b"a");
    writer.dimension(1, 5, b"a");
    writer.value(&value.unwrap());
    scene.entry(1, 0, writer.finish());
    let (_dir, before) = through_a_snapshot(&scene, &scene.store(table.clone()), 0);
    let mut writer = entry::Writer::delete(0, 0, 0, true);
    writer.rows(1, Which::Key(b"a"), &Ttl::default());
    let deletion = writer.finish();
    let at = scene.entry(1, 0, deletion.clone());
    table.indexes[1].deleted = true;
    assert_eq!(scene.store(table.clone()).stored(0, b"a"), Ok(0), "from the log");
    let snapshot = before.snapshot().unwrap().clone();
    let mut store = Store::load(Arc::new(table), snapshot).unwrap();
    assert_eq!(store.stored(0, b"a"), Ok(1));
    store.apply(&scene.log, at, &deletion).unwrap();
    assert_eq!(store.stored(0, b"a"), Ok(0), "behind a snapshot");
}

/// Rows that are gathered, with deletions and puts of what is absent between them, are what they are one at a time.
#[test]
fn many_rows_at_a_time_are_the_same_as_one_after_the_other() {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut scene = Scene::new();
    for n in 0..5000u64 {
        let key = format!("k{}", random.random_range(0..40));
        let ts = random.random_range(0..30);
        match random.random_range(0..50) {
            0 => {
                let mut writer = entry::Writer::delete(0, 0, 0, false);
                writer.rows(0, entry::Which::Key(key.as_bytes()), &Ttl::default());
                scene.entry(1, 0, writer.finish());
            }
            1 => {
                let mut writer = entry::Writer::put_if_absent(0, 0, 0, 1);
                writer.row(1, &Ttl::default());
                writer.dimension(0, ts, key.as_bytes());
                writer.value(b"5");
                scene.entry(1, 0, writer.finish());
            }
            _ => _ = scene.put(1, 0, &key, ts, &(n % 9).to_string()),
        }
    }
    let (ready, one_by_one) = (scene.ready(), scene.store(plain()));
    assert_eq!((ready.applied, ready.wrong), (Offset(5000), None));
    for key in (0..40).map(|k| format!("k{k}")) {
        let rows = |store: &Store| {
            let all = Range { bytes: usize::MAX / 8, ..Range::default() };
            store.scan(&scene.log, 0, key.as_bytes(), all, 0).map(|found| found.rows)
        };
        assert_eq!(rows(&ready.store), rows(&one_by_one), "{key}");
    }
    assert_eq!(ready.store.memory() / 1000, one_by_one.memory() / 1000);
    assert_eq!(ready.store.grown(), one_by_one.grown());
}
