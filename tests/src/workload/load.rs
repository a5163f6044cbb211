//! Writers and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use rand::RngExt as _;
use stela_common::client::{Client, ReadFrom, TableHandle};
use tokio_util::sync::CancellationToken;

use super::DB;
use super::history::{History, key_of};

/// Keys of each writer.
const KEYS: u64 = 32;
/// A reader rests so long between two reads: there is to be something left for the writers.
const REST: Duration = Duration::from_millis(5);

/// Who works.
#[derive(Clone, Copy, Debug)]
pub struct Parties {
    /// Writers, each with one write at a time.
    pub writers: u64,
    /// Readers at the leaders, each with one read at a time.
    pub readers: u64,
    /// They stop by themselves after this.
    pub limit: Duration,
}

impl Default for Parties {
    fn default() -> Self {
        Self { writers: 8, readers: 4, limit: Duration::from_secs(1800) }
    }
}

/// A running load.
pub struct Load {
    /// What they were told so far.
    pub history: Arc<Mutex<History>>,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    began: Instant,
}

/// One writer or reader.
struct Worker {
    client: Client,
    tables: Vec<Arc<TableHandle>>,
    number: u64,
    history: Arc<Mutex<History>>,
    stop: CancellationToken,
    until: Instant,
}

impl Load {
    /// Starts them, in turn on the tables and with the clients.
    ///
    /// # Errors
    /// A table cannot be opened.
    pub async fn start(clients: &[&Client], tables: &[&str], parties: Parties) -> Result<Self> {
        let (history, stop) = (Arc::new(Mutex::new(History::default())), CancellationToken::new());
        let mut tasks = tokio::task::JoinSet::new();
        let until = Instant::now() + parties.limit;
        let mut opened = Vec::new();
        for client in clients {
            let mut handles = Vec::new();
            for table in tables {
                handles.push(client.table(DB, table).await?);
            }
            opened.push(((*client).clone(), handles));
        }
        let work = |(client, tables): &(Client, Vec<Arc<TableHandle>>), number| Worker {
            client: client.clone(),
            tables: tables.clone(),
            number,
            history: history.clone(),
            stop: stop.clone(),
            until,
        };
        // As many writers of each client as of the others, whatever table they are on.
        for (number, place) in (0..parties.writers).zip(opened.iter().cycle()) {
            tasks.spawn(work(place, number).write(tables.len(), clients.len()));
        }
        for (number, place) in (0..parties.readers).zip(opened.iter().cycle()) {
            tasks.spawn(work(place, number).read());
        }
        Ok(Self { history, stop, tasks, began: Instant::now() })
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

    /// Ends them and tells what they were told, and for how long they ran.
    pub async fn finish(mut self) -> (History, Duration) {
        let elapsed = self.began.elapsed();
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        (std::mem::take(&mut *self.history.lock()), elapsed)
    }
}

impl Worker {
    fn goes_on(&self) -> bool {
        !self.stop.is_cancelled() && Instant::now() < self.until
    }

    async fn write(self, tables: usize, clients: usize) {
        let Self { client, number, history, .. } = &self;
        let at = usize::try_from(*number).unwrap_or(0) / clients % tables;
        let table = &self.tables[at];
        for n in 1u64.. {
            if !self.goes_on() {
                return;
            }
            let key = key_of(at, *number, n % KEYS);
            let value = format!("{number}:{n}:{:016x}", rand::random::<u64>());
            let place = (at, table.partition_of(key.as_bytes()));
            let row = table.plain(key.clone(), value.clone(), n);
            let epoch = history.lock().epochs.get(&place).copied().unwrap_or(0);
            let outcome = client.put(table, vec![row]).await;
            let mut history = history.lock();
            match outcome {
                Ok(told) => {
                    let told = told.parts.first().map_or(0, |p| p.epoch);
                    if told < epoch {
                        let what =
                            format!("{key}@{n} was acknowledged in epoch {told} after {epoch}");
                        history.regressed.push(what);
                    }
                    let highest = history.epochs.entry(place).or_default();
                    *highest = told.max(*highest);
                    history.times.entry(place).or_default().push(Instant::now());
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

    /// Reads what is newest of some key, at the leader.
    async fn read(self) {
        let Self { client, history, .. } = &self;
        while self.goes_on() {
            tokio::time::sleep(REST).await;
            let asked = pick(&history.lock().acked);
            let Some((key, acked)) = asked else { continue };
            let Some(table) = self.tables.get(super::history::table_of(&key)) else { continue };
            let found = client.get(table, 0, key.as_bytes(), 0, ReadFrom::Leader).await;
            let mut history = history.lock();
            match found {
                Ok(found) => {
                    history.reads += 1;
                    let ts = found.map_or(0, |(ts, _)| ts);
                    if ts < acked {
                        history
                            .stale
                            .push(format!("{key}: read {ts} after {acked} was acknowledged"));
                    }
                }
                Err(e) => *history.unread.entry(e.to_string()).or_default() += 1,
            }
        }
    }
}

/// Some key, and its newest acknowledged time.
fn pick(acked: &BTreeMap<String, BTreeMap<u64, String>>) -> Option<(String, u64)> {
    if acked.is_empty() {
        return None;
    }
    let at = rand::rng().random_range(0..acked.len());
    let (key, rows) = acked.iter().nth(at)?;
    Some((key.clone(), rows.last_key_value().map_or(0, |(ts, _)| *ts)))
}
