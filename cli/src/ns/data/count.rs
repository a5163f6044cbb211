//! `count`.

use stela_common::client::{Filter, ReadFrom};

use super::super::Session;
use super::{index_of, nobody_leads, open};
use crate::print::Answer;
use crate::shell::Pairs;

const USAGE: &str = "count format error | count table_name key [col_name] [filter_expired_data] | count table_name=xxx key=xxx index_name=xxx ts_name [filter_expired_data]";
const FILTER: &str = "filter_expired_data parameter should be true or false";

/// What is asked for.
struct Question<'a> {
    table: &'a str,
    key: &'a str,
    index: Option<&'a str>,
    filter: bool,
}

pub(crate) async fn count(session: &Session, args: &[&str]) -> Answer {
    let question = match read(args) {
        Ok(question) => question,
        Err(text) => return Answer::failed(text),
    };
    // It calls itself "get" here, in the original too.
    let table = match open(session, "get", args[0], question.table).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    let key = question.key.as_bytes();
    let counted = match index_of(&table, question.index) {
        Ok(index) => {
            let filter = question.filter.then(Filter::default);
            session.client.count(&table, index, key, filter, ReadFrom::Leader).await
        }
        Err(e) => Err(e),
    };
    match (counted, nobody_leads(&table, key)) {
        (Ok(count), _) => Answer::done(format!("count: {count}")),
        (Err(e), Some(pid)) => {
            Answer::failed(format!("failed to count. cannot not found tablet client, pid is {pid}"))
                .because(e.text)
        }
        (Err(e), None) => Answer::refused("Count failed. error msg: ", &e),
    }
}

fn read<'a>(args: &[&'a str]) -> Result<Question<'a>, String> {
    let filter = |word: &str| match word {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(FILTER.to_owned()),
    };
    if let Some(pairs) = Pairs::read(args, "table_name") {
        let pairs = pairs.map_err(|()| USAGE)?;
        let need = |key: &str| {
            pairs.get(key).ok_or_else(|| format!("count format error: {key} does not exist!"))
        };
        let (table, key) = (need("table_name")?, need("key")?);
        let filter = pairs.get("filter_expired_data").map_or(Ok(false), filter)?;
        return Ok(Question { table, key, index: pairs.get("index_name"), filter });
    }
    match *args {
        [table, key] => Ok(Question { table, key, index: None, filter: false }),
        [table, key, word @ ("true" | "false")] => {
            Ok(Question { table, key, index: None, filter: word == "true" })
        }
        [table, key, index] => Ok(Question { table, key, index: Some(index), filter: false }),
        [table, key, index, word] => {
            Ok(Question { table, key, index: Some(index), filter: filter(word)? })
        }
        [_, _, ..] => Err("count format error".into()),
        _ => Err(USAGE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Words;

    #[test]
    fn questions() {
        let read = |line: &'static str| {
            read(Words::new(line).args()).map(|q| (q.table, q.key, q.index, q.filter))
        };
        assert_eq!(read("count t k"), Ok(("t", "k", None, false)));
        assert_eq!(read("count t k true"), Ok(("t", "k", None, true)));
        assert_eq!(read("count t k i"), Ok(("t", "k", Some("i"), false)));
        assert_eq!(read("count t k i true"), Ok(("t", "k", Some("i"), true)));
        assert_eq!(
            read("count table_name=t filter_expired_data=true key=k"),
            Ok(("t", "k", None, true))
        );
        assert_eq!(read("count t k i maybe"), Err(FILTER.into()));
        assert_eq!(read("count t k i true x"), Err("count format error".into()));
        assert_eq!(read("count t"), Err(USAGE.into()));
    }
}
