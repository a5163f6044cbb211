//! Databases, tables, settings, and requests that are repeated.

use std::collections::BTreeSet;

use stela_common::code::Code;
use stela_common::ids::{NodeId, TableId};

use super::{World, set, table, three};
use crate::command::{Batch, Command, Reply};
use crate::state::{SESSIONS, State};

fn drop_table(name: &str) -> Command {
    Command::DropTable { db: "db".into(), name: name.into() }
}

#[test]
fn a_table_is_made_whole_or_not_at_all() {
    let mut w = World::new();
    let t = ["a:1", "b:1"].map(|e| w.register(e));
    let create = |table, placement: Vec<Vec<_>>| Command::CreateTable { table, placement };
    w.refused(create(table("t", 2, 2), vec![]), Code::TooFewTablets);
    w.refused(create(table("t", 2, 2), vec![t.to_vec()]), Code::InvalidParameter);
    w.refused(create(table("t", 1, 2), vec![vec![t[0]]]), Code::InvalidParameter);
    w.refused(create(table("t", 1, 2), vec![vec![t[0], t[0]]]), Code::InvalidParameter);
    w.refused(create(table("t", 1, 2), vec![vec![t[0], 9.into()]]), Code::EndpointNotFound);
    w.refused(create(table("a/b", 1, 1), vec![vec![t[0]]]), Code::InvalidParameter);
    let stray = stela_common::table::Table { db: "nowhere".into(), ..table("t", 1, 1) };
    w.refused(create(stray, vec![vec![t[0]]]), Code::DatabaseNotFound);
    let tid = w.create("t", &[&t, &[t[1], t[0]]]);
    assert_eq!(w.state.partitions_of(tid).map(|(_, p)| p.leader).collect::<Vec<_>>(), t);
    assert_eq!(w.state.tables[&tid].created_index, w.state.applied);
    w.refused(create(table("t", 1, 1), vec![vec![t[0]]]), Code::TableExists);
    w.offline(t[1]);
    w.refused(create(table("u", 1, 2), vec![t.to_vec()]), Code::TabletNotHealthy);
}

#[test]
fn a_dropped_table_is_remembered_until_all_of_its_tablets_have_confirmed() {
    let (mut w, key, t) = three();
    w.refused(Command::ConfirmDropped { tid: key.tid, tablet: t[0] }, Code::TableExists);
    w.done(drop_table("t"));
    assert!(w.state.partitions.is_empty());
    w.refused(drop_table("t"), Code::TableNotFound);
    assert_eq!(w.state.tombstones[&key.tid].waiting, BTreeSet::from(t));
    for tablet in [t[0], t[0], t[2]] {
        w.apply(Command::ConfirmDropped { tid: key.tid, tablet });
    }
    assert_eq!(w.state.tombstones[&key.tid].waiting, BTreeSet::from([t[1]]));
    let before = State { applied: w.state.applied + 1, ..w.state.clone() };
    // The last one: the step has no tombstone any more.
    w.apply(Command::ConfirmDropped { tid: key.tid, tablet: t[1] });
    assert!(w.state.tombstones.is_empty() && !before.tombstones.is_empty());
    assert_eq!(w.create("t", &[&t]), TableId(key.tid.0 + 1), "a number is never used twice");
}

#[test]
fn databases() {
    let mut w = World::new();
    let create = |name: &str| Command::CreateDatabase { name: name.into() };
    let drop = |name: &str| Command::DropDatabase { name: name.into() };
    w.refused(create("db"), Code::DatabaseExists);
    for bad in ["", "a b", "a/b", &"x".repeat(256)] {
        w.refused(create(bad), Code::InvalidParameter);
    }
    let t = w.register("a:1");
    w.create("t", &[&[t]]);
    w.refused(drop("db"), Code::DatabaseNotEmpty);
    w.refused(drop("none"), Code::DatabaseNotFound);
    w.done(drop_table("t"));
    w.done(drop("db"));
    w.refused(drop("db"), Code::DatabaseNotFound);
}

#[test]
fn the_cluster_is_named_once_and_the_controller_epoch_grows() {
    let mut w = World::new();
    w.done(Command::Found { cluster: "c".into() });
    w.refused(Command::Found { cluster: "d".into() }, Code::WrongCluster);
    assert_eq!(w.apply(Command::TakeOver { node: NodeId(2) }), Reply::Controller(1));
    assert_eq!(w.apply(Command::TakeOver { node: NodeId(2) }), Reply::Controller(2));
    assert_eq!(w.state.controller.node, NodeId(2));
}

#[test]
fn only_auto_failover_is_set_and_only_to_true_or_false() {
    let mut w = World::new();
    assert!(w.state.auto_failover());
    w.refused(set("auto_failover", "off"), Code::InvalidParameter);
    w.refused(set("other", "true"), Code::InvalidParameter);
    w.done(set("auto_failover", "False"));
    assert!(!w.state.auto_failover());
    assert_eq!(
        (w.state.config["auto_failover"].value.as_str(), w.state.config["auto_failover"].at),
        ("false", w.now)
    );
}

#[test]
fn a_request_that_is_repeated_gets_the_first_answer_and_is_applied_once() {
    let mut w = World::new();
    let create = Command::CreateDatabase { name: "new".into() };
    assert_eq!(w.request(7, 1, create.clone()), Reply::Done);
    assert_eq!(w.request(7, 1, create.clone()), Reply::Done);
    // A refusal is an answer, too.
    let refused = w.request(7, 2, create.clone());
    assert_eq!(refused.refusal().map(|r| r.code), Some(Code::DatabaseExists));
    w.done(Command::DropDatabase { name: "new".into() });
    assert_eq!(w.request(7, 2, create.clone()), refused);
    assert_eq!(w.request(7, 3, create.clone()), Reply::Done);
    assert_eq!(w.request(7, 1, create).refusal().map(|r| r.code), Some(Code::UnknownOutcome));
}

#[test]
fn sessions_are_forgotten_in_the_order_of_their_last_use() {
    let mut state = State::default();
    let ask = |state: &mut State, client: u64, seq: u64| {
        let proposal = crate::command::Proposal {
            request: Some(crate::command::RequestId { client, seq }),
            now: 0,
            command: set("auto_failover", "true"),
        };
        let index = state.applied + 1;
        state.apply(index, &Batch { commands: vec![proposal] })
    };
    for client in 1..=SESSIONS as u64 {
        ask(&mut state, client, 1);
    }
    ask(&mut state, 1, 2);
    ask(&mut state, u64::MAX, 1);
    assert!(state.sessions.len() <= SESSIONS);
    assert!(state.sessions.contains_key(&1) && state.sessions.contains_key(&u64::MAX));
    assert!(!state.sessions.contains_key(&2));
}

#[test]
fn an_index_is_applied_once() {
    let mut w = World::new();
    let batch = |name: &str| Batch {
        commands: vec![crate::command::Proposal {
            request: None,
            now: 0,
            command: Command::CreateDatabase { name: name.into() },
        }],
    };
    let before = w.state.clone();
    let reply = w.state.apply(before.applied, &batch("x")).remove(0);
    assert_eq!(reply.refusal().map(|r| r.code), Some(Code::UnknownOutcome));
    assert_eq!(w.state, before);
    assert!(w.state.apply(before.applied + 5, &Batch::default()).is_empty());
    assert_eq!(w.state.applied, before.applied + 5);
}
