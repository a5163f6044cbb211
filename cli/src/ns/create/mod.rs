//! `create`: a table from words, or from a file.

mod file;

use stela_common::ids::TableId;
use stela_common::table::{Column, ColumnType, Index, Options, Table, Ttl, TtlKind};

use super::Session;
use crate::options;
use crate::print::Answer;
use crate::shell::unsigned;

/// The index of a table without a schema, and of one whose columns nobody has indexed.
const KEY: &str = "key";
const USAGE: &str = "create format error! ex: create table_meta_file | create name ttl partition_num replica_num [name:type:index ...]";
const NUMBER: &str = "Invalid args. pid should be uint32_t";

pub(super) async fn create(session: &Session, args: &[&str]) -> Answer {
    let table = match args {
        [path] => file::read(path),
        [name, ttl, partitions, replicas, columns @ ..] => {
            from_words(name, ttl, partitions, replicas, columns)
        }
        _ => Err(USAGE.into()),
    };
    let table = match table {
        Ok(table) => Table { db: session.db(), ..table },
        Err(text) => return Answer::failed(text),
    };
    match session.client.admin().create_table(&table).await {
        Ok(_) => Answer::done("Create table ok"),
        Err(e) => Answer::refused("Fail to create table. error msg: ", &e),
    }
}

/// A table as the catalog gets it: its number and its database come later.
fn table(
    name: &str,
    columns: Vec<Column>,
    indexes: Vec<Index>,
    partition_num: u32,
    replica_num: u32,
) -> Table {
    Table {
        tid: TableId(0),
        db: String::new(),
        name: name.to_owned(),
        columns,
        indexes,
        partition_num,
        replica_num,
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

fn from_words(
    name: &str,
    ttl: &str,
    partitions: &str,
    replicas: &str,
    columns: &[&str],
) -> Result<Table, String> {
    let ttl = read_ttl(ttl)?;
    let number = |text: &str| unsigned::<u32>(text).ok_or_else(|| NUMBER.to_owned());
    let (partitions, replicas) = (number(partitions)?, number(replicas)?);
    if partitions == 0 {
        return Err("partition_num should be large than zero".into());
    }
    if replicas == 0 {
        return Err("replica_num should be large than zero".into());
    }
    let (columns, words) =
        columns.split_at(columns.iter().position(|w| options::is(w)).unwrap_or(columns.len()));
    let (columns, indexes) = read_columns(columns, ttl)?;
    let options = options::read(words)?.over(Options::default());
    Ok(Table { options, ..table(name, columns, indexes, partitions, replicas) })
}

/// `10`, `absolute:10`, `latest:3`, `absandlat:10:3`, `absorlat:10:3`, and OpenMLDB's own words for them.
pub(super) fn read_ttl(text: &str) -> Result<Ttl, String> {
    let (word, numbers) = match text.split_once(':') {
        Some((word, numbers)) => (word, numbers),
        None => ("absolute", text),
    };
    let kind = match word {
        "absolute" | "kAbsoluteTime" => TtlKind::Absolute,
        "latest" | "kLatestTime" => TtlKind::Latest,
        "absandlat" | "kAbsAndLat" => TtlKind::AbsAndLat,
        "absorlat" | "kAbsOrLat" => TtlKind::AbsOrLat,
        _ => return Err("invalid ttl type".into()),
    };
    let numbers: Vec<u64> = numbers
        .split(':')
        .map(|n| unsigned(n).ok_or_else(|| NUMBER.to_owned()))
        .collect::<Result<_, _>>()?;
    match (kind, &numbers[..]) {
        (TtlKind::Absolute, [abs]) => Ok(Ttl { kind, abs: *abs, lat: 0 }),
        (TtlKind::Latest, [lat]) => Ok(Ttl { kind, abs: 0, lat: *lat }),
        (TtlKind::AbsAndLat | TtlKind::AbsOrLat, [abs, lat]) => {
            Ok(Ttl { kind, abs: *abs, lat: *lat })
        }
        _ => Err("invalid ttl type".into()),
    }
}

/// `name:type` and `name:type:index`; each indexed column is an index of its name.
fn read_columns(words: &[&str], ttl: Ttl) -> Result<(Vec<Column>, Vec<Index>), String> {
    let (mut columns, mut indexes): (Vec<Column>, Vec<Index>) = (Vec::new(), Vec::new());
    for word in words {
        let (name, kind, indexed) = match word.split(':').collect::<Vec<_>>()[..] {
            [name, kind] if !name.is_empty() => (name, kind, false),
            [name, kind, "index"] if !name.is_empty() => (name, kind, true),
            _ => return Err("create failed! schema format is illegal".into()),
        };
        if columns.iter().any(|c| c.name == name) {
            return Err(format!("Duplicated column {name}"));
        }
        let kind = ColumnType::parse(kind).ok_or_else(|| format!("type {kind} is invalid"))?;
        if indexed && !kind.is_key() {
            return Err("float or double column can not be index".into());
        }
        columns.push(Column { name: name.into(), kind, not_null: false });
        if indexed {
            indexes.push(Index {
                name: name.into(),
                columns: vec![name.into()],
                ts: None,
                ttl,
                deleted: false,
                added: Default::default(),
            });
        }
    }
    if columns.is_empty() {
        indexes.push(Index {
            name: KEY.into(),
            columns: vec![],
            ts: None,
            ttl,
            deleted: false,
            added: Default::default(),
        });
    } else if indexes.is_empty() {
        return Err("create failed! schema has no index".into());
    }
    Ok((columns, indexes))
}

#[cfg(test)]
mod tests {
    use stela_common::table::{Ack, Read, Sync};

    use super::*;

    fn read(line: &str) -> Result<Table, String> {
        let words: Vec<&str> = line.split(' ').collect();
        from_words(words[0], words[1], words[2], words[3], &words[4..])
    }

    #[test]
    fn tables_from_words() {
        let plain = read("t 10 8 3").unwrap();
        assert_eq!((plain.partition_num, plain.replica_num, plain.has_schema()), (8, 3, false));
        assert_eq!(plain.indexes[0].ttl, Ttl { kind: TtlKind::Absolute, abs: 10, lat: 0 });
        plain.check().unwrap();
        let table =
            read("t absorlat:60:5 1 1 card:string:index mcc:int64:index amount:double").unwrap();
        table.check().unwrap();
        assert_eq!(
            table.indexes.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["card", "mcc"]
        );
        assert_eq!(table.columns[1].kind, ColumnType::BigInt);
        assert_eq!(table.indexes[1].ttl.to_string(), "60min||5");
        assert_eq!(read("t kLatestTime:3 1 1").unwrap().indexes[0].ttl.lat, 3);
    }

    #[test]
    fn options_behind_the_columns() {
        let table =
            read("t 0 8 3 a:int:index ack=leader sync=interval:50 min_insync=2 read=confirm")
                .unwrap();
        let sync = Sync::Interval(50);
        let wanted = Options { ack: Ack::Leader, sync, min_insync: 2, read: Read::Confirm };
        assert_eq!((table.options, table.columns.len()), (wanted, 1));
        let plain = read("t 0 8 3 sync=commit").unwrap();
        assert_eq!((plain.options, plain.has_schema()), (Options::default(), false));
        // What comes behind an option is one, too.
        assert!(read("t 0 8 3 ack=all a:int:index").unwrap_err().contains("a:int:index"));
    }

    #[test]
    fn what_is_wrong_with_words() {
        for (line, text) in [
            ("t forever:1 1 1", "invalid ttl type"),
            ("t absandlat:1 1 1", "invalid ttl type"),
            ("t x 1 1", NUMBER),
            ("t 1 -1 1", NUMBER),
            ("t 1 1 x", NUMBER),
            ("t 1 0 1", "partition_num should be large than zero"),
            ("t 1 1 0", "replica_num should be large than zero"),
            ("t 1 1 1 a", "create failed! schema format is illegal"),
            ("t 1 1 1 a:int:key", "create failed! schema format is illegal"),
            ("t 1 1 1 a:int:index a:int", "Duplicated column a"),
            ("t 1 1 1 a:text:index", "type text is invalid"),
            ("t 1 1 1 a:float:index", "float or double column can not be index"),
            ("t 1 1 1 a:int", "create failed! schema has no index"),
        ] {
            assert_eq!(read(line).unwrap_err(), text, "{line}");
        }
    }
}
