//! The servers of the demo: planned, started, stopped, and named when something is wrong with them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use stela_common::client::{Client, Options};
use stela_common::fs;
use tokio::sync::watch;

use super::address::{self, NAMESERVERS, TABLETS};
use super::home::Home;
use super::server::{Role, Server};

/// A server that was asked to stop is killed after this time.
const STOP: Duration = Duration::from_secs(3);
/// How long the demo's client tries a request: longer than any failover.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which processes run, by name.
pub(super) type Processes = Vec<(String, u32)>;

/// Three nameservers and three tablets.
pub(super) struct Cluster {
    home: Home,
    program: PathBuf,
    bound: bool,
    /// Nameservers first.
    pub(super) servers: Vec<Server>,
    processes: watch::Sender<Processes>,
}

impl Cluster {
    /// Chooses addresses and directories; nothing runs yet. With `keep` the servers may outlive this process.
    pub(super) fn plan(home: Home, keep: bool) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let ip = address::free()?;
        let server =
            |role, at: usize, port| Server::new(role, at + 1, format!("{ip}:{port}"), home.path());
        let nameservers = NAMESERVERS
            .into_iter()
            .enumerate()
            .map(|(at, port)| server(Role::Nameserver, at, port));
        let tablets =
            TABLETS.into_iter().enumerate().map(|(at, port)| server(Role::Tablet, at, port));
        let servers = nameservers.chain(tablets).collect();
        Ok(Self { home, program, bound: !keep, servers, processes: watch::Sender::new(Vec::new()) })
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    pub(super) fn program(&self) -> &std::path::Path {
        &self.program
    }

    /// The endpoints of a role's servers.
    pub(super) fn endpoints(&self, role: Role) -> Vec<String> {
        self.servers.iter().filter(|s| s.role == role).map(|s| s.endpoint.clone()).collect()
    }

    /// The same as a person reads it: the address once, and the ports.
    pub(super) fn ports(&self, role: Role) -> String {
        let endpoints = self.endpoints(role);
        let rest = endpoints
            .iter()
            .skip(1)
            .filter_map(|e| e.rsplit_once(':'))
            .map(|(_, port)| format!(", :{port}"));
        endpoints.iter().take(1).cloned().chain(rest).collect()
    }

    /// The list of nameservers, as flags take it.
    pub(super) fn nameservers(&self) -> String {
        self.endpoints(Role::Nameserver).join(",")
    }

    /// The server at that endpoint.
    pub(super) fn find(&self, endpoint: &str) -> Option<usize> {
        self.servers.iter().position(|s| s.endpoint == endpoint)
    }

    /// Which processes run, now and as that changes.
    pub(super) fn processes(&self) -> watch::Receiver<Processes> {
        self.processes.subscribe()
    }

    /// Starts a server.
    pub(super) fn launch(&mut self, at: usize) -> Result<()> {
        let nameservers = self.nameservers();
        self.servers[at].launch(&self.program, &nameservers, self.bound)?;
        self.note_processes();
        Ok(())
    }

    /// Starts all servers of a role and waits until they are ready.
    pub(super) async fn launch_all(&mut self, role: Role) -> Result<()> {
        let all: Vec<usize> =
            (0..self.servers.len()).filter(|at| self.servers[*at].role == role).collect();
        for at in &all {
            self.launch(*at)?;
        }
        for at in all {
            self.servers[at].ready().await?;
        }
        Ok(())
    }

    /// kill -9 of one. Tells which process it was.
    pub(super) fn kill(&mut self, at: usize) -> Option<u32> {
        let pid = self.servers[at].kill();
        self.note_processes();
        pid
    }

    /// A client of the cluster.
    pub(super) async fn client(&self) -> Result<Client> {
        let options =
            Options { timeout: PATIENCE, ..Options::new(self.endpoints(Role::Nameserver)) };
        Ok(Client::connect(options).await?)
    }

    /// Stops every server, in order at first.
    pub(super) async fn stop(&mut self) {
        self.servers.iter().rev().for_each(Server::terminate);
        let deadline = Instant::now() + STOP;
        let runs = |s: &mut Server| s.pid().is_some() && s.ended().is_none();
        while Instant::now() < deadline && self.servers.iter_mut().any(runs) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for server in &mut self.servers {
            server.kill();
        }
    }

    /// Lets the servers live on.
    pub(super) fn release(mut self) {
        self.servers.iter_mut().for_each(Server::release);
    }

    /// Removes what the demo has put on the disk.
    pub(super) fn remove(&self) -> Result<()> {
        self.home.remove()
    }

    /// The servers that ended by themselves, and what they said last. Empty if none did.
    pub(super) fn obituaries(&mut self) -> String {
        let mut text = String::new();
        for server in &mut self.servers {
            if let Some(status) = server.ended() {
                text +=
                    &format!("{} ended with {status}; it said:\n{}", server.name(), server.tail());
            }
        }
        text
    }

    /// Every line in which a server says that it panicked.
    pub(super) fn panics(&self) -> Vec<String> {
        self.servers.iter().flat_map(Server::panics).collect()
    }

    /// For a look after a failure.
    pub(super) fn where_the_logs_are(&self) -> String {
        let logs = self.servers.iter().map(|s| &s.log).filter(|log| fs::exists(log));
        let logs: String = logs.map(|log| format!("  {}\n", log.display())).collect();
        format!("the servers' logs are kept, and their data beside them:\n{logs}")
    }

    fn note_processes(&self) {
        let name = |s: &Server| Some((format!("{}{}", s.role.word(), s.number), s.pid()?));
        self.processes.send_replace(self.servers.iter().filter_map(name).collect());
    }
}
