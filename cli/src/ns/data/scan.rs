//! `scan`.

use bytes::Bytes;
use stela_common::client::{Range, ReadFrom, TableHandle};
use stela_common::code::{Code, Refusal};

use super::super::Session;
use super::{index_of, open, read_failed, shown};
use crate::print::Answer;
use crate::shell::{Pairs, unsigned};

const USAGE: &str = "scan format error. eg: scan table_name pk start_time end_time [limit] | scan table_name key key_name start_time end_time [limit] | scan table_name=xxx key=xxx index_name=xxx st=xxx et=xxx [limit=xxx]";
const USAGE_SCHEMA: &str =
    "scan format error. eg: scan table_name key col_name start_time end_time [limit]";

/// What is asked for: the words, and how a wrong number among them is told.
struct Question<'a> {
    key: &'a str,
    index: Option<&'a str>,
    st: &'a str,
    et: &'a str,
    limit: Option<&'a str>,
    wrong: &'static str,
}

pub(crate) async fn scan(session: &Session, args: &[&str]) -> Answer {
    let pairs = match Pairs::read(args, "table_name").transpose() {
        Ok(pairs) => pairs,
        Err(()) => return Answer::failed(USAGE),
    };
    if pairs.is_none() && args.len() < 4 {
        return Answer::failed(USAGE);
    }
    let name = pairs.as_ref().and_then(|p| p.get("table_name")).unwrap_or(args[0]);
    let table = match open(session, "scan", args[0], name).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    let question = match &pairs {
        Some(pairs) => by_name(pairs),
        None => by_position(args, table.table().has_schema()),
    };
    let (question, range) = match question.and_then(|q| range(&q).map(|r| (q, r))) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    let words = "Fail to scan table. error msg: ";
    let rows = match index_of(&table, question.index) {
        Ok(index) => all(session, &table, index, question.key.as_bytes(), range).await,
        Err(e) => Err(e),
    };
    let of_key = |(ts, value)| (question.key, ts, value);
    match rows.and_then(|rows| shown(&table, rows.into_iter().map(of_key))) {
        Ok(answer) => answer,
        Err(e) => read_failed(&table, question.key, "scan", words, &e),
    }
}

fn by_name<'a>(pairs: &Pairs<'a>) -> Result<Question<'a>, String> {
    let need = |key: &str| {
        pairs.get(key).ok_or_else(|| format!("scan format error: {key} does not exist!"))
    };
    Ok(Question {
        key: need("key")?,
        index: pairs.get("index_name"),
        st: need("st")?,
        et: need("et")?,
        limit: pairs.get("limit"),
        wrong: "Invalid args. st and et should be uint64_t, limit and atleast should be uint32_t",
    })
}

fn by_position<'a>(args: &[&'a str], schema: bool) -> Result<Question<'a>, String> {
    match *args {
        [_, key, index, st, et, ref rest @ ..] if schema => {
            let wrong = "Invalid args. st and et should be uint64_t, limit should be uint32_t";
            Ok(Question { key, index: Some(index), st, et, limit: rest.first().copied(), wrong })
        }
        _ if schema => Err(USAGE_SCHEMA.into()),
        [_, key, st, et, ref rest @ ..] => {
            let wrong = "Invalid args. st and et shouldbe uint64_t, limit should be uint32_t";
            Ok(Question { key, index: None, st, et, limit: rest.first().copied(), wrong })
        }
        _ => Err(USAGE.into()),
    }
}

fn range(q: &Question) -> Result<Range, String> {
    let wrong = || q.wrong.to_owned();
    let limit = q.limit.map_or(Some(0), unsigned).ok_or_else(wrong)?;
    Ok(Range {
        st: unsigned(q.st).ok_or_else(wrong)?,
        et: unsigned(q.et).ok_or_else(wrong)?,
        limit,
        ..Range::default()
    })
}

type Rows = Vec<(u64, Bytes)>;

/// All rows of a range, however many replies that takes.
async fn all(
    session: &Session,
    table: &TableHandle,
    index: u32,
    key: &[u8],
    range: Range,
) -> Result<Rows, Refusal> {
    let mut rows = Rows::new();
    loop {
        let page =
            session.client.scan(table, index, key, next(range, &rows), ReadFrom::Leader).await?;
        let before = rows.len();
        append(&mut rows, page.rows);
        let enough = range.limit != 0 && rows.len() >= range.limit as usize;
        if enough {
            rows.truncate(range.limit as usize);
        }
        if page.finished || enough {
            return Ok(rows);
        }
        if rows.len() == before {
            let text =
                "more rows have the same time than one reply takes: ask for fewer with a limit";
            return Err(Refusal::new(Code::TooLarge, text));
        }
    }
}

/// What is asked for after `rows`: it begins with the last time again, since more rows may have it.
fn next(range: Range, rows: &Rows) -> Range {
    let Some((last, _)) = rows.last() else { return range };
    let again = rows.iter().rev().take_while(|(ts, _)| ts == last).count();
    let limit = match range.limit {
        0 => 0,
        limit => u32::try_from(limit as usize - rows.len() + again).unwrap_or(u32::MAX),
    };
    Range { st: *last, limit, ..range }
}

/// Appends a page without the rows of the last time that are there already.
fn append(rows: &mut Rows, page: Rows) {
    let last = rows.last().map(|(ts, _)| *ts);
    let mut again = rows.iter().rev().take_while(|(ts, _)| Some(*ts) == last).count();
    rows.extend(page.into_iter().filter(|(ts, _)| {
        let known = again > 0 && Some(*ts) == last;
        again -= usize::from(known);
        !known
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(ts: u64, value: &'static str) -> (u64, Bytes) {
        (ts, Bytes::from_static(value.as_bytes()))
    }

    fn of(st: u64, limit: u32) -> Range {
        Range { st, et: 1, limit, ..Range::default() }
    }

    #[test]
    fn pages_join_without_a_gap_and_without_doubles() {
        let whole = of(0, 6);
        let mut rows = Rows::new();
        assert_eq!(next(whole, &rows), whole);
        append(&mut rows, vec![row(9, "a"), row(7, "b"), row(7, "c")]);
        // Two rows of time 7 are there; four are wanted beyond them in all.
        assert_eq!(next(whole, &rows), of(7, 5));
        append(&mut rows, vec![row(7, "b"), row(7, "c"), row(7, "d"), row(5, "e")]);
        assert_eq!(rows, [row(9, "a"), row(7, "b"), row(7, "c"), row(7, "d"), row(5, "e")]);
        assert_eq!(next(Range { limit: 0, ..whole }, &rows), of(5, 0));
    }

    #[test]
    fn questions() {
        let read =
            |args: &[&'static str], schema| by_position(args, schema).and_then(|q| range(&q));
        assert_eq!(read(&["t", "k", "9", "1"], false), Ok(of(9, 0)));
        assert_eq!(read(&["t", "k", "9", "1", "5"], false), Ok(of(9, 5)));
        assert_eq!(read(&["t", "k", "i", "9", "1", "5"], true), Ok(of(9, 5)));
        assert_eq!(read(&["t", "k", "9", "1"], true), Err(USAGE_SCHEMA.into()));
        assert!(read(&["t", "k", "x", "1"], false).unwrap_err().contains("shouldbe"));
        let pairs = Pairs::read(&["table_name=t", "key=k", "st=0"], "table_name").unwrap().unwrap();
        assert_eq!(by_name(&pairs).err(), Some("scan format error: et does not exist!".into()));
    }
}
