//! [`Disk`] and [`File`]: the seam between what must be durable and the operating system.
//!
//! **Invariants**
//! * The real disk adds one branch per call and nothing else.
//! * A disk with a [`Hook`] runs the very same operation on the very same file, if the hook lets it: one that records
//!   notes it (see [`Recorder`](super::Recorder)).

use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use super::hook::{self, Hook, Synced};
use super::record::{Handle, Op, Recorder};

/// What a sync is for. Of no consequence on a real disk; lets a test leave out one sync by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The log reports what it wrote as synced.
    Commit,
    /// A full segment, or the directory, when the log goes on in a new one.
    Roll,
    /// What recovery wrote again or cut.
    Recover,
    /// A segment is freed.
    Purge,
    /// A segment is prepared ahead.
    Prepare,
    /// A file replaces another.
    Replace,
}

/// Where files live: the operating system's disk, perhaps with a hook that records what happens to it.
#[derive(Clone, Default)]
pub struct Disk {
    hook: Option<Arc<dyn Hook>>,
}

impl Disk {
    /// The operating system's; with the process's own hook, if a test has installed one.
    #[must_use]
    pub fn real() -> Self {
        Self { hook: hook::of_the_process() }
    }

    /// The same, recording everything.
    #[must_use]
    pub fn recording(recorder: Arc<Recorder>) -> Self {
        Self::with_hook(recorder)
    }

    /// The same with a hook of its own.
    #[must_use]
    pub fn with_hook(hook: Arc<dyn Hook>) -> Self {
        Self { hook: Some(hook) }
    }

    /// Creates a file that must not exist, for reading and writing.
    pub fn create_new(&self, path: &Path) -> io::Result<File> {
        let open =
            || std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(path);
        self.file(open, |handle| Op::Create { handle, path: path.to_owned() })
    }

    /// Opens an existing file for reading only.
    pub fn open(&self, path: &Path) -> io::Result<File> {
        let open = || std::fs::File::open(path);
        self.file(open, |handle| Op::Open { handle, path: path.to_owned() })
    }

    /// Opens an existing file for reading and writing.
    pub fn open_write(&self, path: &Path) -> io::Result<File> {
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(path);
        self.file(open, |handle| Op::Open { handle, path: path.to_owned() })
    }

    fn file(
        &self,
        open: impl FnOnce() -> io::Result<std::fs::File>,
        op: impl FnOnce(Handle) -> Op,
    ) -> io::Result<File> {
        let Some(hook) = &self.hook else {
            return Ok(File { file: open()?, hook: None });
        };
        let handle = hook.handle();
        let (mut open, mut file) = (Some(open), None);
        hook.run(op(handle), &mut || {
            file = open.take().map(|open| open()).transpose()?;
            Ok(())
        })?;
        let file = file.ok_or_else(|| io::Error::other("the hook did not open the file"))?;
        Ok(File { file, hook: Some((hook.clone(), handle)) })
    }

    /// Renames, replacing what is at `to`. Durable after [`sync_dir`](Self::sync_dir).
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut run = || std::fs::rename(from, to);
        match &self.hook {
            None => run(),
            Some(hook) => {
                hook.run(Op::Rename { from: from.to_owned(), to: to.to_owned() }, &mut run)
            }
        }
    }

    /// Removes a name; the file itself lives on while it is open or mapped. Durable after [`sync_dir`](Self::sync_dir).
    pub fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut run = || std::fs::remove_file(path);
        match &self.hook {
            None => run(),
            Some(hook) => hook.run(Op::Remove { path: path.to_owned() }, &mut run),
        }
    }

    /// Names created, renamed or removed in `dir` before this call are on disk when it returns.
    pub fn sync_dir(&self, dir: &Path, why: Why) -> io::Result<()> {
        match &self.hook {
            None => sync_dir(dir),
            Some(hook) => hook.sync(Synced::Dir(dir.to_owned()), why, &mut || sync_dir(dir)),
        }
    }
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

/// An open file.
pub struct File {
    file: std::fs::File,
    hook: Option<(Arc<dyn Hook>, Handle)>,
}

impl File {
    /// Writes all of `bytes` at `at`. After an error any part of them may have been written.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write(bytes, at, false)
    }

    /// Writes bytes that the file should already have, so that its pages become dirty and the next sync means
    /// something (H7).
    pub fn write_again_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write(bytes, at, true)
    }

    fn write(&self, bytes: &[u8], at: u64, again: bool) -> io::Result<()> {
        let mut run = || self.file.write_all_at(bytes, at);
        match &self.hook {
            None => run(),
            Some((hook, handle)) => {
                hook.run(Op::Write { handle: *handle, at, bytes: bytes.into(), again }, &mut run)
            }
        }
    }

    /// fdatasync: bytes written and length set before this call are on disk when it returns. Never call it
    /// again after an error.
    pub fn sync(&self, why: Why) -> io::Result<()> {
        match &self.hook {
            None => self.file.sync_data(),
            Some((hook, handle)) => {
                hook.sync(Synced::File(*handle), why, &mut || self.file.sync_data())
            }
        }
    }

    /// Fills `bytes` from `at`; an error if the file is too short.
    pub fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }

    /// The length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// When it was last written, ms since 1970.
    pub fn modified_ms(&self) -> io::Result<u64> {
        let since = self.file.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
        Ok(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Whether parts of the file have no blocks on disk yet.
    pub fn is_sparse(&self) -> io::Result<bool> {
        let metadata = self.file.metadata()?;
        Ok(metadata.blocks() * 512 < metadata.len())
    }

    /// Sets the length. Never shorten a file that is mapped.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let mut run = || self.file.set_len(len);
        match &self.hook {
            None => run(),
            Some((hook, handle)) => hook.run(Op::SetLen { handle: *handle, len }, &mut run),
        }
    }

    /// The operating system's file, to map it.
    pub(crate) fn inner(&self) -> &std::fs::File {
        &self.file
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file.fmt(f)
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.hook.is_some() { "Disk(hooked)" } else { "Disk(real)" })
    }
}
