//! Orders, operations and jobs, with tablets that do what they are told: from the order to the end of the last operation.

use stela_common::code::Code;
use stela_common::ids::{JobId, Offset, OpId, PartitionKey, TabletId};

use super::planning::all_alive;
use super::{World, three};
use crate::command::{Command, Reply};
use crate::job::JobKind;
use crate::op::{OpKind, OpStatus};
use crate::order::{Alter, Candidate, Order, Row, TableRef, Which};
use crate::plan::{Observed, Report, drains, plan};

/// The table of [`three`].
pub(super) fn t() -> TableRef {
    TableRef::Name { db: "db".into(), name: "t".into() }
}

/// What tablets that work tell: who leads serves, or has surrendered if it was asked to, and what was taken away is gone.
fn reports(w: &World) -> Observed {
    let mut o = all_alive(w);
    for (id, seen) in &mut o.tablets {
        seen.alive = w.state.is_healthy(*id);
    }
    let asked: Vec<PartitionKey> = drains(&w.state, &o).iter().map(|d| d.key).collect();
    for (key, p) in &w.state.partitions {
        for r in &p.replicas {
            let leads = r.tablet == p.leader && p.leader_incarnation == w.incarnation(r.tablet);
            let surrenders = leads && asked.contains(key);
            let report = Report {
                incarnation: w.incarnation(r.tablet),
                epoch: p.epoch,
                leading: leads,
                serving: leads && !surrenders,
                surrendered: if surrenders { p.epoch } else { 0.into() },
                offset: Offset(1),
                start: leads.then_some(Offset(1)),
                ..Report::default()
            };
            o.replicas.insert((*key, r.tablet), report);
        }
    }
    for (key, gone) in &w.state.removals {
        let gone = gone.keys().filter(|tablet| w.state.is_healthy(**tablet));
        o.removed.extend(gone.map(|tablet| (*key, *tablet)));
    }
    o
}

/// Leaders take in whoever may come (R8).
fn take_in(w: &mut World) -> bool {
    let wanted: Vec<(PartitionKey, TabletId)> = w
        .state
        .partitions
        .iter()
        .filter(|(_, p)| w.state.leader_runs(p))
        .flat_map(|(key, p)| p.replicas.iter().map(|r| (*key, *r)))
        .filter(|(key, r)| {
            w.of(*key).member(r.tablet).is_none() && !r.held && w.state.is_healthy(r.tablet)
        })
        .map(|(key, r)| (key, r.tablet))
        .collect();
    for (key, tablet) in &wanted {
        let change = w.change(*key, &[], &[*tablet]);
        w.done(Command::ChangeInSync(change));
    }
    !wanted.is_empty()
}

/// One pass of the planner and one of the tablets; tells whether anything happened.
fn pass(w: &mut World) -> bool {
    let observed = reports(w);
    pass_as(w, &observed)
}

fn pass_as(w: &mut World, observed: &Observed) -> bool {
    let commands = plan(&w.state, observed);
    let planned = !commands.is_empty();
    for (command, reply) in commands.iter().zip(w.propose(commands.clone())) {
        assert_eq!(reply.refusal(), None, "{command:?}");
    }
    take_in(w) | planned
}

/// Until nothing happens any more, and whatever still goes on has taken too long.
pub(super) fn settle_in_time(w: &mut World) {
    for _ in 0..500 {
        settle(w);
        let mut observed = reports(w);
        let going = w.state.ops.iter().filter(|(_, op)| op.status == OpStatus::Doing);
        observed.overdue = going.map(|(id, _)| *id).collect();
        if observed.overdue.is_empty() || !pass_as(w, &observed) {
            return;
        }
    }
    panic!("it does not come to rest");
}

/// Until nothing happens any more.
pub(super) fn settle(w: &mut World) {
    for _ in 0..500 {
        if !pass(w) {
            return;
        }
    }
    panic!("it does not come to rest: {:?}", plan(&w.state, &reports(w)));
}

fn order(order: Order) -> Command {
    Command::Order(order)
}

fn ended(w: &World) -> Vec<(&'static str, &'static str)> {
    w.state.ops.values().map(|op| (op.kind.word(), op.status.word())).collect()
}

fn holders(w: &World, key: PartitionKey) -> Vec<TabletId> {
    w.of(key).replicas.iter().map(|r| r.tablet).collect()
}

fn add(endpoint: &str) -> Command {
    order(Order::AddReplica { table: t(), pids: vec![0], endpoint: endpoint.into() })
}

fn del(endpoint: &str) -> Command {
    order(Order::DelReplica { table: t(), pids: vec![0], endpoint: endpoint.into() })
}

fn migrate(from: &str, to: &str) -> Command {
    order(Order::Migrate { from: from.into(), table: t(), pids: vec![0], to: to.into() })
}

fn change_leader(candidate: Candidate) -> Command {
    order(Order::ChangeLeader { table: t(), pid: 0, candidate, always: false })
}

fn recover(endpoint: &str) -> Command {
    order(Order::RecoverTable { table: t(), pid: 0, endpoint: endpoint.into() })
}

fn alive(pid: Option<u32>, endpoint: &str, alive: bool) -> Command {
    order(Order::SetAlive { table: t(), pid, endpoint: endpoint.into(), alive })
}

#[test]
fn a_replica_is_added_when_it_is_in_sync_and_taken_away_when_nothing_is_left() {
    let (mut w, key, [a, b, c]) = three();
    let d = w.register("d:1");
    w.done(add("d:1"));
    assert_eq!(ended(&w), [("kAddReplicaOP", "kInited")], "copies are for the planner to begin");
    w.refused(add("d:1"), Code::PidExists);
    pass(&mut w);
    assert_eq!((holders(&w, key), w.in_sync(key).contains(&d)), (vec![a, b, c, d], true));
    settle(&mut w);
    w.refused(add("d:1"), Code::PidExists);
    w.done(del("d:1"));
    assert_eq!((holders(&w, key), w.in_sync(key)), (vec![a, b, c], vec![a, b, c]));
    assert_eq!(w.state.ops.values().next_back().unwrap().task, "kDropTable");
    assert!(w.state.removals[&key].contains_key(&d));
    // While it is being dropped there, no other one is made.
    w.done(add("d:1"));
    assert!(plan(&w.state, &all_alive(&w)).is_empty());
    settle(&mut w);
    let done = [("kAddReplicaOP", "kDone"), ("kDelReplicaOP", "kDone"), ("kAddReplicaOP", "kDone")];
    assert_eq!((ended(&w), holders(&w, key)), (done.to_vec(), vec![a, b, c, d]));
}

#[test]
fn what_cannot_be_added_or_taken_away() {
    let (mut w, _, [_, b, _]) = three();
    w.register("d:1");
    w.refused(add("e:1"), Code::TabletNotHealthy);
    let nowhere = Order::AddReplica { table: t(), pids: vec![0, 7], endpoint: "d:1".into() };
    w.refused(order(nowhere), Code::InvalidParameter);
    w.refused(del("a:1"), Code::TableIsLeader);
    w.refused(del("d:1"), Code::PidNotFound);
    w.offline(b);
    w.refused(del("b:1"), Code::TabletNotHealthy);
    let other = TableRef::Name { db: "db".into(), name: "none".into() };
    let unknown = Order::DelReplica { table: other, pids: vec![0], endpoint: "c:1".into() };
    w.refused(order(unknown), Code::TableNotFound);
}

#[test]
fn a_copy_whose_tablet_dies_is_taken_back() {
    let (mut w, key, [a, b, c]) = three();
    let d = w.register("d:1");
    w.done(add("d:1"));
    let commands = plan(&w.state, &all_alive(&w));
    w.propose(commands);
    assert_eq!(holders(&w, key), [a, b, c, d]);
    w.offline(d);
    pass(&mut w);
    assert_eq!(ended(&w), [("kAddReplicaOP", "kFailed")]);
    assert_eq!(w.state.ops.values().next().unwrap().task, "kSendSnapshot", "the task that failed");
    assert_eq!(holders(&w, key), [a, b, c]);
    assert!(w.state.removals.contains_key(&key), "it is told when it comes back");
    w.online(d);
    settle(&mut w);
    assert!(w.state.removals.is_empty());
}

#[test]
fn a_replica_moves_and_a_failover_wins() {
    let (mut w, key, [a, b, c]) = three();
    let d = w.register("d:1");
    w.refused(migrate("b:1", "d:1"), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.refused(migrate("x:1", "d:1"), Code::SourceNotHealthy);
    w.refused(migrate("b:1", "x:1"), Code::DestinationNotHealthy);
    w.refused(migrate("a:1", "d:1"), Code::MigrateFailed);
    w.refused(migrate("b:1", "c:1"), Code::MigrateFailed);
    w.done(migrate("b:1", "d:1"));
    settle(&mut w);
    assert_eq!((holders(&w, key), w.in_sync(key)), (vec![a, c, d], vec![a, c, d]));
    assert_eq!(ended(&w), [("kMigrateOP", "kDone")]);
    // The leader dies while another one is moved, and the one that moves is elected.
    w.done(migrate("c:1", "b:1"));
    let commands = plan(&w.state, &all_alive(&w));
    w.propose(commands);
    assert_eq!(holders(&w, key), [a, c, d, b]);
    w.offline(a);
    w.auto_failover("true");
    let elect = w.elect(key, c);
    w.done(Command::Elect(elect));
    settle(&mut w);
    let op = w.state.ops.values().find(|op| op.tablet == c && op.kind == OpKind::Migrate).unwrap();
    assert_eq!(
        (op.status, op.why.as_str()),
        (OpStatus::Failed, "src_endpoint has become the leader")
    );
    assert_eq!(holders(&w, key), [a, c, d]);
}

#[test]
fn operations_of_a_partition_wait_for_each_other_and_for_no_others() {
    let mut w = World::new();
    let [a, b, c, _] = ["a:1", "b:1", "c:1", "d:1"].map(|e| w.register(e));
    let tid = w.create("t", &[&[a, b], &[b, c]]);
    w.done(order(Order::AddReplica { table: t(), pids: vec![0, 1], endpoint: "d:1".into() }));
    w.done(order(Order::MakeSnapshot { table: t(), pid: 0 }));
    w.done(order(Order::MakeSnapshot { table: t(), pid: 1 }));
    let commands = plan(&w.state, &all_alive(&w));
    assert_eq!(commands, [Command::StartOp { op: OpId(1) }, Command::StartOp { op: OpId(2) }]);
    w.propose(commands);
    assert_eq!(w.state.ops[&OpId(3)].status, OpStatus::Inited);
    let [first, second] = [0, 1].map(|pid| PartitionKey::new(tid.0, pid));
    let change = w.change(second, &[], &[TabletId(4)]);
    w.done(Command::ChangeInSync(change));
    for _ in 0..2 {
        let commands = plan(&w.state, &all_alive(&w));
        w.propose(commands);
    }
    assert_eq!(w.state.ops[&OpId(4)].status, OpStatus::Doing, "its partition is free");
    assert_eq!(w.of(first).queue, [OpId(1), OpId(3)]);
}

#[test]
fn only_some_copies_are_made_to_a_tablet_at_a_time() {
    let mut w = World::new();
    let [a, _] = ["a:1", "b:1"].map(|e| w.register(e));
    let row: &[TabletId] = &[a];
    w.create("t", &[row; 6]);
    w.done(order(Order::AddReplica { table: t(), pids: (0..6).collect(), endpoint: "b:1".into() }));
    let commands = plan(&w.state, &all_alive(&w));
    assert_eq!(commands.len(), 2, "{commands:?}");
    settle(&mut w);
    assert!(w.state.ops.values().all(|op| op.status == OpStatus::Done));
}

#[test]
fn an_endpoint_is_taken_off_and_brought_back() {
    let (mut w, key, [a, b, c]) = three();
    let off = |concurrency| Order::OfflineEndpoint { endpoint: "a:1".into(), concurrency };
    let back = |need_restore| Order::RecoverEndpoint {
        endpoint: "a:1".into(),
        need_restore,
        concurrency: 0,
    };
    w.refused(order(off(0)), Code::AutoFailoverEnabled);
    w.refused(order(back(false)), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.refused(order(off(9)), Code::InvalidParameter);
    w.refused(
        order(Order::OfflineEndpoint { endpoint: "x:1".into(), concurrency: 0 }),
        Code::EndpointNotFound,
    );
    w.offline(a);
    w.refused(order(back(false)), Code::TabletNotHealthy);
    w.done(order(off(2)));
    settle(&mut w);
    let p = w.of(key);
    assert_ne!(p.leader, a);
    assert_eq!((w.in_sync(key), p.replica(a).unwrap().was_leader), (vec![b, c], true));
    assert!(p.is_held(a) && ended(&w).contains(&("kChangeLeaderOP", "kDone")));
    // A new run of it is held, too, and nothing happens by itself.
    w.restart(a);
    settle(&mut w);
    assert_eq!(w.in_sync(key), [b, c]);
    w.done(order(back(true)));
    let kinds =
        |w: &World| -> Vec<&str> { w.state.ops.values().map(|op| op.kind.word()).collect() };
    assert!(kinds(&w).ends_with(&["kRecoverTableOP", "kReAddReplicaOP", "kChangeLeaderOP"]));
    settle(&mut w);
    assert_eq!((w.of(key).leader, w.in_sync(key)), (a, vec![b, c, a]), "it leads again");
    assert!(w.state.ops.values().all(|op| op.status == OpStatus::Done), "{:?}", ended(&w));
}

#[test]
fn a_live_leader_that_is_taken_off_hands_over_and_leaves_the_set() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    w.done(order(Order::OfflineEndpoint { endpoint: "a:1".into(), concurrency: 0 }));
    assert_eq!(w.of(key).leader, a, "it drains first");
    settle(&mut w);
    assert_ne!(w.of(key).leader, a);
    assert_eq!(w.in_sync(key), [b, c]);
    assert_eq!(w.of(key).history.last().unwrap().surrendered, Some(a));
    w.done(order(Order::OfflineEndpoint { endpoint: "c:1".into(), concurrency: 0 }));
    settle(&mut w);
    assert!(w.of(key).is_held(c) && !w.state.is_alive(w.of(key), c));
}

/// The last section of the operators' document, with every replica down.
#[test]
fn a_partition_of_which_all_replicas_were_down_comes_back_by_hand() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    for tablet in [a, b, c] {
        w.offline(tablet);
    }
    for tablet in [a, b, c] {
        w.restart(tablet);
    }
    settle(&mut w);
    assert!(!w.state.leader_runs(w.of(key)), "with the switch off nobody is elected");
    for endpoint in ["a:1", "b:1", "c:1"] {
        w.done(alive(None, endpoint, false));
    }
    assert_eq!(w.in_sync(key).len(), 3, "H19: nobody leaves the set for that");
    w.done(alive(Some(0), "b:1", true));
    assert_eq!((w.of(key).leader, w.state.leader_runs(w.of(key))), (b, true));
    for endpoint in ["a:1", "c:1"] {
        w.done(recover(endpoint));
        settle(&mut w);
    }
    assert!([a, b, c].iter().all(|t| w.state.is_alive(w.of(key), *t)));
}

#[test]
fn r22_alive_is_for_those_that_can_lead_without_loss() {
    let (mut w, key, [a, b, c]) = three();
    w.refused(alive(None, "a:1", true), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.refused(alive(None, "x:1", true), Code::EndpointNotFound);
    w.refused(alive(Some(9), "a:1", true), Code::NoPidUpdated);
    w.done(alive(None, "c:1", false));
    assert_eq!(w.in_sync(key), [a, b], "it leaves the set of a leader that serves");
    w.offline(a);
    w.offline(b);
    w.refused(alive(None, "c:1", true), Code::InvalidParameter);
    assert!(w.of(key).is_held(c), "a refused order changes nothing");
    w.refused(alive(None, "b:1", true), Code::InvalidParameter);
    w.online(b);
    w.done(alive(None, "b:1", true));
    assert_eq!(w.of(key).leader, b);
    w.done(alive(None, "c:1", true));
    assert_eq!(w.in_sync(key), [b], "it never adds to the set");
}

#[test]
fn a_leader_is_changed_and_changed_again() {
    let (mut w, key, [a, b, c]) = three();
    w.refused(change_leader(Candidate::Auto), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.refused(change_leader(Candidate::IfNobodyLeads), Code::LeaderIsAlive);
    w.refused(change_leader(Candidate::Endpoint("x:1".into())), Code::CreateOpFailed);
    w.refused(change_leader(Candidate::Endpoint("a:1".into())), Code::CreateOpFailed);
    let nowhere =
        Order::ChangeLeader { table: t(), pid: 9, candidate: Candidate::Auto, always: false };
    w.refused(order(nowhere), Code::PidNotFound);
    // In OpenMLDB the third in a row is refused: who led before is lost to it.
    for leader in [b, c, a, b] {
        let endpoint = w.state.endpoint(leader);
        w.done(change_leader(Candidate::Endpoint(endpoint)));
        settle(&mut w);
        assert_eq!((w.of(key).leader, w.in_sync(key).len()), (leader, 3));
    }
    w.done(change_leader(Candidate::Auto));
    settle(&mut w);
    assert_ne!(w.of(key).leader, b);
    let leader = w.of(key).leader;
    w.offline(leader);
    w.done(change_leader(Candidate::IfNobodyLeads));
    settle(&mut w);
    assert!(w.state.leader_runs(w.of(key)));
    for tablet in [a, b, c] {
        if w.state.is_healthy(tablet) {
            w.offline(tablet);
        }
    }
    w.refused(change_leader(Candidate::Auto), Code::NoAliveFollower);
}

#[test]
fn what_is_recovered_twice_is_recovered_at_once() {
    let (mut w, _, [_, _, c]) = three();
    w.refused(recover("c:1"), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.done(recover("c:1"));
    assert_eq!(ended(&w), [("kRecoverTableOP", "kDone")], "a finished op, for tools that wait");
    w.refused(recover("x:1"), Code::EndpointNotFound);
    w.offline(c);
    w.refused(recover("c:1"), Code::TabletNotHealthy);
    w.register("d:1");
    w.refused(recover("d:1"), Code::PidNotFound);
}

#[test]
fn a_single_replica_is_held_and_leads_again() {
    let mut w = World::new();
    let a = w.register("a:1");
    let tid = w.create("t", &[&[a]]);
    let key = PartitionKey { tid, pid: 0.into() };
    w.auto_failover("false");
    w.done(order(Order::OfflineEndpoint { endpoint: "a:1".into(), concurrency: 0 }));
    assert!(!w.state.is_alive(w.of(key), a));
    w.restart(a);
    let back =
        Order::RecoverEndpoint { endpoint: "a:1".into(), need_restore: false, concurrency: 0 };
    w.done(order(back));
    settle(&mut w);
    assert!(w.state.is_alive(w.of(key), a) && w.state.leader_runs(w.of(key)));
    let kinds = ["kUpdatePartitionStatusOP", "kRecoverTableOP", "kReLoadTableOP"];
    assert_eq!(ended(&w), kinds.map(|kind| (kind, "kDone")));
}

#[test]
fn operations_are_cancelled_and_forgotten() {
    let (mut w, key, _) = three();
    w.register("d:1");
    w.done(add("d:1"));
    w.refused(order(Order::CancelOp(OpId(1))), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    let commands = plan(&w.state, &all_alive(&w));
    w.propose(commands);
    assert_eq!(w.of(key).replicas.len(), 4);
    w.done(order(Order::CancelOp(OpId(1))));
    assert_eq!((w.of(key).replicas.len(), ended(&w)), (3, vec![("kAddReplicaOP", "kCanceled")]));
    w.refused(order(Order::CancelOp(OpId(1))), Code::OpNotOpen);
    w.refused(order(Order::CancelOp(OpId(7))), Code::OpNotOpen);
    w.refused(order(Order::DeleteOps(Which::Id(OpId(7)))), Code::OpNotFound);
    let elsewhere = Which::Ended { status: OpStatus::Canceled, db: "other".into() };
    w.done(order(Order::DeleteOps(elsewhere)));
    assert_eq!(w.state.ops.len(), 1);
    let all = Which::Ended { status: OpStatus::Canceled, db: String::new() };
    w.done(order(Order::DeleteOps(all)));
    assert!(w.state.ops.is_empty());
    w.done(order(Order::MakeSnapshot { table: t(), pid: 0 }));
    w.done(order(Order::DeleteOps(Which::Id(OpId(2)))));
    assert!(w.state.ops.is_empty() && w.of(key).queue.is_empty());
}

#[test]
fn a_dropped_table_takes_its_operations_along() {
    let (mut w, key, _) = three();
    let d = w.register("d:1");
    w.done(add("d:1"));
    settle(&mut w);
    w.done(del("d:1"));
    w.done(add("d:1"));
    w.done(Command::DropTable { db: "db".into(), name: "t".into() });
    assert_eq!(ended(&w)[1..], [("kDelReplicaOP", "kCanceled"), ("kAddReplicaOP", "kCanceled")]);
    assert!(w.state.tombstones[&key.tid].waiting.contains(&d), "what is left there goes, too");
    assert!(w.state.removals.is_empty());
}

#[test]
fn a_partition_is_set_as_a_file_says() {
    let (mut w, key, [a, b, c]) = three();
    let set = |rows: &[(&str, bool, bool)]| {
        let row = |(endpoint, leader, alive): &(&str, bool, bool)| Row {
            endpoint: (*endpoint).into(),
            leader: *leader,
            alive: *alive,
        };
        order(Order::SetPartition { table: t(), pid: 0, rows: rows.iter().map(row).collect() })
    };
    let rows = [("a:1", false, false), ("b:1", true, true), ("c:1", false, true)];
    w.refused(set(&rows), Code::AutoFailoverEnabled);
    w.auto_failover("false");
    w.refused(set(&rows[..2]), Code::InvalidParameter);
    w.refused(set(&[rows[0], rows[1], ("x:1", false, true)]), Code::EndpointNotFound);
    w.done(set(&rows));
    settle(&mut w);
    assert_eq!(w.of(key).leader, b);
    assert!(w.of(key).is_held(a) && w.state.is_alive(w.of(key), c));
}

#[test]
fn a_definition_changes() {
    use stela_common::table::{Column, ColumnType, Index, Ttl, TtlKind};
    let mut w = World::new();
    let a = w.register("a:1");
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: false };
    let index = |name: &str| Index {
        name: name.into(),
        columns: vec![name.into()],
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    let table = stela_common::table::Table {
        columns: vec![column("card", ColumnType::Varchar), column("x", ColumnType::Double)],
        indexes: vec![index("card")],
        ..super::table("t", 1, 1)
    };
    let tid = w.create_as(table, &[&[a]]);
    let alter = |change| order(Order::Alter { table: t(), change });
    let ttl = Ttl { kind: TtlKind::Latest, abs: 0, lat: 3 };
    w.done(alter(Alter::Ttl { ttl, index: String::new() }));
    assert_eq!(w.state.tables[&tid].indexes[0].ttl, ttl);
    w.refused(alter(Alter::Ttl { ttl, index: "none".into() }), Code::IndexNotFound);
    let long = Ttl { kind: TtlKind::Latest, abs: 0, lat: 2_000 };
    w.refused(alter(Alter::Ttl { ttl: long, index: String::new() }), Code::InvalidParameter);
    w.refused(alter(Alter::AddColumn(column("x", ColumnType::Int))), Code::ColumnExists);
    w.done(alter(Alter::AddColumn(column("mcc", ColumnType::Varchar))));
    assert_eq!(w.state.tables[&tid].added_columns, 1);
    w.refused(alter(Alter::AddIndex(index("x"))), Code::InvalidParameter);
    w.refused(alter(Alter::AddIndex(index("card"))), Code::IndexExists);
    w.done(alter(Alter::AddIndex(index("mcc"))));
    w.refused(alter(Alter::AddIndex(index("mcc"))), Code::IndexExists);
    w.refused(alter(Alter::AddIndex(Index { name: "two".into(), ..index("mcc") })), Code::OpExists);
    w.refused(alter(Alter::DeleteIndex("card".into())), Code::IndexIsNeeded);
    w.done(alter(Alter::DeleteIndex("mcc".into())));
    w.refused(alter(Alter::DeleteIndex("mcc".into())), Code::IndexNotFound);
    // A place is not given to another index: who has not heard of the change would take the rows of one for the other's.
    w.done(alter(Alter::AddIndex(index("mcc"))));
    let deleted =
        |w: &World| w.state.tables[&tid].indexes.iter().map(|i| i.deleted).collect::<Vec<_>>();
    assert_eq!(deleted(&w), [false, true, false]);
    // Where all indexes have a ts column, nobody knows the times of requests any more.
    let at = |name: &str| Index { ts: Some("at".into()), ..index(name) };
    let timed = stela_common::table::Table {
        columns: vec![column("card", ColumnType::Varchar), column("at", ColumnType::BigInt)],
        indexes: vec![at("card")],
        ..super::table("timed", 1, 1)
    };
    let tid = w.create_as(timed, &[&[a]]);
    let timed = TableRef::Name { db: "db".into(), name: "timed".into() };
    let other = Index { name: "other".into(), ..index("card") };
    w.done(order(Order::Alter { table: timed, change: Alter::AddIndex(other) }));
    assert_eq!(w.state.tables[&tid].indexes[1].ts.as_deref(), Some("at"));
}

/// An index that was added is there when every partition has brought its rows into it, and not at all if one does not.
#[test]
fn an_index_is_filled_by_all_partitions_or_taken_back() {
    use stela_common::table::{Added, Column, ColumnType, Index, Ttl};
    let mut w = World::new();
    let a = w.register("a:1");
    let index = |name: &str| Index {
        name: name.into(),
        columns: vec![name.into()],
        ts: None,
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    let column =
        |name: &str| Column { name: name.into(), kind: ColumnType::Varchar, not_null: false };
    let table = stela_common::table::Table {
        columns: vec![column("card"), column("mcc")],
        indexes: vec![index("card")],
        ..super::table("t", 2, 1)
    };
    let tid = w.create_as(table, &[&[a], &[a]]);
    let add = || order(Order::Alter { table: t(), change: Alter::AddIndex(index("mcc")) });
    let ops = |w: &World| -> Vec<OpId> {
        let open = w.state.ops.iter().filter(|(_, op)| !op.status.is_final());
        open.map(|(id, _)| *id).collect()
    };
    let mcc = |w: &World| {
        let index = w.state.tables[&tid].indexes.last().unwrap();
        (index.added, index.deleted)
    };
    let end = |op, status| Command::EndOp { op, status, why: String::new() };

    w.done(add());
    let open = ops(&w);
    assert_eq!(open.len(), 2);
    assert!(open.iter().all(|op| w.state.ops[op].kind == OpKind::AddIndex));
    w.done(end(open[0], OpStatus::Done));
    assert_eq!(mcc(&w), (Added { version: 1, filling: true }, false));
    w.done(end(open[1], OpStatus::Done));
    assert_eq!(mcc(&w), (Added { version: 1, filling: false }, false));

    // Again, after one that was deleted: whoever knows that one does not know this one.
    w.done(order(Order::Alter { table: t(), change: Alter::DeleteIndex("mcc".into()) }));
    w.done(add());
    assert_eq!(mcc(&w), (Added { version: 2, filling: true }, false));
    let open = ops(&w);
    w.done(end(open[0], OpStatus::Canceled));
    assert_eq!(mcc(&w), (Added { version: 2, filling: false }, true));
    // What is left of it ends by itself.
    settle(&mut w);
    assert_eq!(ops(&w), []);
    assert_eq!(w.state.ops[&open[1]].status, OpStatus::Failed);
    assert!(mcc(&w).1);
}

fn job(w: &mut World, kind: JobKind, endpoints: &[&str]) -> JobId {
    let endpoints = endpoints.iter().map(|e| (*e).to_owned()).collect();
    let start = Order::StartJob { kind, endpoints, allow_single_replica: false };
    match w.done(order(start)) {
        Reply::Job(id) => id,
        other => panic!("{other:?}"),
    }
}

fn spread(w: &World) -> (Vec<usize>, Vec<usize>) {
    let count = |of: &dyn Fn(&crate::state::Partition, TabletId) -> bool| {
        let on = |id| w.state.partitions.values().filter(|p| of(p, id)).count();
        w.state.tablets.keys().map(|id| on(*id)).collect()
    };
    (count(&|p, id| p.replica(id).is_some()), count(&|p, id| p.leader == id))
}

#[test]
fn a_new_tablet_gets_its_share_and_is_emptied_again() {
    let mut w = World::new();
    let [a, b, c] = ["a:1", "b:1", "c:1"].map(|e| w.register(e));
    w.create("t", &[&[a, b, c], &[b, c, a], &[c, a, b], &[a, b, c], &[b, c, a], &[c, a, b]]);
    w.create("single", &[&[a], &[b]]);
    w.register("d:1");
    let id = job(&mut w, JobKind::ScaleOut, &[]);
    w.refused(
        order(Order::StartJob {
            kind: JobKind::ScaleOut,
            endpoints: vec![],
            allow_single_replica: false,
        }),
        Code::OpExists,
    );
    settle(&mut w);
    assert_eq!(w.state.jobs[&id].status, OpStatus::Done, "{:?}", w.state.jobs);
    let (replicas, leaders) = spread(&w);
    assert_eq!(replicas.iter().sum::<usize>(), 20);
    for count in [replicas, leaders] {
        assert!(count.iter().max().unwrap() - count.iter().min().unwrap() <= 1, "{count:?}");
    }
    let id = job(&mut w, JobKind::ScaleIn, &["a:1"]);
    settle(&mut w);
    assert_eq!(w.state.jobs[&id].status, OpStatus::Done, "{:?}", w.state.jobs);
    assert_eq!(spread(&w).0[0], 0);
    assert!(w.state.removals.is_empty() && w.state.tablets[&a].leaving);
    let placed = crate::placement::place(&w.state, 4, 3).unwrap();
    assert!(placed.iter().flatten().all(|t| *t != a), "nothing new comes to where all left");
    w.refused(
        order(Order::StartJob {
            kind: JobKind::ScaleIn,
            endpoints: vec!["b:1".into(), "c:1".into()],
            allow_single_replica: false,
        }),
        Code::InvalidParameter,
    );
}

#[test]
fn leaders_leave_a_tablet_and_come_back() {
    let mut w = World::new();
    let [a, b, c] = ["a:1", "b:1", "c:1"].map(|e| w.register(e));
    w.create("t", &[&[a, b, c], &[b, c, a], &[a, c, b]]);
    w.create("single", &[&[a], &[b]]);
    w.refused(
        order(Order::StartJob {
            kind: JobKind::PostUpgrade,
            endpoints: vec!["a:1".into()],
            allow_single_replica: false,
        }),
        Code::InvalidParameter,
    );
    let before = spread(&w);
    let id = job(&mut w, JobKind::PreUpgrade, &["a:1"]);
    settle(&mut w);
    assert_eq!((w.state.jobs[&id].status, spread(&w).1[0]), (OpStatus::Done, 0));
    assert_eq!(w.state.jobs[&id].moved.len(), 3);
    w.restart(a);
    settle(&mut w);
    let id = job(&mut w, JobKind::PostUpgrade, &["a:1"]);
    settle(&mut w);
    assert_eq!((w.state.jobs[&id].status, spread(&w)), (OpStatus::Done, before));
}

#[test]
fn all_is_recovered_whatever_the_switch_says() {
    let (mut w, key, [a, b, c]) = three();
    w.auto_failover("false");
    for tablet in [a, b, c] {
        w.offline(tablet);
    }
    for tablet in [a, b] {
        w.restart(tablet);
    }
    settle(&mut w);
    assert!(!w.state.leader_runs(w.of(key)));
    let id = job(&mut w, JobKind::RecoverData, &[]);
    settle(&mut w);
    assert!(w.state.leader_runs(w.of(key)) && w.in_sync(key).len() == 2);
    assert_eq!(w.state.jobs[&id].status, OpStatus::Doing, "one is not there yet");
    w.restart(c);
    settle(&mut w);
    assert_eq!((w.state.jobs[&id].status, w.in_sync(key).len()), (OpStatus::Done, 3));
    assert!(!w.state.auto_failover(), "the switch is as it was");
    // One that comes to nothing ends with the reason.
    w.offline(c);
    let id = job(&mut w, JobKind::RecoverData, &[]);
    settle(&mut w);
    let mut o = reports(&w);
    o.standing.insert(id);
    let commands = plan(&w.state, &o);
    w.propose(commands);
    let job = &w.state.jobs[&id];
    assert_eq!(job.status, OpStatus::Failed);
    assert!(job.why.starts_with("1 replicas are not in sync"), "{}", job.why);
}

#[test]
fn a_job_is_cancelled() {
    let mut w = World::new();
    let [a, _] = ["a:1", "b:1"].map(|e| w.register(e));
    w.create("t", &[&[a], &[a], &[a], &[a]]);
    let id = job(&mut w, JobKind::ScaleOut, &[]);
    let commands = plan(&w.state, &all_alive(&w));
    w.propose(commands);
    w.done(order(Order::CancelJob(id)));
    w.refused(order(Order::CancelJob(id)), Code::OpNotOpen);
    settle(&mut w);
    assert!(w.state.partitions.values().all(|p| p.queue.is_empty()));
    assert_eq!(w.state.jobs[&id].status, OpStatus::Canceled);
}
