//! Every command of both clients, with each success and each error, as golden sessions on real processes.
//!
//! A golden file has commands (`> ...`), things that happen meanwhile (`~ ...`) and, below each command, what is printed.
//! Endpoints are written by what they are (`N1`: the leading nameserver, `T1`: the first tablet); cells that are not the
//! same in each run are `*`; blanks count as one, since widths follow the endpoints. Each command is a process of its own.
//!
//! Pass: all is printed as the file has it, and every command of the reference is in it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stela_common::client::Client;
use stela_common::fs;

use super::{Outcome, Plan};
use crate::cluster::{AS_STELA, Cluster, Role, Setup};
use crate::workload::DB;

const NS_CLIENT: &str = include_str!("../../golden/ns_client.txt");
const CLIENT: &str = include_str!("../../golden/client.txt");

/// The commands of the reference.
const NS_COMMANDS: [&str; 51] = [
    "addindex",
    "addrepcluster",
    "addreplica",
    "addtablefield",
    "cancelop",
    "changeleader",
    "confget",
    "confset",
    "connectzk",
    "count",
    "create",
    "createdb",
    "delete",
    "deleteindex",
    "deleteop",
    "delreplica",
    "disconnectzk",
    "drop",
    "dropdb",
    "exit",
    "get",
    "gettablepartition",
    "help",
    "info",
    "makesnapshot",
    "man",
    "migrate",
    "offlineendpoint",
    "preview",
    "put",
    "quit",
    "recoverendpoint",
    "recovertable",
    "removerepcluster",
    "scan",
    "setsdkendpoint",
    "settablepartition",
    "setttl",
    "showcatalogversion",
    "showdb",
    "showns",
    "showopstatus",
    "showrepcluster",
    "showschema",
    "showsdkendpoint",
    "showtable",
    "showtablet",
    "switchmode",
    "synctable",
    "updatetablealive",
    "use",
];
const TABLET_COMMANDS: [&str; 24] = [
    "addreplica",
    "changerole",
    "connectzk",
    "count",
    "delete",
    "deleteindex",
    "delreplica",
    "disconnectzk",
    "drop",
    "exit",
    "getfollower",
    "gettablestatus",
    "help",
    "loadtable",
    "makesnapshot",
    "man",
    "pausesnapshot",
    "preview",
    "quit",
    "recoversnapshot",
    "sendsnapshot",
    "setexpire",
    "setttl",
    "showschema",
];
/// Columns whose cells are masked.
const MASKED: [&str; 13] = [
    "tid",
    "offset",
    "leader_offset",
    "record_cnt",
    "memused",
    "diskused",
    "age",
    "op_id",
    "start_time",
    "execute_time",
    "end_time",
    "version",
    "skiplist_height",
];
const LIMIT: Duration = Duration::from_secs(30);

pub(super) async fn run(_: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup { tablets: 4, ..Setup::default() }).await?;
    let client = cluster.client().await?;
    client.admin().create_db(DB).await?;
    let place = tempfile::tempdir()?;
    let mut good = true;
    for (client_word, golden, reference) in
        [("ns_client", NS_CLIENT, &NS_COMMANDS[..]), ("client", CLIENT, &TABLET_COMMANDS[..])]
    {
        let mut session = Session::new(&cluster, &client, place.path().to_owned()).await?;
        let mut got = String::new();
        let (mut used, mut cases, mut failures) = (BTreeSet::new(), 0, 0);
        for line in golden.lines() {
            if let Some(command) = line.strip_prefix("> ") {
                let printed = session.say(&cluster, client_word, command)?;
                used.insert(command.split(' ').next().unwrap_or_default().to_owned());
                cases += 1;
                let failed = printed.contains("error msg") || printed.contains("Fail");
                failures += usize::from(failed || printed.contains("ormat"));
                got.push_str(&format!("{line}\n{printed}"));
            } else if let Some(event) = line.strip_prefix("~ ") {
                happens(&mut cluster, &client, &mut session, event).await?;
                got.push_str(&format!("{line}\n"));
            } else if cases == 0 {
                // What the file is about.
                got.push_str(&format!("{line}\n"));
            }
        }
        let missing: Vec<&&str> = reference.iter().filter(|c| !used.contains(**c)).collect();
        println!(
            "{client_word}: {} commands, {cases} cases, {failures} of them errors; not tried: {missing:?}",
            used.len()
        );
        good &= missing.is_empty() && same(client_word, &got, golden)?;
    }
    ensure!(cluster.panics().is_empty(), "a server panicked: {:?}", cluster.panics());
    Ok(if good { Outcome::Pass } else { Outcome::Fail })
}

/// Names for what differs from run to run.
struct Session {
    /// Endpoint by name, longest name first where it matters.
    names: BTreeMap<String, String>,
    dir: std::path::PathBuf,
    /// Which tablet the tablet's client talks to.
    tablet: String,
    tid: String,
}

impl Session {
    async fn new(cluster: &Cluster, client: &Client, dir: std::path::PathBuf) -> Result<Self> {
        let leader = client.leader().await?;
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        names.insert("N1".into(), leader.clone());
        let others = cluster.of(Role::Nameserver).into_iter();
        let others = others.map(|at| &cluster.servers[at].endpoint).filter(|e| **e != leader);
        for (n, endpoint) in (2..).zip(others) {
            names.insert(format!("N{n}"), endpoint.clone());
        }
        for (n, at) in (1..).zip(cluster.of(Role::Tablet)) {
            names.insert(format!("T{n}"), cluster.servers[at].endpoint.clone());
        }
        let tablet = names["T1"].clone();
        let tid = match client.table(DB, "flow").await {
            Ok(table) => table.tid().to_string(),
            Err(_) => String::new(),
        };
        Ok(Self { names, dir, tablet, tid })
    }

    fn meant(&self, line: &str) -> String {
        let word = |w: &str| match w {
            w if w.contains("TID") => w.replace("TID", &self.tid),
            w => self.names.get(w).cloned().unwrap_or_else(|| w.to_owned()),
        };
        line.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }

    /// Runs a command and answers what it printed, masked.
    fn say(&self, cluster: &Cluster, role: &str, line: &str) -> Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([AS_STELA, "--interactive=false"])
            .arg(format!("--role={role}"))
            .arg(format!("--cmd={}", self.meant(line)))
            .env("STELA_LAYOUT", "current")
            .current_dir(&self.dir)
            .stdin(Stdio::null());
        match role {
            "ns_client" => command
                .arg(format!("--zk_cluster={}", cluster.nameservers()))
                .arg(format!("--database={DB}")),
            _ => command.arg(format!("--endpoint={}", self.tablet)),
        };
        let output = command.output()?;
        ensure!(output.status.success(), "{line} ended with {}", output.status);
        let text = String::from_utf8(output.stdout)?;
        Ok(self.mask(&text))
    }

    fn mask(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, endpoint) in &self.names {
            text = text.replace(endpoint.as_str(), name);
        }
        let (mut header, mut before, mut out) = (Vec::new(), String::new(), String::new());
        for line in text.lines().filter(|l| !l.starts_with("ns leader:")) {
            let tokens: Vec<&str> = line.split_whitespace().collect();
            if line.starts_with("------") {
                header = before.split_whitespace().map(str::to_owned).collect();
                out.push_str("---\n");
            } else if line.starts_with("  ") && !header.is_empty() {
                let cell = |(at, t): (usize, &&str)| match header.get(at) {
                    Some(column) if MASKED.contains(&column.as_str()) && *t != "-" => "*".into(),
                    _ => (*t).to_owned(),
                };
                // Some units stand apart from their number, in masked columns only.
                let values = tokens.iter().filter(|t| !["K", "M"].contains(t));
                let cells = values.enumerate().map(cell);
                out.push_str(&cells.collect::<Vec<_>>().join(" "));
                out.push('\n');
            } else {
                header.clear();
                out.push_str(tokens.join(" ").as_str());
                out.push('\n');
            }
            before = line.to_owned();
        }
        out
    }
}

async fn happens(
    cluster: &mut Cluster,
    client: &Client,
    session: &mut Session,
    event: &str,
) -> Result<()> {
    match event.split(' ').collect::<Vec<_>>()[..] {
        ["whole"] => {
            ended(client).await?;
            await_that(client, "all is whole", true).await
        }
        ["ended"] => {
            ended(client).await?;
            await_that(client, "all is led", false).await
        }
        ["kill", name] => {
            let endpoint = &session.names[name];
            cluster.kill(cluster.find(endpoint).context("no such server")?)?;
            let deadline = Instant::now() + LIMIT;
            loop {
                let tablets = client.admin().show_tablet().await?.tablets;
                if tablets.iter().any(|t| t.endpoint == *endpoint && !t.healthy) {
                    return Ok(());
                }
                ensure!(Instant::now() < deadline, "{name} is not called offline");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        ["start", name] => {
            let at = cluster.find(&session.names[name]).context("no such server")?;
            cluster.launch(at)?;
            cluster.await_ready(at).await
        }
        ["at", name] => {
            session.tablet = session.names[name].clone();
            Ok(())
        }
        _ => bail!("nobody knows what '{event}' is"),
    }
}

async fn ended(client: &Client) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let ops = client.admin().show_op_status("", "", None).await?.ops;
        let Some(op) = ops.iter().find(|op| op.end_time == 0) else { return Ok(()) };
        ensure!(Instant::now() < deadline, "{op:?} does not end");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until all partitions serve and, if that is wanted, all replicas are alive and equal.
async fn await_that(client: &Client, what: &str, whole: bool) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let shown = client.admin().show_table("", "", true).await?.tables;
        let good = shown.iter().flat_map(|t| &t.partitions).all(|p| {
            let offset = p.replicas.first().map(|r| r.offset);
            let equal = p.replicas.iter().all(|r| r.alive && r.known && Some(r.offset) == offset);
            p.serving && (equal || !whole)
        });
        if good {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not come true that {what}: {shown:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Compares, and shows where they differ; what was got is kept beside this program.
fn same(what: &str, got: &str, want: &str) -> Result<bool> {
    if got == want {
        return Ok(true);
    }
    let kept = std::env::current_exe()?.with_file_name(format!("golden-{what}.txt"));
    fs::write(&kept, got)?;
    println!("{what}: DIFFERS; what was printed is in {}", kept.display());
    let (got, want): (Vec<_>, Vec<_>) = (got.lines().collect(), want.lines().collect());
    let at = got.iter().zip(&want).position(|(g, w)| g != w).unwrap_or(got.len().min(want.len()));
    for n in at.saturating_sub(3)..(at + 6) {
        println!("  - {}\n  + {}", want.get(n).unwrap_or(&""), got.get(n).unwrap_or(&""));
    }
    Ok(false)
}
