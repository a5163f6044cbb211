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
use stela_common::log::{Log, Position, SegmentRef};
use stela_common::table::{Ack, Table};
use stela_replica::message::Write;

use crate::checkpoint::{self, Saved};
use crate::node::{Inner, Node};
use crate::partition::{Partition, Recent, Suspended};
use crate::registry;
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::store::bulk::Bulk;
use crate::store::dedup::Dedup;
use crate::store::entry::Entry;
use crate::store::load::{Loaded, Loading};

/// Bytes of the log that are gone through for one replica after the other.
const WINDOW: u64 = 1 << 20;
/// So many replicas are made side by side.
const SIDE_BY_SIDE: usize = 8;
/// So many entries ahead memory is asked for: those of one partition are too far apart for a processor to foresee it.
const AHEAD: usize = 8;
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
    /// What is known of requests.
    pub dedup: Dedup,
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
        make(vec![pending], &node.log, || true, |_, _, ready| partition.loaded(ready));
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
    dedup: Dedup,
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
        let (saved, dedup) = (loaded.saved.take(), std::mem::take(&mut loaded.dedup));
        let in_snapshot = |s: &Arc<Snapshot>| s.header().indexes.iter().map(|i| i.rows).sum();
        let rows = match &saved {
            Some(saved) => saved.rows(),
            None => snapshot.as_ref().map_or(0, in_snapshot),
        };
        let progress = Progress { done: AtomicU64::new(0), total: rows + committed as u64 };
        Self {
            key,
            table,
            snapshot,
            saved,
            entries,
            dedup,
            committed,
            progress: Arc::new(progress),
        }
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
}

/// A replica that is being made readable.
struct Making {
    key: PartitionKey,
    progress: Arc<Progress>,
    store: Store,
    dedup: Dedup,
    wrong: Option<String>,
    bulk: Bulk,
    /// The last entry of its snapshot, or of what was saved.
    base: Offset,
    entries: Vec<Loading>,
    committed: usize,
    /// So many of the entries are in.
    done: usize,
}

impl Making {
    fn new(pending: Pending) -> Self {
        let Pending { key, table, snapshot, saved, entries, dedup, committed, progress } = pending;
        let base = snapshot.as_ref().map_or(Offset(0), |s| s.header().offset);
        let base = saved.as_ref().map_or(base, Saved::applied);
        let (store, wrong) = match load(&table, snapshot, saved.as_ref()) {
            Ok(store) => (store, None),
            Err(why) => (Store::new(table), Some(why)),
        };
        progress.add(progress.total - committed as u64);
        let bulk = Bulk::default();
        Self { key, progress, store, dedup, wrong, bulk, base, entries, committed, done: 0 }
    }

    /// The place of the next entry that can be read; `None`: all are in.
    fn next(&self) -> Option<Position> {
        let left = self.entries[..self.committed].get(self.done);
        left.filter(|_| self.wrong.is_none()).map(|entry| entry.at)
    }

    /// Brings in what stands before that place.
    fn advance(&mut self, reader: &mut Reader<'_>, until: Position) {
        let (log, from) = (reader.log, self.done);
        for (at, entry) in (from..).zip(&self.entries[from..self.committed]) {
            if let Some(ahead) = self.entries.get(at + AHEAD) {
                reader.fetch(ahead);
            }
            if entry.at >= until || self.wrong.is_some() {
                break;
            }
            let gathered = reader.read(entry).and_then(|body| {
                if !self.store.knows(&body) {
                    return Ok(false);
                }
                self.dedup.appended(entry.offset, body.session(), body.seq());
                self.store.gather(log, &mut self.bulk, entry.at, &body).map(|()| true)
            });
            match gathered {
                Ok(true) => self.done += 1,
                // The rest waits until it is told of an index.
                Ok(false) => {
                    self.committed = self.done;
                    break;
                }
                Err(e) => self.wrong = Some(format!("entry {} cannot be read: {e}", entry.offset)),
            }
        }
        self.dedup.committed(self.applied());
        self.progress.add((self.done - from) as u64);
    }

    fn applied(&self) -> Offset {
        Offset(self.base.0 + self.done as u64)
    }

    fn finish(mut self, reader: &mut Reader<'_>) -> Ready {
        self.store.bring_in(&mut self.bulk);
        let tail = &self.entries[self.done..];
        for entry in tail {
            match reader.read(entry) {
                Ok(body) => self.dedup.appended(entry.offset, body.session(), body.seq()),
                Err(e) => {
                    let why = format!("entry {} cannot be read: {e}", entry.offset);
                    self.wrong.get_or_insert(why);
                    break;
                }
            }
        }
        let tail = tail.iter().map(|e| Recent { at: e.at, epoch: e.epoch }).collect();
        let applied = self.applied();
        Ready { store: self.store, dedup: self.dedup, applied, tail, wrong: self.wrong }
    }
}

/// Makes some of them readable side by side, for as long as it may go on: the log is gone through once for all of them, so
/// that what one needs is near what the others need. Each is `done` as soon as it is.
pub fn make(
    pending: Vec<Pending>,
    log: &Log,
    go_on: impl Fn() -> bool,
    mut done: impl FnMut(PartitionKey, &Arc<Progress>, Ready),
) {
    let mut reader = Reader { log, segment: None };
    let mut making: Vec<Making> = Vec::new();
    for pending in pending {
        if !go_on() {
            return;
        }
        making.push(Making::new(pending));
        while making.last().is_some_and(|last| last.next().is_none()) {
            let Some(last) = making.pop() else { break };
            done(last.key, &last.progress.clone(), last.finish(&mut reader));
        }
    }
    while let Some(next) = making.iter().filter_map(Making::next).min() {
        for one in &mut making {
            if !go_on() {
                return;
            }
            one.advance(&mut reader, Position(next.0 + WINDOW));
        }
        for one in making.extract_if(.., |one| one.next().is_none()) {
            done(one.key, &one.progress.clone(), one.finish(&mut reader));
        }
    }
}

/// Reads entries in the order of the log, without asking that for each.
struct Reader<'a> {
    log: &'a Log,
    segment: Option<SegmentRef>,
}

impl Reader<'_> {
    /// What is read soon is on its way then.
    fn fetch(&self, entry: &Loading) {
        if let Some(segment) = &self.segment {
            segment.fetch(entry.at);
        }
    }

    fn read(&mut self, entry: &Loading) -> Result<Entry<'_>, String> {
        if self.segment.as_ref().is_none_or(|s| s.from(entry.at).is_none()) {
            self.segment = Some(self.log.hold(entry.at).map_err(|e| e.to_string())?);
        }
        let record = self.segment.as_ref().and_then(|s| s.record(entry.at));
        let record = record.ok_or("there is none at its place")?;
        Entry::parse(record.body).map_err(|e| e.to_string())
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

/// In groups, at least one for each processor.
fn side_by_side(mut pending: Vec<Pending>) -> Vec<Vec<Pending>> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let size = pending.len().div_ceil(threads).clamp(1, SIDE_BY_SIDE);
    let mut groups = Vec::new();
    while !pending.is_empty() {
        groups.push(pending.drain(..size.min(pending.len())).collect());
    }
    groups
}

/// Makes all of them readable, on as many threads as there are processors, until the node stops.
pub fn run(node: &Arc<Node>, mut pending: Vec<Pending>) {
    pending.sort_by_key(|p| p.progress.total);
    let begun = std::time::Instant::now();
    let (count, rows) = (pending.len(), pending.iter().map(|p| p.progress.total).sum::<u64>());
    let go_on = || !node.stop.is_cancelled();
    in_parallel(side_by_side(pending), |some| {
        make(some, &node.log, go_on, |key, progress, ready| node.loaded(key, progress, ready));
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
