//! What a tablet keeps beside its log: who it is, the fences it has seen, the tables of its partitions, and the tails
//! that were discarded.
//!
//! ```text
//! TABLET          who: cluster, endpoint, directory uuid, format            written once
//! fences          incarnations tried (R14), highest controller epoch (R20)  replaced, synced before it counts
//! tables/<tid>    a table and which of its partitions are here              replaced
//! incoming/       parts of snapshots that arrive from other tablets          see `transfer`
//! lost+found/     discarded tails: see [`lost`](crate::lost)                never deleted by Stela
//! snapshots/      see [`files`](crate::snapshot::files)
//! log/            the segment log
//! index.checkpoint  see [`checkpoint`](crate::checkpoint)
//! ```
//!
//! Each of the JSON files carries a checksum of what it says.
//!
//! Crash story: each file is replaced whole (tmp, fsync, rename, fsync of the directory), so it is either the old or
//! the new one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stela_common::fs::{self, Disk};
use stela_common::ids::{Epoch, Incarnation, Offset, PartitionId, PartitionKey, TableId};
use stela_common::table::Table;

use crate::lost::{Name, Tail};

/// The newest format that this version writes and reads.
pub const FORMAT: u32 = 1;

/// Who a directory belongs to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The format of everything in the directory.
    pub format: u32,
    /// The cluster.
    pub cluster: String,
    /// The tablet's endpoint.
    pub endpoint: String,
    /// Drawn when the directory was made (R14).
    pub dir_uuid: String,
}

/// What must never go back.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fences {
    /// R14: the last incarnation known to be registered, those tried since, the own last.
    pub starts: Vec<Incarnation>,
    /// R20: the highest controller epoch that gave an order.
    pub controller: u64,
    /// R20: the highest Raft index of an order.
    pub decision: u64,
    /// R14: since the last registered run the process has stopped in another way than cleanly. One clean stop does not
    /// mend that: a run that came up after a power cut, could not register and was stopped cleanly proves nothing.
    pub unclean: bool,
}

/// A table of which partitions are here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Held {
    /// The table.
    pub table: Table,
    /// Its partitions here.
    pub pids: BTreeSet<PartitionId>,
}

/// The files of one tablet's directory.
#[derive(Clone)]
pub struct Files {
    disk: Disk,
    dir: PathBuf,
}

impl Files {
    /// The files in `dir`, which exists.
    #[must_use]
    pub fn new(disk: Disk, dir: PathBuf) -> Self {
        Self { disk, dir }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where snapshots of other tablets arrive.
    #[must_use]
    pub fn incoming_dir(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    /// Where the log is.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The disk under it.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Where is kept what was discarded.
    #[must_use]
    pub fn lost_and_found(&self) -> PathBuf {
        self.dir.join("lost+found")
    }

    /// Where the snapshots of all partitions are.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.dir.join("snapshots")
    }

    /// Where those of one are.
    #[must_use]
    pub fn snapshots_of(&self, key: PartitionKey) -> PathBuf {
        self.snapshots().join(key.to_string())
    }

    /// The directory's identity; `None` when it has none yet.
    ///
    /// # Errors
    /// The file cannot be read or is not ours.
    pub fn identity(&self) -> io::Result<Option<Identity>> {
        self.load(&self.dir.join("TABLET"))
    }

    /// Writes the identity of a new directory.
    ///
    /// # Errors
    /// The disk refused.
    pub fn create(&self, identity: &Identity) -> io::Result<()> {
        fs::create_dir_all(&self.disk, self.dir.join("tables"))?;
        fs::create_dir_all(&self.disk, self.lost_and_found())?;
        self.store(&self.dir.join("TABLET"), identity)
    }

    /// The fences; none were stored yet: default.
    ///
    /// # Errors
    /// The file cannot be read or is not ours.
    pub fn fences(&self) -> io::Result<Fences> {
        Ok(self.load(&self.dir.join("fences"))?.unwrap_or_default())
    }

    /// Makes the fences durable.
    ///
    /// # Errors
    /// The disk refused: the fence does not count.
    pub fn set_fences(&self, fences: &Fences) -> io::Result<()> {
        self.store(&self.dir.join("fences"), fences)
    }

    /// The tables of which partitions are here.
    ///
    /// # Errors
    /// The directory or a file cannot be read.
    pub fn tables(&self) -> io::Result<BTreeMap<TableId, Held>> {
        let mut tables = BTreeMap::new();
        for path in fs::read_dir(self.dir.join("tables"))? {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            let Ok(tid) = name.parse() else { continue };
            if let Some(held) = self.load::<Held>(&path)? {
                tables.insert(TableId(tid), held);
            }
        }
        Ok(tables)
    }

    /// Makes it durable that these partitions of the table are here.
    ///
    /// # Errors
    /// The disk refused.
    pub fn set_table(&self, held: &Held) -> io::Result<()> {
        self.store(&self.dir.join("tables").join(held.table.tid.to_string()), held)
    }

    /// Forgets a dropped table.
    ///
    /// # Errors
    /// The disk refused.
    pub fn remove_table(&self, tid: TableId) -> io::Result<()> {
        match fs::remove(&self.disk, self.dir.join("tables").join(tid.to_string())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Saves a tail that is about to be cut (R4), synced when it returns. Never overwrites an earlier one.
    ///
    /// # Errors
    /// The disk refused: the tail must not be cut.
    pub fn save_tail(
        &self,
        key: PartitionKey,
        epoch: Epoch,
        from: Offset,
        to: Offset,
        raw: &[u8],
    ) -> io::Result<PathBuf> {
        let dir = self.lost_and_found();
        fs::create_dir_all(&self.disk, &dir)?;
        let name = (0..u32::MAX)
            .map(|again| Name { key, epoch, first: from, last: to, again })
            .find(|name| !fs::exists(dir.join(name.to_string())))
            .ok_or_else(|| io::Error::other("lost+found is full of its like"))?;
        let path = dir.join(name.to_string());
        fs::replace(&self.disk, &path, raw)?;
        Ok(path)
    }

    /// The tails that were set aside, by name.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn tails(&self) -> io::Result<Vec<Name>> {
        let paths = match fs::read_dir(self.lost_and_found()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            paths => paths?,
        };
        let name = |path: PathBuf| Name::parse(path.file_name()?.to_str()?);
        let mut names: Vec<Name> = paths.into_iter().filter_map(name).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a tail that was set aside.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn tail(&self, name: Name) -> io::Result<Tail> {
        Tail::open(&self.disk, &self.lost_and_found(), name)
    }

    fn load<T: for<'a> Deserialize<'a>>(&self, path: &Path) -> io::Result<Option<T>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        };
        parse(&bytes).map(Some).map_err(|why| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} is damaged: {why}", path.display()),
            )
        })
    }

    fn store(&self, path: &Path, value: &impl Serialize) -> io::Result<()> {
        let mut object = serde_json::to_value(value).map_err(io::Error::other)?;
        let sum = sum(&object).map_err(io::Error::other)?;
        if let Some(fields) = object.as_object_mut() {
            fields.insert(SUM.into(), sum.into());
        }
        let bytes = serde_json::to_vec_pretty(&object).map_err(io::Error::other)?;
        fs::replace(&self.disk, path, &bytes)
    }
}

/// The field of each file that holds the checksum of the others.
const SUM: &str = "crc32c";

fn sum(object: &serde_json::Value) -> serde_json::Result<String> {
    Ok(format!("{:08x}", crc32c::crc32c(&serde_json::to_vec(object)?)))
}

/// What a file says, if it is what was written: JSON alone would take one digit for another.
fn parse<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T, String> {
    let mut object: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let stored = object.as_object_mut().and_then(|fields| fields.remove(SUM));
    let stored = stored.ok_or("it has no checksum")?;
    if stored.as_str() != Some(&sum(&object).map_err(|e| e.to_string())?) {
        return Err("its checksum is not that of its content".into());
    }
    serde_json::from_value(object).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fences() -> Fences {
        let starts = vec![Incarnation(7), Incarnation(u64::MAX)];
        Fences { starts, controller: 12, decision: 345, unclean: false }
    }

    /// Found by drill D13, seed 2: a bit of the fences was flipped, and the tablet started with what they said then.
    #[test]
    fn d13_no_flipped_bit_makes_other_fences() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(Disk::real(), dir.path().to_owned());
        files.set_fences(&fences()).unwrap();
        assert_eq!(files.fences().unwrap(), fences());
        let path = dir.path().join("fences");
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            let read = files.fences().map_err(|e| e.to_string());
            assert!(read.as_ref().is_err_and(|e| e.contains("damaged")), "bit {bit}: {read:?}");
        }
        fs::write(&path, serde_json::to_vec(&fences()).unwrap()).unwrap();
        assert!(files.fences().unwrap_err().to_string().contains("no checksum"));
    }
}
