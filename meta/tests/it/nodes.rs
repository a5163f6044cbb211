//! A group of nameservers that a test can start, kill and look at.
//!
//! A kill drops the runtime without a clean stop: nothing is flushed that was not, no mark is written. (What the
//! operating system has is not lost by it; that is the crash test's of the log.)

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use stela_meta::group::{Group, Leadership, ProposeError};
use stela_meta::run::run_with;
use stela_meta::{Config, RaftConfig, StartError};
use stela_meta_state::command::{Command, Reply, RequestId};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What a test waits at most for what must come.
pub const SOON: Duration = Duration::from_secs(30);

/// A running nameserver.
pub struct Node {
    runtime: Runtime,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), StartError>>,
    ready: Receiver<()>,
    pub group: Group,
}

/// The nameservers of one cluster.
pub struct Nodes {
    root: tempfile::TempDir,
    pub configs: Vec<Config>,
    pub running: Vec<Option<Node>>,
}

/// Small sizes, so that segments roll and snapshots are made.
pub fn small() -> RaftConfig {
    RaftConfig {
        segment_bytes: 256 << 10,
        snapshot_every: 100,
        keep_entries: 50,
        ..RaftConfig::default()
    }
}

/// Fails the test when `what` has not come true in time.
pub fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !check() {
        assert!(Instant::now() < deadline, "it did not come true in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a nameserver; an error: why it did not start.
pub fn start(config: &Config) -> Result<Node, StartError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let stop = CancellationToken::new();
    let (tell_group, group) = channel();
    let (tell_ready, ready) = channel();
    let mut ended = {
        let (config, stop) = (config.clone(), stop.clone());
        runtime.spawn(async move {
            let ready = move |_| tell_ready.send(()).unwrap_or_default(); // a test that does not wait for it
            run_with(config, stop, ready, move |group, _| tell_group.send(group.clone()).unwrap())
                .await
        })
    };
    match group.recv() {
        Ok(group) => Ok(Node { runtime, stop, ended, ready, group }),
        Err(_) => Err(runtime.block_on(&mut ended).unwrap().unwrap_err()),
    }
}

impl Node {
    pub fn run<F: Future>(&self, what: F) -> F::Output {
        self.runtime.block_on(what)
    }

    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    pub fn await_ready(&self) {
        self.ready.recv_timeout(SOON).expect("it is not ready in time");
    }

    pub fn leadership(&self) -> Leadership {
        self.group.leadership().borrow().clone()
    }

    pub fn propose(&self, command: Command) -> Result<(Reply, u64), ProposeError> {
        self.run(self.group.propose(command, None))
    }

    pub fn propose_as(
        &self,
        command: Command,
        client: u64,
        seq: u64,
    ) -> Result<(Reply, u64), ProposeError> {
        self.run(self.group.propose(command, Some(RequestId { client, seq })))
    }

    /// The databases after a linearizable read.
    pub fn databases(&self) -> Vec<String> {
        self.run(self.group.linearizable()).expect("a linearizable read");
        self.group.store().read(|state| state.databases.keys().cloned().collect())
    }

    pub fn waits_for(&self, text: &str) -> bool {
        self.group.waiting().borrow().as_ref().is_some_and(|what| what.contains(text))
    }

    fn kill(self) {
        let Self { runtime, group, .. } = self;
        drop(group);
        runtime.shutdown_background();
    }

    /// SIGTERM: waits for the clean end.
    pub fn stop(self) -> Result<(), StartError> {
        let Self { runtime, stop, ended, group, .. } = self;
        drop(group);
        stop.cancel();
        runtime.block_on(ended).unwrap()
    }
}

impl Nodes {
    /// The configurations of so many nameservers, none of them running.
    pub fn new(count: usize, raft: RaftConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let [a, b, c]: [u8; 3] = rand::random();
        let endpoint =
            |n: usize| format!("127.{}.{b}.{}:{}", a.clamp(1, 254), c.clamp(1, 254), 7001 + n);
        let list: Vec<String> = (0..count).map(endpoint).collect();
        let config = |n: usize| {
            let dir = root.path().join(n.to_string());
            let config = Config::new(list[n].clone(), list.clone(), dir, "test".into());
            Config { bootstrap: true, raft, ..config }
        };
        let configs = (0..count).map(config).collect();
        Self { configs, running: (0..count).map(|_| None).collect(), root }
    }

    /// The same, running and ready.
    pub fn ready(count: usize, raft: RaftConfig) -> Self {
        let mut nodes = Self::new(count, raft);
        nodes.start_all();
        nodes
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn dir(&self, n: usize) -> PathBuf {
        self.configs[n].dir.clone()
    }

    /// Starts it; one that was killed just now still holds its directory for a moment.
    pub fn start(&mut self, n: usize) {
        let deadline = Instant::now() + SOON;
        let node = loop {
            match start(&self.configs[n]) {
                Err(StartError::Lock(_) | StartError::Listen { .. })
                    if Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                other => break other.unwrap(),
            }
        };
        self.running[n] = Some(node);
    }

    pub fn start_all(&mut self) {
        let down: Vec<usize> =
            (0..self.configs.len()).filter(|n| self.running[*n].is_none()).collect();
        down.iter().for_each(|n| self.start(*n));
        down.iter().for_each(|n| self.node(*n).await_ready());
    }

    pub fn node(&self, n: usize) -> &Node {
        self.running[n].as_ref().expect("it does not run")
    }

    pub fn kill(&mut self, n: usize) {
        self.running[n].take().expect("it does not run").kill();
    }

    pub fn stop(&mut self, n: usize) {
        self.running[n].take().expect("it does not run").stop().unwrap();
    }

    /// The one that leads, once a quorum says so.
    pub fn leader(&self) -> usize {
        let mut found = 0;
        until("somebody leads", || {
            let leads = |n: &usize| {
                self.running[*n]
                    .as_ref()
                    .is_some_and(|x| x.leadership().here && x.run(x.group.confirm()).is_ok())
            };
            (0..self.configs.len()).find(leads).map(|n| found = n).is_some()
        });
        found
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for node in self.running.iter_mut().filter_map(Option::take) {
            node.kill();
        }
    }
}

/// `createdb`.
pub fn create(name: impl Into<String>) -> Command {
    Command::CreateDatabase { name: name.into() }
}
