//! Interleavings that other systems lose or stall by, as far as a nameserver closes them. Named as in INTERLEAVINGS.md;
//! those that a rule's own tests show are not repeated here.

use std::time::{Duration, Instant};

use stela_proto::heartbeat as pb;

use crate::control::{Cluster, LEASE, Nameserver};
use crate::nodes::until;
use crate::tablet::Known;

/// H2: a nameserver that has lost its group goes on hearing its tablets, and must not know better than whoever leads now.
#[test]
fn h2_a_nameserver_without_a_quorum_grants_no_lease() {
    let mut cluster = Cluster::start(3, 1);
    let leader = cluster.ask(cluster.client.leader()).unwrap();
    let others = |n: &Nameserver| n.endpoint != leader;
    for other in cluster.nameservers.extract_if(.., |n| others(n)) {
        other.kill();
    }
    let known = cluster.tablets[0].known.clone();
    // What it confirmed before they were gone is still on its way.
    let unanswered = |known: &Known, beats| known.sent > known.leases.last().unwrap() + beats;
    until("it grants nothing more", || unanswered(&known.lock(), 10));
    let (sent, granted) = {
        let known = known.lock();
        (known.sent, known.leases.len())
    };
    until("it hears more", || known.lock().sent > sent + 20);
    assert_eq!(known.lock().leases.len(), granted);
    assert_eq!(known.lock().leader, leader);
}

/// H31: the old leader's port refuses, which starts elections at once; its lease may hold all the same, and an unclean
/// leader has no permits to wait for.
#[test]
fn h31_an_unclean_election_waits_for_the_lease_of_the_old_leader() {
    let mut cluster = Cluster::start(1, 2);
    cluster.create("t", 1, 2);
    let row = cluster.shown("t").remove(0);
    let leader = cluster.leader_of(&row);
    let endpoint = cluster.tablets[1 - leader].endpoint.clone();
    cluster.tablets[1 - leader].kill();
    assert_eq!(cluster.shrink_to_itself(leader).verdict(), pb::Verdict::Applied);
    cluster.tablets[1 - leader].restart();
    until("the other one is back", || cluster.healthy(&endpoint));
    let elect = |cluster: &Cluster| {
        let version = cluster.ask(cluster.client.admin().candidates("db", "t", 0)).unwrap().version;
        cluster.ask(cluster.client.admin().elect("db", "t", 0, &endpoint, version))
    };
    let refused = elect(&cluster).unwrap_err();
    assert!(refused.text.contains("the leader is there"), "{refused}");
    let killed = Instant::now();
    cluster.tablets[leader].kill();
    until("it is offline", || !cluster.healthy(&cluster.tablets[leader].endpoint));
    elect(&cluster).unwrap();
    assert!(killed.elapsed() >= Duration::from_millis(LEASE), "{:?}", killed.elapsed());
    let row = cluster.shown("t").remove(0);
    assert_eq!(cluster.leader_of(&row), 1 - leader);
    assert_eq!(row.replicas.iter().filter(|r| r.in_sync).count(), 1);
}
