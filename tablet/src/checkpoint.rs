//! What a tablet knew when it was stopped cleanly, so that the next start need not read its log again.
//!
//! ```text
//! index.checkpoint   the state of each replica but for its values, with the indexes as they stood in memory
//! ```
//!
//! A [`sealed`] file: the body is the indexes, as in a snapshot but with places in the log and in the snapshot
//! alike, the header JSON. **Invariants**
//! * It is written when the log is closed, and counts only for a log that ends exactly there: whatever was appended since
//!   makes it void. So nothing relies on it, it need not be removed to be harmless, and a log is never given back for it.
//! * It is all or nothing: where one replica has no table here, or does not agree with the log's own ends (R30) or with
//!   its snapshot, all are made from the log.
//! * None is written of a tablet with a copy that is not whole, or not loaded: those are looked at anew.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use stela_common::fs::{self, Disk};
use stela_common::ids::{Epoch, Offset, PartitionKey, TableId};
use stela_common::log::{Log, Map, Position, Recovery};
use stela_replica::epochs::Epochs;

use crate::disk::{Files, Held};
use crate::node::{Inner, Node};
use crate::partition::Partition;
use crate::sealed::{self, Checked, HEAD, Writer};
use crate::snapshot::Snapshot;
use crate::snapshot::files::{self, Found};
use crate::snapshot::header::starts;
use crate::snapshot::keys::{Keys, Section};
use crate::store::dedup::Remembered;
use crate::store::load::{Loaded, Loading};
use crate::store::places::Places;

const MAGIC: [u8; 8] = *b"STELACKP";
const FORMAT: u32 = 1;
const NAME: &str = "index.checkpoint";

/// Of which log it is, and of what.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The log.
    log: String,
    /// Where it ended.
    end: Position,
    replicas: Vec<Replica>,
}

/// One replica.
#[derive(Debug, Serialize, Deserialize)]
struct Replica {
    key: PartitionKey,
    /// The id of the snapshot that its rows are in, but for those that are in the log.
    snapshot: Option<u64>,
    replay_from: Position,
    installed: bool,
    epoch: Epoch,
    #[serde(with = "starts")]
    epochs: Epochs,
    /// The last entry.
    last: Offset,
    /// The last entry that is in the indexes.
    applied: Offset,
    commit: Offset,
    /// As of `applied`.
    dedup: Remembered,
    places: Places,
    /// The entries behind `applied`.
    tail: Vec<Loading>,
    /// Bytes of the entries since the snapshot.
    grown: u64,
    indexes: Vec<Section>,
}

/// The indexes of one replica.
#[derive(Clone)]
pub struct Saved {
    file: Arc<File>,
    at: usize,
}

struct File {
    map: Map,
    header: Header,
}

impl Saved {
    fn replica(&self) -> &Replica {
        &self.file.header.replicas[self.at]
    }

    /// The last entry that is in them.
    #[must_use]
    pub fn applied(&self) -> Offset {
        self.replica().applied
    }

    /// Bytes of the entries that are in them and not in the snapshot.
    #[must_use]
    pub fn grown(&self) -> u64 {
        self.replica().grown
    }

    /// Rows in all of them.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.replica().indexes.iter().map(|i| i.rows).sum()
    }

    /// Each with the number of its rows, in the order of the table.
    pub fn indexes(&self) -> impl Iterator<Item = (Keys<'_>, u64)> {
        let keys = |s: &Section| Keys::new(self.file.map.get(s.range()).unwrap_or_default());
        self.replica().indexes.iter().map(move |s| (keys(s), s.rows))
    }
}

impl std::fmt::Debug for Saved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Saved({}, up to {})", self.replica().key, self.applied())
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

/// Writes it, of a node whose log is closed. Returns how many rows it has; `None`: there can be none.
///
/// # Errors
/// The disk refused.
pub(crate) fn save(node: &Node) -> io::Result<Option<u64>> {
    let inner = node.look();
    let whole = |p: &Partition| p.quarantine.is_none() && p.loading.is_none() && !p.released;
    if !inner.orphans.is_empty() || !inner.partitions.values().all(whole) {
        return Ok(None);
    }
    let (disk, path) = (node.files.disk(), path(node.files.dir()));
    let aside = files::aside(&path);
    if fs::exists(&aside) {
        disk.remove_file(&aside)?;
    }
    let saved = write(node, &inner, &aside).and_then(|rows| {
        files::publish(disk, &aside, &path)?;
        Ok(Some(rows))
    });
    if saved.is_err() && fs::exists(&aside) {
        disk.remove_file(&aside)?;
    }
    saved
}

fn write(node: &Node, inner: &Inner, path: &Path) -> io::Result<u64> {
    let mut to = Writer::create(node.files.disk(), path, MAGIC, FORMAT)?;
    let mut replicas = Vec::new();
    for (key, p) in &inner.partitions {
        let mut dedup = p.dedup.clone();
        dedup.truncated(p.applied);
        replicas.push(Replica {
            key: *key,
            snapshot: p.store.snapshot().map(|s| s.header().id),
            replay_from: p.replay_from(),
            installed: p.is_installed(),
            epoch: p.epoch,
            epochs: p.epochs.clone(),
            last: p.last(),
            applied: p.applied,
            commit: p.applied.min(p.core.commit()),
            dedup: dedup.remembered(),
            places: p.places.clone(),
            tail: p.behind(p.applied),
            grown: p.store.grown(),
            indexes: p.store.freeze(&mut to)?,
        });
    }
    let rows = replicas.iter().flat_map(|r| &r.indexes).map(|i| i.rows).sum();
    let header = Header { log: node.log.id().to_string(), end: node.log.end(), replicas };
    to.finish(&header)?;
    Ok(rows)
}

/// All is loaded: it is void from the next append on.
pub(crate) fn discard(node: &Node) {
    let path = path(node.files.dir());
    if fs::exists(&path)
        && let Err(error) = node.files.disk().remove_file(&path)
    {
        tracing::warn!(%error, "a checkpoint that is not needed any more cannot be removed");
    }
}

/// What the log and the snapshots would give, if the log ends where it did when this was written.
#[must_use]
pub(crate) fn restore(
    files: &Files,
    tables: &BTreeMap<TableId, Held>,
    log: &Log,
    recovery: &Recovery,
    found: &BTreeMap<PartitionKey, Found>,
) -> Option<BTreeMap<PartitionKey, Loaded>> {
    let path = path(files.dir());
    if !fs::exists(&path) || !recovery.clean || !recovery.damage.is_empty() {
        return None;
    }
    let restored = open(files.disk(), &path).and_then(|file| {
        let here =
            |r: &Replica| tables.get(&r.key.tid).is_some_and(|h| h.pids.contains(&r.key.pid));
        match file.header.replicas.iter().find(|r| !here(r)) {
            Some(orphan) => Err(format!("no table here names {}", orphan.key)),
            None => file.loaded(log, recovery, found),
        }
    });
    restored
        .inspect_err(
            |why| tracing::info!(%why, "the index checkpoint does not count: the log is read"),
        )
        .ok()
}

/// What lies in a tablet's directory, and what it says of itself.
pub(crate) fn look(disk: &Disk, dir: &Path) -> Option<(PathBuf, io::Result<String>)> {
    let path = path(dir);
    fs::exists(&path).then(|| {
        let said = open(disk, &path).map_err(io::Error::other).map(|file| {
            let Header { end, replicas, .. } = &file.header;
            let rows: u64 = replicas.iter().flat_map(|r| &r.indexes).map(|i| i.rows).sum();
            format!(
                "of {} partitions, {rows} index entries, for a log that ends at {end}",
                replicas.len()
            )
        });
        (path, said)
    })
}

fn open(disk: &Disk, path: &Path) -> Result<Arc<File>, String> {
    let map = disk.open(path).and_then(|file| Map::new(&file)).map_err(|e| e.to_string())?;
    let Checked { header, header_at, .. } =
        sealed::check(map.all(), MAGIC, FORMAT).map_err(|wrong| wrong.0)?;
    let header: Header = serde_json::from_slice(header).map_err(|e| e.to_string())?;
    let sections = header.replicas.iter().flat_map(|r| &r.indexes);
    let end = sections.into_iter().try_fold(HEAD as u64, |end, section| section.check(end))?;
    if end != header_at as u64 {
        return Err("the indexes do not fill it".into());
    }
    Ok(Arc::new(File { map, header }))
}

impl File {
    fn loaded(
        self: Arc<Self>,
        log: &Log,
        recovery: &Recovery,
        found: &BTreeMap<PartitionKey, Found>,
    ) -> Result<BTreeMap<PartitionKey, Loaded>, String> {
        let end = self.header.end;
        let same = self.header.log == log.id().to_string() && end <= log.end();
        if !same || log.walk(end).next().is_some() {
            return Err("it is of another log, or that went on since".into());
        }
        let here: BTreeMap<_, _> = self.header.replicas.iter().map(|r| (r.key, r)).collect();
        let unknown = recovery.ends.keys().chain(found.keys()).find(|key| !here.contains_key(key));
        if let Some(key) = unknown {
            return Err(format!("it does not know of {key}"));
        }
        (0..self.header.replicas.len())
            .map(|at| {
                let saved = Saved { file: self.clone(), at };
                let key = saved.replica().key;
                let loaded = saved
                    .clone()
                    .loaded(log, recovery, found.get(&key))
                    .map_err(|why| format!("{key}: {why}"))?;
                Ok((key, loaded))
            })
            .collect()
    }
}

impl Saved {
    fn loaded(
        self,
        log: &Log,
        recovery: &Recovery,
        found: Option<&Found>,
    ) -> Result<Loaded, String> {
        let r = self.replica();
        r.dedup.check(r.applied)?;
        if r.last.0 != r.applied.0 + r.tail.len() as u64 || r.commit > r.last {
            return Err("entries are missing".into());
        }
        for (offset, entry) in (r.applied.0 + 1..).zip(&r.tail) {
            if entry.offset.0 != offset {
                return Err("entries are not in order".into());
            }
        }
        let end = recovery.ends.get(&r.key).copied().unwrap_or_default();
        let snapshot = r.snapshot.map(|id| named(found, id).ok_or("its snapshot is not there"));
        let snapshot = snapshot.transpose()?;
        let base = snapshot.as_ref().map_or(Offset(0), |s| s.header().offset);
        if r.last > base && r.replay_from < log.start() {
            return Err("the log does not have all that it needs".into());
        }
        if (r.last, r.epochs.epoch_at(r.last)) != (end.offset, end.epoch)
            || r.epoch < end.acted
            || r.applied < base
        {
            return Err("it ends where the log does not".into());
        }
        let mut loaded = Loaded::default();
        (loaded.snapshot, loaded.replay_from, loaded.installed) =
            (snapshot, r.replay_from, r.installed);
        (loaded.epoch, loaded.epochs) = (r.epoch, r.epochs.clone());
        (loaded.last, loaded.commit) = (r.last, r.commit);
        (loaded.dedup, loaded.places, loaded.entries) =
            ((&r.dedup).into(), r.places.clone(), r.tail.clone());
        loaded.saved = Some(self);
        Ok(loaded)
    }
}

/// The snapshot of that id, if it is the one that is in force.
fn named(found: Option<&Found>, id: u64) -> Option<Arc<Snapshot>> {
    let found = found?;
    let installed = || found.installed.get(&id)?.as_ref().ok();
    found.local.as_ref().filter(|s| s.header().id == id).or_else(installed).cloned()
}
