//! Opening: a new log, or one that was stopped somehow.
//!
//! **Invariant**: what [`Log::open`] returns is on disk, all of it, and nothing else comes back later.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::{Builder, JoinHandle};

use parking_lot::{Mutex, RwLock};

use super::append::{self, Appender};
use super::ends::End;
use super::files::{self, Files};
use super::plan::{self, Damage, Plan, Torn};
use super::scan::{self, Scan};
use super::segment::{FoundHeader, HEADER, Header, Segment};
use super::shared::Shared;
use super::spare::{Spare, Spares};
use super::sync::Syncing;
use super::{Log, LogId, OpenError, Options, Position};
use crate::fs::{self, Disk, Why};
use crate::ids::PartitionKey;

/// What recovery found.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// The log is new, or was stopped by [`Log::close`].
    pub clean: bool,
    /// What was synced once and is not readable any more. The walk passes it over.
    pub damage: Vec<Damage>,
    /// What was cut.
    pub torn: Option<Torn>,
    /// The owner's checkpoint at the start of the log: what it needs of the records before those that are there.
    pub checkpoint: Option<Vec<u8>>,
    /// Where each partition ends, as the log knows it also from what was given back.
    pub ends: BTreeMap<PartitionKey, End>,
}

impl Log {
    /// Opens the log in `dir`, or creates it there. `on_fatal` hears of a failed sync, once, on a thread of the log: what
    /// is not reported as synced by then never will be, and the process should end (H7).
    ///
    /// # Errors
    /// [`OpenError`] says what to do; but for the disk's errors nothing was changed.
    pub fn open(
        disk: Disk,
        dir: &Path,
        options: Options,
        on_fatal: impl Fn(io::Error) + Send + Sync + 'static,
    ) -> Result<(Self, Recovery), OpenError> {
        options.check()?;
        let unusable = || OpenError::io(dir);
        fs::create_dir_all(&disk, dir).map_err(unusable())?;
        let mut files = files::list(dir).map_err(unusable())?;
        let new = files.segments.is_empty();
        if new {
            create(&disk, dir, &mut files, options.segment_bytes)?;
        }
        let mut scan = scan::scan(&disk, dir, &files.segments)?;
        let mut plan = Plan::new(&mut scan);
        if new {
            // It was made durable just now.
            (plan.clean, plan.tail) = (true, scan.end);
        }
        super::repair::repair(&disk, dir, &scan, &mut plan)?;
        if let Some(torn) = plan.torn {
            tracing::warn!(dir = %dir.display(), at = %torn.at, bytes = torn.bytes, "a tail that was never synced is cut");
        }
        let next = plan.kept.last().map_or(0, |last| last.number + 1);
        let ready = spares(&disk, &files, &scan, next, plan.clean && plan.torn.is_none())?;
        let names = files.spares.last_key_value().map_or(0, |(name, _)| *name);

        let mut openings = plan.kept.iter().filter_map(|found| scan.opening(found));
        let checkpoint = openings.next().and_then(|opening| opening.checkpoint);
        let latest = openings
            .next_back()
            .and_then(|opening| opening.checkpoint)
            .or_else(|| checkpoint.clone());
        drop(openings);
        let Plan { kept, clean, torn, damage, .. } = plan;
        let mut segments = BTreeMap::new();
        let mut active = None;
        for found in kept {
            let holes = plan::holes(&damage, found.number, scan.length);
            let segment =
                Segment::new(found.number, scan.length, found.file, found.map).with_holes(holes);
            segment.seal(found.end);
            active = Some((found.number, found.end));
            segments.insert(found.number, Arc::new(segment));
        }
        let unreadable = || OpenError::Unreadable { dir: dir.to_owned() };
        let (number, at) = active.ok_or_else(unreadable)?;
        let end = Position(number * scan.length + at);
        let list: Vec<&Segment> = segments.values().map(Arc::as_ref).collect();
        let (mut ends, damage) = plan::judge(&list, end, damage);
        let known = ends.sorted();
        // The segments to come do not testify for whom this recovery suspects (R30).
        damage.iter().for_each(|damage| ends.forget(&damage.suspects));
        let segment = segments.get(&number).cloned().ok_or_else(unreadable)?;
        segment.unseal();

        let recovery = Recovery { clean, damage, torn, checkpoint, ends: known };
        let sparse = segment.file.is_sparse().map_err(unusable())?;
        let (syncing, report) = Syncing::new(
            disk.clone(),
            dir.to_owned(),
            options.mark_idle,
            Box::new(on_fatal),
            segment.clone(),
            end,
        );
        let appender = Appender { seed: scan.seed(number), segment, at, ends, closed: false };
        let shared = Arc::new(Shared {
            spares: Spares::new(disk.clone(), dir, scan.length, options.spares, ready, names),
            disk,
            dir: dir.to_owned(),
            id: scan.id,
            length: scan.length,
            end: AtomicU64::new(end.0),
            segments: RwLock::new(segments),
            append: Mutex::new(appender),
            syncing,
            checkpoint: Mutex::new(latest),
            purge: Mutex::default(),
            drafts: Mutex::default(),
        });
        let mut threads = Vec::new();
        let (syncer, sparer, filler) = (shared.clone(), shared.clone(), shared.clone());
        let log = Self::new(shared);
        let started = start("log-sync", &mut threads, move || syncer.syncing.run(&syncer, &report))
            .and_then(|()| start("log-spares", &mut threads, move || sparer.spares.run()))
            .and_then(|()| {
                if sparse {
                    start("log-fill", &mut threads, move || filler.fill(number))
                } else {
                    Ok(())
                }
            });
        log.adopt(threads);
        started.map_err(unusable())?;
        Ok((log, recovery))
    }
}

fn start(
    name: &str,
    threads: &mut Vec<JoinHandle<()>>,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<()> {
    threads.push(Builder::new().name(name.to_owned()).spawn(run)?);
    Ok(())
}

/// The first segment. It is under its name when all of it is on disk: a log exists or it does not.
fn create(disk: &Disk, dir: &Path, files: &mut Files, length: u64) -> Result<(), OpenError> {
    for path in files.spares.values() {
        disk.remove_file(path).map_err(OpenError::io(path))?;
    }
    let id = LogId(rand::random());
    let number = 1; // position 0 is before everything
    let path = files::segment(dir, number);
    let aside = files::spare(dir, files.spares.last_key_value().map_or(0, |(name, _)| *name) + 1);
    files.spares.clear();
    let write = || {
        let bytes = append::first_bytes(id, length, number, &super::ends::Ends::default(), None)
            .map_err(io::Error::other)?;
        let file = disk.create_new(&aside)?;
        file.write_at(&bytes, 0)?;
        file.set_len(length)?;
        file.sync(Why::Recover)?;
        disk.rename(&aside, &path)?;
        disk.sync_dir(dir, Why::Recover)
    };
    write().map_err(OpenError::io(&path))?;
    files.segments.insert(number, path);
    Ok(())
}

/// The spares that may be used; the others are removed. After an unclean stop none may: a power cut can leave batches of
/// the very next segment under a spare's name, and they would validate there.
fn spares(
    disk: &Disk,
    files: &Files,
    scan: &Scan,
    next: u64,
    clean: bool,
) -> Result<Vec<Spare>, OpenError> {
    let mut ready = Vec::new();
    for path in files.spares.values() {
        let unusable = || OpenError::io(path);
        let file = disk.open_write(path).map_err(unusable())?;
        let mut page = vec![0; HEADER as usize];
        let whole = file.len().map_err(unusable())? == scan.length;
        let past = whole
            && match file.read_at(&mut page, 0).map(|()| Header::decode(&page)) {
                Ok(FoundHeader::Good(header)) => header.id == scan.id && header.number < next,
                Ok(FoundHeader::None) => true,
                Ok(FoundHeader::Newer(_)) | Err(_) => false,
            };
        if clean && past {
            ready.push(Spare { path: path.clone(), file });
        } else {
            disk.remove_file(path).map_err(unusable())?;
        }
    }
    Ok(ready)
}
