//! Reads. At the leader the permit is checked after the work (R11); without one the read is parked until one comes.
//! At any replica only when that is asked for, with the offset up to which it shows.
//!
//! Rows are found under the node's lock, and their values read without it: nobody waits for a reader's page faults but the
//! reader. What may fault is read on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stela_common::clock::{Millis, wall_ms};
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::table;
use stela_common::wire::{self, Malformed};
use stela_proto::tablet as pb;
use stela_replica::core::Env;
use stela_replica::message;
use tokio::sync::futures::OwnedNotified;

use crate::node::{Inner, Node};
use crate::partition::Partition;
use crate::store::query::{Filter, Found, Get, Match, Range};
use crate::store::traverse::{FoundPage, Pages};
use crate::store::values::Damaged;
use crate::write::code_of;

/// How long a read waits for a permit, or for the leader to serve.
const PARKED: Duration = Duration::from_secs(1);
/// The bytes of one scan: what is beyond is fetched by the next.
const SCAN_BYTES: usize = 4 << 20;

/// What an answer says beside its result.
#[derive(Default)]
pub(super) struct About {
    leader: String,
    epoch: Epoch,
    commit: Offset,
    /// Of which making of the replica it is.
    rebuilt: u64,
}

/// A read of one partition.
pub(super) trait Read {
    /// Its answer.
    type Reply: Send + 'static;
    /// What is to be read.
    type Found: Send + 'static;

    fn target(&self) -> pb::Target;
    fn at_leader_only(&self) -> bool;
    /// R35: an offset that it must show at least, and the unclean epochs that it is of.
    fn at_least(&self) -> (Offset, u64);
    fn find(&self, node: &Node, partition: &Partition) -> Result<Self::Found, Refusal>;
    fn read(found: Self::Found) -> Result<Self::Reply, Damaged>;
    fn reply(outcome: Result<Self::Reply, Refusal>, about: About) -> Self::Reply;

    /// Bytes that an answer takes, about.
    fn weight(reply: &Self::Reply) -> usize;
}

enum Look<R: Read> {
    Answer(R::Reply),
    /// Until something has changed: what comes after the look is noticed.
    Park(OwnedNotified, Refusal, About),
    /// To be read without the lock; in which epoch it was found, if only the leader of that may answer.
    Read(R::Found, Option<Epoch>, About),
}

/// Serves a read that came at `since`, at once or when a permit has come.
pub(super) async fn served<R: Read>(node: &Arc<Node>, request: &R, since: Millis) -> R::Reply {
    let deadline = tokio::time::Instant::now() + PARKED;
    loop {
        let mut look = look(node, request, since);
        if let Look::Read(found, epoch, about) = look {
            let read = if node.cold.load(Ordering::Relaxed) {
                let read = tokio::task::spawn_blocking(move || R::read(found)).await;
                read.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))
            } else {
                R::read(found)
            };
            look = confirm::<R>(node, request, since, read, epoch, about);
        }
        let (parked, refusal, about) = match look {
            Look::Answer(reply) => return reply,
            Look::Park(parked, refusal, about) => (parked, refusal, about),
            Look::Read(..) => continue,
        };
        // What the clock alone changes nobody tells: look again soon.
        let again = (tokio::time::Instant::now() + Duration::from_millis(20)).min(deadline);
        if tokio::time::timeout_at(again, parked).await.is_err()
            && tokio::time::Instant::now() >= deadline
        {
            return R::reply(Err(refusal), about);
        }
    }
}

/// Serves a read that came at `since` only if that needs no waiting.
pub(super) fn at_once<R: Read>(node: &Node, request: &R, since: Millis) -> Option<R::Reply> {
    let mut look = look(node, request, since);
    if let Look::Read(found, epoch, about) = look {
        if node.cold.load(Ordering::Relaxed) {
            return None;
        }
        look = confirm::<R>(node, request, since, R::read(found), epoch, about);
    }
    match look {
        Look::Answer(reply) => Some(reply),
        Look::Park(..) | Look::Read(..) => None,
    }
}

fn key_of(target: pb::Target) -> PartitionKey {
    PartitionKey::new(target.tid, target.pid)
}

fn about(node: &Node, inner: &Inner, p: &Partition, key: PartitionKey, hint: bool) -> About {
    About {
        leader: if hint { node.leader_hint(inner, key) } else { String::new() },
        epoch: p.core.epoch(),
        commit: p.applied,
        rebuilt: p.rebuilt,
    }
}

fn look<R: Read>(node: &Node, request: &R, since: Millis) -> Look<R> {
    let inner = node.look();
    let target = request.target();
    let key = key_of(target);
    let about = |p: &Partition, hint: bool| about(node, &inner, p, key, hint);
    let Some(p) = inner.partitions.get(&key) else {
        return Look::Answer(R::reply(Err(Code::TableNotFound.into()), About::default()));
    };
    if let Some(why) = &p.quarantine {
        return Look::Answer(R::reply(Err(quarantined(why)), about(p, true)));
    }
    if let Some(loading) = &p.loading {
        let parked = p.parked.clone().notified_owned();
        return Look::Park(parked, loading.refusal(), about(p, true));
    }
    let find = |p: &Partition, epoch: Option<Epoch>| match request.find(node, p) {
        Ok(found) => Look::Read(found, epoch, about(p, false)),
        // It may not have been told yet of an index that others have, or that it is filled.
        Err(refusal)
            if matches!(refusal.code, Code::IndexNotFound | Code::IndexFilling)
                && !p.core.leads() =>
        {
            Look::Answer(R::reply(Err(Code::Behind.into()), about(p, true)))
        }
        Err(refusal) => Look::Answer(R::reply(Err(refusal), about(p, false))),
    };
    if !request.at_leader_only() {
        let (offset, uncleans) = request.at_least();
        let known = p.core.view().map_or(0, |v| v.uncleans);
        if offset > Offset(0) && uncleans < known {
            // What it was told may be among what an unclean election has lost (R16).
            let text = format!("{}: leaders were elected uncleanly since", Code::Behind.text());
            return Look::Answer(R::reply(Err(Refusal::new(Code::Behind, text)), about(p, true)));
        }
        if offset > p.applied || (offset > Offset(0) && uncleans > known) {
            return Look::Park(
                p.parked.clone().notified_owned(),
                Code::Behind.into(),
                about(p, true),
            );
        }
        return find(p, None);
    }
    if p.suspended.is_some() {
        return Look::Park(
            p.parked.clone().notified_owned(),
            Code::NotServing.into(),
            about(p, false),
        );
    }
    if !p.core.leads() {
        return Look::Answer(R::reply(Err(Code::TableIsFollower.into()), about(p, true)));
    }
    if target.epoch != 0 && target.epoch != p.core.epoch().0 {
        return Look::Answer(R::reply(Err(Code::StaleEpoch.into()), about(p, true)));
    }
    // R11: what counts is the permit after the work. That before it saves the work of who waits for one.
    match permitted(&inner, p, since) {
        // A question that makes no sense, or a key that is not there, is judged by the permit, too: both are answers.
        Ok(()) => find(p, Some(p.core.epoch())),
        Err(refusal) => unpermitted(&inner, p, refusal, about(p, true)),
    }
}

/// What becomes of a read after the work.
fn confirm<R: Read>(
    node: &Node,
    request: &R,
    since: Millis,
    read: Result<R::Reply, Damaged>,
    epoch: Option<Epoch>,
    found: About,
) -> Look<R> {
    let key = key_of(request.target());
    let result = match read {
        Ok(reply) => reply,
        Err(damaged) => {
            let why = damaged.to_string();
            let refusal = quarantined(&why);
            // R30: the copy is not whole, unless it is another one by now.
            node.act(|inner, _| {
                let here = |p: &&Partition| p.rebuilt == found.rebuilt && p.quarantine.is_none();
                if inner.partitions.get(&key).filter(here).is_some() {
                    node.quarantine(inner, key, why);
                }
            });
            return Look::Answer(R::reply(Err(refusal), found));
        }
    };
    let Some(epoch) = epoch else { return Look::Answer(R::reply(Ok(result), found)) };
    let inner = node.look();
    let Some(p) = inner.partitions.get(&key) else {
        return Look::Answer(R::reply(Err(Code::TableNotFound.into()), About::default()));
    };
    let about = |hint| about(node, &inner, p, key, hint);
    if !p.core.leads() || p.core.epoch() != epoch {
        return Look::Answer(R::reply(Err(Code::TableIsFollower.into()), about(true)));
    }
    match permitted(&inner, p, since) {
        Ok(()) => Look::Answer(R::reply(Ok(result), found)),
        Err(refusal) => unpermitted(&inner, p, refusal, about(true)),
    }
}

fn unpermitted<R: Read>(
    inner: &Inner,
    p: &Partition,
    refusal: message::Refusal,
    about: About,
) -> Look<R> {
    match refusal {
        message::Refusal::LeaseExpired | message::Refusal::NotServing => {
            let parked = p.parked.clone().notified_owned();
            if p.store.table().options.read == table::Read::Confirm {
                ask(inner, p);
            }
            Look::Park(parked, code_of(refusal).into(), About { leader: String::new(), ..about })
        }
        refusal => Look::Answer(R::reply(Err(code_of(refusal).into()), about)),
    }
}

fn quarantined(why: &str) -> Refusal {
    Refusal::new(Code::Quarantined, format!("{}: {why}", Code::Quarantined.text()))
}

fn permitted(inner: &Inner, p: &Partition, since: Millis) -> Result<(), message::Refusal> {
    let env = Env { permits: &inner.permits, grants: &inner.grants };
    p.core.may_read(since, Millis::now(), &env)
}

/// R38: asks all that follow. One question is enough for all reads that have come before it.
fn ask(inner: &Inner, p: &Partition) {
    let replicas = p.core.view().map_or(&[][..], |view| &view.replicas);
    for outgoing in inner.outgoing.values().filter(|o| replicas.contains(&o.peer)) {
        outgoing.outbox.fill(|b| b.asked_at = Millis::now().0);
    }
}

fn of_leader(from: i32) -> bool {
    from != pb::ReadFrom::Any as i32
}

impl Read for pb::GetRequest {
    type Reply = pb::GetReply;
    type Found = Found;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn find(&self, node: &Node, p: &Partition) -> Result<Found, Refusal> {
        let kind = |kind, default| kind_of(kind).map(|kind| kind.unwrap_or(default));
        let get = Get {
            ts: self.ts,
            kind: kind(self.r#type, Match::Eq)?,
            et: self.et,
            et_kind: kind(self.et_type, Match::Ge)?,
        };
        p.store.find(&node.log, self.index, &self.key, &get, wall_ms())
    }

    fn read(found: Found) -> Result<pb::GetReply, Damaged> {
        let (ts, value) = found.read()?.rows.pop().unwrap_or_default();
        Ok(pb::GetReply { ts, value, ..Default::default() })
    }

    fn reply(outcome: Result<pb::GetReply, Refusal>, about: About) -> pb::GetReply {
        let (reply, status) = split(outcome);
        pb::GetReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::GetReply) -> usize {
        reply.value.len()
    }
}

impl Read for pb::ScanRequest {
    type Reply = pb::ScanReply;
    type Found = Found;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn find(&self, node: &Node, p: &Partition) -> Result<Found, Refusal> {
        let range = Range {
            st: self.st,
            et: self.et,
            limit: self.limit,
            at_least: self.min_rows,
            skip: self.skip,
            distinct: self.distinct,
            bytes: SCAN_BYTES,
        };
        p.store.find_range(&node.log, self.index, &self.key, range, wall_ms())
    }

    fn read(found: Found) -> Result<pb::ScanReply, Damaged> {
        let found = found.read()?;
        let rows = found.rows.into_iter().map(|(ts, value)| pb::ScanRow { ts, value }).collect();
        Ok(pb::ScanReply { rows, finished: found.finished, ..Default::default() })
    }

    fn reply(outcome: Result<pb::ScanReply, Refusal>, about: About) -> pb::ScanReply {
        let (reply, status) = split(outcome);
        pb::ScanReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::ScanReply) -> usize {
        reply.rows.iter().map(|r| r.value.len() + size_of::<pb::ScanRow>()).sum()
    }
}

impl Read for pb::CountRequest {
    type Reply = pb::CountReply;
    type Found = u64;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        of_leader(self.from)
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(self.at_least), self.at_least_uncleans)
    }

    fn find(&self, _: &Node, p: &Partition) -> Result<u64, Refusal> {
        let kind = |kind, default| kind_of(kind).map(|kind| kind.unwrap_or(default));
        let filter = Filter {
            st: self.st,
            st_kind: match kind(self.st_type, Match::Le)? {
                Match::Eq => Match::Le,
                kind => kind,
            },
            et: self.et,
            et_kind: kind(self.et_type, Match::Gt)?,
            distinct: self.distinct,
        };
        let filter = self.filter_expired.then_some(&filter);
        p.store.count(self.index, &self.key, filter, wall_ms())
    }

    fn read(count: u64) -> Result<pb::CountReply, Damaged> {
        Ok(pb::CountReply { count, ..Default::default() })
    }

    fn reply(outcome: Result<pb::CountReply, Refusal>, about: About) -> pb::CountReply {
        let (reply, status) = split(outcome);
        pb::CountReply { status, leader: about.leader, epoch: about.epoch.0, ..reply }
    }

    fn weight(_: &pb::CountReply) -> usize {
        0
    }
}

impl Read for pb::TraverseRequest {
    type Reply = pb::TraverseReply;
    type Found = FoundPage;

    fn target(&self) -> pb::Target {
        self.target.unwrap_or_default()
    }

    fn at_leader_only(&self) -> bool {
        true
    }

    fn at_least(&self) -> (Offset, u64) {
        (Offset(0), 0)
    }

    fn find(&self, node: &Node, p: &Partition) -> Result<FoundPage, Refusal> {
        let pages = Pages {
            limit: self.limit as usize,
            cursor: &self.cursor,
            skip_key: self.skip_key,
            distinct: self.distinct,
        };
        p.store.find_page(&node.log, self.index, pages, wall_ms())
    }

    fn read(found: FoundPage) -> Result<pb::TraverseReply, Damaged> {
        let page = found.read()?;
        let row = |(key, ts, value)| pb::TraverseRow { key, ts, value };
        Ok(pb::TraverseReply {
            rows: page.rows.into_iter().map(row).collect(),
            finished: page.next.is_none(),
            cursor: page.next.unwrap_or_default(),
            ..Default::default()
        })
    }

    fn reply(outcome: Result<pb::TraverseReply, Refusal>, about: About) -> pb::TraverseReply {
        let (reply, status) = split(outcome);
        pb::TraverseReply {
            status,
            leader: about.leader,
            epoch: about.epoch.0,
            commit: about.commit.0,
            ..reply
        }
    }

    fn weight(reply: &pb::TraverseReply) -> usize {
        let row = |r: &pb::TraverseRow| r.key.len() + r.value.len() + size_of::<pb::TraverseRow>();
        reply.rows.iter().map(row).sum()
    }
}

/// How times are compared; `None`: it is not said.
fn kind_of(kind: i32) -> Result<Option<Match>, Refusal> {
    Ok(match pb::TimeMatch::try_from(kind) {
        Ok(pb::TimeMatch::Default) => None,
        Ok(pb::TimeMatch::Eq) => Some(Match::Eq),
        Ok(pb::TimeMatch::Le) => Some(Match::Le),
        Ok(pb::TimeMatch::Lt) => Some(Match::Lt),
        Ok(pb::TimeMatch::Gt) => Some(Match::Gt),
        Ok(pb::TimeMatch::Ge) => Some(Match::Ge),
        Err(_) => return Err(Malformed("type").into()),
    })
}

fn split<R: Default>(outcome: Result<R, Refusal>) -> (R, Option<stela_proto::common::Status>) {
    match outcome {
        Ok(reply) => (reply, wire::ok()),
        Err(refusal) => (R::default(), wire::refused(&refusal)),
    }
}
