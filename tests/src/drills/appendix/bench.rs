//! The cluster of the items, what was written to it, and how they wait.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stela_common::client::{Client, ReadFrom};
use stela_proto::nameserver as ns;

use crate::cluster::{Cluster, Role, Setup};
use crate::net::{Flow, Net, Party, between};
use crate::workload::{DB, create_table};

/// Whatever is waited for comes within this.
pub const SOON: Duration = Duration::from_secs(30);
/// Partitions of the table that most items use.
pub const PARTITIONS: u32 = 4;

pub struct Bench {
    pub cluster: Cluster,
    pub client: Client,
    /// Keys that were acknowledged, with their table, and the time and value last written.
    rows: BTreeMap<(String, String), u64>,
    next: u64,
}

impl Bench {
    pub async fn start() -> Result<Self> {
        let cluster =
            Cluster::start(&Setup { tablets: 4, links: true, ..Setup::default() }).await?;
        let client = cluster.client_of(0, SOON).await?;
        create_table(&client, "t", PARTITIONS, 3).await?;
        create_table(&client, "one", 2, 1).await?;
        let mut bench = Self { cluster, client, rows: BTreeMap::new(), next: 0 };
        bench.whole().await?;
        bench.put("t", 40).await?;
        bench.put("one", 10).await?;
        Ok(bench)
    }

    pub fn acknowledged(&self) -> usize {
        self.rows.len()
    }

    pub fn acknowledged_in(&self, table: &str) -> usize {
        self.rows.keys().filter(|(of, _)| of == table).count()
    }

    /// Writes that many rows; each has to be acknowledged.
    pub async fn put(&mut self, table: &str, rows: usize) -> Result<()> {
        let handle = self.client.table(DB, table).await?;
        for _ in 0..rows {
            self.next += 1;
            let key = format!("k{}", self.next);
            let value = self.next.to_string();
            let row = handle.plain(key.clone(), value, self.next);
            self.client.put(&handle, vec![row]).await.map_err(|e| anyhow::anyhow!("{e:?}"))?;
            self.rows.insert((table.to_owned(), key), self.next);
        }
        Ok(())
    }

    /// Reads back what was acknowledged.
    pub async fn verify(&self) -> Result<()> {
        let tables: BTreeSet<&String> = self.rows.keys().map(|(table, _)| table).collect();
        for table in tables {
            self.verify_table(table).await?;
        }
        Ok(())
    }

    /// Reads back what was acknowledged of one table.
    pub async fn verify_table(&self, table: &str) -> Result<()> {
        let handle = &self.client.table(DB, table).await?;
        let index = handle.first_index();
        for ((_, key), value) in self.rows.iter().filter(|((of, _), _)| of == table) {
            let got = self.client.get(handle, index, key.as_bytes(), 0, ReadFrom::Leader).await?;
            let right = got.is_some_and(|(ts, bytes)| ts == *value && bytes == value.to_string());
            ensure!(right, "row {key} of '{table}' is lost");
        }
        Ok(())
    }

    pub async fn partitions(&self, table: &str) -> Result<Vec<ns::PartitionRow>> {
        let shown = self.client.admin().show_table(DB, table, false).await?;
        Ok(shown.tables.into_iter().flat_map(|t| t.partitions).collect())
    }

    pub async fn partition(&self, table: &str, pid: u32) -> Result<ns::PartitionRow> {
        let all = self.partitions(table).await?;
        all.into_iter().find(|p| p.pid == pid).with_context(|| format!("{table} {pid} is gone"))
    }

    /// Who leads and is alive; empty: nobody.
    pub async fn leader(&self, table: &str, pid: u32) -> Result<String> {
        Ok(alive_leader(&self.partition(table, pid).await?))
    }

    pub async fn followers(&self, table: &str, pid: u32) -> Result<Vec<String>> {
        let rows = self.partition(table, pid).await?.replicas.into_iter();
        Ok(rows.filter(|r| !r.leader && r.alive).map(|r| r.endpoint).collect())
    }

    /// A tablet without a replica of that partition.
    pub async fn free(&self, table: &str, pid: u32) -> Result<String> {
        let held = self.partition(table, pid).await?.replicas;
        let tablets = self.cluster.of(Role::Tablet).into_iter();
        let mut free = tablets
            .map(|at| self.cluster.servers[at].endpoint.clone())
            .filter(|e| held.iter().all(|r| r.endpoint != *e));
        free.next().context("every tablet has a replica")
    }

    pub fn at(&self, endpoint: &str) -> Result<usize> {
        self.cluster.find(endpoint).with_context(|| format!("no server is called {endpoint}"))
    }

    pub fn net(&self) -> Result<&Net> {
        self.cluster.net()
    }

    /// Cuts a server off from all others and from clients.
    pub fn isolate(&self, at: usize) -> Result<()> {
        let others: Vec<Party> = (0..self.cluster.servers.len())
            .filter(|other| *other != at)
            .map(Party::Server)
            .chain([Party::Clients(0)])
            .collect();
        self.net()?.set(between(&[Party::Server(at)], &others, Flow::Cut));
        Ok(())
    }

    /// Cuts a server off from all of that role.
    pub fn cut(&self, at: usize, from: Role, flow: Flow) -> Result<()> {
        let others: Vec<Party> =
            self.cluster.of(from).into_iter().filter(|o| *o != at).map(Party::Server).collect();
        self.net()?.set(between(&[Party::Server(at)], &others, flow));
        Ok(())
    }

    /// Waits until it comes true.
    pub async fn until<F: Future<Output = Result<bool>>>(
        &self,
        what: &str,
        holds: impl Fn() -> F,
    ) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            // While nobody answers it is not true.
            if holds().await.unwrap_or(false) {
                return Ok(begun.elapsed());
            }
            ensure!(
                begun.elapsed() < SOON,
                "it does not come true that {what}: {}",
                self.shown().await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The replicas as they are now, for people.
    async fn shown(&self) -> String {
        let admin = self.client.admin();
        match admin.show_table(DB, "", false).await {
            Ok(shown) => shown
                .tables
                .iter()
                .flat_map(|t| {
                    let name = t.table.as_ref().map_or("", |t| &t.name);
                    t.partitions.iter().map(move |p| (name, p))
                })
                .map(|(name, p)| {
                    let replica = |r: &ns::ReplicaRow| {
                        format!(
                            "{} leader={} alive={} known={} offset={}",
                            r.endpoint, r.leader, r.alive, r.known, r.offset
                        )
                    };
                    let rows: Vec<String> = p.replicas.iter().map(replica).collect();
                    let rows = rows.join(", ");
                    format!("[{name} {} serving={} {rows} {}]", p.pid, p.serving, p.waits)
                })
                .collect(),
            Err(e) => e.to_string(),
        }
    }

    /// Waits until that replica is shown alive, or not alive.
    pub async fn until_alive(&self, table: &str, endpoint: &str, alive: bool) -> Result<Duration> {
        self.until(&format!("{endpoint} is alive={alive}"), || async {
            let partitions = self.partitions(table).await?;
            let mut rows = partitions.iter().flat_map(|p| &p.replicas);
            Ok(rows.all(|r| r.endpoint != endpoint || r.alive == alive))
        })
        .await
    }

    /// Waits until another one leads every partition that it led, and serves.
    pub async fn until_led_without(&self, table: &str, endpoint: &str) -> Result<Duration> {
        self.until(&format!("others than {endpoint} lead"), || async {
            let partitions = self.partitions(table).await?;
            Ok(partitions.iter().all(|p| {
                let leader = alive_leader(p);
                p.serving && !leader.is_empty() && leader != endpoint
            }))
        })
        .await
    }

    /// Waits until all operations have ended.
    pub async fn ops_ended(&self) -> Result<()> {
        self.until("all operations have ended", || async {
            let ops = self.client.admin().show_op_status("", "", None).await?.ops;
            Ok(ops.iter().all(|op| op.end_time != 0))
        })
        .await
        .map(drop)
    }

    /// Waits until every partition serves, all replicas are alive, and each has what the leader has.
    pub async fn whole(&self) -> Result<Duration> {
        self.until("all replicas are alive and equal", || async {
            let shown = self.client.admin().show_table(DB, "", false).await?.tables;
            Ok(shown.iter().flat_map(|t| &t.partitions).all(|p| {
                let offset = p.replicas.first().map(|r| r.offset);
                p.serving
                    && p.replicas.iter().all(|r| r.alive && r.known && Some(r.offset) == offset)
            }))
        })
        .await
    }

    pub async fn switch(&self, on: bool) -> Result<()> {
        self.client.admin().conf_set("auto_failover", &on.to_string()).await?;
        Ok(())
    }

    /// What an order is refused with; an error if it was not.
    pub fn refusal<T>(result: Result<T, stela_common::code::Refusal>) -> Result<String> {
        match result {
            Ok(_) => anyhow::bail!("it was not refused"),
            Err(refusal) => Ok(refusal.text),
        }
    }

    pub fn name(table: &str) -> ns::TableName {
        ns::TableName { db: DB.into(), name: table.into(), tid: 0 }
    }

    pub async fn restart(&mut self, endpoint: &str) -> Result<()> {
        let at = self.at(endpoint)?;
        self.cluster.kill(at)?;
        self.cluster.launch(at)?;
        self.cluster.await_ready(at).await
    }

    pub async fn start_again(&mut self, endpoint: &str) -> Result<()> {
        let at = self.at(endpoint)?;
        self.cluster.launch(at)?;
        self.cluster.await_ready(at).await
    }

    /// All links pass, all servers are up, the switch is on, all is whole, with three replicas each.
    pub async fn back_to_normal(&mut self) -> Result<()> {
        self.cluster.heal().await?;
        self.switch(true).await?;
        self.ops_ended().await?;
        self.whole().await?;
        for partition in self.partitions("t").await? {
            if partition.replicas.len() > 3 {
                let follower = self.followers("t", partition.pid).await?.remove(0);
                let admin = self.client.admin();
                admin.del_replica(Self::name("t"), vec![partition.pid], &follower).await?;
            }
        }
        self.ops_ended().await?;
        self.whole().await?;
        ensure!(self.cluster.panics().is_empty(), "panics: {:?}", self.cluster.panics());
        Ok(())
    }
}

pub fn alive_leader(partition: &ns::PartitionRow) -> String {
    let leader = partition.replicas.iter().find(|r| r.leader && r.alive);
    leader.map(|r| r.endpoint.clone()).unwrap_or_default()
}
