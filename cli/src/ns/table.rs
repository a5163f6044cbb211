//! Tables as a whole: `drop`, `showschema`, `info`.

use stela_common::table::{Index, Table as Definition, TtlKind};

use super::{Session, view};
use crate::print::{Answer, Cell, Part, Table};
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
            Some((table, _)) => schema(table),
            None => Answer::failed(format!("table {name} does not exist")),
        },
        Err(e) => Answer::refused("failed to showschema. error msg: ", &e),
    }
}

fn schema(table: &Definition) -> Answer {
    let mut columns = Table::new(&["#", "Field", "Type", "Null", "Default"]);
    for (at, column) in (1u64..).zip(&table.columns) {
        let null = if column.not_null { "NO" } else { "YES" };
        let kind = column.kind.to_string();
        columns.push(vec![
            Cell::number(at),
            Cell::text(&column.name),
            Cell::text(kind),
            Cell::text(null),
            Cell::none(),
        ]);
    }
    let mut indexes = Table::new(&["#", "name", "keys", "ts", "ttl", "ttl_type", "type"]);
    for (at, index) in (1u64..).zip(&table.indexes) {
        indexes.push(index_cells(at, index));
    }
    let lines = [
        Part::Ruled(columns),
        Part::Line(String::new()),
        Part::Line("#ColumnKey".into()),
        Part::Ruled(indexes),
    ];
    Answer { parts: lines.into(), ..Answer::default() }
}

fn index_cells(at: u64, index: &Index) -> Vec<Cell> {
    let keys = if index.columns.is_empty() { index.name.clone() } else { index.columns.join("|") };
    let ttl_type = match index.ttl.kind {
        TtlKind::Absolute => "kAbsoluteTime",
        TtlKind::Latest => "kLatestTime",
        TtlKind::AbsAndLat => "kAbsAndLat",
        TtlKind::AbsOrLat => "kAbsOrLat",
    };
    vec![
        Cell::number(at),
        Cell::text(&index.name),
        Cell::text(keys),
        Cell::text(index.ts.as_deref().unwrap_or("-")),
        Cell::text(index.ttl.to_string()),
        Cell::text(ttl_type),
        Cell::text("kCovering"),
    ]
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
    let (records, memory, disk) =
        leaders.iter().filter(|r| r.known).fold((0, 0, 0), |(records, memory, disk), r| {
            (records + r.record_cnt, memory + r.memory, disk + r.disk)
        });
    let mut shown = Table::new(&["attribute", "value"]);
    for (attribute, value) in [
        ("name", Cell::text(&table.name)),
        ("replica_num", Cell::number(table.replica_num)),
        ("partition_num", Cell::number(table.partition_num)),
        ("compress_type", Cell::text("kNoCompress")),
        ("record_cnt", Cell::number(records)),
        ("memused", Cell::bytes(memory)),
        ("diskused", Cell::bytes(disk)),
        ("partition_key", Cell::none()),
    ] {
        shown.push(vec![Cell::text(attribute), value]);
    }
    Answer::table(shown)
}
