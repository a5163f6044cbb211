//! When nobody can lead at once: whom a partition waits for, who is elected in the end, and whom other nameservers reach.

use std::collections::BTreeSet;

use stela_common::ids::{Incarnation, TabletId};
use stela_common::table::{Options, Sync, Table};
use stela_meta::RaftConfig;
use stela_meta_state::command::{Command, Register, Reply};

use crate::control::{Cluster, table};
use crate::nodes::{Nodes, until};
use crate::tablet::FakeTablet;

/// R19: the one that hears nobody asks the others.
#[test]
fn r19_another_nameserver_says_whether_it_reaches_a_tablet() {
    let nodes = Nodes::ready(3, RaftConfig::default());
    let mut tablet =
        FakeTablet::start(&nodes.configs.iter().map(|c| c.endpoint.clone()).collect::<Vec<_>>());
    let leader = nodes.node(nodes.leader());
    let register = |endpoint: &str, run| {
        let register = Register {
            endpoint: endpoint.into(),
            starts: vec![Incarnation(run)],
            dir_uuid: String::new(),
            boot_id: String::new(),
            clean: false,
            damaged: Vec::new(),
            highest: 0.into(),
        };
        match leader.propose(Command::Register(register)).unwrap() {
            (Reply::Registered(id), index) => (id, index),
            (other, _) => panic!("{other:?}"),
        }
    };
    let (there, _) = register(&tablet.endpoint, tablet.run);
    let (nowhere, index) = register("127.0.0.1:1", 7);
    until("all nameservers know them", || {
        (0..3).all(|n| nodes.node(n).group.store().read(|state| state.applied) >= index)
    });
    let reached = |tablets: &[TabletId]| {
        let tablets: BTreeSet<TabletId> = tablets.iter().copied().collect();
        leader.run(leader.group.reached_by_another(&tablets))
    };
    assert_eq!(reached(&[there, nowhere]), Some(true));
    assert_eq!(reached(&[nowhere, TabletId(99)]), Some(false));
    tablet.kill();
    until("its port is closed", || reached(&[there]) == Some(false));
}

/// R19: nobody is there to be asked.
#[test]
fn r19_a_nameserver_alone_is_told_nothing() {
    let nodes = Nodes::ready(1, RaftConfig::default());
    let alone = nodes.node(0);
    assert_eq!(alone.run(alone.group.reached_by_another(&[TabletId(1)].into())), None);
}

#[test]
fn a_partition_that_nobody_leads_says_whom_it_waits_for() {
    let mut cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    assert_eq!(cluster.shown("t")[0].waits, "");
    cluster.tablets.iter_mut().for_each(FakeTablet::kill);
    let waits = |cluster: &Cluster| cluster.shown("t")[0].waits.clone();
    // Of both, or of the second one alone if it was elected between the two ends.
    until("it waits for all who may lead", || {
        let row = cluster.shown("t").remove(0);
        let mut may_lead = row.replicas.iter().filter(|r| r.in_sync);
        row.waits.starts_with("waits for ") && may_lead.all(|r| row.waits.contains(&r.endpoint))
    });
    let shown = cluster.ask(cluster.client.admin().candidates("db", "t", 0)).unwrap();
    assert_eq!(shown.waits, waits(&cluster));
    cluster.tablets.iter_mut().for_each(FakeTablet::restart);
    until("it is served again", || cluster.shown("t")[0].serving);
    assert_eq!(waits(&cluster), "");
}

/// H17: power is lost everywhere.
#[test]
fn h17_after_a_power_cut_of_all_the_longest_of_those_that_are_back_leads() {
    let mut cluster = Cluster::start(1, 3);
    let options = Options { sync: Sync::Interval(100), ..Options::default() };
    cluster.create_as(&Table { options, ..table("t", 1, 3) });
    cluster.tablets.iter_mut().for_each(FakeTablet::kill);
    for tablet in &mut cluster.tablets[..2] {
        tablet.restart_after_power_cut();
    }
    let last = cluster.tablets[2].endpoint.clone();
    let row = |cluster: &Cluster| cluster.shown("t").remove(0);
    until("it waits for the third one", || row(&cluster).waits == format!("waits for {last}"));
    assert!(!row(&cluster).serving);
    cluster.tablets[2].restart_after_power_cut();
    until("it is served", || row(&cluster).serving);
    assert_eq!(row(&cluster).replicas.iter().filter(|r| r.in_sync).count(), 1);
    let ops = cluster.ask(cluster.client.admin().show_op_status("db", "", None)).unwrap().ops;
    let word = &ops.last().unwrap().why;
    assert!(word.starts_with("tail may be lost: ") && word.contains(&last), "{word}");
}

/// H16: the one with the longest log would be elected again and again.
#[test]
fn h16_a_leader_that_does_not_come_to_serve_is_replaced() {
    let mut cluster = Cluster::start(1, 3);
    let tid = cluster.create("t", 1, 3);
    let leader = cluster.leader_of(&cluster.shown("t")[0]);
    let [stuck, well] = [1, 2].map(|n| (leader + n) % 3);
    {
        let mut known = cluster.tablets[stuck].known.lock();
        known.stuck = true;
        known.offsets.insert((tid, 0), (100, 1));
    }
    let shown = |cluster: &Cluster| cluster.shown("t").remove(0);
    until("it reports more than the others", || {
        shown(&cluster).replicas.iter().any(|r| r.offset == 100)
    });
    cluster.tablets[leader].kill();
    until("the one that is well serves", || {
        let row = shown(&cluster);
        row.serving && cluster.leader_of(&row) == well
    });
    assert_eq!(shown(&cluster).epoch, 3, "the other one was elected first");
}
