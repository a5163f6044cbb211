//! Writing: one request with one id per partition, repeated unchanged until its outcome is known (R32, R33).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::future::join_all;
use stela_proto::tablet as pb;

use super::attempts::{Advice, Attempts, advice};
use super::session::Slot;
use super::table::added_since;
use super::{Client, Row, Shared, TableHandle, WriteError};
use crate::code::{Code, Refusal};
use crate::table::{Ack, Table, limits};
use crate::wire;

/// Sessions that are tried for one request when each is said to be forgotten.
const SESSIONS: u32 = 3;

/// What one partition has acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The partition.
    pub pid: u32,
    /// The offset of the write there.
    pub offset: u64,
    /// The leader's epoch.
    pub epoch: u64,
    /// How many unclean epochs the partition had had (R16): with the offset it tells a replica what to wait for (R35).
    pub uncleans: u64,
}

/// An acknowledged write: every partition that it touches has acknowledged its part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PutOutcome {
    /// By partition.
    pub parts: Vec<Stored>,
    /// Nothing was stored: all of it was there ([`put_if_absent`](Client::put_if_absent)).
    pub existed: bool,
}

/// What goes to one partition.
pub(super) enum Part {
    Rows {
        rows: Vec<pb::Row>,
        ack: pb::AckLevel,
        when: When,
        /// Of the table, whose indexes they have.
        version: u32,
    },
    /// Without who it goes to and its number.
    Delete(pb::DeleteRequest),
}

/// When a row is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum When {
    /// In any case.
    Always,
    /// If it is not there.
    Absent,
    /// The same, and if the index is being filled.
    Filling,
}

impl Client {
    /// Stores rows. Those of one partition are applied whole or not at all; rows, or dimensions of a row, that hash to
    /// several partitions are one request for each, and an error may leave some of them applied (R33): then it is
    /// [`WriteError::Unknown`].
    ///
    /// # Errors
    /// [`WriteError::Refused`]: nothing was applied. [`WriteError::Unknown`]: the client's timeout is over, or the
    /// cluster has forgotten the request, and it is not known whether it was applied.
    pub async fn put(&self, table: &TableHandle, rows: Vec<Row>) -> Result<PutOutcome, WriteError> {
        self.put_as(table, rows, None).await
    }

    /// Stores rows that are acknowledged when those have them whom `ack` names, and not whom the table names (R34). With
    /// [`Ack::Leader`] what is acknowledged may be lost in a failover, and is readable when the in-sync set has it.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_as(
        &self,
        table: &TableHandle,
        rows: Vec<Row>,
        ack: Option<Ack>,
    ) -> Result<PutOutcome, WriteError> {
        let ack = match ack {
            None => pb::AckLevel::Table,
            Some(Ack::All) => pb::AckLevel::All,
            Some(Ack::Leader) => pb::AckLevel::Leader,
        };
        self.put_rows(table, rows, ack, When::Always).await
    }

    /// Stores those of the rows that are not there: no row with the same bytes has the same time under the first of its
    /// keys in a partition. Each partition decides for its part.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_if_absent(
        &self,
        table: &TableHandle,
        rows: Vec<Row>,
    ) -> Result<PutOutcome, WriteError> {
        self.put_rows(table, rows, pb::AckLevel::Table, When::Absent).await
    }

    /// Brings rows into an index that is being filled, each with its key there alone, as
    /// [`put_if_absent`](Self::put_if_absent) does. Once it is filled they are refused: what is deleted then does not
    /// come back.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn fill(
        &self,
        table: &TableHandle,
        rows: Vec<Row>,
    ) -> Result<PutOutcome, WriteError> {
        self.put_rows(table, rows, pb::AckLevel::Table, When::Filling).await
    }

    /// Each row goes into all indexes that the table has when it is acknowledged.
    async fn put_rows(
        &self,
        table: &TableHandle,
        mut rows: Vec<Row>,
        ack: pb::AckLevel,
        when: When,
    ) -> Result<PutOutcome, WriteError> {
        let mut definition = table.routes.definition();
        let complete = |definition: &Table, rows: &mut Vec<Row>| {
            table
                .complete(definition, rows)
                .map_err(|e| WriteError::Refused(Refusal::new(Code::PutFailed, e.to_string())))
        };
        complete(&definition, &mut rows)?;
        let size = check(&rows).map_err(WriteError::Refused)?;
        let filling = definition.filling().and_then(|(at, _)| u32::try_from(at).ok());
        if filling.is_some() {
            table.routes.watch_filling(&self.0);
        }
        // Rows are on their way into an index that is being filled from there, too, and must not be there twice.
        let how = |index| if Some(index) == filling { when.max(When::Absent) } else { when };
        let of_schema = rows.iter().filter(|_| definition.has_schema());
        let kept: Vec<(u64, Bytes)> = of_schema.map(|r| (r.time, r.value.clone())).collect();
        let mut parts = parts_of(table, &definition, rows, ack, how);
        let mut outcome = self.write(table, parts, size).await?;
        loop {
            let newest = table.routes.definition();
            let since = definition.version();
            if newest.version() <= since {
                return Ok(outcome);
            }
            // An index was added meanwhile, and somebody who leads a part knew of it. Where they belong by that the rows
            // may come from there as well.
            let row = |(time, value): &(u64, Bytes)| Row {
                time: *time,
                dimensions: vec![],
                value: value.clone(),
            };
            let mut rows: Vec<Row> = kept.iter().map(row).collect();
            let late = |e: &dyn std::fmt::Display| {
                WriteError::Unknown(format!("{e} (by an index that is new)"))
            };
            complete(&newest, &mut rows).map_err(|e| late(&e))?;
            let added: Vec<u32> = added_since(&newest, since).map(|(at, _)| at).collect();
            rows.iter_mut().for_each(|r| r.dimensions.retain(|(at, _)| added.contains(at)));
            parts = parts_of(table, &newest, rows, ack, |_| When::Absent);
            let stored = self.write(table, parts, size).await.map_err(|e| late(&e))?;
            outcome.parts.extend(stored.parts);
            definition = newest;
        }
    }

    pub(super) async fn write(
        &self,
        table: &TableHandle,
        parts: Vec<(u32, Part)>,
        size: usize,
    ) -> Result<PutOutcome, WriteError> {
        let deadline = Instant::now() + self.0.timeout;
        let Some(_room) = self.0.driver.room(size, deadline).await else {
            return Err(WriteError::Refused(Code::Busy.into()));
        };
        let results = match <[_; 1]>::try_from(parts) {
            Ok([(pid, part)]) => vec![write_part(&self.0, table, pid, part, size, deadline).await],
            Err(parts) => {
                let parts = parts
                    .into_iter()
                    .map(|(pid, part)| write_part(&self.0, table, pid, part, size, deadline));
                join_all(parts).await
            }
        };
        merge(results)
    }
}

/// Refuses what no tablet takes, and what would not fit a frame.
fn check(rows: &[Row]) -> Result<usize, Refusal> {
    let mut size = 0;
    for row in rows {
        let too_large = |what: &str, len: usize, most: usize| {
            Refusal::new(
                Code::TooLarge,
                format!("{what} of {len} bytes is too large: at most {most}"),
            )
        };
        if row.value.len() > limits::VALUE {
            return Err(too_large("a value", row.value.len(), limits::VALUE));
        }
        if let Some((_, key)) = row.dimensions.iter().find(|(_, key)| key.len() > limits::KEY) {
            return Err(too_large("a key", key.len(), limits::KEY));
        }
        if row.dimensions.is_empty() || row.dimensions.iter().any(|(_, key)| key.is_empty()) {
            return Err(Code::InvalidDimension.into());
        }
        size += row.size();
        if size > limits::REQUEST {
            return Err(too_large("a request", size, limits::REQUEST));
        }
    }
    Ok(size)
}

/// What dimensions of a row go together: the partition, when, and of which index alone.
type Place = (u32, When, Option<u32>);

/// By partition, the rows with those of their dimensions that are found there; apart from others those that are stored
/// only `when` they are absent.
fn parts_of(
    table: &TableHandle,
    definition: &Table,
    rows: Vec<Row>,
    ack: pb::AckLevel,
    when: impl Fn(u32) -> When,
) -> Vec<(u32, Part)> {
    // Whether a row is there is looked up by its first key: of one that was brought into an index that says nothing
    // about others.
    let alone = |index: u32, when| {
        let added = definition.indexes.get(index as usize).is_some_and(|i| i.added.version > 0);
        (when != When::Always && added).then_some(index)
    };
    let mut parts: BTreeMap<(u32, When), Vec<pb::Row>> = BTreeMap::new();
    for Row { time, dimensions, value } in rows {
        let mut of_row: Vec<(Place, Vec<pb::Dimension>)> = Vec::with_capacity(1);
        for (index, key) in dimensions {
            let when = when(index);
            let place = (table.partition_of(&key), when, alone(index, when));
            let dimension = pb::Dimension { index, key };
            match of_row.iter_mut().find(|(p, _)| *p == place) {
                Some((_, there)) => there.push(dimension),
                None => of_row.push((place, vec![dimension])),
            }
        }
        for ((pid, when, _), dimensions) in of_row {
            let row = pb::Row { time, dimensions, value: value.clone() };
            parts.entry((pid, when)).or_default().push(row);
        }
    }
    let version = definition.version();
    let part = |((pid, when), rows)| (pid, Part::Rows { rows, ack, when, version });
    parts.into_iter().map(part).collect()
}

fn merge(results: Vec<Result<(Stored, bool), WriteError>>) -> Result<PutOutcome, WriteError> {
    let several = results.len() > 1;
    let (mut parts, mut errors) = (Vec::with_capacity(results.len()), Vec::new());
    let mut all_there = !results.is_empty();
    for result in results {
        match result {
            Ok((stored, existed)) => {
                parts.push(stored);
                all_there &= existed;
            }
            Err(error) => errors.push(error),
        }
    }
    let unknown = errors.iter().any(|e| matches!(e, WriteError::Unknown(_)));
    match errors.into_iter().reduce(|a, b| if matches!(a, WriteError::Unknown(_)) { a } else { b })
    {
        None => Ok(PutOutcome { parts, existed: all_there }),
        Some(error) if !several || (parts.is_empty() && !unknown) => Err(error),
        Some(error) => {
            let stored: Vec<String> = parts.iter().map(|p| p.pid.to_string()).collect();
            let stored = if stored.is_empty() { "none".into() } else { stored.join(",") };
            Err(WriteError::Unknown(format!(
                "{error} (partitions that have acknowledged their part: {stored})"
            )))
        }
    }
}

fn request(
    table: &TableHandle,
    pid: u32,
    epoch: u64,
    slot: &Slot,
    part: &Part,
    again: bool,
) -> pb::call::Kind {
    let target = Some(pb::Target { tid: table.tid(), pid, epoch });
    let (session, seq) = (slot.session, slot.seq);
    match part {
        Part::Rows { rows, ack, when, version } => pb::call::Kind::Put(pb::PutRequest {
            target,
            session,
            seq,
            rows: rows.clone(),
            again,
            ack: (*ack).into(),
            if_absent: *when != When::Always,
            table_version: *version,
            filling: *when == When::Filling,
        }),
        Part::Delete(request) => {
            let request = request.clone();
            pb::call::Kind::Delete(pb::DeleteRequest { target, session, seq, again, ..request })
        }
    }
}

/// Could a write have been taken up before this answer to it? A leader that steps down or loses its lease gives up the
/// writes that wait with these codes, and they may yet be committed by its successor (H13).
fn taken_up(code: Code) -> bool {
    matches!(code, Code::TableIsFollower | Code::LeaseExpired | Code::WriteDataFailed)
}

async fn write_part(
    shared: &Arc<Shared>,
    table: &TableHandle,
    pid: u32,
    mut part: Part,
    size: usize,
    deadline: Instant,
) -> Result<(Stored, bool), WriteError> {
    let Some(session) = table.sessions.get(pid as usize) else {
        return Err(WriteError::Refused(Code::PidNotFound.into()));
    };
    let mut attempts = Attempts::new(shared, table, pid, deadline);
    // An earlier attempt may have been, or may yet be, applied.
    let mut exposed = false;
    let mut sessions = 0;
    let mut slot = begin(shared, session, deadline).await?;
    loop {
        let Some((link, epoch)) = attempts.target() else {
            if attempts.nobody().await {
                continue;
            }
            return Err(over(attempts, exposed));
        };
        let reply = match attempts
            .ask(&link, request(table, pid, epoch, &slot, &part, exposed), size)
            .await
        {
            Ok(pb::answer::Kind::Put(reply)) => reply,
            Ok(_) => {
                return Err(WriteError::Unknown(format!(
                    "{} answers a write with something else",
                    link.endpoint()
                )));
            }
            Err(lost) => {
                exposed |= lost.sent;
                if attempts.lost(&lost).await {
                    continue;
                }
                return Err(over(attempts, exposed));
            }
        };
        let refusal = match wire::outcome(reply.status.as_ref()) {
            Ok(()) => {
                slot.acknowledged();
                let existed = reply.status.is_some_and(|s| s.msg == wire::EXISTED);
                let (offset, epoch, uncleans) = (reply.offset, reply.epoch, reply.uncleans);
                return Ok((Stored { pid, offset, epoch, uncleans }, existed));
            }
            Err(refusal) => refusal,
        };
        match (refusal.code, advice(refusal.code)) {
            (Code::UnknownOutcome, _) => {
                slot.forgotten();
                sessions += 1;
                // Only a first attempt proves that nothing was applied.
                if exposed || sessions == SESSIONS {
                    return Err(WriteError::Unknown(refusal.text));
                }
                slot = begin(shared, session, deadline).await?;
            }
            // The same request, as one that knows: who sent the rows sees to it that they come into that index, too.
            (Code::StaleTable, _) => match &mut part {
                Part::Rows { version, .. } => match attempts.newer_than(*version, refusal).await {
                    Some(newer) => *version = newer,
                    None => return Err(over(attempts, exposed)),
                },
                // Another request has to take its place, which deletes more: whether this one was applied does not matter.
                Part::Delete(_) => return Err(WriteError::Refused(refusal)),
            },
            (_, Advice::Final) if exposed => return Err(WriteError::Unknown(refusal.text)),
            (Code::WriteDataFailed, _) => return Err(WriteError::Unknown(refusal.text)),
            (_, Advice::Final) => return Err(WriteError::Refused(refusal)),
            (code, _) => {
                exposed |= taken_up(code);
                if !attempts.refused(refusal, &reply.leader, reply.epoch).await {
                    return Err(over(attempts, exposed));
                }
            }
        }
    }
}

async fn begin<'a>(
    shared: &Shared,
    session: &'a super::session::Session,
    deadline: Instant,
) -> Result<Slot<'a>, WriteError> {
    match session.try_begin() {
        Some(slot) => Ok(slot),
        None => shared
            .driver
            .within(deadline, session.begin())
            .await
            .ok_or_else(|| WriteError::Refused(Code::Busy.into())),
    }
}

fn over(attempts: Attempts, exposed: bool) -> WriteError {
    let refusal = attempts.over();
    if exposed {
        WriteError::Unknown(format!("{}: {refusal}", Code::UnknownOutcome.text()))
    } else {
        WriteError::Refused(refusal)
    }
}
