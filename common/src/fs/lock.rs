//! One process per data directory.

use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// A directory is ours while this lives. The kernel frees it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: std::fs::File,
    dir: PathBuf,
}

impl DirLock {
    /// The locked directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Why a directory could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be created or written.
    #[error("data directory {} is not writable: {source}; check its owner and that the disk is mounted", dir.display())]
    Unwritable {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has it.
    #[error("data directory {} is locked by {}; stop that process, or give this one another directory", dir.display(), holder(*pid))]
    Held {
        /// The directory.
        dir: PathBuf,
        /// The process that has it, if it has told.
        pid: Option<u32>,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// Whether [`lock_dir`] will be able to create and write `dir`. What it makes to find out is gone when it returns.
pub fn check_writable(dir: &Path) -> Result<(), LockError> {
    let unwritable = |source| LockError::Unwritable { dir: dir.to_owned(), source };
    let absent: Vec<&Path> =
        dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    let tried = std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::write(&probe, []))
        .and_then(|()| std::fs::remove_file(&probe));
    for made in absent {
        // Of what could not be made nothing is there; a directory that somebody uses meanwhile stays.
        let _ = std::fs::remove_dir(made);
    }
    tried.map_err(unwritable)
}

/// Creates `dir` if absent and locks it (file `LOCK`, which names the process).
pub fn lock_dir(dir: &Path) -> Result<DirLock, LockError> {
    let unwritable = |source| LockError::Unwritable { dir: dir.to_owned(), source };
    super::create_dir_all(&super::Disk::real(), dir).map_err(unwritable)?;
    let path = dir.join("LOCK");
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(unwritable)?;
    if let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        let error = io::Error::from(error);
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(unwritable(error));
        }
        let mut text = String::new();
        let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
        return Err(LockError::Held { dir: dir.to_owned(), pid });
    }
    let named = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    named.map_err(unwritable)?;
    Ok(DirLock { _file: file, dir: dir.to_owned() })
}
