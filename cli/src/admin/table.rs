//! `stela table set|show`: the options of a table.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use stela_common::client::{Client, TableOptions};
use stela_common::table::{Ack, Options, Read, Sync};

use super::{Cluster, block_on, refused, split};
use crate::options;
use crate::print::{Answer, Cell, Table};

/// What is to be done.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Change options: ack=all|leader sync=commit|interval:MS min_insync=N read=permit|confirm
    #[command(after_help = "\
ack=all      a write is acknowledged when the whole in-sync set has it (the default)
ack=leader   when the leader has it: a failover may lose acknowledged writes
sync=commit  each replica syncs before it counts (the default)
sync=interval:MS  each replica syncs every MS ms: losing the power of all replicas at once may lose so much
min_insync=N writes are refused while fewer than N replicas are in sync
read=permit  a leader reads while all in the in-sync set permit it, for 300 ms at a time (the default)
read=confirm it asks all of them for each batch of reads: for machines whose clocks cannot be trusted

Example: stela table set db1.orders sync=interval:100 min_insync=2 --nameservers 10.0.0.1:6527")]
    Set {
        /// db.table
        table: String,
        /// The options to change; the others stay as they are
        #[arg(required = true, value_name = "OPTION=VALUE")]
        options: Vec<String>,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Show a table's options
    Show {
        /// db.table
        table: String,
        #[command(flatten)]
        cluster: Cluster,
    },
}

/// Runs it.
///
/// # Errors
/// What went wrong, and the cure.
pub(crate) fn run(command: Command) -> Result<ExitCode> {
    block_on(async {
        match command {
            Command::Set { table, options, cluster } => {
                let words = options::read(&options).map_err(|e| anyhow!(e))?;
                let client = cluster.connect().await?;
                let (db, name) = split(&table);
                let options::Words { ack, sync, min_insync, read } = words;
                let changed = TableOptions { ack, sync, min_insync, read };
                client
                    .admin()
                    .set_table(db, name, changed)
                    .await
                    .map_err(refused(&format!("the options of {table} stay as they are")))?;
                cluster.answer(&Answer::table(shown(&look(&client, &table).await?)))
            }
            Command::Show { table, cluster } => {
                let client = cluster.connect().await?;
                cluster.answer(&Answer::table(shown(&look(&client, &table).await?)))
            }
        }
    })
}

async fn look(client: &Client, table: &str) -> Result<Options> {
    let (db, name) = split(table);
    match client.table(db, name).await {
        Ok(table) => Ok(table.table().options),
        Err(refusal) => bail!("{table}: {}; ns_client's showtable lists the tables", refusal.text),
    }
}

fn shown(options: &Options) -> Table {
    let mut table = Table::new(&["option", "value"]);
    let ack = match options.ack {
        Ack::All => "all",
        Ack::Leader => "leader",
    };
    let sync = match options.sync {
        Sync::Commit => "commit".to_owned(),
        Sync::Interval(ms) => format!("interval:{ms}"),
    };
    let read = match options.read {
        Read::Permit => "permit",
        Read::Confirm => "confirm",
    };
    table.push(vec![Cell::text("ack"), Cell::text(ack)]);
    table.push(vec![Cell::text("sync"), Cell::text(sync)]);
    table.push(vec![Cell::text("min_insync"), Cell::number(options.min_insync)]);
    table.push(vec![Cell::text("read"), Cell::text(read)]);
    table
}
