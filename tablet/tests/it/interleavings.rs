//! Interleavings that other systems lose or stall by, as far as a tablet closes them. Named as in INTERLEAVINGS.md; those
//! that a rule's own tests show are not repeated here.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use stela_common::code::Code;
use stela_common::table::{Index, Ttl, TtlKind};
use stela_proto::common::Table;
use stela_proto::tablet as pb;

use crate::cluster::*;
use crate::nameserver::FakeNameserver;
use crate::two::{is_whole, pair, pair_of};

/// The first leads a write that nobody else has and that nobody acknowledged, and ends; the second one leads and has written
/// something else in its place; the first one is back as its follower.
async fn cut(
    nameserver: &FakeNameserver,
    homes: &[Home; 2],
    [first, second]: [Running; 2],
) -> [Running; 2] {
    let mut leader = first.client().await;
    leader.store("k", 1, "both").await;
    until("both have it", || is_whole(nameserver, 1, 2)).await;
    nameserver.state.lock().deaf = true;
    second.kill().await;
    unacknowledged(&first, row("k", 2, "cut")).await;
    first.kill().await;
    nameserver.state.lock().deaf = false;
    let second = homes[1].start().await;
    nameserver.elect(TID, 2, &[2]);
    second.client().await.store("k", 3, "kept").await;
    let first = homes[0].start().await;
    until("both have all", || is_whole(nameserver, 2, 1)).await;
    [first, second]
}

/// A leader whose follower is gone, and cannot be removed, takes up a write: it is in its log, and no more.
async fn unacknowledged(leader: &Running, row: pb::Row) {
    let (mut writer, mut looks) = (leader.client().await, leader.client().await);
    let before = looks.status().await.offset;
    tokio::spawn(async move { writer.0.put(put(vec![row], (0, 0))).await });
    while looks.status().await.offset == before {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// H9: the first one's log holds an entry, the record that cuts it, and another entry in its place. Whoever gets that log
/// from its beginning gets what is in force, and nothing else.
#[tokio::test]
async fn h9_what_was_cut_out_of_a_log_is_shipped_to_nobody() {
    let (nameserver, homes, running) = pair().await;
    let [first, second] = cut(&nameserver, &homes, running).await;
    second.kill().await;
    stela_common::fs::remove_dir_all(homes[1].path()).unwrap();
    nameserver.elect(TID, 1, &[1]);
    let mut leader = first.client().await;
    leader.store("k", 4, "later").await;
    let second = homes[1].start().await;
    until("the new copy is whole", || is_whole(&nameserver, 1, 2)).await;
    let rows = [(4, "later".to_owned()), (3, "kept".into()), (1, "both".into())];
    assert_eq!(second.client().await.rows("k", pb::ReadFrom::Any).await, rows);
    assert_eq!(leader.rows("k", pb::ReadFrom::Leader).await, rows);
    assert!(homes[1].lost_and_found().is_empty(), "it never had the entry that was cut");
}

/// A table that keeps the latest row of each key.
fn latest() -> Table {
    let ttl = Ttl { kind: TtlKind::Latest, lat: 1, ..Ttl::default() };
    let index = Index {
        name: "key".into(),
        columns: vec![],
        ts: None,
        ttl,
        deleted: false,
        added: Default::default(),
    };
    Table { indexes: vec![(&index).into()], ..table(1, 2) }
}

/// H12: an entry that is not committed pushes no other one out, and is in no snapshot; when it is cut, the row that it
/// would have replaced is still there.
#[tokio::test]
async fn h12_what_is_not_committed_evicts_nothing_and_is_in_no_snapshot() {
    let (nameserver, homes, [first, second]) = pair_of(latest()).await;
    let mut leader = first.client().await;
    leader.store("k", 1, "acknowledged").await;
    until("both have it", || is_whole(&nameserver, 1, 2)).await;
    nameserver.state.lock().deaf = true;
    second.kill().await;
    unacknowledged(&first, row("k", 2, "not acknowledged")).await;
    let request = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
    let made = leader.0.make_snapshot(request).await.unwrap().into_inner();
    assert_eq!((said(&made.status), made.offset), (OK, 1));
    let rows = [(1, "acknowledged".to_owned())];
    assert_eq!(leader.rows("k", pb::ReadFrom::Any).await, rows);
    first.kill().await;

    nameserver.state.lock().deaf = false;
    let second = homes[1].start().await;
    nameserver.elect(TID, 2, &[2]);
    let first = homes[0].start().await;
    until("the other one is in sync, without that entry", || {
        is_whole(&nameserver, 2, 1) && nameserver.report(1, TID, 0).offset == 1
    })
    .await;
    for tablet in [&first, &second] {
        assert_eq!(tablet.client().await.rows("k", pb::ReadFrom::Any).await, rows);
    }
}

/// H26: the catalog comes from a backup or was founded anew, and does not know what a tablet holds.
#[tokio::test]
async fn h26_a_copy_that_the_catalog_does_not_know_is_kept_and_reported() {
    let (nameserver, homes, [first, second]) = pair().await;
    first.client().await.store("k", 1, "v").await;
    second.kill().await;
    first.stop().await;
    nameserver.change(|s| {
        s.tables.clear();
        s.partitions.clear();
    });
    for stop_cleanly in [true, false] {
        let first = homes[0].start().await;
        assert_eq!(kept(&nameserver), [1]);
        if stop_cleanly { first.stop().await } else { first.kill().await }
    }
}

/// H26: the catalog gives a number out again. Rows of the table that had it before are not those of the new one, and they
/// are kept; also when it is not known any more what they are of.
/// H26: a copy does not follow who leads another table of its number, whichever of the two is the newer.
#[tokio::test]
async fn h26_the_leader_of_another_table_of_that_number_is_not_followed() {
    use stela_proto::replication as rp;
    use stela_proto::replication::replication_client::ReplicationClient;

    let (nameserver, _homes, [_first, second]) = pair().await;
    let (created, [leader, follower]) = {
        let state = nameserver.state.lock();
        let run = |tablet| state.tablets[&tablet].incarnation;
        (state.tables[&TID].created_index, [run(1), run(2)])
    };
    let open = rp::Open {
        cluster: crate::nameserver::CLUSTER.into(),
        tablet: 1,
        incarnation: leader,
        to_tablet: 2,
        to_incarnation: follower,
    };
    let lead = |epoch, created_index| rp::Lead { tid: TID, pid: 0, epoch, created_index };
    // Were any of the first three taken, the last one would be of an epoch that is over.
    let leads = [lead(99, created + 1), lead(98, created - 1), lead(97, 0), lead(9, created)];
    let greeting = rp::ToFollower { open: Some(open), ..Default::default() };
    let told = leads.map(|lead| rp::ToFollower { leads: vec![lead], ..Default::default() });
    let frames: Vec<_> = std::iter::once(greeting).chain(told).collect();
    let frames = futures::stream::iter(frames).chain(futures::stream::pending());
    let endpoint = format!("http://{}", second.endpoint);
    let mut client = ReplicationClient::connect(endpoint).await.unwrap();
    let mut answers = client.stream(frames).await.unwrap().into_inner();
    let hello = loop {
        let answer = answers.message().await.unwrap().expect("the stream goes on");
        if let Some(hello) = answer.hellos.into_iter().next() {
            break hello;
        }
    };
    assert_eq!(hello.epoch, 9);
}

#[tokio::test]
async fn h26_a_number_that_is_given_out_again_is_another_table() {
    for forget in [false, true] {
        let nameserver = FakeNameserver::start().await;
        let home = Home::new(&nameserver);
        let running = home.start().await;
        nameserver.create(table(1, 1), &[1]);
        nameserver.elect(TID, 1, &[1]);
        running.client().await.store("k", 1, "of the table before").await;
        running.kill().await;
        if forget {
            let tables = files(&home.path().join("tables"));
            assert_eq!(tables.len(), 1);
            stela_common::fs::remove_file(&tables[0]).unwrap();
        }
        nameserver.change(|s| s.partitions.clear());
        let running = home.start().await;
        // There was no drop: the catalog was lost.
        nameserver.create(table(1, 1), &[1]);
        nameserver.create(Table { tid: OTHER, ..table(1, 1) }, &[1]);
        for _ in 0..5 {
            told(&nameserver).await;
        }
        // Whether it shows itself as quarantined or not at all.
        let expected = if forget { Code::TableNotFound } else { Code::Quarantined } as i32;
        refuses(&running, expected).await;
        // Still so after a restart, and nothing is gone.
        running.kill().await;
        let running = home.start().await;
        told(&nameserver).await;
        refuses(&running, expected).await;
        assert_eq!(kept(&nameserver), [1]);
        if !forget {
            // A drop of the new table is not one of what is here.
            nameserver.drop_table(TID);
            until("the drop is confirmed", || nameserver.state.lock().confirmed.contains(&TID))
                .await;
            running.kill().await;
            let _running = home.start().await;
            assert_eq!(kept(&nameserver), [1]);
        }
    }
}

/// Another table than the one that is looked at.
const OTHER: u32 = 8;

/// Waits until the tablet has been told of a further epoch of both tables.
async fn told(nameserver: &FakeNameserver) {
    nameserver.change(|s| s.reports.remove(&(1, OTHER, 0)));
    nameserver.elect(TID, 1, &[1]);
    nameserver.elect(OTHER, 1, &[1]);
    until("the other table is served", || nameserver.report(1, OTHER, 0).serving).await;
}

/// Waits until a tablet refuses so to read, and to write.
async fn refuses(running: &Running, code: i32) {
    let mut client = running.client().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while said(&client.get("k", 0).await.status).0 != code {
        assert!(std::time::Instant::now() < deadline, "{:?}", client.get("k", 0).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let refused = client.put(put(vec![row("k", 2, "w")], (0, 0))).await;
    assert_ne!(said(&refused.status), OK);
}

/// The last offsets of the copies of the table's partitions that tablet 1 had at its last start.
fn kept(nameserver: &FakeNameserver) -> Vec<u64> {
    let state = nameserver.state.lock();
    let inventory = &state.tablets[&1].registrations.last().unwrap().inventory;
    inventory.iter().filter(|i| i.tid == TID).map(|i| i.last_offset).collect()
}

/// H33 (R35): what a write told its writer is waited for at a follower that does not show it yet, or the follower refuses.
#[tokio::test]
async fn h33_a_follower_shows_what_a_reader_wrote_or_refuses() {
    let (nameserver, _homes, [first, second]) = pair().await;
    let (mut leader, mut follower) = (first.client().await, second.client().await);
    let read = |at_least, at_least_uncleans| pb::GetRequest {
        target: target(0),
        key: Bytes::from_static(b"k"),
        from: pb::ReadFrom::Any.into(),
        at_least,
        at_least_uncleans,
        ..Default::default()
    };
    for n in 1..=100 {
        let told = leader.store("k", n, &format!("v{n}")).await;
        let got = follower.0.get(read(told.offset, told.uncleans)).await.unwrap().into_inner();
        assert_eq!((said(&got.status), got.ts), (OK, n));
    }
    let refused = follower.0.get(read(101, 0)).await.unwrap().into_inner();
    assert_eq!(said(&refused.status).0, Code::Behind as i32, "nobody has written it: {refused:?}");
    // An unclean election may have lost what it was told.
    nameserver.change(|s| {
        let index = s.index;
        let (changed, partition) = s.partitions.get_mut(&(TID, 0)).unwrap();
        (*changed, partition.version, partition.uncleans) = (index, index, 1);
    });
    let mut refused = follower.0.get(read(100, 0)).await.unwrap().into_inner();
    while said(&refused.status) == OK {
        tokio::time::sleep(Duration::from_millis(5)).await;
        refused = follower.0.get(read(100, 0)).await.unwrap().into_inner();
    }
    assert_eq!(said(&refused.status).0, Code::Behind as i32, "{refused:?}");
    assert!(said(&refused.status).1.contains("uncleanly"), "{refused:?}");
}
