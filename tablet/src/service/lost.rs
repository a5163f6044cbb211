//! `lost+found`: which tails were set aside, and what is in one. It changes nothing.

use std::io;

use stela_common::code::{Code, Refusal};
use stela_common::wire;
use stela_proto::tablet as pb;

use crate::disk::Files;
use crate::lost::{Count, Ended, Found, Name};
use crate::store::entry::{Content, Which};

/// Files of one answer, at most: each is read whole to be counted.
const FILES: usize = 100;

/// The tails that were set aside, all or those of a table or partition.
pub(super) fn list(files: &Files, request: &pb::LostListRequest) -> pb::LostListReply {
    let refuse = |refusal: &Refusal| pb::LostListReply {
        status: wire::refused(refusal),
        ..Default::default()
    };
    let after = match request.after.as_str() {
        "" => None,
        text => match named(text) {
            Ok(name) => Some(name),
            Err(refusal) => return refuse(&refusal),
        },
    };
    let names = match files.tails() {
        Ok(names) => names,
        Err(e) => {
            let text = format!("cannot read lost+found: {e}");
            return refuse(&Refusal::new(Code::InvalidParameter, text));
        }
    };
    let wanted = |name: &Name| {
        Some(*name) > after
            && request.tid.is_none_or(|t| t == name.key.tid.0)
            && request.pid.is_none_or(|p| p == name.key.pid.0)
    };
    let names: Vec<Name> = names.into_iter().filter(wanted).collect();
    let finished = names.len() <= FILES;
    let files = names.into_iter().take(FILES).map(|name| file(files, name)).collect();
    pb::LostListReply { status: wire::ok(), files, finished }
}

fn file(files: &Files, name: Name) -> pb::LostFile {
    let (bytes, saved, count, ended) = match files.tail(name) {
        Ok(tail) => {
            let (count, ended) = tail.count();
            (tail.bytes(), tail.saved(), count, ended)
        }
        Err(e) => (0, 0, Count::default(), Ended::Damaged(e.to_string())),
    };
    pb::LostFile {
        name: name.to_string(),
        tid: name.key.tid.0,
        pid: name.key.pid.0,
        epoch: name.epoch.0,
        first: name.first.0,
        last: name.last.0,
        entries: count.entries,
        rows: count.rows,
        deletes: count.deletes,
        bytes,
        saved,
        damage: if let Ended::Damaged(why) = ended { why } else { String::new() },
    }
}

/// Some entries of one tail.
pub(super) fn read(files: &Files, request: &pb::LostReadRequest) -> pb::LostReadReply {
    let opened = named(&request.name).and_then(|name| {
        files.tail(name).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => absent(&request.name),
            _ => Refusal::new(Code::InvalidParameter, format!("cannot read {name}: {e}")),
        })
    });
    let tail = match opened {
        Ok(tail) => tail,
        Err(refusal) => {
            let status = wire::refused(&refusal);
            return pb::LostReadReply { status, ..Default::default() };
        }
    };
    let mut entries = Vec::new();
    let ended = tail.read(request.at, |found| entries.push(entry(found)));
    let (next, damage) = match ended {
        Ended::More(next) => (next, String::new()),
        Ended::Whole => (0, String::new()),
        Ended::Damaged(why) => (0, why),
    };
    pb::LostReadReply { status: wire::ok(), entries, next, damage }
}

fn named(text: &str) -> Result<Name, Refusal> {
    Name::parse(text).ok_or_else(|| absent(text))
}

fn absent(name: &str) -> Refusal {
    Refusal::new(Code::InvalidParameter, format!("there is no {name:?} in lost+found"))
}

fn entry((offset, epoch, entry): Found<'_>) -> pb::LostEntry {
    let (mut rows, mut deletes) = (Vec::new(), Vec::new());
    match entry.content() {
        Content::Rows(found) => rows.extend(found.map(|row| {
            pb::LostRow {
                dimensions: row
                    .dimensions
                    .map(|d| pb::LostDimension {
                        index: index(d.index),
                        ts: d.ts,
                        key: d.key.to_vec().into(),
                    })
                    .collect(),
                value: row.value.to_vec().into(),
            }
        })),
        Content::Deletes(found) => deletes.extend(found.map(|delete| {
            let (newest, oldest) = match delete.which {
                Which::Key(_) => (None, None),
                Which::Times { newest, oldest, .. } => (Some(newest), oldest),
                Which::Row { ts, .. } => (ts, ts.and_then(|ts| ts.checked_sub(1))),
            };
            let key = delete.which.key().unwrap_or_default().to_vec().into();
            pb::LostDelete { index: index(delete.index), key, newest, oldest }
        })),
    }
    let (session, seq) = (entry.session(), entry.seq());
    pb::LostEntry { offset: offset.0, epoch: epoch.0, session, seq, rows, deletes }
}

/// It was two bytes long.
fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
