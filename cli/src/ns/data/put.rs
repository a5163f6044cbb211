//! `put`.

use bytes::Bytes;
use stela_common::client::{Row, TableHandle};
use stela_common::clock::wall_ms;
use stela_common::row::{RowError, Value};

use super::super::Session;
use super::{nobody_leads, open};
use crate::print::Answer;
use crate::shell::unsigned;

const USAGE: &str =
    "put format error. eg: put table_name pk ts value | put table_name [ts] field1 field2 ...";
const COUNT: &str = "put format error! input value does not match the schema";

pub(crate) async fn put(session: &Session, args: &[&str]) -> Answer {
    let [name, values @ ..] = args else { return Answer::failed(USAGE) };
    if values.is_empty() {
        return Answer::failed(USAGE);
    }
    let table = match open(session, "put", name, name).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    let row = if table.table().has_schema() {
        with_schema(&table, values)
    } else {
        without_schema(&table, values)
    };
    let row = match row {
        Ok(row) => row,
        Err(answer) => return answer,
    };
    let (time, key) =
        (row.time, row.dimensions.first().map(|(_, key)| key.clone()).unwrap_or_default());
    match session.client.put(&table, vec![row]).await {
        Ok(_) => Answer::done("Put ok"),
        Err(error) => failed(&table, &key, time, &error.to_string()),
    }
}

/// `pk ts value`.
fn without_schema(table: &TableHandle, values: &[&str]) -> Result<Row, Answer> {
    let [key, time, value] = values else {
        // More words than three would be a value with blanks, of which the rest must not be lost in silence.
        return Err(Answer::failed(if values.len() < 3 { USAGE } else { COUNT }));
    };
    let time = read_time(time)?;
    Ok(table.plain(
        Bytes::copy_from_slice(key.as_bytes()),
        Bytes::copy_from_slice(value.as_bytes()),
        time,
    ))
}

/// `[ts] field1 field2 ...`; there is a time where no index takes it from a column.
fn with_schema(table: &TableHandle, values: &[&str]) -> Result<Row, Answer> {
    let (time, values) = match values {
        [time, values @ ..] if table.table().time_from_request() => (read_time(time)?, values),
        values => (wall_ms(), values),
    };
    let columns = &table.table().columns;
    if values.len() != columns.len() {
        return Err(Answer::failed(COUNT));
    }
    let encode = |e: RowError| Answer::failed("Encode data error").because(e.to_string());
    let values: Vec<Value> = columns
        .iter()
        .zip(values)
        .map(|(column, text)| Value::parse(text, column))
        .collect::<Result<_, _>>()
        .map_err(encode)?;
    table.row(&values, time).map_err(encode)
}

fn read_time(text: &str) -> Result<u64, Answer> {
    unsigned(text)
        .ok_or_else(|| Answer::failed(format!("Invalid args. ts {text} should be unsigned int")))
}

fn failed(table: &TableHandle, key: &[u8], time: u64, cause: &str) -> Answer {
    let (tid, pid) = (table.tid(), table.partition_of(key));
    let text = match nobody_leads(table, key) {
        Some(pid) => format!("put error. cannot find healthy endpoint. pid is {pid}"),
        None => {
            let endpoint = table.leader(pid).unwrap_or_default();
            // The blank at the end is the original's.
            format!("put failed. tid {tid} pid {pid} endpoint {endpoint} ts {time} ")
        }
    };
    Answer::failed(text).because(cause)
}
