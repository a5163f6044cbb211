//! What a tablet found on its disk becomes readable while it takes part already.

use futures::FutureExt as _;
use stela_common::code::Code;
use stela_proto::common::Status;
use stela_proto::tablet::tablet_server::Tablet as _;
use tonic::Request as Call;

use super::*;
use crate::loading::Pending;
use crate::service::Service;

const ROWS: u64 = 600;

/// A tablet that was stopped with rows, started again: nothing is loaded yet.
async fn waiting(dir: &Path) -> (Running, Vec<Pending>) {
    let run = Running::on(Disk::real(), dir);
    run.lead(KEY, 1).await;
    for ts in 1..=ROWS {
        run.put("k", ts, b"v").await;
    }
    run.kill().await;
    let files = Files::new(Disk::real(), dir.to_owned());
    let (node, pending) =
        start::open(config(dir), Disk::real(), files, CancellationToken::new()).unwrap();
    node.look().adopt(&node, ME);
    assert_eq!(pending.len(), 1, "it is not loaded at once");
    (Running::new(node), pending)
}

fn code(status: &Option<Status>) -> Option<Code> {
    status.as_ref().and_then(|s| Code::from_number(s.code))
}

fn target() -> Option<pb::Target> {
    Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 })
}

async fn put(run: &Running) -> pb::PutReply {
    let rows = vec![row("k", ROWS + 1, b"v")];
    run.say(Request::Put(pb::PutRequest { target: target(), rows, ..Default::default() })).await
}

#[tokio::test]
async fn until_it_is_loaded_nobody_takes_it_for_empty_and_nobody_elects_it() {
    let dir = tempfile::tempdir().unwrap();
    let (run, pending) = waiting(dir.path()).await;
    let service = Service::new(run.node.clone(), run.inbox.clone());
    let state = async || {
        let all = pb::GetTableStatusRequest { tid: None, pid: None };
        service.get_table_status(Call::new(all)).await.unwrap().into_inner().rows.pop().unwrap()
    };
    let found = state().await;
    assert_eq!((found.state.as_str(), found.offset), ("kTableLoading", ROWS));
    let inventory = run.node.look().inventory();
    assert_eq!((inventory[0].last_offset, inventory[0].loading), (ROWS, true));
    assert!(!inventory[0].damaged);

    // It is elected all the same, by one who did not know: the election waits with it.
    run.told(KEY, 2, ME, plain());
    run.node.look().forget_reports();
    let report = run.node.look().reports().pop().unwrap();
    assert!(report.quarantined && report.loading && !report.serving && !report.leading);
    assert_eq!(code(&put(&run).await.status), Some(Code::TableLoading));
    let make = pb::MakeSnapshotRequest { tid: KEY.tid.0, pid: KEY.pid.0 };
    let made = service.make_snapshot(Call::new(make)).await.unwrap().into_inner();
    assert_eq!(code(&made.status), Some(Code::TableLoading));
    // A read waits a while, wherever it may be answered.
    for from in [pb::ReadFrom::Leader, pb::ReadFrom::Any] {
        let get = pb::GetRequest {
            target: target(),
            key: "k".into(),
            from: from.into(),
            ..Default::default()
        };
        assert!(service.get(Call::new(get)).now_or_never().is_none(), "{from:?}");
    }

    loading::run(&run.node, pending);
    until("it leads", || run.node.look().partitions[&KEY].core.serving()).await;
    assert_eq!(seen(&run.node, KEY, &["k"]).rows.len() as u64, ROWS);
    assert_eq!(state().await.state, "kTableNormal");
    let report = run.node.look().reports().pop().unwrap();
    assert!(!report.quarantined && !report.loading && report.serving);
    assert_eq!(put(&run).await.offset, ROWS + 1);
}

#[tokio::test]
async fn what_changes_meanwhile_holds_when_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (run, pending) = waiting(dir.path()).await;
    let mut changed = plain();
    changed.indexes[0].ttl = Ttl { lat: 3, ..Ttl::default() };
    changed.indexes[0].ttl.kind = stela_common::table::TtlKind::Latest;
    run.told(KEY, 2, ME, changed);
    loading::run(&run.node, pending);
    until("it leads", || run.node.look().partitions[&KEY].core.serving()).await;
    assert_eq!(seen(&run.node, KEY, &["k"]).rows.len(), 3);
}

/// A table where the leader's word is enough shows at once what is in the log: not so before that is loaded.
#[tokio::test]
async fn a_table_that_shows_all_at_once_does_not_so_while_it_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (run, pending) = waiting(dir.path()).await;
    let mut changed = plain();
    changed.options.ack = stela_common::table::Ack::Leader;
    run.told(KEY, 2, ME, changed);
    let held = |run: &Running| {
        let inner = run.node.look();
        let p = &inner.partitions[&KEY];
        (p.applied, p.store.records())
    };
    assert_eq!(held(&run), (Offset(0), 0));
    loading::run(&run.node, pending);
    until("it shows all", || held(&run) == (Offset(ROWS), ROWS)).await;
}

#[tokio::test]
async fn what_is_dropped_while_it_is_loaded_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let (run, pending) = waiting(dir.path()).await;
    let created = plain().created_index;
    registry::apply(&run.node, Told { drops: vec![(KEY.tid, created)], ..Told::default() })
        .unwrap();
    loading::run(&run.node, pending);
    assert!(run.node.look().partitions.is_empty());
    until("it is confirmed", || run.node.look().dropped.contains_key(&KEY.tid)).await;
}

#[tokio::test]
async fn a_tablet_that_stops_does_not_wait_until_all_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (run, pending) = waiting(dir.path()).await;
    run.node.stop.cancel();
    loading::run(&run.node, pending);
    assert!(run.node.look().partitions[&KEY].loading.is_some(), "it was given up");
}
