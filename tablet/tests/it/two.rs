//! Two tablets: what the leader has, the follower gets.

use std::sync::Arc;
use std::time::Duration;

use stela_common::code::Code;
use stela_common::fs::{Disk, Op, Recorder};
use stela_proto::tablet as pb;

use crate::cluster::*;
use crate::nameserver::FakeNameserver;

/// Two tablets with a replica each of the one partition of a table; tablet 1 leads, both are in sync.
pub async fn pair() -> (FakeNameserver, [Home; 2], [Running; 2]) {
    pair_of(table(1, 2)).await
}

/// The same of that table.
pub async fn pair_of(
    table: stela_proto::common::Table,
) -> (FakeNameserver, [Home; 2], [Running; 2]) {
    let nameserver = FakeNameserver::start().await;
    let homes = [Home::new(&nameserver), Home::new(&nameserver)];
    let first = homes[0].start().await;
    let second = homes[1].start().await;
    nameserver.create(table, &[1, 2]);
    nameserver.elect(TID, 1, &[1, 2]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    (nameserver, homes, [first, second])
}

pub fn is_whole(nameserver: &FakeNameserver, leader: u32, follower: u32) -> bool {
    let (l, f) = (nameserver.report(leader, TID, 0), nameserver.report(follower, TID, 0));
    let mut in_sync = nameserver.in_sync(TID, 0);
    in_sync.sort_unstable();
    in_sync == [1, 2]
        && l.serving
        && l.offset == l.commit
        && (f.offset, f.commit) == (l.offset, l.commit)
}

#[tokio::test]
async fn an_acknowledged_row_is_on_both() {
    let (nameserver, _homes, [first, second]) = pair().await;
    let (mut leader, mut follower) = (first.client().await, second.client().await);
    for n in 1..=200 {
        assert_eq!(leader.store("k", n, &format!("v{n}")).await.offset, n);
    }
    until("the follower shows all", || {
        is_whole(&nameserver, 1, 2) && nameserver.report(2, TID, 0).commit == 200
    })
    .await;
    let rows = leader.rows("k", pb::ReadFrom::Leader).await;
    assert_eq!(rows.len(), 200);
    assert_eq!(follower.rows("k", pb::ReadFrom::Any).await, rows);

    // The follower says who leads.
    let refused = follower.put(put(vec![row("k", 1, "v")], (0, 0))).await;
    assert_eq!(
        (said(&refused.status), refused.leader),
        ((103, "table is follower"), first.endpoint.clone())
    );
    let refused = follower.get("k", 0).await;
    assert_eq!((said(&refused.status).0, refused.leader), (103, first.endpoint.clone()));
    let followers = leader
        .0
        .get_follower(pb::GetFollowerRequest { tid: TID, pid: 0 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(followers.leader_offset, 200);
    assert_eq!(
        followers.followers[0],
        pb::FollowerRow { endpoint: second.endpoint.clone(), offset: 200 }
    );
}

#[tokio::test]
async fn a_snapshot_counts_as_sent_when_the_follower_has_it() {
    let (nameserver, _homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    for n in 1..=20 {
        leader.store("k", n, "v").await;
    }
    let make = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
    assert_eq!(leader.0.make_snapshot(make).await.unwrap().into_inner().offset, 20);
    let one = pb::ReplicaRequest { tid: TID, pid: 0 };
    leader.0.pause_snapshot(one).await.unwrap();
    let endpoint = second.endpoint.clone();
    let send = pb::SendSnapshotRequest { tid: TID, pid: 0, endpoint, wait_ms: 0 };
    let sent = leader.0.send_snapshot(send.clone()).await.unwrap().into_inner();
    assert_eq!(said(&sent.status), OK);
    // Who is away has not got it.
    second.kill().await;
    leader.store("k", 21, "v").await;
    assert_eq!(nameserver.in_sync(TID, 0), [1]);
    leader.0.recover_snapshot(one).await.unwrap();
    assert_eq!(leader.0.make_snapshot(make).await.unwrap().into_inner().offset, 21);
    leader.0.pause_snapshot(one).await.unwrap();
    let soon = pb::SendSnapshotRequest { wait_ms: 100, ..send };
    let late = leader.0.send_snapshot(soon).await.unwrap().into_inner();
    let (code, text) = said(&late.status);
    assert_eq!(code, Code::Behind as i32);
    assert!(text.contains("the snapshot holds them up to 21"), "{text}");
}

#[tokio::test]
async fn a_follower_that_was_away_catches_up() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "before").await;
    second.kill().await;
    // The leader goes on alone as soon as the removal is decided (R7).
    for n in 2..=300u64 {
        leader.store("k", n, &"x".repeat(2000)).await;
    }
    assert_eq!(nameserver.in_sync(TID, 0), [1]);
    let second = homes[1].start().await;
    until("it is in sync again", || is_whole(&nameserver, 1, 2)).await;
    let mut follower = second.client().await;
    assert_eq!(
        follower.rows("k", pb::ReadFrom::Any).await,
        leader.rows("k", pb::ReadFrom::Leader).await
    );
    assert!(homes[1].lost_and_found().is_empty());
}

/// A follower that heard of an index after entries that name it had arrived left their rows out of it for good.
#[tokio::test]
async fn a_follower_that_hears_late_of_an_index_has_its_rows() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "v1").await;
    nameserver.change(|s| {
        s.unheard.insert(2);
        let index = s.index;
        let table = s.tables.get_mut(&TID).unwrap();
        let mut added = table.indexes[0].clone();
        (added.name, added.version) = ("added".into(), 1);
        table.indexes.push(added);
        s.partitions.values_mut().for_each(|(changed, _)| *changed = index);
    });
    for n in 2..=3 {
        let mut row = row("k", n, &format!("v{n}"));
        row.dimensions.push(pb::Dimension { index: 1, key: "other".into() });
        let rows = pb::PutRequest { table_version: 1, ..put(vec![row], (9, n - 1)) };
        let mut reply = leader.put(rows.clone()).await;
        while said(&reply.status).0 == Code::NotServing as i32 {
            reply = leader.put(rows.clone()).await;
        }
        assert_eq!((said(&reply.status), reply.offset), (OK, n));
    }
    let arrived = |s: pb::TableStatusRow| (s.offset, s.commit);
    let mut follower = second.client().await;
    let make = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
    until("it shows the first", || nameserver.report(2, TID, 0).commit == 1).await;
    assert_eq!(arrived(follower.status().await), (3, 1));
    assert_eq!(follower.0.make_snapshot(make).await.unwrap().into_inner().offset, 1);

    // It starts as it was.
    second.stop().await;
    let second = homes[1].start().await;
    let mut follower = second.client().await;
    until("it follows again", || nameserver.report(2, TID, 0).offset == 3).await;
    assert_eq!(arrived(follower.status().await), (3, 1));
    assert_eq!(follower.rows("k", pb::ReadFrom::Any).await, [(1, "v1".into())]);
    let scan = async |client: &mut Client, index, key: &'static str| {
        let scan = pb::ScanRequest {
            target: target(0),
            key: key.into(),
            index,
            from: pb::ReadFrom::Any.into(),
            ..Default::default()
        };
        client.0.scan(scan).await.unwrap().into_inner()
    };
    // Whether there is such an index the leader knows.
    let refused = scan(&mut follower, 1, "other").await;
    assert_eq!(said(&refused.status).0, Code::Behind as i32);
    assert_eq!(said(&scan(&mut leader, 2, "other").await.status).0, Code::IndexNotFound as i32);

    nameserver.change(|s| s.unheard.clear());
    until("it shows all", || nameserver.report(2, TID, 0).commit == 3).await;
    let by = async |client: &mut Client, index, key: &'static str| {
        let reply = scan(client, index, key).await;
        assert_eq!(said(&reply.status), OK);
        reply.rows.iter().map(|r| r.ts).collect::<Vec<_>>()
    };
    assert_eq!(by(&mut follower, 0, "k").await, [3, 2, 1]);
    assert_eq!(by(&mut follower, 1, "other").await, [3, 2]);
    assert_eq!(follower.0.make_snapshot(make).await.unwrap().into_inner().offset, 3);
    second.stop().await;
    let second = homes[1].start().await;
    let mut follower = second.client().await;
    until("it shows all again", || nameserver.report(2, TID, 0).commit == 3).await;
    assert_eq!(by(&mut follower, 1, "other").await, [3, 2]);
}

#[tokio::test]
async fn the_follower_leads_when_the_leader_is_gone() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    for n in 1..=100 {
        leader.store("k", n, &format!("v{n}")).await;
    }
    let id = (9, 1);
    assert_eq!(said(&leader.put(put(vec![row("k", 500, "once")], id)).await.status), OK);
    first.kill().await;
    nameserver.elect(TID, 2, &[2]);
    let mut leader = second.client().await;
    // A repetition at the new leader (H13).
    let mut again = leader.put(put(vec![row("k", 500, "once")], id)).await;
    while said(&again.status) != OK {
        assert!(
            matches!(said(&again.status).0, c if c == Code::NotServing as i32 || c == 103),
            "{again:?}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
        again = leader.put(put(vec![row("k", 500, "once")], id)).await;
    }
    assert_eq!((again.offset, again.epoch), (101, 2));
    assert_eq!(leader.count("k").await, 101);
    leader.store("k", 600, "after").await;
    let first = homes[0].start().await;
    until("both have all", || is_whole(&nameserver, 2, 1)).await;
    let mut follower = first.client().await;
    assert_eq!(
        follower.rows("k", pb::ReadFrom::Any).await,
        leader.rows("k", pb::ReadFrom::Leader).await
    );
}

#[tokio::test]
async fn a_divergent_tail_goes_to_lost_and_found() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "both").await;
    until("both have it", || is_whole(&nameserver, 1, 2)).await;
    // The leader cannot get its follower removed, so what it writes now is never acknowledged.
    nameserver.state.lock().deaf = true;
    second.kill().await;
    let mut writer = first.client().await;
    let tail =
        tokio::spawn(async move { writer.0.put(put(vec![row("k", 2, "lost")], (5, 1))).await });
    while leader.status().await.offset < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.kill().await;
    assert!(tail.await.unwrap().is_err(), "nobody acknowledged it");

    nameserver.state.lock().deaf = false;
    let second = homes[1].start().await;
    nameserver.elect(TID, 2, &[2]);
    let mut leader = second.client().await;
    leader.store("k", 3, "kept").await;
    let first = homes[0].start().await;
    until("both have all", || is_whole(&nameserver, 2, 1)).await;
    let rows = vec![(3, "kept".to_owned()), (1, "both".into())];
    let mut follower = first.client().await;
    assert_eq!(leader.rows("k", pb::ReadFrom::Leader).await, rows);
    assert_eq!(follower.rows("k", pb::ReadFrom::Any).await, rows);

    let found = homes[0].lost_and_found();
    assert_eq!(found.len(), 1);
    let raw = stela_common::fs::read(&found[0]).unwrap();
    let records: Vec<_> = stela_common::log::parse(&raw).map(Result::unwrap).collect();
    assert_eq!((records.len(), records[0].offset.0, records[0].epoch.0), (1, 2, 1));
    assert!(records[0].body.ends_with(b"lost"));

    // The cut tail does not come back, and its request id is free again (R32).
    first.kill().await;
    second.kill().await;
    let first = homes[0].start().await;
    nameserver.elect(TID, 1, &[1]);
    let mut leader = first.client().await;
    leader.store("k", 4, "x").await;
    assert_eq!(leader.rows("k", pb::ReadFrom::Leader).await[1..], rows);
    let again = leader.put(put(vec![row("k", 2, "lost")], (5, 1))).await;
    assert_eq!((said(&again.status), again.offset), (OK, 4));
}

#[tokio::test]
async fn a_paused_follower_stops_reads_and_not_for_ever() {
    let (nameserver, _homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "v").await;
    assert_eq!(leader.get("k", 0).await.value, "v");
    second.kill().await;
    // Without the follower's permit there is no read until it has left the set (R11); parked ones are served then.
    let reply = leader.get("k", 0).await;
    assert!(
        said(&reply.status) == OK || said(&reply.status).0 == Code::LeaseExpired as i32,
        "{reply:?}"
    );
    until("it is removed", || nameserver.in_sync(TID, 0) == [1]).await;
    let mut reply = leader.get("k", 0).await;
    while said(&reply.status) != OK {
        tokio::time::sleep(Duration::from_millis(5)).await;
        reply = leader.get("k", 0).await;
    }
    assert_eq!(reply.value, "v");
}

/// The writes of a log fail as on a full disk.
fn fill(recorder: &Recorder) {
    recorder.inject(|op| {
        matches!(op, Op::Write { .. }).then(|| std::io::ErrorKind::StorageFull.into())
    });
}

/// R38: no read is answered by what a clock says; each batch of them asks the followers.
#[tokio::test]
async fn r38_a_table_that_confirms_its_reads_asks_the_followers_each_time() {
    let table = stela_proto::common::Table { read_confirm: true, ..table(1, 2) };
    let (_nameserver, _homes, [first, second]) = pair_of(table).await;
    let mut leader = first.client().await;
    leader.store("k", 1, "v").await;
    for _ in 0..20 {
        assert_eq!(leader.rows("k", pb::ReadFrom::Leader).await.len(), 1);
    }
    // Permits of a moment ago are there, and are none: the follower does not answer.
    let paused = second.pause();
    let refused = leader.get("k", 0).await;
    assert_eq!(said(&refused.status).0, Code::LeaseExpired as i32, "{refused:?}");
    drop(paused);
    assert_eq!(leader.rows("k", pb::ReadFrom::Leader).await.len(), 1);
}

#[tokio::test]
async fn a_full_disk_makes_a_leader_read_only_until_space_is_back() {
    let (nameserver, homes, [first, second]) = pair().await;
    first.stop().await;
    let recorder = Arc::new(Recorder::new());
    let first = homes[0].start_on(Disk::recording(recorder.clone())).await;
    nameserver.elect(TID, 1, &[1, 2]);
    let mut leader = first.client().await;
    leader.store("k", 1, "v").await;
    fill(&recorder);
    let full = leader.put(put(vec![row("k", 2, "w")], (4, 1))).await;
    assert_eq!(said(&full.status).0, Code::DiskFull as i32, "{full:?}");
    assert!(
        said(&full.status)
            .1
            .starts_with("disk is full: the partition is read-only until space is back"),
        "{full:?}"
    );
    assert_eq!(leader.get("k", 0).await.value, "v");
    // A refused write was not applied: its id is free.
    recorder.heal();
    let stored = leader.put(put(vec![row("k", 2, "w")], (4, 1))).await;
    assert_eq!((said(&stored.status), stored.offset), (OK, 2));
    until("both have all", || {
        is_whole(&nameserver, 1, 2) && nameserver.report(2, TID, 0).commit == 2
    })
    .await;
    drop(second);
}

#[tokio::test]
async fn a_follower_whose_disk_was_full_catches_up() {
    let (nameserver, homes, [first, second]) = pair().await;
    second.stop().await;
    let recorder = Arc::new(Recorder::new());
    let second = homes[1].start_on(Disk::recording(recorder.clone())).await;
    let mut leader = first.client().await;
    leader.store("k", 1, "v").await;
    until("both have it", || is_whole(&nameserver, 1, 2)).await;
    fill(&recorder);
    // The follower cannot keep up, and leaves the set.
    for n in 2..=20 {
        leader.store("k", n, &format!("v{n}")).await;
    }
    assert_eq!(nameserver.in_sync(TID, 0), [1]);
    recorder.heal();
    until("it has caught up", || {
        is_whole(&nameserver, 1, 2) && nameserver.report(2, TID, 0).commit == 20
    })
    .await;
    let mut follower = second.client().await;
    assert_eq!(
        follower.rows("k", pb::ReadFrom::Any).await,
        leader.rows("k", pb::ReadFrom::Leader).await
    );
    // What was acknowledged is in its log.
    second.kill().await;
    let second = homes[1].start().await;
    let mut follower = second.client().await;
    assert_eq!(follower.status().await.offset, 20);
}

#[tokio::test]
async fn an_activation_that_the_disk_refused_is_tried_again() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let recorder = Arc::new(Recorder::new());
    let running = home.start_on(Disk::recording(recorder.clone())).await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    let mut client = running.client().await;
    client.store("k", 1, "v").await;
    // Only what goes to the log fails: the order itself is remembered.
    recorder.inject(|op| {
        let to_log = matches!(op, Op::Write { bytes, .. } if bytes.starts_with(&0xBA7C_57E1u32.to_le_bytes()));
        to_log.then(|| std::io::ErrorKind::StorageFull.into())
    });
    nameserver.elect(TID, 1, &[1]);
    until("it cannot lead", || !nameserver.report(1, TID, 0).serving).await;
    recorder.heal();
    until("it leads", || {
        nameserver.report(1, TID, 0).serving && nameserver.report(1, TID, 0).epoch == 2
    })
    .await;
    assert_eq!(client.store("k", 2, "w").await.offset, 2);
}

/// Changes a byte of the log of a tablet that runs, as a disk may.
fn rot(home: &Home, value: &[u8]) {
    let (path, at) = files(&home.path().join("log"))
        .into_iter()
        .find_map(|path| {
            let bytes = stela_common::fs::read(&path).ok()?;
            let at = bytes.windows(value.len()).position(|w| w == value)?;
            Some((path, at as u64))
        })
        .expect("the value is in the log");
    Disk::real().open_write(&path).unwrap().write_at(b"?", at).unwrap();
}

#[tokio::test]
async fn a_rotten_record_is_shipped_to_nobody_and_stops_no_other_partition() {
    let nameserver = FakeNameserver::start().await;
    let homes = [Home::new(&nameserver), Home::new(&nameserver)];
    let (first, second) = (homes[0].start().await, homes[1].start().await);
    nameserver.create(table(2, 2), &[1, 2]);
    nameserver.elect(TID, 1, &[1, 2]);
    until("it serves", || (0..2).all(|pid| nameserver.report(1, TID, pid).serving)).await;
    second.kill().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "a value that rots").await;
    until("the other one is removed", || {
        (0..2).all(|pid| nameserver.in_sync(TID, pid) == [1])
            && nameserver.report(1, TID, 1).serving
    })
    .await;
    let other = pb::PutRequest { target: target(1), ..put(vec![row("k", 1, "v")], (0, 0)) };
    assert_eq!(said(&leader.put(other).await.status), OK);

    rot(&homes[0], b"a value that rots");
    let _second = homes[1].start().await;
    until("the copy is quarantined", || {
        let report = nameserver.report(1, TID, 0);
        report.quarantined && !report.serving && !report.leading
    })
    .await;
    until("the other partition is on both", || {
        nameserver.in_sync(TID, 1).len() == 2 && nameserver.report(2, TID, 1).commit == 1
    })
    .await;
    assert_eq!(nameserver.report(2, TID, 0).offset, 0);
    assert_eq!(said(&leader.get("k", 0).await.status).0, Code::Quarantined as i32);
}
