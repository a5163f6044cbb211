//! What was not synced yet, and how to take it back: so the power can be cut on processes that were killed.
//!
//! A server that was killed leaves everything that it wrote, for the kernel has it; a machine without power leaves only
//! what was synced, and any part of the rest. So before each operation the server notes how to undo it, in a file beside
//! its directory, and after each sync that what came before it is durable. When it is dead, [`power_cut`] undoes the rest,
//! or a part of it, backwards.
//!
//! * Files are known by their inode, which outlives renames. What is replaced or removed is linked aside first, so no inode
//!   comes again while it is named here.
//! * A sync makes durable what was noted before it began.
//! * What sled writes does not go through the disk seam and is not undone: it is derived data (R31), and whoever cuts the
//!   power damages it in his own way.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use stela_common::fs::{self, Handle, Op, Synced};

/// The name of the file in the directory of what is set aside.
const NOTES: &str = "notes";

/// How to undo an operation, or that some need no undoing any more. Bytes that belong to it stand behind it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Note {
    /// Bytes were written: there were `old` of them at that place, and the file was so long.
    Write { inode: u64, at: u64, old: usize, length: u64 },
    /// The length was set; it was this before, and so many bytes were cut off.
    Length { inode: u64, length: u64, old: usize },
    /// A name was made.
    Create { path: PathBuf },
    /// A name was changed; what was there is aside.
    Rename { from: PathBuf, to: PathBuf, aside: Option<PathBuf> },
    /// A name was removed; its file is aside.
    Remove { path: PathBuf, aside: PathBuf },
    /// What was noted of that file before the note of this number is durable.
    Synced { inode: u64, before: u64 },
    /// What was noted of names in that directory before the note of this number is durable.
    SyncedDir { dir: PathBuf, before: u64 },
}

/// The server's side.
pub struct Undo {
    dir: PathBuf,
    notes: File,
    count: u64,
    /// Every file that is, or ever was, open. Never closed: a drill is short.
    files: HashMap<Handle, (File, u64)>,
}

impl Undo {
    /// Begins to note in that directory, which is empty: what a former run had not synced was taken back.
    pub fn begin(dir: &Path) -> io::Result<Self> {
        if !fs::read_dir(dir)?.is_empty() {
            return Err(io::Error::other("the power was not cut since the last run"));
        }
        let notes = fs::open_append(dir.join(NOTES))?;
        Ok(Self { dir: dir.to_owned(), notes, count: 0, files: HashMap::new() })
    }

    /// Runs an operation; how to undo it is noted before.
    pub fn run(&mut self, op: &Op, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
        match op {
            Op::Create { path, .. } => self.note(&Note::Create { path: path.clone() }, &[])?,
            Op::Write { handle, at, bytes, .. } => self.write(*handle, *at, bytes.len())?,
            Op::SetLen { handle, len } => self.length(*handle, *len)?,
            Op::Rename { from, to } => {
                let aside = fs::exists(to).then(|| self.aside(to)).transpose()?;
                let (from, to) = (from.clone(), to.clone());
                self.note(&Note::Rename { from, to, aside }, &[])?;
            }
            Op::Remove { path } if fs::exists(path) => {
                let aside = self.aside(path)?;
                self.note(&Note::Remove { path: path.clone(), aside }, &[])?;
            }
            _ => {}
        }
        run()?;
        if let Op::Create { handle, path } | Op::Open { handle, path } = op {
            let file = fs::open_read(path)?;
            let inode = file.metadata()?.ino();
            self.files.insert(*handle, (file, inode));
        }
        Ok(())
    }

    /// A sync is about to begin: the number of the next note.
    pub fn begun(&self) -> u64 {
        self.count
    }

    /// A sync that began then has ended.
    pub fn synced(&mut self, of: &Synced, before: u64) -> io::Result<()> {
        match of {
            Synced::File(handle) => match self.files.get(handle) {
                Some((_, inode)) => self.note(&Note::Synced { inode: *inode, before }, &[]),
                None => Ok(()),
            },
            Synced::Dir(dir) => self.note(&Note::SyncedDir { dir: dir.clone(), before }, &[]),
        }
    }

    fn write(&mut self, handle: Handle, at: u64, len: usize) -> io::Result<()> {
        let Some((file, inode)) = self.files.get(&handle) else { return Ok(()) };
        let length = file.metadata()?.len();
        let there = length.saturating_sub(at).min(len as u64);
        let old = read_at(file, at, there)?;
        self.note(&Note::Write { inode: *inode, at, old: old.len(), length }, &old)
    }

    fn length(&mut self, handle: Handle, len: u64) -> io::Result<()> {
        let Some((file, inode)) = self.files.get(&handle) else { return Ok(()) };
        let length = file.metadata()?.len();
        let old = read_at(file, len, length.saturating_sub(len))?;
        self.note(&Note::Length { inode: *inode, length, old: old.len() }, &old)
    }

    /// Links a file aside, so that it is not lost with its name.
    fn aside(&self, path: &Path) -> io::Result<PathBuf> {
        let aside = self.dir.join(self.count.to_string());
        std::fs::hard_link(path, &aside)?;
        Ok(aside)
    }

    /// One write, so that a kill leaves it whole or not at all: it has not been carried out then.
    fn note(&mut self, note: &Note, bytes: &[u8]) -> io::Result<()> {
        self.count += 1;
        let mut text = serde_json::to_vec(note)?;
        text.push(b'\n');
        text.extend_from_slice(bytes);
        self.notes.write_all(&text)
    }
}

fn read_at(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

/// What becomes of that which was not synced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// It is gone.
    Drop,
    /// Each operation: gone or not.
    Some,
}

/// Takes back what a dead server had not synced, and begins its notes anew. Tells how many operations were undone, of how
/// many that were not durable.
///
/// # Errors
/// It cannot be done: there is no verdict.
pub fn power_cut(dir: &Path, undo: &Path, cut: Cut, random: &mut StdRng) -> Result<(usize, usize)> {
    let notes = read_notes(&undo.join(NOTES))?;
    let mut inodes = HashMap::new();
    find_inodes(dir, &mut inodes)?;
    find_inodes(undo, &mut inodes)?;
    let (mut files, mut dirs) = (HashMap::new(), HashMap::new());
    for (note, _) in &notes {
        match note {
            Note::Synced { inode, before } => {
                let upto: &mut u64 = files.entry(*inode).or_default();
                *upto = (*upto).max(*before);
            }
            Note::SyncedDir { dir, before } => {
                let upto: &mut u64 = dirs.entry(dir.as_path()).or_default();
                *upto = (*upto).max(*before);
            }
            _ => {}
        }
    }
    let in_dir = |path: &Path| dirs.get(path.parent().unwrap_or(path)).copied().unwrap_or(0);
    let durable = |number: usize, note: &Note| {
        let before = match note {
            Note::Write { inode, .. } | Note::Length { inode, .. } => {
                files.get(inode).copied().unwrap_or(0)
            }
            Note::Create { path } | Note::Remove { path, .. } => in_dir(path),
            Note::Rename { to, .. } => in_dir(to),
            Note::Synced { .. } | Note::SyncedDir { .. } => u64::MAX,
        };
        (number as u64) < before
    };
    let open = notes.iter().enumerate().filter(|(number, (note, _))| !durable(*number, note));
    let mut open: Vec<&(Note, Vec<u8>)> = open.map(|(_, note)| note).collect();
    let all = open.len();
    open.retain(|_| cut == Cut::Drop || random.random_bool(0.5));
    // Bytes first: where files are is known as long as names are what they were.
    let bytes = |note: &Note| matches!(note, Note::Write { .. } | Note::Length { .. });
    for (note, old) in open.iter().rev().filter(|(note, _)| bytes(note)) {
        note.undo(old, &inodes)?;
    }
    for (note, old) in open.iter().rev().filter(|(note, _)| !bytes(note)) {
        note.undo(old, &inodes)?;
    }
    fs::remove_dir_all(undo)?;
    fs::create_dir_all(&fs::Disk::real(), undo)?;
    Ok((open.len(), all))
}

impl Note {
    fn undo(&self, old: &[u8], inodes: &HashMap<u64, PathBuf>) -> Result<()> {
        let disk = fs::Disk::real();
        match self {
            Self::Write { inode, at, length, .. } => {
                // A file that has no name any more is gone with what was in it.
                let Some(path) = inodes.get(inode) else { return Ok(()) };
                let file = disk.open_write(path)?;
                file.write_at(old, *at)?;
                if file.len()? > *length {
                    file.set_len(*length)?;
                }
            }
            Self::Length { inode, length, .. } => {
                let Some(path) = inodes.get(inode) else { return Ok(()) };
                let file = disk.open_write(path)?;
                let kept = length - old.len() as u64;
                file.set_len(*length)?;
                file.write_at(old, kept)?;
            }
            Self::Create { path } => drop(fs::remove_file(path)),
            Self::Rename { from, to, aside } => {
                // Where only a part is undone, the name may have gone on to something else.
                if fs::exists(to) && !fs::exists(from) {
                    fs::rename(to, from)?;
                }
                if let Some(aside) = aside {
                    drop(fs::remove_file(to));
                    std::fs::hard_link(aside, to)?;
                }
            }
            Self::Remove { path, aside } if !fs::exists(path) => std::fs::hard_link(aside, path)?,
            Self::Remove { .. } | Self::Synced { .. } | Self::SyncedDir { .. } => {}
        }
        Ok(())
    }
}

/// All notes, with the bytes that belong to them. The last one may have been cut by the kill.
fn read_notes(path: &Path) -> Result<Vec<(Note, Vec<u8>)>> {
    let mut all = Vec::new();
    fs::open_read(path).context("there are no notes")?.read_to_end(&mut all)?;
    let (mut notes, mut rest) = (Vec::new(), all.as_slice());
    while let Some(end) = rest.iter().position(|b| *b == b'\n') {
        let note: Note = serde_json::from_slice(&rest[..end]).context("a note makes no sense")?;
        let (Note::Write { old, .. } | Note::Length { old, .. }) = &note else {
            notes.push((note, Vec::new()));
            rest = &rest[end + 1..];
            continue;
        };
        let Some(bytes) = rest.get(end + 1..end + 1 + old) else {
            ensure!(rest.len() < end + 1 + old, "a note is longer than its file");
            return Ok(notes);
        };
        let bytes = bytes.to_vec();
        rest = &rest[end + 1 + old..];
        notes.push((note, bytes));
    }
    Ok(notes)
}

fn find_inodes(dir: &Path, found: &mut HashMap<u64, PathBuf>) -> Result<()> {
    for path in fs::read_dir(dir)? {
        let metadata = path.symlink_metadata()?;
        if metadata.is_dir() {
            find_inodes(&path, found)?;
        } else {
            found.insert(metadata.ino(), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use rand::SeedableRng as _;
    use stela_common::fs::{Disk, Hook, Recorder, Why};

    use super::*;

    /// A disk that notes; the harness's own, not the process's.
    struct Noting(Mutex<Undo>, Recorder);

    impl Hook for Noting {
        fn handle(&self) -> Handle {
            self.1.handle()
        }

        fn run(&self, op: Op, run: &mut dyn FnMut() -> io::Result<()>) -> io::Result<()> {
            self.0.lock().run(&op, run)
        }

        fn sync(
            &self,
            of: Synced,
            _: Why,
            run: &mut dyn FnMut() -> io::Result<()>,
        ) -> io::Result<()> {
            let begun = self.0.lock().begun();
            run()?;
            self.0.lock().synced(&of, begun)
        }
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn empty() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for dir in [place.dir(), place.undo()] {
                fs::create_dir_all(&Disk::real(), dir).unwrap();
            }
            place
        }

        fn new() -> (Self, Disk) {
            let place = Self::empty();
            let disk = place.disk();
            (place, disk)
        }

        fn disk(&self) -> Disk {
            let undo = Mutex::new(Undo::begin(&self.undo()).unwrap());
            Disk::with_hook(Arc::new(Noting(undo, Recorder::new())))
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("dir")
        }

        fn undo(&self) -> PathBuf {
            self.0.path().join("undo")
        }

        fn cut(&self, cut: Cut, seed: u64) -> (usize, usize) {
            let mut random = StdRng::seed_from_u64(seed);
            power_cut(&self.dir(), &self.undo(), cut, &mut random).unwrap()
        }
    }

    #[test]
    fn what_is_synced_stays_and_the_rest_is_gone() {
        let (place, disk) = Place::new();
        let path = place.dir().join("log");
        let file = disk.create_new(&path).unwrap();
        file.write_at(b"one two three", 0).unwrap();
        file.sync(Why::Commit).unwrap();
        disk.sync_dir(&place.dir(), Why::Commit).unwrap();
        file.write_at(b"TWO", 4).unwrap();
        file.write_at(b" four", 13).unwrap();
        disk.create_new(&place.dir().join("new")).unwrap().write_at(b"x", 0).unwrap();
        assert_eq!(place.cut(Cut::Drop, 1), (4, 4));
        assert_eq!(fs::read(&path).unwrap(), b"one two three");
        assert_eq!(fs::read_dir(place.dir()).unwrap(), [path]);
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one() {
        for seed in 0..50 {
            let (place, disk) = Place::new();
            let path = place.dir().join("fences");
            fs::replace(&disk, &path, b"one").unwrap();
            fs::replace(&disk, &path, b"two").unwrap();
            assert_eq!(place.cut(Cut::Drop, seed), (0, 0));
            assert_eq!(fs::read(&path).unwrap(), b"two");
            // Once more, but the directory is not synced in the end.
            let disk = place.disk();
            let aside = place.dir().join("aside");
            let file = disk.create_new(&aside).unwrap();
            file.write_at(b"three", 0).unwrap();
            file.sync(Why::Replace).unwrap();
            disk.rename(&aside, &path).unwrap();
            place.cut(Cut::Some, seed);
            let found = fs::read(&path).unwrap();
            assert!(found == b"two" || found == b"three", "{found:?}");
        }
    }

    #[test]
    fn a_sync_does_not_cover_what_was_written_while_it_ran() {
        let place = Place::empty();
        let mut undo = Undo::begin(&place.undo()).unwrap();
        let path = place.dir().join("log");
        fs::write(&path, b"....").unwrap();
        let handle = Handle(1);
        undo.run(&Op::Open { handle, path: path.clone() }, &mut || Ok(())).unwrap();
        let write = |undo: &mut Undo, bytes: &'static [u8], at: u64| {
            let op = Op::Write { handle, at, bytes: bytes.into(), again: false };
            let file = Disk::real().open_write(&path).unwrap();
            undo.run(&op, &mut || file.write_at(bytes, at)).unwrap();
        };
        write(&mut undo, b"a", 0);
        let begun = undo.begun();
        write(&mut undo, b"b", 1);
        undo.synced(&Synced::File(handle), begun).unwrap();
        assert_eq!(place.cut(Cut::Drop, 1), (1, 1));
        assert_eq!(fs::read(&path).unwrap(), b"a...");
    }

    #[test]
    fn a_removed_file_comes_back() {
        let (place, disk) = Place::new();
        let path = place.dir().join("segment");
        fs::write(&path, b"full").unwrap();
        disk.remove_file(&path).unwrap();
        place.cut(Cut::Drop, 1);
        assert_eq!(fs::read(&path).unwrap(), b"full");
        let disk = place.disk();
        fs::remove(&disk, &path).unwrap();
        place.cut(Cut::Drop, 1);
        assert!(!fs::exists(&path));
    }
}
