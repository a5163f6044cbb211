//! The follower's side: fetches what its cores want, verifies it, and installs it if it is still wanted then.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stela_common::clock::Millis;
use stela_common::ids::{PartitionKey, TabletId};
use stela_proto::replication as pb;
use stela_proto::replication::replication_client::ReplicationClient;
use tonic::Streaming;
use tonic::transport::Endpoint;

use super::part::{self, Part};
use super::send::blocking;
use super::{AT_ONCE, CHUNK, Progress, Want};
use crate::node::{Address, Node};
use crate::partition::Partition;
use crate::snapshot::{Header, Snapshot};

const CONNECT: Duration = Duration::from_millis(500);
/// How often it is looked whether a transfer is still wanted, and what leaders keep is still needed.
const LOOK: Duration = Duration::from_secs(1);
/// A leader whose disk has less room than so many segments keeps no log for others.
const FULL: u64 = 4;

/// Why an attempt did not end with a copy that was made anew.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The way there, or the leader, is in a bad state: it passes.
    #[error("{0}")]
    Away(String),
    /// Nobody waits for it any more.
    #[error("it is no longer wanted")]
    Unwanted,
    /// The leader does not give it, or what it gave cannot be used, or the disk does not take it: somebody should look.
    #[error("{0}")]
    Refused(String),
}

impl From<tonic::Status> for Failed {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::FailedPrecondition | tonic::Code::InvalidArgument => {
                Self::Refused(status.message().into())
            }
            _ => Self::Away(status.message().into()),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// Fetches whatever is wanted, and lets go of what is kept for others for too long, until the node stops.
pub async fn run(node: Arc<Node>) {
    forget_strangers(&node);
    loop {
        while let Some((key, want)) = begin(&node) {
            tokio::spawn(attempt(node.clone(), key, want));
        }
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = node.transfers.wake.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        tidy(&node);
    }
}

fn begin(node: &Node) -> Option<(PartitionKey, Want)> {
    node.transfers.jobs.lock().begin(AT_ONCE, Millis::now())
}

/// What has arrived of partitions that are not here any more.
fn forget_strangers(node: &Node) {
    let known: Vec<_> = node.look().partitions.keys().copied().collect();
    let removed =
        part::remove(node.files.disk(), &node.files.incoming_dir(), |key| !known.contains(&key));
    if let Err(e) = removed {
        tracing::warn!(error = %e, "cannot remove parts of snapshots that are of no use");
    }
}

fn tidy(node: &Node) {
    let segments = FULL * node.config.segment_bytes;
    let full =
        stela_common::fs::free_bytes(node.files.log_dir()).is_ok_and(|(free, _)| free < segments);
    let tidied = node.transfers.sources.lock().tidy(node.log.end(), full, Millis::now());
    drop(tidied.over);
    for (key, peer) in tidied.outrun {
        tracing::warn!(%key, %peer, full, "a follower that fetches a snapshot is outrun: the log is no longer kept for it");
    }
}

async fn attempt(node: Arc<Node>, key: PartitionKey, want: Want) {
    let outcome = tokio::select! {
        () = node.stop.cancelled() => return,
        outcome = rebuild(&node, key, want) => outcome,
    };
    if !node.look().partitions.contains_key(&key) {
        forget_strangers(&node);
    }
    let peer = want.peer;
    let mut jobs = node.transfers.jobs.lock();
    match outcome {
        Ok(()) => jobs.done(key),
        Err(Failed::Unwanted) => {
            tracing::info!(%key, "a snapshot is no longer wanted");
            jobs.done(key);
        }
        Err(Failed::Away(why)) => {
            let again_ms = jobs.failed(key, Millis::now());
            tracing::info!(%key, %peer, why, again_ms, "a snapshot did not arrive: it is fetched again");
        }
        Err(Failed::Refused(why)) => {
            let again_ms = jobs.failed(key, Millis::now());
            tracing::error!(
                %key, %peer, why, again_ms,
                "a snapshot cannot be used: the copy here is kept as it is, and it is fetched again; if this goes on, look at the disk of either tablet"
            );
        }
    }
    drop(jobs);
    node.transfers.wake.notify_one();
}

/// From the leader's snapshot to a copy that joins where that ends.
async fn rebuild(node: &Arc<Node>, key: PartitionKey, want: Want) -> Result<(), Failed> {
    let (created, address) = {
        let inner = node.look();
        let p = inner.partitions.get(&key).ok_or(Failed::Unwanted)?;
        (p.store.table().created_index, inner.addresses.get(&want.peer).cloned())
    };
    let address = address
        .filter(|a| a.incarnation == want.incarnation)
        .ok_or_else(|| Failed::Away("the leader's address is not known yet".into()))?;
    let path = fetch(node, key, created, want, &address).await?;
    let (disk, opened) = (node.files.disk().clone(), path.clone());
    let checked = blocking(move || {
        let snapshot = Snapshot::open(&disk, &opened)?;
        check(snapshot.header(), key, created, want)?;
        Ok(snapshot)
    });
    let snapshot = match checked.await {
        Ok(snapshot) => snapshot,
        Err(e) => {
            stela_common::fs::remove(node.files.disk(), &path)?;
            return Err(e.into());
        }
    };
    let (id, offset) = (snapshot.header().id, snapshot.header().offset);
    drop(snapshot);
    let awaits = |p: &Partition| p.suspended.is_none() && p.core.awaits_snapshot();
    let installed = node.install_snapshot(key, path.clone(), Some(want.common), awaits).await;
    installed.map_err(|why| match stela_common::fs::exists(&path) {
        true => Failed::Away(why.text),
        false => Failed::Refused(why.text),
    })?;
    tracing::info!(%key, peer = %want.peer, id = format!("{id:016x}"), %offset, "the copy here was replaced by a snapshot of the leader");
    Ok(())
}

/// Is it what was asked for (R37)?
fn check(header: &Header, key: PartitionKey, created: u64, want: Want) -> io::Result<()> {
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if header.key != key {
        return wrong(format!("the leader's snapshot is of partition {}", header.key));
    }
    if header.created_index != created {
        return wrong(format!(
            "the leader's snapshot is of the table that was created at {}, the copy here of that of {created}",
            header.created_index
        ));
    }
    if let Some(why) = &header.damaged {
        return wrong(format!("the leader's snapshot is of a copy that was not whole: {why}"));
    }
    if header.offset < want.offset {
        return wrong(format!(
            "the leader's snapshot ends at {} and its log begins behind {}",
            header.offset, want.offset
        ));
    }
    Ok(())
}

/// The whole file, on disk: what has arrived before, and the rest.
async fn fetch(
    node: &Arc<Node>,
    key: PartitionKey,
    created: u64,
    want: Want,
    address: &Address,
) -> Result<PathBuf, Failed> {
    let (disk, dir) = (node.files.disk().clone(), node.files.incoming_dir());
    let (find_disk, find_dir) = (disk.clone(), dir.clone());
    let mut part = blocking(move || Part::find(&find_disk, &find_dir, key, created)).await?;
    if let Some(whole) = part.take_if(|p| p.is_whole()) {
        // It was fetched for another word of a leader; it ends at what is committed, and may do now too.
        return Ok(blocking(move || whole.finish()).await?);
    }
    let mut chunks = ask(node, key, created, want, address, part.as_ref()).await?;
    while let Some(chunk) = next(node, key, &mut chunks).await? {
        let goes_on = part.as_ref().is_some_and(|p| {
            (p.id(), p.total(), p.len()) == (chunk.snapshot_id, chunk.total, chunk.offset)
        });
        let so_far = part.take_if(|_| goes_on);
        if so_far.is_none() && chunk.offset != 0 {
            return Err(Failed::Refused("the leader sends what was not asked for".into()));
        }
        if chunk.data.len() > CHUNK || crc32c::crc32c(&chunk.data) != chunk.crc32c {
            return Err(Failed::Away("a piece of it arrived damaged".into()));
        }
        let (disk, dir) = (disk.clone(), dir.clone());
        let appended = blocking(move || {
            let mut part = match so_far {
                Some(part) => part,
                None => Part::begin(&disk, &dir, key, created, (chunk.snapshot_id, chunk.total))?,
            };
            part.append(&chunk.data)?;
            Ok(part)
        });
        let appended = appended.await?;
        let progress = Progress { done: appended.len(), total: appended.total() };
        node.transfers.jobs.lock().advanced(key, progress);
        part = Some(appended);
    }
    match part {
        Some(part) if part.is_whole() => Ok(blocking(move || part.finish()).await?),
        _ => Err(Failed::Away("it ended before all was there".into())),
    }
}

async fn ask(
    node: &Node,
    key: PartitionKey,
    created_index: u64,
    want: Want,
    address: &Address,
    part: Option<&Part>,
) -> Result<Streaming<pb::FetchChunk>, Failed> {
    let away = |e: tonic::transport::Error| Failed::Away(e.to_string());
    let channel = Endpoint::from_shared(format!("http://{}", address.endpoint))
        .map_err(away)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true)
        .connect()
        .await
        .map_err(away)?;
    let tablet: TabletId = node.look().tablet;
    let request = pb::FetchRequest {
        cluster: node.config.cluster.clone(),
        tid: key.tid.0,
        pid: key.pid.0,
        created_index,
        tablet: tablet.0,
        incarnation: node.incarnation.0,
        to_tablet: want.peer.0,
        to_incarnation: want.incarnation.0,
        snapshot_id: part.map_or(0, Part::id),
        offset: part.map_or(0, Part::len),
    };
    tracing::info!(%key, peer = %want.peer, from = request.offset, "fetches a snapshot");
    let mut client = ReplicationClient::new(channel);
    // The leader may have to make it first: it takes as long as it is wanted.
    let answered = while_wanted(node, key, client.fetch(request)).await?;
    Ok(answered?.into_inner())
}

async fn next(
    node: &Node,
    key: PartitionKey,
    chunks: &mut Streaming<pb::FetchChunk>,
) -> Result<Option<pb::FetchChunk>, Failed> {
    Ok(while_wanted(node, key, chunks.message()).await??)
}

async fn while_wanted<T>(
    node: &Node,
    key: PartitionKey,
    work: impl Future<Output = T>,
) -> Result<T, Failed> {
    let mut work = std::pin::pin!(work);
    loop {
        if !node.transfers.jobs.lock().is_wanted(key, Millis::now()) {
            return Err(Failed::Unwanted);
        }
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
