//! From a record of the file to a row of the table.

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use csv::ByteRecord;
use stela_common::client::{Row, TableHandle};
use stela_common::row::Value;
use stela_common::table::{Column, ColumnType, Table, limits};

use super::columns::Columns;
use super::time;

/// The columns that flags name.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) key: Option<&'a str>,
    pub(super) time: Option<&'a str>,
    pub(super) value: Option<&'a str>,
}

/// Which field goes where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    width: usize,
    fields: Fields,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Fields {
    /// A table without a schema.
    Plain { key: usize, time: usize, value: usize },
    /// For each of the table's columns the field that holds it; `time`: that of the indexes without a ts column.
    Schema { columns: Vec<(Column, usize)>, time: Option<usize> },
}

/// What a record holds, before it is a row.
#[derive(Clone, PartialEq, Debug)]
enum Content {
    Plain { key: Bytes, value: Bytes, time: u64 },
    Values { values: Vec<Value>, time: u64 },
}

impl Mapping {
    /// Finds a field for everything that the table needs.
    pub(super) fn new(table: &Table, columns: &Columns, wanted: &Wanted<'_>) -> Result<Self> {
        let fields = if table.has_schema() {
            schema(table, columns, wanted)?
        } else {
            plain(table, columns, wanted)?
        };
        Ok(Self { width: columns.width(), fields })
    }

    /// The file's columns that go nowhere.
    pub(super) fn unused(&self, columns: &Columns) -> Vec<String> {
        let used = |at: &usize| match &self.fields {
            Fields::Plain { key, time, value } => [key, time, value].contains(&at),
            Fields::Schema { columns, time } => {
                columns.iter().any(|(_, c)| c == at) || time.as_ref() == Some(at)
            }
        };
        (0..columns.width()).filter(|at| !used(at)).map(|at| columns.name(at)).collect()
    }

    /// The row that a record holds, or what is wrong with it.
    pub(super) fn row(&self, table: &TableHandle, record: &ByteRecord) -> Result<Row, String> {
        let row = match self.content(record)? {
            Content::Plain { key, value, time } => table.plain(key, value, time),
            Content::Values { values, time } => {
                table.row(&values, time).map_err(|e| e.to_string())?
            }
        };
        check(table.table(), &row).map(|()| row)
    }

    fn content(&self, record: &ByteRecord) -> Result<Content, String> {
        if record.len() != self.width {
            return Err(format!("{} fields instead of {}", record.len(), self.width));
        }
        match &self.fields {
            Fields::Plain { key, time, value } => Ok(Content::Plain {
                key: Bytes::copy_from_slice(&record[*key]),
                value: Bytes::copy_from_slice(&record[*value]),
                time: time::parse(text(record, *time)?)?,
            }),
            Fields::Schema { columns, time } => {
                let value =
                    |(column, field): &(Column, usize)| value(column, text(record, *field)?);
                let values = columns.iter().map(value).collect::<Result<_, _>>()?;
                let time = time.map_or(Ok(0), |field| time::parse(text(record, field)?))?;
                Ok(Content::Values { values, time })
            }
        }
    }
}

fn plain(table: &Table, columns: &Columns, wanted: &Wanted<'_>) -> Result<Fields> {
    let find = |flag: &str, wanted: Option<&str>| match (wanted, columns.by_name(flag)) {
        (Some(wanted), _) => columns.find(flag, wanted),
        (None, Some(at)) => Ok(at),
        (None, None) => bail!(
            "table {} has no schema: name the file's column of the {flag} with --{flag} (it has {})",
            table.name,
            columns.list()
        ),
    };
    Ok(Fields::Plain {
        key: find("key", wanted.key)?,
        time: find("time", wanted.time)?,
        value: find("value", wanted.value)?,
    })
}

fn schema(table: &Table, columns: &Columns, wanted: &Wanted<'_>) -> Result<Fields> {
    let mut fields: Vec<Option<usize>> =
        table.columns.iter().map(|c| columns.by_name(&c.name)).collect();
    let mut put = |column: &str, at: usize| {
        if let Some(field) = table.column(column).and_then(|c| fields.get_mut(c)) {
            *field = Some(at);
        }
    };
    let live = || table.live_indexes().map(|(_, index)| index);
    let Some(first) = live().next() else { bail!("table {} has no index", table.name) };
    let mut named = Vec::new();
    if let Some(key) = wanted.key {
        let [column] = first.columns.as_slice() else {
            bail!(
                "--key {key}: the key of table {} is several columns: name the file's with --columns",
                table.name
            );
        };
        put(column, columns.find("key", key)?);
        named.push(column);
    }
    let mut time = None;
    match (wanted.time, &first.ts) {
        (Some(wanted), Some(ts)) => {
            put(ts, columns.find("time", wanted)?);
            named.push(ts);
            time = (!live().all(|i| i.ts.is_some()))
                .then(|| columns.find("time", wanted))
                .transpose()?;
        }
        (Some(wanted), None) => time = Some(columns.find("time", wanted)?),
        (None, _) if live().all(|i| i.ts.is_some()) => {}
        (None, _) => bail!(
            "table {} takes the time of a row from no column of its own: name the file's with --time (it has {})",
            table.name,
            columns.list()
        ),
    }
    if let Some(value) = wanted.value {
        let keys_and_times = live().flat_map(|i| i.columns.iter().chain(&i.ts)).collect::<Vec<_>>();
        let mut others =
            table.columns.iter().map(|c| &c.name).filter(|name| !keys_and_times.contains(name));
        let (Some(column), None) = (others.next(), others.next()) else {
            bail!(
                "--value {value}: table {} has not one column beside its key and time: name the file's with --columns",
                table.name
            );
        };
        put(column, columns.find("value", value)?);
    }
    ensure!(
        columns.named() || fields.iter().all(Option::is_some),
        "without a header, name the {} columns of the file with --columns (table {} has {})",
        columns.width(),
        table.name,
        list(table)
    );
    let missing: Vec<&str> = table
        .columns
        .iter()
        .zip(&fields)
        .filter(|(_, f)| f.is_none())
        .map(|(c, _)| &*c.name)
        .collect();
    ensure!(
        missing.is_empty(),
        "the file has no column, or two, for {} of table {}: it has {}; correct --delimiter, or name its columns with --columns",
        missing.join(", "),
        table.name,
        columns.list()
    );
    let columns = table.columns.iter().cloned().zip(fields.into_iter().flatten()).collect();
    Ok(Fields::Schema { columns, time })
}

fn list(table: &Table) -> String {
    table.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn text(record: &ByteRecord, field: usize) -> Result<&str, String> {
    std::str::from_utf8(&record[field]).map_err(|_| format!("field {} is not UTF-8", field + 1))
}

/// A field as the value of a column: an empty one is null unless the column holds strings, and a timestamp may be
/// written as a date and time.
fn value(column: &Column, text: &str) -> Result<Value, String> {
    let parse = |text: &str| Value::parse(text, column).map_err(|e| e.to_string());
    match column.kind {
        ColumnType::Varchar => parse(text),
        _ if text.trim().is_empty() => parse("null"),
        ColumnType::Timestamp => match parse(text.trim()) {
            Ok(value) => Ok(value),
            Err(_) => {
                let ms = time::parse(text).map_err(|e| format!("{e} (column {})", column.name))?;
                Ok(Value::Timestamp(i64::try_from(ms).unwrap_or(i64::MAX)))
            }
        },
        _ => parse(text.trim()),
    }
}

/// Refuses what no tablet takes, so that it is told by its line.
fn check(table: &Table, row: &Row) -> Result<(), String> {
    if row.value.len() > limits::VALUE {
        return Err(format!(
            "a row of {} bytes is too large: at most {}",
            row.value.len(),
            limits::VALUE
        ));
    }
    for (index, key) in &row.dimensions {
        let name = || table.indexes.get(*index as usize).map_or("key", |i| i.name.as_str());
        if key.is_empty() {
            return Err(format!("the key is empty (index {})", name()));
        }
        if key.len() > limits::KEY {
            return Err(format!(
                "a key of {} bytes is too large: at most {} (index {})",
                key.len(),
                limits::KEY,
                name()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
