//! What an operator asks of one replica.

use stela_common::table::TtlKind;
use stela_proto::common::Status;
use stela_proto::tablet::tablet_server::Tablet as _;
use tonic::Request as Call;

use super::*;
use crate::service::Service;

const OK: (i32, &str) = (0, "ok");
const ONE: pb::ReplicaRequest = pb::ReplicaRequest { tid: 7, pid: 1 };
const OTHER: pb::ReplicaRequest = pb::ReplicaRequest { tid: 7, pid: 0 };

fn said(status: &Option<Status>) -> (i32, String) {
    status.as_ref().map_or((-1, String::new()), |s| (s.code, s.msg.clone()))
}

fn is(code: i32, text: &str) -> (i32, String) {
    (code, text.to_owned())
}

/// The commands, and what each answers.
struct Desk(Service);

macro_rules! ask {
    ($($name:ident($request:ident);)*) => {
        impl Desk {
            fn of(run: &Running) -> Self {
                Self(Service::new(run.node.clone(), run.inbox.clone()))
            }

            $(async fn $name(&self, request: pb::$request) -> (i32, String) {
                said(&self.0.$name(Call::new(request)).await.unwrap().into_inner().status)
            })*

            async fn state(&self) -> pb::TableStatusRow {
                let all = pb::GetTableStatusRequest { tid: None, pid: None };
                let mut reply = self.0.get_table_status(Call::new(all)).await.unwrap().into_inner();
                reply.rows.pop().unwrap()
            }
        }
    };
}

ask! {
    table_schema(TableSchemaRequest);
    load_table(LoadTableRequest);
    drop_replica(ReplicaRequest);
    make_snapshot(MakeSnapshotRequest);
    pause_snapshot(ReplicaRequest);
    recover_snapshot(ReplicaRequest);
    send_snapshot(SendSnapshotRequest);
    set_expire(SetExpireRequest);
    traverse(TraverseRequest);
}

fn load(pid: u32, name: &str) -> pb::LoadTableRequest {
    pb::LoadTableRequest { tid: 7, pid, name: name.into(), leader: true }
}

fn send(endpoint: &str) -> pb::SendSnapshotRequest {
    pb::SendSnapshotRequest { tid: 7, pid: 1, endpoint: endpoint.into(), wait_ms: 50 }
}

#[tokio::test]
async fn a_copy_that_is_here_is_loaded_and_no_other_one() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let desk = Desk::of(&run);
    assert_eq!(desk.load_table(load(1, "t")).await, is(138, "fail to get table db root path"));
    let unknown = pb::TableSchemaRequest { tid: 7, pid: 1 };
    assert_eq!(desk.table_schema(unknown).await, is(100, "table does not exist"));
    assert_eq!(desk.drop_replica(ONE).await, is(0, "ok"), "there is none");

    run.lead(KEY, 1).await;
    for _ in 0..2 {
        assert_eq!(desk.load_table(load(1, "t")).await, is(OK.0, OK.1));
    }
    assert_eq!(
        desk.load_table(load(1, "u")).await,
        is(307, "table name does not match: 7 is table t")
    );
    assert_eq!(desk.load_table(load(0, "t")).await.0, 138);
    let schema = desk.0.table_schema(Call::new(unknown)).await.unwrap().into_inner();
    assert_eq!(Table::try_from(&schema.table.unwrap()), Ok(plain()));
    assert_eq!(
        desk.drop_replica(ONE).await,
        is(307, "the catalog has this replica: use delreplica, or drop the table")
    );
    assert_eq!(desk.drop_replica(OTHER).await.0, 0);

    run.node.quarantine(&mut run.node.look(), KEY, "a test says so".into());
    assert_eq!(
        desk.load_table(load(1, "t")).await,
        is(176, "replica is quarantined: its copy cannot be proven whole: a test says so")
    );
    assert_eq!(desk.state().await.state, "kTableUndefined");
}

#[tokio::test]
async fn a_copy_that_the_catalog_does_not_know_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    run.node.look().orphans.insert(KEY, crate::store::load::Loaded::default());
    let desk = Desk::of(&run);
    let (code, text) = desk.load_table(load(1, "t")).await;
    assert_eq!(code, 100);
    assert!(text.contains("the catalog does not know the table"), "{text}");
    let (code, text) = desk.drop_replica(ONE).await;
    assert_eq!(code, 307);
    assert!(text.ends_with(&format!("it is kept in {}", dir.path().display())), "{text}");
    assert_eq!(run.node.look().orphans.len(), 1);
}

#[tokio::test]
async fn no_snapshot_is_made_while_they_are_paused() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.snapshots.every = 5;
    let run = Running::new(open_on(Disk::real(), config));
    let desk = Desk::of(&run);
    assert_eq!(desk.pause_snapshot(ONE).await, is(100, "table does not exist"));
    assert_eq!(desk.recover_snapshot(ONE).await, is(100, "table does not exist"));
    run.lead(KEY, 1).await;
    for n in 1..=10 {
        run.put("k", n, b"v").await;
    }
    for _ in 0..2 {
        assert_eq!(desk.pause_snapshot(ONE).await, is(OK.0, OK.1));
        assert_eq!(desk.state().await.state, "kSnapshotPaused");
    }
    let make = pb::MakeSnapshotRequest { tid: 7, pid: 1 };
    assert_eq!(
        desk.make_snapshot(make).await,
        is(105, "snapshots of the table are paused: use recoversnapshot")
    );
    run.node.keep_short(&mut |_| true).await;
    assert!(snapshots(dir.path()).is_empty());
    for _ in 0..2 {
        assert_eq!(desk.recover_snapshot(ONE).await, is(OK.0, OK.1));
        assert_eq!(desk.state().await.state, "kTableNormal");
    }
    run.node.keep_short(&mut |_| true).await;
    assert_eq!(snapshots(dir.path()).len(), 1);

    run.node.look().partitions.get_mut(&KEY).unwrap().making_now = true;
    assert_eq!(desk.state().await.state, "kMakingSnapshot");
    assert_eq!(desk.pause_snapshot(ONE).await, is(106, "table status is kMakingSnapshot"));
}

#[tokio::test]
async fn a_snapshot_is_sent_to_a_follower_when_it_has_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let desk = Desk::of(&run);
    assert_eq!(desk.send_snapshot(send("b:1")).await, is(100, "table does not exist"));
    let there = Address { endpoint: "b:1".into(), incarnation: Incarnation(9) };
    run.node.look().addresses.insert(TabletId(2), there);
    run.told_in_sync(KEY, (1, 1), &[TabletId(2)], plain());
    assert_eq!(desk.send_snapshot(send("b:1")).await, is(103, "table is follower"));
    run.lead(KEY, 2).await;
    assert_eq!(desk.send_snapshot(send("b:1")).await, is(107, "snapshot is not paused"));
    run.put("k", 1, b"v").await;
    run.node.make_snapshot(KEY).await.unwrap();
    assert_eq!(desk.pause_snapshot(ONE).await, is(OK.0, OK.1));
    for stranger in ["b:1", "c:1", "127.0.0.1:1"] {
        let (code, text) = desk.send_snapshot(send(stranger)).await;
        assert_eq!(code, 307);
        assert!(text.contains("add it with addreplica first"), "{text}");
    }
}

#[tokio::test]
async fn expired_rows_come_back_while_expiry_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let desk = Desk::of(&run);
    let expire = |on| pb::SetExpireRequest { tid: 7, pid: 1, on };
    assert_eq!(desk.set_expire(expire(false)).await, is(100, "table does not exist"));
    let mut table = plain();
    table.indexes[0].ttl = Ttl { kind: TtlKind::AbsOrLat, abs: 0, lat: 2 };
    run.lead_table(KEY, 1, table).await;
    for ts in 1..=5 {
        run.put("k", ts, b"v").await;
    }
    let rows = || seen(&run.node, KEY, &["k"]).rows.len();
    let state = desk.state().await;
    assert_eq!((rows(), state.enable_expire, state.ttl.as_str()), (2, true, "0min||2"));
    assert_eq!(desk.set_expire(expire(false)).await, is(OK.0, OK.1));
    assert_eq!((rows(), desk.state().await.enable_expire), (5, false));
    // Through a snapshot, too: it has all, and so has what takes the live store's place.
    run.node.make_snapshot(KEY).await.unwrap();
    assert_eq!((rows(), desk.state().await.enable_expire), (5, false));
    assert_eq!(desk.set_expire(expire(true)).await, is(OK.0, OK.1));
    assert_eq!(rows(), 2);
}

#[tokio::test]
async fn only_the_leader_is_traversed() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let desk = Desk::of(&run);
    let target = Some(pb::Target { tid: 7, pid: 1, epoch: 0 });
    let page = pb::TraverseRequest { target, limit: 2, ..Default::default() };
    assert_eq!(desk.traverse(page.clone()).await, is(100, "table does not exist"));
    run.told_in_sync(KEY, (1, 1), &[TabletId(2)], plain());
    assert_eq!(desk.traverse(page.clone()).await, is(103, "table is follower"));
    run.lead(KEY, 2).await;
    for ts in 1..=3 {
        run.put("k", ts, b"v").await;
    }
    let first = desk.0.traverse(Call::new(page.clone())).await.unwrap().into_inner();
    assert_eq!((said(&first.status), first.rows.len(), first.finished), (is(0, "ok"), 2, false));
    let next = pb::TraverseRequest { cursor: first.cursor, ..page.clone() };
    let last = desk.0.traverse(Call::new(next)).await.unwrap().into_inner();
    assert_eq!((last.rows[0].ts, last.rows.len(), last.finished), (1, 1, true));
    let far = pb::TraverseRequest { index: 1, ..page.clone() };
    assert_eq!(desk.traverse(far).await, is(108, "idx name not found"));
    let stale = Some(pb::Target { tid: 7, pid: 1, epoch: 1 });
    let stale = pb::TraverseRequest { target: stale, ..page.clone() };
    assert_eq!(desk.traverse(stale).await.0, 170);
    let wrong = pb::TraverseRequest { cursor: Bytes::from_static(b"x"), ..page };
    assert_eq!(desk.traverse(wrong).await.0, 180);
}
