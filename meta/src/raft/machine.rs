//! The state machine: the state in memory, which all reads see, and the copies of it on disk.
//!
//! **Invariants**
//! * Memory is the authority. sled ([`applied`](mod@super::applied)) is written behind it, the snapshot now and then; either
//!   can be made again from the other and the log.
//! * The applied entry, the membership and the state change together, under one lock; who waits for an index is woken
//!   after it.
//! * An entry that does not decode ends the process: a nameserver that skipped it would hold another state.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageIOError};
use parking_lot::{Mutex, RwLock};
use stela_meta_state::command::Reply;
use stela_meta_state::object::{Changed, Key};
use stela_meta_state::state::State;
use tokio::sync::watch;

use super::applied::{self, Applied, Copy, Delta};
use super::log::LogStore;
use super::snapshot::Snapshots;
use super::types::{
    Entry, Image, LogId, Snapshot, SnapshotMeta, StorageError, StoredMembership, TypeConfig,
};
use crate::error::StartError;

/// Changed keys that are remembered, for tablets that ask what is new since an index.
const REMEMBERED: usize = 65_536;

/// The state as everybody reads it.
pub struct Store {
    inner: RwLock<Applied>,
    applied: watch::Sender<u64>,
    changes: Mutex<Changes>,
}

/// Which objects changed at which index, for the last indexes.
#[derive(Default)]
struct Changes {
    at: VecDeque<(u64, Vec<Key>)>,
    keys: usize,
    /// Everything that changed after this index is remembered.
    from: u64,
}

impl Store {
    fn new(applied: Applied) -> Self {
        let index = applied.last.map_or(0, |l| l.index);
        let changes = Changes { from: index, ..Changes::default() };
        Self {
            inner: RwLock::new(applied),
            applied: watch::Sender::new(index),
            changes: Mutex::new(changes),
        }
    }

    /// Looks at the state. Short: applying waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.inner.read().state)
    }

    /// The last index applied.
    pub fn applied(&self) -> u64 {
        *self.applied.borrow()
    }

    /// Tells each time that an index was applied.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The objects that changed after `index` and up to what is applied now; `None`: too long ago, look at all.
    pub fn changed_since(&self, index: u64) -> Option<Vec<Key>> {
        let changes = self.changes.lock();
        if index < changes.from {
            return None;
        }
        let start = changes.at.partition_point(|(at, _)| *at <= index);
        let mut keys: Vec<Key> =
            changes.at.range(start..).flat_map(|(_, keys)| keys.iter().cloned()).collect();
        keys.sort_unstable();
        keys.dedup();
        Some(keys)
    }

    /// The last membership that is applied: it cannot be taken back any more.
    pub fn membership(&self) -> StoredMembership {
        self.inner.read().membership.clone()
    }

    fn whole(&self) -> Applied {
        self.inner.read().clone()
    }
}

impl Changes {
    fn note(&mut self, index: u64, keys: &Changed) {
        let keys: Vec<Key> =
            keys.iter().filter(|k| !matches!(k, Key::Meta | Key::Session(_))).cloned().collect();
        if keys.is_empty() {
            return;
        }
        self.keys += keys.len();
        self.at.push_back((index, keys));
        while self.keys > REMEMBERED {
            let Some((index, keys)) = self.at.pop_front() else { break };
            self.keys -= keys.len();
            self.from = index;
        }
    }

    fn forget(&mut self, index: u64) {
        *self = Self { from: index, ..Self::default() };
    }
}

/// The state machine. A clone is the same.
#[derive(Clone)]
pub struct Machine {
    store: Arc<Store>,
    snapshots: Snapshots,
    copy: Arc<Copy>,
}

impl Machine {
    /// Opens it: from sled if that can be used, else from the snapshot; the log goes on from there (R31).
    ///
    /// # Errors
    /// Neither reaches up to where the log begins, or there is a state without any log: then votes may be forgotten.
    pub fn open(
        dir: &Path,
        log: &LogStore,
        keep: Arc<dyn std::any::Any + Send + Sync>,
    ) -> Result<Self, StartError> {
        let (snapshots, found) = Snapshots::open(dir)?;
        let ends = log.ends();
        let in_snapshot = found.as_ref().and_then(|(meta, _)| meta.last_log_id);
        let upper = ends.last.max(in_snapshot);
        let fits = |last: Option<LogId>| {
            let same = |id: LogId| log.id_at(id.index).is_none_or(|known| known == id);
            // Without a log nothing is judged here: below, whatever it is, it is too much.
            ends.pristine
                || last >= ends.purged
                    && last >= in_snapshot
                    && last <= upper
                    && last.is_none_or(same)
        };
        let (db, copied) = applied::open(dir, fits)?;
        let fresh = copied.is_none();
        let start = match (copied, found) {
            (Some(copied), _) => copied,
            (None, Some((meta, image))) => {
                let damaged = |what| StartError::Damaged { dir: dir.to_owned(), what };
                let state = image
                    .state()
                    .map_err(|e| damaged(format!("its snapshot does not decode ({e})")))?;
                Applied {
                    state: (*state).clone(),
                    last: meta.last_log_id,
                    membership: meta.last_membership,
                }
            }
            (None, None) => Applied::default(),
        };
        if ends.pristine && start.last.is_some() {
            let what =
                "it has a state, but its log is empty: votes that it gave may be forgotten".into();
            return Err(StartError::Damaged { dir: dir.to_owned(), what });
        }
        if start.last < ends.purged {
            let what =
                "neither its snapshot nor its applied state reach to the first entry of its log"
                    .into();
            return Err(StartError::Damaged { dir: dir.to_owned(), what });
        }
        let store = Arc::new(Store::new(start));
        let whole = {
            let store = store.clone();
            Arc::new(move || store.whole())
        };
        let copy = Arc::new(applied::start(db, dir, whole, fresh, keep)?);
        Ok(Self { store, snapshots, copy })
    }

    /// The state as everybody reads it.
    pub fn store(&self) -> Arc<Store> {
        self.store.clone()
    }

    /// Writes what waits and closes sled; blocks.
    pub fn close(&self) {
        self.copy.close();
    }

    fn apply_all(&self, entries: Vec<Entry>) -> Result<Vec<Vec<Reply>>, StorageError> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut all = Changed::new();
        let mut by_index = Vec::new();
        let mut inner = self.store.inner.write();
        for entry in entries {
            let id = entry.log_id;
            let mut answer = Vec::new();
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(m) => {
                    inner.membership = StoredMembership::new(Some(id), m)
                }
                EntryPayload::Normal(payload) => {
                    let batch = payload
                        .batch()
                        .map_err(|e| StorageIOError::apply(id, AnyError::error(e)))?;
                    let mut changed = Changed::new();
                    answer = inner.state.apply_tracked(id.index, &batch, &mut changed);
                    all.extend(changed.iter().cloned());
                    by_index.push((id.index, changed));
                }
            }
            inner.last = Some(id);
            replies.push(answer);
        }
        let objects = all.into_iter().map(|key| (key.clone(), inner.state.get(&key))).collect();
        let delta = Delta { last: inner.last, membership: inner.membership.clone(), objects };
        {
            let mut changes = self.store.changes.lock();
            for (index, changed) in &by_index {
                changes.note(*index, changed);
            }
        }
        drop(inner);
        if let Some(last) = delta.last {
            self.store.applied.send_replace(last.index);
        }
        self.copy.note(delta);
        Ok(replies)
    }

    fn build(&self) -> Result<Snapshot, StorageError> {
        let wrong = |e: AnyError| StorageError::from(StorageIOError::write_snapshot(None, e));
        let Applied { state, last, membership } = self.store.whole();
        let image = Image::encode(&state).map_err(|e| wrong(AnyError::error(e)))?;
        let at = last.map_or_else(
            || "0".into(),
            |l| format!("{}-{}-{}", l.leader_id.term, l.leader_id.node_id, l.index),
        );
        let meta = SnapshotMeta {
            last_log_id: last,
            last_membership: membership,
            snapshot_id: format!("{at}-{:08x}", rand::random::<u32>()),
        };
        self.snapshots.store(&meta, &image).map_err(|e| wrong(AnyError::new(&e)))?;
        Ok(Snapshot { meta, snapshot: Box::new(image) })
    }

    fn install(&self, meta: &SnapshotMeta, image: &Image) -> Result<(), StorageError> {
        let wrong = |e: AnyError| {
            StorageError::from(StorageIOError::write_snapshot(Some(meta.signature()), e))
        };
        let state = image.state().map_err(|e| wrong(AnyError::error(e)))?;
        self.snapshots.store(meta, image).map_err(|e| wrong(AnyError::new(&e)))?;
        let index = meta.last_log_id.map_or(0, |l| l.index);
        {
            let mut inner = self.store.inner.write();
            *inner = Applied {
                state: (*state).clone(),
                last: meta.last_log_id,
                membership: meta.last_membership.clone(),
            };
            self.store.changes.lock().forget(index);
        }
        self.store.applied.send_replace(index);
        self.copy.note_all();
        Ok(())
    }
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(StorageIOError::read_state_machine(AnyError::new(&e)).into()),
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let machine = self.clone();
        blocking(move || machine.build()).await
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        let inner = self.store.inner.read();
        Ok((inner.last, inner.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Reply>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.apply_all(entries.into_iter().collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Image>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Image>,
    ) -> Result<(), StorageError> {
        let (machine, meta) = (self.clone(), meta.clone());
        blocking(move || machine.install(&meta, &snapshot)).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let snapshots = self.snapshots.clone();
        blocking(move || {
            let found = snapshots
                .load()
                .map_err(|e| StorageIOError::read_snapshot(None, AnyError::new(&e)))?;
            Ok(found.map(|(meta, image)| Snapshot { meta, snapshot: Box::new(image) }))
        })
        .await
    }
}
