//! Rows: `put`, `get`, `scan`, `count`, `delete`, `preview`. They go straight to the tablet that leads the partition.

mod count;
mod delete;
mod get;
mod preview;
mod put;
mod scan;

pub(super) use count::count;
pub(super) use delete::delete;
pub(super) use get::get;
pub(super) use preview::{Limits as PreviewLimits, preview};
pub(super) use put::put;
pub(super) use scan::scan;

use std::sync::Arc;

use bytes::Bytes;
use stela_common::client::TableHandle;
use stela_common::code::{Code, Refusal};
use stela_common::row::RowError;

use super::Session;
use crate::print::{Answer, Cell, Table};

/// Opens a table of the selected database. `verb` is what the command calls itself, `word` what the table was called by
/// on the line.
async fn open(
    session: &Session,
    verb: &str,
    word: &str,
    name: &str,
) -> Result<Arc<TableHandle>, Answer> {
    session.client.table(&session.db(), name).await.map_err(|e| match e.code {
        Code::TableNotFound | Code::DatabaseNotFound => {
            Answer::failed(format!("{verb} failed! table {word} does not exist"))
        }
        _ => Answer::refused("failed to get table info. error msg: ", &e),
    })
}

/// The index that a word names; none: the first that is not deleted.
fn index_of(table: &TableHandle, name: Option<&str>) -> Result<u32, Refusal> {
    match name {
        None => Ok(table.first_index()),
        Some(name) => table
            .table()
            .index(name)
            .and_then(|at| u32::try_from(at).ok())
            .ok_or_else(|| Code::IndexNotFound.into()),
    }
}

/// Did a request fail because nobody leads the key's partition? Then it is said so, with the partition.
fn nobody_leads(table: &TableHandle, key: &[u8]) -> Option<u32> {
    let pid = table.partition_of(key);
    table.leader(pid).is_none().then_some(pid)
}

/// An answer to a read that failed: `verb` and `words` are those of the command.
fn read_failed(
    table: &TableHandle,
    key: &str,
    verb: &str,
    words: &str,
    refusal: &Refusal,
) -> Answer {
    match nobody_leads(table, key.as_bytes()) {
        Some(pid) => Answer::failed(format!(
            "failed to {verb}. error msg: cannot find healthy endpoint. pid is {pid}"
        ))
        .because(&refusal.text),
        None => Answer::refused(words, refusal),
    }
}

/// The cells of a stored row of a table with a schema.
fn cells(table: &TableHandle, value: &[u8]) -> Result<Vec<Cell>, RowError> {
    use stela_common::row::Value;
    let cell = |value: Value| match &value {
        Value::Null => Cell::none(),
        Value::Bool(v) => Cell { text: value.text(), json: (*v).into() },
        Value::SmallInt(v) => Cell { text: value.text(), json: (*v).into() },
        Value::Int(v) => Cell { text: value.text(), json: (*v).into() },
        Value::BigInt(v) | Value::Timestamp(v) => Cell { text: value.text(), json: (*v).into() },
        Value::Float(v) => Cell { text: value.text(), json: f64::from(*v).into() },
        Value::Double(v) => Cell { text: value.text(), json: (*v).into() },
        Value::Varchar(v) => Cell { text: v.clone(), json: v.as_str().into() },
        Value::Date(_) => Cell::text(value.text()),
    };
    Ok(table.decode(value)?.into_iter().map(cell).collect())
}

/// Rows with their keys and times, as a table. Of a table with a schema the key is among the columns, and the time, too, if
/// an index takes it from there.
fn shown<K: AsRef<[u8]>>(
    table: &TableHandle,
    rows: impl IntoIterator<Item = (K, u64, Bytes)>,
) -> Result<Answer, Refusal> {
    let schema = table.table().has_schema();
    let with_time = table.table().time_from_request();
    let mut columns = vec!["#"];
    if schema {
        columns.extend(with_time.then_some("ts"));
        columns.extend(column_names(table));
    } else {
        columns.extend(["key", "ts", "data"]);
    }
    let mut shown = Table::new(&columns);
    for (at, (key, ts, value)) in (1u64..).zip(rows) {
        let mut row = vec![Cell::number(at)];
        if schema {
            row.extend(with_time.then(|| Cell::number(ts)));
            row.extend(
                cells(table, &value).map_err(|e| Refusal::new(Code::Malformed, e.to_string()))?,
            );
        } else {
            row.extend([
                Cell::text(String::from_utf8_lossy(key.as_ref())),
                Cell::number(ts),
                Cell::text(String::from_utf8_lossy(&value)),
            ]);
        }
        shown.push(row);
    }
    Ok(Answer::table(shown))
}

/// The names of a table's columns.
fn column_names(table: &TableHandle) -> impl Iterator<Item = &str> {
    table.table().columns.iter().map(|c| c.name.as_str())
}
