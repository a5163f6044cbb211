//! One server: a child process, its directory, and its log.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use stela_common::fs;

use super::bound;

/// A server says that it is ready within this time, or the demo fails.
const START: Duration = Duration::from_secs(20);
/// So many of its last lines are shown when it failed.
const TAIL: usize = 12;

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Nameserver,
    Tablet,
}

impl Role {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Nameserver => "nameserver",
            Self::Tablet => "tablet",
        }
    }
}

/// One server.
pub(super) struct Server {
    pub(super) role: Role,
    /// Its number among those of its role, from 1.
    pub(super) number: usize,
    pub(super) endpoint: String,
    pub(super) log: PathBuf,
    dir: PathBuf,
    child: Option<Child>,
    /// Lines that said "ready" in earlier runs.
    ready_before: usize,
}

impl Server {
    pub(super) fn new(role: Role, number: usize, endpoint: String, home: &Path) -> Self {
        let name = format!("{}{number}", role.word());
        let (dir, log) = (home.join(&name), home.join(format!("{name}.log")));
        Self { role, number, endpoint, log, dir, child: None, ready_before: 0 }
    }

    pub(super) fn name(&self) -> String {
        format!("{} {}", self.role.word(), self.number)
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Starts the process.
    pub(super) fn launch(&mut self, program: &Path, nameservers: &str, bound: bool) -> Result<()> {
        self.ready_before = self.times_ready();
        let output = fs::open_append(&self.log)
            .with_context(|| format!("cannot write {}", self.log.display()))?;
        let mut directory = OsString::from("--db_root_path=");
        directory.push(&self.dir);
        let mut arguments: Vec<OsString> = vec![
            format!("--role={}", self.role.word()).into(),
            format!("--endpoint={}", self.endpoint).into(),
            format!("--nameservers={nameservers}").into(),
            directory,
        ];
        if self.role == Role::Nameserver {
            arguments.push("--bootstrap".into());
        }
        let mut command = bound::command(program, &arguments, bound);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it has said that it is ready.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        while self.times_ready() <= self.ready_before {
            if let Some(status) = self.ended() {
                bail!(
                    "{} ended with {status} before it was ready; it said:\n{}",
                    self.name(),
                    self.tail()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} is not ready after {} s; it said:\n{}",
                    self.name(),
                    START.as_secs(),
                    self.tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// How it ended, if it did so by itself.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().ok().flatten()
    }

    /// kill -9. Tells which process it was.
    pub(super) fn kill(&mut self) -> Option<u32> {
        let mut child = self.child.take()?;
        // It may have ended by itself: then there is nothing left to do.
        let _ = child.kill();
        let _ = child.wait();
        Some(child.id())
    }

    /// SIGTERM: it stops when it has finished what it does.
    pub(super) fn terminate(&self) {
        let pid = self.pid().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Lets the process live on when this is dropped.
    pub(super) fn release(&mut self) {
        self.child = None;
    }

    fn text(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn times_ready(&self) -> usize {
        let start = format!("stela {} ready at ", self.role.word());
        self.text().lines().filter(|line| line.starts_with(&start)).count()
    }

    /// Its last lines, indented.
    pub(super) fn tail(&self) -> String {
        let text = self.text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..]
            .iter()
            .map(|line| format!("  | {line}\n"))
            .collect()
    }

    /// Lines in which it says that it panicked.
    pub(super) fn panics(&self) -> Vec<String> {
        let lines = self.text();
        lines
            .lines()
            .filter(|l| l.contains("panicked at"))
            .map(|l| format!("{}: {l}", self.name()))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
