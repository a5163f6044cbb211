//! More than memory holds: a tablet whose heap may take so many MiB (`RLIMIT_DATA`), and a table of four times that.
//!
//! Pass: every row is acknowledged, read back by a scan, and read back again after a restart. Printed: the memory that the
//! tablet has of its own at the end of each part. The limit, in MiB, is `--longest`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use stela_common::client::{Client, Range, ReadFrom, TableHandle};

use super::{Outcome, Plan};
use crate::cluster::{AS_STELA, Cluster, Role, Setup};
use crate::workload::{DB, await_whole, create_table};

/// The limit, MiB, unless `--longest` says otherwise.
const LIMIT: u64 = 256;
/// The table is so many times as large.
const TIMES: u64 = 4;
const VALUE: usize = 8 << 10;
const PER_KEY: u64 = 64;
const AT_ONCE: usize = 32;
const WHOLE: Duration = Duration::from_secs(120);

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let limit = plan.longest.unwrap_or(LIMIT);
    let mut cluster =
        Cluster::start(&Setup { nameservers: 1, tablets: 1, ..Setup::default() }).await?;
    let at = cluster.of(Role::Tablet)[0];
    // Started again by a shell that sets its limit first.
    let program = cluster.servers[at].dir.with_extension("sh");
    let own = std::env::current_exe()?;
    let text = format!(
        "#!/bin/sh\nulimit -d {} || exit 1\nexec '{}' {AS_STELA} \"$@\"\n",
        limit << 10,
        own.display()
    );
    stela_common::fs::write(&program, text)?;
    #[allow(clippy::disallowed_methods)] // a script of its own
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    cluster.servers[at].program = Some(program);
    cluster.stop(at)?;
    cluster.launch(at)?;
    cluster.await_ready(at).await?;

    let client = cluster.client().await?;
    create_table(&client, "larger", 4, 1).await?;
    await_whole(&client, WHOLE).await?;
    let table = client.table(DB, "larger").await?;
    let rows = (limit << 20) * TIMES / VALUE as u64;
    let keys = rows.div_ceil(PER_KEY);
    let begun = Instant::now();
    let (client_of, table_of) = (&client, &table);
    futures::stream::iter(0..keys * PER_KEY)
        .map(|n| async move {
            let row = table_of.plain(key(n % keys), value(n), 1 + n / keys);
            client_of.put(table_of, vec![row]).await.map_err(|e| anyhow::anyhow!("row {n}: {e}"))
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    let bytes = keys * PER_KEY * VALUE as u64;
    println!(
        "{} MiB in {} rows written in {:.1?} by a tablet that may take {limit} MiB; it has {}",
        bytes >> 20,
        keys * PER_KEY,
        begun.elapsed(),
        own_memory(&cluster, at)?
    );
    let begun = Instant::now();
    read_all(&client, &table, keys).await?;
    println!("all read in {:.1?}; it has {}", begun.elapsed(), own_memory(&cluster, at)?);

    cluster.stop(at)?;
    let begun = Instant::now();
    cluster.launch(at)?;
    cluster.await_ready(at).await?;
    await_whole(&client, WHOLE).await?;
    println!("serves {:.1?} after it was started again", begun.elapsed());
    read_all(&client, &table, keys).await?;
    println!("all read again; it has {}", own_memory(&cluster, at)?);
    ensure!(cluster.panics().is_empty(), "panics: {:?}", cluster.panics());
    Ok(Outcome::Pass)
}

fn key(n: u64) -> String {
    format!("key{n}")
}

/// No two are alike, and none is what another row's would be.
fn value(n: u64) -> Vec<u8> {
    n.to_le_bytes().into_iter().cycle().take(VALUE).collect()
}

async fn read_all(client: &Client, table: &TableHandle, keys: u64) -> Result<()> {
    for k in 0..keys {
        let (mut range, mut seen) = (Range::default(), 0);
        loop {
            let index = table.first_index();
            let found =
                client.scan(table, index, key(k).as_bytes(), range, ReadFrom::Leader).await?;
            for (ts, bytes) in &found.rows {
                ensure!(*bytes == value(k + (ts - 1) * keys), "{} at {ts} is another row", key(k));
            }
            seen += found.rows.len() as u64;
            match found.rows.last() {
                Some((ts, _)) if !found.finished => range.st = ts - 1,
                _ => break,
            }
        }
        ensure!(seen == PER_KEY, "{seen} of {PER_KEY} rows of {} are there", key(k));
    }
    Ok(())
}

/// What a server has in memory that is not of files, and what the limit counts.
fn own_memory(cluster: &Cluster, at: usize) -> Result<String> {
    let status = cluster.status(at).context("the tablet does not run")?;
    let line = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let (own, data) = (line("RssAnon:").unwrap_or(0), line("VmData:").unwrap_or(0));
    Ok(format!("{} MiB of its own in use, {} MiB that count", own >> 10, data >> 10))
}
