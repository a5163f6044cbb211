//! How groups come to be, and what an empty directory does when there is one.

use std::time::{Duration, Instant};

use stela_common::ids::NodeId;
use stela_meta::{Config, RaftConfig};
use stela_meta_state::command::Reply;

use crate::nodes::{Nodes, create, until};

#[test]
fn a_group_of_one_serves_at_once_and_survives_a_kill_and_a_stop() {
    let mut nodes = Nodes::ready(1, RaftConfig::default());
    assert_eq!(nodes.node(0).propose(create("a")).unwrap().0, Reply::Done);
    assert_eq!(nodes.node(0).group.store().read(|s| s.cluster.clone()), "test");
    nodes.kill(0);
    nodes.start_all();
    assert_eq!(nodes.node(0).databases(), ["a"]);
    assert_eq!(nodes.node(0).propose(create("b")).unwrap().0, Reply::Done);
    nodes.stop(0);
    // On a directory that belongs to a group the flag changes nothing, nor does its absence.
    nodes.configs[0].bootstrap = false;
    nodes.start_all();
    assert_eq!(nodes.node(0).databases(), ["a", "b"]);
}

#[test]
fn three_found_a_group_in_any_order_and_until_the_last_one_says_for_whom_they_wait() {
    let mut nodes = Nodes::new(3, RaftConfig::default());
    nodes.start(2);
    nodes.start(0);
    let missing = format!("{} (does not answer)", nodes.configs[1].endpoint);
    until("both name the one that is missing", || {
        nodes.node(0).waits_for(&missing) && nodes.node(2).waits_for(&missing)
    });
    assert!(nodes.node(0).group.node().is_none() && nodes.node(2).group.node().is_none());
    nodes.start_all();
    nodes.node(0).await_ready();
    nodes.node(2).await_ready();
    let members: Vec<_> =
        (1..).map(NodeId).zip(nodes.configs.iter().map(|c| c.endpoint.clone())).collect();
    for n in 0..3 {
        assert_eq!(nodes.node(n).group.node(), Some(NodeId(n as u64 + 1)));
        assert_eq!(nodes.node(n).group.members(), members);
    }
}

#[test]
fn a_killed_founder_leaves_its_directory_empty_or_a_member() {
    let mut nodes = Nodes::new(3, RaftConfig::default());
    // The first of the list founds. It is killed again and again at a moment that the clock picks.
    for delay in [0, 20, 40, 60, 80, 120] {
        (0..3)
            .filter(|n| nodes.running[*n].is_none())
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|n| nodes.start(n));
        std::thread::sleep(Duration::from_millis(delay));
        nodes.kill(0);
        if delay % 40 == 0 {
            nodes.kill(1);
        }
    }
    nodes.start_all();
    let leader = nodes.leader();
    assert_eq!(nodes.node(leader).propose(create("a")).unwrap().0, Reply::Done);
    for n in 0..3 {
        assert_eq!(nodes.node(n).group.node(), Some(NodeId(n as u64 + 1)));
        assert_eq!(nodes.node(n).databases(), ["a"]);
    }
}

#[test]
fn another_list_is_named_and_waited_for_until_it_is_corrected() {
    let mut nodes = Nodes::new(3, RaftConfig::default());
    let list = nodes.configs[2].nameservers.clone();
    nodes.configs[2].nameservers = vec![list[0].clone(), list[2].clone()];
    (0..3).for_each(|n| nodes.start(n));
    let wrong = format!("{} (was started with the list {},{})", list[2], list[0], list[2]);
    until("the one with another list is named", || nodes.node(0).waits_for(&wrong));
    until("and it names the others", || {
        nodes.node(2).waits_for(&format!("{} (was started with the list", list[0]))
    });
    nodes.stop(2);
    nodes.configs[2].nameservers = list.into_iter().rev().collect();
    nodes.start(2);
    (0..3).for_each(|n| nodes.node(n).await_ready());
}

#[test]
fn without_bootstrap_an_empty_directory_waits() {
    let mut nodes = Nodes::new(1, RaftConfig::default());
    nodes.configs[0].bootstrap = false;
    nodes.start(0);
    until("it says what is missing", || nodes.node(0).waits_for("--bootstrap"));
    nodes.stop(0);
    nodes.configs[0].bootstrap = true;
    nodes.start_all();
}

#[test]
fn a_wiped_directory_comes_back_as_a_learner_that_never_votes() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let leader = nodes.leader();
    let (wiped, other) = ((leader + 1) % 3, (leader + 2) % 3);
    assert_eq!(nodes.node(leader).propose(create("a")).unwrap().0, Reply::Done);
    let old = nodes.node(wiped).group.node().unwrap();
    nodes.stop(wiped);
    std::fs::rename(nodes.dir(wiped), nodes.path("wiped")).unwrap();
    nodes.start(wiped);
    nodes.node(wiped).await_ready();
    let new = nodes.node(wiped).group.node().unwrap();
    assert!(new != old && new.0 > 7, "{new} is a number that was used before");
    assert_eq!(nodes.node(wiped).databases(), ["a"]);
    // Its endpoint is shown once, under its new number; it can be asked like any other.
    assert_eq!(
        nodes
            .node(leader)
            .group
            .members()
            .iter()
            .filter(|(_, e)| *e == nodes.configs[wiped].endpoint)
            .count(),
        1
    );
    assert_eq!(nodes.node(wiped).propose(create("b")).unwrap().0, Reply::Done);
    // One more is lost: of the two voters that are left only one is there, and the learner is no voter.
    nodes.kill(leader);
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        assert!(!nodes.node(wiped).leadership().here, "a learner leads");
        assert!(
            !nodes.node(other).leadership().here,
            "one of three leads: a learner has voted for it"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    nodes.start_all();
    assert_eq!(nodes.node(wiped).databases(), ["a", "b"]);
    // Its old directory is nobody any more.
    nodes.stop(wiped);
    std::fs::rename(nodes.dir(wiped), nodes.path("learner")).unwrap();
    std::fs::rename(nodes.path("wiped"), nodes.dir(wiped)).unwrap();
    nodes.start(wiped);
    nodes.node(wiped).await_ready();
    assert_eq!(nodes.node(wiped).group.node(), Some(old));
    assert_eq!(nodes.node(wiped).databases(), ["a", "b"]);
}

#[test]
fn a_newcomer_outside_the_first_list_is_a_learner_too() {
    let mut nodes = Nodes::ready(1, RaftConfig::default());
    assert_eq!(nodes.node(0).propose(create("a")).unwrap().0, Reply::Done);
    let endpoint = nodes.configs[0].endpoint.replace(":7001", ":7009");
    let config = Config {
        endpoint: endpoint.clone(),
        nameservers: vec![nodes.configs[0].endpoint.clone(), endpoint],
        dir: nodes.path("newcomer"),
        ..nodes.configs[0].clone()
    };
    nodes.configs.push(config);
    nodes.running.push(None);
    nodes.start_all();
    assert_eq!(nodes.node(1).databases(), ["a"]);
    // The group of one goes on without it.
    nodes.kill(1);
    assert_eq!(nodes.node(0).propose(create("b")).unwrap().0, Reply::Done);
}
