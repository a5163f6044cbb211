//! Whether a replica is here: `loadtable`, `drop`.

use stela_common::code::Refusal;
use stela_proto::tablet as pb;

use super::{Session, line, partition};
use crate::print::Answer;
use crate::shell::unsigned;

const LOAD_USAGE: &str =
    "Bad LoadTable format eg loadtable <name> <tid> <pid> <ttl> <seg_cnt> [<is_leader>]";

pub(super) async fn loadtable(session: &Session, args: &[&str]) -> Answer {
    let request = match read(args) {
        Ok(request) => request,
        Err(text) => return Answer::failed(text),
    };
    match session.ask(async |mut c| c.load_table(request).await).await {
        Ok(_) => Answer::done("LoadTable ok"),
        Err(Refusal { code, text }) => {
            Answer::failed(format!("Fail to LoadTable: ReturnCode[{}]{text}", code as i32))
        }
    }
}

/// The times to live and the segments are those of the table, whatever is said here.
fn read(args: &[&str]) -> Result<pb::LoadTableRequest, &'static str> {
    let [name, tid, pid, ttl, segments, rest @ ..] = args else { return Err(LOAD_USAGE) };
    let leader = match rest.first() {
        None | Some(&"true") => true,
        Some(&"false") => false,
        Some(_) => return Err(LOAD_USAGE),
    };
    let numbers = (unsigned(tid), unsigned(pid), unsigned::<u64>(ttl), unsigned::<u32>(segments));
    let (Some(tid), Some(pid), Some(_), Some(_)) = numbers else {
        return Err("Bad LoadTable format");
    };
    Ok(pb::LoadTableRequest { tid, pid, name: (*name).into(), leader })
}

pub(super) async fn drop(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, ..] = args else {
        return Answer::failed("Bad drop command, you should input like 'drop tid pid' ");
    };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let request = pb::ReplicaRequest { tid, pid };
    let dropped = session.ask(async |mut c| c.drop_replica(request).await).await;
    line(dropped, "Drop table ok", "Fail to drop table")
}
