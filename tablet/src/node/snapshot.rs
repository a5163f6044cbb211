//! Making a snapshot while its partition is read and written.
//!
//! It is made of a store of its own: the snapshot before and the entries up to the commit offset of the moment when it
//! began (R28), read from the log without the node's lock. When the file is on disk and has been read back, it is
//! loaded, what was committed meanwhile is added to that, and the result takes the place of the live store. Only then
//! the file before goes. Whatever fails, the live store has not noticed.
//!
//! **Invariants**
//! * None while they are paused, but of a copy that is not whole and keeps the log too long (R29).
//! * One at a time: memory doubles for one partition only.
//! * While one is made, nothing is cut that is in it ([`Partition::making`]): a file that has its name is right.

use std::io;
use std::path::Path;
use std::sync::Arc;

use stela_common::clock::wall_ms;
use stela_common::code::{Code, Refusal};
use stela_common::fs;
use stela_common::ids::{Offset, PartitionKey};
use stela_common::table::Table;

use stela_replica::message::Input;

use super::{Inner, Node};
use crate::partition::Partition;
use crate::snapshot::write::Writer;
use crate::snapshot::{Header, Snapshot, files};
use crate::store::dedup::Dedup;
use crate::store::places::Places;
use crate::store::replay::Source;
use crate::store::{Applied, Store};

/// So many entries are applied in one critical section, at most.
const AT_ONCE: u64 = 256;

/// Why a snapshot was not made.
#[derive(Debug, thiserror::Error)]
pub enum Unmade {
    /// The partition is not here, or not whole.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The disk refused, or what should be on it is not.
    #[error(transparent)]
    Disk(#[from] io::Error),
    /// Entries cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The tablet stops, or the partition has changed in a way that makes it void.
    #[error("it was given up: {0}")]
    GivenUp(&'static str),
}

impl From<Unmade> for Refusal {
    fn from(unmade: Unmade) -> Self {
        match unmade {
            Unmade::Refused(refusal) => refusal,
            Unmade::Disk(e) if e.kind() == io::ErrorKind::StorageFull => {
                Self::new(Code::DiskFull, format!("no snapshot was made: {e}"))
            }
            other => Self::new(Code::WriteDataFailed, format!("no snapshot was made: {other}")),
        }
    }
}

/// What is to be made, as it was when it began.
struct Plan {
    header: Header,
    table: Arc<Table>,
    below: Option<Arc<Snapshot>>,
    places: Places,
    rebuilt: u64,
    /// What has expired is left out.
    expires: bool,
}

/// Ends the making however it ends.
struct Making<'a> {
    node: &'a Node,
    key: PartitionKey,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(p) = self.node.look().partitions.get_mut(&self.key) {
            p.making = None;
            p.making_now = false;
        }
    }
}

impl Node {
    /// Makes a snapshot of a partition; returns the last entry that is in it, 0 if there is none yet.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn make_snapshot(self: &Arc<Self>, key: PartitionKey) -> Result<Offset, Refusal> {
        let _one = self.snapshots.lock().await;
        let node = self.clone();
        let made = tokio::task::spawn_blocking(move || node.make(key, false)).await;
        let made = made.unwrap_or_else(|e| Err(Unmade::Unreadable(e.to_string())));
        made.inspect_err(|e| tracing::warn!(%key, error = %e, "no snapshot was made"))
            .map_err(Into::into)
    }

    /// The same on this thread; of a copy that is not whole only if that is asked for: then of what it has.
    pub(super) fn make(&self, key: PartitionKey, damaged: bool) -> Result<Offset, Unmade> {
        let Some(plan) = self.plan(key, damaged)? else { return Ok(Offset(0)) };
        let making = Making { node: self, key };
        let (offset, began) = (plan.header.offset, std::time::Instant::now());
        let path = files::local(&self.files.snapshots_of(key), plan.header.replay_from, offset);
        let aside = files::aside(&path);
        let made = self
            .write_snapshot(key, &plan, &aside, &path)
            .and_then(|snapshot| self.switch(key, &plan, snapshot));
        if let Err(why) = made {
            // Best effort: the next start removes it too.
            let _ = self.files.disk().remove_file(&aside);
            let before = plan.below.as_ref().map(|s| s.path());
            if before != Some(path.as_path())
                && fs::exists(&path)
                && let Err(error) = fs::remove(self.files.disk(), &path)
            {
                tracing::error!(%key, %error, "a snapshot that is not in force cannot be removed");
                // It may be there after a crash, so what is in it stays in force.
                if let Some(p) = self.look().partitions.get_mut(&key) {
                    p.making_now = false;
                }
                std::mem::forget(making);
            }
            return Err(why);
        }
        // From here on nothing of it can be cut: while it was made the shell saw to that.
        self.act(|inner, work| self.step(inner, work, key, Input::Snapshot(offset), &[]));
        self.retire(key, Some(&path));
        tracing::info!(%key, %offset, ms = began.elapsed().as_millis(), "a snapshot was made");
        Ok(offset)
    }

    /// Removes what a snapshot that is in force has replaced.
    pub(crate) fn retire(&self, key: PartitionKey, keep: Option<&Path>) {
        let dir = self.files.snapshots_of(key);
        if let Err(error) = files::retire(self.files.disk(), &dir, keep) {
            tracing::warn!(%key, %error, "an old snapshot cannot be removed; the next one tries again");
        }
    }

    fn go_on(&self) -> Result<(), Unmade> {
        if self.stop.is_cancelled() { Err(Unmade::GivenUp("the tablet stops")) } else { Ok(()) }
    }

    fn plan(&self, key: PartitionKey, damaged: bool) -> Result<Option<Plan>, Unmade> {
        let mut inner = self.look();
        let uncleans = |p: &Partition| p.core.view().map_or(0, |v| v.uncleans);
        let p = inner.partitions.get_mut(&key).ok_or(Refusal::from(Code::TableNotFound))?;
        if p.quarantine.is_some() && !damaged {
            return Err(Refusal::from(Code::Quarantined).into());
        }
        if let Some(loading) = &p.loading {
            return Err(loading.refusal().into());
        }
        // A copy that is not whole and keeps the log too long is moved out of it all the same.
        if p.paused && !damaged {
            let text = "snapshots of the table are paused: use recoversnapshot";
            return Err(Refusal::new(Code::TableNotNormal, text).into());
        }
        // R28. A table may show what is not committed.
        let offset = p.applied.min(p.core.commit());
        if offset == Offset(0) || offset < p.store.base() {
            return Ok(None);
        }
        let replay_from = if p.last() > offset {
            p.place(&self.log, key, offset.next()).map_err(Unmade::Unreadable)?
        } else {
            // Every append is made under this lock: nothing of the partition is in the log that is not known here.
            self.log.end()
        };
        let mut epochs = p.epochs.clone();
        epochs.truncate(offset);
        let table = p.store.table().clone();
        (p.making, p.making_now) = (Some(offset), true);
        Ok(Some(Plan {
            header: Header {
                id: rand::random(),
                key,
                created_index: table.created_index,
                offset,
                last_epoch: epochs.epoch_at(offset),
                epoch: p.epoch,
                epochs,
                dedup: Default::default(),
                replay_from,
                uncleans: uncleans(p),
                damaged: p.quarantine.clone(),
                values_end: 0,
                indexes: Vec::new(),
            },
            table,
            below: p.store.snapshot().cloned(),
            places: p.places.clone(),
            rebuilt: p.rebuilt,
            expires: p.store.expires(),
        }))
    }

    /// Writes the file, and gives it its name when it has been read back.
    fn write_snapshot(
        &self,
        key: PartitionKey,
        plan: &Plan,
        aside: &Path,
        path: &Path,
    ) -> Result<Arc<Snapshot>, Unmade> {
        let go_on = || self.go_on().is_ok();
        let disk = self.files.disk();
        let (mut store, mut dedup) = match &plan.below {
            Some(below) => {
                // What has rotted since it was opened must not get a new checksum.
                below.verify()?;
                let dedup = Dedup::from(&below.header().dedup);
                (Store::load(plan.table.clone(), below.clone())?, dedup)
            }
            None => (Store::new(plan.table.clone()), Dedup::default()),
        };
        store.set_expires(plan.expires);
        let source = Source { log: &self.log, places: &plan.places, key };
        let (from, to) = (store.base().next(), plan.header.offset);
        source
            .replay(from, to, &mut store, Some(&mut dedup), &go_on)
            .map_err(Unmade::Unreadable)?;
        self.go_on()?;

        fs::create_dir_all(disk, self.files.snapshots_of(key))?;
        if fs::exists(aside) {
            disk.remove_file(aside)?;
        }
        let mut writer = Writer::create(disk, aside, self.config.data_format)?;
        store.save(&self.log, &mut writer, wall_ms(), &go_on)?;
        drop(store);
        let header = Header { dedup: dedup.remembered(), ..plan.header.clone() };
        writer.finish(header.clone())?;
        let mut snapshot = Snapshot::open(disk, aside)?;
        let found = snapshot.header();
        if (found.id, found.offset, &found.dedup) != (header.id, header.offset, &header.dedup) {
            return Err(snapshot.invalid("it does not say what was written").into());
        }
        self.go_on()?;
        files::publish(disk, aside, path)?;
        snapshot.renamed(path.to_owned());
        Ok(Arc::new(snapshot))
    }

    /// The new snapshot and what was committed since take the place of the live store.
    fn switch(
        &self,
        key: PartitionKey,
        plan: &Plan,
        snapshot: Arc<Snapshot>,
    ) -> Result<(), Unmade> {
        let replay_from = snapshot.header().replay_from;
        let mut store = Store::load(plan.table.clone(), snapshot)?;
        let mut have = store.base();
        loop {
            let (places, to) = {
                let mut inner = self.look();
                let p = current(&mut inner, key, plan)?;
                // What is readable there names no other indexes.
                store.set_table(p.store.table().clone());
                if p.applied.0.saturating_sub(have.0) <= AT_ONCE {
                    while have < p.applied {
                        have = have.next();
                        let at = p.place(&self.log, key, have).map_err(Unmade::Unreadable)?;
                        let record = self.log.read(at).map_err(io::Error::other)?;
                        let applied = store.apply(&self.log, at, record.body());
                        if applied.map_err(Unmade::Unreadable)? == Applied::NotYet {
                            return Err(Unmade::GivenUp(
                                "an entry names an index that is not there",
                            ));
                        }
                    }
                    let first = store.base().next();
                    let replay_from = match p.last() >= first {
                        true => p.place(&self.log, key, first).map_err(Unmade::Unreadable)?,
                        false => replay_from,
                    };
                    let before = p.switch(store, replay_from);
                    inner.touch(key);
                    drop(inner);
                    drop(before);
                    return Ok(());
                }
                (p.places.clone(), p.applied)
            };
            let source = Source { log: &self.log, places: &places, key };
            let go_on = || self.go_on().is_ok();
            have = source
                .replay(have.next(), to, &mut store, None, &go_on)
                .map_err(Unmade::Unreadable)?;
            self.go_on()?;
        }
    }
}

/// The replica that the plan is about, if nothing of it was taken back since.
fn current<'a>(
    inner: &'a mut Inner,
    key: PartitionKey,
    plan: &Plan,
) -> Result<&'a mut Partition, Unmade> {
    let p = inner.partitions.get_mut(&key).ok_or(Refusal::from(Code::TableNotFound))?;
    if p.rebuilt != plan.rebuilt || p.quarantine.is_some() != plan.header.damaged.is_some() {
        return Err(Unmade::GivenUp("entries were taken back, or the copy is not whole any more"));
    }
    Ok(p)
}
