//! Rows of one partition: `count`, `delete`. They go to this tablet, whoever leads.

use bytes::Bytes;
use stela_common::code::{Code, Refusal};
use stela_proto::tablet as pb;

use super::{Session, partition, table};
use crate::print::Answer;
use crate::shell::Pairs;

const COUNT_USAGE: &str = "count format error! eg. count tid pid key [col_name] [filter_expired_data] | count tid=xxx pid=xxx key=xxx index_name=xxx [filter_expired_data]";
const FILTER: &str = "filter_expired_data parameter should be true or false";

/// What is to be counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Question<'a> {
    tid: &'a str,
    pid: &'a str,
    key: &'a str,
    index: Option<&'a str>,
    filter: bool,
}

pub(super) async fn count(session: &Session, args: &[&str]) -> Answer {
    let question = match read(args) {
        Ok(question) => question,
        Err(text) => return Answer::failed(text),
    };
    let (tid, pid) = match partition(question.tid, question.pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    match counted(session, tid, pid, question).await {
        Ok(count) => Answer::done(format!("count: {count}")),
        Err(e) => Answer::refused("Count failed. error msg: ", &e),
    }
}

async fn counted(
    session: &Session,
    tid: u32,
    pid: u32,
    question: Question<'_>,
) -> Result<u64, Refusal> {
    let request = pb::CountRequest {
        target: Some(pb::Target { tid, pid, epoch: 0 }),
        key: Bytes::copy_from_slice(question.key.as_bytes()),
        index: index_of(session, tid, pid, question.index).await?,
        filter_expired: question.filter,
        // Of this replica, also where it follows.
        from: pb::ReadFrom::Any.into(),
        ..Default::default()
    };
    Ok(session.ask(async |mut c| c.count(request).await).await?.count)
}

fn read<'a>(args: &[&'a str]) -> Result<Question<'a>, String> {
    let filter = |word: &str| match word {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(FILTER.to_owned()),
    };
    if let Some(pairs) = Pairs::read(args, "tid") {
        let pairs = pairs.map_err(|()| COUNT_USAGE)?;
        let need = |key: &str| {
            pairs.get(key).ok_or_else(|| format!("count format error: {key} does not exist!"))
        };
        let (tid, pid, key) = (need("tid")?, need("pid")?, need("key")?);
        let filter = pairs.get("filter_expired_data").map_or(Ok(false), filter)?;
        return Ok(Question { tid, pid, key, index: pairs.get("index_name"), filter });
    }
    match *args {
        [tid, pid, key] => Ok(Question { tid, pid, key, index: None, filter: false }),
        [tid, pid, key, word @ ("true" | "false")] => {
            Ok(Question { tid, pid, key, index: None, filter: word == "true" })
        }
        [tid, pid, key, index] => Ok(Question { tid, pid, key, index: Some(index), filter: false }),
        [tid, pid, key, index, word] => {
            Ok(Question { tid, pid, key, index: Some(index), filter: filter(word)? })
        }
        _ => Err(COUNT_USAGE.into()),
    }
}

pub(super) async fn delete(session: &Session, args: &[&str]) -> Answer {
    let [tid, pid, key, rest @ ..] = args else { return Answer::failed("Bad delete format") };
    let (tid, pid) = match partition(tid, pid) {
        Ok(both) => both,
        Err(text) => return Answer::failed(text),
    };
    super::line(
        deleted(session, tid, pid, key, rest.first().copied()).await,
        "Delete ok",
        "Delete failed",
    )
}

async fn deleted(
    session: &Session,
    tid: u32,
    pid: u32,
    key: &str,
    index: Option<&str>,
) -> Result<(), Refusal> {
    let index = index_of(session, tid, pid, index).await?;
    let key = Bytes::copy_from_slice(key.as_bytes());
    let request = pb::DeleteRequest {
        // Of this replica alone, whatever indexes there are.
        table_version: u32::MAX,
        target: Some(pb::Target { tid, pid, epoch: 0 }),
        dimensions: vec![pb::Dimension { index, key }],
        ..Default::default()
    };
    session.ask(async |mut c| c.delete(request).await).await.map(drop)
}

/// The index that a word names; none: the first that is not deleted.
async fn index_of(
    session: &Session,
    tid: u32,
    pid: u32,
    name: Option<&str>,
) -> Result<u32, Refusal> {
    let table = table::definition(session, tid, pid).await?;
    let found = match name {
        Some(name) => table.index(name),
        None => table.first_index(),
    };
    found.and_then(|at| u32::try_from(at).ok()).ok_or_else(|| Code::IndexNotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::Words;

    #[test]
    fn questions_by_position_and_by_name() {
        let read = |line: &'static str| {
            read(Words::new(line).args()).map(|q| (q.tid, q.pid, q.key, q.index, q.filter))
        };
        assert_eq!(read("count 1 2 k"), Ok(("1", "2", "k", None, false)));
        assert_eq!(read("count 1 2 k true"), Ok(("1", "2", "k", None, true)));
        assert_eq!(read("count 1 2 k i"), Ok(("1", "2", "k", Some("i"), false)));
        assert_eq!(read("count 1 2 k i true"), Ok(("1", "2", "k", Some("i"), true)));
        assert_eq!(
            read("count tid=1 key=k pid=2 index_name=i filter_expired_data=true"),
            Ok(("1", "2", "k", Some("i"), true))
        );
        assert_eq!(
            read("count tid=1 key=k"),
            Err("count format error: pid does not exist!".into())
        );
        assert_eq!(read("count tid=1 key"), Err(COUNT_USAGE.into()));
        assert_eq!(read("count 1 2 k i maybe"), Err(FILTER.into()));
        for bad in ["count", "count 1 2", "count 1 2 k i true x"] {
            assert_eq!(read(bad), Err(COUNT_USAGE.into()));
        }
    }
}
