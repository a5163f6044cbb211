//! The part of a snapshot that has arrived, in a file of its own:
//!
//! ```text
//! incoming/<tid>_<pid>_<creation>_<snapshot>_<bytes in all>.part
//! ```
//!
//! The name says what it is a part of, its length how much is there: so it goes on in another run of the process. A power
//! cut may leave bytes that were never written; the checksums of the whole file tell, and it begins anew.

use std::io;
use std::path::{Path, PathBuf};

use stela_common::fs::{self, Disk, File, Why};
use stela_common::ids::PartitionKey;

/// Bytes that wait for the disk, at most: so that the last sync is short.
const DIRTY: u64 = 16 << 20;
/// Bytes that a snapshot leaves free on the disk: the log must not run full of what is to help it.
const RESERVE: u64 = 256 << 20;

/// A file in the making.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    id: u64,
    total: u64,
    len: u64,
    synced: u64,
}

fn name(key: PartitionKey, created: u64, id: u64, total: u64) -> String {
    format!("{key}_{created}_{id:016x}_{total}.part")
}

/// Partition, creation, snapshot, bytes in all.
fn parse(path: &Path) -> Option<(PartitionKey, u64, u64, u64)> {
    let mut words = path.file_name()?.to_str()?.strip_suffix(".part")?.split('_');
    let key = PartitionKey::new(words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let created = words.next()?.parse().ok()?;
    let id = u64::from_str_radix(words.next()?, 16).ok()?;
    let total = words.next()?.parse().ok()?;
    words.next().is_none().then_some((key, created, id, total))
}

impl Part {
    /// What has arrived for this partition so far.
    pub(super) fn find(
        disk: &Disk,
        dir: &Path,
        key: PartitionKey,
        created: u64,
    ) -> io::Result<Option<Self>> {
        if !fs::exists(dir) {
            return Ok(None);
        }
        let mut found = None;
        for path in fs::read_dir(dir)? {
            let Some((of, creation, id, total)) = parse(&path) else { continue };
            if of != key {
                continue;
            }
            let file = disk.open_write(&path)?;
            let len = file.len()?;
            if found.is_some() || creation != created || len > total {
                fs::remove(disk, &path)?;
                continue;
            }
            found = Some(Self { path, file, id, total, len, synced: 0 });
        }
        Ok(found)
    }

    /// Begins a file, in place of what there is of this partition.
    pub(super) fn begin(
        disk: &Disk,
        dir: &Path,
        key: PartitionKey,
        created: u64,
        (id, total): (u64, u64),
    ) -> io::Result<Self> {
        fs::create_dir_all(disk, dir)?;
        remove(disk, dir, |of| of == key)?;
        let (free, _) = fs::free_bytes(dir)?;
        if total.saturating_add(RESERVE) > free {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                format!(
                    "it has {total} bytes, and of the {free} bytes that are free {RESERVE} are kept for the log: make room"
                ),
            ));
        }
        let path = dir.join(name(key, created, id, total));
        let file = disk.create_new(&path)?;
        disk.sync_dir(dir, Why::Replace)?;
        Ok(Self { path, file, id, total, len: 0, synced: 0 })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn is_whole(&self) -> bool {
        self.len == self.total
    }

    /// The next bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > self.total - self.len {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more arrives than there is"));
        }
        self.file.write_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        if self.len - self.synced >= DIRTY {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync(Why::Replace)?;
        self.synced = self.len;
        Ok(())
    }

    /// All is there, and on disk: where it is.
    pub(super) fn finish(mut self) -> io::Result<PathBuf> {
        self.sync()?;
        Ok(self.path)
    }
}

/// Removes what has arrived of these partitions.
pub(super) fn remove(disk: &Disk, dir: &Path, of: impl Fn(PartitionKey) -> bool) -> io::Result<()> {
    if !fs::exists(dir) {
        return Ok(());
    }
    for path in fs::read_dir(dir)? {
        if parse(&path).is_some_and(|(key, ..)| of(key)) {
            fs::remove(disk, &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey = PartitionKey::new(7, 1);

    #[test]
    fn goes_on_where_it_ended_and_only_for_the_same_creation() {
        let home = tempfile::tempdir().unwrap();
        let (disk, dir) = (Disk::real(), home.path().join("incoming"));
        assert!(Part::find(&disk, &dir, KEY, 3).unwrap().is_none());
        let mut part = Part::begin(&disk, &dir, KEY, 3, (0xab, 6)).unwrap();
        part.append(b"snap").unwrap();
        drop(part);
        let other = PartitionKey::new(7, 11);
        drop(Part::begin(&disk, &dir, other, 3, (1, 6)).unwrap());

        let mut part = Part::find(&disk, &dir, KEY, 3).unwrap().unwrap();
        assert_eq!((part.id(), part.total(), part.len()), (0xab, 6, 4));
        part.append(b"s!").unwrap();
        assert!(part.is_whole());
        assert_eq!(part.append(b"?").unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(fs::read(part.finish().unwrap()).unwrap(), b"snaps!");

        drop(Part::begin(&disk, &dir, KEY, 3, (2, 9)).unwrap());
        assert_eq!(fs::read_dir(&dir).unwrap().len(), 2, "in place of the one before");
        assert!(Part::find(&disk, &dir, KEY, 4).unwrap().is_none(), "another creation");
        assert!(Part::find(&disk, &dir, KEY, 3).unwrap().is_none(), "and so it is gone");
        assert!(Part::find(&disk, &dir, other, 3).unwrap().is_some());
    }

    #[test]
    fn what_does_not_fit_is_not_begun() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("incoming");
        let error = Part::begin(&Disk::real(), &dir, KEY, 3, (1, u64::MAX)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        assert!(error.to_string().contains("make room"), "{error}");
        assert!(fs::read_dir(&dir).unwrap().is_empty());
    }
}
