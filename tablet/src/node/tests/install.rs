//! A leader's snapshot in the place of what is here.

use stela_common::code::Code;

use super::*;

const LEADER: TabletId = TabletId(2);

/// A file that a leader has, and what is in it.
pub(super) async fn foreign(to: &Path, puts: u64, change: impl FnOnce(&mut Table)) -> Seen {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let mut table = plain();
    change(&mut table);
    run.lead_table(KEY, 1, table).await;
    for n in 1..=puts {
        run.request(KEY, (5, n), vec![row("k", n, format!("leader {n}").as_bytes())]).await;
    }
    run.node.make_snapshot(KEY).await.unwrap();
    let file = snapshots(dir.path()).pop().unwrap();
    stela_common::fs::write(to, stela_common::fs::read(file).unwrap()).unwrap();
    seen(&run.node, KEY, &["k"])
}

/// A follower that has entries of its own.
pub(super) async fn behind(running: &Running, puts: u64) {
    running.lead(KEY, 1).await;
    for n in 1..=puts {
        running.put("k", n, format!("own {n}").as_bytes()).await;
    }
    running.told(KEY, 2, LEADER, plain());
    until("it follows", || !running.node.look().partitions[&KEY].core.leads()).await;
}

fn lost_and_found(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.join("lost+found");
    if stela_common::fs::exists(&dir) { stela_common::fs::read_dir(dir).unwrap() } else { vec![] }
}

#[tokio::test]
async fn a_leader_s_snapshot_takes_the_place_of_what_was_here() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("incoming");
    let leader = foreign(&file, 20, |_| {}).await;
    let run = Running::on(Disk::real(), dir.path());
    behind(&run, 7).await;
    run.node.make_snapshot(KEY).await.unwrap();
    let installed = run.node.install_snapshot(KEY, file.clone(), Some(Offset(3)), |_| true).await;
    assert_eq!(installed, Ok(Offset(20)));
    assert!(!stela_common::fs::exists(&file), "it is the tablet's own now");
    let expected = Seen { applied: Offset(20), ..leader };
    assert_eq!(seen(&run.node, KEY, &["k"]), expected);
    // What the leader does not have is kept: of a snapshot all of it.
    assert_eq!(lost_and_found(dir.path()).len(), 1);
    assert_eq!(snapshots(dir.path()).len(), 1);
    until("its core is made anew", || {
        let inner = run.node.look();
        let p = &inner.partitions[&KEY];
        p.suspended.is_none() && p.core.last() == Offset(20) && p.core.commit() == Offset(20)
    })
    .await;
    run.kill().await;

    let run = Running::on(Disk::real(), dir.path());
    assert_eq!(seen(&run.node, KEY, &["k"]), expected);
    // It goes on from there, also with a snapshot of its own.
    run.lead(KEY, 3).await;
    assert_eq!(run.request(KEY, (5, 20), vec![row("k", 20, b"again")]).await, 20, "R32");
    assert_eq!(run.put("k", 21, b"own").await, 21);
    run.node.make_snapshot(KEY).await.unwrap();
    let names: Vec<_> = snapshots(dir.path());
    assert!(names.len() == 1 && names[0].extension().unwrap() == "snap", "{names:?}");
    let before = seen(&run.node, KEY, &["k"]);
    run.kill().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert_eq!(seen(&node, KEY, &["k"]), before);
}

#[tokio::test]
async fn a_damaged_copy_is_whole_again_with_a_leader_s_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("incoming");
    let leader = foreign(&file, 20, |_| {}).await;
    let run = Running::on(Disk::real(), dir.path());
    behind(&run, 7).await;
    run.node.quarantine(&mut run.node.look(), KEY, "for a test".into());
    run.node.install_snapshot(KEY, file, None, |_| true).await.unwrap();
    let expected = Seen { applied: Offset(20), ..leader };
    assert_eq!(seen(&run.node, KEY, &["k"]), expected);
    run.kill().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert_eq!(seen(&node, KEY, &["k"]), expected);
}

#[tokio::test]
async fn a_snapshot_that_does_not_fit_is_refused_and_the_copy_stays() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("incoming");
    let run = Running::on(Disk::real(), dir.path());
    behind(&run, 7).await;
    let before = seen(&run.node, KEY, &["k"]);
    let refused = |file: &Path| {
        let (node, file) = (run.node.clone(), file.to_owned());
        async move { node.install_snapshot(KEY, file, None, |_| true).await.unwrap_err().text }
    };
    foreign(&file, 3, |table| table.created_index += 1).await;
    assert!(refused(&file).await.ends_with("it is of another creation of the table"));
    foreign(&file, 3, |_| {}).await;
    let other =
        run.node.install_snapshot(PartitionKey::new(7, 0), file.clone(), None, |_| true).await;
    assert_eq!(other.unwrap_err().code, Code::TableNotFound);
    run.told(PartitionKey::new(7, 0), 2, LEADER, plain());
    let other =
        run.node.install_snapshot(PartitionKey::new(7, 0), file.clone(), None, |_| true).await;
    assert!(other.unwrap_err().text.ends_with("it is of partition 7_1"));
    let good = stela_common::fs::read(&file).unwrap();
    stela_common::fs::write(&file, &good[..good.len() / 2]).unwrap();
    assert!(refused(&file).await.contains("is not a whole snapshot"));
    stela_common::fs::remove_file(&file).unwrap();
    assert!(refused(&file).await.contains("incoming"));
    assert_eq!(seen(&run.node, KEY, &["k"]), before);
    // Who leads has nothing to get.
    stela_common::fs::write(&file, &good).unwrap();
    run.lead(KEY, 3).await;
    let leads = run.node.install_snapshot(KEY, file, None, |_| true).await.unwrap_err();
    assert_eq!(leads.code, Code::TableIsLeader);
    run.put("k", 99, b"goes on").await;
}

/// R26: the log says that a snapshot took effect, and it is not there.
/// Rows of an index of which the replica has not been told would be left out for good: the file waits.
#[tokio::test]
async fn a_snapshot_waits_until_the_replica_is_told_of_its_indexes() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("incoming");
    let two = |table: &mut Table| {
        let added = stela_common::table::Index { name: "b".into(), ..table.indexes[0].clone() };
        table.indexes.push(added);
    };
    foreign(&file, 20, two).await;
    let run = Running::on(Disk::real(), dir.path());
    behind(&run, 7).await;
    let before = seen(&run.node, KEY, &["k"]);
    let install =
        async || run.node.install_snapshot(KEY, file.clone(), Some(Offset(3)), |_| true).await;
    let why = install().await.unwrap_err().text;
    assert!(why.contains("has not been told of an index"), "{why}");
    assert!(stela_common::fs::exists(&file), "it is tried again with the same file");
    assert_eq!(seen(&run.node, KEY, &["k"]), before);
    let mut table = plain();
    two(&mut table);
    run.told(KEY, 2, LEADER, table);
    assert_eq!(install().await, Ok(Offset(20)));
}

#[tokio::test]
async fn an_installed_snapshot_that_is_missing_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("incoming");
    foreign(&file, 20, |_| {}).await;
    let run = Running::on(Disk::real(), dir.path());
    behind(&run, 7).await;
    run.node.install_snapshot(KEY, file, None, |_| true).await.unwrap();
    run.stop().await;
    let file = snapshots(dir.path()).pop().unwrap();
    let bytes = stela_common::fs::read(&file).unwrap();
    stela_common::fs::write(&file, &bytes[..100]).unwrap();
    let why = || {
        let node = open_on(Disk::real(), config(dir.path()));
        node.log.close().unwrap();
        seen(&node, KEY, &[]).quarantine.unwrap()
    };
    assert!(why().contains("is not a whole snapshot"));
    stela_common::fs::remove_file(&file).unwrap();
    assert_eq!(why(), "the snapshot that it got is not there any more");
}

#[tokio::test]
async fn a_dropped_table_leaves_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    run.lead(KEY, 1).await;
    run.put("k", 1, b"v").await;
    run.node.make_snapshot(KEY).await.unwrap();
    let told = Told { drops: vec![(KEY.tid, 3)], ..Told::default() };
    registry::apply(&run.node, told).unwrap();
    until("it is confirmed", || run.node.look().dropped.contains_key(&KEY.tid)).await;
    assert_eq!(
        stela_common::fs::read_dir(dir.path().join("snapshots")).unwrap(),
        [] as [PathBuf; 0]
    );
    let gone = run.node.make_snapshot(KEY).await.unwrap_err();
    assert_eq!(gone.code, Code::TableNotFound);
    run.stop().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert!(node.look().partitions.is_empty() && node.look().orphans.is_empty());
}

/// R26: synced before it counts, and before anything of the old copy goes.
#[tokio::test]
async fn a_snapshot_does_not_take_effect_before_the_log_says_so_durably() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(stela_common::fs::Recorder::new());
    let file = dir.path().join("incoming");
    foreign(&file, 20, |_| {}).await;
    let run = Running::on(Disk::recording(recorder.clone()), dir.path());
    behind(&run, 7).await;
    run.node.make_snapshot(KEY).await.unwrap();
    let files = snapshots(dir.path());
    recorder.slow(true);
    let end = run.node.log.end();
    let node = run.node.clone();
    let installing =
        tokio::spawn(async move { node.install_snapshot(KEY, file, None, |_| true).await });
    until("it is in the log", || run.node.log.end() > end).await;
    // It would do it at once.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!installing.is_finished() && files.iter().all(stela_common::fs::exists));
    assert_eq!(run.node.look().partitions[&KEY].store.base(), Offset(7));
    recorder.slow(false);
    assert_eq!(installing.await.unwrap(), Ok(Offset(20)));
    assert_eq!(run.node.look().partitions[&KEY].store.base(), Offset(20));
}

/// H26: whoever leads the table that has the number now does not rebuild the copy that is kept of the one before.
#[tokio::test]
async fn a_copy_that_was_set_apart_is_not_rebuilt() {
    use stela_replica::message::ToFollower;

    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    run.lead(KEY, 1).await;
    run.put("k", 1, b"kept").await;
    let another = Table { created_index: plain().created_index + 1, ..plain() };
    run.told(KEY, 2, LEADER, another);
    until("it stands apart", || {
        let inner = run.node.look();
        let p = &inner.partitions[&KEY];
        p.quarantine.is_some() && p.suspended.is_none()
    })
    .await;
    let (conn, peer, incarnation) = (Conn(77), LEADER, Incarnation(9));
    let message = ToFollower::Lead { epoch: Epoch(5) };
    let lead = Input::FromLeader { conn, peer, incarnation, message };
    run.node.act(|inner, work| run.node.step(inner, work, KEY, lead, &[]));
    // It does not even store the epoch to ask for a snapshot.
    assert_eq!(run.node.look().partitions[&KEY].core.epoch(), Epoch(1));
}
