//! The leader's side: it serves a snapshot's file, and makes a snapshot first if it has none that the log goes on from.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use stela_common::clock::Millis;
use stela_common::ids::{Offset, PartitionKey, TabletId};
use stela_proto::replication as pb;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::source::Source;
use super::{AT_ONCE, CHUNK};
use crate::node::{Node, Pin};
use crate::snapshot::Snapshot;

/// Serves the file that a follower asks for, from where it has it.
///
/// # Errors
/// This tablet is not the one that is meant, or does not lead that very partition; or it has enough to do.
pub async fn serve(
    node: Arc<Node>,
    request: pb::FetchRequest,
) -> Result<impl Stream<Item = Result<pb::FetchChunk, Status>> + Send + 'static, Status> {
    check(&node, &request)?;
    let turn = node.transfers.sending.clone().try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!("{AT_ONCE} snapshots go out already: come again"))
    })?;
    let key = PartitionKey::new(request.tid, request.pid);
    let peer = TabletId(request.tablet);
    let known = node.transfers.sources.lock().find(key, peer, request.snapshot_id, Millis::now());
    let (source, from) = match known {
        Some(source) => (source, request.offset),
        None => begin(&node, &request, key, peer).await?,
    };
    tracing::info!(%key, %peer, from, bytes = source.total, "sends a snapshot");
    let sending = Sending { node, key, peer, source, next: from, _turn: turn };
    Ok(futures::stream::try_unfold(sending, Sending::chunk))
}

/// R3, R37: is it meant for this run, and about this creation of a partition that it leads?
fn check(node: &Node, request: &pb::FetchRequest) -> Result<(), Status> {
    let refuse = |why: String| Err(Status::failed_precondition(why));
    if request.cluster != node.config.cluster {
        return refuse(format!("this is cluster {}", node.config.cluster));
    }
    let inner = node.look();
    if (request.to_tablet, request.to_incarnation) != (inner.tablet.0, node.incarnation.0) {
        return refuse("meant for another tablet or another run of it".into());
    }
    let key = PartitionKey::new(request.tid, request.pid);
    let Some(p) = inner.partitions.get(&key) else {
        return refuse(format!("partition {key} is not here"));
    };
    let created = p.store.table().created_index;
    if created != request.created_index {
        return refuse(format!(
            "partition {key} here is of the table that was created at {created}, not of that of {}",
            request.created_index
        ));
    }
    let peer = TabletId(request.tablet);
    let follows = p.core.view().is_some_and(|v| v.replicas.contains(&peer));
    if !p.core.leads() || p.suspended.is_some() || !follows {
        return refuse(format!("partition {key} is not led here, or not followed by {peer}"));
    }
    Ok(())
}

/// A transfer begins: the newest snapshot, and where in it; the log behind it is kept meanwhile (R29).
async fn begin(
    node: &Arc<Node>,
    request: &pb::FetchRequest,
    key: PartitionKey,
    peer: TabletId,
) -> Result<(Source, u64), Status> {
    let failed = |e: io::Error| Status::unavailable(e.to_string());
    loop {
        let (snapshot, pin) = newest(node, key).await?;
        let (disk, of) = (node.files.disk().clone(), snapshot.clone());
        let opened = blocking(move || {
            // What rotted since it was written is found before anybody has waited for it.
            of.verify().and_then(|()| disk.open(of.path()))
        });
        let file = match opened.await {
            Ok(file) => Arc::new(file),
            // A newer one has taken its place meanwhile.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                let why = format!("its snapshot has rotted: {e}");
                node.act(|inner, _| node.quarantine(inner, key, why));
                return Err(failed(e));
            }
            Err(e) => return Err(failed(e)),
        };
        let goes_on = snapshot.header().id == request.snapshot_id;
        let from = if goes_on { request.offset } else { 0 };
        let source = Source { id: snapshot.header().id, total: snapshot.bytes(), file };
        let (end, now) = (node.log.end(), Millis::now());
        let patient = node.transfers.sources.lock().begin(key, peer, source.clone(), pin, end, now);
        if patient {
            tracing::warn!(
                %key, %peer,
                "a follower was outrun while it fetched a snapshot: the log is kept until it has caught up or the disk is full"
            );
        }
        return Ok((source, from));
    }
}

/// The newest snapshot that the log goes on from, and what keeps the log behind it.
async fn newest(node: &Arc<Node>, key: PartitionKey) -> Result<(Arc<Snapshot>, Pin), Status> {
    let usable = || {
        let (snapshot, behind) = {
            let inner = node.look();
            let p = inner.partitions.get(&key)?;
            let snapshot = p.store.snapshot().filter(|s| s.header().offset >= p.below())?;
            (snapshot.clone(), p.needs().unwrap_or_else(|| node.log.end()))
        };
        let pin = node.pin(behind);
        // What was being given back at that moment is gone.
        (behind >= node.log.start()).then_some((snapshot, pin))
    };
    for _ in 0..2 {
        if let Some(found) = usable() {
            return Ok(found);
        }
        let made = node.make_snapshot(key).await.map_err(|e| Status::unavailable(e.text))?;
        if made == Offset(0) {
            return Err(Status::unavailable(format!(
                "nothing of partition {key} is committed yet"
            )));
        }
    }
    Err(Status::unavailable(format!("the log behind the snapshot of partition {key} is gone")))
}

/// One transfer.
struct Sending {
    node: Arc<Node>,
    key: PartitionKey,
    peer: TabletId,
    source: Source,
    next: u64,
    _turn: OwnedSemaphorePermit,
}

impl Sending {
    async fn chunk(mut self) -> Result<Option<(pb::FetchChunk, Self)>, Status> {
        let (snapshot_id, total, offset) = (self.source.id, self.source.total, self.next);
        let left = total.saturating_sub(offset);
        let len = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        if len == 0 {
            return Ok(None);
        }
        self.node.transfers.pace.take(len).await;
        self.node.transfers.sources.lock().used(self.key, self.peer, Millis::now());
        let file = self.source.file.clone();
        let read = blocking(move || {
            let mut data = vec![0; len];
            file.read_at(&mut data, offset).map(|()| (crc32c::crc32c(&data), Bytes::from(data)))
        });
        let (crc32c, data) = read.await.map_err(|e| Status::data_loss(e.to_string()))?;
        let chunk = pb::FetchChunk { snapshot_id, total, offset, data, crc32c };
        self.next += len as u64;
        Ok(Some((chunk, self)))
    }
}

/// Disk work does not hold up what else the process does.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
