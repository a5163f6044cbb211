//! Changes of a table's definition: `setttl`, `addtablefield`, `addindex`, `deleteindex`.

use std::time::{Duration, Instant};

use stela_common::table::{Column, ColumnType, Index, Table, Ttl, TtlKind};
use stela_common::wire;
use stela_proto::nameserver::SetTtl;
use stela_proto::nameserver::alter_table_request::Change;

use super::{Session, view};
use crate::print::Answer;
use crate::shell::unsigned;

const TTL_USAGE: &str = "bad setttl format, eg settl t1 absolute 10 [index0]";
const TTL_NUMBER: &str = "Invalid args ttl which should be uint64_t";
/// `addindex` waits so long for rows to be in the index.
const FILLED: Duration = Duration::from_secs(5);
/// How often it looks.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn setttl(session: &Session, args: &[&str]) -> Answer {
    let (table, ttl, index) = match read_ttl(args) {
        Ok(read) => read,
        Err(text) => return Answer::failed(text),
    };
    let change = Change::Ttl(SetTtl { ttl: Some(wire::ttl(&ttl)), index: index.into() });
    match session.client.admin().alter_table(session.table(table), change).await {
        Ok(_) => Answer::done(
            "Set ttl ok ! Note that, it will take effect after two garbage collection intervals (i.e. gc_interval).",
        ),
        Err(e) => Answer::refused("Set ttl failed! ", &e),
    }
}

/// The table, the time to live, and the index (empty: all of them).
fn read_ttl<'a>(args: &[&'a str]) -> Result<(&'a str, Ttl, &'a str), String> {
    let [table, word, rest @ ..] = args else { return Err(TTL_USAGE.into()) };
    let number = |text: &str| unsigned(text).ok_or_else(|| TTL_NUMBER.to_owned());
    let kind = match *word {
        "absolute" => TtlKind::Absolute,
        "latest" => TtlKind::Latest,
        "absandlat" => TtlKind::AbsAndLat,
        "absorlat" => TtlKind::AbsOrLat,
        // OpenMLDB takes any other word for `latest`, which would drop rows that nobody meant.
        other => return Err(format!("Set ttl failed! invalid ttl type {other}")),
    };
    let (ttl, rest) = match (kind, rest) {
        (TtlKind::Absolute, [abs, rest @ ..]) => (Ttl { kind, abs: number(abs)?, lat: 0 }, rest),
        (TtlKind::Latest, [lat, rest @ ..]) => (Ttl { kind, abs: 0, lat: number(lat)? }, rest),
        (_, [abs, lat, rest @ ..]) => (Ttl { kind, abs: number(abs)?, lat: number(lat)? }, rest),
        _ => return Err(TTL_USAGE.into()),
    };
    Ok((table, ttl, rest.first().copied().unwrap_or_default()))
}

/// The definition of a table, or the answer that there is none.
async fn definition(session: &Session, name: &str, missing: String) -> Result<Table, Answer> {
    let tables = view::visible(session, name).await;
    let tables =
        tables.map_err(|e| Answer::refused("failed to get table info. error msg: ", &e))?;
    let found = tables.into_iter().map(|(table, _)| table).next_back();
    found.ok_or_else(|| Answer::failed(missing))
}

pub(super) async fn addtablefield(session: &Session, args: &[&str]) -> Answer {
    let [table, name, kind] = args else {
        return Answer::failed(
            "addtablefield format error. eg: addtablefield tablename column_name column_type",
        );
    };
    let Some(kind) = ColumnType::parse(kind) else {
        return Answer::failed(format!("type {kind} is invalid"));
    };
    let missing = format!("add table field failed! table {table} doesn`t exist");
    if let Err(answer) = definition(session, table, missing).await {
        return answer;
    }
    let column = Column { name: (*name).to_owned(), kind, not_null: false };
    let change = Change::AddColumn((&column).into());
    match session.client.admin().alter_table(session.table(table), change).await {
        Ok(_) => Answer::done("add table field ok"),
        Err(e) => Answer::refused("Fail to add table field. error msg: ", &e),
    }
}

pub(super) async fn addindex(session: &Session, args: &[&str]) -> Answer {
    let [table, name, rest @ ..] = args else {
        return Answer::failed(
            "Bad format for addindex! eg. addindex table_name index_name [col_name] [ts_name]",
        );
    };
    let missing = "failed to addindex. error msg: table does not exist!".to_owned();
    let known = match definition(session, table, missing).await {
        Ok(known) => known,
        Err(answer) => return answer,
    };
    let words: Vec<&str> = rest.first().map_or(vec![name], |columns| columns.split(',').collect());
    let admin = session.client.admin();
    let mut columns = Vec::new();
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        let (column, kind) = word.split_once(':').map_or((word, None), |(c, kind)| (c, Some(kind)));
        if let Some(kind) = kind.filter(|_| known.column(column).is_none()) {
            let Some(parsed) = ColumnType::parse(kind) else {
                return Answer { failed: true, ..Answer::default() }
                    .because(format!("{word} type {column} invalid"));
            };
            let made = Column { name: column.to_owned(), kind: parsed, not_null: false };
            let change = Change::AddColumn((&made).into());
            if let Err(e) = admin.alter_table(session.table(table), change).await {
                return Answer::refused("failed to addindex. error msg: ", &e);
            }
        }
        columns.push(column.to_owned());
    }
    let ts = rest.get(1).map(|ts| (*ts).to_owned());
    let ttl = known.indexes.first().map(|i| i.ttl).unwrap_or_default();
    let index = Index {
        name: (*name).to_owned(),
        columns,
        ts,
        ttl,
        deleted: false,
        added: Default::default(),
    };
    let change = Change::AddIndex((&index).into());
    match admin.alter_table(session.table(table), change).await {
        Ok(_) => filled(session, table).await,
        Err(e) => Answer::refused("failed to addindex. error msg: ", &e),
    }
}

/// The rows of a small table are in the index when that is answered; those of a large one come (`kAddIndexOP`).
async fn filled(session: &Session, table: &str) -> Answer {
    let deadline = Instant::now() + FILLED;
    loop {
        match definition(session, table, "the table was dropped".into()).await {
            Ok(table) if table.filling().is_some() => {}
            _ => return Answer::done("addindex ok"),
        }
        if Instant::now() > deadline {
            let text = "rows are still being brought into it: showopstatus";
            return Answer::done("addindex ok").because(text);
        }
        tokio::time::sleep(LOOK).await;
    }
}

pub(super) async fn deleteindex(session: &Session, args: &[&str]) -> Answer {
    let [table, index] = args else {
        return Answer::failed("Bad format\nusage: deleteindex table_name index_name");
    };
    let change = Change::DeleteIndex((*index).to_owned());
    match session.client.admin().alter_table(session.table(table), change).await {
        Ok(_) => Answer::done("delete index ok"),
        Err(e) => Answer::refused("Fail to delete index. error msg: ", &e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_from_words() {
        let read = |line: &'static str| {
            let words: Vec<&str> = line.split(' ').collect();
            read_ttl(&words).map(|(table, ttl, index)| {
                assert_eq!(table, "t");
                (ttl.kind, ttl.abs, ttl.lat, index)
            })
        };
        assert_eq!(read("t absolute 10"), Ok((TtlKind::Absolute, 10, 0, "")));
        assert_eq!(read("t latest 5 i"), Ok((TtlKind::Latest, 0, 5, "i")));
        assert_eq!(read("t absandlat 10 5"), Ok((TtlKind::AbsAndLat, 10, 5, "")));
        assert_eq!(read("t absorlat 10 5 i"), Ok((TtlKind::AbsOrLat, 10, 5, "i")));
        for bad in ["t", "t absolute", "t absorlat 1"] {
            assert_eq!(read(bad), Err(TTL_USAGE.into()), "{bad}");
        }
        assert_eq!(read("t latest x"), Err(TTL_NUMBER.into()));
        assert!(read("t other 5").unwrap_err().starts_with("Set ttl failed!"));
    }
}
