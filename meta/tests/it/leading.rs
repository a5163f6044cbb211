//! Proposals and reads from any nameserver, also while the leader is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use stela_meta::{ProposeError, RaftConfig};
use stela_meta_state::command::{Command, Reply};

use crate::nodes::{Nodes, create, until};

#[test]
fn whoever_is_asked_a_command_is_applied_and_seen_everywhere() {
    let nodes = Nodes::ready(3, RaftConfig::default());
    let mut expected = Vec::new();
    let mut last = 0;
    for n in 0..9 {
        let (reply, index) = nodes.node(n % 3).propose(create(format!("d{n}"))).unwrap();
        assert_eq!(reply, Reply::Done);
        assert!(index > last);
        last = index;
        expected.push(format!("d{n}"));
        assert_eq!(nodes.node((n + 1) % 3).databases(), expected);
    }
    let leader = nodes.leader();
    let follower = nodes.node((leader + 1) % 3);
    assert!(follower.run(follower.group.confirm()).is_err(), "a follower is told that it leads");
    let refused = follower.run(follower.group.propose_batch(vec![create("x")])).unwrap_err();
    assert_eq!(
        refused,
        ProposeError::NotLeading { hint: Some(nodes.configs[leader].endpoint.clone()) }
    );
}

#[test]
fn concurrent_commands_share_entries_and_a_batch_stays_in_one() {
    let nodes = Nodes::ready(1, RaftConfig::default());
    let node = nodes.node(0);
    let commands: Vec<_> =
        (0..300).map(|n| node.group.propose(create(format!("c{n}")), None)).collect();
    let done = node.run(futures::future::join_all(commands));
    let indexes: std::collections::BTreeSet<u64> =
        done.iter().map(|d| d.as_ref().unwrap().1).collect();
    assert!(done.iter().all(|d| d.as_ref().unwrap().0 == Reply::Done));
    assert!(indexes.len() < 100, "{} entries for 300 concurrent commands", indexes.len());
    let batch = (0..50).map(|n| create(format!("b{}", n % 49))).collect();
    let (replies, _) = node.run(node.group.propose_batch(batch)).unwrap();
    assert!(replies[..49].iter().all(|r| *r == Reply::Done));
    assert!(replies[49].refusal().is_some(), "the second b0 was not refused");
    let large =
        Command::SetConfig { key: "k".into(), value: "v".repeat((1 << 20) + 1), by: String::new() };
    assert!(matches!(node.propose(large), Err(ProposeError::TooLarge { .. })));
}

#[test]
fn the_leader_is_killed_and_the_next_write_comes_within_two_seconds_each_request_once() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let mut seq = 0;
    for round in 0..3 {
        let leader = nodes.leader();
        let asked = (leader + 1) % 3;
        let stop = Arc::new(AtomicBool::new(false));
        let group = nodes.node(asked).group.clone();
        // One client, one request after the other: a request that was applied twice would find its name taken.
        let client = {
            let (stop, first) = (stop.clone(), seq + 1);
            nodes.node(asked).handle().spawn(async move {
                let (mut seq, mut times) = (first, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    let request = stela_meta_state::command::RequestId { client: 77, seq };
                    let (reply, _) =
                        group.propose(create(format!("r{seq}")), Some(request)).await.unwrap();
                    assert_eq!(reply, Reply::Done, "request {seq}");
                    times.push((seq, Instant::now()));
                    seq += 1;
                }
                times
            })
        };
        let written = nodes.node(asked).group.store().applied();
        until("some are written", || nodes.node(asked).group.store().applied() > written + 50);
        let killed = Instant::now();
        nodes.kill(leader);
        until("another one leads", || {
            (0..3).any(|n| n != leader && nodes.node(n).leadership().here)
        });
        let written = nodes.node(asked).group.store().applied();
        until("some are written there", || {
            nodes.node(asked).group.store().applied() > written + 50
        });
        stop.store(true, Ordering::Relaxed);
        let times = nodes.node(asked).run(client).unwrap();
        let next = times
            .iter()
            .find(|(_, at)| *at > killed + Duration::from_millis(100))
            .expect("no write after the kill")
            .1;
        println!("round {round}: the next write came {:?} after the kill", next - killed);
        assert!(
            next - killed < Duration::from_secs(2),
            "the next write came {:?} after the kill",
            next - killed
        );
        seq = times.last().unwrap().0;
        nodes.start_all();
        for n in 0..3 {
            assert_eq!(nodes.node(n).databases().len() as u64, seq, "each request is applied once");
        }
    }
}

#[test]
fn a_request_that_is_repeated_is_applied_once_also_at_another_leader() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let leader = nodes.leader();
    let first = nodes.node(leader).propose_as(create("a"), 5, 1).unwrap();
    assert_eq!(first.0, Reply::Done);
    nodes.kill(leader);
    let again = nodes.node((leader + 1) % 3).propose_as(create("a"), 5, 1).unwrap();
    assert_eq!(again.0, Reply::Done);
    let other = nodes.node((leader + 2) % 3).propose_as(create("a"), 6, 1).unwrap();
    assert!(other.0.refusal().is_some(), "another request for the same name was not refused");
}

#[test]
fn without_a_quorum_nothing_is_promised_and_with_one_all_goes_on() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let leader = nodes.leader();
    let (one, two) = ((leader + 1) % 3, (leader + 2) % 3);
    nodes.kill(one);
    nodes.kill(two);
    let began = Instant::now();
    assert!(
        nodes.node(leader).run(nodes.node(leader).group.confirm()).is_err(),
        "one of three has confirmed itself"
    );
    assert!(began.elapsed() < Duration::from_secs(2), "it took {:?} to say so", began.elapsed());
    assert_eq!(nodes.node(leader).propose(create("a")), Err(ProposeError::Unknown));
    nodes.start_all();
    // What was unknown may have come true meanwhile; what is asked for now does.
    assert_eq!(nodes.node(one).propose(create("b")).unwrap().0, Reply::Done);
    assert!(nodes.node(two).databases().contains(&"b".to_owned()));
}

#[test]
fn all_are_killed_and_started_again() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            assert_eq!(
                nodes.node(n % 3).propose(create(format!("{round}-{n:02}"))).unwrap().0,
                Reply::Done
            );
            expected.push(format!("{round}-{n:02}"));
        }
        (0..3).for_each(|n| nodes.kill(n));
        nodes.start_all();
        (0..3).for_each(|n| assert_eq!(nodes.node(n).databases(), expected));
    }
}

/// Found by a drill: the leader came back within its term, went on leading, and read below the last acknowledged write.
#[test]
fn a_restarted_leader_reads_nothing_older_than_what_was_acknowledged() {
    for voters in [1, 3] {
        let mut nodes = Nodes::ready(voters, RaftConfig::default());
        for round in 0..4 {
            let value = if round % 2 == 0 { "false" } else { "true" };
            let (key, by) = ("auto_failover".to_owned(), String::new());
            let command = Command::SetConfig { key, value: value.into(), by };
            assert_eq!(nodes.node(0).propose(command).unwrap().0, Reply::Done);
            let term = nodes.node(0).leadership().term;
            (0..voters).for_each(|n| nodes.kill(n));
            nodes.start_all();
            // Nobody leads in a term of before: it would answer by what it last knew as committed then.
            let leader = nodes.leader();
            assert!(nodes.node(leader).leadership().term > term, "{voters} voters, round {round}");
            let group = nodes.node(leader).group.clone();
            nodes.node(leader).run(group.linearizable()).unwrap();
            assert_eq!(group.store().read(|s| s.auto_failover().to_string()), value);
        }
    }
}

#[test]
fn a_stopped_leader_is_replaced_and_everybody_is_told() {
    let mut nodes = Nodes::ready(3, RaftConfig::default());
    let leader = nodes.leader();
    let mut told = nodes.node((leader + 1) % 3).group.leadership();
    told.mark_unchanged();
    nodes.stop(leader);
    until("the others are told of a new leader", || {
        let endpoint = told.borrow().leader.clone();
        endpoint.is_some_and(|e| e != nodes.configs[leader].endpoint)
    });
    assert_eq!(nodes.node((leader + 2) % 3).propose(create("a")).unwrap().0, Reply::Done);
}
