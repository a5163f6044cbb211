//! `preview`.

use bytes::Bytes;
use stela_common::client::TableHandle;

use super::super::Session;
use super::{open, shown};
use crate::print::Answer;
use crate::shell::unsigned;

/// How many rows a preview shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Limits {
    /// Where nothing is said.
    pub(crate) default: u32,
    /// At most.
    pub(crate) most: u32,
}

type Rows = Vec<(Bytes, u64, Bytes)>;

pub(crate) async fn preview(session: &Session, args: &[&str]) -> Answer {
    let [name, rest @ ..] = args else {
        return Answer::failed("preview format error. eg: preview table_name [limit]");
    };
    let limit = match limit(session.preview, rest.first().copied()) {
        Ok(limit) => limit,
        Err(text) => return Answer::failed(text),
    };
    let table = match open(session, "preview", name, name).await {
        Ok(table) => table,
        Err(answer) => return answer,
    };
    match some(session, &table, limit).await {
        Ok(rows) => shown(&table, rows)
            .unwrap_or_else(|e| Answer::failed("Fail to preview table").because(e.text)),
        Err(answer) => answer,
    }
}

fn limit(limits: Limits, word: Option<&str>) -> Result<u32, String> {
    let limit = word.map_or(Some(limits.default), unsigned);
    match limit.ok_or("preview error. limit should be unsigned int")? {
        0 => Err("preview error. limit must be greater than zero".into()),
        limit if limit > limits.most => {
            Err(format!("preview error. limit is greater than the max num {}", limits.most))
        }
        limit => Ok(limit),
    }
}

/// So many rows, partition after partition.
async fn some(session: &Session, table: &TableHandle, limit: u32) -> Result<Rows, Answer> {
    let mut rows = Rows::new();
    for pid in 0..table.table().partition_num {
        let mut cursor = Bytes::new();
        loop {
            let wanted = limit.saturating_sub(u32::try_from(rows.len()).unwrap_or(u32::MAX));
            if wanted == 0 {
                return Ok(rows);
            }
            let page = session.client.traverse(table, pid, table.first_index(), wanted, cursor);
            let page = page.await.map_err(|e| failed(table, pid).because(e.text))?;
            rows.extend(page.rows);
            let Some(next) = page.next else { break };
            cursor = next;
        }
    }
    Ok(rows)
}

fn failed(table: &TableHandle, pid: u32) -> Answer {
    if table.leader(pid).is_none() {
        return Answer::failed(format!(
            "failed to preview. error msg: cannot find healthy endpoint. pid is {pid}"
        ));
    }
    Answer::failed("Fail to preview table")
}
