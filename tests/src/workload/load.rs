//! Writers and readers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use parking_lot::Mutex;
use rand::RngExt as _;
use stela_common::client::{Client, Range, ReadFrom, TableHandle, WriteError};
use tokio_util::sync::CancellationToken;

use super::DB;
use super::tally::{Tally, key_of};
use crate::history::{Answer, History, Op};

/// Keys of each writer.
const KEYS: u64 = 32;
/// A reader looks at so many rows.
const NEWEST: u32 = 8;
/// A reader rests so long between two reads: there is to be something left for the writers.
const REST: Duration = Duration::from_millis(5);

/// Who works.
#[derive(Clone, Copy, Debug)]
pub struct Parties {
    /// Writers, each with one write at a time.
    pub writers: u64,
    /// Readers at the leaders, each with one read at a time.
    pub readers: u64,
    /// The bytes of a row's value, at least.
    pub value: usize,
    /// They stop by themselves after this.
    pub limit: Duration,
}

impl Default for Parties {
    fn default() -> Self {
        Self { writers: 8, readers: 4, value: 0, limit: Duration::from_secs(1800) }
    }
}

/// A running load.
pub struct Load {
    /// What they were told so far.
    pub tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
    began: Instant,
}

/// One writer or reader.
struct Worker {
    client: Client,
    tables: Vec<Arc<TableHandle>>,
    number: u64,
    value: usize,
    history: History,
    tally: Arc<Mutex<Tally>>,
    stop: CancellationToken,
    until: Instant,
}

impl Load {
    /// Starts them, in turn on the tables and with the clients.
    ///
    /// # Errors
    /// A table cannot be opened.
    pub async fn start(
        history: &History,
        clients: &[&Client],
        tables: &[&str],
        parties: Parties,
    ) -> Result<Self> {
        let (tally, stop) = (Arc::new(Mutex::new(Tally::default())), CancellationToken::new());
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
            value: parties.value,
            history: history.clone(),
            tally: tally.clone(),
            stop: stop.clone(),
            until,
        };
        // As many writers of each client as of the others, whatever table they are on.
        for (number, place) in (0..parties.writers).zip(opened.iter().cycle()) {
            tasks.spawn(work(place, number).write(tables.len(), clients.len()));
        }
        for (number, place) in (0..parties.readers).zip(opened.iter().cycle()) {
            tasks.spawn(work(place, number).read(parties.writers + number));
        }
        Ok(Self { tally, stop, tasks, began: Instant::now() })
    }

    /// Waits until `more` further rows were acknowledged.
    ///
    /// # Errors
    /// They were not within a minute.
    pub async fn await_acked(&self, more: usize) -> Result<()> {
        let goal = self.tally.lock().count + more;
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.tally.lock().count < goal {
            ensure!(
                Instant::now() < deadline,
                "writes do not go on: {:?}",
                self.tally.lock().errors
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Ends them and tells what they were told, and for how long they ran.
    pub async fn finish(mut self) -> (Tally, Duration) {
        let elapsed = self.began.elapsed();
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        (std::mem::take(&mut *self.tally.lock()), elapsed)
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
        for ts in 1u64.. {
            if !self.goes_on() {
                return;
            }
            let key = key_of(at, *number, ts % KEYS);
            let value = format!("{number}:{ts}:{:016x}", rand::random::<u64>());
            let pid = table.partition_of(key.as_bytes());
            let padded = format!("{value:.<width$}", width = self.value);
            let row = table.plain(key.clone(), padded, ts);
            self.tally.lock().keys.insert(key.clone(), at);
            let put = Op::Put { table: table.name().into(), key, ts, value };
            let call = history.invoke(*number, put);
            let outcome = client.put(table, vec![row]).await;
            let mut tally = self.tally.lock();
            match outcome {
                Ok(told) => {
                    let epoch = told.parts.first().map(|p| p.epoch);
                    history.ok(call, Answer { pid: Some(pid), epoch, ..Answer::default() });
                    tally.times.entry((at, pid)).or_default().push(Instant::now());
                    tally.count += 1;
                }
                Err(e) => {
                    let why = e.to_string();
                    *tally.errors.entry(why.clone()).or_default() += 1;
                    match e {
                        WriteError::Refused(_) => history.fail(call, why),
                        WriteError::Unknown(_) => history.info(call, why),
                    }
                }
            }
        }
    }

    /// Reads the newest few of some key, at the leader.
    async fn read(self, process: u64) {
        let Self { client, history, .. } = &self;
        while self.goes_on() {
            tokio::time::sleep(REST).await;
            let Some((key, at)) = pick(&self.tally.lock().keys) else { continue };
            let table = &self.tables[at];
            let (name, limit) = (table.name().to_owned(), NEWEST as usize);
            let scan = Op::Scan { table: name, key: key.clone(), limit, at: None };
            let call = history.invoke(process, scan);
            let range = Range { limit: NEWEST, ..Range::default() };
            let found = client.scan(table, 0, key.as_bytes(), range, ReadFrom::Leader).await;
            match found {
                Ok(found) => {
                    let rows = found.rows.iter().map(|(ts, value)| (*ts, text(value))).collect();
                    history.ok(call, Answer { rows: Some(rows), ..Answer::default() });
                }
                Err(e) => {
                    let why = e.to_string();
                    *self.tally.lock().unread.entry(why.clone()).or_default() += 1;
                    history.fail(call, why);
                }
            }
        }
    }
}

/// What a writer has written, as the history has it: without what only makes it longer.
pub(super) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('.').to_owned()
}

/// Some key, and its table.
fn pick(keys: &BTreeMap<String, usize>) -> Option<(String, usize)> {
    let at = rand::rng().random_range(0..keys.len().max(1));
    keys.iter().nth(at).map(|(key, table)| (key.clone(), *table))
}
