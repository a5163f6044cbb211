//! Indexes are added to a table that is being written. While rows are brought into the first a leader and the leading
//! nameserver are killed; of the second, which takes its times from requests, one tablet hears only when entries with it
//! have arrived there. Then rows are deleted by each index, also by a client that opened the table before.
//!
//! Pass: as soon as an index answers, every acknowledged row is found by it, once, and again when all is over; writers
//! that opened the table before saw no error; what was deleted is in no index; every replica has the same. One row in
//! eight has the key and the time of another one, written before: those have to come in the order in which they were put.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use stela_common::client::{Client, Deletion, Range, ReadFrom, TableHandle};
use stela_common::ids::TableId;
use stela_common::row::Value;
use stela_common::table::{Column, ColumnType, Index, Options, Table, Ttl};
use stela_proto::nameserver as pb;
use stela_proto::nameserver::alter_table_request::Change;
use stela_proto::tablet as tablet_pb;

use super::{Outcome, Plan};
use crate::cluster::{Cluster, Role, Setup};
use crate::net::{Flow, Party, between};
use crate::workload::{DB, await_whole};

const NAME: &str = "indexed";
/// Rows that are there before the index.
const BEFORE: u64 = 40_000;
const CARDS: u64 = 500;
const SHOPS: u64 = 97;
const WRITERS: u64 = 4;
/// The times of requests begin here: they are not those of the column.
const REQUESTED: u64 = 1 << 40;
/// So many rows they have put before an index is added.
const WARM: u64 = 50;
const AT_ONCE: usize = 32;
/// Rows are in the index after this, whatever happens.
const FILLED: Duration = Duration::from_secs(90);
const WHOLE: Duration = Duration::from_secs(60);
/// So long a tablet is kept from the news, at most.
const KEPT: Duration = Duration::from_secs(20);
/// It has heard too late when so many entries wait for it.
const WAIT: u64 = 20;
/// The indexes that are added, and which column has their time: both have the shop as their key.
const SHOP: &str = "shop";
const PLACE: &str = "place";

/// Cards, and shops, whose rows are deleted, by their own index; and shops by the other one.
const DELETED: [u64; 3] = [1, 2, 3];
const ALSO_DELETED: [u64; 3] = [4, 5, 6];

/// Every eighth row has key and time of the row before.
fn same(n: u64) -> u64 {
    n - u64::from(n % 8 == 7)
}

/// Row `n`.
fn values(n: u64) -> [Value; 4] {
    let same = same(n);
    let text = |prefix: &str, n| Value::Varchar(format!("{prefix}{n}"));
    #[allow(clippy::cast_possible_wrap)]
    let number = |n: u64| Value::BigInt(n as i64);
    [text("card", same % CARDS), text("shop", same % SHOPS), number(1 + same), number(n)]
}

fn index(name: &str, column: &str, ts: Option<&str>) -> Index {
    Index {
        name: name.into(),
        columns: vec![column.into()],
        ts: ts.map(Into::into),
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    }
}

fn definition() -> Table {
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: true };
    Table {
        tid: TableId(0),
        db: DB.into(),
        name: NAME.into(),
        columns: vec![
            column("card", ColumnType::Varchar),
            column("shop", ColumnType::Varchar),
            column("at", ColumnType::BigInt),
            column("number", ColumnType::BigInt),
        ],
        indexes: vec![index("card", "card", None)],
        partition_num: 4,
        replica_num: 3,
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

async fn put(client: &Client, table: &TableHandle, n: u64) -> Result<()> {
    let row = table.row(&values(n), REQUESTED + same(n))?;
    client.put(table, vec![row]).await.map_err(|e| anyhow!("row {n}: {e}"))?;
    Ok(())
}

pub(super) async fn run(_: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup { links: true, ..Setup::default() }).await?;
    let client = cluster.client().await?;
    client.admin().create_db(DB).await?;
    client.admin().create_table(&definition()).await?;
    await_whole(&client, WHOLE).await?;
    let table = client.table(DB, NAME).await?;
    let idle = cluster.client().await?;
    let opened = idle.table(DB, NAME).await?;
    // Pairs of rows with one key and time are in one chunk: their order is known.
    let (client_of, table_of) = (&client, &table);
    futures::stream::iter(0..BEFORE / 8)
        .map(|chunk| async move {
            for n in chunk * 8..chunk * 8 + 8 {
                put(client_of, table_of, n).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|()| async { Ok(()) })
        .await?;
    println!("{BEFORE} rows are there");

    let stop = Arc::new(AtomicBool::new(false));
    let written = Arc::new(AtomicU64::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, table) = (client.clone(), table.clone());
            let (stop, written) = (stop.clone(), written.clone());
            tokio::spawn(async move { write(&client, &table, writer, &stop, &written).await })
        })
        .collect();
    let before: Vec<u64> = (0..BEFORE).collect();
    // Other clients see the table as it is now.
    let other = cluster.client().await?;

    let begun = Instant::now();
    while written.load(Ordering::Relaxed) < WARM {
        ensure!(begun.elapsed() < WHOLE, "writers do not get on");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    add(&client, &index(SHOP, "shop", Some("at"))).await?;
    let leader = table.leader(0).context("partition 0 has no leader")?;
    let killed = cluster.find(&leader).context("no such tablet")?;
    let leading = cluster.find(&client.leader().await?).context("no such nameserver")?;
    let mid_filling = !is_filled(&other, SHOP).await?;
    cluster.kill(killed)?;
    cluster.kill(leading)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    cluster.launch(killed)?;
    cluster.launch(leading)?;
    let filled = await_filled(&other, SHOP).await?;
    let during = written.load(Ordering::Relaxed).saturating_sub(WARM);
    let mut wrong = Vec::new();
    // What was acknowledged when the reading began is there.
    check(SHOP, &found(&other, SHOP).await?, &before, &mut wrong);
    println!(
        "the first index: filled after {filled:.1?}, {during} rows were written meanwhile, one of each kind of server killed"
    );

    // Who hears nothing from the nameservers goes on following.
    await_whole(&client, WHOLE).await?;
    let nameservers: Vec<Party> =
        cluster.of(Role::Nameserver).into_iter().map(Party::Server).collect();
    cluster.net()?.set(between(&[Party::Server(killed)], &nameservers, Flow::Hold));
    add(&client, &index(PLACE, "shop", None)).await?;
    let late = await_late(&cluster, killed, table.tid()).await?;
    cluster.net()?.heal();
    let filled = await_filled(&other, PLACE).await?;
    check(PLACE, &found(&other, PLACE).await?, &before, &mut wrong);
    println!(
        "the second index: filled after {filled:.1?}, {late} entries waited for a tablet to hear of it"
    );

    stop.store(true, Ordering::Relaxed);
    let mut rows = before;
    for writer in writers {
        rows.extend(writer.await??);
    }
    rows.sort_unstable();
    await_whole(&client, WHOLE).await?;
    for index in [SHOP, PLACE] {
        let found = found(&other, index).await?;
        check(index, &found, &rows, &mut wrong);
        let count: usize = found.values().map(Vec::len).sum();
        println!("{count} rows are found by {index}, {} were put", rows.len());
        if count != rows.len() {
            wrong.push(format!("{index}: {count} rows where {} were put", rows.len()));
        }
    }

    for card in DELETED {
        let key = format!("card{card}");
        idle.delete(&opened, 0, key.as_bytes(), Deletion::default()).await?;
    }
    let table = other.table(DB, NAME).await?;
    for (index, shops) in [(SHOP, DELETED), (PLACE, ALSO_DELETED)] {
        let index = u32::try_from(table.table().index(index).context("no such index")?)?;
        for shop in shops {
            let key = format!("shop{shop}");
            other.delete(&table, index, key.as_bytes(), Deletion::default()).await?;
        }
    }
    let is_deleted = |n: &u64| {
        let same = same(*n);
        let (card, shop) = (same % CARDS, same % SHOPS);
        DELETED.contains(&card) || DELETED.contains(&shop) || ALSO_DELETED.contains(&shop)
    };
    let left: BTreeSet<u64> = rows.iter().filter(|n| !is_deleted(n)).copied().collect();
    await_whole(&client, WHOLE).await?;
    for tablet in cluster.of(Role::Tablet) {
        let held = held(&cluster, tablet, &table).await?;
        for (index, held) in table.table().indexes.iter().zip(held) {
            let what = format!("{} of {}", index.name, cluster.servers[tablet].endpoint);
            let all: BTreeSet<u64> = held.iter().copied().collect();
            let (lacks, ghosts) = (left.difference(&all).count(), all.difference(&left).count());
            let twice = held.len() - all.len();
            if (lacks, ghosts, twice) != (0, 0, 0) {
                wrong.push(format!(
                    "{what}: {lacks} rows are missing, {ghosts} were deleted and are there, {twice} are there twice"
                ));
            }
        }
    }
    println!("{} rows were deleted", rows.len() - left.len());
    wrong.extend(cluster.panics());
    for wrong in &wrong {
        println!("  {wrong}");
    }
    if !wrong.is_empty() {
        return Ok(Outcome::Fail);
    }
    Ok(if mid_filling && during >= WRITERS && late >= WAIT {
        Outcome::Pass
    } else {
        Outcome::Unknown
    })
}

/// Puts rows until it is told to stop; which.
async fn write(
    client: &Client,
    table: &TableHandle,
    writer: u64,
    stop: &AtomicBool,
    written: &AtomicU64,
) -> Result<Vec<u64>> {
    let mut rows = Vec::new();
    for chunk in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let first = BEFORE + (chunk * WRITERS + writer) * 8;
        for n in first..first + 8 {
            put(client, table, n).await?;
            rows.push(n);
            written.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(rows)
}

async fn add(client: &Client, index: &Index) -> Result<()> {
    let name = pb::TableName { db: DB.into(), name: NAME.into(), ..Default::default() };
    client.admin().alter_table(name, Change::AddIndex(index.into())).await?;
    Ok(())
}

async fn is_filled(client: &Client, index: &str) -> Result<bool> {
    let table = client.table(DB, NAME).await?;
    Ok(table.table().index(index).is_some() && table.table().filling().is_none())
}

async fn await_filled(client: &Client, index: &str) -> Result<Duration> {
    let begun = Instant::now();
    while !is_filled(client, index).await? {
        ensure!(begun.elapsed() < FILLED, "{index} is not filled after {FILLED:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(begun.elapsed())
}

/// Waits until a tablet has entries that it cannot apply yet; how many it has then in one partition, at most.
async fn await_late(cluster: &Cluster, tablet: usize, tid: u32) -> Result<u64> {
    let begun = Instant::now();
    let mut most = 0;
    while most < WAIT && begun.elapsed() < KEPT {
        let all = tablet_pb::GetTableStatusRequest { tid: Some(tid), pid: None };
        let reply = cluster.tablet_at(tablet, 0)?.get_table_status(all).await?.into_inner();
        let waiting = reply.rows.iter().map(|r| r.offset.saturating_sub(r.commit));
        most = most.max(waiting.max().unwrap_or_default());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(most)
}

fn number(table: &TableHandle, value: &[u8]) -> Result<u64> {
    match table.decode(value)?.pop() {
        Some(Value::BigInt(n)) => Ok(n.unsigned_abs()),
        other => Err(anyhow!("no number: {other:?}")),
    }
}

/// The numbers of the rows of each shop, as a scan has them.
async fn found(client: &Client, index: &str) -> Result<BTreeMap<u64, Vec<u64>>> {
    let table = client.table(DB, NAME).await?;
    let index = table.table().index(index).context("the index is not there")?;
    let index = u32::try_from(index)?;
    let mut found = BTreeMap::new();
    for shop in 0..SHOPS {
        let key = format!("shop{shop}");
        let range = Range::default();
        let all = client.scan(&table, index, key.as_bytes(), range, ReadFrom::Leader).await?;
        ensure!(all.finished, "{key} has more rows than an answer takes");
        let numbers = all.rows.iter().map(|(_, value)| number(&table, value));
        found.insert(shop, numbers.collect::<Result<_>>()?);
    }
    Ok(found)
}

/// The numbers of the rows that one tablet has, by index.
async fn held(cluster: &Cluster, tablet: usize, table: &TableHandle) -> Result<Vec<Vec<u64>>> {
    let mut tablet = cluster.tablet_at(tablet, 0)?;
    let mut held = Vec::new();
    for (index, (prefix, keys)) in (0..).zip([("card", CARDS), ("shop", SHOPS), ("shop", SHOPS)]) {
        let mut numbers = Vec::new();
        for key in (0..keys).map(|key| format!("{prefix}{key}")) {
            let pid = table.partition_of(key.as_bytes());
            let request = tablet_pb::ScanRequest {
                target: Some(tablet_pb::Target { tid: table.tid(), pid, epoch: 0 }),
                key: key.clone().into(),
                index,
                from: tablet_pb::ReadFrom::Any.into(),
                ..Default::default()
            };
            let reply = tablet.scan(request).await?.into_inner();
            stela_common::wire::outcome(reply.status.as_ref())?;
            ensure!(reply.finished, "{key} has more rows than an answer takes");
            for row in &reply.rows {
                numbers.push(number(table, &row.value)?);
            }
        }
        held.push(numbers);
    }
    Ok(held)
}

/// Each of these rows is there, and newer inserts come first.
fn check(index: &str, found: &BTreeMap<u64, Vec<u64>>, rows: &[u64], wrong: &mut Vec<String>) {
    let place: BTreeMap<u64, usize> =
        found.values().flat_map(|of| of.iter().enumerate().map(|(at, n)| (*n, at))).collect();
    let missing = rows.iter().filter(|n| !place.contains_key(n)).count();
    // Pairs with one key and time were put one after the other.
    let pairs = rows.iter().filter(|n| *n % 8 == 7 && **n < BEFORE);
    let swapped = pairs.filter(|n| place.get(n) > place.get(&(*n - 1))).count();
    if (missing, swapped) != (0, 0) {
        wrong.push(format!(
            "{index}: {missing} rows are not found, {swapped} come behind those that they were put after"
        ));
    }
}
