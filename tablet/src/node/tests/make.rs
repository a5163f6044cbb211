//! Snapshots of a partition that is written meanwhile, and starts from them.

use stela_common::row::{self, Value};
use stela_common::table::TtlKind;

use super::*;
use crate::store::dedup::{Dedup, Verdict};
use crate::store::tests::with_times;

const KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];

/// Rows of four keys, equal times and a deletion among them.
async fn fill(running: &Running, from: u64, to: u64) {
    for n in from..to {
        running.put(KEYS[(n % 4) as usize], n / 8 + 1, format!("v{n}").as_bytes()).await;
        if n % 50 == 17 {
            running.delete(KEYS[(n / 50 % 4) as usize]).await;
        }
    }
}

fn base(node: &Node) -> u64 {
    node.look().partitions[&KEY].store.base().0
}

#[tokio::test]
async fn a_start_from_a_snapshot_is_a_start_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead(KEY, 1).await;
    assert_eq!(running.node.make_snapshot(KEY).await, Ok(Offset(0)), "nothing was written yet");
    fill(&running, 0, 100).await;
    assert_eq!(running.request(KEY, (5, 1), vec![row("k1", 500, b"once")]).await, 103);
    let before = seen(&running.node, KEY, &KEYS);
    assert_eq!(running.node.make_snapshot(KEY).await, Ok(Offset(103)));
    assert_eq!(seen(&running.node, KEY, &KEYS), before);
    assert_eq!(base(&running.node), 103);
    // Behind a snapshot, and one on top of that.
    fill(&running, 100, 200).await;
    assert_eq!(running.node.make_snapshot(KEY).await, Ok(Offset(205)));
    assert_eq!(snapshots(dir.path()).len(), 1, "the one before is gone");
    fill(&running, 200, 230).await;
    let before = seen(&running.node, KEY, &KEYS);
    running.kill().await;

    for epoch in 2..5 {
        let running = Running::on(Disk::real(), dir.path());
        assert_eq!(base(&running.node), 205);
        running.lead(KEY, epoch).await;
        assert_eq!(seen(&running.node, KEY, &KEYS), before);
        let verdict = running.node.look().partitions[&KEY].dedup.look(5, 1, false);
        assert_eq!(verdict, Verdict::Committed(Offset(103)), "R32: from the snapshot's header");
        assert_eq!(running.request(KEY, (5, 1), vec![row("k1", 500, b"once")]).await, 103);
        running.stop().await;
    }
}

#[tokio::test]
async fn a_partition_is_written_and_read_while_its_snapshot_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead(KEY, 1).await;
    fill(&running, 0, 300).await;
    let mut n = 300;
    for _ in 0..5 {
        let began = n;
        let mut making = std::pin::pin!(running.node.make_snapshot(KEY));
        loop {
            tokio::select! {
                made = &mut making => {
                    made.unwrap();
                    break;
                }
                () = fill(&running, n, n + 1) => n += 1,
            }
            let rows = seen(&running.node, KEY, &KEYS).rows;
            let last = sum(format!("v{}", n - 1).as_bytes());
            assert!(rows.iter().any(|r| r.2 == last), "{n}");
        }
        assert!(base(&running.node) >= began);
    }
    // Of a call that was given up nobody knows: what comes behind it is behind it.
    running.put("k0", 1, b"last").await;
    let before = seen(&running.node, KEY, &KEYS);
    running.kill().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert_eq!(all_of(&node, &KEYS), before);
}

#[tokio::test]
async fn a_partition_with_two_indexes_comes_back_from_its_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let table = crate::store::tests::with_times();
    let running = Running::on(Disk::real(), dir.path());
    running.lead_table(KEY, 1, table.clone()).await;
    let schema = &table.columns;
    for n in 1..40i64 {
        use stela_common::row::{Value, encode};
        let key = format!("a{}", n % 3);
        let value =
            encode(schema, &[Value::Varchar(key.clone()), Value::BigInt(n * 7 % 11)]).unwrap();
        let key = Bytes::from(key.into_bytes());
        let dimensions = (0..2).map(|index| pb::Dimension { index, key: key.clone() }).collect();
        running
            .request(KEY, (0, 0), vec![pb::Row { time: n as u64, dimensions, value: value.into() }])
            .await;
    }
    let look = |node: &Node| {
        let inner = node.look();
        let store = &inner.partitions[&KEY].store;
        let range = Range { bytes: 1 << 20, ..Range::default() };
        (0..2).map(|i| store.scan(&node.log, i, b"a1", range, 0).unwrap().rows).collect::<Vec<_>>()
    };
    let before = look(&running.node);
    running.node.make_snapshot(KEY).await.unwrap();
    assert_eq!(look(&running.node), before);
    running.kill().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert_eq!((look(&node), base(&node)), (before, 39));
}

#[tokio::test]
async fn what_has_expired_is_left_out_and_a_longer_time_to_live_does_not_bring_it_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = plain();
    table.indexes[0].ttl = Ttl { kind: TtlKind::Latest, abs: 0, lat: 3 };
    let running = Running::on(Disk::real(), dir.path());
    running.lead_table(KEY, 1, table).await;
    for n in 1..=10 {
        running.put("k0", n, &[b'x'; 1000]).await;
    }
    running.node.make_snapshot(KEY).await.unwrap();
    running.node.look().partitions.get_mut(&KEY).unwrap().store.set_table(Arc::new(plain()));
    assert_eq!(seen(&running.node, KEY, &KEYS).rows.len(), 3);
    let bytes = running.node.look().partitions[&KEY].store.disk();
    assert!((3000..5000).contains(&bytes), "{bytes}");
}

/// Promise 5: unloaded is never served as empty.
#[tokio::test]
async fn a_snapshot_that_does_not_check_out_is_no_empty_partition() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    let run = Running::new(open_on(Disk::real(), config.clone()));
    run.lead(KEY, 1).await;
    fill(&run, 0, 100).await;
    for n in 0..30 {
        run.put("k0", 1000 + n, &[b'x'; 8000]).await;
    }
    run.node.make_snapshot(KEY).await.unwrap();
    fill(&run, 100, 110).await;
    let before = seen(&run.node, KEY, &KEYS);
    run.stop().await;
    let file = snapshots(dir.path()).pop().unwrap();
    let good = stela_common::fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[40] ^= 1;
    stela_common::fs::write(&file, &bad).unwrap();
    // The log still has all of it.
    let node = open_on(Disk::real(), config.clone());
    assert_eq!(all_of(&node, &KEYS), before);
    drop(node);

    stela_common::fs::write(&file, &good).unwrap();
    config.log_keep = 1;
    let run = Running::new(open_on(Disk::real(), config.clone()));
    let start = run.node.log.start();
    run.node.keep_short(&mut |_| false).await;
    assert!(run.node.log.start() > start);
    run.stop().await;
    let quarantined = || {
        let node = open_on(Disk::real(), config.clone());
        let why = seen(&node, KEY, &[]).quarantine.unwrap();
        let may_wait = node.look().partitions[&KEY].core.may_wait(Millis::now());
        assert_eq!(may_wait, Err(stela_replica::message::Refusal::Quarantined));
        why
    };
    stela_common::fs::write(&file, &bad).unwrap();
    assert!(quarantined().ends_with("is not a whole snapshot: 65536 bytes at byte 0 are damaged"));
    assert_eq!(stela_common::fs::read(&file).unwrap(), bad, "it is kept");
    stela_common::fs::remove_file(&file).unwrap();
    assert!(quarantined().starts_with("the log does not have its entries behind 0"));
    stela_common::fs::write(&file, &good).unwrap();
    let node = open_on(Disk::real(), config.clone());
    assert_eq!(all_of(&node, &KEYS), before);
}

#[tokio::test]
async fn a_snapshot_of_another_creation_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead(KEY, 1).await;
    fill(&running, 0, 10).await;
    running.node.make_snapshot(KEY).await.unwrap();
    running.stop().await;
    let files = Files::new(Disk::real(), dir.path().to_owned());
    let mut held = files.tables().unwrap().remove(&KEY.tid).unwrap();
    held.table.created_index += 1;
    files.set_table(&held).unwrap();
    let node = open_on(Disk::real(), config(dir.path()));
    assert!(
        seen(&node, KEY, &[]).quarantine.unwrap().ends_with("of another creation of the table")
    );
}

/// What an unclean election takes back is also taken back of the request ids (R32), although it was committed.
#[tokio::test]
async fn a_cut_below_the_commit_offset_makes_the_request_ids_anew() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead(KEY, 1).await;
    running.request(KEY, (5, 1), vec![row("k0", 1, b"a")]).await;
    running.node.make_snapshot(KEY).await.unwrap();
    running.request(KEY, (5, 2), vec![row("k0", 2, b"b")]).await;
    running.request(KEY, (5, 3), vec![row("k0", 3, b"c")]).await;
    let node = &running.node;
    let mut inner = node.look();
    let p = inner.partitions.get_mut(&KEY).unwrap();
    p.truncated(&node.log, KEY, Offset(2), node.log.end());
    assert_eq!((p.applied, p.last(), p.quarantine.as_deref()), (Offset(2), Offset(2), None));
    assert_eq!(p.dedup.look(5, 1, false), Verdict::Committed(Offset(1)));
    assert_eq!(p.dedup.look(5, 2, false), Verdict::Committed(Offset(2)));
    assert_eq!(p.dedup.look(5, 3, false), Verdict::New);
    assert_eq!(p.store.stored(0, b"k0"), Ok(2));
}

#[tokio::test]
async fn an_error_of_the_disk_leaves_everything_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(stela_common::fs::Recorder::new());
    let running = Running::on(Disk::recording(recorder.clone()), dir.path());
    running.lead(KEY, 1).await;
    fill(&running, 0, 60).await;
    running.node.make_snapshot(KEY).await.unwrap();
    fill(&running, 60, 100).await;
    let (before, files) = (seen(&running.node, KEY, &KEYS), snapshots(dir.path()));
    let mut failed = 0;
    // Every operation of the making fails once.
    for nth in 0.. {
        let mut left = nth;
        recorder.inject(move |op| {
            use stela_common::fs::Op;
            let path = match op {
                Op::Create { path, .. } | Op::Open { path, .. } | Op::Remove { path } => {
                    path.clone()
                }
                Op::Rename { to, .. } => to.clone(),
                Op::SyncDirStart { dir, .. } => dir.join("x"),
                Op::Write { bytes, .. } if bytes.starts_with(b"STELASNP") => {
                    PathBuf::from("snapshots")
                }
                _ => return None,
            };
            if !path.to_string_lossy().contains("snapshots") {
                return None;
            }
            left -= 1;
            (left == -1).then(|| std::io::ErrorKind::StorageFull.into())
        });
        let made = running.node.make_snapshot(KEY).await;
        recorder.heal();
        assert_eq!(seen(&running.node, KEY, &KEYS), before);
        if base(&running.node) > 60 + 2 {
            break;
        }
        let refused = made.unwrap_err();
        assert_eq!(refused.code, stela_common::code::Code::DiskFull, "{refused}");
        assert_eq!(snapshots(dir.path()), files, "{nth}");
        failed += 1;
    }
    assert!(failed >= 4, "{failed}");
    running.put("k0", 999, b"goes on").await;
}

/// R30: of damage in the log only those have to do who need what was there.
#[tokio::test]
async fn damage_before_a_snapshot_s_position_is_no_damage_of_its_partition() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::on(Disk::real(), dir.path());
    running.lead(KEY, 1).await;
    let other = PartitionKey::new(7, 0);
    running.lead(other, 1).await;
    running.put("k0", 1, b"in the snapshot").await;
    running.request(other, (0, 0), vec![row("k0", 1, b"in no snapshot")]).await;
    running.node.make_snapshot(KEY).await.unwrap();
    running.put("k0", 2, b"behind the snapshot").await;
    running.request(other, (0, 0), vec![row("k0", 2, b"whole")]).await;
    running.lead(other, 2).await;
    let rows = seen(&running.node, KEY, &KEYS).rows;
    running.kill().await;
    let segment = dir.path().join("log/0000000000000001.seg");
    let good = stela_common::fs::read(&segment).unwrap();
    let with_damage = |text: &[u8]| {
        let mut bytes = good.clone();
        let at = bytes.windows(text.len()).position(|w| w == text).unwrap();
        bytes[at] ^= 1;
        stela_common::fs::write(&segment, &bytes).unwrap();
        let node = open_on(Disk::real(), config(dir.path()));
        (all_of(&node, &KEYS), seen(&node, other, &[]).quarantine.is_some())
    };
    let (mine, others) = with_damage(b"in the snapshot");
    assert!(mine.quarantine.is_none() && mine.rows == rows && others, "{mine:?}");
    let (mine, others) = with_damage(b"in no snapshot");
    assert!(mine.quarantine.is_none() && mine.rows == rows && others, "{mine:?}");
    let (mine, _) = with_damage(b"behind the snapshot");
    assert!(mine.quarantine.is_some() && mine.last == Offset(1), "{mine:?}");
}

/// H12, R28: where the leader's word is enough, readers see what is not committed; a snapshot does not have it.
#[tokio::test]
async fn what_is_not_committed_is_in_no_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = plain();
    table.options.ack = stela_common::table::Ack::Leader;
    let running = Running::on(Disk::real(), dir.path());
    running.lead_table(KEY, 1, table.clone()).await;
    running.request(KEY, (5, 1), vec![row("k0", 1, b"committed")]).await;
    until("it is committed", || running.node.look().partitions[&KEY].core.commit() == Offset(1))
        .await;
    // Somebody else counts now, and is not there.
    running.told_in_sync(KEY, (1, 2), &[ME, TabletId(2)], table);
    running.request(KEY, (5, 2), vec![row("k0", 2, b"not committed")]).await;
    running.request(KEY, (5, 3), vec![row("k0", 3, b"not committed")]).await;
    let before = seen(&running.node, KEY, &KEYS);
    assert_eq!((before.rows.len(), before.applied), (3, Offset(3)));
    assert_eq!(running.node.make_snapshot(KEY).await, Ok(Offset(1)));
    assert_eq!(seen(&running.node, KEY, &KEYS), before);
    let node = &running.node;
    {
        let mut inner = node.look();
        let p = inner.partitions.get_mut(&KEY).unwrap();
        let snapshot = p.store.snapshot().unwrap().header().clone();
        assert_eq!(Dedup::from(&snapshot.dedup).look(5, 1, true), Verdict::Committed(Offset(1)));
        assert_eq!(Dedup::from(&snapshot.dedup).look(5, 2, true), Verdict::New);
        // They may be taken back.
        p.truncated(&node.log, KEY, Offset(2), node.log.end());
        assert_eq!(p.quarantine, None);
    }
    assert_eq!(seen(node, KEY, &KEYS).rows, before.rows[1..]);
}

/// Rows of a deleted index go by an entry, and what was deleted by it stays deleted in snapshots and after starts.
#[tokio::test]
async fn a_deletion_by_an_index_that_is_deleted_holds() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let mut table = with_times();
    run.lead_table(KEY, 1, table.clone()).await;
    for n in 0..10 {
        let values = [Value::Varchar(format!("a{}", n % 2)), Value::BigInt(n)];
        let value = Bytes::from(row::encode(&table.columns, &values).unwrap());
        let key = Bytes::from(format!("a{}", n % 2));
        let dimensions = (0..2).map(|index| pb::Dimension { index, key: key.clone() }).collect();
        run.request(KEY, (0, 0), vec![pb::Row { time: 1, dimensions, value }]).await;
    }
    let delete = pb::DeleteRequest {
        target: Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 }),
        dimensions: vec![pb::Dimension { index: 1, key: "a1".into() }],
        ..Default::default()
    };
    assert_eq!(run.say(Request::Delete(delete)).await.status.unwrap().code, 0);
    table.indexes[1].deleted = true;
    run.told(KEY, 1, ME, table);
    let left = |node: &Node| {
        let inner = node.look();
        let store = &inner.partitions[&KEY].store;
        (store.stored(0, b"a0").unwrap(), store.stored(0, b"a1").unwrap(), store.emptying(0))
    };
    until("its rows are gone", || left(&run.node) == (5, 0, None)).await;
    run.node.make_snapshot(KEY).await.unwrap();
    assert_eq!(left(&run.node), (5, 0, None));
    run.kill().await;
    let node = open_on(Disk::real(), config(dir.path()));
    assert_eq!(left(&node), (5, 0, None));
}

/// A call that fills an index and was forgotten went on when rows could be deleted again: they came back.
#[tokio::test]
async fn an_index_is_filled_only_while_it_is_being_filled() {
    let dir = tempfile::tempdir().unwrap();
    let run = Running::on(Disk::real(), dir.path());
    let mut table = with_times();
    table.indexes[1].added = stela_common::table::Added { version: 1, filling: true };
    run.lead_table(KEY, 1, table.clone()).await;
    let values = [Value::Varchar("a".into()), Value::BigInt(5)];
    let value = Bytes::from(row::encode(&table.columns, &values).unwrap());
    let put = async |index| {
        let dimensions = vec![pb::Dimension { index, key: "a".into() }];
        let put = pb::PutRequest {
            target: Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 }),
            rows: vec![pb::Row { time: 1, dimensions, value: value.clone() }],
            table_version: 1,
            if_absent: true,
            filling: true,
            ..Default::default()
        };
        run.say(Request::Put(put)).await.status.unwrap().code
    };
    let refused = stela_common::code::Code::AddIndexFailed as i32;
    assert_eq!((put(1).await, put(0).await), (0, refused));
    table.indexes[1].added.filling = false;
    run.told(KEY, 1, ME, table.clone());
    assert_eq!(put(1).await, refused);
}
