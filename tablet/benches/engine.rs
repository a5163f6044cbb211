//! The storage engine of one tablet, without network and replication: what a put, a read and a scan cost, what a row takes
//! in memory, and how long it takes to be ready after a start.
//!
//! ```text
//! cargo bench -p stela-tablet --bench engine [-- RECORDS]
//! ```
//!
//! `RECORDS` (default 1 million) rows of 100 bytes go into 8 partitions of one log. Memory is what the allocator gave
//! out, not what the index says of itself; both are printed.

#![allow(clippy::unwrap_used)] // what fails ends it

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use stela_common::fs::Disk;
use stela_common::ids::{Epoch, Offset, PartitionKey, TableId};
use stela_common::log::{Kind, Log, NewRecord, Options, Position};
use stela_common::row::{Value, encode};
use stela_common::table::{self, Column, ColumnType, Index, Table, Ttl};
use stela_proto::tablet as pb;
use stela_tablet::config::Format;
use stela_tablet::loading::{self, Pending};
use stela_tablet::snapshot::files::Found;
use stela_tablet::snapshot::write::Writer;
use stela_tablet::snapshot::{Header, Snapshot};
use stela_tablet::store::Store;
use stela_tablet::store::dedup::Dedup;
use stela_tablet::store::load::replay;
use stela_tablet::store::query::{Get, Range};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const PARTITIONS: u32 = 8;
const VALUE: usize = 100;
/// Records of one append, as a busy tablet has them.
const BATCH: usize = 64;

fn key_of(pid: u32) -> PartitionKey {
    PartitionKey::new(7, pid)
}

fn table() -> Arc<Table> {
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: true };
    let index = Index {
        name: "card".into(),
        columns: vec!["card".into()],
        ts: Some("ts".into()),
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Arc::new(Table {
        tid: TableId(7),
        db: "db".into(),
        name: "t".into(),
        columns: vec![
            column("card", ColumnType::Varchar),
            column("ts", ColumnType::Timestamp),
            column("text", ColumnType::Varchar),
        ],
        indexes: vec![index],
        partition_num: PARTITIONS,
        replica_num: 1,
        options: table::Options::default(),
        created_index: 3,
        added_columns: 0,
    })
}

/// Keys, rows of each, and the row `n` in the order of time.
#[derive(Clone, Copy)]
struct Shape {
    keys: u64,
    per_key: u64,
}

impl Shape {
    fn rows(self) -> u64 {
        self.keys * self.per_key
    }

    fn row(self, table: &Table, n: u64) -> pb::Row {
        let (key, ts) = (format!("key-{:012}", n % self.keys), 1 + n / self.keys);
        let text = "v".repeat(VALUE - 40);
        #[allow(clippy::cast_possible_wrap)]
        let values =
            [Value::Varchar(key.clone()), Value::Timestamp(ts as i64), Value::Varchar(text)];
        let value = Bytes::from(encode(&table.columns, &values).unwrap());
        let dimensions = vec![pb::Dimension { index: 0, key: key.into() }];
        pb::Row { time: 0, dimensions, value }
    }
}

fn open(dir: &Path) -> (Log, stela_common::log::Recovery) {
    let options = Options { segment_bytes: 64 << 20, spares: 1, mark_idle: false };
    Log::open(Disk::real(), dir, options, |e| panic!("{e}")).unwrap()
}

/// What the parts of a put took, in all.
#[derive(Default)]
struct Costs {
    check: Duration,
    dedup: Duration,
    append: Duration,
    apply: Duration,
}

/// Puts all rows of a shape into the partitions of a log.
fn fill(log: &Log, shape: Shape) -> (Vec<Store>, Costs) {
    let table = table();
    let mut stores: Vec<Store> = (0..PARTITIONS).map(|_| Store::new(table.clone())).collect();
    let mut dedups: Vec<Dedup> = (0..PARTITIONS).map(|_| Dedup::default()).collect();
    let mut offsets = [0u64; PARTITIONS as usize];
    let mut costs = Costs::default();
    let mut n = 0;
    while n < shape.rows() {
        let to = shape.rows().min(n + BATCH as u64);
        let requests: Vec<(usize, pb::PutRequest)> = (n..to)
            .map(|n| {
                let rows = vec![shape.row(&table, n)];
                let pid = stela_common::route::partition_of(&rows[0].dimensions[0].key, PARTITIONS);
                let target = Some(pb::Target { tid: 7, pid: pid.0, epoch: 0 });
                let seq = offsets[pid.0 as usize] + 1;
                offsets[pid.0 as usize] = seq;
                (
                    pid.0 as usize,
                    pb::PutRequest { target, session: 9, seq, rows, ..Default::default() },
                )
            })
            .collect();
        let begun = Instant::now();
        let bodies: Vec<Bytes> = requests
            .iter()
            .map(|(pid, request)| stores[*pid].put(request, Format::Summed, 0).unwrap())
            .collect();
        costs.check += begun.elapsed();
        let begun = Instant::now();
        for (pid, request) in &requests {
            std::hint::black_box(dedups[*pid].look(9, request.seq, false));
            dedups[*pid].appended(Offset(request.seq), 9, request.seq);
            dedups[*pid].committed(Offset(request.seq));
        }
        costs.dedup += begun.elapsed();
        let begun = Instant::now();
        let records: Vec<[&[u8]; 1]> = bodies.iter().map(|body| [&body[..]]).collect();
        let records: Vec<NewRecord<'_>> = requests
            .iter()
            .zip(&records)
            .map(|((pid, request), body)| NewRecord {
                kind: Kind::Entry,
                partition: key_of(u32::try_from(*pid).unwrap()),
                offset: Offset(request.seq),
                epoch: Epoch(1),
                commit_lag: 0,
                body,
            })
            .collect();
        let positions: Vec<Position> = log.append(&records).unwrap().positions.to_vec();
        costs.append += begun.elapsed();
        let begun = Instant::now();
        for (((pid, _), body), at) in requests.iter().zip(&bodies).zip(positions) {
            stores[*pid].apply(log, at, body).unwrap();
        }
        costs.apply += begun.elapsed();
        n = to;
    }
    (stores, costs)
}

fn ns(total: Duration, count: u64) -> f64 {
    total.as_nanos() as f64 / count as f64
}

/// Numbers without order, the same in every run.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

fn reads(log: &Log, stores: &[Store], shape: Shape) {
    let count = 1_000_000.min(shape.rows());
    let key = |n: u64| format!("key-{:012}", scattered(n) % shape.keys);
    let store = |key: &str| {
        let pid = stela_common::route::partition_of(key.as_bytes(), PARTITIONS);
        &stores[pid.0 as usize]
    };
    let keys: Vec<String> = (0..count).map(key).collect();
    let begun = Instant::now();
    for key in &keys {
        let found = store(key).find(log, 0, key.as_bytes(), &Get::at(0), 0).unwrap();
        std::hint::black_box(found.read().unwrap());
    }
    let get = begun.elapsed();
    let scans = count / 20;
    let begun = Instant::now();
    let mut rows = 0;
    for key in &keys[..usize::try_from(scans).unwrap()] {
        let range = Range { limit: 100, bytes: 1 << 20, ..Range::default() };
        let found = store(key).find_range(log, 0, key.as_bytes(), range, 0).unwrap();
        rows += found.read().unwrap().rows.len();
    }
    let scan = begun.elapsed();
    println!(
        "get latest {:.0} ns; scan 100 {:.1} us, {:.0} ns per row",
        ns(get, count),
        ns(scan, scans) / 1000.0,
        ns(scan, rows as u64),
    );
}

fn memory() {
    println!("heap bytes per record (what the allocator gave out; what the index says):");
    for (keys, per_key) in [(1000, 100), (1000, 65), (10_000, 10), (1_000_000, 1)] {
        let shape = Shape { keys, per_key };
        let dir = tempfile::tempdir().unwrap();
        let (log, _) = open(dir.path());
        let (stores, _) = fill(&log, shape);
        // What is not of the stores goes before it is looked at: the log's threads have memory, too, at times.
        log.close().unwrap();
        drop(log);
        let said: u64 = stores.iter().map(Store::memory).sum();
        let with = ALLOCATED.current_usage();
        drop(stores);
        let without = ALLOCATED.current_usage();
        println!(
            "  {keys:>9} keys x {per_key:<3} {:6.1} B  {:6.1} B",
            (with - without) as f64 / shape.rows() as f64,
            said as f64 / shape.rows() as f64,
        );
    }
}

fn save(log: &Log, store: &Store, pid: u32, dir: &Path, offset: Offset) {
    let place = dir.join(format!("{pid}.snap"));
    let mut writer = Writer::create(&Disk::real(), &place, Format::Summed).unwrap();
    store.save(log, &mut writer, 0, &|| true).unwrap();
    let mut dedup = Dedup::default();
    dedup.committed(offset);
    let header = Header {
        id: 1,
        key: key_of(pid),
        created_index: 3,
        offset,
        last_epoch: Epoch(1),
        epoch: Epoch(1),
        epochs: [(Epoch(1), Offset(1))].into_iter().collect(),
        dedup: dedup.remembered(),
        replay_from: log.end(),
        uncleans: 0,
        damaged: None,
        values_end: 0,
        indexes: vec![],
    };
    writer.finish(header).unwrap();
}

/// On all cores.
fn parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let queue = std::sync::Mutex::new(items);
    let work = &work;
    let queue = &queue;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(move || {
                    let mut done = Vec::new();
                    loop {
                        let item = queue.lock().unwrap().pop();
                        match item {
                            Some(item) => done.push(work(item)),
                            None => return done,
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    })
}

fn restart(log: Log, dir: &Path, stores: Vec<Store>, rows: u64) {
    let saved = dir.join("snapshots");
    stela_common::fs::create_dir_all(&Disk::real(), &saved).unwrap();
    let begun = Instant::now();
    parallel((0u32..).zip(&stores).collect(), |(pid, store)| {
        save(&log, store, pid, &saved, Offset(store.records()));
    });
    println!("snapshots written in {:.2?}", begun.elapsed());
    drop(stores);
    log.close().unwrap();

    let begun = Instant::now();
    let found: u64 = parallel((0..PARTITIONS).collect(), |pid| {
        let snapshot = Snapshot::open(&Disk::real(), &saved.join(format!("{pid}.snap"))).unwrap();
        Store::load(table(), Arc::new(snapshot)).unwrap().records()
    })
    .iter()
    .sum();
    println!("ready from snapshots after {:.2?}", begun.elapsed());
    assert_eq!(found, rows);

    let begun = Instant::now();
    let (log, recovery) = open(&dir.join("log"));
    let opened = begun.elapsed();
    let loaded = replay(&log, &recovery, &BTreeMap::<PartitionKey, Found>::new());
    let walked = begun.elapsed();
    let mut pending: Vec<Pending> = loaded
        .into_iter()
        .map(|(key, mut loaded)| {
            loaded.commit = loaded.last;
            Pending::new(key, table(), &mut loaded)
        })
        .collect();
    let half = pending.split_off(PARTITIONS as usize / 2);
    let ready = parallel(vec![pending, half], |some| {
        let mut made = Vec::new();
        loading::make(some, &log, || true, |_, _, ready| made.push(ready));
        made
    });
    let took = begun.elapsed();
    let found: u64 = ready.iter().flatten().map(|ready| ready.store.records()).sum();
    println!(
        "ready from the log alone after {:.2?} (opened {opened:.2?}, walked {:.2?})",
        took,
        walked - opened
    );
    assert_eq!(found, rows);
}

fn main() {
    let number = std::env::args().skip(1).find_map(|arg| arg.parse().ok());
    let records: u64 = number.unwrap_or(1_000_000);
    let shape = Shape { keys: (records / 100).max(1), per_key: 100.min(records) };
    println!(
        "{} rows of {VALUE} bytes, {} keys, {PARTITIONS} partitions",
        shape.rows(),
        shape.keys
    );
    let dir = tempfile::tempdir().unwrap();
    let (log, _) = open(&dir.path().join("log"));
    let begun = Instant::now();
    let (stores, costs) = fill(&log, shape);
    let rows = shape.rows();
    println!(
        "put {:.0} ns of CPU: check {:.0}, request ids {:.0}, append {:.0}, index {:.0} ({:.1?} in all)",
        ns(costs.check + costs.dedup + costs.append + costs.apply, rows),
        ns(costs.check, rows),
        ns(costs.dedup, rows),
        ns(costs.append, rows),
        ns(costs.apply, rows),
        begun.elapsed(),
    );
    reads(&log, &stores, shape);
    println!(
        "index: {:.1} B per row by its own account",
        stores.iter().map(Store::memory).sum::<u64>() as f64 / rows as f64
    );
    restart(log, dir.path(), stores, rows);
    memory();
}
