//! A cluster of real processes on loopback.
//!
//! Each cluster has an address of its own in 127.0.0.0/8, so that fixed ports never collide. The servers are this very
//! binary, started again as `stela`; each one's output goes to a file beside its directory. Whatever is still running
//! when the cluster is dropped is killed, by its own id.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use stela_common::client::{Client, Options};
use stela_common::fs;

/// The word that makes this binary run as `stela`.
pub const AS_STELA: &str = "as-stela";

/// Which of the two servers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A member of the meta group.
    Nameserver,
    /// A data server.
    Tablet,
}

impl Role {
    fn word(self) -> &'static str {
        match self {
            Self::Nameserver => "nameserver",
            Self::Tablet => "tablet",
        }
    }
}

/// One server.
pub struct Server {
    /// Which.
    pub role: Role,
    /// Where.
    pub endpoint: String,
    dir: PathBuf,
    output: PathBuf,
    child: Option<Child>,
    ready_lines: usize,
}

/// Servers that belong together.
pub struct Cluster {
    root: tempfile::TempDir,
    nameservers: String,
    /// All of them, nameservers first.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts a new cluster and waits until every server is ready.
    ///
    /// # Errors
    /// A server did not become ready in time: its output is shown.
    pub async fn start(nameservers: usize, tablets: usize) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("stela-drill-").tempdir()?;
        let [a, b, c]: [u8; 3] = rand::random();
        let ip = format!("127.{}.{}.{}", a.clamp(1, 254), b, c.clamp(1, 254));
        let place = |role: Role, n: usize| {
            let port = if role == Role::Nameserver { 6527 } else { 9527 } + n;
            let name = format!("{}{n}", role.word());
            Server {
                role,
                endpoint: format!("{ip}:{port}"),
                dir: root.path().join(&name),
                output: root.path().join(format!("{name}.log")),
                child: None,
                ready_lines: 0,
            }
        };
        let servers: Vec<Server> = (0..nameservers)
            .map(|n| place(Role::Nameserver, n))
            .chain((0..tablets).map(|n| place(Role::Tablet, n)))
            .collect();
        let list: Vec<_> = servers
            .iter()
            .filter(|s| s.role == Role::Nameserver)
            .map(|s| s.endpoint.clone())
            .collect();
        let mut cluster = Self { nameservers: list.join(","), servers, root };
        cluster.launch_all().await?;
        Ok(cluster)
    }

    /// The list of nameservers, as flags take it.
    #[must_use]
    pub fn nameservers(&self) -> &str {
        &self.nameservers
    }

    /// A client of it.
    ///
    /// # Errors
    /// No nameserver answers.
    pub async fn client(&self) -> Result<Client> {
        let nameservers = self.nameservers.split(',').map(Into::into).collect();
        Ok(Client::connect(Options {
            nameservers,
            cluster: None,
            timeout: Duration::from_secs(30),
        })
        .await?)
    }

    /// Starts a server that is down.
    ///
    /// # Errors
    /// It is up, or cannot be started.
    pub fn launch(&mut self, at: usize) -> Result<()> {
        let nameservers = self.nameservers.clone();
        let server = &mut self.servers[at];
        ensure!(server.child.is_none(), "{} runs already", server.endpoint);
        server.ready_lines = server.count_ready();
        let output = fs::open_append(&server.output)?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg(AS_STELA)
            .arg(format!("--role={}", server.role.word()))
            .arg(format!("--endpoint={}", server.endpoint))
            .arg(format!("--nameservers={nameservers}"))
            .arg(format!("--db_root_path={}", server.dir.display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if server.role == Role::Nameserver {
            command.arg("--bootstrap");
        }
        server.child = Some(command.spawn().context("cannot start a server")?);
        Ok(())
    }

    /// Starts every server that is down, in the given order of the list, and waits until all are ready.
    ///
    /// # Errors
    /// One did not become ready.
    pub async fn launch_all(&mut self) -> Result<()> {
        for at in 0..self.servers.len() {
            if self.servers[at].child.is_none() {
                self.launch(at)?;
            }
        }
        for at in 0..self.servers.len() {
            self.await_ready(at).await?;
        }
        Ok(())
    }

    /// Waits until a server that was started has said that it is ready.
    ///
    /// # Errors
    /// It ended, or said nothing for a minute.
    pub async fn await_ready(&mut self, at: usize) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        let server = &mut self.servers[at];
        while server.count_ready() <= server.ready_lines {
            if let Some(child) = &mut server.child
                && let Some(status) = child.try_wait()?
            {
                bail!("{} ended with {status}:\n{}", server.endpoint, server.tail());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is not ready after a minute:\n{}",
                server.endpoint,
                server.tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// kill -9.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, at: usize) -> Result<()> {
        let server = &mut self.servers[at];
        let mut child =
            server.child.take().with_context(|| format!("{} does not run", server.endpoint))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for the clean end.
    ///
    /// # Errors
    /// It does not run, or ends with another status than 0.
    pub fn stop(&mut self, at: usize) -> Result<()> {
        let server = &mut self.servers[at];
        let mut child =
            server.child.take().with_context(|| format!("{} does not run", server.endpoint))?;
        let pid =
            i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}:\n{}", server.endpoint, server.tail());
        Ok(())
    }

    /// The server at that endpoint.
    #[must_use]
    pub fn find(&self, endpoint: &str) -> Option<usize> {
        self.servers.iter().position(|s| s.endpoint == endpoint)
    }

    /// The positions of the servers of a role.
    #[must_use]
    pub fn of(&self, role: Role) -> Vec<usize> {
        (0..self.servers.len()).filter(|at| self.servers[*at].role == role).collect()
    }

    /// Every line in which a server says that it panicked.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let lines = |s: &Server| -> Vec<String> {
            let text = fs::read_to_string(&s.output).unwrap_or_default();
            text.lines()
                .filter(|l| l.contains("panicked at"))
                .map(|l| format!("{}: {l}", s.endpoint))
                .collect()
        };
        self.servers.iter().flat_map(lines).collect()
    }

    /// Keeps the directories for a look after a failure, and says where they are.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        for server in &mut self.servers {
            server.end();
        }
        let root = std::mem::replace(
            &mut self.root,
            tempfile::tempdir().unwrap_or_else(|e| panic!("no temporary directory: {e}")),
        );
        root.keep()
    }
}

impl Server {
    fn count_ready(&self) -> usize {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        text.lines().filter(|l| l.starts_with("stela ") && l.contains(" ready at ")).count()
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.output).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself: there is nothing left to do then.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in &mut self.servers {
            server.end();
        }
    }
}
