//! A tablet's directory, looked at without a tablet: every file is listed and every byte that carries a checksum verified.
//!
//! **Invariant**: nothing is changed, and a directory in use is not looked at: what is being written looks like damage.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use stela_common::fs::{self, Disk};
use stela_common::ids::{Offset, PartitionKey};
use stela_common::log::{self, Position};

use crate::checkpoint;
use crate::disk::Files;
use crate::lost::Ended;
use crate::snapshot::Snapshot;
use crate::snapshot::files as snapshots;

/// Something that lies in the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// Which kind of thing: `identity`, `fences`, `table`, `checkpoint`, `snapshot`, `log`, `segment`, `tail`, `part`.
    pub kind: &'static str,
    /// Its file, or directory.
    pub path: PathBuf,
    /// Its length in bytes; of a segment those that are used.
    pub bytes: u64,
    /// What it says.
    pub detail: String,
    /// What is wrong with it, and where.
    pub damage: Option<String>,
}

struct Inspector {
    disk: Disk,
    files: Files,
    dir: PathBuf,
    items: Vec<Item>,
    /// Where the log begins, if it could be read.
    log_start: Position,
    /// The first entry that the log has of each partition that has any.
    begins: BTreeMap<PartitionKey, Offset>,
    /// The partitions that the log knows of.
    known: BTreeSet<PartitionKey>,
}

/// Looks at the directory of a tablet, in an order that stays.
///
/// # Errors
/// It is not that of a tablet, is in use, or cannot be read.
pub fn inspect(dir: &Path) -> io::Result<Vec<Item>> {
    let none = |what: &str| {
        let text = format!("{} {what}: name the --db_root_path of a tablet", dir.display());
        io::Error::new(io::ErrorKind::NotFound, text)
    };
    if !dir.is_dir() {
        return Err(none("is no directory"));
    }
    if !fs::exists(dir.join("TABLET")) && !fs::exists(dir.join("log")) {
        return Err(none("has no tablet in it"));
    }
    let _lock = fs::lock_dir(dir).map_err(io::Error::other)?;
    let disk = Disk::real();
    let files = Files::new(disk.clone(), dir.to_owned());
    let mut inspector = Inspector {
        disk,
        files,
        dir: dir.to_owned(),
        items: Vec::new(),
        log_start: Position(0),
        begins: BTreeMap::new(),
        known: BTreeSet::new(),
    };
    inspector.state();
    inspector.log();
    inspector.snapshots()?;
    inspector.set_aside()?;
    Ok(inspector.items)
}

fn length(path: &Path) -> u64 {
    path.metadata().map_or(0, |m| m.len())
}

impl Inspector {
    fn add(&mut self, kind: &'static str, path: PathBuf, outcome: io::Result<String>) {
        let (detail, damage) = match outcome {
            Ok(detail) => (detail, None),
            Err(error) => (String::new(), Some(error.to_string())),
        };
        self.items.push(Item { kind, bytes: length(&path), path, detail, damage });
    }

    fn state(&mut self) {
        let identity = self.files.identity().and_then(|identity| {
            let identity = identity.ok_or_else(|| io::Error::other("it is missing"))?;
            let (cluster, endpoint) = (identity.cluster, identity.endpoint);
            Ok(format!("cluster {cluster}, endpoint {endpoint}, format {}", identity.format))
        });
        self.add("identity", self.dir.join("TABLET"), identity);
        let fences = self.files.fences().map(|f| {
            let stop = if f.unclean { "not stopped cleanly" } else { "stopped cleanly, or runs" };
            format!("{} runs known, orders up to {}, {stop}", f.starts.len(), f.decision)
        });
        self.add("fences", self.dir.join("fences"), fences);
        if let Some((path, said)) = checkpoint::look(&self.disk, &self.dir) {
            self.add("checkpoint", path, said);
        }
        let tables = self.dir.join("tables");
        match self.files.tables() {
            Err(error) => self.add("table", tables, Err(error)),
            Ok(held) => {
                for (tid, held) in held {
                    let pids: Vec<String> = held.pids.iter().map(ToString::to_string).collect();
                    let (db, name) = (&held.table.db, &held.table.name);
                    let detail = format!("{db}.{name}, partitions {}", pids.join(","));
                    self.add("table", tables.join(tid.to_string()), Ok(detail));
                }
            }
        }
    }

    fn log(&mut self) {
        let dir = self.files.log_dir();
        let found = match log::inspect(&self.disk, &dir) {
            Ok(found) => found,
            Err(error) => return self.add("log", dir, Err(io::Error::other(error.to_string()))),
        };
        self.log_start = found.start;
        self.begins = found.begins;
        let entries = found.ends.iter().filter(|(_, end)| end.offset > Offset(0));
        self.known = entries.map(|(key, _)| *key).collect();
        let torn = found.torn.map_or(String::new(), |torn| {
            format!(", a tail of {} bytes that was never synced", torn.bytes)
        });
        let stop = if found.clean { "stopped cleanly" } else { "not stopped cleanly" };
        let count = found.ends.len();
        let detail =
            format!("from {} to {}, {count} partitions, {stop}{torn}", found.start, found.end);
        self.add("log", dir.clone(), Ok(detail));
        for (path, used) in found.segments {
            self.items.push(Item {
                kind: "segment",
                path,
                bytes: used,
                detail: String::new(),
                damage: None,
            });
        }
        for damage in found.damage {
            let suspects: Vec<String> = damage.suspects.iter().map(ToString::to_string).collect();
            let suspects = match suspects.is_empty() {
                true => "every partition is whole without them".to_owned(),
                false => format!("partitions that may lack something: {}", suspects.join(" ")),
            };
            let text =
                format!("{} bytes at {}: {}; {suspects}", damage.bytes, damage.at, damage.reason);
            self.add("log", dir.clone(), Err(io::Error::other(text)));
        }
    }

    fn snapshots(&mut self) -> io::Result<()> {
        for (key, paths) in snapshots::list(&self.files.snapshots())? {
            let mut newest = None;
            for path in paths {
                if path.extension().is_some_and(|e| e == "tmp") {
                    self.add("part", path, Ok("in the making".into()));
                    continue;
                }
                let outcome = Snapshot::open(&self.disk, &path);
                if let Ok(snapshot) = &outcome {
                    self.known.remove(&key);
                    newest = newest.max(Some(snapshot.header().replay_from));
                }
                self.add("snapshot", path, outcome.and_then(|s| said(&s, key)));
            }
            if let Some(from) = newest.filter(|from| *from < self.log_start) {
                let start = self.log_start;
                let text =
                    format!("partition {key} needs the log from {from}, which begins at {start}");
                self.add("log", self.files.log_dir(), Err(io::Error::other(text)));
            }
        }
        // Without a snapshot it needs all of the log.
        for key in std::mem::take(&mut self.known) {
            let text = match self.begins.get(&key) {
                Some(Offset(1)) => continue,
                Some(first) => format!(
                    "partition {key} has no snapshot, and the log has it from entry {first} on only"
                ),
                None => format!("partition {key} has no snapshot, and nothing of it is in the log"),
            };
            self.add("log", self.files.log_dir(), Err(io::Error::other(text)));
        }
        Ok(())
    }

    fn set_aside(&mut self) -> io::Result<()> {
        for name in self.files.tails()? {
            let path = self.files.lost_and_found().join(name.to_string());
            let outcome = self.files.tail(name).and_then(|tail| {
                let (count, ended) = tail.count();
                let (entries, rows) = (count.entries, count.rows);
                match ended {
                    Ended::Whole | Ended::More(_) => Ok(format!("{entries} entries, {rows} rows")),
                    Ended::Damaged(why) => Err(io::Error::other(why)),
                }
            });
            self.add("tail", path, outcome);
        }
        let incoming = self.files.incoming_dir();
        if fs::exists(&incoming) {
            for path in fs::read_dir(&incoming)? {
                self.add("part", path, Ok("of a snapshot that arrives".into()));
            }
        }
        Ok(())
    }
}

fn said(snapshot: &Snapshot, key: PartitionKey) -> io::Result<String> {
    let header = snapshot.header();
    if header.key != key {
        return Err(io::Error::other(format!("it is of partition {}", header.key)));
    }
    let rows: u64 = header.indexes.iter().map(|index| index.rows).sum();
    let (offset, from) = (header.offset, header.replay_from);
    Ok(format!("partition {key}, up to offset {offset}, {rows} index entries, log from {from}"))
}
