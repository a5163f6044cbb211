//! What people want of the nameservers: planned switches, `confset`, tables made, changed and dropped, and the election
//! that no planner may decide (R16).

use stela_common::ids::{TableId, TabletId};
use stela_common::table::{Ack, Index, Options, Read, Sync, Table, Ttl};
use stela_meta_state::command::{Command, Elect};
use stela_meta_state::state::Partition;

use super::nameserver::{Nameserver, Origin};
use super::profile::Profile;
use super::scene::Scene;
use super::tablet::id_of;

impl Nameserver {
    fn order(&mut self, command: Command, scene: &mut Scene) {
        self.propose(vec![command], Origin::Operator, 0, scene);
    }

    /// R12: what that tablet leads is to be led by another.
    pub fn switch(&mut self, at: usize, scene: &mut Scene) {
        let led =
            self.state.partitions.iter().filter(|(_, p)| {
                p.leader == id_of(at) && p.in_sync.len() > 1 && p.switch.is_none()
            });
        let led: Vec<_> = led.map(|(key, _)| *key).collect();
        if let Some(key) = scene.random.pick(&led).copied() {
            let other =
                (at + 1 + scene.random.index(scene.profile.tablets - 1)) % scene.profile.tablets;
            let target = scene.random.chance(500).then_some(id_of(other));
            self.order(Command::Switch { key, target }, scene);
        }
    }

    /// `confset auto_failover`.
    pub fn set_auto_failover(&mut self, on: bool, scene: &mut Scene) {
        let command = Command::SetConfig {
            key: "auto_failover".into(),
            value: on.to_string(),
            by: "simulation".into(),
        };
        self.order(command, scene);
    }

    /// Another table, beside the one that is always there.
    pub fn make_table(&mut self, scene: &mut Scene) {
        if self.state.tables.len() < 3 {
            let command = self.next_table(&scene.profile, 1);
            self.order(command, scene);
        }
    }

    /// The next table, with all its replicas everywhere.
    pub fn next_table(&mut self, profile: &Profile, partitions: u32) -> Command {
        self.made += 1;
        let replicas = |pid| {
            let first = usize::try_from(pid).unwrap_or(0);
            (0..profile.tablets).map(|at| id_of((first + at) % profile.tablets)).collect()
        };
        let placement = (0..partitions).map(|pid| pid + self.made - 1).map(replicas).collect();
        Command::CreateTable { table: table(self.made, profile, partitions), placement }
    }

    /// One of the tables that come and go is dropped.
    pub fn drop_table(&mut self, scene: &mut Scene) {
        let some: Vec<_> = self.state.tables.values().filter(|t| t.tid != TableId(1)).collect();
        if let Some(table) = scene.random.pick(&some) {
            let command = Command::DropTable { db: table.db.clone(), name: table.name.clone() };
            self.order(command, scene);
        }
    }

    /// A table gets other options. Of the one that is always there all is promised.
    pub fn change_table(&mut self, scene: &mut Scene) {
        let tables: Vec<_> = self.state.tables.values().collect();
        let Some(table) = scene.random.pick(&tables) else { return };
        let (db, name) = (table.db.clone(), table.name.clone());
        let min_insync = Some(1 + u32::from(scene.random.chance(400)));
        let comes_and_goes = table.tid != TableId(1);
        let ack = if scene.random.chance(500) { Ack::Leader } else { Ack::All };
        let ack = comes_and_goes.then_some(ack);
        let read = Some(Read::from_flag(scene.random.chance(500)));
        self.order(Command::SetTable { db, name, ack, sync: None, min_insync, read }, scene);
    }

    /// Whoever looks after the cluster decides where nobody can be elected without loss (R16).
    pub(super) fn operate(&mut self, scene: &mut Scene) {
        let stuck: Vec<_> = self
            .state
            .partitions
            .iter()
            .filter(|(_, p)| self.is_stuck(p, scene))
            .map(|(key, p)| (*key, p.version))
            .collect();
        for (key, expected) in stuck {
            let Some(leader) = self.best_copy(key, scene) else { continue };
            let Some(incarnation) = self.state.tablets.get(&leader).map(|t| t.incarnation) else {
                continue;
            };
            let elect = Elect {
                key,
                expected,
                leader,
                incarnation,
                auto: false,
                surrendered: None,
                unclean: Some("what each copy has".into()),
            };
            self.order(Command::Elect(elect), scene);
        }
    }

    /// Nobody leads, nobody can be elected, everybody who has a copy is there, and no lease can be left (R16).
    fn is_stuck(&self, partition: &Partition, scene: &Scene) -> bool {
        let tablet = |id: TabletId| self.state.tablets.get(&id);
        let (leader, run) = (partition.leader, partition.leader_incarnation);
        let succeeded = tablet(leader).is_some_and(|t| t.incarnation != run);
        let silent = self.judge.seen_as(leader, run, self.local(scene)).silent;
        let lost = partition.in_sync.iter().all(|m| !self.state.is_electable(partition, m.tablet));
        let there = partition.replicas.iter().all(|r| self.state.is_healthy(r.tablet));
        lost && there && (succeeded || silent)
    }

    /// The copy with most in it, as far as is known; people err, sometimes.
    fn best_copy(
        &self,
        key: stela_common::ids::PartitionKey,
        scene: &mut Scene,
    ) -> Option<TabletId> {
        let partition = self.state.partitions.get(&key)?;
        let whole = partition.replicas.iter().filter_map(|replica| {
            let report = self.reports.get(&(key, replica.tablet))?;
            let run = self.state.tablets.get(&replica.tablet)?.incarnation;
            let known = report.incarnation == run && !report.quarantined;
            known.then_some(((report.last_epoch, report.offset), replica.tablet))
        });
        let mut whole: Vec<_> = whole.collect();
        whole.sort_unstable();
        if scene.random.chance(100) && !scene.healed {
            return scene.random.pick(&whole).map(|(_, tablet)| *tablet);
        }
        whole.last().map(|(_, tablet)| *tablet)
    }
}

fn table(number: u32, profile: &Profile, partitions: u32) -> Table {
    let index = Index {
        name: "idx0".into(),
        columns: Vec::new(),
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        tid: TableId(0),
        db: String::new(),
        name: format!("t{number}"),
        columns: Vec::new(),
        indexes: vec![index],
        partition_num: partitions,
        replica_num: u32::try_from(profile.tablets).unwrap_or(1),
        options: Options {
            ack: Ack::All,
            sync: if profile.interval { Sync::Interval(100) } else { Sync::Commit },
            min_insync: profile.min_insync,
            read: Read::Permit,
        },
        created_index: 0,
        added_columns: 0,
    }
}
