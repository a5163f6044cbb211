//! The applied state in sled: a copy that can always be derived again.
//!
//! One tree. Under `m` stands the entry up to which it is applied, the membership, and a hash over all objects; under
//! `o`, the key of an object and a piece number stand the pieces of that object (a piece has at most 3 KiB, so that
//! sled never makes a blob: D4).
//!
//! **Invariants**
//! * One batch per apply, which holds the applied index (R31); one thread writes, and is the only one that touches sled
//!   (D9). It runs behind: nobody waits for it.
//! * It is used at start only if it opens, its hash fits, and its applied entry is one of this log or its snapshot.
//!   Otherwise it is moved aside and made again from snapshot and log; it is never deleted.
//! * sled's own traps: its flush syncs nothing (D1: the file is synced after it), `flush_async` deadlocks (D2: not
//!   used), a crash leaves `snap.*.generating` (D3: removed before it is opened), a new directory is not synced (D5: made
//!   aside, synced, renamed), a background flusher (D8: off).

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prost::Message as _;
use stela_common::fs::{self, Disk, Why};
use stela_meta_state::object::{Key, Object};
use stela_meta_state::state::State;
use stela_proto::raft as pb;

use super::codec;
use super::snapshot::move_aside;
use super::types::{LogId, StoredMembership};
use crate::error::StartError;

const DIR: &str = "applied";
/// A database that was dropped in this process lets go of its lock within this.
const LETS_GO: Duration = Duration::from_secs(10);
const META: &[u8] = b"m";
const PIECE: usize = 3 << 10;
/// Batches that may wait; beyond, the copy is made again from the state when there is time.
const QUEUE: usize = 1024;
/// How often what was written is flushed.
const FLUSH: Duration = Duration::from_millis(500);

/// A state with the entry up to which it is applied.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// The state.
    pub state: State,
    /// The last entry that is in it.
    pub last: Option<LogId>,
    /// The last membership that is in it.
    pub membership: StoredMembership,
}

/// What one apply changed.
pub struct Delta {
    /// The last entry applied.
    pub last: Option<LogId>,
    /// The membership.
    pub membership: StoredMembership,
    /// The objects that changed; `None`: gone.
    pub objects: Vec<(Key, Option<Object>)>,
}

enum Job {
    Delta(Delta),
    /// Everything, from the state as it is then.
    All,
    Close(std::sync::mpsc::Sender<()>),
}

/// The writer behind the copy.
pub struct Copy {
    jobs: SyncSender<Job>,
    behind: Arc<std::sync::atomic::AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Where the copy gets everything from when it has to be made again.
pub type Whole = Arc<dyn Fn() -> Applied + Send + Sync>;

impl Copy {
    /// Notes what an apply changed; never blocks.
    pub fn note(&self, delta: Delta) {
        use std::sync::atomic::Ordering;
        if self.behind.load(Ordering::Acquire) {
            return; // everything is going to be copied
        }
        if let Err(TrySendError::Full(_)) = self.jobs.try_send(Job::Delta(delta)) {
            self.behind.store(true, Ordering::Release);
        }
    }

    /// The whole state was exchanged.
    pub fn note_all(&self) {
        self.behind.store(true, std::sync::atomic::Ordering::Release);
        let _ = self.jobs.try_send(Job::All); // when the queue is full, its reader finds the mark
    }

    /// Writes and flushes what waits, and ends the writer.
    pub fn close(&self) {
        let (done, wait) = std::sync::mpsc::channel();
        if self.jobs.send(Job::Close(done)).is_ok() {
            let _ = wait.recv();
        }
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

/// Opens the copy in `dir`; `fits` says whether an applied entry is one of this log. What cannot be used is moved aside.
///
/// # Errors
/// Not even an empty one can be made.
pub fn open(
    dir: &Path,
    fits: impl Fn(Option<LogId>) -> bool,
) -> Result<(sled::Db, Option<Applied>), StartError> {
    let path = dir.join(DIR);
    if fs::exists(&path) {
        let found = catch_unwind(AssertUnwindSafe(|| open_existing(&path)))
            .unwrap_or_else(|_| Err("sled cannot open it".into()))
            .and_then(|(db, applied)| match applied {
                Some(a) if !fits(a.last) => {
                    Err("its applied entry is not one of this log".to_owned())
                }
                applied => Ok((db, applied)),
            });
        match found {
            Ok(found) => return Ok(found),
            Err(reason) => {
                let aside = move_aside(&path)?;
                tracing::warn!(reason, aside = %aside.display(), "the applied state is made again from snapshot and log");
            }
        }
    }
    create(dir, &path)?;
    let db = sled_open(&path)
        .map_err(|e| StartError::io(&path)(std::io::Error::other(e.to_string())))?;
    Ok((db, None))
}

/// Opens it, once whoever had it open has let go: a database that was dropped in this process keeps its lock until the last
/// of its threads is done. Another process cannot have it, as the directory is locked.
fn sled_open(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(path).flush_every_ms(None).cache_capacity(16 << 20);
    let deadline = Instant::now() + LETS_GO;
    loop {
        match config.open() {
            Err(sled::Error::Io(e))
                if e.to_string().contains("could not acquire lock")
                    && Instant::now() < deadline =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

/// D5: made aside, every file and directory synced, then renamed.
fn create(dir: &Path, path: &Path) -> Result<(), StartError> {
    let aside = dir.join("applied.new");
    let make = || -> std::io::Result<()> {
        if fs::exists(&aside) {
            fs::remove_dir_all(&aside)?;
        }
        let db = sled_open(&aside).map_err(|e| std::io::Error::other(e.to_string()))?;
        db.flush().map_err(|e| std::io::Error::other(e.to_string()))?;
        drop(db);
        sync_all(&aside)?;
        fs::rename(&aside, path)?;
        fs::sync_dir(dir)
    };
    make().map_err(StartError::io(path))
}

fn sync_all(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        if entry.is_dir() {
            sync_all(&entry)?;
        } else {
            Disk::real().open(&entry)?.sync(Why::Replace)?;
        }
    }
    fs::sync_dir(dir)
}

fn open_existing(path: &Path) -> Result<(sled::Db, Option<Applied>), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    for file in fs::read_dir(path).map_err(|e| text(&e))? {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(&file).map_err(|e| text(&e))?; // D3
        }
    }
    if fs::read_dir(path.join("blobs")).is_ok_and(|files| !files.is_empty()) {
        return Err("it has blobs, which sled never syncs".into()); // D4
    }
    let db = sled_open(path).map_err(|e| text(&e))?;
    let Some(meta) = db.get(META).map_err(|e| text(&e))? else {
        return if db.is_empty() {
            Ok((db, None))
        } else {
            Err("it does not say how far it is applied".into())
        };
    };
    let (last, membership, hash) = decode_meta(&meta)?;
    let mut applied = Applied { last, membership, ..Applied::default() };
    let mut sum = 0u64;
    let mut value = Vec::new();
    let mut left = 0u16;
    for item in db.scan_prefix(b"o") {
        let (key, piece) = item.map_err(|e| text(&e))?;
        let split = key.len().checked_sub(2).ok_or("a key is too short")?;
        let mut piece: &[u8] = &piece;
        if left == 0 {
            value.clear();
            let count;
            (count, piece) = piece.split_at_checked(2).ok_or("a piece is too short")?;
            left = u16::from_le_bytes([count[0], count[1]]);
        }
        value.extend_from_slice(piece);
        left = left.checked_sub(1).ok_or("an object has no pieces")?;
        if left == 0 {
            let key = &key[1..split];
            sum = sum.wrapping_add(hash_of(key, &value));
            let key: Key = rmp_serde::from_slice(key).map_err(|e| text(&e))?;
            let object: Object = rmp_serde::from_slice(&value).map_err(|e| text(&e))?;
            applied.state.put(key, object).map_err(|e| text(&e))?;
        }
    }
    if left != 0 || sum != hash {
        return Err("its hash differs".into());
    }
    Ok((db, Some(applied)))
}

/// Starts the writer. `keep` lives as long as it: the lock of the directory.
pub fn start(
    db: sled::Db,
    dir: &Path,
    whole: Whole,
    fresh: bool,
    keep: Arc<dyn std::any::Any + Send + Sync>,
) -> Result<Copy, StartError> {
    let (jobs, queue) = sync_channel(QUEUE);
    let behind = Arc::new(std::sync::atomic::AtomicBool::new(fresh));
    let file = dir.join(DIR).join("db");
    let mut writer = Writer {
        db: Some(db),
        file,
        known: HashMap::new(),
        sum: 0,
        upto: None,
        whole,
        behind: behind.clone(),
    };
    if !fresh {
        writer.learn();
    }
    let run = move || {
        writer.run(&queue);
        drop(writer);
        drop(keep);
    };
    let thread = std::thread::Builder::new()
        .name("applied".into())
        .spawn(run)
        .map_err(StartError::io(dir))?;
    Ok(Copy { jobs, behind, thread: Mutex::new(Some(thread)) })
}

struct Writer {
    db: Option<sled::Db>,
    file: PathBuf,
    /// Of each object its hash and its number of pieces.
    known: HashMap<Vec<u8>, (u64, u16)>,
    sum: u64,
    /// The last entry that was written: older deltas that still wait are dead.
    upto: Option<LogId>,
    whole: Whole,
    behind: Arc<std::sync::atomic::AtomicBool>,
}

impl Writer {
    /// Takes in what a copy that is good already holds.
    fn learn(&mut self) {
        let all = (self.whole)();
        for key in all.state.keys() {
            let Some(object) = all.state.get(&key) else { continue };
            if let (Ok(key), Ok(value)) =
                (rmp_serde::to_vec(&key), rmp_serde::to_vec_named(&object))
            {
                let hash = hash_of(&key, &value);
                self.sum = self.sum.wrapping_add(hash);
                self.known.insert(key, (hash, pieces(&value)));
            }
        }
    }

    fn run(&mut self, queue: &Receiver<Job>) {
        use std::sync::atomic::Ordering;
        let mut dirty = false;
        loop {
            if self.behind.load(Ordering::Acquire) {
                // What waits in the queue is older than the state that is copied now.
                let mut closing = None;
                while let Ok(job) = queue.try_recv() {
                    if let Job::Close(done) = job {
                        closing = Some(done);
                        break;
                    }
                }
                self.behind.store(false, Ordering::Release);
                let all = (self.whole)();
                self.attempt(|w| w.write_all(&all));
                self.attempt(Self::flush);
                if let Some(done) = closing {
                    self.db = None;
                    let _ = done.send(());
                    return;
                }
            }
            match queue.recv_timeout(if dirty { FLUSH } else { Duration::from_secs(3600) }) {
                Ok(Job::Delta(delta)) => {
                    self.attempt(|w| w.write(&delta));
                    dirty = true;
                }
                Ok(Job::All) | Err(RecvTimeoutError::Timeout) if !dirty => {}
                Ok(Job::All) | Err(RecvTimeoutError::Timeout) => {
                    self.attempt(Self::flush);
                    dirty = false;
                }
                Ok(Job::Close(done)) => {
                    self.attempt(Self::flush);
                    self.db = None; // D8: closed here, on a thread that may block
                    let _ = done.send(());
                    return;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// After an error nothing is written any more: what is there stays a valid older copy, or is made again at the next
    /// start.
    fn attempt(&mut self, what: impl FnOnce(&mut Self) -> Result<(), String>) {
        if self.db.is_some()
            && let Err(error) = catch_unwind(AssertUnwindSafe(|| what(self)))
                .unwrap_or_else(|_| Err("panic".into()))
        {
            tracing::error!(error, "the copy of the applied state is not written any more");
            self.db = None;
        }
    }

    fn write(&mut self, delta: &Delta) -> Result<(), String> {
        if delta.last <= self.upto {
            return Ok(()); // in the copy already, since it was made again from a later state
        }
        self.upto = delta.last;
        let mut batch = sled::Batch::default();
        for (key, object) in &delta.objects {
            let key = rmp_serde::to_vec(key).map_err(|e| e.to_string())?;
            let old = self.known.remove(&key);
            self.sum = self.sum.wrapping_sub(old.map_or(0, |o| o.0));
            let mut count = 0;
            if let Some(object) = object {
                let value = rmp_serde::to_vec_named(object).map_err(|e| e.to_string())?;
                count = put(&mut batch, &key, &value);
                let hash = hash_of(&key, &value);
                self.sum = self.sum.wrapping_add(hash);
                self.known.insert(key.clone(), (hash, count));
            }
            for piece in count..old.map_or(0, |o| o.1) {
                batch.remove(piece_key(&key, piece));
            }
        }
        batch.insert(META, encode_meta(delta.last, &delta.membership, self.sum));
        self.apply(batch)
    }

    fn write_all(&mut self, all: &Applied) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        let old = std::mem::take(&mut self.known);
        self.sum = 0;
        self.upto = all.last;
        for key in all.state.keys() {
            let Some(object) = all.state.get(&key) else { continue };
            let key = rmp_serde::to_vec(&key).map_err(|e| e.to_string())?;
            let value = rmp_serde::to_vec_named(&object).map_err(|e| e.to_string())?;
            let count = put(&mut batch, &key, &value);
            let hash = hash_of(&key, &value);
            self.sum = self.sum.wrapping_add(hash);
            for piece in count..old.get(&key).map_or(0, |o| o.1) {
                batch.remove(piece_key(&key, piece));
            }
            self.known.insert(key, (hash, count));
        }
        for (key, (_, count)) in old.iter().filter(|(key, _)| !self.known.contains_key(*key)) {
            for piece in 0..*count {
                batch.remove(piece_key(key, piece));
            }
        }
        batch.insert(META, encode_meta(all.last, &all.membership, self.sum));
        self.apply(batch)
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), String> {
        self.db.as_ref().map_or(Ok(()), |db| db.apply_batch(batch).map_err(|e| e.to_string()))
    }

    fn flush(&mut self) -> Result<(), String> {
        let Some(db) = &self.db else { return Ok(()) };
        db.flush().map_err(|e| e.to_string())?;
        Disk::real().open(&self.file).and_then(|f| f.sync(Why::Replace)).map_err(|e| e.to_string()) // D1
    }
}

fn pieces(value: &[u8]) -> u16 {
    u16::try_from(value.len().div_ceil(PIECE).max(1)).unwrap_or(u16::MAX)
}

fn piece_key(key: &[u8], piece: u16) -> Vec<u8> {
    [b"o", key, &piece.to_be_bytes()].concat()
}

/// Puts the pieces of an object into the batch; answers how many.
fn put(batch: &mut sled::Batch, key: &[u8], value: &[u8]) -> u16 {
    let count = pieces(value);
    let mut parts = value.chunks(PIECE);
    for piece in 0..count {
        let part = parts.next().unwrap_or_default();
        let head: &[u8] = if piece == 0 { &count.to_le_bytes() } else { &[] };
        batch.insert(piece_key(key, piece), [head, part].concat());
    }
    count
}

/// FNV-1a with a finisher: a sum of these over all objects tells whether one of them is not what was written.
fn hash_of(key: &[u8], value: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for byte in key.iter().chain(&(key.len() as u64).to_le_bytes()).chain(value) {
        h = (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h ^ (h >> 29)
}

fn encode_meta(last: Option<LogId>, membership: &StoredMembership, hash: u64) -> Vec<u8> {
    pb::SnapshotMeta {
        last: last.as_ref().map(codec::log_id),
        membership: Some(codec::stored_membership(membership)),
        id: format!("{hash:016x}"),
    }
    .encode_to_vec()
}

fn decode_meta(bytes: &[u8]) -> Result<(Option<LogId>, StoredMembership, u64), String> {
    let meta = pb::SnapshotMeta::decode(bytes).map_err(|e| e.to_string())?;
    let hash = u64::from_str_radix(&meta.id, 16).map_err(|e| e.to_string())?;
    let meta = codec::snapshot_meta_of(&meta).map_err(|e| e.to_string())?;
    Ok((meta.last_log_id, meta.last_membership, hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first start failed now and then on a busy machine: the database that had been made aside still held its lock.
    #[test]
    fn a_database_that_is_still_being_closed_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let held = sled_open(&path).unwrap();
        let (about_to_open, wait) = sync_channel(1);
        let closing = std::thread::spawn(move || {
            wait.recv().unwrap();
            // The other one has met the lock by now, or meets none.
            std::thread::sleep(Duration::from_millis(100));
            drop(held);
        });
        about_to_open.send(()).unwrap();
        sled_open(&path).unwrap();
        closing.join().unwrap();
    }
}
