//! Deleting: rows that are found through one index go from all of them.
//!
//! A partition does that for what it holds itself. What a row has in other partitions is deleted there first, named by
//! its key and value, so that a deletion that is cut short can be asked for once more: what it was found by goes last.

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use stela_proto::tablet as pb;

use super::attempts::backoff;
use super::write::Part;
use super::{Client, PutOutcome, Range, ReadFrom, TableHandle, WriteError};
use crate::code::Code;
use crate::route::partition_of;
use crate::row;
use crate::table::{Table, limits};

/// Which rows of a key are deleted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Deletion {
    /// Those that are not newer than this; `None`: the newest, too.
    pub newest: Option<u64>,
    /// Those that are newer than this; `None`: down to the oldest.
    pub oldest: Option<u64>,
    /// They stay in the other indexes.
    pub only_there: bool,
}

impl Client {
    /// Deletes rows that are stored under a key of an index. What is written under it meanwhile may stay or go.
    ///
    /// # Errors
    /// As [`put`](Self::put); what was found in other partitions may be gone then.
    pub async fn delete(
        &self,
        table: &TableHandle,
        index: u32,
        key: &[u8],
        which: Deletion,
    ) -> Result<PutOutcome, WriteError> {
        let deadline = Instant::now() + self.0.timeout;
        let mut tries = 0;
        loop {
            // Rows go from the indexes that were added since the table was opened, too: whoever leads knows of them.
            let definition = table.routes.definition();
            match self.delete_by(table, &definition, index, key, which).await {
                Err(WriteError::Refused(e))
                    if e.code == Code::StaleTable && Instant::now() < deadline =>
                {
                    table.routes.refresh(&self.0);
                    self.0.driver.sleep(backoff(tries)).await;
                    tries += 1;
                }
                // Some of it may have been deleted by what was known before.
                Err(WriteError::Refused(e)) if e.code == Code::StaleTable => {
                    return Err(WriteError::Unknown(e.text));
                }
                outcome => return outcome,
            }
        }
    }

    /// The same, as the table is in that version.
    async fn delete_by(
        &self,
        table: &TableHandle,
        definition: &Table,
        index: u32,
        key: &[u8],
        which: Deletion,
    ) -> Result<PutOutcome, WriteError> {
        if !which.only_there {
            self.delete_elsewhere(table, definition, index, key, which).await?;
        }
        let key = Bytes::copy_from_slice(key);
        let (pid, size) = (table.partition_of(&key), key.len());
        let request = pb::DeleteRequest {
            dimensions: vec![pb::Dimension { index, key }],
            ts: which.newest,
            end_ts: which.oldest,
            only_there: which.only_there,
            table_version: definition.version(),
            ..Default::default()
        };
        self.write(table, vec![(pid, Part::Delete(request))], size).await
    }

    /// Deletes what other partitions have of these rows.
    async fn delete_elsewhere(
        &self,
        table: &TableHandle,
        definition: &Table,
        index: u32,
        key: &[u8],
        which: Deletion,
    ) -> Result<(), WriteError> {
        let several = definition.partition_num > 1 && definition.live_indexes().count() > 1;
        if !definition.has_schema() || !several {
            return Ok(());
        }
        let (newest, et) = (which.newest.unwrap_or(0), which.oldest.unwrap_or(0));
        if which.newest == Some(0) || (newest != 0 && newest < et) {
            return Ok(()); // nothing is found, or the partition says what is wrong
        }
        let mut range = Range { st: newest, et, ..Range::default() };
        loop {
            let page = self.scan(table, index, key, range, ReadFrom::Leader).await;
            let page = page.map_err(WriteError::Refused)?;
            let mut parts: BTreeMap<u32, Vec<pb::DeletedRow>> = BTreeMap::new();
            for (ts, value) in &page.rows {
                for (pid, row) in elsewhere(definition, index, key, *ts, value) {
                    parts.entry(pid).or_default().push(row);
                }
            }
            self.delete_rows(table, definition.version(), parts).await?;
            match page.rows.last() {
                // Rows of one time are not parted.
                Some((ts, _)) if !page.finished && *ts > et.max(1) => range.st = *ts - 1,
                _ => return Ok(()),
            }
        }
    }

    async fn delete_rows(
        &self,
        table: &TableHandle,
        table_version: u32,
        parts: BTreeMap<u32, Vec<pb::DeletedRow>>,
    ) -> Result<(), WriteError> {
        for (pid, rows) in parts {
            let mut rows = rows.into_iter().peekable();
            while rows.peek().is_some() {
                let (mut some, mut size) = (Vec::new(), 0);
                while let Some(row) = rows.next_if(|_| size < limits::REQUEST / 4) {
                    size += row.key.len() + row.value.len();
                    some.push(row);
                }
                let request = pb::DeleteRequest { rows: some, table_version, ..Default::default() };
                self.write(table, vec![(pid, Part::Delete(request))], size).await?;
            }
        }
        Ok(())
    }
}

/// Where else than in the partition of `key` a row stands.
fn elsewhere(
    description: &Table,
    index: u32,
    key: &[u8],
    ts: u64,
    value: &Bytes,
) -> Vec<(u32, pb::DeletedRow)> {
    let partition_of = |key: &[u8]| partition_of(key, description.partition_num).0;
    let own = partition_of(key);
    // Who stored something that is no row is found nowhere else.
    let Ok(values) = row::decode(&description.columns, value) else { return Vec::new() };
    let Some(found_by) = description.indexes.get(index as usize) else { return Vec::new() };
    let others = description.live_indexes().filter_map(|(at, definition)| {
        let index = u32::try_from(at).ok()?;
        let key = description.key(definition, &values);
        let ts = description.time_beside(definition, &values, (found_by, ts));
        Some((partition_of(&key), pb::DeletedRow { index, key, ts, value: value.clone() }))
    });
    others.filter(|(pid, _)| *pid != own).collect()
}
