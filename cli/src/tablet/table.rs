//! The table as one replica knows it, and whether its rows expire there: `showschema`, `setexpire`.

use stela_common::code::Refusal;
use stela_common::table::Table;
use stela_common::wire::Malformed;
use stela_proto::tablet as pb;

use super::{Session, line, partition};
use crate::print::Answer;
use crate::schema;

/// The definition of a table of which a replica is there.
pub(super) async fn definition(session: &Session, tid: u32, pid: u32) -> Result<Table, Refusal> {
    let request = pb::TableSchemaRequest { tid, pid };
    let reply = session.ask(async |mut c| c.table_schema(request).await).await?;
    Ok(reply.table.as_ref().ok_or(Malformed("table"))?.try_into()?)
}

pub(super) async fn showschema(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, ..] = args else { return Answer::failed("Bad show schema format") };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    match definition(session, tid, pid).await {
        Ok(table) if table.has_schema() => schema::shown(&table),
        Ok(_) => Answer::done("No schema for table"),
        Err(e) => Answer::failed("ShowSchema failed").because(e.text),
    }
}

pub(super) async fn setexpire(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, word, ..] = args else { return Answer::failed("Bad format") };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    // OpenMLDB takes every other word for false: a slip would turn expiry off.
    let Ok(on) = word.to_ascii_lowercase().parse() else { return Answer::failed("Bad format") };
    let request = pb::SetExpireRequest { tid, pid, on };
    let set = session.ask(async |mut c| c.set_expire(request).await).await;
    line(set, "setexpire ok", "Fail to setexpire")
}
