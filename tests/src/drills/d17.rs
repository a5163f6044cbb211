//! D17: a nameserver is killed between every two steps of every kind of operation.
//!
//! First each operation is carried out once undisturbed, and every place between two of its steps that a nameserver passes
//! is noted. Then it is carried out once for each of these places, and the nameserver that comes there first is killed.
//!
//! Pass: every noted place was met with a kill; each time the operation ended, or was told to have failed and left nothing;
//! replicas are those that are wanted, each tablet has what the catalog says and nothing else, in memory and on disk, and
//! no table is there by halves.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use stela_common::client::{Client, Options};
use stela_common::fs;
use stela_proto::{nameserver as ns, tablet as tp};

use super::{Outcome, Plan};
use crate::cluster::{Cluster, Extra, Role, Setup};
use crate::faults::points;
use crate::workload::{DB, create_table};

const LIMIT: Duration = Duration::from_secs(30);
/// So long a place may still be come to after everything else has ended.
const LATE: Duration = Duration::from_secs(5);

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Act {
    CreateTable,
    DropTable,
    AddReplica,
    DelReplica,
    Migrate,
    ChangeLeader,
    OfflineEndpoint,
    RecoverTable,
    MakeSnapshot,
}

const ACTS: [Act; 9] = [
    Act::CreateTable,
    Act::DropTable,
    Act::AddReplica,
    Act::DelReplica,
    Act::Migrate,
    Act::ChangeLeader,
    Act::OfflineEndpoint,
    Act::RecoverTable,
    Act::MakeSnapshot,
];

struct Bench {
    cluster: Cluster,
    points: PathBuf,
    kills: usize,
}

pub(super) async fn run(plan: Plan) -> Result<Outcome> {
    let place = tempfile::tempdir()?;
    let points = place.path().to_owned();
    let environment = vec![(points::ENVIRONMENT.to_owned(), points.display().to_string())];
    let nameserver = Extra { environment, ..Extra::default() };
    let cluster = Cluster::start(&Setup { tablets: 4, nameserver, ..Setup::default() }).await?;
    let mut bench = Bench { cluster, points, kills: 0 };
    let client = bench.client().await?;
    create_table(&client, "t", 1, 3).await?;
    client.admin().conf_set("auto_failover", "false").await?;
    bench.whole(&client).await?;

    // What is new of an operation from its preparation to the state as before.
    let mut places: Vec<(Act, String)> = Vec::new();
    let mut known = BTreeSet::new();
    for act in ACTS {
        bench.round(act).await?;
        let passed = points::passed(&bench.points);
        let new: Vec<String> = passed.difference(&known).cloned().collect();
        println!("{act:?}: {} places: {}", new.len(), new.join(" "));
        places.extend(new.into_iter().map(|name| (act, name)));
        known = passed;
    }

    let noted = places.len();
    let places: Vec<_> = match plan.rounds {
        // Some of them, spread over all.
        Some(rounds) => places.into_iter().step_by((noted / rounds.max(1)).max(1)).collect(),
        None => places,
    };
    let mut missed = Vec::new();
    for (act, name) in &places {
        let begun = Instant::now();
        points::arm(&bench.points, name)?;
        bench.round(*act).await.with_context(|| format!("with a kill at {name}"))?;
        // The last step may come when all looks well already.
        let late = Instant::now() + LATE;
        while points::is_armed(&bench.points, name) && Instant::now() < late {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bench.revive().await?;
        bench.settled().await?;
        if points::is_armed(&bench.points, name) {
            missed.push(name.clone());
            fs::remove_file(bench.points.join(name))?;
        }
        println!("{act:?} killed at {name}: as it should be {:.1?} later", begun.elapsed());
    }
    println!(
        "{} kills at {} of {noted} noted places{}",
        bench.kills,
        places.len(),
        if missed.is_empty() { String::new() } else { format!("; never met: {missed:?}") }
    );
    ensure!(bench.cluster.panics().is_empty(), "panics: {:?}", bench.cluster.panics());
    Ok(match (missed.is_empty(), noted >= 2 * ACTS.len()) {
        (true, true) => Outcome::Pass,
        (false, _) => Outcome::Unknown,
        (_, false) => Outcome::Unknown,
    })
}

impl Bench {
    /// A client that asks the leading nameserver first.
    async fn client(&self) -> Result<Client> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let client = self.cluster.client().await?;
            let known = client.admin().cluster().await;
            if let Ok(reply) = known
                && !reply.leader.is_empty()
            {
                let rest = reply.nameservers.into_iter().map(|n| n.endpoint);
                let list = std::iter::once(reply.leader.clone())
                    .chain(rest.filter(|e| *e != reply.leader))
                    .collect();
                return Ok(Client::connect(Options { timeout: LIMIT, ..Options::new(list) }).await?);
            }
            ensure!(Instant::now() < deadline, "no nameserver leads");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn tablets(&self) -> Vec<String> {
        let at = self.cluster.of(Role::Tablet);
        at.into_iter().map(|at| self.cluster.servers[at].endpoint.clone()).collect()
    }

    /// The replicas of table `t`: endpoint, leads, alive.
    async fn replicas(client: &Client) -> Result<Vec<(String, bool, bool)>> {
        let shown = client.admin().show_table(DB, "t", false).await?;
        let partition = shown.tables.first().and_then(|t| t.partitions.first());
        let rows = partition.context("table t is gone")?.replicas.iter();
        Ok(rows.map(|r| (r.endpoint.clone(), r.leader && r.alive, r.alive)).collect())
    }

    fn table() -> ns::TableName {
        ns::TableName { db: DB.into(), name: "t".into(), tid: 0 }
    }

    /// The one tablet that has no replica of `t`.
    async fn free(&self, client: &Client) -> Result<String> {
        let held: BTreeSet<String> =
            Self::replicas(client).await?.into_iter().map(|(e, ..)| e).collect();
        let free = self.tablets().into_iter().find(|e| !held.contains(e));
        free.context("every tablet has a replica")
    }

    async fn follower(client: &Client) -> Result<String> {
        let replicas = Self::replicas(client).await?;
        let follower = replicas.into_iter().find(|(_, leads, alive)| !leads && *alive);
        Ok(follower.context("no follower is alive")?.0)
    }

    /// What has to be so before it is done.
    async fn prepare(&mut self, act: Act) -> Result<()> {
        let client = self.client().await?;
        let admin = client.admin();
        match act {
            Act::DropTable => {
                create_table(&client, "u", 2, 3).await?;
            }
            Act::DelReplica => {
                let free = self.free(&client).await?;
                admin.add_replica(Self::table(), vec![0], &free).await?;
            }
            Act::RecoverTable => {
                let follower = Self::follower(&client).await?;
                admin.offline_endpoint(&follower, 0).await?;
            }
            _ => {}
        }
        self.settled().await
    }

    async fn act(&mut self, act: Act) -> Result<()> {
        let client = self.client().await?;
        let admin = client.admin();
        let done = match act {
            Act::CreateTable => create_table(&client, "u", 2, 3).await.map(drop),
            Act::DropTable => admin.drop_table(DB, "u").await.map(drop).map_err(Into::into),
            Act::AddReplica => {
                let free = self.free(&client).await?;
                admin.add_replica(Self::table(), vec![0], &free).await.map(drop).map_err(Into::into)
            }
            Act::DelReplica | Act::OfflineEndpoint | Act::Migrate => {
                let follower = Self::follower(&client).await?;
                match act {
                    Act::DelReplica => admin.del_replica(Self::table(), vec![0], &follower).await,
                    Act::Migrate => {
                        let free = self.free(&client).await?;
                        admin.migrate(&follower, Self::table(), vec![0], &free).await
                    }
                    _ => admin.offline_endpoint(&follower, 0).await,
                }
                .map(drop)
                .map_err(Into::into)
            }
            Act::ChangeLeader => admin
                .change_leader_by_hand(DB, "t", 0, Some(""))
                .await
                .map(drop)
                .map_err(Into::into),
            Act::RecoverTable => {
                let replicas = Self::replicas(&client).await?;
                let away = replicas.iter().find(|(.., alive)| !alive).context("all are alive")?;
                admin.recover_table(Self::table(), 0, &away.0).await.map(drop).map_err(Into::into)
            }
            Act::MakeSnapshot => {
                admin.make_snapshot(Self::table(), 0).await.map(drop).map_err(Into::into)
            }
        };
        done.with_context(|| format!("{act:?} was refused"))
    }

    /// An operation, from its preparation to the state as before.
    async fn round(&mut self, act: Act) -> Result<()> {
        self.prepare(act).await.context("before it")?;
        self.act(act).await?;
        self.settled().await.with_context(|| format!("{act:?}"))?;
        self.restore().await.context("back to before")
    }

    /// Starts nameservers again that were killed.
    async fn revive(&mut self) -> Result<()> {
        for at in self.cluster.of(Role::Nameserver) {
            if self.cluster.reap(at)? {
                self.kills += 1;
                self.cluster.launch(at)?;
                self.cluster.await_ready(at).await?;
            }
        }
        Ok(())
    }

    /// Waits until every operation has ended, and each tablet has what the catalog says.
    async fn settled(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let wrong = self.wrong().await?;
            let Some(wrong) = wrong else { return Ok(()) };
            if Instant::now() > deadline {
                bail!("{wrong}");
            }
            self.revive().await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What is not as it should be.
    async fn wrong(&self) -> Result<Option<String>> {
        let client = self.client().await?;
        let admin = client.admin();
        let (Ok(ops), Ok(shown)) =
            (admin.show_op_status("", "", None).await, admin.show_table(DB, "", false).await)
        else {
            return Ok(Some("no nameserver answers".into()));
        };
        if let Some(op) = ops.ops.iter().find(|op| op.end_time == 0) {
            return Ok(Some(format!("{op:?} goes on")));
        }
        let mut wanted: BTreeMap<String, BTreeSet<(u32, u32)>> =
            self.tablets().into_iter().map(|e| (e, BTreeSet::new())).collect();
        for table in &shown.tables {
            let definition = table.table.as_ref().context("a table without a definition")?;
            if table.partitions.len() != definition.partition_num as usize {
                return Ok(Some(format!("table {} is there by halves", definition.name)));
            }
            for partition in &table.partitions {
                if !partition.serving {
                    return Ok(Some(format!(
                        "{} {} is not served",
                        definition.name, partition.pid
                    )));
                }
                for replica in &partition.replicas {
                    let of = wanted.get_mut(&replica.endpoint).context("an unknown tablet")?;
                    of.insert((definition.tid, partition.pid));
                }
            }
        }
        for at in self.cluster.of(Role::Tablet) {
            let server = &self.cluster.servers[at];
            let wanted = &wanted[&server.endpoint];
            let request = tp::GetTableStatusRequest::default();
            let mut tablet = self.cluster.tablet_at(at, 0)?;
            let rows = tablet.get_table_status(request).await?.into_inner().rows;
            let there: BTreeSet<(u32, u32)> = rows.iter().map(|r| (r.tid, r.pid)).collect();
            if there != *wanted {
                return Ok(Some(format!("{} has {there:?}, not {wanted:?}", server.endpoint)));
            }
            let tables: BTreeSet<u32> = wanted.iter().map(|(tid, _)| *tid).collect();
            let files = names(&server.dir.join("tables"))?;
            let on_disk: BTreeSet<u32> = files.iter().filter_map(|f| f.parse().ok()).collect();
            if on_disk != tables {
                return Ok(Some(format!(
                    "{} has files of tables {on_disk:?}, not {tables:?}",
                    server.endpoint
                )));
            }
            let keys: BTreeSet<String> =
                wanted.iter().map(|(tid, pid)| format!("{tid}_{pid}")).collect();
            let left: Vec<String> = names(&server.dir.join("snapshots"))?
                .into_iter()
                .filter(|name| !keys.contains(name))
                .collect();
            if !left.is_empty() {
                return Ok(Some(format!("{} has snapshots of {left:?}", server.endpoint)));
            }
        }
        Ok(None)
    }

    async fn whole(&self, client: &Client) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        while !Self::replicas(client).await?.iter().all(|(.., alive)| *alive) {
            ensure!(Instant::now() < deadline, "not whole: {:?}", Self::replicas(client).await?);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// As it was at the beginning: table `t` with three replicas, all alive, and no other one.
    async fn restore(&mut self) -> Result<()> {
        let client = self.client().await?;
        let admin = client.admin();
        if admin.show_table(DB, "u", false).await?.tables.len() == 1 {
            admin.drop_table(DB, "u").await?;
        }
        for (endpoint, _, alive) in Self::replicas(&client).await? {
            if !alive {
                admin.recover_table(Self::table(), 0, &endpoint).await?;
            }
        }
        self.settled().await?;
        let client = self.client().await?;
        self.whole(&client).await?;
        let replicas = Self::replicas(&client).await?;
        if replicas.len() > 3 {
            let follower = Self::follower(&client).await?;
            client.admin().del_replica(Self::table(), vec![0], &follower).await?;
        }
        ensure!(replicas.len() >= 3, "a replica is lost: {replicas:?}");
        self.settled().await
    }
}

fn names(dir: &std::path::Path) -> Result<Vec<String>> {
    if !fs::exists(dir) {
        return Ok(Vec::new());
    }
    let name = |path: PathBuf| path.file_name().map(|n| n.to_string_lossy().into_owned());
    Ok(fs::read_dir(dir)?.into_iter().filter_map(name).collect())
}
