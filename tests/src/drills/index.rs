//! An index is added to a table that is being written, and the tablet that leads most and the leading nameserver are killed
//! while rows are brought into it.
//!
//! Pass: as soon as the index answers, every acknowledged row is found by it, once, and again when all is over; writers
//! that opened the table before saw no error. One row in eight has the key and the time of another one, written before:
//! those have to come in the order in which they were put.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use stela_common::client::{Client, Range, ReadFrom, TableHandle};
use stela_common::ids::TableId;
use stela_common::row::Value;
use stela_common::table::{Column, ColumnType, Index, Options, Table, Ttl};
use stela_proto::nameserver as pb;
use stela_proto::nameserver::alter_table_request::Change;

use super::{Outcome, Plan};
use crate::cluster::{Cluster, Setup};
use crate::workload::{DB, await_whole};

const NAME: &str = "indexed";
/// Rows that are there before the index.
const BEFORE: u64 = 40_000;
const CARDS: u64 = 500;
const SHOPS: u64 = 97;
const WRITERS: u64 = 4;
const AT_ONCE: usize = 32;
/// Rows are in the index after this, whatever happens.
const FILLED: Duration = Duration::from_secs(90);
const WHOLE: Duration = Duration::from_secs(60);

/// Row `n`: every eighth has key and time of the row before.
fn values(n: u64) -> [Value; 4] {
    let same = n - u64::from(n % 8 == 7);
    let text = |prefix: &str, n| Value::Varchar(format!("{prefix}{n}"));
    #[allow(clippy::cast_possible_wrap)]
    let number = |n: u64| Value::BigInt(n as i64);
    [text("card", same % CARDS), text("shop", same % SHOPS), number(1 + same), number(n)]
}

fn index(name: &str) -> Index {
    Index {
        name: name.into(),
        columns: vec![name.into()],
        ts: Some("at".into()),
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
        indexes: vec![index("card")],
        partition_num: 4,
        replica_num: 3,
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

async fn put(client: &Client, table: &TableHandle, n: u64) -> Result<()> {
    let row = table.row(&values(n), 0)?;
    client.put(table, vec![row]).await.map_err(|e| anyhow!("row {n}: {e}"))?;
    Ok(())
}

pub(super) async fn run(_: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup::default()).await?;
    let client = cluster.client().await?;
    client.admin().create_db(DB).await?;
    client.admin().create_table(&definition()).await?;
    await_whole(&client, WHOLE).await?;
    let table = client.table(DB, NAME).await?;
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
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (client, table, stop, written) =
            (client.clone(), table.clone(), stop.clone(), written.clone());
        writers.push(tokio::spawn(async move {
            let mut rows = Vec::new();
            for chunk in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let first = BEFORE + (chunk * WRITERS + writer) * 8;
                for n in first..first + 8 {
                    put(&client, &table, n).await?;
                    rows.push(n);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok::<_, anyhow::Error>(rows)
        }));
    }
    let admin = client.admin();
    let name = pb::TableName { db: DB.into(), name: NAME.into(), ..Default::default() };
    let begun = Instant::now();
    admin.alter_table(name, Change::AddIndex((&index("shop")).into())).await?;
    // Other clients see the table as it is now.
    let other = cluster.client().await?;
    let mut kills = 0;
    let filled = loop {
        let table = other.table(DB, NAME).await?;
        if table.table().index("shop").is_some() && table.table().filling().is_none() {
            break begun.elapsed();
        }
        ensure!(begun.elapsed() < FILLED, "the index is not filled after {FILLED:?}");
        if kills == 0 {
            kills += 1;
            let leader = table.leader(0).context("partition 0 has no leader")?;
            let tablet = cluster.find(&leader).context("no such tablet")?;
            let leading = cluster.find(&client.leader().await?).context("no such nameserver")?;
            cluster.kill(tablet)?;
            cluster.kill(leading)?;
            tokio::time::sleep(Duration::from_millis(500)).await;
            cluster.launch(tablet)?;
            cluster.launch(leading)?;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let during = written.load(Ordering::Relaxed);
    let at_once = found_by_shop(&other).await?;
    stop.store(true, Ordering::Relaxed);
    let mut rows: Vec<u64> = (0..BEFORE).collect();
    for writer in writers {
        rows.extend(writer.await??);
    }
    rows.sort_unstable();
    println!(
        "filled after {filled:.1?}, {during} rows were written meanwhile, {kills} of each kind of server killed"
    );
    // What was acknowledged when the reading began is there.
    check(&at_once, &rows[..usize::try_from(BEFORE)?])?;
    await_whole(&client, WHOLE).await?;
    let found = found_by_shop(&other).await?;
    check(&found, &rows)?;
    let count: usize = found.values().map(Vec::len).sum();
    ensure!(count == rows.len(), "{count} rows are found by the index, {} were put", rows.len());
    println!("{count} rows are found by the index, each once");
    ensure!(cluster.panics().is_empty(), "panics: {:?}", cluster.panics());
    Ok(if kills > 0 && during > 100 { Outcome::Pass } else { Outcome::Unknown })
}

/// The numbers of the rows of each shop, as a scan has them.
async fn found_by_shop(client: &Client) -> Result<BTreeMap<u64, Vec<u64>>> {
    let table = client.table(DB, NAME).await?;
    let index = table.table().index("shop").context("the index is not there")?;
    let index = u32::try_from(index)?;
    let mut found = BTreeMap::new();
    for shop in 0..SHOPS {
        let key = format!("shop{shop}");
        let range = Range::default();
        let all = client.scan(&table, index, key.as_bytes(), range, ReadFrom::Leader).await?;
        ensure!(all.finished, "{key} has more rows than an answer takes");
        let number = |value: &[u8]| match table.decode(value)?.pop() {
            Some(Value::BigInt(n)) => Ok(n.unsigned_abs()),
            other => Err(anyhow!("no number: {other:?}")),
        };
        found.insert(shop, all.rows.iter().map(|(_, value)| number(value)).collect::<Result<_>>()?);
    }
    Ok(found)
}

/// Each of these rows is there, and newer inserts come first.
fn check(found: &BTreeMap<u64, Vec<u64>>, rows: &[u64]) -> Result<()> {
    let place: BTreeMap<u64, usize> =
        found.values().flat_map(|of| of.iter().enumerate().map(|(at, n)| (*n, at))).collect();
    for n in rows {
        let at = place.get(n).with_context(|| format!("row {n} is not found by the index"))?;
        if n % 8 == 7 && *n < BEFORE {
            let before = place.get(&(n - 1)).context("the row before is not found")?;
            ensure!(at < before, "row {n} was put after {}, and comes behind it", n - 1);
        }
    }
    Ok(())
}
