//! A leader's snapshot takes the place of a copy that is damaged or too far behind (R26).
//!
//! In this order, so that a crash at any moment leaves the old copy or the new one: the file is durable under its name;
//! the replica stands still; its entries beyond what it has in common with the leader are in `lost+found`; the
//! `Installed` record is synced; store, request ids, epochs, places and core are made anew; the files before go, to
//! `lost+found` if there is something in them that the leader does not have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::fs::{self, Why};
use stela_common::ids::{Offset, PartitionKey};
use stela_common::log::{AppendError, Kind, NewRecord, Position};
use stela_common::table::Table;

use super::Node;
use super::snapshot::Unmade;
use crate::partition::Partition;
use crate::snapshot::{Header, Snapshot, files};
use crate::store::Store;

/// Longer than anything takes: until the installation says otherwise.
const STILL: u64 = u64::MAX;
/// While a core asks its leader anew it does not await a snapshot; so long it may take until it does again, ms.
const ASKED: u64 = 3000;
const AGAIN: Duration = Duration::from_millis(10);

/// Lets a replica that stands still go on, however this ends.
struct Still<'a> {
    node: &'a Node,
    key: PartitionKey,
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        let mut inner = self.node.look();
        if let Some(s) = inner.partitions.get_mut(&self.key).and_then(|p| p.suspended.as_mut()) {
            s.until = Millis::now();
        }
    }
}

impl Node {
    /// Puts a leader's snapshot, a file on the disk of this tablet's directory that becomes its own, in the place of what
    /// is here of the partition. `common` is the last entry that both have, as far as that is known; entries beyond are
    /// saved, or those beyond the commit offset where it is not. `may` says of the replica whether it may give up what it
    /// has, at the moment from which on it does nothing more with that.
    ///
    /// # Errors
    /// It is of another partition, table or creation, is not whole, may not be installed now, or the disk refused: the
    /// copy that was here is as it was. The file is where it was, unless something is wrong with it.
    pub async fn install_snapshot(
        self: &Arc<Self>,
        key: PartitionKey,
        file: PathBuf,
        common: Option<Offset>,
        may: fn(&Partition) -> bool,
    ) -> Result<Offset, Refusal> {
        let _one = self.snapshots.lock().await;
        let node = self.clone();
        let done = tokio::task::spawn_blocking(move || node.install(key, &file, common, may)).await;
        let done = done.unwrap_or_else(|e| Err(Unmade::Unreadable(e.to_string())));
        done.inspect_err(
            |e| tracing::warn!(%key, error = %e, "a leader's snapshot is not installed"),
        )
        .map_err(Into::into)
    }

    fn install(
        &self,
        key: PartitionKey,
        file: &Path,
        common: Option<Offset>,
        may: fn(&Partition) -> bool,
    ) -> Result<Offset, Unmade> {
        let disk = self.files.disk();
        let mut snapshot = Snapshot::open(disk, file)?;
        let table = self.fits(key, &snapshot)?;
        let dir = self.files.snapshots_of(key);
        fs::create_dir_all(disk, &dir)?;
        let path = files::installed(&dir, snapshot.header().id);
        disk.open_write(file)?.sync(Why::Replace)?;
        files::publish(disk, file, &path)?;
        snapshot.renamed(path.clone());
        let snapshot = Arc::new(snapshot);
        let mut store = Store::load(table, snapshot.clone()).inspect_err(|_| {
            // Best effort: nothing says that it is in force, and the next one that is removes it.
            let _ = fs::remove(disk, &path);
        })?;

        let _still = Still { node: self, key };
        let noted = self.give_up_copy(key, snapshot.header(), common, may).and_then(|common| {
            let (at, end) = self.note_installed(key, &snapshot)?;
            Ok((common, at, end))
        });
        let (common, at, end) = noted.inspect_err(|_| {
            // Best effort, as above; it could be installed at another time.
            let _ = files::publish(disk, &path, file);
        })?;
        self.await_synced(end)?;
        let before = {
            let mut inner = self.look();
            let Some(p) = inner.partitions.get_mut(&key) else {
                return Err(Refusal::from(Code::TableNotFound).into());
            };
            store.set_table(p.store.table().clone());
            let before = p.installed(store, &snapshot, at);
            inner.touch(key);
            before
        };
        drop(before);
        self.report.notify_one();
        let offset = snapshot.header().offset;
        tracing::info!(%key, %offset, "a leader's snapshot is installed");
        match self.put_away(key, &path, common) {
            Ok(()) => self.retire(key, Some(&path)),
            Err(error) => tracing::warn!(%key, %error, "files of the copy before stay"),
        }
        Ok(offset)
    }

    /// From the moment at which it may, the replica stands still, and what it has beyond the common point, which is
    /// returned, is saved.
    fn give_up_copy(
        &self,
        key: PartitionKey,
        new: &Header,
        common: Option<Offset>,
        may: fn(&Partition) -> bool,
    ) -> Result<Offset, Unmade> {
        let until = Millis::now().plus(ASKED);
        let (common, beyond) = loop {
            let mut inner = self.look();
            let p = inner.partitions.get(&key).ok_or(Refusal::from(Code::TableNotFound))?;
            if p.core.leads() && p.suspended.is_none() {
                return Err(Refusal::from(Code::TableIsLeader).into());
            }
            if !may(p) {
                drop(inner);
                if Millis::now() > until || self.stop.is_cancelled() {
                    return Err(Unmade::GivenUp("the replica does not wait for a snapshot"));
                }
                std::thread::sleep(AGAIN);
                continue;
            }
            let common = common.unwrap_or_else(|| p.applied.min(p.core.commit()));
            let beyond = match p.quarantine {
                // What of it can be read is not known.
                Some(_) => Some(self.log.start()),
                None => p.needs().filter(|_| p.last() > common),
            };
            self.stand_still(&mut inner, key, STILL);
            break (common, beyond);
        };
        if let Some(from) = beyond {
            // The same offset and epoch are the same entry.
            let there =
                |offset, epoch| offset <= new.offset && new.epochs.epoch_at(offset) == epoch;
            self.move_out(key, from, |offset, epoch| offset > common && !there(offset, epoch))?;
        }
        Ok(common)
    }

    /// The table of the partition, if the snapshot is one of it.
    fn fits(&self, key: PartitionKey, snapshot: &Snapshot) -> Result<Arc<Table>, Unmade> {
        let inner = self.look();
        let p = inner.partitions.get(&key).ok_or(Refusal::from(Code::TableNotFound))?;
        let (header, table) = (snapshot.header(), p.store.table());
        if header.key != key {
            return Err(snapshot.invalid(&format!("it is of partition {}", header.key)).into());
        }
        if header.created_index != table.created_index {
            return Err(snapshot.invalid("it is of another creation of the table").into());
        }
        if header.indexes.len() > table.indexes.len() {
            return Err(Unmade::GivenUp("this replica has not been told of an index that it has"));
        }
        if let Some(why) = &header.damaged {
            return Err(snapshot.invalid(&format!("its copy was damaged: {why}")).into());
        }
        Ok(table.clone())
    }

    /// Writes the record by which the snapshot takes effect; returns where it stands and ends.
    fn note_installed(
        &self,
        key: PartitionKey,
        snapshot: &Snapshot,
    ) -> Result<(Position, Position), Unmade> {
        let header = snapshot.header();
        let record = NewRecord {
            kind: Kind::Installed,
            partition: key,
            offset: header.offset,
            epoch: header.last_epoch,
            commit_lag: 0,
            body: &[&header.id.to_le_bytes()],
        };
        // Every append is made under the node's lock.
        let inner = self.look();
        if !inner.partitions.contains_key(&key) {
            return Err(Refusal::from(Code::TableNotFound).into());
        }
        let appended = self.log.append(&[record]).map_err(|e| match e {
            AppendError::Io(e) => Unmade::Disk(e),
            e => Unmade::Unreadable(e.to_string()),
        })?;
        let at = appended.positions.first().copied().unwrap_or_default();
        Ok((at, appended.end))
    }

    fn await_synced(&self, end: Position) -> Result<(), Unmade> {
        let mut synced = self.log.watch_synced();
        let runtime = tokio::runtime::Handle::current();
        match runtime.block_on(synced.wait_for(|to| *to >= end)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Unmade::GivenUp("the log has ended")),
        }
    }

    /// Files that have entries beyond the common point are kept: nobody else may have those.
    fn put_away(&self, key: PartitionKey, keep: &Path, common: Offset) -> Result<(), Unmade> {
        let disk = self.files.disk();
        for path in files::others(&self.files.snapshots_of(key), Some(keep))? {
            // One that cannot be read may hold anything.
            let offset = Snapshot::open(disk, &path).map(|s| s.header().offset);
            if offset.is_ok_and(|offset| offset <= common) {
                continue;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let kept = self.files.lost_and_found().join(format!("{key}_{name}"));
            fs::create_dir_all(disk, self.files.lost_and_found())?;
            files::publish(disk, &path, &kept)?;
            tracing::warn!(%key, file = %kept.display(), "a snapshot with entries that the leader does not have was set aside");
        }
        Ok(())
    }
}
