//! Bringing the rows of a partition into an index that was added.
//!
//! The leader goes through what it has by another index and puts each row where its new key belongs, as a client does
//! and only there, unless it is there already. **Invariants**
//! * It begins when all is readable that was let in before this replica knew of the index; from then on who writes must
//!   know of it, and sees to it that rows come into it ([`Code::StaleTable`]). A leader that is elected later knows of it
//!   from the start, since the decision brings the table along. So no row is left out.
//! * Rows with one key and time in both indexes keep their order: older inserts are put first.
//! * Once the index is filled no row is put any more ([`Client::fill`]), also by a call that was begun before and forgotten:
//!   what is deleted then would come back.
//! * It may be begun any number of times, by whoever leads: what is there is not put again.

use std::sync::Arc;
use std::time::Duration;

use stela_common::client::{Client, Options, Row, WriteError};
use stela_common::clock::Millis;
use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey};
use stela_common::row;
use stela_common::table::{Table, limits};
use stela_common::wire;
use stela_proto::tablet as pb;

use super::read;
use crate::node::Node;

/// A write is tried for so long; then the whole is begun again.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of one request, about.
const REQUEST: usize = 4 << 20;
/// What a row takes beside its value, about.
const ROW: usize = 64;
/// Between two looks whether what was let in is readable.
const LOOK: Duration = Duration::from_millis(5);

/// Fills the index that came with a version of a table from one partition that is led here.
///
/// # Errors
/// It is not led here, the table is not known in that version, or a row could not be stored: to be asked again.
pub(super) async fn fill(node: &Arc<Node>, request: pb::FillIndexRequest) -> Result<(), Refusal> {
    let key = PartitionKey::new(request.tid, request.pid);
    let (table, epoch, last) = begin(node, key, request.table_version)?;
    let Some((index, _)) = table.filling() else { return Ok(()) };
    while applied(node, key, epoch)? < last {
        tokio::time::sleep(LOOK).await;
    }
    let client = Client::connect(Options {
        cluster: Some(node.config.cluster.clone()),
        timeout: PATIENCE,
        ..Options::new(node.config.nameservers.clone())
    });
    let client = client.await.map_err(|e| Refusal::new(Code::AddIndexFailed, e.to_string()))?;
    let handle = client.table(&table.db, &table.name).await?;
    if handle.table().version() != table.version() {
        return Err(Code::StaleTable.into());
    }
    let from = source(&table, index);
    let mut page = pb::TraverseRequest {
        target: Some(pb::Target { tid: request.tid, pid: request.pid, epoch: epoch.0 }),
        index: u32::try_from(from).unwrap_or_default(),
        ..Default::default()
    };
    let mut rows: Vec<pb::TraverseRow> = Vec::new();
    let mut filled = 0;
    loop {
        let reply = read::served(node, &page, Millis::now()).await;
        wire::outcome(reply.status.as_ref())?;
        rows.extend(reply.rows);
        // Older inserts of the last key and time may be on the next page, and come first.
        let together = if reply.finished { rows.len() } else { complete(&rows) };
        let stored = rows.drain(..together).rev();
        let stored = stored.map(|r| placed(&table, index, r)).collect::<Result<Vec<_>, _>>()?;
        let stored: Vec<Row> = stored.into_iter().flatten().collect();
        filled += stored.len();
        for rows in some_at_a_time(stored) {
            client.fill(&handle, rows).await.map_err(|e| match e {
                WriteError::Refused(refusal) => refusal,
                unknown => Refusal::new(Code::UnknownOutcome, unknown.to_string()),
            })?;
        }
        if reply.finished {
            tracing::info!(%key, index = table.indexes[index].name, rows = filled, "an index is filled");
            return Ok(());
        }
        page.cursor = reply.cursor;
    }
}

/// The table as the leader of a partition knows it, its epoch, and the last entry that was let in.
fn begin(
    node: &Node,
    key: PartitionKey,
    version: u32,
) -> Result<(Arc<Table>, Epoch, Offset), Refusal> {
    let inner = node.look();
    let p = inner.partitions.get(&key).ok_or(Code::TableNotFound)?;
    if !p.core.serving() || p.suspended.is_some() {
        return Err(Code::TableIsFollower.into());
    }
    if p.store.table().version() != version {
        return Err(Code::StaleTable.into());
    }
    Ok((p.store.table().clone(), p.core.epoch(), p.last()))
}

/// How far it is readable, as long as it is led here in that epoch.
fn applied(node: &Node, key: PartitionKey, epoch: Epoch) -> Result<Offset, Refusal> {
    let inner = node.look();
    let p = inner.partitions.get(&key).ok_or(Code::TableNotFound)?;
    if p.core.epoch() != epoch || !p.core.leads() || p.suspended.is_some() {
        return Err(Code::TableIsFollower.into());
    }
    Ok(p.applied)
}

/// Out of which index one is filled: the first, but one without a ts column out of one without, which has the times of
/// the requests. There is one: where
/// all have a column, one that is added gets that of the first.
fn source(table: &Table, index: usize) -> usize {
    let timed = table.indexes[index].ts.is_some();
    let mut others = table.live_indexes().filter(|(at, _)| *at != index);
    others.find(|(_, i)| timed || i.ts.is_none()).map_or(0, |(at, _)| at)
}

/// How many rows, from the first on, have all before them that have their key and time.
fn complete(rows: &[pb::TraverseRow]) -> usize {
    let Some(last) = rows.last() else { return 0 };
    let open = rows.iter().rev().take_while(|r| (r.ts, &r.key) == (last.ts, &last.key)).count();
    rows.len() - open
}

/// In requests that are not too large.
fn some_at_a_time(rows: Vec<Row>) -> Vec<Vec<Row>> {
    let mut requests: Vec<Vec<Row>> = Vec::new();
    let mut bytes = 0;
    for row in rows {
        bytes += row.value.len() + ROW;
        match requests.last_mut() {
            Some(request) if bytes <= REQUEST => request.push(row),
            _ => {
                bytes = row.value.len() + ROW;
                requests.push(vec![row]);
            }
        }
    }
    requests
}

/// A row with its key in the new index alone; `None`: it has no key or no time by which it could be there.
fn placed(table: &Table, index: usize, row: pb::TraverseRow) -> Result<Option<Row>, Refusal> {
    let unreadable = |e: row::RowError| Refusal::new(Code::AddIndexFailed, e.to_string());
    let values = row::decode(&table.columns, &row.value).map_err(unreadable)?;
    let definition = &table.indexes[index];
    let key = table.key(definition, &values);
    let timeless = definition.ts.is_some() && table.time(definition, &values).is_none();
    if key.is_empty() || key.len() > limits::KEY || timeless {
        return Ok(None);
    }
    let at = u32::try_from(index).unwrap_or_default();
    Ok(Some(Row { time: row.ts, dimensions: vec![(at, key)], value: row.value }))
}
