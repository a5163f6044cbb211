//! The operations tool that OpenMLDB ships, call by call: the commands that it runs (argument by argument, blanks included),
//! how it reads their tables (by position), how it waits (for the last row of `showopstatus`), and what it posts.
//!
//! All seven of its operations run against three nameservers and four tablets: `recoverdata` with everything to repair,
//! `scaleout` onto an empty tablet, `scalein`, `pre-upgrade` and `post-upgrade` around a restart, `showopstatus` and
//! `showtablestatus`.
//!
//! Pass: each comes to its end without an error, every replica is alive, every acknowledged row is there, and
//! `auto_failover` is as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stela_common::client::{Client, ReadFrom};

use super::{Outcome, Plan};
use crate::cluster::{AS_STELA, Cluster, Role, Setup};
use crate::workload::{DB, create_table};

const LIMIT: Duration = Duration::from_secs(60);
const ROWS: usize = 200;
/// What the tool names beside the databases that it is shown.
const INTERNAL: [&str; 3] = ["__INTERNAL_DB", "__PRE_AGG_DB", "INFORMATION_SCHEMA"];

pub(super) async fn run(_: Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(&Setup { tablets: 4, ..Setup::default() }).await?;
    let client = cluster.client().await?;
    // The last tablet has to be empty at first.
    let last = *cluster.of(Role::Tablet).last().context("no tablet")?;
    cluster.kill(last)?;
    await_offline(&client, &cluster.servers[last].endpoint).await?;
    create_table(&client, "t", 4, 3).await?;
    create_table(&client, "one", 2, 1).await?;
    cluster.launch(last)?;
    cluster.await_ready(last).await?;
    let rows = write(&client).await?;

    // With the switch off everything that restarts is held: there is everything to repair.
    client.admin().conf_set("auto_failover", "false").await?;
    for at in cluster.of(Role::Tablet) {
        cluster.kill(at)?;
    }
    cluster.launch_all().await?;
    let tool = Tool::connect(&cluster)?;
    manage(&tool, "recoverdata", Tool::recover_data).await?;
    let repaired = tool.posts.get() > 0;
    whole(&client).await?;
    client.admin().conf_set("auto_failover", "true").await?;

    manage(&tool, "scaleout", Tool::scale_out).await?;
    let counts = replicas(&client).await?;
    ensure!(counts.len() == 4, "after scaleout the replicas are {counts:?}");
    println!("replicas after scaleout: {:?}", counts.values().collect::<Vec<_>>());

    let leaving = cluster.servers[last].endpoint.clone();
    manage(&tool, "scalein", async |tool| tool.scale_in(&leaving).await).await?;
    let counts = replicas(&client).await?;
    ensure!(!counts.contains_key(&leaving), "after scalein the replicas are {counts:?}");

    let first = *cluster.of(Role::Tablet).first().context("no tablet")?;
    let endpoint = cluster.servers[first].endpoint.clone();
    let mut moved = Vec::new();
    manage(&tool, "pre-upgrade", async |tool| {
        moved = tool.pre_upgrade(&endpoint).await?;
        Ok(())
    })
    .await?;
    ensure!(!moved.is_empty(), "there was nothing to move");
    cluster.stop(first)?;
    cluster.launch(first)?;
    cluster.await_ready(first).await?;
    whole(&client).await?;
    manage(&tool, "post-upgrade", async |tool| tool.post_upgrade(&endpoint, &moved).await).await?;

    for at in cluster.of(Role::Nameserver) {
        tool.same_as_the_leader(&cluster.servers[at].endpoint).await?;
    }
    println!("showopstatus: {} rows", tool.show_op_status()?);
    println!("showtablestatus: {} tables", tool.show_table_status()?);
    whole(&client).await?;
    verify(&client, &rows).await?;
    let switch = client.admin().conf_get("auto_failover").await?.rows;
    ensure!(switch.iter().all(|r| r.value == "true"), "auto_failover is left as {switch:?}");
    ensure!(cluster.panics().is_empty(), "a server panicked: {:?}", cluster.panics());
    println!("{} rows acknowledged and read back", rows.len());
    println!("{} commands and {} posts", tool.commands.get(), tool.posts.get());
    Ok(if repaired { Outcome::Pass } else { Outcome::Unknown })
}

/// A managing operation as the tool frames it: with the switch off, and on again afterwards if it was on.
async fn manage(
    tool: &Tool,
    name: &str,
    operation: impl AsyncFnOnce(&Tool) -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    let was_on = tool.ns("confget auto_failover", None)?.contains("true");
    if was_on {
        tool.ns("confset auto_failover false", None)?;
    }
    operation(tool).await.with_context(|| name.to_owned())?;
    if was_on {
        tool.ns("confset auto_failover true", None)?;
    }
    println!("{name}: done in {:.1?}", begun.elapsed());
    Ok(())
}

/// A row of `showtable`, by position.
#[derive(Clone, Debug)]
struct Row {
    tid: String,
    pid: String,
    endpoint: String,
    leader: bool,
    alive: bool,
    offset: u64,
}

/// A leadership that was moved: database, table, partition, where an extra replica is.
type Moved = (String, String, String, Option<String>);

struct Tool {
    zk: String,
    leader: String,
    commands: std::cell::Cell<usize>,
    posts: std::cell::Cell<usize>,
}

impl Tool {
    fn connect(cluster: &Cluster) -> Result<Self> {
        let mut this = Self {
            zk: cluster.nameservers().to_owned(),
            leader: String::new(),
            commands: Default::default(),
            posts: Default::default(),
        };
        let known = table(&this.zk("--cmd=showns")?);
        let leader = known.iter().find(|r| r.get(2).is_some_and(|role| role == "leader"));
        let leader = leader.context("connect OpenMLDB failed, get ns failed")?;
        ensure!(leader[1] == "-", "a real endpoint that nobody gave: {leader:?}");
        this.leader = leader[0].clone();
        ensure!(table(&this.zk("--cmd=showtablet")?).iter().all(|r| r[1] == "-"));
        Ok(this)
    }

    /// Runs the binary; what it printed, unless that is a failure in the tool's eyes.
    fn execute(&self, args: &[String]) -> Result<String> {
        self.commands.set(self.commands.get() + 1);
        let output = Command::new(std::env::current_exe()?)
            .arg(AS_STELA)
            .args(args)
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(!text.contains("error msg"), "{args:?}: {text}");
        ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(text)
    }

    fn by_zk(&self, role: &str, cmd: &str) -> Result<String> {
        self.execute(&[
            format!("--zk_cluster={}", self.zk),
            "--zk_root_path=/openmldb".into(),
            format!("--role={role}"),
            "--interactive=false".into(),
            cmd.into(),
        ])
    }

    fn zk(&self, cmd: &str) -> Result<String> {
        self.by_zk("ns_client", cmd)
    }

    fn ns(&self, cmd: &str, db: Option<&str>) -> Result<String> {
        let mut args = vec![
            format!("--endpoint={}", self.leader),
            "--role=ns_client".into(),
            "--interactive=false".into(),
            format!("--cmd={cmd}"),
        ];
        args.extend(db.map(|db| format!("--database={db}")));
        self.execute(&args)
    }

    fn databases(&self) -> Result<Vec<String>> {
        let shown = table(&self.ns("showdb", None)?);
        Ok(shown.into_iter().filter(|r| r.len() >= 2).map(|r| r[1].clone()).collect())
    }

    /// Its own names first, of databases that are never shown.
    fn all_databases(&self) -> Result<Vec<String>> {
        let internal = INTERNAL.iter().map(|db| (*db).to_owned());
        Ok(internal.chain(self.databases()?).collect())
    }

    /// Tables with their rows.
    fn tables(&self, db: &str, name: &str) -> Result<BTreeMap<String, Vec<Row>>> {
        let mut tables: BTreeMap<String, Vec<Row>> = BTreeMap::new();
        for r in table(&self.ns(&format!("showtable {name}"), Some(db))?) {
            if r.len() < 4 {
                continue;
            }
            let offset = if r[6] == "-" { 0 } else { r[6].parse().context("an offset")? };
            tables.entry(r[0].clone()).or_default().push(Row {
                tid: r[1].clone(),
                pid: r[2].clone(),
                endpoint: r[3].clone(),
                leader: r[4] == "leader",
                alive: r[5] == "yes",
                offset,
            });
        }
        Ok(tables)
    }

    fn healthy(&self) -> Result<Vec<String>> {
        let shown = table(&self.ns("showtablet", None)?);
        Ok(shown.into_iter().filter(|r| r[2] == "kHealthy").map(|r| r[0].clone()).collect())
    }

    /// Of each partition on a tablet, its mode and state.
    fn status(
        &self,
        endpoint: &str,
        tid: &str,
        pid: &str,
    ) -> Result<BTreeMap<String, (String, String)>> {
        let text = self.execute(&[
            "--role=client".into(),
            "--interactive=false".into(),
            format!("--endpoint={endpoint}"),
            format!("--cmd=gettablestatus {tid} {pid}"),
        ])?;
        ensure!(!text.contains("failed"), "{text}");
        let rows = table(&text).into_iter().filter(|r| r.len() >= 4);
        Ok(rows.map(|r| (format!("{}_{}", r[0], r[1]), (r[3].clone(), r[4].clone()))).collect())
    }

    /// Waits until the newest operation of a partition has ended.
    async fn wait_op(&self, db: &str, name: &str, pid: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let rows = table(&self.ns(&format!("showopstatus {name} {pid} "), Some(db))?);
            match rows.last().context("IndexError: no operation is shown")?[4].as_str() {
                "kDoing" | "kInited" => {}
                "kFailed" => bail!("the operation failed: {:?}", rows.last()),
                _ => return Ok(()),
            }
            ensure!(begun.elapsed() < LIMIT, "the operation does not end: {:?}", rows.last());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn order(&self, cmd: &str, good: &str, db: &str, name: &str, pid: &str) -> Result<()> {
        let text = self.ns(cmd, Some(db))?;
        ensure!(text.contains(good), "{cmd}: {text}");
        self.wait_op(db, name, pid).await
    }

    async fn change_leader(&self, db: &str, name: &str, pid: &str, to: &str) -> Result<()> {
        self.order(&format!("changeleader {name} {pid} {to}"), "", db, name, pid).await
    }

    async fn recover(&self, db: &str, name: &str, pid: &str, endpoint: &str) -> Result<()> {
        let cmd = format!("recovertable {name} {pid} {endpoint}");
        self.order(&cmd, "recover table ok", db, name, pid).await
    }

    async fn migrate_partition(
        &self,
        db: &str,
        name: &str,
        pid: &str,
        src: &str,
        dst: &str,
    ) -> Result<()> {
        let rows: Vec<Row> = self.tables(db, name)?.remove(name).context("the table is gone")?;
        let rows: Vec<Row> = rows.into_iter().filter(|r| r.pid == pid).collect();
        let sole = rows.len() == 1;
        if rows.iter().any(|r| r.endpoint == src && r.leader) {
            if sole {
                let cmd = format!("addreplica {name} {pid} {dst}");
                self.order(&cmd, "ok", db, name, pid).await?;
            }
            self.change_leader(db, name, pid, if sole { dst } else { "auto" }).await?;
            self.recover(db, name, pid, src).await?;
            if sole {
                let cmd = format!("delreplica {name} {pid} {src}");
                return self.order(&cmd, "ok", db, name, pid).await;
            }
        }
        let cmd = format!("migrate {src} {name} {pid} {dst}");
        self.order(&cmd, "migrate ok", db, name, pid).await
    }

    async fn recover_data(&self) -> Result<()> {
        for db in self.all_databases()? {
            let names: Vec<String> = self.tables(&db, "")?.into_keys().collect();
            for name in names {
                self.recover_one(&db, &name).await.with_context(|| format!("{db}.{name}"))?;
            }
        }
        Ok(())
    }

    /// Is everything alive, and has each tablet the role that is shown?
    fn is_healthy(&self, rows: &[Row]) -> Result<bool> {
        for row in rows {
            let status = self.status(&row.endpoint, "", "")?;
            let mode = if row.leader { "kTableLeader" } else { "kTableFollower" };
            let there = status.get(&format!("{}_{}", row.tid, row.pid));
            if !row.alive || there.is_none_or(|(is, _)| is != mode) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn recover_one(&self, db: &str, name: &str) -> Result<()> {
        let rows = self.tables(db, name)?.remove(name).context("the table is gone")?;
        if self.is_healthy(&rows)? {
            return Ok(());
        }
        let body = serde_json::json!({"db": db, "name": name}).to_string();
        let told = self.post(&self.leader, "/NameServer/ShowTable", &body)?;
        let tables = told["table_info"].as_array().context("no table_info")?;
        ensure!(told["code"] == 0 && tables.len() == 1, "{told}");
        for partition in tables[0]["table_partition"].as_array().context("no partitions")? {
            let pid = partition["pid"].as_u64().context("no pid")?.to_string();
            let metas = partition["partition_meta"].as_array().context("no replicas")?;
            ensure!(metas.iter().all(|m| m["offset"].is_u64()), "KeyError: offset in {partition}");
            let text =
                |m: &serde_json::Value| m["endpoint"].as_str().unwrap_or_default().to_owned();
            let Some(leader) = metas.iter().rfind(|m| m["is_leader"] == true) else { continue };
            let (endpoint, tid) = (text(leader), rows[0].tid.clone());
            if !self.status(&endpoint, &tid, &pid)?.contains_key(&format!("{tid}_{pid}")) {
                let body = format!(
                    r#"{{"table_meta": {{"name": "{name}", "tid": {tid}, "pid": {pid}, "ttl": 0, "seg_cnt": 8, "storage_mode": "kMemory"}}}}"#
                );
                self.post(&endpoint, "/TabletServer/LoadTable", &body)?;
            }
            if leader["is_alive"] == false {
                let cmd = format!("updatetablealive {name} {pid} {endpoint} yes");
                ensure!(self.ns(&cmd, Some(db))?.contains("update ok"), "{cmd}");
            }
            for other in metas.iter().map(text).filter(|e| *e != endpoint) {
                let alive = metas.iter().any(|m| text(m) == other && m["is_alive"] != false);
                if alive {
                    let cmd = format!("updatetablealive {name} {pid} {other} no");
                    ensure!(self.ns(&cmd, Some(db))?.contains("update ok"), "{cmd}");
                }
                let cmd = format!("recovertable {name} {pid} {other}");
                ensure!(self.ns(&cmd, Some(db))?.contains("recover table ok"), "{cmd}");
            }
        }
        let begun = Instant::now();
        loop {
            let ops = table(&self.ns(&format!("showopstatus {name}  "), Some(db))?);
            let rows = self.tables(db, name)?.remove(name).context("the table is gone")?;
            if ops.iter().all(|r| r[4] != "kDoing") && self.is_healthy(&rows)? {
                return Ok(());
            }
            ensure!(begun.elapsed() < LIMIT, "it is not healthy: {rows:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn scale_out(&self) -> Result<()> {
        for db in self.databases()? {
            loop {
                let endpoints = self.healthy()?;
                let tables = self.tables(&db, "")?;
                let holds = |e: &String| -> Vec<(&String, &String)> {
                    let all =
                        tables.iter().flat_map(|(name, rows)| rows.iter().map(move |r| (name, r)));
                    all.filter(|(_, r)| r.endpoint == *e).map(|(name, r)| (name, &r.pid)).collect()
                };
                let most = endpoints.iter().max_by_key(|e| holds(e).len()).context("no tablet")?;
                let least = endpoints.iter().min_by_key(|e| holds(e).len()).context("no tablet")?;
                if holds(most).len() <= holds(least).len() + 1 {
                    break;
                }
                let there: BTreeSet<_> = holds(least).into_iter().collect();
                let mut movable = holds(most).into_iter().filter(|p| !there.contains(p));
                let (name, pid) = movable.next().context("IndexError: nothing can be moved")?;
                self.migrate_partition(&db, name, pid, most, least).await?;
            }
        }
        Ok(())
    }

    async fn scale_in(&self, leaving: &str) -> Result<()> {
        let remaining: Vec<String> = self.healthy()?.into_iter().filter(|e| e != leaving).collect();
        for db in self.databases()? {
            for (name, rows) in self.tables(&db, "")? {
                for row in rows.iter().filter(|r| r.endpoint == leaving) {
                    let tables = self.tables(&db, "")?;
                    let count =
                        |e: &String| tables.values().flatten().filter(|r| r.endpoint == *e).count();
                    let has = |e: &String| {
                        tables[&name].iter().any(|r| r.pid == row.pid && r.endpoint == *e)
                    };
                    let to = remaining.iter().filter(|e| !has(e)).min_by_key(|e| count(e));
                    let to = to.context("can not find endpoint to migrate")?;
                    self.migrate_partition(&db, &name, &row.pid, leaving, to).await?;
                }
            }
        }
        Ok(())
    }

    async fn pre_upgrade(&self, endpoint: &str) -> Result<Vec<Moved>> {
        let mut moved = Vec::new();
        for db in self.databases()? {
            for (name, rows) in self.tables(&db, "")? {
                for row in rows.iter().filter(|r| r.endpoint == endpoint) {
                    let status = self.status(endpoint, &row.tid, &row.pid)?;
                    let mode = status.get(&format!("{}_{}", row.tid, row.pid));
                    if mode.is_none_or(|(mode, _)| mode != "kTableLeader") {
                        continue;
                    }
                    let _ = row.offset;
                    let sole = rows.iter().filter(|r| r.pid == row.pid).count() == 1;
                    let mut extra = None;
                    if sole {
                        let others = self.healthy()?.into_iter().filter(|e| e != endpoint);
                        let to = others.min().context("no other tablet")?;
                        let cmd = format!("addreplica {name} {} {to}", row.pid);
                        self.order(&cmd, "ok", &db, &name, &row.pid).await?;
                        extra = Some(to);
                    }
                    let to = extra.as_deref().unwrap_or("auto");
                    self.change_leader(&db, &name, &row.pid, to).await?;
                    self.recover(&db, &name, &row.pid, endpoint).await?;
                    moved.push((db.clone(), name.clone(), row.pid.clone(), extra));
                }
            }
        }
        Ok(moved)
    }

    async fn post_upgrade(&self, endpoint: &str, moved: &[Moved]) -> Result<()> {
        let begun = Instant::now();
        for db in self.all_databases()? {
            let open = |r: &Vec<String>| ["kInited", "kDoing"].contains(&r[4].as_str());
            while table(&self.ns("showopstatus   ", Some(&db))?).iter().any(open) {
                ensure!(begun.elapsed() < LIMIT, "operations do not end");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        for (db, name, pid, extra) in moved {
            let rows = self.tables(db, name)?.remove(name).context("the table is gone")?;
            let key = format!("{}_{pid}", rows[0].tid);
            let status = self.status(endpoint, &rows[0].tid, pid)?;
            let (mode, _) = status.get(&key).context("the tablet does not list the partition")?;
            if mode == "kTableLeader" {
                continue;
            }
            let leader = rows.iter().find(|r| r.pid == *pid && r.leader).context("no leader")?;
            let leader = extra.clone().unwrap_or_else(|| leader.endpoint.clone());
            self.change_leader(db, name, pid, endpoint).await?;
            self.recover(db, name, pid, &leader).await?;
            if let Some(extra) = extra {
                let cmd = format!("delreplica {name} {pid} {extra}");
                self.order(&cmd, "ok", db, name, pid).await?;
            }
        }
        Ok(())
    }

    fn show_op_status(&self) -> Result<usize> {
        let mut shown = 0;
        for db in self.all_databases()? {
            for row in table(&self.ns("showopstatus   ", Some(&db))?) {
                ensure!(row.len() == 10, "ValueError: a row of {} cells: {row:?}", row.len());
                ensure!(
                    !INTERNAL.contains(&db.as_str()),
                    "operations of nobody's database: {row:?}"
                );
                shown += 1;
            }
        }
        ensure!(shown > 0, "no operation is shown");
        Ok(shown)
    }

    fn show_table_status(&self) -> Result<usize> {
        let text = self.by_zk("sql_client", "--cmd=show table status like '%';")?;
        ensure!(!text.contains("failed"), "{text}");
        let rows = table(&text);
        ensure!(rows.first().is_some_and(|r| r.len() == 14), "the header is {:?}", rows.first());
        let kept = rows.iter().skip(1).filter(|r| [13, 14].contains(&r.len()));
        let kept: Vec<_> = kept.collect();
        ensure!(kept.len() == 2 && kept.iter().all(|r| r[8] == "0"), "{text}");
        Ok(kept.len())
    }

    /// Whichever nameserver is asked, it tells what the one that leads tells. (The tool asks that one only.)
    async fn same_as_the_leader(&self, nameserver: &str) -> Result<()> {
        let begun = Instant::now();
        let body = serde_json::json!({"db": DB, "name": "t"}).to_string();
        loop {
            let told = self.post(nameserver, "/NameServer/ShowTable", &body)?;
            let want = self.post(&self.leader, "/NameServer/ShowTable", &body)?;
            if told == want && told["code"] == 0 {
                return Ok(());
            }
            // Reports of tablets come in between the two.
            ensure!(begun.elapsed() < LIMIT, "{nameserver} tells {told}, and the leader {want}");
        }
    }

    /// As Python's `requests` posts.
    fn post(&self, endpoint: &str, path: &str, body: &str) -> Result<serde_json::Value> {
        self.posts.set(self.posts.get() + 1);
        let mut stream = TcpStream::connect(endpoint)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {endpoint}\r\nUser-Agent: python-requests/2.31.0\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nContent-type: application/json\r\nAuthorization: foo\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(serde_json::from_str(body)?)
    }
}

/// Rows behind the first line of six dashes or more, split at blanks.
fn table(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut on) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("------") {
            on = true;
        } else if on && !line.trim().is_empty() {
            rows.push(line.split_whitespace().map(str::to_owned).collect());
        }
    }
    rows
}

async fn write(client: &Client) -> Result<Vec<(&'static str, String)>> {
    let mut rows = Vec::new();
    for name in ["t", "one"] {
        let handle = client.table(DB, name).await?;
        for n in 0..ROWS / 2 {
            let key = format!("{name}-{n}");
            let row = handle.plain(key.clone(), key.clone(), 1);
            client.put(&handle, vec![row]).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            rows.push((name, key));
        }
    }
    Ok(rows)
}

async fn verify(client: &Client, rows: &[(&str, String)]) -> Result<()> {
    for (name, key) in rows {
        let handle = client.table(DB, name).await?;
        let index = handle.first_index();
        let got = client.get(&handle, index, key.as_bytes(), 0, ReadFrom::Leader).await?;
        ensure!(got.is_some_and(|(_, value)| value == *key), "row {key} is lost");
    }
    Ok(())
}

/// How many replicas each tablet has.
async fn replicas(client: &Client) -> Result<BTreeMap<String, usize>> {
    let mut counts = BTreeMap::new();
    let shown = client.admin().show_table(DB, "", false).await?.tables;
    for replica in shown.iter().flat_map(|t| &t.partitions).flat_map(|p| &p.replicas) {
        *counts.entry(replica.endpoint.clone()).or_default() += 1;
    }
    Ok(counts)
}

async fn whole(client: &Client) -> Result<()> {
    let begun = Instant::now();
    loop {
        let shown = client.admin().show_table(DB, "", false).await?.tables;
        let good = |p: &stela_proto::nameserver::PartitionRow| {
            p.serving && p.replicas.iter().all(|r| r.alive)
        };
        if shown.iter().flat_map(|t| &t.partitions).all(good) {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "not whole: {shown:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn await_offline(client: &Client, endpoint: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let tablets = client.admin().show_tablet().await?.tablets;
        if tablets.iter().any(|t| t.endpoint == endpoint && !t.healthy) {
            return Ok(());
        }
        ensure!(begun.elapsed() < LIMIT, "{endpoint} is not called offline");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
