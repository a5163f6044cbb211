//! The nameserver that leads and the tablets: registration, leases, failover, drops, and what clients are shown.

use std::time::{Duration, Instant};

use stela_common::client::{Client, Options};
use stela_common::code::Code;
use stela_common::ids::TableId;
use stela_common::table::{Index, Table, Ttl};
use stela_meta::run::run;
use stela_meta::{Config, RaftConfig, StartError};
use stela_proto::heartbeat as pb;
use stela_proto::nameserver::{PartitionRow, ReplicaRow};
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::nodes::{Nodes, SOON, until};
use crate::tablet::{Disk, FakeTablet, connect, registration};

/// Short, so that silence is judged soon; long beside what a busy machine may stand still for.
pub const LEASE: u64 = 1500;

/// A whole nameserver.
pub struct Nameserver {
    pub endpoint: String,
    runtime: tokio::runtime::Runtime,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), StartError>>,
}

impl Nameserver {
    fn start(config: &Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = CancellationToken::new();
        let ended = runtime.spawn(run(config.clone(), stop.clone(), |_| {}));
        Self { endpoint: config.endpoint.clone(), runtime, stop, ended }
    }

    pub fn kill(self) {
        self.runtime.shutdown_background();
    }

    /// SIGTERM; must end although tablets and clients hold streams.
    fn stop(self) {
        self.stop.cancel();
        let ended = self.runtime.block_on(async { tokio::time::timeout(SOON, self.ended).await });
        ended.expect("it does not stop").unwrap().unwrap();
        self.runtime.shutdown_background();
    }
}

/// Nameservers and tablets, all running.
pub struct Cluster {
    pub nameservers: Vec<Nameserver>,
    pub tablets: Vec<FakeTablet>,
    pub client: Client,
    /// Runs the client's calls.
    runtime: tokio::runtime::Runtime,
    nodes: Nodes,
}

impl Cluster {
    pub fn start(nameservers: usize, tablets: usize) -> Self {
        let nodes = Nodes::new(nameservers, RaftConfig::default());
        let configs = nodes.configs.iter().map(|c| Config {
            lease_ms: LEASE,
            heartbeat_ms: 100,
            ..c.clone()
        });
        let nameservers: Vec<Nameserver> = configs.map(|c| Nameserver::start(&c)).collect();
        let list: Vec<String> = nameservers.iter().map(|n| n.endpoint.clone()).collect();
        let tablets: Vec<FakeTablet> = (0..tablets).map(|_| FakeTablet::start(&list)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let deadline = Instant::now() + SOON;
        let client = loop {
            match runtime.block_on(Client::connect(Options::new(list.clone()))) {
                Ok(client) => break client,
                Err(e) => assert!(Instant::now() < deadline, "{e}"),
            }
        };
        let this = Self { nameservers, tablets, client, runtime, nodes };
        until("all tablets have a lease", || {
            this.tablets.iter().all(|t| !t.known.lock().leases.is_empty())
        });
        this
    }

    /// What `call` comes to.
    pub fn ask<F: Future>(&self, call: F) -> F::Output {
        self.runtime.block_on(call)
    }

    /// A table in database `db`, which is made if need be; answers when every partition is served.
    pub fn create(&self, name: &str, partitions: u32, replicas: u32) -> u32 {
        self.create_as(&table(name, partitions, replicas))
    }

    pub fn create_as(&self, table: &Table) -> u32 {
        let admin = self.client.admin();
        if !self.ask(admin.show_db()).unwrap().names.contains(&"db".into()) {
            self.ask(admin.create_db("db")).unwrap();
        }
        let reply = self.ask(admin.create_table(table)).unwrap();
        until("all is served", || self.shown(&table.name).iter().all(|p| p.serving));
        reply.tid
    }

    pub fn shown(&self, name: &str) -> Vec<PartitionRow> {
        let shown = self.ask(self.client.admin().show_table("db", name, false)).unwrap();
        shown.tables.into_iter().flat_map(|t| t.partitions).collect()
    }

    fn ops(&self) -> Vec<(String, u32)> {
        let shown = self.ask(self.client.admin().show_op_status("db", "", None)).unwrap();
        shown.ops.into_iter().map(|op| (op.r#type.clone(), op.pid())).collect()
    }

    pub fn healthy(&self, endpoint: &str) -> bool {
        let shown = self.ask(self.client.admin().show_tablet()).unwrap();
        shown.tablets.iter().any(|t| t.endpoint == endpoint && t.healthy)
    }

    /// What is said first on a stream that begins so.
    fn beat(&self, first: pb::HeartbeatUp) -> pb::HeartbeatDown {
        self.ask(async {
            let mut client = connect(&self.nameservers[0].endpoint).await.unwrap();
            let said = tokio_stream::once(first).chain(tokio_stream::pending());
            let mut answers = client.heartbeat(said).await.unwrap().into_inner();
            answers.message().await.unwrap().unwrap()
        })
    }

    /// The proposal of that tablet to remove everybody else from the one partition that it leads.
    pub fn shrink_to_itself(&self, tablet: usize) -> pb::ChangeInSyncReply {
        let tablet = &self.tablets[tablet];
        let view = tablet.known.lock().views.values().next().cloned().unwrap();
        let request = pb::ChangeInSyncRequest {
            cluster: "test".into(),
            tid: view.tid,
            pid: view.pid,
            epoch: view.epoch,
            expected_version: view.version,
            in_sync: view.in_sync.iter().filter(|m| m.tablet == tablet.id()).copied().collect(),
            tablet: tablet.id(),
            incarnation: tablet.run,
        };
        self.ask(async {
            let mut client = connect(&self.nameservers[0].endpoint).await.unwrap();
            client.change_in_sync(request).await.unwrap().into_inner()
        })
    }

    /// The place in `tablets` of the one that leads that partition.
    pub fn leader_of(&self, row: &PartitionRow) -> usize {
        let leader = row.replicas.iter().find(|r| r.leader && r.alive).expect("somebody leads");
        self.tablets.iter().position(|t| t.endpoint == leader.endpoint).unwrap()
    }
}

pub fn table(name: &str, partitions: u32, replicas: u32) -> Table {
    let index = Index {
        name: "key".into(),
        columns: Vec::new(),
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        tid: TableId(0),
        db: "db".into(),
        name: name.into(),
        columns: Vec::new(),
        indexes: vec![index],
        partition_num: partitions,
        replica_num: replicas,
        options: stela_common::table::Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

fn cells(row: &ReplicaRow) -> (bool, bool, bool) {
    (row.leader, row.alive, row.in_sync)
}

#[test]
fn tablets_are_told_what_they_hold_and_get_leases_that_echo_their_heartbeats() {
    let cluster = Cluster::start(1, 3);
    let tid = cluster.create("t", 6, 2);
    for tablet in &cluster.tablets {
        let known = tablet.known.lock();
        assert_eq!(known.views.len(), 4, "6 partitions, 2 replicas each, on 3 tablets");
        assert!(known.views.values().all(|v| v.tid == tid && v.replicas.contains(&known.id)));
        assert_eq!(known.addresses.len(), 3);
        assert!(known.leases.is_sorted(), "{:?}", known.leases);
        drop(known);
        assert_eq!(tablet.leads(), 2, "leaders are spread");
    }
    let before = cluster.tablets[0].known.lock().leases.len();
    until("leases go on", || cluster.tablets[0].known.lock().leases.len() > before + 3);
    let rows = cluster.shown("t");
    assert!(rows.iter().flat_map(|p| &p.replicas).all(|r| r.known && r.alive && r.in_sync));
}

#[test]
fn a_killed_leader_is_replaced_by_the_fast_path() {
    let mut cluster = Cluster::start(1, 3);
    cluster.create("t", 9, 3);
    let victim = cluster.leader_of(&cluster.shown("t")[0]);
    let endpoint = cluster.tablets[victim].endpoint.clone();
    let led = cluster.tablets[victim].leads();
    let killed = Instant::now();
    cluster.tablets[victim].kill();
    until("the others lead all", || {
        let others = cluster.tablets.iter().enumerate().filter(|(n, _)| *n != victim);
        others.map(|(_, t)| t.leads()).sum::<usize>() == 9
    });
    let took = killed.elapsed();
    println!("{led} partitions have a leader again after {took:?}");
    assert!(
        took < Duration::from_millis(LEASE),
        "{took:?}: silence alone would have taken longer than a lease"
    );
    assert!(!cluster.healthy(&endpoint));
    until("the others serve", || cluster.shown("t").iter().all(|p| p.serving));
    for row in cluster.shown("t") {
        let former = row.replicas.iter().find(|r| r.endpoint == endpoint).unwrap();
        if row.epoch > 1 {
            assert_eq!(cells(former), (true, false, false), "shown as leader/no");
        } else {
            assert_eq!(cells(former), (false, false, true), "left to its leader");
        }
        assert_eq!(row.replicas.iter().filter(|r| r.leader && r.alive).count(), 1);
    }
    assert_eq!(cluster.ops().iter().filter(|(kind, _)| kind == "kChangeLeaderOP").count(), led);
    let led: Vec<usize> = cluster.tablets.iter().map(FakeTablet::leads).collect();
    assert!(
        led.iter().enumerate().all(|(n, count)| n == victim || (4..=5).contains(count)),
        "spread: {led:?}"
    );
    // It comes back as a new run, and is told what it is now.
    cluster.tablets[victim].restart();
    until("it is healthy and heard", || {
        cluster.healthy(&endpoint) && cluster.tablets[victim].known.lock().views.len() == 9
    });
    assert_eq!(cluster.tablets[victim].leads(), 0);
}

#[test]
fn silence_is_judged_when_the_lease_and_a_tenth_are_over() {
    let cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    let silent = cluster.leader_of(&cluster.shown("t")[0]);
    let since = Instant::now();
    cluster.tablets[silent].known.lock().mute = true;
    until("the other one leads", || cluster.tablets[1 - silent].leads() == 1);
    assert!(since.elapsed() >= Duration::from_millis(LEASE), "{:?}", since.elapsed());
    assert!(!cluster.healthy(&cluster.tablets[silent].endpoint));
    // It speaks again: the same run is online again, and learns that it was replaced.
    cluster.tablets[silent].known.lock().mute = false;
    until("it is healthy", || cluster.healthy(&cluster.tablets[silent].endpoint));
    until("it knows", || cluster.tablets[silent].leads() == 0);
}

#[test]
fn a_sole_replica_leads_in_a_new_epoch_when_its_tablet_is_back() {
    let mut cluster = Cluster::start(1, 1);
    cluster.create("t", 2, 1);
    let endpoint = cluster.tablets[0].endpoint.clone();
    cluster.tablets[0].kill();
    until("it is offline", || !cluster.healthy(&endpoint));
    assert!(
        cluster
            .shown("t")
            .iter()
            .all(|p| !p.serving && cells(&p.replicas[0]) == (true, false, true))
    );
    cluster.tablets[0].restart();
    until("it serves", || cluster.shown("t").iter().all(|p| p.serving && p.epoch == 2));
    // Back before anybody noticed: the same.
    cluster.tablets[0].kill();
    cluster.tablets[0].restart();
    until("it serves", || cluster.shown("t").iter().all(|p| p.serving && p.epoch == 3));
}

#[test]
fn the_replica_with_the_longest_log_is_preferred() {
    let mut cluster = Cluster::start(1, 3);
    let tid = cluster.create("t", 1, 3);
    let row = cluster.shown("t").remove(0);
    let leader = cluster.leader_of(&row);
    let longest =
        cluster.tablets.iter().position(|t| t.endpoint == row.replicas[2].endpoint).unwrap();
    for (n, tablet) in cluster.tablets.iter().enumerate() {
        let offset = if n == longest { 11 } else { 10 };
        tablet.known.lock().offsets.insert((tid, 0), (offset, 1));
    }
    until("all of it is reported", || {
        cluster.shown("t")[0].replicas.iter().map(|r| r.offset).sum::<u64>() == 31
    });
    cluster.tablets[leader].kill();
    until("it leads", || cluster.tablets[longest].leads() == 1);
}

#[test]
fn with_auto_failover_off_nobody_is_elected_until_it_is_on_again() {
    let mut cluster = Cluster::start(1, 3);
    cluster.create("t", 1, 3);
    let admin = cluster.client.admin();
    cluster.ask(admin.conf_set("auto_failover", "false")).unwrap();
    let leader = cluster.leader_of(&cluster.shown("t")[0]);
    let endpoint = cluster.tablets[leader].endpoint.clone();
    cluster.tablets[leader].kill();
    until("it is offline", || !cluster.healthy(&endpoint));
    cluster.tablets[leader].restart();
    until("it is back", || {
        cluster.healthy(&endpoint) && !cluster.tablets[leader].known.lock().views.is_empty()
    });
    let row = cluster.shown("t").remove(0);
    assert_eq!((row.epoch, row.serving), (1, false));
    assert!(
        row.replicas.iter().all(|r| r.alive == (r.endpoint != endpoint)),
        "the one that restarted is held: {row:?}"
    );
    cluster.ask(admin.conf_set("auto_failover", "true")).unwrap();
    until("somebody leads", || cluster.shown("t").iter().all(|p| p.epoch == 2 && p.serving));
}

#[test]
fn a_drop_is_carried_out_and_confirmed() {
    let cluster = Cluster::start(1, 2);
    let tid = cluster.create("t", 2, 2);
    let kept = cluster.create("kept", 1, 2);
    cluster.ask(cluster.client.admin().drop_table("db", "t")).unwrap();
    until("all tablets were told", || {
        cluster.tablets.iter().all(|t| t.known.lock().dropped.contains(&tid))
    });
    assert!(
        cluster.tablets.iter().all(|t| t.known.lock().views.keys().all(|(tid, _)| *tid == kept))
    );
    // Its confirmations are recorded: a stream that begins anew is not told of it any more.
    let first = pb::HeartbeatUp {
        cluster: "test".into(),
        tablet: cluster.tablets[0].id(),
        incarnation: cluster.tablets[0].run,
        ..Default::default()
    };
    until("nobody waits for it", || {
        let told = cluster.beat(first.clone());
        told.drops.is_empty() && told.views.len() == 1
    });
}

#[test]
fn a_leader_shrinks_to_itself_at_once_when_the_other_one_has_died() {
    let mut cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    let leader = cluster.leader_of(&cluster.shown("t")[0]);
    cluster.tablets[1 - leader].kill();
    let killed = Instant::now();
    let reply = cluster.shrink_to_itself(leader);
    assert_eq!(reply.verdict(), pb::Verdict::Applied, "{}", reply.msg);
    assert!(killed.elapsed() < Duration::from_millis(LEASE), "{:?}", killed.elapsed());
    assert_eq!(cluster.ops(), [("kOfflineReplicaOP".to_owned(), 0)]);
}

#[test]
fn a_leader_that_removes_one_who_is_well_is_replaced_by_it() {
    let cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    let leader = cluster.leader_of(&cluster.shown("t")[0]);
    let reply = cluster.shrink_to_itself(leader);
    assert_eq!(reply.verdict(), pb::Verdict::Rejected, "{}", reply.msg);
    until("the other one leads", || cluster.tablets[1 - leader].leads() == 1);
}

#[test]
fn what_clients_get_wrong_is_told_in_the_documented_words() {
    let cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    let admin = cluster.client.admin();
    let told = |refused: Result<_, stela_common::code::Refusal>| {
        let refusal: stela_common::code::Refusal =
            refused.map(|_: stela_proto::nameserver::WriteReply| ()).unwrap_err();
        (refusal.code, refusal.text)
    };
    let expect = |code, text: &str| (code, text.to_owned());
    assert_eq!(
        told(cluster.ask(admin.create_db("db"))),
        expect(Code::DatabaseExists, "database already exists")
    );
    assert_eq!(
        told(cluster.ask(admin.drop_db("db"))),
        expect(Code::DatabaseNotEmpty, "database not empty")
    );
    assert_eq!(
        told(cluster.ask(admin.use_db("nowhere"))),
        expect(Code::DatabaseNotFound, "database not found")
    );
    assert_eq!(
        told(cluster.ask(admin.drop_table("db", "u"))),
        expect(Code::TableNotFound, "table does not exist!")
    );
    assert_eq!(
        told(cluster.ask(admin.conf_set("auto_failover", "off"))),
        expect(Code::InvalidParameter, "invalid parameter")
    );
    assert_eq!(
        told(cluster.ask(admin.create_table(&table("t", 1, 1)))),
        expect(Code::TableExists, "table already exists")
    );
    assert_eq!(
        told(cluster.ask(admin.create_table(&table("u", 1, 3)))),
        expect(Code::TooFewTablets, "healthy endpoint num is less than replica num")
    );
    let (code, text) = told(cluster.ask(admin.create_table(&table("u", 0, 1))));
    assert!(
        code == Code::InvalidParameter && text.starts_with("check TableMeta failed! "),
        "{text}"
    );
    let stray = Table { db: "nowhere".into(), ..table("u", 1, 1) };
    assert_eq!(
        told(cluster.ask(admin.create_table(&stray))),
        expect(Code::DatabaseNotFound, "database not found")
    );
    let unknown = cluster.ask(admin.conf_get("other")).unwrap_err();
    assert_eq!(unknown.text, "cannot found key other");
    let rows = cluster.ask(admin.conf_get("")).unwrap().rows;
    assert_eq!(
        rows.iter().map(|r| (r.key.as_str(), r.value.as_str())).collect::<Vec<_>>(),
        [("auto_failover", "true")]
    );
    assert!(cluster.ask(admin.use_db("INFORMATION_SCHEMA")).is_ok());
    assert_eq!(cluster.ask(admin.show_db()).unwrap().names, ["db"]);
}

#[test]
fn a_tablet_of_another_cluster_is_told_so_and_a_stranger_has_to_register() {
    let cluster = Cluster::start(1, 1);
    let code = |status: Option<stela_proto::common::Status>| status.map(|s| s.code);
    let disk = Disk {
        endpoint: "127.0.0.1:1".into(),
        starts: Vec::new(),
        dir_uuid: "d".into(),
        boot_id: "b".into(),
    };
    let request = pb::RegisterRequest { cluster: "other".into(), ..registration(&disk, 5) };
    let registered = cluster.ask(async {
        let mut client = connect(&cluster.nameservers[0].endpoint).await.unwrap();
        client.register(request).await.unwrap().into_inner()
    });
    assert_eq!(code(registered.status), Some(Code::WrongCluster as i32));
    let beat = |name: &str| pb::HeartbeatUp {
        cluster: name.into(),
        tablet: 1,
        incarnation: 5,
        ..Default::default()
    };
    assert_eq!(code(cluster.beat(beat("other")).status), Some(Code::WrongCluster as i32));
    assert_eq!(code(cluster.beat(beat("test")).status), Some(Code::StaleEpoch as i32));
}

#[test]
fn when_the_leading_nameserver_ends_the_next_one_takes_over_and_nobody_is_suspected() {
    let mut cluster = Cluster::start(3, 3);
    cluster.create("t", 3, 3);
    for killed in [true, false] {
        let leader = cluster.ask(cluster.client.leader()).unwrap();
        let controller = cluster.tablets[0].known.lock().controller;
        let at = cluster.nameservers.iter().position(|n| n.endpoint == leader).unwrap();
        if killed {
            let config = cluster.nodes.configs[at].clone();
            cluster.nameservers.remove(at).kill();
            until("the others follow another one", || {
                cluster.tablets.iter().all(|t| t.known.lock().leader != leader)
            });
            // So that the group survives the next one, too. The port and the directory are free in a moment.
            let config = Config { lease_ms: LEASE, heartbeat_ms: 100, ..config };
            until("it starts", || std::net::TcpListener::bind(&config.endpoint).is_ok());
            cluster.nameservers.push(Nameserver::start(&config));
        } else {
            cluster.nameservers.remove(at).stop();
            until("the others follow another one", || {
                cluster.tablets.iter().all(|t| t.known.lock().leader != leader)
            });
        }
        assert!(cluster.tablets.iter().all(|t| t.known.lock().controller > controller));
        until("all is served again", || cluster.shown("t").iter().all(|p| p.serving));
        // Its grace, and a little.
        let since = Instant::now();
        let grace = Duration::from_millis(LEASE + LEASE / 5);
        until("the grace is over", || since.elapsed() > grace);
        assert!(cluster.tablets.iter().all(|t| cluster.healthy(&t.endpoint)));
        assert!(cluster.shown("t").iter().all(|p| p.epoch == 1), "nobody was replaced");
        assert_eq!(cluster.ops(), []);
    }
    assert!(cluster.ask(cluster.client.admin().create_db("later")).is_ok());
}
