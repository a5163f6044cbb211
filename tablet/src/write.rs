//! The write path: whatever has arrived is admitted, written and handed to the followers as one batch.
//!
//! One task drains the inbox after every session and stream was polled once (a `yield_now`), so that a busy tablet
//! batches by itself and an idle one answers at once. A write is checked whole before anything changes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use stela_common::clock::{Millis, wall_ms};
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, PartitionKey};
use stela_common::table::{Ack, Table};
use stela_proto::tablet as pb;
use stela_replica::message;
use tokio::sync::{Notify, oneshot};

use crate::config::Format;
use crate::node::{Inner, Node, Work};
use crate::partition::{Caller, Partition, Waiter, refusal_of_write};
use crate::store::dedup::Verdict;

/// Writes that wait to be admitted, at most; and of one partition, to be acknowledged.
pub(crate) const WAITING: usize = 65_536;
/// Their bytes, at most.
pub(crate) const WAITING_BYTES: usize = 64 << 20;
/// The bytes of one batch: below what a segment takes.
const BATCH_BYTES: usize = 4 << 20;

/// Callers that wait for one write, at most: the first, and repetitions.
const REPEATED: usize = 64;

/// A write as it arrived.
pub enum Request {
    /// Rows.
    Put(pb::PutRequest),
    /// A key goes.
    Delete(pb::DeleteRequest),
}

impl Request {
    fn target(&self) -> pb::Target {
        match self {
            Self::Put(r) => r.target.unwrap_or_default(),
            Self::Delete(r) => r.target.unwrap_or_default(),
        }
    }

    fn id(&self) -> (u64, u64) {
        match self {
            Self::Put(r) => (r.session, r.seq),
            Self::Delete(r) => (r.session, r.seq),
        }
    }

    /// The version of the table whose indexes it is about.
    fn version(&self) -> u32 {
        match self {
            Self::Put(r) => r.table_version,
            Self::Delete(r) => r.table_version,
        }
    }

    /// An earlier attempt may have been applied.
    fn again(&self) -> bool {
        match self {
            Self::Put(r) => r.again,
            Self::Delete(r) => r.again,
        }
    }

    /// Who must have it; `table`: where it does not say so itself.
    fn level(&self, table: Ack) -> Ack {
        let asked = match self {
            Self::Put(r) => r.ack(),
            Self::Delete(r) => r.ack(),
        };
        match asked {
            pb::AckLevel::Table => table,
            pb::AckLevel::All => Ack::All,
            pb::AckLevel::Leader => Ack::Leader,
        }
    }

    fn bytes(&self) -> usize {
        let dimensions = |d: &[pb::Dimension]| d.iter().map(|d| d.key.len() + 8).sum::<usize>();
        match self {
            Self::Put(r) => {
                r.rows.iter().map(|r| r.value.len() + dimensions(&r.dimensions) + 16).sum()
            }
            Self::Delete(r) => dimensions(&r.dimensions),
        }
    }
}

#[derive(Default)]
struct Waiting {
    requests: Vec<(Request, Caller)>,
    bytes: usize,
}

/// Where writes arrive.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

impl Inbox {
    /// Takes a write, or refuses it because too many wait.
    pub fn offer(&self, request: Request, caller: Caller) {
        let bytes = request.bytes();
        let mut waiting = self.waiting.lock();
        if waiting.requests.len() >= WAITING || waiting.bytes + bytes > WAITING_BYTES {
            drop(waiting);
            caller.answer(refusal_of_write(&Code::Busy.into(), "", Epoch(0)));
            return;
        }
        waiting.bytes += bytes;
        waiting.requests.push((request, caller));
        drop(waiting);
        self.arrived.notify_one();
    }
}

/// Drains the inbox until the node stops.
pub async fn drain(node: Arc<Node>, inbox: Arc<Inbox>) {
    loop {
        tokio::select! {
            () = node.stop.cancelled() => return,
            () = inbox.arrived.notified() => {}
        }
        // Whoever else has something to say now says it before this batch is cut.
        tokio::task::yield_now().await;
        let waiting = std::mem::take(&mut *inbox.waiting.lock());
        let mut requests = waiting.requests.into_iter().peekable();
        while requests.peek().is_some() {
            node.act(|inner, work| {
                let mut bytes = 0;
                while bytes < BATCH_BYTES {
                    let Some((request, caller)) = requests.next() else { break };
                    bytes += request.bytes();
                    admit(&node, inner, work, request, caller);
                }
            });
            tokio::task::yield_now().await;
        }
    }
}

fn admit(node: &Node, inner: &mut Inner, work: &mut Work, request: Request, caller: Caller) {
    let target = request.target();
    let key = PartitionKey::new(target.tid, target.pid);
    // Only who is at the wrong place is told of another one.
    let here = |p: &Partition| p.core.leads() && [0, p.core.epoch().0].contains(&target.epoch);
    let hint = match inner.partitions.get(&key) {
        Some(p) if here(p) => String::new(),
        _ => node.leader_hint(inner, key),
    };
    let id = request.id();
    let Some(p) = inner.partitions.get_mut(&key) else {
        return caller.answer(refusal_of_write(&Code::TableNotFound.into(), "", Epoch(0)));
    };
    let refuse = |caller: Caller, refusal: &Refusal, epoch: Epoch| {
        let leader = if leads_elsewhere(refusal.code) { hint.as_str() } else { "" };
        caller.answer(refusal_of_write(refusal, leader, epoch));
    };
    let epoch = p.core.epoch();
    if let Some(loading) = &p.loading {
        return refuse(caller, &loading.refusal(), epoch);
    }
    if p.suspended.is_some() {
        return refuse(caller, &Code::NotServing.into(), epoch);
    }
    if !p.core.leads() {
        return refuse(caller, &Code::TableIsFollower.into(), epoch);
    }
    if p.waiters.len() >= WAITING {
        return refuse(caller, &Code::Busy.into(), epoch);
    }
    if target.epoch != 0 && target.epoch != epoch.0 {
        return refuse(caller, &Code::StaleEpoch.into(), epoch);
    }
    let (known, version) = (request.version(), p.store.table().version());
    if known > version && known != u32::MAX {
        // The news of an index that was added comes here, too.
        return refuse(caller, &Code::NotServing.into(), epoch);
    }
    if let Request::Put(r) = &request
        && r.filling
        && !r.rows.iter().all(|row| is_filled_by(p.store.table(), row))
    {
        let text = "the index is not being filled any more";
        return refuse(caller, &Refusal::new(Code::AddIndexFailed, text), epoch);
    }
    let checked = match &request {
        Request::Put(r) => p.store.put(r, node.config.data_format, wall_ms()),
        Request::Delete(r) => p.store.delete(r, node.config.data_format, wall_ms()),
    };
    let body = match checked {
        Ok(body) => body,
        Err(refusal) => return refuse(caller, &refusal, epoch),
    };
    let level = request.level(p.store.table().options.ack);
    let waiter = Waiter { caller, repeatable: id.0 != 0, level };
    match p.dedup.look(id.0, id.1, request.again()) {
        Verdict::New if known < version => {
            return refuse(waiter.caller, &Code::StaleTable.into(), epoch);
        }
        // What takes memory away is taken.
        Verdict::New
            if node.short.load(Ordering::Relaxed) && matches!(request, Request::Put(_)) =>
        {
            return refuse(waiter.caller, &Code::DiskFull.into(), epoch);
        }
        Verdict::New if node.full.load(Ordering::Relaxed) && matches!(request, Request::Put(_)) => {
            return refuse(waiter.caller, &Code::MemoryFull.into(), epoch);
        }
        Verdict::New => {}
        Verdict::Unknown => return refuse(waiter.caller, &Code::UnknownOutcome.into(), epoch),
        // R32: a repetition waits for the first, or has its result, if this leader may acknowledge (R9, R36).
        Verdict::Pending(offset) => {
            let waiting = p.waiters.get(&offset).map_or(0, Vec::len);
            return match p.core.may_wait(Millis::now()) {
                Err(refusal) => refuse(waiter.caller, &code_of(refusal).into(), epoch),
                Ok(()) if waiting >= REPEATED => {
                    refuse(waiter.caller, &Code::Busy.into(), epoch);
                }
                Ok(()) => {
                    if level == Ack::Leader {
                        inner.early.insert(key);
                    }
                    p.waiters.entry(offset).or_default().push(waiter);
                }
            };
        }
        Verdict::Committed(offset) => {
            return match p.core.may_acknowledge(Millis::now()) {
                Ok(()) => {
                    waiter.caller.answer(pb::PutReply { offset: offset.0, ..p.answer() });
                }
                Err(refusal) => refuse(waiter.caller, &code_of(refusal).into(), epoch),
            };
        }
    }
    match p.core.admit(level, Millis::now()) {
        Ok(admitted) => {
            p.dedup.appended(admitted.offset, id.0, id.1);
            work.client(key, admitted, body, waiter);
        }
        Err(refusal) => refuse(waiter.caller, &code_of(refusal).into(), epoch),
    }
}

/// Does a row go into the index that is being filled, and into no other?
fn is_filled_by(table: &Table, row: &pb::Row) -> bool {
    let filling = table.filling().map(|(at, _)| at);
    row.dimensions.iter().all(|d| Some(d.index as usize) == filling)
}

/// Takes away, in the partitions that are led here, the rows of indexes that were deleted: by an entry, so that whatever
/// was decided by these rows before is decided by them on every replica, and when the log is read again.
pub fn empty_deleted(node: &Node, inner: &mut Inner, work: &mut Work) {
    // Earlier versions read no such entry: the rows stay.
    if node.config.data_format == Format::Plain {
        return;
    }
    for (key, p) in &mut inner.partitions {
        if !p.core.serving() || p.suspended.is_some() || p.emptied > p.applied {
            continue;
        }
        let Some(body) = p.store.emptying(wall_ms()) else { continue };
        let level = p.store.table().options.ack;
        if let Ok(admitted) = p.core.admit(level, Millis::now()) {
            p.emptied = admitted.offset;
            p.dedup.appended(admitted.offset, 0, 0);
            let caller = Caller::Unary(oneshot::channel().0);
            work.client(*key, admitted, body, Waiter { caller, repeatable: false, level });
        }
    }
}

fn leads_elsewhere(code: Code) -> bool {
    matches!(code, Code::TableIsFollower | Code::StaleEpoch)
}

/// What a caller is told when a core refuses.
#[must_use]
pub fn code_of(refusal: message::Refusal) -> Code {
    match refusal {
        message::Refusal::NotLeader => Code::TableIsFollower,
        message::Refusal::NotServing => Code::NotServing,
        message::Refusal::LeaseExpired => Code::LeaseExpired,
        message::Refusal::NotEnoughInSync => Code::NotEnoughInSync,
        message::Refusal::Quarantined => Code::Quarantined,
    }
}
