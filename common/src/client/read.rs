//! Reading: from the leader, linearizable (R11), or, where asked for, from whatever replica (R35).

use std::time::Instant;

use bytes::Bytes;
use stela_proto::tablet as pb;

use super::attempts::{Advice, Attempts, advice};
use super::write::Stored;
use super::{Client, TableHandle};
use crate::code::{Code, Refusal};
use crate::wire;

/// How a time compares with the one that is asked for; [`Default`](TimeMatch::Default) is said where it is used.
pub use pb::TimeMatch;

/// One row of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Get {
    /// Its time; 0: the newest row, whatever `kind` says.
    pub ts: u64,
    /// The newest row whose time compares with `ts` like that; default `Eq`.
    pub kind: TimeMatch,
    /// A bound that it must keep, too.
    pub et: u64,
    /// How: `Ge`, the default, `Gt` or `Eq`.
    pub et_kind: TimeMatch,
}

/// Which rows of a key are counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// The newest time; 0: the newest there is.
    pub st: u64,
    /// `Le`, the default, or `Lt`.
    pub st_kind: TimeMatch,
    /// The oldest time; 0: the oldest there is.
    pub et: u64,
    /// `Gt`, the default, or `Ge`.
    pub et_kind: TimeMatch,
    /// Of rows with one time only one.
    pub distinct: bool,
}

/// Which rows of a key are read, newest first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Range {
    /// The newest time, inclusive; 0: the newest there is.
    pub st: u64,
    /// The oldest time, exclusive; 0: the oldest there is.
    pub et: u64,
    /// So many rows at most; 0: as many as a reply takes.
    pub limit: u32,
    /// So many rows at least, older ones than `et` if need be.
    pub at_least: u32,
    /// So many rows of time `st` are left out.
    pub skip: u32,
    /// Of rows with one time only the newest insert.
    pub distinct: bool,
}

/// Rows of one key, newest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scanned {
    /// Time and bytes of each.
    pub rows: Vec<(u64, Bytes)>,
    /// `false`: there are more rows in the range (the limit, or the size of a reply).
    pub finished: bool,
    /// The commit offset up to which this replica shows.
    pub commit: u64,
}

/// Some rows of one index of a partition, in an order that stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Traversed {
    /// Key, time and bytes of each.
    pub rows: Vec<(Bytes, u64, Bytes)>,
    /// Where the next page begins; `None`: that was all.
    pub next: Option<Bytes>,
}

/// Who may answer a read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadFrom {
    /// The leader: everything that was acknowledged before is seen.
    Leader,
    /// Any replica, whatever it has.
    Any,
    /// Any replica that has this write, and so all before it in its partition (R35).
    After(Stored),
}

impl ReadFrom {
    /// As the wire has it: who, and what it must have at least.
    fn asked(self) -> (i32, u64, u64) {
        match self {
            Self::Leader => (pb::ReadFrom::Leader.into(), 0, 0),
            Self::Any => (pb::ReadFrom::Any.into(), 0, 0),
            Self::After(token) => (pb::ReadFrom::Any.into(), token.offset, token.uncleans),
        }
    }
}

/// A question to one partition, and how its answer is read.
struct Question<'a> {
    table: &'a TableHandle,
    pid: u32,
    size: usize,
}

/// The parts of an answer that all kinds have.
trait Answer: Sized {
    fn take(kind: pb::answer::Kind) -> Option<Self>;
    fn outcome(&self) -> Result<(), Refusal>;
    fn leader(&self) -> (&str, u64);
}

macro_rules! answer {
    ($($kind:ident($reply:ident)),*) => {
        $(impl Answer for pb::$reply {
            fn take(kind: pb::answer::Kind) -> Option<Self> {
                match kind { pb::answer::Kind::$kind(reply) => Some(reply), _ => None }
            }
            fn outcome(&self) -> Result<(), Refusal> {
                wire::outcome(self.status.as_ref())
            }
            fn leader(&self) -> (&str, u64) {
                (&self.leader, self.epoch)
            }
        })*
    };
}

answer!(Get(GetReply), Scan(ScanReply), Count(CountReply), Traverse(TraverseReply));

impl Client {
    /// The row of a key at a time, or with `ts` 0 the newest: its time and bytes.
    ///
    /// # Errors
    /// What the tablet says, or that there was no answer in time.
    pub async fn get(
        &self,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        ts: u64,
        from: ReadFrom,
    ) -> Result<Option<(u64, Bytes)>, Refusal> {
        self.find(table, index, key, Get { ts, ..Get::default() }, from).await
    }

    /// The row of a key that is asked for: its time and bytes.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn find(
        &self,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        get: Get,
        from: ReadFrom,
    ) -> Result<Option<(u64, Bytes)>, Refusal> {
        let q = question(table, key);
        let request = get_request(&q, index, key, get, from);
        found(
            self.ask(&q, from, |epoch| {
                pb::call::Kind::Get(aimed(&request, epoch, |r| &mut r.target))
            })
            .await,
        )
    }

    /// The rows of a key in a range of time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn scan(
        &self,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        range: Range,
        from: ReadFrom,
    ) -> Result<Scanned, Refusal> {
        let q = question(table, key);
        let request = scan_request(&q, index, key, range, from);
        scanned(
            self.ask(&q, from, |epoch| {
                pb::call::Kind::Scan(aimed(&request, epoch, |r| &mut r.target))
            })
            .await,
        )
    }

    /// The number of rows of a key: all that are stored, or with a filter those that it lets through and that have not
    /// expired.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn count(
        &self,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        filter: Option<Filter>,
        from: ReadFrom,
    ) -> Result<u64, Refusal> {
        let q = question(table, key);
        let key = Bytes::copy_from_slice(key);
        let (who, at_least, at_least_uncleans) = from.asked();
        let Filter { st, st_kind, et, et_kind, distinct } = filter.unwrap_or_default();
        let request = pb::CountRequest {
            target: Some(q.target()),
            key,
            index,
            filter_expired: filter.is_some(),
            from: who,
            at_least,
            at_least_uncleans,
            st,
            st_type: st_kind.into(),
            et,
            et_type: et_kind.into(),
            distinct,
        };
        let reply: Result<pb::CountReply, _> = self
            .ask(&q, from, |epoch| pb::call::Kind::Count(aimed(&request, epoch, |r| &mut r.target)))
            .await;
        match reply {
            Ok(reply) => Ok(reply.count),
            Err(e) if e.code == Code::KeyNotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// The rows of one index of a partition, whatever their keys, from a cursor on (empty: from the first one on): at most
    /// `limit`, or with 0 as many as a reply takes. What has expired is not among them.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn traverse(
        &self,
        table: &TableHandle,
        pid: u32,
        index: u32,
        limit: u32,
        cursor: Bytes,
    ) -> Result<Traversed, Refusal> {
        let q = Question { table, pid, size: cursor.len() };
        let target = Some(q.target());
        let request = pb::TraverseRequest { target, index, limit, cursor, ..Default::default() };
        let reply: pb::TraverseReply = self
            .ask(&q, ReadFrom::Leader, |epoch| {
                pb::call::Kind::Traverse(aimed(&request, epoch, |r| &mut r.target))
            })
            .await?;
        let rows = reply.rows.into_iter().map(|r| (r.key, r.ts, r.value)).collect();
        Ok(Traversed { rows, next: (!reply.finished).then_some(reply.cursor) })
    }

    /// Like [`get`](Self::get), from the replica at that endpoint, whatever it has; one attempt.
    ///
    /// # Errors
    /// What the tablet says, or that it does not answer.
    pub async fn get_at(
        &self,
        endpoint: &str,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        ts: u64,
    ) -> Result<Option<(u64, Bytes)>, Refusal> {
        let q = question(table, key);
        let get = Get { ts, ..Get::default() };
        let request = get_request(&q, index, key, get, ReadFrom::Any);
        found(self.ask_at(&q, endpoint, pb::call::Kind::Get(request)).await)
    }

    /// Like [`scan`](Self::scan), from the replica at that endpoint, whatever it has; one attempt.
    ///
    /// # Errors
    /// What the tablet says, or that it does not answer.
    pub async fn scan_at(
        &self,
        endpoint: &str,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        range: Range,
    ) -> Result<Scanned, Refusal> {
        let q = question(table, key);
        let request = scan_request(&q, index, key, range, ReadFrom::Any);
        scanned(self.ask_at(&q, endpoint, pb::call::Kind::Scan(request)).await)
    }

    async fn ask_at<R: Answer>(
        &self,
        q: &Question<'_>,
        endpoint: &str,
        kind: pb::call::Kind,
    ) -> Result<R, Refusal> {
        let driver = &self.0.driver;
        let link = driver.link(endpoint);
        let deadline = Instant::now() + self.0.timeout;
        let answer = link.call(driver.handle(), driver.cluster(), kind, q.size, deadline).await;
        let reply = R::take(answer.map_err(|lost| Refusal::new(Code::RpcFailed, lost.text))?);
        let reply = reply.ok_or_else(|| {
            Refusal::new(Code::Malformed, format!("{endpoint} answers something else"))
        })?;
        reply.outcome().map(|()| reply)
    }

    async fn ask<R: Answer>(
        &self,
        q: &Question<'_>,
        from: ReadFrom,
        request: impl Fn(u64) -> pb::call::Kind,
    ) -> Result<R, Refusal> {
        let deadline = Instant::now() + self.0.timeout;
        let Some(_room) = self.0.driver.room(q.size, deadline).await else {
            return Err(Code::Busy.into());
        };
        let mut attempts = Attempts::new(&self.0, q.table, q.pid, deadline);
        for tries in 0.. {
            let target = match from {
                ReadFrom::Any | ReadFrom::After(_) => attempts.replica(tries),
                ReadFrom::Leader => attempts.target(),
            };
            let again = match target {
                None => attempts.nobody().await,
                Some((link, epoch)) => match attempts.ask(&link, request(epoch), q.size).await {
                    Err(lost) => attempts.lost(&lost).await,
                    Ok(kind) => {
                        let malformed = || {
                            Refusal::new(
                                Code::Malformed,
                                format!("{} answers something else", link.endpoint()),
                            )
                        };
                        let reply = R::take(kind).ok_or_else(malformed)?;
                        match reply.outcome() {
                            Ok(()) => return Ok(reply),
                            Err(refusal) if advice(refusal.code) == Advice::Final => {
                                return Err(refusal);
                            }
                            Err(refusal) => {
                                let (leader, epoch) = reply.leader();
                                attempts.refused(refusal, leader, epoch).await
                            }
                        }
                    }
                },
            };
            if !again {
                break;
            }
        }
        Err(attempts.over())
    }
}

impl Question<'_> {
    fn target(&self) -> pb::Target {
        pb::Target { tid: self.table.tid(), pid: self.pid, epoch: 0 }
    }
}

fn question<'a>(table: &'a TableHandle, key: &[u8]) -> Question<'a> {
    Question { table, pid: table.partition_of(key), size: key.len() }
}

fn get_request(q: &Question, index: u32, key: &[u8], get: Get, from: ReadFrom) -> pb::GetRequest {
    let (from, at_least, at_least_uncleans) = from.asked();
    let key = Bytes::copy_from_slice(key);
    pb::GetRequest {
        target: Some(q.target()),
        key,
        index,
        ts: get.ts,
        from,
        at_least,
        at_least_uncleans,
        r#type: get.kind.into(),
        et: get.et,
        et_type: get.et_kind.into(),
    }
}

fn scan_request(
    q: &Question,
    index: u32,
    key: &[u8],
    range: Range,
    from: ReadFrom,
) -> pb::ScanRequest {
    let Range { st, et, limit, at_least: min_rows, skip, distinct } = range;
    let key = Bytes::copy_from_slice(key);
    let (from, at_least, at_least_uncleans) = from.asked();
    pb::ScanRequest {
        target: Some(q.target()),
        key,
        index,
        st,
        et,
        limit,
        from,
        at_least,
        at_least_uncleans,
        min_rows,
        skip,
        distinct,
    }
}

/// The request for one attempt, in the epoch that the route says.
fn aimed<R: Clone>(
    request: &R,
    epoch: u64,
    target: impl Fn(&mut R) -> &mut Option<pb::Target>,
) -> R {
    let mut request = request.clone();
    if let Some(target) = target(&mut request) {
        target.epoch = epoch;
    }
    request
}

fn found(reply: Result<pb::GetReply, Refusal>) -> Result<Option<(u64, Bytes)>, Refusal> {
    match reply {
        Ok(reply) => Ok(Some((reply.ts, reply.value))),
        Err(e) if e.code == Code::KeyNotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn scanned(reply: Result<pb::ScanReply, Refusal>) -> Result<Scanned, Refusal> {
    match reply {
        Ok(reply) => {
            let rows = reply.rows.into_iter().map(|r| (r.ts, r.value)).collect();
            Ok(Scanned { rows, finished: reply.finished, commit: reply.commit })
        }
        Err(e) if e.code == Code::KeyNotFound => {
            Ok(Scanned { finished: true, ..Scanned::default() })
        }
        Err(e) => Err(e),
    }
}
