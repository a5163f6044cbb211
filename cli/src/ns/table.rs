//! Tables as a whole: `drop`, `showschema`, `info`.

use stela_proto::nameserver as pb;

use super::{Session, view};
use crate::print::{Answer, Cell, Table};
use crate::schema;
use crate::shell::Ask;

pub(super) async fn drop(session: &Session, args: &[&str], ask: &mut dyn Ask) -> Answer {
    let Some(name) = args.first() else { return Answer::failed("Bad format") };
    if !ask.yes(&format!("Drop table {name}? yes/no")) {
        return Answer::failed(format!("'drop {name}' cmd is canceled!"));
    }
    match session.client.admin().drop_table(&session.db(), name).await {
        Ok(_) => Answer::done("drop ok"),
        Err(e) => Answer::refused("failed to drop. error msg: ", &e),
    }
}

pub(super) async fn showschema(session: &Session, args: &[&str]) -> Answer {
    let Some(name) = args.first() else {
        return Answer::failed("showschema format error. eg: showschema tablename");
    };
    match view::visible(session, name).await {
        Ok(tables) => match tables.last() {
            Some((table, _)) => schema::shown(table),
            None => Answer::failed(format!("table {name} does not exist")),
        },
        Err(e) => Answer::refused("failed to showschema. error msg: ", &e),
    }
}

pub(super) async fn info(session: &Session, args: &[&str]) -> Answer {
    let Some(name) = args.first() else {
        return Answer::failed("info format error. eg: info tablename");
    };
    let tables = match view::visible(session, name).await {
        Ok(tables) => tables,
        Err(e) => return Answer::refused("failed to get table info. error msg: ", &e),
    };
    // Nothing at all is said of a table that is not there; that it failed, the status tells.
    let Some((table, partitions)) = tables.last() else {
        return Answer { failed: true, ..Answer::default() };
    };
    // Of each partition, the replica that leads.
    let leaders: Vec<_> =
        partitions.iter().filter_map(|p| p.replicas.iter().find(|r| r.leader && r.alive)).collect();
    let sum = |figure: fn(&pb::ReplicaRow) -> u64| -> u64 {
        leaders.iter().filter(|r| r.known).map(|r| figure(r)).sum()
    };
    let mut shown = Table::new(&["attribute", "value"]);
    for (attribute, value) in [
        ("name", Cell::text(&table.name)),
        ("replica_num", Cell::number(table.replica_num)),
        ("partition_num", Cell::number(table.partition_num)),
        ("compress_type", Cell::text("kNoCompress")),
        ("record_cnt", Cell::number(sum(|r| r.record_cnt))),
        ("memused", Cell::bytes(sum(|r| r.memory))),
        ("diskused", Cell::bytes(sum(|r| r.disk))),
        ("partition_key", Cell::none()),
        // The original has no such row: behind those that it has.
        ("key_cnt", Cell::number(sum(|r| r.key_cnt))),
    ] {
        shown.push(vec![Cell::text(attribute), value]);
    }
    Answer::table(shown)
}
