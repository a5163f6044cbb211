//! Applying as a whole: what each rule asks for, as scenarios, and random commands against the invariants.

mod catalog;
mod election;
mod in_sync;
mod interleavings;
mod longest;
mod operations;
mod planning;
mod random;
mod registration;
mod switching;

use stela_common::code::Code;
use stela_common::ids::{Incarnation, PartitionKey, TableId, TabletId, Version};
use stela_common::table::{Index, Options, Table, Ttl};
use stela_common::wire::Member;

use crate::check;
use crate::command::{Batch, ChangeInSync, Command, Elect, Proposal, Register, Reply, RequestId};
use crate::object::Changed;
use crate::state::{Partition, State};

/// A state with its history, checked at every step.
pub(crate) struct World {
    pub(crate) state: State,
    pub(crate) now: u64,
    runs: u64,
}

impl World {
    /// A cluster of that has its name and one database, `db`.
    pub(crate) fn new() -> Self {
        let mut world = Self { state: State::default(), now: 1_000_000, runs: 0 };
        world.done(Command::Found { cluster: "c".into() });
        world.done(Command::CreateDatabase { name: "db".into() });
        world
    }

    /// Applies one batch; checks the state, the step, and that what is reported as changed rebuilds the state.
    pub(crate) fn batch(&mut self, batch: &Batch) -> Vec<Reply> {
        let before = self.state.clone();
        let mut changed = Changed::new();
        let replies = self.state.apply_tracked(before.applied + 1, batch, &mut changed);
        check::state(&self.state).unwrap_or_else(|e| panic!("{e}\nafter {batch:?}"));
        check::step(&before, &self.state).unwrap_or_else(|e| panic!("{e}\nafter {batch:?}"));
        assert_eq!(
            patched(before, &self.state, &changed),
            self.state,
            "keys {changed:?} after {batch:?}"
        );
        replies
    }

    pub(crate) fn propose(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        let proposal = |command| Proposal { request: None, now: self.now, command };
        self.batch(&Batch { commands: commands.into_iter().map(proposal).collect() })
    }

    pub(crate) fn apply(&mut self, command: Command) -> Reply {
        self.propose(vec![command]).remove(0)
    }

    pub(crate) fn request(&mut self, client: u64, seq: u64, command: Command) -> Reply {
        let request = Some(RequestId { client, seq });
        self.batch(&Batch { commands: vec![Proposal { request, now: self.now, command }] })
            .remove(0)
    }

    /// Applies what must not be refused.
    pub(crate) fn done(&mut self, command: Command) -> Reply {
        let reply = self.apply(command);
        assert_eq!(reply.refusal(), None);
        reply
    }

    /// Applies what must be refused with that code, and must change nothing but the index.
    pub(crate) fn refused(&mut self, command: Command, code: Code) {
        let before = State { applied: self.state.applied + 1, ..self.state.clone() };
        let refusal = self.apply(command).refusal().expect("it was not refused");
        assert_eq!(refusal.code, code, "{refusal}");
        assert_eq!(self.state, before, "a refused command changed something");
    }

    /// A new run, known to nobody.
    pub(crate) fn run(&mut self) -> Incarnation {
        self.runs += 1;
        Incarnation(1000 + self.runs)
    }

    /// What a tablet would send to register its next run after a kill -9: same directory, same boot.
    pub(crate) fn registration(&mut self, endpoint: &str) -> Register {
        let known = self.state.tablet(endpoint).map(|(_, t)| t.incarnation);
        let own = self.run();
        Register {
            endpoint: endpoint.into(),
            starts: known.into_iter().chain([own]).collect(),
            dir_uuid: format!("dir of {endpoint}"),
            boot_id: "boot".into(),
            clean: false,
            damaged: Vec::new(),
            highest: 0.into(),
        }
    }

    pub(crate) fn register(&mut self, endpoint: &str) -> TabletId {
        let registration = self.registration(endpoint);
        self.register_as(registration)
    }

    pub(crate) fn register_as(&mut self, registration: Register) -> TabletId {
        match self.done(Command::Register(registration)) {
            Reply::Registered(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn restart(&mut self, tablet: TabletId) {
        let endpoint = self.state.tablets[&tablet].endpoint.clone();
        self.register(&endpoint);
    }

    pub(crate) fn offline(&mut self, tablet: TabletId) {
        let incarnation = self.incarnation(tablet);
        self.done(Command::Offline { tablet, incarnation, auto: true });
    }

    pub(crate) fn online(&mut self, tablet: TabletId) {
        let incarnation = self.incarnation(tablet);
        self.done(Command::Online { tablet, incarnation });
    }

    pub(crate) fn auto_failover(&mut self, value: &str) {
        self.done(set("auto_failover", value));
    }

    /// A table of one partition per row.
    pub(crate) fn create(&mut self, name: &str, rows: &[&[TabletId]]) -> TableId {
        self.create_as(table(name, rows.len(), rows[0].len()), rows)
    }

    pub(crate) fn create_as(&mut self, table: Table, rows: &[&[TabletId]]) -> TableId {
        let placement = rows.iter().map(|row| row.to_vec()).collect();
        match self.done(Command::CreateTable { table, placement }) {
            Reply::Created(tid) => tid,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn incarnation(&self, tablet: TabletId) -> Incarnation {
        self.state.tablets[&tablet].incarnation
    }

    pub(crate) fn of(&self, key: PartitionKey) -> &Partition {
        &self.state.partitions[&key]
    }

    /// Who is in sync.
    pub(crate) fn in_sync(&self, key: PartitionKey) -> Vec<TabletId> {
        self.of(key).in_sync.iter().map(|m| m.tablet).collect()
    }

    /// The kinds of ops that were recorded, with the tablet.
    pub(crate) fn ops(&self) -> Vec<(&'static str, TabletId)> {
        self.state.ops.values().map(|op| (op.kind.word(), op.tablet)).collect()
    }

    pub(crate) fn elect(&self, key: PartitionKey, leader: TabletId) -> Elect {
        Elect {
            key,
            expected: self.of(key).version,
            leader,
            incarnation: self.incarnation(leader),
            auto: true,
            surrendered: None,
            unclean: None,
        }
    }

    /// A proposal of the partition's leader: the set as it is, without `removed` and with `added`.
    pub(crate) fn change(
        &self,
        key: PartitionKey,
        removed: &[TabletId],
        added: &[TabletId],
    ) -> ChangeInSync {
        let partition = self.of(key);
        let mut in_sync = partition.in_sync.clone();
        in_sync.retain(|m| !removed.contains(&m.tablet));
        let member = |t: &TabletId| Member {
            tablet: *t,
            incarnation: self.incarnation(*t),
            untrusted: false,
        };
        in_sync.extend(added.iter().map(member));
        ChangeInSync {
            key,
            epoch: partition.epoch,
            expected: partition.version,
            in_sync,
            by: partition.leader,
            by_incarnation: partition.leader_incarnation,
        }
    }

    pub(crate) fn shrink(&mut self, key: PartitionKey, removed: &[TabletId]) -> Version {
        match self.done(Command::ChangeInSync(self.change(key, removed, &[]))) {
            Reply::Version(version) => version,
            other => panic!("{other:?}"),
        }
    }
}

/// The state that a store holds which had `before` and wrote the objects of `changed`.
fn patched(mut before: State, after: &State, changed: &Changed) -> State {
    for key in changed {
        match after.get(key) {
            Some(object) => before.put(key.clone(), object).unwrap(),
            None => before.remove(key),
        }
    }
    before
}

pub(crate) fn set(key: &str, value: &str) -> Command {
    Command::SetConfig { key: key.into(), value: value.into(), by: "somebody".into() }
}

/// A definition of a table without a schema in database `db`.
pub(crate) fn table(name: &str, partitions: usize, replicas: usize) -> Table {
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
        partition_num: partitions.try_into().unwrap(),
        replica_num: replicas.try_into().unwrap(),
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

/// Three tablets and a table of one partition on them, led by the first.
pub(crate) fn three() -> (World, PartitionKey, [TabletId; 3]) {
    let mut world = World::new();
    let t = ["a:1", "b:1", "c:1"].map(|e| world.register(e));
    let tid = world.create("t", &[&t]);
    (world, PartitionKey { tid, pid: 0.into() }, t)
}
