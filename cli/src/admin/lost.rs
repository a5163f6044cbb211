//! `stela lost list|show|insert`: the tails that replicas set aside when they joined a leader that did not have them.
//!
//! Invariant: nothing is removed. What is inserted goes through the ordinary write path, as new writes; a row that is
//! there already, with that key, time and value, is not written again.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use stela_common::client::{Client, ReadFrom, Row, TableHandle};
use stela_common::table::Table as Definition;
use stela_common::wire;
use stela_proto::tablet::tablet_client::TabletClient;
use stela_proto::tablet::{LostEntry, LostFile, LostListRequest, LostReadRequest, LostRow};
use tonic::transport::{Channel, Endpoint};

use super::{Cluster, agree, block_on, refused};
use crate::print::{Answer, Cell, Table};

/// Longer than any page.
const MESSAGE: usize = 64 << 20;

/// What is to be done.
#[derive(clap::Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// List what was set aside, on every tablet that answers
    #[command(after_help = "Example: stela lost list --nameservers 10.0.0.1:6527")]
    List {
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Show the rows of one file
    #[command(
        after_help = "Example: stela lost show 10.0.0.2:9527 3_1_7_101-120 --nameservers 10.0.0.1:6527"
    )]
    Show {
        /// The tablet that has it
        endpoint: String,
        /// Its name, as list shows it
        name: String,
        #[command(flatten)]
        cluster: Cluster,
    },
    /// Write the rows of one file into their table again
    #[command(after_help = "\
A row that is in the table already, with that key, time and value, is left out; the deletes in the file are told and not
done. The file stays where it is.

Example: stela lost insert 10.0.0.2:9527 3_1_7_101-120 --nameservers 10.0.0.1:6527")]
    Insert {
        /// The tablet that has it
        endpoint: String,
        /// Its name, as list shows it
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
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
            Command::List { cluster } => list(&cluster).await,
            Command::Show { endpoint, name, cluster } => {
                let client = cluster.connect().await?;
                let tail = Tail::read(&client, &endpoint, &name).await?;
                cluster.answer(&tail.shown())
            }
            Command::Insert { endpoint, name, yes, cluster } => {
                let client = cluster.connect().await?;
                let tail = Tail::read(&client, &endpoint, &name).await?;
                let question = format!(
                    "{} rows of {name} are to be written into {}.{}.",
                    tail.rows().count(),
                    tail.table.db(),
                    tail.table.name()
                );
                if !agree(&question, yes)? {
                    bail!("nothing was changed");
                }
                cluster.answer(&tail.insert(&client).await?)
            }
        }
    })
}

fn connect(endpoint: &str) -> Result<TabletClient<Channel>> {
    let address = Endpoint::from_shared(format!("http://{endpoint}"))
        .with_context(|| format!("'{endpoint}' is not host:port"))?;
    let address = address.connect_timeout(std::time::Duration::from_secs(2));
    Ok(TabletClient::new(address.connect_lazy()).max_decoding_message_size(MESSAGE))
}

/// The tables, by number.
async fn tables(client: &Client) -> Result<BTreeMap<u32, Definition>> {
    let shown = client.admin().show_table("", "", true).await.map_err(refused("no tables"))?;
    let tables = shown.tables.iter().filter_map(|row| row.table.as_ref());
    tables.map(|t| Ok((t.tid, Definition::try_from(t)?))).collect()
}

async fn list(cluster: &Cluster) -> Result<ExitCode> {
    let client = cluster.connect().await?;
    let tables = tables(&client).await?;
    let tablets = client.admin().show_tablet().await.map_err(refused("no tablets"))?.tablets;
    let mut answer = Answer::default();
    let mut shown = Table::new(&[
        "endpoint", "name", "table", "pid", "epoch", "first", "last", "rows", "deletes", "bytes",
        "saved", "damage",
    ]);
    for tablet in tablets {
        match files(&tablet.endpoint).await {
            Ok(files) => {
                files.into_iter().for_each(|f| shown.push(row(&tablet.endpoint, &tables, f)));
            }
            Err(why) => {
                let text = format!("{} is not looked at: {why:#}", tablet.endpoint);
                answer = answer.because(text);
                answer.failed = true;
            }
        }
    }
    for cause in &answer.causes {
        crate::complain(cause);
    }
    answer.parts.push(crate::print::Part::Plain(shown));
    cluster.answer(&answer)
}

async fn files(endpoint: &str) -> Result<Vec<LostFile>> {
    let (mut tablet, mut all) = (connect(endpoint)?, Vec::<LostFile>::new());
    loop {
        let after = all.last().map(|f| f.name.clone()).unwrap_or_default();
        let page = tablet.lost_list(LostListRequest { after, ..Default::default() }).await;
        let page = page.map_err(|e| anyhow::anyhow!("{}", e.message()))?.into_inner();
        wire::outcome(page.status.as_ref())?;
        let finished = page.finished || page.files.is_empty();
        all.extend(page.files);
        if finished {
            return Ok(all);
        }
    }
}

fn row(endpoint: &str, tables: &BTreeMap<u32, Definition>, file: LostFile) -> Vec<Cell> {
    let table = match tables.get(&file.tid) {
        Some(table) => format!("{}.{}", table.db, table.name),
        None => format!("({} is gone)", file.tid),
    };
    vec![
        Cell::text(endpoint),
        Cell::text(file.name),
        Cell::text(table),
        Cell::number(file.pid),
        Cell::number(file.epoch),
        Cell::number(file.first),
        Cell::number(file.last),
        Cell::number(file.rows),
        Cell::number(file.deletes),
        Cell::bytes(file.bytes),
        Cell::moment(file.saved / 1000),
        Cell::text(file.damage),
    ]
}

/// A tail, and the table that it is of.
struct Tail {
    table: std::sync::Arc<TableHandle>,
    entries: Vec<LostEntry>,
    /// What is behind these entries cannot be read, and why.
    damage: String,
}

impl Tail {
    async fn read(client: &Client, endpoint: &str, name: &str) -> Result<Self> {
        let (mut tablet, mut entries, mut at) = (connect(endpoint)?, Vec::new(), 0);
        let damage = loop {
            let request = LostReadRequest { name: name.into(), at };
            let page = tablet.lost_read(request).await;
            let page = page
                .map_err(|e| anyhow::anyhow!("{endpoint} does not answer: {}", e.message()))?
                .into_inner();
            wire::outcome(page.status.as_ref())?;
            entries.extend(page.entries);
            at = page.next;
            if at == 0 {
                break page.damage;
            }
        };
        let tid = name.split('_').next().and_then(|t| t.parse::<u32>().ok()).unwrap_or(0);
        let known = tables(client).await?;
        let table = known.get(&tid).with_context(|| {
            format!("table {tid} is gone: its rows can be read in the tablet's lost+found only")
        })?;
        let table = client.table(&table.db, &table.name).await.map_err(refused("the table"))?;
        Ok(Self { table, entries, damage })
    }

    fn rows(&self) -> impl Iterator<Item = (u64, &LostRow)> {
        self.entries.iter().flat_map(|e| e.rows.iter().map(|row| (e.offset, row)))
    }

    fn shown(&self) -> Answer {
        let mut shown = Table::new(&["offset", "index", "key", "ts", "value"]);
        for (offset, row) in self.rows() {
            for dimension in &row.dimensions {
                let index = self.table.table().indexes.get(dimension.index as usize);
                shown.push(vec![
                    Cell::number(offset),
                    Cell::text(index.map_or("?", |i| i.name.as_str())),
                    Cell::text(String::from_utf8_lossy(&dimension.key)),
                    Cell::number(dimension.ts),
                    Cell::text(self.value(&row.value)),
                ]);
            }
        }
        self.told(Answer::table(shown))
    }

    fn value(&self, bytes: &[u8]) -> String {
        match self.table.decode(bytes) {
            Ok(values) if self.table.table().has_schema() => {
                values.iter().map(|v| v.text()).collect::<Vec<_>>().join(" ")
            }
            _ => String::from_utf8_lossy(bytes).into_owned(),
        }
    }

    /// Says what was not done, or cannot be.
    fn told(&self, mut answer: Answer) -> Answer {
        let deletes: usize = self.entries.iter().map(|e| e.deletes.len()).sum();
        if deletes > 0 {
            let text = format!("{deletes} keys were to be deleted in it; that is not done again");
            answer.parts.push(crate::print::Part::Line(text));
        }
        if !self.damage.is_empty() {
            let text = format!("what is behind that cannot be read: {}", self.damage);
            answer.parts.push(crate::print::Part::Line(text));
            answer.failed = true;
        }
        answer
    }

    async fn insert(&self, client: &Client) -> Result<Answer> {
        let (mut written, mut there) = (0, 0);
        for (offset, row) in self.rows() {
            let Some(first) = row.dimensions.first() else { continue };
            let table = &self.table;
            let key = first.key.as_ref();
            let found = client
                .get(table, first.index, key, first.ts, ReadFrom::Leader)
                .await
                .map_err(refused("the table cannot be read"))?;
            if found.is_some_and(|(ts, value)| ts == first.ts && value == row.value) {
                there += 1;
                continue;
            }
            let dimensions = row.dimensions.iter().map(|d| (d.index, d.key.clone())).collect();
            let again = Row { time: first.ts, dimensions, value: row.value.clone() };
            client.put(table, vec![again]).await.with_context(|| {
                format!("{written} rows are written; the one of offset {offset} is not")
            })?;
            written += 1;
        }
        Ok(self.told(Answer::done(format!("{written} rows written, {there} were there already"))))
    }
}
