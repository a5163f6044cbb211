//! A table from a file: OpenMLDB's `TableInfo` in protobuf's text format.
//!
//! ```text
//! name: "t1"  partition_num: 8  replica_num: 3
//! column_desc { name: "card" data_type: kString }
//! column_desc { name: "at" data_type: kTimestamp not_null: true }
//! column_key { index_name: "card" col_name: "card" ts_name: "at" ttl { ttl_type: kAbsoluteTime abs_ttl: 10 } }
//! ```

use std::path::Path;

use stela_common::fs;
use stela_common::table::{Column, ColumnType, Index, Table, Ttl, TtlKind};

use super::{KEY, table};
use crate::ns::text::{self, Message, Value};

/// OpenMLDB's defaults.
const PARTITIONS: u32 = 8;
const REPLICAS: u32 = 3;
/// The longest list that its skip lists allow; there are none here, but a file that it refuses is refused.
const HEIGHT: u64 = 12;

pub(super) fn read(path: &str) -> Result<Table, String> {
    let text =
        fs::read_to_string(Path::new(path)).map_err(|_| format!("can not open file {path}"))?;
    let message = text::parse(&text).ok_or_else(malformed)?;
    let table = build(&message)?;
    check(&table)?;
    Ok(table)
}

fn malformed() -> String {
    "table meta file format error".into()
}

fn build(message: &Message) -> Result<Table, String> {
    let mut made = table("", vec![], vec![], PARTITIONS, REPLICAS);
    for (name, value) in message {
        match (name.as_str(), value) {
            ("name", Value::Word(word)) => made.name.clone_from(word),
            ("partition_num", Value::Word(word)) => made.partition_num = number(word)?,
            ("replica_num", Value::Word(word)) => made.replica_num = number(word)?,
            ("key_entry_max_height", Value::Word(word)) => match number::<u64>(word)? {
                0 => {
                    return Err(
                        "Fail to create table. key_entry_max_height must be greater than 0".into(),
                    );
                }
                height if height > HEIGHT => {
                    let text = "is greater than the max heght";
                    return Err(format!(
                        "Fail to create table. key_entry_max_height {height} {text} {HEIGHT}"
                    ));
                }
                _ => {}
            },
            ("column_desc" | "column_desc_v1", Value::Message(message)) => {
                made.columns.push(column(message)?)
            }
            ("column_key", Value::Message(message)) => made.indexes.push(index(message)?),
            // What has no meaning here; the database is the session's.
            (
                "seg_cnt" | "compress_type" | "storage_mode" | "format_version" | "db" | "ttl"
                | "ttl_desc",
                _,
            ) => {}
            _ => return Err(malformed()),
        }
    }
    if made.columns.is_empty() && made.indexes.is_empty() {
        made.indexes.push(Index {
            name: KEY.into(),
            columns: vec![],
            ts: None,
            ttl: Ttl::default(),
            deleted: false,
            added: Default::default(),
        });
    }
    Ok(made)
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, String> {
    crate::shell::unsigned(word).ok_or_else(malformed)
}

fn column(message: &Message) -> Result<Column, String> {
    let (mut name, mut kind, mut not_null) = (String::new(), None, false);
    for (field, value) in message {
        match (field.as_str(), value) {
            ("name", Value::Word(word)) => name.clone_from(word),
            ("data_type" | "type", Value::Word(word)) => {
                let plain =
                    word.strip_prefix('k').map_or_else(|| word.clone(), str::to_ascii_lowercase);
                kind = Some(
                    ColumnType::parse(&plain).ok_or_else(|| format!("type {word} is invalid"))?,
                );
            }
            ("not_null", Value::Word(word)) => not_null = word == "true",
            // OpenMLDB's older files mark the key columns here; `column_key` says it better.
            ("add_ts_idx" | "is_ts_col" | "is_constant", _) => {}
            _ => return Err(malformed()),
        }
    }
    Ok(Column { name, kind: kind.ok_or_else(malformed)?, not_null })
}

fn index(message: &Message) -> Result<Index, String> {
    let mut made = Index {
        name: String::new(),
        columns: vec![],
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    for (field, value) in message {
        match (field.as_str(), value) {
            ("index_name", Value::Word(word)) => made.name.clone_from(word),
            ("col_name", Value::Word(word)) => made.columns.push(word.clone()),
            ("ts_name", Value::Word(word)) => made.ts = Some(word.clone()),
            ("ttl", Value::Message(message)) => made.ttl = ttl(message)?,
            ("flag" | "type", _) => {}
            _ => return Err(malformed()),
        }
    }
    if made.columns.is_empty() && !made.name.is_empty() {
        made.columns.push(made.name.clone());
    }
    Ok(made)
}

fn ttl(message: &Message) -> Result<Ttl, String> {
    let mut made = Ttl::default();
    for (field, value) in message {
        let Value::Word(word) = value else { return Err(malformed()) };
        match field.as_str() {
            "ttl_type" => {
                made.kind = match word.as_str() {
                    "kAbsoluteTime" => TtlKind::Absolute,
                    "kLatestTime" => TtlKind::Latest,
                    "kAbsAndLat" => TtlKind::AbsAndLat,
                    "kAbsOrLat" => TtlKind::AbsOrLat,
                    _ => return Err(malformed()),
                };
            }
            "abs_ttl" => made.abs = number(word)?,
            "lat_ttl" => made.lat = number(word)?,
            _ => return Err(malformed()),
        }
    }
    Ok(made)
}

/// What the catalog would refuse as well, in the words that a file is refused with.
fn check(table: &Table) -> Result<(), String> {
    for (at, index) in table.indexes.iter().enumerate() {
        if table.has_schema()
            && table.indexes[..at].iter().any(|i| i.columns == index.columns && i.ts == index.ts)
        {
            return Err("duplicate column_key".into());
        }
    }
    table.check()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Table, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        fs::write(&path, text.as_bytes()).unwrap();
        read(&path.display().to_string())
    }

    const COLUMNS: &str = "name: 't' column_desc { name: 'card' data_type: kString } column_desc { name: 'at' data_type: kTimestamp not_null: true } column_desc { name: 'f' type: 'float' }";

    #[test]
    fn a_whole_table() {
        let keys = "column_key { index_name: 'card' ts_name: 'at' ttl { ttl_type: kAbsAndLat abs_ttl: 10 lat_ttl: 2 } } partition_num: 4";
        let table = read_text(&format!("{COLUMNS} {keys}")).unwrap();
        assert_eq!((table.partition_num, table.replica_num, table.columns.len()), (4, 3, 3));
        assert!(table.columns[1].not_null && table.columns[2].kind == ColumnType::Float);
        assert_eq!(
            (table.indexes[0].columns.join(","), table.indexes[0].ts.as_deref()),
            ("card".into(), Some("at"))
        );
        assert_eq!(table.indexes[0].ttl.to_string(), "10min&&2");
        assert!(!read_text("name: 't'").unwrap().has_schema());
    }

    #[test]
    fn what_is_wrong_with_a_file() {
        for (more, text) in [
            ("colour: 3", "table meta file format error"),
            ("partition_num: x", "table meta file format error"),
            ("column_key { }", "not set index_name in column_key"),
            ("column_key { index_name: 'x' }", "column :x is not member of columns"),
            ("column_key { index_name: 'f' }", "float or double column can not be index"),
            ("column_key { index_name: 'card' ts_name: 'x' }", "invalid ts_name x"),
            ("column_key { index_name: 'card' ts_name: 'card' }", "invalid ts type ts_name card"),
            (
                "column_key { index_name: 'card' } column_key { index_name: 'card' ts_name: 'at' }",
                "duplicate index_name card",
            ),
            (
                "column_key { index_name: 'card' } column_key { index_name: 'b' col_name: 'card' }",
                "duplicate column_key",
            ),
            ("", "no index"),
            (
                "key_entry_max_height: 0",
                "Fail to create table. key_entry_max_height must be greater than 0",
            ),
            (
                "key_entry_max_height: 13",
                "Fail to create table. key_entry_max_height 13 is greater than the max heght 12",
            ),
        ] {
            assert_eq!(read_text(&format!("{COLUMNS} {more}")).unwrap_err(), text, "{more}");
        }
        assert_eq!(read("/no/such/file").unwrap_err(), "can not open file /no/such/file");
        assert_eq!(read_text("name").unwrap_err(), "table meta file format error");
    }
}
