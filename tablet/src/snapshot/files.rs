//! Where snapshots lie, one directory for each partition:
//!
//! ```text
//! snapshots/<tid>_<pid>/<position>_<offset>.snap   made here: in force from its name on, the highest position first
//! snapshots/<tid>_<pid>/<id>.installed             a leader's: in force where the log says so (`Installed`, R26)
//! snapshots/<tid>_<pid>/*.tmp                      in the making: removed at the next start
//! ```
//!
//! Crash story: a file gets its name when all of it is on disk, and goes when the one that replaces it has been verified
//! and is in force; in between there are two, and either of them is right with the log behind it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use stela_common::fs::{self, Disk, Why};
use stela_common::ids::{Offset, PartitionKey, TableId};
use stela_common::log::Position;

use super::Snapshot;

const LOCAL: &str = "snap";
const INSTALLED: &str = "installed";

/// The name of one that is made here.
#[must_use]
pub fn local(dir: &Path, replay_from: Position, offset: Offset) -> PathBuf {
    dir.join(format!("{:020}_{offset}.{LOCAL}", replay_from.0))
}

/// The name of one that came from a leader.
#[must_use]
pub fn installed(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}.{INSTALLED}"))
}

/// Where a file is written before it gets its name.
#[must_use]
pub fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Gives a file that is on disk its name, durably, replacing what has it.
///
/// # Errors
/// The disk refused.
pub fn publish(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    match to.parent() {
        Some(dir) => disk.sync_dir(dir, Why::Replace),
        None => Ok(()),
    }
}

/// What lies there of one partition.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest of those made here that checks out.
    pub local: Option<Arc<Snapshot>>,
    /// Those of leaders, by id.
    pub installed: BTreeMap<u64, Result<Arc<Snapshot>, String>>,
    /// What is wrong with those made here that are newer, or with all.
    pub wrong: Option<String>,
}

/// The files of each partition, by name.
///
/// # Errors
/// A directory cannot be read.
pub fn list(dir: &Path) -> io::Result<BTreeMap<PartitionKey, Vec<PathBuf>>> {
    let mut found = BTreeMap::new();
    if !fs::exists(dir) {
        return Ok(found);
    }
    for path in fs::read_dir(dir)? {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('_'));
        let Some((Ok(tid), Ok(pid))) = name.map(|(tid, pid)| (tid.parse(), pid.parse())) else {
            continue;
        };
        found.insert(PartitionKey::new(tid, pid), fs::read_dir(&path)?);
    }
    Ok(found)
}

impl Found {
    /// Opens what is needed of a partition's files.
    #[must_use]
    pub fn open(disk: &Disk, key: PartitionKey, files: &[PathBuf]) -> Self {
        let mut found = Self::default();
        let with = |extension: &'static str| {
            files.iter().filter(move |p| p.extension().is_some_and(|e| e == extension))
        };
        for path in with(LOCAL).rev() {
            match open(disk, key, path) {
                Ok(snapshot) => {
                    found.local = Some(snapshot);
                    break;
                }
                Err(why) => {
                    tracing::error!(%key, %why, "a snapshot cannot be used");
                    found.wrong.get_or_insert(why);
                }
            }
        }
        for path in with(INSTALLED) {
            let id = path.file_stem().and_then(|s| s.to_str());
            if let Some(Ok(id)) = id.map(|id| u64::from_str_radix(id, 16)) {
                found.installed.insert(id, open(disk, key, path));
            }
        }
        found
    }
}

fn open(disk: &Disk, key: PartitionKey, path: &Path) -> Result<Arc<Snapshot>, String> {
    let snapshot = Snapshot::open(disk, path).map_err(|e| e.to_string())?;
    match snapshot.header().key {
        found if found == key => Ok(Arc::new(snapshot)),
        found => Err(format!("{} is of partition {found}", path.display())),
    }
}

/// Is it the name of a snapshot, or of one in the making?
fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    name.rsplit_once('.').is_some_and(|(_, extension)| [LOCAL, INSTALLED].contains(&extension))
}

/// The snapshots that lie in a partition's directory, and what is left of those in the making, but for one that stays.
///
/// # Errors
/// The directory cannot be read.
pub fn others(dir: &Path, keep: Option<&Path>) -> io::Result<Vec<PathBuf>> {
    if !fs::exists(dir) {
        return Ok(Vec::new());
    }
    let mut paths = fs::read_dir(dir)?;
    paths.retain(|path| is_ours(path) && Some(path.as_path()) != keep);
    Ok(paths)
}

/// Removes all of these but one, durably.
///
/// # Errors
/// The disk refused.
pub fn retire(disk: &Disk, dir: &Path, keep: Option<&Path>) -> io::Result<()> {
    let others = others(dir, keep)?;
    for path in &others {
        disk.remove_file(path)?;
    }
    if others.is_empty() { Ok(()) } else { disk.sync_dir(dir, Why::Replace) }
}

/// Removes the directory of a dropped replica.
///
/// # Errors
/// The disk refused.
pub fn remove_replica(disk: &Disk, snapshots: &Path, key: PartitionKey) -> io::Result<()> {
    match fs::remove_dir_all(snapshots.join(key.to_string())) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(()) => disk.sync_dir(snapshots, Why::Replace),
    }
}

/// Removes the directories of a dropped table.
///
/// # Errors
/// The disk refused.
pub fn remove_table(disk: &Disk, snapshots: &Path, tid: TableId) -> io::Result<()> {
    for key in list(snapshots)?.into_keys().filter(|key| key.tid == tid) {
        let dir = snapshots.join(key.to_string());
        fs::remove_dir_all(&dir)?;
        disk.sync_dir(snapshots, Why::Replace)?;
    }
    Ok(())
}
