//! Making what the replicas hold readable, behind a tablet that takes part already.
//!
//! What a replica is - how far its log goes, of which epochs - is known from one walk at the start, and is what the tablet
//! registers with. Its index takes longer: it is made here, several replicas at a time, the small ones first. Until then
//! the replica is suspended (its core does nothing, nobody elects it, reads and writes get 104), and then it is made anew
//! as after a failed write.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Offset, PartitionKey};
use stela_common::log::Log;
use stela_common::table::{Ack, Table};
use stela_replica::message::Write;

use crate::checkpoint::{self, Saved};
use crate::node::{Inner, Node};
use crate::partition::{Partition, Recent, Suspended};
use crate::registry;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::store::load::{Loaded, Loading};

/// Entries between two looks at whether to go on.
const STRIDE: usize = 1024;
/// What has no more rows and entries than this is made readable at once.
const SMALL: u64 = 256;

/// How far the loading of one replica is, in rows and entries.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: u64,
}

impl Progress {
    /// How much is done, 0 to 99: at 100 it is over.
    #[must_use]
    pub fn percent(&self) -> u64 {
        let done = self.done.load(Ordering::Relaxed);
        (done.saturating_mul(100) / self.total.max(1)).min(99)
    }

    /// What is told to who asks for what is not readable yet.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let text = format!("{}: {} %", Code::TableLoading.text(), self.percent());
        Refusal::new(Code::TableLoading, text)
    }

    fn add(&self, rows: u64) {
        self.done.fetch_add(rows, Ordering::Relaxed);
    }
}

/// What can be read of a replica, and what waits for a leader's word.
pub struct Ready {
    /// What can be read.
    pub store: Store,
    /// The last entry that it has.
    pub applied: Offset,
    /// The entries behind.
    pub tail: VecDeque<Recent>,
    /// Why it is not whole.
    pub wrong: Option<String>,
}

/// A replica comes to be here as its log has it, and what is known to be committed with it: at once, or when what is
/// returned was [`run`].
pub(crate) fn host(
    node: &Node,
    inner: &mut Inner,
    key: PartitionKey,
    table: Arc<Table>,
    mut loaded: Loaded,
) -> Option<Pending> {
    let now = Millis::now();
    let identity = node.identity(inner.tablet, key, &table);
    loaded.replay_from = loaded.counts_from();
    let pending = Pending::new(key, table.clone(), &mut loaded);
    let mut partition = Partition::new(identity.clone(), table, loaded, now);
    let later = if pending.is_small() {
        // Nothing stops it.
        if let Some(ready) = pending.make(&node.log, || true) {
            partition.loaded(ready);
        }
        partition.restart(identity, Write(0), now);
        if partition.quarantine.is_none() {
            node.retire(key, partition.store.snapshot().map(|s| s.path()));
        }
        None
    } else {
        partition.loading = Some(pending.progress());
        partition.suspended = Some(Suspended { until: Millis(u64::MAX), view: None });
        inner.suspended.insert(key);
        Some(pending)
    };
    if let Some(why) = &partition.quarantine {
        tracing::error!(%key, %why, "replica is quarantined");
    }
    inner.partitions.insert(key, partition);
    later
}

/// What is to be made readable.
pub struct Pending {
    key: PartitionKey,
    table: Arc<Table>,
    snapshot: Option<Arc<Snapshot>>,
    entries: Vec<Loading>,
    /// What is between the two.
    saved: Option<Saved>,
    /// Of these, so many are known to be committed.
    committed: usize,
    progress: Arc<Progress>,
}

impl Pending {
    /// What a partition's log and snapshot have, which goes out of `loaded`.
    #[must_use]
    pub fn new(key: PartitionKey, table: Arc<Table>, loaded: &mut Loaded) -> Self {
        // R34: where the leader's word is enough, what is written is readable.
        let commit = match table.options.ack {
            Ack::All => loaded.commit,
            Ack::Leader => loaded.last,
        };
        let entries = std::mem::take(&mut loaded.entries);
        let committed = entries.partition_point(|e| e.offset <= commit);
        let snapshot = loaded.snapshot.take();
        let saved = loaded.saved.take();
        let in_snapshot = |s: &Arc<Snapshot>| s.header().indexes.iter().map(|i| i.rows).sum();
        let rows = match &saved {
            Some(saved) => saved.rows(),
            None => snapshot.as_ref().map_or(0, in_snapshot),
        };
        let progress = Progress { done: AtomicU64::new(0), total: rows + committed as u64 };
        Self { key, table, snapshot, saved, entries, committed, progress: Arc::new(progress) }
    }

    /// It takes no time worth mentioning.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.progress.total <= SMALL
    }

    /// It was saved when the tablet stopped: the log need not be read for it.
    #[must_use]
    pub fn is_saved(&self) -> bool {
        self.saved.is_some()
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> Arc<Progress> {
        self.progress.clone()
    }

    /// Makes it readable, for as long as it may go on; `None`: not to the end.
    #[must_use]
    pub fn make(self, log: &Log, go_on: impl Fn() -> bool) -> Option<Ready> {
        let Self { table, snapshot, saved, entries, committed, progress, .. } = self;
        let base = snapshot.as_ref().map_or(Offset(0), |s| s.header().offset);
        let applied = saved.as_ref().map_or(base, Saved::applied);
        let (mut store, mut wrong) = match load(&table, snapshot, saved.as_ref()) {
            Ok(store) => (store, None),
            Err(why) => (Store::new(table), Some(why)),
        };
        progress.add(progress.total - committed as u64);
        let mut done = 0;
        for chunk in entries[..committed].chunks(STRIDE) {
            if wrong.is_some() {
                break;
            }
            if !go_on() {
                return None;
            }
            for entry in chunk {
                let stored = log
                    .read(entry.at)
                    .map_err(|e| e.to_string())
                    .and_then(|record| store.apply(log, entry.at, record.body()));
                if let Err(e) = stored {
                    wrong = Some(format!("entry {} cannot be read: {e}", entry.offset));
                    break;
                }
                done += 1;
            }
            progress.add(chunk.len() as u64);
        }
        let applied = Offset(applied.0 + done as u64);
        let tail = entries[done..].iter().map(|e| Recent { at: e.at, epoch: e.epoch }).collect();
        Some(Ready { store, applied, tail, wrong })
    }
}

fn load(
    table: &Arc<Table>,
    snapshot: Option<Arc<Snapshot>>,
    saved: Option<&Saved>,
) -> Result<Store, String> {
    if let Some(snapshot) = &snapshot
        && ![0, table.created_index].contains(&snapshot.header().created_index)
    {
        return Err(format!("{} is of another creation of the table", snapshot.path().display()));
    }
    match (saved, snapshot) {
        (Some(saved), snapshot) => Store::thaw(table.clone(), snapshot, saved),
        (None, Some(snapshot)) => Store::load(table.clone(), snapshot).map_err(|e| e.to_string()),
        (None, None) => Ok(Store::new(table.clone())),
    }
}

/// Makes all of them readable, on as many threads as there are processors, until the node stops.
pub fn run(node: &Arc<Node>, mut pending: Vec<Pending>) {
    pending.sort_by_key(|p| p.progress.total);
    let begun = std::time::Instant::now();
    let (count, rows) = (pending.len(), pending.iter().map(|p| p.progress.total).sum::<u64>());
    in_parallel(pending, |pending| {
        let (key, progress) = (pending.key, pending.progress());
        if let Some(ready) = pending.make(&node.log, || !node.stop.is_cancelled()) {
            node.loaded(key, &progress, ready);
        }
    });
    if node.stop.is_cancelled() {
        return;
    }
    checkpoint::discard(node);
    if count > 0 {
        tracing::info!(replicas = count, rows, ms = begun.elapsed().as_millis(), "all is loaded");
    }
}

impl Node {
    /// A replica's store is there: it takes part. Not so one that was dropped meanwhile.
    fn loaded(self: &Arc<Self>, key: PartitionKey, progress: &Arc<Progress>, ready: Ready) {
        let is_it = |p: &Partition| p.loading.as_ref().is_some_and(|l| Arc::ptr_eq(l, progress));
        let kept = self.act(|inner, work| {
            let p = inner.partitions.get_mut(&key).filter(|p| is_it(p))?;
            let known = p.quarantine.is_some();
            p.loaded(ready);
            if let Some(why) = p.quarantine.as_ref().filter(|_| !known) {
                tracing::error!(%key, %why, "replica is quarantined");
            }
            let whole = p.quarantine.is_none();
            let kept = p.store.snapshot().map(|s| s.path().to_owned());
            if p.suspended.is_none() {
                self.stand_still(inner, key, 0);
            }
            if let Some(view) = self.resume(inner, key) {
                registry::decide(self, inner, work, view);
            }
            whole.then_some(kept)
        });
        // What a crash has left of other snapshots is not needed: the copy is whole.
        if let Some(kept) = kept {
            self.retire(key, kept.as_deref());
        }
        self.report.notify_one();
    }
}

/// Does something with each, on as many threads as there are processors.
pub fn in_parallel<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let items = Mutex::new(items.into_iter());
    let run = || -> Vec<R> {
        std::iter::from_fn(|| {
            let item = items.lock().next();
            item.map(&work)
        })
        .collect()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut done = run();
        for other in others {
            // What panicked there panics here.
            done.extend(other.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        }
        done
    })
}
