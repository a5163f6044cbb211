//! Writers, what they were told, and whether it is true.
//!
//! Every row is written once and never again: its key and time name it. A row is *acknowledged*, or its outcome is
//! *unknown*; it is *lost* when it was acknowledged and cannot be read, *doubled* when it is there twice, and a *phantom*
//! when nobody wrote it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use stela_common::client::{Client, Range, ReadFrom, Row, TableHandle};
use stela_common::route;
use stela_proto::nameserver::{PartitionRow, ShowTableReply};
use tokio_util::sync::CancellationToken;

/// The database of the drills.
pub const DB: &str = "drill";
/// Keys of each writer.
const KEYS: u64 = 32;

/// A row by key and time, and its value.
type Rows = BTreeMap<String, BTreeMap<u64, String>>;

/// What writers were told.
#[derive(Default)]
pub struct History {
    /// Acknowledged rows.
    pub acked: Rows,
    /// Rows whose outcome is not known.
    pub unknown: Rows,
    /// When a row of that partition was acknowledged, in order.
    pub times: BTreeMap<u32, Vec<Instant>>,
    /// How many were acknowledged.
    pub count: usize,
    /// What was said when a write did not succeed, and how often.
    pub errors: BTreeMap<String, usize>,
}

/// A running load.
pub struct Load {
    /// What the writers were told so far.
    pub history: Arc<Mutex<History>>,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    began: Instant,
}

impl Load {
    /// Starts so many writers, each with one write at a time, for at most `limit`.
    #[must_use]
    pub fn start(client: &Client, table: &Arc<TableHandle>, writers: u64, limit: Duration) -> Self {
        let (history, stop) = (Arc::new(Mutex::new(History::default())), CancellationToken::new());
        let mut tasks = tokio::task::JoinSet::new();
        for writer in 0..writers {
            tasks.spawn(write(
                client.clone(),
                table.clone(),
                writer,
                history.clone(),
                stop.clone(),
                limit,
            ));
        }
        Self { history, stop, tasks, began: Instant::now() }
    }

    /// Waits until `more` further rows were acknowledged.
    ///
    /// # Errors
    /// They were not within a minute.
    pub async fn await_acked(&self, more: usize) -> Result<()> {
        let goal = self.history.lock().count + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.history.lock().count < goal {
            ensure!(
                Instant::now() < deadline,
                "writes do not go on: {:?}",
                self.history.lock().errors
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Ends the writers and tells what they were told, and for how long they ran.
    pub async fn finish(mut self) -> (History, Duration) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let elapsed = self.began.elapsed();
        (std::mem::take(&mut *self.history.lock()), elapsed)
    }
}

async fn write(
    client: Client,
    table: Arc<TableHandle>,
    writer: u64,
    history: Arc<Mutex<History>>,
    stop: CancellationToken,
    limit: Duration,
) {
    let began = Instant::now();
    let partitions = table.table().partition_num;
    for n in 1u64.. {
        if stop.is_cancelled() || began.elapsed() > limit {
            return;
        }
        let key = format!("w{writer}-{}", n % KEYS);
        let value = format!("{writer}:{n}:{:016x}", rand::random::<u64>());
        let row =
            Row { time: n, dimensions: vec![(0, key.clone().into())], value: value.clone().into() };
        let outcome = client.put(&table, vec![row]).await;
        let mut history = history.lock();
        match outcome {
            Ok(_) => {
                let pid = route::partition_of(key.as_bytes(), partitions).0;
                history.times.entry(pid).or_default().push(Instant::now());
                history.acked.entry(key).or_default().insert(n, value);
                history.count += 1;
            }
            Err(e) => {
                *history.errors.entry(e.to_string()).or_default() += 1;
                history.unknown.entry(key).or_default().insert(n, value);
            }
        }
    }
}

impl History {
    /// The longest pause of a partition among `pids` that is not over at `from`, and when it ended.
    #[must_use]
    pub fn gap(&self, pids: &BTreeSet<u32>, from: Instant) -> Option<Duration> {
        pids.iter()
            .map(|pid| {
                self.times.get(pid)?.iter().find(|t| **t > from).map(|t| t.duration_since(from))
            })
            .collect::<Option<Vec<_>>>()?
            .into_iter()
            .max()
    }

    /// The longest time between two acknowledgements of one partition, begun after `from` and before `to`.
    #[must_use]
    pub fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        self.times
            .values()
            .flat_map(|times| times.windows(2))
            .filter(|w| w[1] > from && w[0] < to)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or_default()
    }
}

/// What reading everything back found.
#[derive(Default, Debug)]
pub struct Verdict {
    /// Rows that were looked for, over all replicas.
    pub read: usize,
    /// Acknowledged and not there, or with another value.
    pub lost: Vec<String>,
    /// There twice.
    pub doubled: Vec<String>,
    /// There, and nobody wrote it.
    pub phantom: Vec<String>,
}

impl Verdict {
    /// Is all as it was told?
    #[must_use]
    pub fn sound(&self) -> bool {
        self.lost.is_empty() && self.doubled.is_empty() && self.phantom.is_empty()
    }
}

/// Reads every row back by key, time and value: from the leader, and from each replica.
///
/// # Errors
/// Something cannot be read at all.
pub async fn read_back(client: &Client, table: &str, history: &History) -> Result<Verdict> {
    let handle = client.table(DB, table).await?;
    let rows = client.admin().show_table(DB, table, false).await?;
    let shown = rows.tables.first().context("the table is not shown")?;
    let mut verdict = Verdict::default();
    let keys: BTreeSet<&String> = history.acked.keys().chain(history.unknown.keys()).collect();
    for key in keys {
        let pid = route::partition_of(key.as_bytes(), handle.table().partition_num).0;
        let partition =
            shown.partitions.iter().find(|p| p.pid == pid).context("the partition is not shown")?;
        let found = scan(client, &handle, key, None)
            .await
            .with_context(|| format!("key {key} at the leader"))?;
        judge(history, key, "leader", &found, &mut verdict);
        for replica in &partition.replicas {
            let found = scan(client, &handle, key, Some(&replica.endpoint))
                .await
                .with_context(|| format!("key {key} at {}", replica.endpoint))?;
            judge(history, key, &replica.endpoint, &found, &mut verdict);
        }
    }
    Ok(verdict)
}

fn judge(
    history: &History,
    key: &str,
    place: &str,
    found: &[(u64, String)],
    verdict: &mut Verdict,
) {
    let none = BTreeMap::new();
    let acked = history.acked.get(key).unwrap_or(&none);
    let unknown = history.unknown.get(key).unwrap_or(&none);
    verdict.read += acked.len();
    let mut seen = BTreeSet::new();
    for (ts, value) in found {
        if !seen.insert(*ts) {
            verdict.doubled.push(format!("{key}@{ts} at {place}"));
        }
        match acked.get(ts).or_else(|| unknown.get(ts)) {
            Some(written) if written == value => {}
            Some(_) => verdict.lost.push(format!("{key}@{ts} at {place} has another value")),
            None => verdict.phantom.push(format!("{key}@{ts} at {place}")),
        }
    }
    verdict.lost.extend(
        acked.keys().filter(|ts| !seen.contains(ts)).map(|ts| format!("{key}@{ts} at {place}")),
    );
}

/// All rows of a key, newest first, from the leader or from one replica.
async fn scan(
    client: &Client,
    table: &TableHandle,
    key: &str,
    at: Option<&str>,
) -> Result<Vec<(u64, String)>> {
    let mut rows = Vec::new();
    let mut range = Range::default();
    loop {
        let found = match at {
            None => client.scan(table, 0, key.as_bytes(), range, ReadFrom::Leader).await?,
            Some(endpoint) => client.scan_at(endpoint, table, 0, key.as_bytes(), range).await?,
        };
        let finished = found.finished;
        for (ts, value) in found.rows {
            rows.push((ts, String::from_utf8_lossy(&value).into_owned()));
        }
        match rows.last() {
            Some((ts, _)) if !finished && *ts > 1 => range.st = ts - 1,
            _ => return Ok(rows),
        }
    }
}

/// Waits until every replica is in the in-sync set and has the leader's commit offset. Tells how long that took.
///
/// Under load the offsets of one moment are never seen: what is waited for is that every replica reaches what its leader
/// had committed when all of them were first seen in sync, and that none leaves meanwhile.
///
/// # Errors
/// It is not so within `limit`.
pub async fn await_whole(client: &Client, limit: Duration) -> Result<Duration> {
    let began = Instant::now();
    let mut goal: Option<Commits> = None;
    loop {
        let last = match client.admin().show_table("", "", true).await {
            Ok(shown) => match in_sync(&shown) {
                Ok(commits) => {
                    let goal = goal.get_or_insert(commits);
                    match behind(&shown, goal) {
                        None => return Ok(began.elapsed()),
                        Some(why) => why,
                    }
                }
                Err(why) => {
                    goal = None;
                    why
                }
            },
            Err(e) => e.to_string(),
        };
        if began.elapsed() > limit {
            bail!("not whole after {limit:?}: {last}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What leaders have committed, by table and partition.
type Commits = BTreeMap<(u32, u32), u64>;

fn partitions(shown: &ShowTableReply) -> impl Iterator<Item = ((u32, u32), &PartitionRow)> {
    shown.tables.iter().flat_map(|table| {
        let tid = table.table.as_ref().map_or(0, |t| t.tid);
        table.partitions.iter().map(move |p| ((tid, p.pid), p))
    })
}

/// The leaders' commit offsets, if every partition has a serving leader and all of its replicas in sync.
fn in_sync(shown: &ShowTableReply) -> Result<Commits, String> {
    let mut commits = Commits::new();
    for (key, partition) in partitions(shown) {
        let leader = partition.replicas.iter().find(|r| r.leader && r.alive && r.in_sync);
        let Some(leader) = leader.filter(|_| partition.serving) else {
            return Err(format!("partition {key:?} has no serving leader"));
        };
        if let Some(r) = partition.replicas.iter().find(|r| !r.in_sync || !r.alive || !r.known) {
            return Err(format!("partition {key:?}: {} is not in sync: {r:?}", r.endpoint));
        }
        commits.insert(key, leader.commit);
    }
    Ok(commits)
}

/// The first replica that does not have all of that.
fn behind(shown: &ShowTableReply, goal: &Commits) -> Option<String> {
    partitions(shown).find_map(|(key, partition)| {
        let goal = goal.get(&key).copied().unwrap_or_default();
        let r = partition.replicas.iter().find(|r| r.commit < goal)?;
        Some(format!("partition {key:?}: {} has {} of {goal}", r.endpoint, r.commit))
    })
}

/// The tablet that leads most partitions, and which of the table's it leads.
///
/// # Errors
/// The table cannot be shown.
pub async fn busiest_leader(client: &Client, table: &str) -> Result<(String, BTreeSet<u32>)> {
    let shown = client.admin().show_table(DB, table, false).await?;
    let mut led: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for partition in shown.tables.iter().flat_map(|t| &t.partitions) {
        if let Some(r) = partition.replicas.iter().find(|r| r.leader && r.alive) {
            led.entry(r.endpoint.clone()).or_default().insert(partition.pid);
        }
    }
    led.into_iter().max_by_key(|(_, pids)| pids.len()).context("no partition has a leader")
}

/// Creates the drills' database and a table without a schema.
///
/// # Errors
/// It cannot be created.
pub async fn create_table(
    client: &Client,
    name: &str,
    partitions: u32,
    replicas: u32,
) -> Result<Arc<TableHandle>> {
    use stela_common::ids::TableId;
    use stela_common::table::{Index, Options, Table, Ttl};
    if !client.admin().show_db().await?.names.iter().any(|n| n == DB) {
        client.admin().create_db(DB).await?;
    }
    let index = Index { name: "key".into(), columns: Vec::new(), ts: None, ttl: Ttl::default() };
    let table = Table {
        tid: TableId(0),
        db: DB.into(),
        name: name.into(),
        columns: Vec::new(),
        indexes: vec![index],
        partition_num: partitions,
        replica_num: replicas,
        options: Options::default(),
        created_index: 0,
    };
    client.admin().create_table(&table).await?;
    Ok(client.table(DB, name).await?)
}
