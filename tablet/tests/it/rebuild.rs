//! Copies that the leader's log cannot bring up to date: they get its snapshot (R29, R30).

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use stela_common::fs::{self, Disk};
use stela_proto::replication as repl;
use stela_proto::replication::replication_client::ReplicationClient;
use stela_proto::tablet as pb;
use stela_tablet::Config;
use stela_tablet::config::Snapshots;

use crate::cluster::*;
use crate::nameserver::FakeNameserver;

/// A tablet that keeps little of its log, and makes snapshots so that it may.
fn forgetful(home: &Home) -> Config {
    let look = Duration::from_millis(20);
    Config {
        segment_bytes: 256 << 10,
        log_keep: 512 << 10,
        snapshots: Snapshots { grown: u64::MAX, every: 100, hour: 24, look },
        ..home.config()
    }
}

/// A tablet that makes no snapshots: it has those that it got.
fn follower(home: &Home) -> Config {
    let look = Duration::from_millis(20);
    Config { snapshots: Snapshots { grown: u64::MAX, every: 0, hour: 24, look }, ..forgetful(home) }
}

/// Two tablets, of which the first leads.
async fn pair() -> (FakeNameserver, [Home; 2], [Running; 2]) {
    let nameserver = FakeNameserver::start().await;
    let homes = [Home::new(&nameserver), Home::new(&nameserver)];
    let first = homes[0].start_with(forgetful(&homes[0])).await;
    let second = homes[1].start_with(follower(&homes[1])).await;
    nameserver.create(table(1, 2), &[1, 2]);
    nameserver.elect(TID, 1, &[1, 2]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    (nameserver, homes, [first, second])
}

fn is_whole(nameserver: &FakeNameserver) -> bool {
    let (l, f) = (nameserver.report(1, TID, 0), nameserver.report(2, TID, 0));
    let mut in_sync = nameserver.in_sync(TID, 0);
    in_sync.sort_unstable();
    in_sync == [1, 2]
        && l.serving
        && !f.quarantined
        && l.offset == l.commit
        && (f.offset, f.commit) == (l.offset, l.commit)
}

/// Writes until the log of the leader no longer has what its follower needs.
async fn outrun(home: &Home, leader: &mut Client, from: u64, value: &str) -> u64 {
    let first = fs::read_dir(home.path().join("log")).unwrap().into_iter().min().unwrap();
    let mut n = from;
    while fs::exists(&first) {
        leader.store("k", n, value).await;
        n += 1;
    }
    n
}

fn incoming(home: &Home) -> Vec<PathBuf> {
    files(&home.path().join("incoming"))
}

fn installed(home: &Home) -> usize {
    let found = files(&home.path().join("snapshots").join(format!("{TID}_0")));
    found.iter().filter(|p| p.extension().is_some_and(|e| e == "installed")).count()
}

async fn same_rows(leader: &mut Client, second: &Running) {
    let rows = leader.rows("k", pb::ReadFrom::Leader).await;
    let mut follower = second.client().await;
    assert_eq!(follower.rows("k", pb::ReadFrom::Any).await, rows);
}

#[tokio::test]
async fn a_follower_that_is_too_far_behind_catches_up_while_the_leader_is_written_to() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "before").await;
    until("both have it", || is_whole(&nameserver)).await;
    second.kill().await;
    let n = outrun(&homes[0], &mut leader, 2, &"x".repeat(4000)).await;

    let mut writer = first.client().await;
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let writing = tokio::spawn(async move {
        let mut n = n;
        while stopped.try_recv().is_err() {
            writer.store("k", n, "meanwhile").await;
            n += 1;
        }
    });
    let second = homes[1].start_with(follower(&homes[1])).await;
    until("it is in sync again", || nameserver.in_sync(TID, 0).len() == 2).await;
    assert_eq!(installed(&homes[1]), 1, "by a snapshot");
    stop.send(()).unwrap();
    writing.await.unwrap();
    until("it has all", || is_whole(&nameserver)).await;
    same_rows(&mut leader, &second).await;
    assert!(homes[1].lost_and_found().is_empty(), "nothing of it was discarded");
    assert!(incoming(&homes[1]).is_empty());

    // And it is a copy as good as any, also after a restart.
    second.kill().await;
    let second = homes[1].start_with(follower(&homes[1])).await;
    until("it has all again", || is_whole(&nameserver)).await;
    first.kill().await;
    nameserver.elect(TID, 2, &[2]);
    let mut leader = second.client().await;
    leader.store("k", 1_000_000, "after").await;
}

/// The bytes that have arrived at a tablet, when it says so.
async fn arrived(client: &mut Client, at_least: u64) -> u64 {
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let row = client.status().await;
        if row.rebuilding && row.rebuilt_bytes >= at_least {
            assert!(row.rebuilt_bytes <= row.rebuild_bytes, "{row:?}");
            return row.rebuilt_bytes;
        }
        assert!(std::time::Instant::now() < deadline, "{row:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// By the follower's end and by the leader's: what has arrived is not sent again.
#[tokio::test]
async fn a_transfer_that_is_interrupted_goes_on_where_it_ended() {
    const MIB: u64 = 1 << 20;
    let (nameserver, homes, [first, second]) = pair().await;
    // About a second for each three pieces.
    let slow = || Config { transfer_bytes_s: 3 * MIB, ..forgetful(&homes[0]) };
    first.stop().await;
    let first = homes[0].start_with(slow()).await;
    nameserver.elect(TID, 1, &[1, 2]);
    let mut leader = first.client().await;
    leader.store("k", 1, "before").await;
    second.kill().await;
    // No row is like another, so that nothing about it is small.
    for n in 2..=2000 {
        leader.store("k", n, &format!("{n:05}").repeat(1000)).await;
    }
    let second = homes[1].start_with(follower(&homes[1])).await;
    let so_far = arrived(&mut second.client().await, 2 * MIB).await;
    second.kill().await;

    let second = homes[1].start_with(follower(&homes[1])).await;
    let mut follower = second.client().await;
    assert!(arrived(&mut follower, 1).await >= so_far, "it does not start over");
    let so_far = arrived(&mut follower, so_far + MIB).await;
    first.kill().await;
    let first = homes[0].start_with(slow()).await;
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    assert!(arrived(&mut follower, 1).await >= so_far, "nor with another run of the leader");
    first.stop().await;
    let first = homes[0].start_with(forgetful(&homes[0])).await;
    nameserver.elect(TID, 1, &[1]);
    until("it is in sync again", || is_whole(&nameserver)).await;
    same_rows(&mut first.client().await, &second).await;
}

/// Changes a byte of a value in the log of a tablet that is stopped.
fn rot(home: &Home, value: &[u8]) {
    let (path, at) = files(&home.path().join("log"))
        .into_iter()
        .find_map(|path| {
            let bytes = fs::read(&path).ok()?;
            let at = bytes.windows(value.len()).position(|w| w == value)?;
            Some((path, at as u64))
        })
        .expect("the value is in the log");
    Disk::real().open_write(&path).unwrap().write_at(b"?", at).unwrap();
}

#[tokio::test]
async fn a_damaged_copy_is_rebuilt_by_itself() {
    let (nameserver, homes, [first, second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "a value that rots").await;
    for n in 2..50 {
        leader.store("k", n, "v").await;
    }
    until("both have it", || is_whole(&nameserver)).await;
    second.stop().await;
    rot(&homes[1], b"a value that rots");
    let second = homes[1].start_with(follower(&homes[1])).await;
    until("it is found to be damaged", || nameserver.in_sync(TID, 0) == [1]).await;
    until("it is in sync again", || is_whole(&nameserver)).await;
    same_rows(&mut leader, &second).await;
    assert_eq!(installed(&homes[1]), 1);
    // What was damaged is of no consequence any more.
    leader.store("k", 100, "after").await;
    second.stop().await;
    let second = homes[1].start_with(follower(&homes[1])).await;
    until("it is whole", || is_whole(&nameserver)).await;
    same_rows(&mut leader, &second).await;
    assert_eq!(installed(&homes[1]), 1, "without another snapshot");
}

/// A file that is whole, and of another table: what is here stays until the right one is there.
#[tokio::test]
async fn a_snapshot_of_another_table_is_refused() {
    let (nameserver, homes, [first, second]) = pair().await;
    let other = stela_proto::common::Table { tid: TID + 1, name: "u".into(), ..table(1, 1) };
    nameserver.create(other, &[1]);
    nameserver.elect(TID + 1, 1, &[1]);
    until("the other table is there", || nameserver.report(1, TID + 1, 0).serving).await;
    let mut leader = first.client().await;
    let target = Some(pb::Target { tid: TID + 1, pid: 0, epoch: 0 });
    for n in 1..=150 {
        let foreign = put(vec![row("k", n, "foreign")], (0, 0));
        let foreign = pb::PutRequest { target, ..foreign };
        assert_eq!(said(&leader.put(foreign).await.status), OK);
    }
    // Of the last one nobody knows after a restart that it was committed.
    leader.store("k", 1, "before").await;
    leader.store("k", 2, "before").await;
    until("both have it", || is_whole(&nameserver)).await;
    second.stop().await;
    outrun(&homes[0], &mut leader, 3, &"x".repeat(4000)).await;

    let foreign = || files(&homes[0].path().join("snapshots").join(format!("{}_0", TID + 1)));
    until("there is a snapshot of the other table", || !foreign().is_empty()).await;
    let bytes = fs::read(&foreign()[0]).unwrap();
    let created = nameserver.state.lock().tables[&TID].created_index;
    let dir = homes[1].path().join("incoming");
    fs::create_dir_all(&Disk::real(), &dir).unwrap();
    let planted = dir.join(format!("{TID}_0_{created}_{:016x}_{}.part", 77, bytes.len()));
    fs::write(&planted, &bytes).unwrap();

    let second = homes[1].start_with(follower(&homes[1])).await;
    until("it is refused", || !fs::exists(&planted)).await;
    let mut follower = second.client().await;
    let rows = follower.rows("k", pb::ReadFrom::Any).await;
    assert!(rows.iter().all(|(_, v)| v != "foreign") && rows.iter().any(|(_, v)| v == "before"));
    until("it is in sync again", || is_whole(&nameserver)).await;
    same_rows(&mut leader, &second).await;
}

/// What a leader does not give away: another creation's, another cluster's, and to whom it is no leader.
#[tokio::test]
async fn a_snapshot_is_given_to_followers_of_this_very_table_only() {
    let (nameserver, _homes, [first, _second]) = pair().await;
    let mut leader = first.client().await;
    leader.store("k", 1, "v").await;
    let (created, runs) = {
        let state = nameserver.state.lock();
        let run = |id| state.tablets[&id].incarnation;
        (state.tables[&TID].created_index, (run(1), run(2)))
    };
    let right = repl::FetchRequest {
        cluster: crate::nameserver::CLUSTER.into(),
        tid: TID,
        pid: 0,
        created_index: created,
        tablet: 2,
        incarnation: runs.1,
        to_tablet: 1,
        to_incarnation: runs.0,
        snapshot_id: 0,
        offset: 0,
    };
    let mut client =
        ReplicationClient::connect(format!("http://{}", first.endpoint)).await.unwrap();
    let wrong = [
        repl::FetchRequest { cluster: "another".into(), ..right.clone() },
        repl::FetchRequest { created_index: created + 1, ..right.clone() },
        repl::FetchRequest { tid: TID + 1, ..right.clone() },
        repl::FetchRequest { tablet: 3, ..right.clone() },
        repl::FetchRequest { to_incarnation: 9, ..right.clone() },
    ];
    for request in wrong {
        let refused = client.fetch(request.clone()).await.expect_err("refused");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{request:?}");
    }
    let mut chunks = client.fetch(right).await.unwrap().into_inner();
    let chunk = chunks.message().await.unwrap().unwrap();
    assert_eq!((chunk.offset, chunk.data.len() as u64), (0, chunk.total));
    assert_ne!(chunk.data, Bytes::new());
    assert!(chunks.message().await.unwrap().is_none());
}
