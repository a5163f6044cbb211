//! Files as everybody else uses them: whole reads, small durable replacements, directories.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Disk, Why, hook};

/// The whole file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// The whole file as text.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// Writes a file that need not survive a crash, nor be whole after one; see [`replace`] for one that must.
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    std::fs::write(path, bytes)
}

/// Replaces the file at `path` so that a crash at any moment leaves the old or the new content, and so that the
/// new one is on disk when this returns: write aside, sync, rename, sync the directory.
pub fn replace(disk: &Disk, path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> io::Result<()> {
    let (path, bytes) = (path.as_ref(), bytes.as_ref());
    let (dir, aside) = (parent(path), aside(path)?);
    match disk.remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {} // left by a crash, or never there
    }
    let file = disk.create_new(&aside)?;
    let written = file
        .write_at(bytes, 0)
        .and_then(|()| file.sync(Why::Replace))
        .and_then(|()| disk.rename(&aside, path))
        .and_then(|()| disk.sync_dir(&dir, Why::Replace));
    if written.is_err() {
        // Best effort: the next replacement removes it too.
        let _ = disk.remove_file(&aside);
    }
    written
}

fn aside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path without a name"))?
        .to_owned();
    name.push(".tmp");
    Ok(path.with_file_name(name))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Appends `line` and a line end in one write. Not synced.
pub fn append_line(path: impl AsRef<Path>, line: &str) -> io::Result<()> {
    let mut text = String::with_capacity(line.len() + 1);
    text.push_str(line);
    text.push('\n');
    open_append(path)?.write_all(text.as_bytes())
}

/// Opens a file to append to, creating it if absent: for logs meant for people.
pub fn open_append(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Opens a file to read from its beginning to its end: for what people give, pipes among it.
pub fn open_read(path: impl AsRef<Path>) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Whether something is at `path`.
pub fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().exists()
}

/// Creates the directory and those above it; what it created is on disk when this returns.
///
/// Directories are not part of a recording: a crash test creates its own before it starts.
pub fn create_dir_all(disk: &Disk, path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut absent = Vec::new();
    let mut at = path;
    while !at.as_os_str().is_empty() && !at.exists() {
        absent.push(at);
        match at.parent() {
            Some(up) => at = up,
            None => break,
        }
    }
    std::fs::create_dir_all(path)?;
    for dir in absent.into_iter().rev() {
        disk.sync_dir(&parent(dir), Why::Replace)?;
    }
    Ok(())
}

/// Removes a file; durable when this returns.
pub fn remove(disk: &Disk, path: impl AsRef<Path>) -> io::Result<()> {
    disk.remove_file(path.as_ref())?;
    disk.sync_dir(&parent(path.as_ref()), Why::Replace)
}

/// Renames, replacing what is at `to`. Durable after [`sync_dir`].
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    std::fs::rename(from, to)
}

/// Removes a file. Durable after [`sync_dir`]; see [`remove`].
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Removes a directory and all in it. Durable after [`sync_dir`] of the one above.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    std::fs::remove_dir_all(path)
}

/// Names created, renamed or removed in `dir` before this call are on disk when it returns.
pub fn sync_dir(dir: impl AsRef<Path>) -> io::Result<()> {
    Disk::real().sync_dir(dir.as_ref(), Why::Replace)
}

/// The paths in a directory, sorted.
pub fn read_dir(dir: impl AsRef<Path>) -> io::Result<Vec<PathBuf>> {
    let mut paths = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// (bytes free for us, bytes in all) of the file system that holds `path`.
pub fn free_bytes(path: impl AsRef<Path>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path.as_ref())?;
    let real = (stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize);
    Ok(hook::of_the_process().map_or(real, |hook| hook.free_bytes(real)))
}
