//! A cluster of real processes on loopback.
//!
//! Each cluster has an address of its own in 127.0.0.0/8, so that fixed ports never collide. The servers are this very
//! binary, started again as `stela`; each one's output goes to a file beside its directory. Where a drill works on the
//! links between them, each is known by the address of a proxy ([`Net`]). Whatever is still running when the cluster is
//! dropped is killed, by its own id.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rustix::process::{Pid, Signal, kill_process};
use stela_common::client::{Client, Options};
use stela_common::fs;
use stela_proto::tablet::tablet_client::TabletClient;
use tonic::transport::{Channel, Endpoint};

use crate::faults::{self, Cut, Faults, Ordered};
use crate::net::Net;

/// A server behind a proxy listens at a port that is so much higher.
const BEHIND: usize = 20_000;

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
    /// Where it is reached.
    pub endpoint: String,
    /// Flags and environment of its next start, beside those that every server gets.
    pub extra: Extra,
    /// Its directory.
    pub dir: PathBuf,
    /// What it is started as; `None`: this very program.
    pub program: Option<PathBuf>,
    listen: String,
    control: PathBuf,
    output: PathBuf,
    child: Option<Child>,
    ready_lines: usize,
}

/// What a server is started with beside what it needs.
#[derive(Clone, Default, Debug)]
pub struct Extra {
    /// `--name=value`
    pub flags: Vec<String>,
    /// Names and values.
    pub environment: Vec<(String, String)>,
}

/// What a cluster is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How many nameservers.
    pub nameservers: usize,
    /// How many tablets.
    pub tablets: usize,
    /// Every link goes through a proxy.
    pub links: bool,
    /// Every server can be made to fail from within.
    pub faults: bool,
    /// So it can, and the power can be cut: every server notes what it has not synced.
    pub power: bool,
    /// Of every nameserver.
    pub nameserver: Extra,
    /// Of every tablet.
    pub tablet: Extra,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            nameservers: 3,
            tablets: 3,
            links: false,
            faults: false,
            power: false,
            nameserver: Extra::default(),
            tablet: Extra::default(),
        }
    }
}

/// Servers that belong together.
pub struct Cluster {
    root: tempfile::TempDir,
    nameservers: String,
    net: Option<Net>,
    ip: [u8; 3],
    faults: bool,
    orders: u64,
    /// All of them, nameservers first.
    pub servers: Vec<Server>,
}

impl Cluster {
    /// Starts a new cluster and waits until every server is ready.
    ///
    /// # Errors
    /// A server did not become ready in time: its output is shown.
    pub async fn start(setup: &Setup) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("stela-drill-").tempdir()?;
        let [a, b, c]: [u8; 3] = rand::random();
        let (a, c) = (a.clamp(1, 254), c.clamp(1, 250));
        let ip = format!("127.{a}.{b}.{c}");
        let place = |role: Role, n: usize| {
            let port = if role == Role::Nameserver { 6527 } else { 9527 } + n;
            let name = format!("{}{n}", role.word());
            let extra =
                if role == Role::Tablet { &setup.tablet } else { &setup.nameserver }.clone();
            Server {
                role,
                endpoint: format!("{ip}:{port}"),
                extra,
                listen: format!("{ip}:{}", if setup.links { port + BEHIND } else { port }),
                dir: root.path().join(&name),
                program: None,
                control: root.path().join(format!("{name}.faults")),
                output: root.path().join(format!("{name}.log")),
                child: None,
                ready_lines: 0,
            }
        };
        let servers: Vec<Server> = (0..setup.nameservers)
            .map(|n| place(Role::Nameserver, n))
            .chain((0..setup.tablets).map(|n| place(Role::Tablet, n)))
            .collect();
        let list: Vec<_> = servers
            .iter()
            .filter(|s| s.role == Role::Nameserver)
            .map(|s| s.endpoint.clone())
            .collect();
        let net = if setup.links { Some(Net::start()?) } else { None };
        if let Some(net) = &net {
            for (at, server) in servers.iter().enumerate() {
                net.place(at, server.endpoint.parse()?, server.listen.parse()?);
            }
        }
        if setup.power {
            for server in &servers {
                fs::create_dir_all(&fs::Disk::real(), faults::undo_dir(&server.control))?;
            }
        }
        let nameservers = list.join(",");
        let mut cluster = Self {
            nameservers,
            net,
            ip: [a, b, c],
            faults: setup.faults || setup.power,
            orders: 0,
            servers,
            root,
        };
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
        self.client_of(0, Duration::from_secs(30)).await
    }

    /// A client of a group: where there are links, they know it by where it comes from. `timeout`: of its requests.
    ///
    /// # Errors
    /// No nameserver answers.
    pub async fn client_of(&self, group: u8, timeout: Duration) -> Result<Client> {
        let nameservers = self.nameservers.split(',').map(Into::into).collect();
        let [a, b, c] = self.ip;
        let source = IpAddr::from([127, a, b, c + 1 + group]);
        if let Some(net) = &self.net {
            net.clients(source, group);
        }
        let options = Options {
            timeout,
            source: self.net.is_some().then_some(source),
            ..Options::new(nameservers)
        };
        Ok(Client::connect(options).await?)
    }

    /// A tablet, asked directly by a client of that group.
    ///
    /// # Errors
    /// Its endpoint is none.
    pub fn tablet_at(&self, at: usize, group: u8) -> Result<TabletClient<Channel>> {
        let [a, b, c] = self.ip;
        let source = self.net.as_ref().map(|_| IpAddr::from([127, a, b, c + 1 + group]));
        let endpoint = Endpoint::from_shared(format!("http://{}", self.servers[at].endpoint))?;
        Ok(TabletClient::new(endpoint.local_address(source).connect_lazy()))
    }

    /// The links.
    ///
    /// # Errors
    /// The cluster was set up without.
    pub fn net(&self) -> Result<&Net> {
        self.net.as_ref().context("this cluster has no links")
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
        let mut command = match &server.program {
            Some(program) => Command::new(program),
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(AS_STELA);
                command
            }
        };
        command
            .arg(format!("--role={}", server.role.word()))
            .arg(format!("--endpoint={}", server.endpoint))
            .arg(format!("--nameservers={nameservers}"))
            .arg(format!("--db_root_path={}", server.dir.display()))
            .args(&server.extra.flags)
            .envs(server.extra.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        if self.faults {
            command.env(faults::ENVIRONMENT, &server.control);
        }
        if server.role == Role::Nameserver {
            command.arg("--bootstrap");
        }
        if server.listen != server.endpoint {
            command.arg(format!("--listen={}", server.listen));
        }
        let child = command.spawn().context("cannot start a server")?;
        if let Some(net) = &self.net {
            net.up(at, child.id());
        }
        server.child = Some(child);
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
            if let Err(e) = self.await_ready(at).await {
                // It may be another one for which it waits.
                let others = self.servers.iter_mut().map(Server::state);
                bail!("{e:#}\n{}", others.collect::<Vec<_>>().join("\n"));
            }
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
        if let Some(net) = &self.net {
            net.down(at);
        }
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
        self.signal(at, Signal::TERM)?;
        if let Some(net) = &self.net {
            net.down(at);
        }
        let server = &mut self.servers[at];
        let mut child =
            server.child.take().with_context(|| format!("{} does not run", server.endpoint))?;
        let status = child.wait()?;
        ensure!(status.success(), "{} ended with {status}:\n{}", server.endpoint, server.tail());
        Ok(())
    }

    /// SIGSTOP: it stands still, and its connections stay.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self, at: usize) -> Result<()> {
        self.signal(at, Signal::STOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self, at: usize) -> Result<()> {
        self.signal(at, Signal::CONT)
    }

    fn signal(&self, at: usize, signal: Signal) -> Result<()> {
        let server = &self.servers[at];
        let child = server.child.as_ref();
        let child = child.with_context(|| format!("{} does not run", server.endpoint))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(pid.context("no process id")?, signal)?)
    }

    /// That is wrong inside a server from now on, and nothing else; of one that is down, from its next start on.
    ///
    /// # Errors
    /// It does not hear of it, or the cluster was set up without.
    pub async fn order(&mut self, at: usize, faults: Faults) -> Result<()> {
        ensure!(self.faults, "this cluster has no faults");
        self.orders += 1;
        let ordered = Ordered { number: self.orders, faults };
        faults::order(&self.servers[at].control, ordered, self.is_up(at)).await
    }

    /// The power of a server's machine went when it was killed: what it had not synced is lost, or a part of it. Tells how
    /// many operations are undone, of how many that were not durable.
    ///
    /// # Errors
    /// It is up, or the cluster was set up without.
    pub fn power_cut(&self, at: usize, cut: Cut, random: &mut StdRng) -> Result<(usize, usize)> {
        let server = &self.servers[at];
        ensure!(server.child.is_none(), "{} runs", server.endpoint);
        faults::power_cut(&server.dir, &faults::undo_dir(&server.control), cut, random)
    }

    /// Waits until a server that runs ends by itself; `false`: it has not within `limit`.
    ///
    /// # Errors
    /// It does not run.
    pub async fn await_end(&mut self, at: usize, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        let server = &mut self.servers[at];
        let context = format!("{} does not run", server.endpoint);
        while server.child.as_mut().with_context(|| context.clone())?.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.child = None;
        if let Some(net) = &self.net {
            net.down(at);
        }
        Ok(true)
    }

    /// Does it run, as far as is known?
    #[must_use]
    pub fn is_up(&self, at: usize) -> bool {
        self.servers[at].child.is_some()
    }

    /// Removes the directory of a server that is down.
    ///
    /// # Errors
    /// It is up, or the directory cannot be removed.
    pub fn wipe(&self, at: usize) -> Result<()> {
        let server = &self.servers[at];
        ensure!(server.child.is_none(), "{} runs", server.endpoint);
        Ok(fs::remove_dir_all(&server.dir)?)
    }

    /// Everything is to work again: links pass, whoever stands still goes on, whoever is down is started.
    ///
    /// # Errors
    /// A server does not become ready.
    pub async fn heal(&mut self) -> Result<()> {
        if let Some(net) = &self.net {
            net.heal();
        }
        for at in 0..self.servers.len() {
            if self.is_up(at) {
                self.resume(at)?;
            }
        }
        self.launch_all().await
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

    /// Has that server ended by itself, since it was started? Then it counts as down.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn reap(&mut self, at: usize) -> Result<bool> {
        let ended = match &mut self.servers[at].child {
            Some(child) => child.try_wait()?.is_some(),
            None => false,
        };
        if ended {
            self.servers[at].child = None;
        }
        Ok(ended)
    }

    /// Runs one command of `ns_client` and answers what it printed on standard output.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ns_client(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(std::env::current_exe()?)
            .arg(AS_STELA)
            .arg("--role=ns_client")
            .arg(format!("--zk_cluster={}", self.nameservers))
            .arg("--interactive=false")
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What the kernel says of a server that runs.
    pub fn status(&self, at: usize) -> Option<String> {
        let child = self.servers[at].child.as_ref()?;
        fs::read_to_string(format!("/proc/{}/status", child.id())).ok()
    }

    /// Memory of a server that runs, KiB.
    pub fn resident(&self, at: usize) -> Option<u64> {
        let status = self.status(at)?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// Every line in which a server says that it panicked.
    #[must_use]
    pub fn panics(&self) -> Vec<String> {
        let lines = |s: &Server| -> Vec<String> {
            s.printed()
                .lines()
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
    /// What it has printed so far.
    #[must_use]
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn count_ready(&self) -> usize {
        self.printed()
            .lines()
            .filter(|l| l.starts_with("stela ") && l.contains(" ready at "))
            .count()
    }

    /// Whether it runs, and what it said last.
    fn state(&mut self) -> String {
        let status = self.child.as_mut().map(|child| child.try_wait());
        format!("{}: {status:?}\n{}", self.endpoint, self.tail())
    }

    fn tail(&self) -> String {
        let text = self.printed();
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
