//! A model of a disk: what a recorded run has made durable, what is only in the page cache, and what a power cut may
//! leave of it.
//!
//! * A write that is not synced is dropped, kept, or torn: any of its 512-byte sectors may be there.
//! * A name that was created, renamed or removed is durable when its directory was synced; before, each change may have
//!   happened or not, whatever became of the others.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand::RngExt as _;
use rand::rngs::StdRng;
use stela_common::fs::{Handle, Op};

const SECTOR: usize = 512;

/// What becomes of that which is not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is gone.
    Drop,
    /// It is there, all of it: what the next process sees after a kill.
    Keep,
    /// Each write, each of its sectors, and each name: there or not.
    Tear,
    /// The bytes are there, the names are not.
    KeepBytes,
    /// The names are there, the bytes are not.
    KeepNames,
}

impl Cut {
    pub const ALL: [Self; 5] =
        [Self::Drop, Self::Keep, Self::Tear, Self::KeepBytes, Self::KeepNames];

    fn change(self, random: &mut StdRng) -> bool {
        match self {
            Self::Drop | Self::KeepNames => false,
            Self::Keep | Self::KeepBytes => true,
            Self::Tear => random.random_bool(0.6),
        }
    }

    fn name(self, random: &mut StdRng) -> bool {
        match self {
            Self::Drop | Self::KeepBytes => false,
            Self::Keep | Self::KeepNames => true,
            Self::Tear => random.random_bool(0.6),
        }
    }
}

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// The disk at one moment of a run.
#[derive(Clone)]
pub struct Image {
    dir: PathBuf,
    inodes: Vec<Inode>,
    /// Durable.
    names: BTreeMap<String, usize>,
    changes: Queue<Rename>,
    /// As a process sees it.
    view: BTreeMap<String, usize>,
    handles: HashMap<Handle, usize>,
    syncs: HashMap<u64, (Option<usize>, usize)>,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    changes: Queue<Change>,
}

#[derive(Clone)]
enum Change {
    Write { at: usize, bytes: Arc<[u8]> },
    Len(usize),
}

/// A name goes, another comes.
#[derive(Clone)]
struct Rename {
    from: Option<String>,
    to: Option<(String, usize)>,
}

/// What is not durable yet, in order, and how much was before.
#[derive(Clone)]
struct Queue<T> {
    done: usize,
    pending: Vec<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { done: 0, pending: Vec::new() }
    }
}

impl<T> Queue<T> {
    fn len(&self) -> usize {
        self.done + self.pending.len()
    }

    fn upto(&mut self, len: usize) -> impl Iterator<Item = T> {
        let count = len.saturating_sub(self.done);
        self.done += count;
        self.pending.drain(..count)
    }
}

impl Image {
    /// A disk that holds these files in `dir`, all durable.
    pub fn of(dir: &Path, files: &Files) -> Self {
        let inodes = files
            .values()
            .map(|bytes| Inode { durable: bytes.clone(), ..Inode::default() })
            .collect();
        let names: BTreeMap<String, usize> = files.keys().cloned().zip(0..).collect();
        Self {
            dir: dir.to_owned(),
            inodes,
            view: names.clone(),
            names,
            changes: Queue::default(),
            handles: HashMap::new(),
            syncs: HashMap::new(),
        }
    }

    /// The same disk after the process was killed, as the directory `dir`. The next process sees everything
    /// ([`Cut::Keep`]), but what was not synced must not be taken for dirty: after a failed sync the pages are clean, and
    /// another sync says nothing (H7). So it never becomes durable by itself.
    pub fn killed(mut self, dir: &Path) -> Self {
        self.dir = dir.to_owned();
        self.handles.clear();
        self.syncs.clear();
        for inode in &mut self.inodes {
            let len = inode.changes.len();
            inode.changes.upto(len).for_each(drop);
        }
        self
    }

    fn name(&self, path: &Path) -> Option<String> {
        let ours = path.parent() == Some(&self.dir);
        ours.then(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    fn rename(&mut self, from: Option<String>, to: Option<(String, usize)>) {
        if let Some(from) = &from {
            self.view.remove(from);
        }
        if let Some((name, inode)) = &to {
            self.view.insert(name.clone(), *inode);
        }
        self.changes.pending.push(Rename { from, to });
    }

    /// The next operation of the run.
    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { handle, path } => {
                let Some(name) = self.name(path) else { return };
                self.inodes.push(Inode::default());
                let inode = self.inodes.len() - 1;
                self.handles.insert(*handle, inode);
                self.rename(None, Some((name, inode)));
            }
            Op::Open { handle, path } => {
                if let Some(inode) = self.name(path).and_then(|name| self.view.get(&name)) {
                    self.handles.insert(*handle, *inode);
                }
            }
            Op::Write { handle, at, bytes, .. } => {
                let at = usize::try_from(*at).unwrap_or(usize::MAX);
                self.change(*handle, Change::Write { at, bytes: bytes.as_ref().into() });
            }
            Op::SetLen { handle, len } => {
                self.change(*handle, Change::Len(usize::try_from(*len).unwrap_or(usize::MAX)));
            }
            Op::SyncStart { sync, handle, .. } => {
                if let Some(inode) = self.handles.get(handle) {
                    self.syncs.insert(*sync, (Some(*inode), self.inodes[*inode].changes.len()));
                }
            }
            Op::SyncDirStart { sync, dir, .. } => {
                if *dir == self.dir {
                    self.syncs.insert(*sync, (None, self.changes.len()));
                }
            }
            Op::SyncDone { sync } => match self.syncs.remove(sync) {
                Some((Some(inode), upto)) => self.inodes[inode].sync(upto),
                Some((None, upto)) => {
                    self.changes.upto(upto).for_each(|change| change.apply(&mut self.names))
                }
                None => {}
            },
            Op::Rename { from, to } => {
                let (Some(from), Some(to)) = (self.name(from), self.name(to)) else { return };
                if let Some(inode) = self.view.get(&from).copied() {
                    self.rename(Some(from), Some((to, inode)));
                }
            }
            Op::Remove { path } => {
                if let Some(name) = self.name(path) {
                    self.rename(Some(name), None);
                }
            }
            Op::Mark { .. } => {}
        }
    }

    fn change(&mut self, handle: Handle, change: Change) {
        if let Some(inode) = self.handles.get(&handle) {
            self.inodes[*inode].changes.pending.push(change);
        }
    }

    /// What a power cut, now, leaves.
    pub fn cut(&self, cut: Cut, random: &mut StdRng) -> Files {
        let mut names = self.names.clone();
        for change in &self.changes.pending {
            if cut.name(random) {
                change.apply(&mut names);
            }
        }
        names.into_iter().map(|(name, inode)| (name, self.inodes[inode].cut(cut, random))).collect()
    }
}

impl Rename {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        if let Some((name, inode)) = &self.to {
            names.insert(name.clone(), *inode);
        }
    }
}

impl Inode {
    fn sync(&mut self, upto: usize) {
        for change in self.changes.upto(upto) {
            change.apply(&mut self.durable, |_| true);
        }
    }

    fn cut(&self, cut: Cut, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for change in &self.changes.pending {
            if cut == Cut::Tear && random.random_bool(0.5) {
                change.apply(&mut bytes, |_| random.random_bool(0.7));
            } else if cut.change(random) {
                change.apply(&mut bytes, |_| true);
            }
        }
        bytes
    }
}

impl Change {
    /// Does it to those sectors that are `there`.
    fn apply(&self, file: &mut Vec<u8>, mut there: impl FnMut(usize) -> bool) {
        match self {
            Self::Len(len) => file.resize(*len, 0),
            Self::Write { at, bytes } => {
                let mut from = *at;
                while from < at + bytes.len() {
                    let to = ((from / SECTOR + 1) * SECTOR).min(at + bytes.len());
                    if there(from / SECTOR) {
                        if file.len() < to {
                            file.resize(to, 0);
                        }
                        file[from..to].copy_from_slice(&bytes[from - at..to - at]);
                    }
                    from = to;
                }
            }
        }
    }
}
