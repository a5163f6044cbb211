//! A tablet without a port: what it holds, and what becomes of that.

mod crash;
#[path = "../../../../tests/src/crash/image.rs"]
#[allow(dead_code, unreachable_pub, clippy::disallowed_methods)]
mod image;
mod install;
#[path = "loading.rs"]
mod loads;
mod make;
mod manual;
mod model;
mod refuse;
mod retain;
mod stop;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stela_common::fs::Disk;
use stela_common::ids::{Incarnation, PartitionId};
use stela_common::table::{Table, Ttl};
use stela_common::wire::{Member, View};
use stela_proto::tablet as pb;
use tokio::sync::oneshot;

use super::*;
use crate::chores;
use crate::loading;
use crate::partition::Caller;
use crate::registry::{self, Told};
use crate::start;
use crate::store::query::Range;
use crate::store::tests::plain;
use crate::write::{self, Inbox, Request};

const KEY: PartitionKey = PartitionKey { tid: TableId(7), pid: PartitionId(1) };
const ME: TabletId = TabletId(1);

fn config(dir: &Path) -> Config {
    let mut config = Config::new("127.0.0.1:1".into(), vec![], dir.to_owned(), "test".into());
    config.segment_bytes = 64 << 10;
    config.log_keep = 8 << 20;
    // Nothing happens by itself.
    config.snapshots.look = Duration::from_secs(3600);
    config
}

/// What a directory holds, and nothing is done with it.
fn open_on(disk: Disk, config: Config) -> Arc<Node> {
    let files = Files::new(disk.clone(), config.dir.clone());
    stela_common::fs::create_dir_all(&disk, config.dir.join("tables")).unwrap();
    let (node, pending) = start::open(config, disk, files, CancellationToken::new()).unwrap();
    loading::run(&node, pending);
    node.look().adopt(&node, ME);
    node
}

/// A tablet that runs.
struct Running {
    node: Arc<Node>,
    inbox: Arc<Inbox>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.node.stop.cancel();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn row(key: &str, ts: u64, value: &[u8]) -> pb::Row {
    let dimensions = vec![pb::Dimension { index: 0, key: Bytes::copy_from_slice(key.as_bytes()) }];
    pb::Row { time: ts, dimensions, value: Bytes::copy_from_slice(value) }
}

impl Running {
    fn new(node: Arc<Node>) -> Self {
        let inbox = Arc::new(Inbox::default());
        tokio::spawn(write::drain(node.clone(), inbox.clone()));
        tokio::spawn(start::tell_synced(node.clone()));
        tokio::spawn(chores::tick(node.clone()));
        Self { node, inbox }
    }

    fn on(disk: Disk, dir: &Path) -> Self {
        Self::new(open_on(disk, config(dir)))
    }

    /// A partition whose replicas are these tablets, and which of them leads.
    fn told(&self, key: PartitionKey, epoch: u64, leader: TabletId, table: Table) {
        self.told_in_sync(key, (epoch, epoch), &[leader], table);
    }

    /// The same with an in-sync set, whose first one leads, as of a version.
    fn told_in_sync(
        &self,
        key: PartitionKey,
        (epoch, version): (u64, u64),
        in_sync: &[TabletId],
        table: Table,
    ) {
        let mine = self.node.incarnation;
        let run = |tablet| if tablet == ME { mine } else { Incarnation(9) };
        self.node.look().lease_until = Millis::now().plus(3_600_000);
        let member = |t: &TabletId| Member { tablet: *t, incarnation: run(*t), untrusted: false };
        let mut replicas = in_sync.to_vec();
        replicas.retain(|t| *t != ME);
        replicas.insert(0, ME);
        let view = View {
            key,
            epoch: Epoch(epoch),
            version: Version(version),
            leader: in_sync[0],
            leader_incarnation: run(in_sync[0]),
            in_sync: in_sync.iter().map(member).collect(),
            replicas,
            last_unclean: Epoch(0),
            uncleans: 0,
            surrendered: None,
            held: vec![],
        };
        let told = Told { views: vec![(table, view)], ..Told::default() };
        registry::apply(&self.node, told).unwrap();
    }

    async fn lead(&self, key: PartitionKey, epoch: u64) {
        self.lead_table(key, epoch, plain()).await;
    }

    async fn lead_table(&self, key: PartitionKey, epoch: u64, table: Table) {
        self.told(key, epoch, ME, table);
        until("it serves", || self.node.look().partitions[&key].core.serving()).await;
    }

    async fn say(&self, request: Request) -> pb::PutReply {
        let (sender, receiver) = oneshot::channel();
        self.inbox.offer(request, Caller::Unary(sender));
        receiver.await.unwrap()
    }

    async fn request(&self, key: PartitionKey, id: (u64, u64), rows: Vec<pb::Row>) -> u64 {
        let target = Some(pb::Target { tid: key.tid.0, pid: key.pid.0, epoch: 0 });
        let put = pb::PutRequest { target, session: id.0, seq: id.1, rows, ..Default::default() };
        let reply = self.say(Request::Put(put)).await;
        assert_eq!(reply.status.unwrap().code, 0);
        reply.offset
    }

    async fn put(&self, key: &str, ts: u64, value: &[u8]) -> u64 {
        self.request(KEY, (0, 0), vec![row(key, ts, value)]).await
    }

    async fn delete(&self, key: &str) {
        let target = Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 });
        let dimensions =
            vec![pb::Dimension { index: 0, key: Bytes::copy_from_slice(key.as_bytes()) }];
        let delete = pb::DeleteRequest { target, dimensions, ..Default::default() };
        assert_eq!(self.say(Request::Delete(delete)).await.status.unwrap().code, 0);
    }

    /// Ends as a crash does, when nobody is busy any more.
    async fn kill(self) {
        let node = self.node.clone();
        drop(self);
        until("nobody has the node any more", || Arc::strong_count(&node) == 1).await;
    }

    /// Ends cleanly.
    async fn stop(self) {
        let node = self.node.clone();
        drop(self);
        until("nobody has the node any more", || Arc::strong_count(&node) == 1).await;
        start::close(&node);
    }
}

/// All that can be read of a partition, and what else it is.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    /// Key, time, and of the value its length and checksum.
    rows: Vec<(String, u64, (usize, u32))>,
    last: Offset,
    applied: Offset,
    epochs: Vec<(Epoch, Offset)>,
    quarantine: Option<String>,
}

fn sum(value: &[u8]) -> (usize, u32) {
    (value.len(), crc32c::crc32c(value))
}

/// Everything that the log has of it is readable: after a start nobody has said yet how much is committed.
fn all_of(node: &Node, keys: &[&str]) -> Seen {
    {
        let mut inner = node.look();
        let p = inner.partitions.get_mut(&KEY).unwrap();
        let last = p.last();
        if p.quarantine.is_none() {
            p.apply(&node.log, KEY, last).unwrap();
        }
    }
    seen(node, KEY, keys)
}

fn seen(node: &Node, key: PartitionKey, keys: &[&str]) -> Seen {
    let inner = node.look();
    let p = &inner.partitions[&key];
    let range = Range { bytes: usize::MAX / 8, ..Range::default() };
    let rows = keys.iter().flat_map(|key| {
        let rows = p.store.scan(&node.log, 0, key.as_bytes(), range, 0).unwrap().rows;
        rows.into_iter().map(|(ts, value)| ((*key).to_owned(), ts, sum(&value)))
    });
    Seen {
        rows: rows.collect(),
        last: p.last(),
        applied: p.applied,
        epochs: p.epochs.iter().collect(),
        quarantine: p.quarantine.clone(),
    }
}

/// The files of a partition's snapshots.
fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let of = dir.join("snapshots").join(KEY.to_string());
    if stela_common::fs::exists(&of) { stela_common::fs::read_dir(of).unwrap() } else { vec![] }
}
