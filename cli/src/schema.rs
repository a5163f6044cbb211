//! A table's columns and indexes, as `showschema` of both clients prints them.

use stela_common::table::{Index, Table as Definition, TtlKind};

use crate::print::{Answer, Cell, Part, Table};

/// The two tables. An index that was deleted is not shown.
pub(crate) fn shown(table: &Definition) -> Answer {
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
    for (at, (_, index)) in (1u64..).zip(table.live_indexes()) {
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
