//! The snapshot: one ordinary file, `snapshot`, that holds the whole state at one entry.
//!
//! ```text
//! "STELASNP" | format u32 | length of meta u32 | length of body u64 | crc32c over meta and body u32 | crc32c of these u32
//! meta: raft.proto SnapshotMeta | body: the state, msgpack by field names
//! ```
//!
//! **Invariants**
//! * The file is replaced whole and is on disk before the library hears of it; it is read back and verified before
//!   anything that it stands for is given up (R28).
//! * It never goes back: an older build that ends late does not replace a newer one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use prost::Message as _;
use stela_common::fs::{self, Disk};
use stela_proto::raft as pb;

use super::codec;
use super::types::{Image, SnapshotMeta};
use crate::error::StartError;

const MAGIC: &[u8; 8] = b"STELASNP";
const FORMAT: u32 = 1;
const HEADER: usize = 8 + 4 + 4 + 8 + 4 + 4;
/// The name of the file.
const FILE: &str = "snapshot";

/// The snapshot of this directory. A clone is the same.
#[derive(Clone)]
pub struct Snapshots {
    path: Arc<PathBuf>,
    current: Arc<Mutex<Option<SnapshotMeta>>>,
}

/// Why a snapshot could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk.
    #[error("snapshot {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what was written.
    #[error("snapshot {} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer version.
    #[error("snapshot {} has format {found}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Snapshots {
    /// The one of `dir`, and what it holds. One that is damaged is moved aside, never deleted.
    ///
    /// # Errors
    /// A newer format, or the disk.
    pub fn open(dir: &Path) -> Result<(Self, Option<(SnapshotMeta, Image)>), StartError> {
        let path = dir.join(FILE);
        let found = match read(&path) {
            Ok(found) => Some(found),
            Err(ReadError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                None
            }
            Err(ReadError::Io { path, source }) => return Err(StartError::io(path)(source)),
            Err(ReadError::Newer { path, found }) => {
                return Err(StartError::Newer { path, found, known: FORMAT });
            }
            Err(error @ ReadError::Damaged { .. }) => {
                let aside = move_aside(&path)?;
                tracing::warn!(%error, aside = %aside.display(), "the snapshot was moved aside");
                None
            }
        };
        let current = found.as_ref().map(|(meta, _)| meta.clone());
        Ok((Self { path: Arc::new(path), current: Arc::new(Mutex::new(current)) }, found))
    }

    /// What the current one holds.
    #[must_use]
    pub fn meta(&self) -> Option<SnapshotMeta> {
        self.current.lock().clone()
    }

    /// Makes it the current one, unless there is a newer one: on disk and verified when this returns.
    ///
    /// # Errors
    /// The disk's, or what was read back is not what was written.
    pub fn store(&self, meta: &SnapshotMeta, image: &Image) -> std::io::Result<()> {
        let mut current = self.current.lock();
        if current.as_ref().is_some_and(|c| c.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let bytes = encode(meta, &image.bytes);
        fs::replace(&Disk::real(), self.path.as_path(), &bytes)?;
        let back = read(&self.path).map_err(std::io::Error::other)?;
        if back.0 != *meta || back.1.bytes != image.bytes {
            return Err(std::io::Error::other(
                "the snapshot that was written is not what is read back",
            ));
        }
        *current = Some(meta.clone());
        Ok(())
    }

    /// The current one, read from disk.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn load(&self) -> Result<Option<(SnapshotMeta, Image)>, ReadError> {
        let current = self.current.lock();
        if current.is_none() { Ok(None) } else { read(&self.path).map(Some) }
    }
}

/// Refuses a directory whose snapshot is of a newer format, before anything in it is changed.
///
/// # Errors
/// It is, or it cannot be read.
pub fn refuse_newer(dir: &Path) -> Result<(), StartError> {
    let path = dir.join(FILE);
    match read(&path) {
        Err(ReadError::Newer { path, found }) => {
            Err(StartError::Newer { path, found, known: FORMAT })
        }
        Err(ReadError::Io { path, source }) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StartError::io(path)(source))
        }
        _ => Ok(()),
    }
}

/// Renames `path` to a free name beside it, `<name>.bad-<n>`, durably.
pub fn move_aside(path: &Path) -> Result<PathBuf, StartError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let aside = (1..u32::MAX)
        .map(|n| path.with_file_name(format!("{name}.bad-{n}")))
        .find(|p| !fs::exists(p));
    let aside = aside.unwrap_or_else(|| path.with_file_name(format!("{name}.bad")));
    let dir = path.parent().unwrap_or(path);
    fs::rename(path, &aside).and_then(|()| fs::sync_dir(dir)).map_err(StartError::io(path))?;
    Ok(aside)
}

fn encode(meta: &SnapshotMeta, body: &Bytes) -> Bytes {
    let meta = codec::snapshot_meta(meta).encode_to_vec();
    let mut out = BytesMut::with_capacity(HEADER + meta.len() + body.len());
    out.put_slice(MAGIC);
    out.put_u32_le(FORMAT);
    out.put_u32_le(u32::try_from(meta.len()).unwrap_or(u32::MAX));
    out.put_u64_le(body.len() as u64);
    out.put_u32_le(crc32c::crc32c_append(crc32c::crc32c(&meta), body));
    let crc = crc32c::crc32c(&out);
    out.put_u32_le(crc);
    out.put_slice(&meta);
    out.put_slice(body);
    out.freeze()
}

fn read(path: &Path) -> Result<(SnapshotMeta, Image), ReadError> {
    let damaged = |what| ReadError::Damaged { path: path.to_owned(), what };
    let bytes = fs::read(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
    let mut bytes = Bytes::from(bytes);
    if bytes.len() < HEADER || &bytes[..8] != MAGIC {
        return Err(damaged("it does not begin like a snapshot"));
    }
    let header = bytes.split_to(HEADER);
    let mut fields = &header[8..];
    let found = fields.get_u32_le();
    if found > FORMAT {
        return Err(ReadError::Newer { path: path.to_owned(), found });
    }
    let (meta_len, body_len, crc) =
        (fields.get_u32_le() as usize, fields.get_u64_le(), fields.get_u32_le());
    if fields.get_u32_le() != crc32c::crc32c(&header[..HEADER - 4]) {
        return Err(damaged("checksum of the header"));
    }
    if bytes.len() as u64 != (meta_len as u64).saturating_add(body_len)
        || crc32c::crc32c(&bytes) != crc
    {
        return Err(damaged("length or checksum"));
    }
    let meta = pb::SnapshotMeta::decode(bytes.split_to(meta_len)).map_err(|_| damaged("meta"))?;
    let meta = codec::snapshot_meta_of(&meta).map_err(|_| damaged("meta"))?;
    Ok((meta, Image { bytes, state: None }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: Some(openraft::LogId::new(CommittedLeaderId::new(1, 1), index)),
            snapshot_id: format!("s{index}"),
            ..Default::default()
        }
    }

    #[test]
    fn it_never_goes_back_and_a_damaged_one_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let (s, found) = Snapshots::open(dir.path()).unwrap();
        assert!(found.is_none() && s.load().unwrap().is_none());
        let image =
            |text: &'static str| Image { bytes: Bytes::from_static(text.as_bytes()), state: None };
        s.store(&meta(5), &image("five")).unwrap();
        s.store(&meta(4), &image("four")).unwrap();
        let (s, found) = Snapshots::open(dir.path()).unwrap();
        assert_eq!(found.unwrap().1.bytes, "five");
        assert_eq!(s.meta(), Some(meta(5)));
        let path = dir.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (_, found) = Snapshots::open(dir.path()).unwrap();
        assert!(found.is_none());
        assert!(fs::exists(dir.path().join("snapshot.bad-1")) && !fs::exists(&path));
    }
}
