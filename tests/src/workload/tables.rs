//! The tables of the drills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context, Result};
use stela_common::client::{Client, TableHandle};
use stela_common::table::{Options, Table};

/// The database of the drills.
pub const DB: &str = "drill";

/// The tablet that leads most partitions, and which of the table's it leads.
///
/// # Errors
/// The table cannot be shown.
pub async fn busiest_leader(client: &Client, table: &str) -> Result<(String, BTreeSet<u32>)> {
    leaders(client, table)
        .await?
        .into_iter()
        .max_by_key(|(_, pids)| pids.len())
        .context("no partition has a leader")
}

/// Who leads which partitions of a table.
///
/// # Errors
/// The table cannot be shown.
pub async fn leaders(client: &Client, table: &str) -> Result<BTreeMap<String, BTreeSet<u32>>> {
    let shown = client.admin().show_table(DB, table, false).await?;
    let mut led: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    for partition in shown.tables.iter().flat_map(|t| &t.partitions) {
        if let Some(r) = partition.replicas.iter().find(|r| r.leader && r.alive) {
            led.entry(r.endpoint.clone()).or_default().insert(partition.pid);
        }
    }
    Ok(led)
}

/// Creates the drills' database and a table without a schema.
///
/// # Errors
/// It cannot be created.
pub async fn create_table(
    client: &Client,
    name: &str,
    partitions: u32,
    replicas: u32,
) -> Result<Arc<TableHandle>> {
    create(client, name, partitions, replicas, Options::default()).await
}

/// The same with options.
///
/// # Errors
/// It cannot be created.
pub async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    replicas: u32,
    options: Options,
) -> Result<Arc<TableHandle>> {
    use stela_common::ids::TableId;
    use stela_common::table::{Index, Ttl};
    if !client.admin().show_db().await?.names.iter().any(|n| n == DB) {
        client.admin().create_db(DB).await?;
    }
    let index = Index {
        name: "key".into(),
        columns: Vec::new(),
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    let table = Table {
        tid: TableId(0),
        db: DB.into(),
        name: name.into(),
        columns: Vec::new(),
        indexes: vec![index],
        partition_num: partitions,
        replica_num: replicas,
        options,
        created_index: 0,
        added_columns: 0,
    };
    client.admin().create_table(&table).await?;
    Ok(client.table(DB, name).await?)
}
