//! `get`.

use stela_common::client::{ReadFrom, TableHandle};
use stela_common::code::{Code, Refusal};

use super::super::Session;
use super::{cells, column_names, index_of, open, read_failed};
use crate::print::{Answer, Cell, Table};
use crate::shell::{Pairs, unsigned};

const USAGE: &str = "get format error. eg: get table_name key ts | get table_name key idx_name ts | get table_name=xxx key=xxx index_name=xxx ts=xxx";

/// What is asked for.
struct Question<'a> {
    table: &'a str,
    key: &'a str,
    index: Option<&'a str>,
    ts: &'a str,
}

pub(crate) async fn get(session: &Session, args: &[&str]) -> Answer {
    let question = match read(args) {
        Ok(question) => question,
        Err(text) => return Answer::failed(text),
    };
    let table = match open(session, "get", args[0], question.table).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    let Some(ts) = unsigned::<u64>(question.ts) else {
        return Answer::failed("Invalid args. ts should be unsigned int");
    };
    let words = if table.table().has_schema() {
        "Fail to get value! error msg: "
    } else {
        "Get failed. error msg: "
    };
    let found = match index_of(&table, question.index) {
        Ok(index) => {
            session.client.get(&table, index, question.key.as_bytes(), ts, ReadFrom::Leader).await
        }
        Err(e) => Err(e),
    };
    match found {
        Ok(Some((ts, value))) => {
            show(&table, ts, &value).unwrap_or_else(|e| Answer::refused(words, &e))
        }
        Ok(None) => Answer::refused(words, &Code::KeyNotFound.into()),
        Err(e) => read_failed(&table, question.key, "get", words, &e),
    }
}

fn read<'a>(args: &[&'a str]) -> Result<Question<'a>, String> {
    if let Some(pairs) = Pairs::read(args, "table_name") {
        let pairs = pairs.map_err(|()| USAGE)?;
        let need = |key: &str| {
            pairs.get(key).ok_or_else(|| format!("get format error: {key} does not exist!"))
        };
        let (table, key, ts) = (need("table_name")?, need("key")?, need("ts")?);
        return Ok(Question { table, key, index: pairs.get("index_name"), ts });
    }
    match *args {
        [table, key, ts] => Ok(Question { table, key, index: None, ts }),
        [table, key, index, ts, ..] => Ok(Question { table, key, index: Some(index), ts }),
        _ => Err(USAGE.into()),
    }
}

fn show(table: &TableHandle, ts: u64, value: &[u8]) -> Result<Answer, Refusal> {
    if !table.table().has_schema() {
        return Ok(Answer::done(format!("value :{}", String::from_utf8_lossy(value))));
    }
    let columns: Vec<&str> = ["#", "ts"].into_iter().chain(column_names(table)).collect();
    let mut shown = Table::new(&columns);
    let cells = cells(table, value).map_err(|e| Refusal::new(Code::Malformed, e.to_string()))?;
    shown.push([Cell::number(1u64), Cell::number(ts)].into_iter().chain(cells).collect());
    Ok(Answer::table(shown))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Words;

    #[test]
    fn questions_by_position_and_by_name() {
        let read = |line: &'static str| {
            read(Words::new(line).args()).map(|q| (q.table, q.key, q.index, q.ts))
        };
        assert_eq!(read("get t k 0"), Ok(("t", "k", None, "0")));
        assert_eq!(read("get t k i 5"), Ok(("t", "k", Some("i"), "5")));
        assert_eq!(read("get table_name=t ts=5 key=k"), Ok(("t", "k", None, "5")));
        assert_eq!(
            read("get table_name=t ts=5 key=k index_name=i"),
            Ok(("t", "k", Some("i"), "5"))
        );
        assert_eq!(
            read("get table_name=t key=k"),
            Err("get format error: ts does not exist!".into())
        );
        assert_eq!(read("get table_name=t key"), Err(USAGE.into()));
        assert_eq!(read("get t k"), Err(USAGE.into()));
    }
}
