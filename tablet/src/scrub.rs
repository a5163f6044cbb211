//! Reading everything once in a while, so that what rots is found while there are other copies of it.
//!
//! Copy by copy: the chunks of its snapshot and its entries in the log, a MiB at a time, with pauses that spread a pass over
//! the configured time; then the files beside them. **Invariants**
//! * A copy is quarantined only if what is wrong is of the copy as it is now: snapshots take each other's place and
//!   entries are given back while they are read.
//! * Nothing that is damaged is changed or removed: it is kept for who wants to look at it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use stela_common::ids::{Offset, PartitionKey};
use stela_common::log;

use crate::node::Node;
use crate::partition::Partition;
use crate::sealed::CHUNK;
use crate::store::places::{self, Unreadable};

/// Bytes that are read between two pauses, about.
const STEP: usize = 1 << 20;

/// What one pass has done.
#[derive(Default)]
struct Pass {
    bytes: u64,
    damaged: u64,
}

/// Reads everything again and again, each pass in the configured time, until the node stops.
pub async fn scrub(node: Arc<Node>) {
    let time = node.config.scrub;
    loop {
        let begun = tokio::time::Instant::now();
        let pause = pause(time, node.look().partitions.values().map(|p| p.store.disk()));
        let mut pass = Pass::default();
        let keys: Vec<PartitionKey> = node.look().partitions.keys().copied().collect();
        for key in keys {
            if of_copy(&node, key, pause, &mut pass).await.is_break() {
                return;
            }
        }
        let files = [
            node.files.identity().map(drop),
            node.files.fences().map(drop),
            node.files.tables().map(drop),
        ];
        for error in files.into_iter().filter_map(Result::err) {
            pass.damaged += 1;
            tracing::error!(%error, "a file cannot be read any more");
        }
        tracing::info!(bytes = pass.bytes, damaged = pass.damaged, "everything was read");
        if pause_until(&node, begun + time).await.is_break() {
            return;
        }
    }
}

/// The pause after each step, so that copies of so many bytes are read in that time. Each takes two steps at least.
fn pause(time: Duration, copies: impl Iterator<Item = u64>) -> Duration {
    let steps: u64 = copies.map(|bytes| bytes / STEP as u64 + 2).sum();
    time / u32::try_from(steps.max(1)).unwrap_or(u32::MAX)
}

async fn pause_until(node: &Node, until: tokio::time::Instant) -> ControlFlow<()> {
    tokio::select! {
        () = node.stop.cancelled() => ControlFlow::Break(()),
        () = tokio::time::sleep_until(until) => ControlFlow::Continue(()),
    }
}

/// One step, on a thread that may wait for a disk; then the pause.
async fn step<R: Send + 'static>(
    node: &Node,
    pause: Duration,
    work: impl FnOnce() -> R + Send + 'static,
) -> ControlFlow<(), R> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()));
    match pause_until(node, tokio::time::Instant::now() + pause).await {
        ControlFlow::Break(()) => ControlFlow::Break(()),
        ControlFlow::Continue(()) => ControlFlow::Continue(done),
    }
}

async fn of_copy(
    node: &Arc<Node>,
    key: PartitionKey,
    pause: Duration,
    pass: &mut Pass,
) -> ControlFlow<()> {
    let seen = node
        .look()
        .partitions
        .get(&key)
        .filter(|p| p.quarantine.is_none())
        .map(|p| (p.store.snapshot().cloned(), p.store.base().next(), p.applied, p.rebuilt));
    let Some((snapshot, mut next, last, rebuilt)) = seen else { return ControlFlow::Continue(()) };
    if let Some(snapshot) = snapshot {
        for chunks in (0..snapshot.chunks()).step_by(STEP / CHUNK) {
            let read = snapshot.clone();
            let to = snapshot.chunks().min(chunks + STEP / CHUNK);
            let verify = move || (chunks..to).try_for_each(|chunk| read.verify_chunk(chunk));
            if let Err(error) = step(node, pause, verify).await? {
                pass.damaged += 1;
                let why = error.to_string();
                damaged(node, key, why, |p| {
                    p.store.snapshot().is_some_and(|now| Arc::ptr_eq(now, &snapshot))
                });
                return ControlFlow::Continue(());
            }
            pass.bytes += ((to - chunks) * CHUNK) as u64;
        }
    }
    while next <= last {
        let reader = node.clone();
        match step(node, pause, move || entries(&reader, key, next, last)).await? {
            Ok((read, bytes)) => (next, pass.bytes) = (read.next(), pass.bytes + bytes),
            Err(None) => break,
            Err(Some((at, why))) => {
                pass.damaged += 1;
                // What a snapshot has taken in meanwhile is not read any more.
                damaged(node, key, why, |p| p.rebuilt == rebuilt && at > p.store.base());
                break;
            }
        }
    }
    ControlFlow::Continue(())
}

/// Verifies entries from one on: up to which, and their bytes. `None`: the copy, or these entries of it, are gone.
fn entries(
    node: &Node,
    key: PartitionKey,
    from: Offset,
    to: Offset,
) -> Result<(Offset, u64), Option<(Offset, String)>> {
    let places = node.look().partitions.get(&key).map(|p| p.places.clone()).ok_or(None)?;
    let found = match places::read_entries(&node.log, &places, key, from, to, STEP) {
        Ok(found) => found,
        Err(Unreadable::Gone(_)) => return Err(None),
        Err(error) => return Err(Some((from, error.to_string()))),
    };
    let (mut last, mut bytes) = (from, 0);
    for record in found {
        last = record.offset();
        bytes += record.raw().len() as u64;
        match log::parse(record.raw()).next() {
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                return Err(Some((
                    last,
                    format!("entry {last} at {}: {error}", record.position()),
                )));
            }
            None => return Err(Some((last, format!("entry {last} is not there")))),
        }
    }
    Ok((last, bytes))
}

/// The copy is quarantined, if it is still the one that was read.
fn damaged(node: &Node, key: PartitionKey, why: String, still: impl Fn(&Partition) -> bool) {
    node.act(|inner, _| {
        let here = |p: &&Partition| p.quarantine.is_none() && still(p);
        if inner.partitions.get(&key).filter(here).is_some() {
            node.quarantine(inner, key, format!("found while everything was read: {why}"));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause was once that of the bytes alone: with a thousand small copies a pass took a thousand times as long.
    #[test]
    fn many_small_copies_are_read_in_the_time_of_a_pass() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let small = pause(week, std::iter::repeat_n(500, 1000));
        assert!(small * 2000 <= week && small * 2100 > week, "{small:?}");
        let large = pause(week, std::iter::once(100 << 30));
        assert!(large * (100 << 10) <= week, "{large:?}");
        assert_eq!(pause(week, std::iter::empty()), week);
    }
}
