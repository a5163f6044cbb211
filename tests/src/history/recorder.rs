//! Writing a history while it happens.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use serde::Serialize;
use stela_common::fs::{self, Disk};

use super::event::{Answer, End, Event, Head, Line, Op, What};

/// The name of the file.
const FILE: &str = "history.jsonl";

/// A history that is being written. A clone writes the same one.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    path: PathBuf,
    began: Instant,
    ids: AtomicU64,
    out: Mutex<Out>,
}

struct Out {
    file: File,
    /// Why the history is not whole.
    broken: Option<std::io::Error>,
}

/// An operation that was asked for: it ends once, or nobody knows.
#[must_use = "an operation that was asked for has an end"]
pub struct Call {
    id: u64,
    process: u64,
    op: Op,
}

impl History {
    /// Begins one in `dir`, in place of what is there.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(dir: &Path, drill: &str, seed: u64) -> Result<Self> {
        let path = dir.join(FILE);
        let begin = || {
            fs::create_dir_all(&Disk::real(), dir)?;
            fs::write(&path, "")?;
            fs::open_append(&path)
        };
        let file = begin().with_context(|| format!("cannot write {}", path.display()))?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let head = Head { drill: drill.into(), seed, commit: commit(), started };
        let out = Mutex::new(Out { file, broken: None });
        let inner = Inner { path, began: Instant::now(), ids: AtomicU64::new(1), out };
        inner.write(|_| head);
        Ok(Self(Arc::new(inner)))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What is about to be asked.
    pub fn invoke(&self, process: u64, op: Op) -> Call {
        let call = Call { id: self.0.ids.fetch_add(1, Ordering::Relaxed), process, op };
        self.event(&call, What::Invoke, Answer::default());
        call
    }

    /// It was done.
    pub fn ok(&self, call: Call, answer: Answer) {
        self.event(&call, What::End(End::Ok), answer);
    }

    /// It was not done, and will not be.
    pub fn fail(&self, call: Call, why: impl Into<String>) {
        let answer = Answer { why: Some(why.into()), ..Answer::default() };
        self.event(&call, What::End(End::Fail), answer);
    }

    /// Nobody knows. It is never tried again under its name.
    pub fn info(&self, call: Call, why: impl Into<String>) {
        let answer = Answer { why: Some(why.into()), ..Answer::default() };
        self.event(&call, What::End(End::Info), answer);
    }

    /// What the drill did: for whoever reads the file.
    pub fn note(&self, what: impl Into<String>) {
        let note = what.into();
        self.0.write(|t| Line::Note { t, note });
    }

    /// Everything is written.
    ///
    /// # Errors
    /// It is not: there is no verdict.
    pub fn finish(&self) -> Result<()> {
        match self.0.out.lock().broken.take() {
            None => Ok(()),
            Some(e) => Err(e).with_context(|| format!("cannot write {}", self.0.path.display())),
        }
    }

    fn event(&self, call: &Call, what: What, answer: Answer) {
        let Call { id, process, op } = call;
        let (id, p, op) = (*id, *process, op.clone());
        self.0.write(|t| Line::Event(Event { t, id, p, what, op, answer }));
    }
}

impl Inner {
    /// The time is taken under the lock, so that times stand in order.
    fn write<T: Serialize>(&self, line: impl FnOnce(u64) -> T) {
        let mut out = self.out.lock();
        let t = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let written = serde_json::to_vec(&line(t)).map_err(Into::into).and_then(|mut text| {
            text.push(b'\n');
            out.file.write_all(&text)
        });
        if let Err(e) = written {
            out.broken.get_or_insert(e);
        }
    }
}

/// The commit of the sources, as git tells it.
fn commit() -> String {
    std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "describe", "--always", "--dirty"])
        .output()
        .ok()
        .filter(|o| o.status.success())
        .map_or_else(|| "unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
