//! Files as everybody else uses them: whole reads, small durable replacements, directories.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::{Disk, Why};

/// The whole file.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path)
}

/// The whole file as text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    std::fs::read_to_string(path)
}

/// Writes a file that need not survive a crash, nor be whole after one; see [`replace`] for one that must.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::write(path, bytes)
}

/// Replaces the file at `path` so that a crash at any moment leaves the old or the new content, and so that the
/// new one is on disk when this returns: write aside, sync, rename, sync the directory.
pub fn replace(disk: &Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
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
    let mut name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path without a name"))?.to_owned();
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
pub fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut text = String::with_capacity(line.len() + 1);
    text.push_str(line);
    text.push('\n');
    open_append(path)?.write_all(text.as_bytes())
}

/// Opens a file to append to, creating it if absent: for logs meant for people.
pub fn open_append(path: &Path) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new().create(true).append(true).open(path)
}

/// Whether something is at `path`.
pub fn exists(path: &Path) -> bool {
    path.exists()
}

/// Creates the directory and those above it; what it created is on disk when this returns.
///
/// Directories are not part of a recording: a crash test creates its own before it starts.
pub fn create_dir_all(disk: &Disk, path: &Path) -> io::Result<()> {
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

/// Renames, replacing what is at `to`; durable when this returns.
pub fn rename(disk: &Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.rename(from, to)?;
    let (old, new) = (parent(from), parent(to));
    disk.sync_dir(&new, Why::Replace)?;
    if old == new { Ok(()) } else { disk.sync_dir(&old, Why::Replace) }
}

/// Removes a file; durable when this returns.
pub fn remove_file(disk: &Disk, path: &Path) -> io::Result<()> {
    disk.remove_file(path)?;
    disk.sync_dir(&parent(path), Why::Replace)
}

/// Removes a directory and all in it; durable when this returns. Not part of a recording.
pub fn remove_dir_all(disk: &Disk, path: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(path)?;
    disk.sync_dir(&parent(path), Why::Replace)
}

/// The paths in a directory, sorted.
pub fn read_dir(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        std::fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

/// (bytes free for us, bytes in all) of the file system that holds `path`.
pub fn free_bytes(path: &Path) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::statvfs(path)?;
    Ok((stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize))
}
