//! The log has a bound, whoever would pin it (R29), and what it gave back is not missed.

use super::*;

const OTHER: PartitionKey = PartitionKey { tid: TableId(7), pid: PartitionId(0) };

fn short(dir: &Path) -> Config {
    let mut config = config(dir);
    config.log_keep = 512 << 10;
    config.snapshots.grown = 128 << 10;
    config
}

fn running(dir: &Path) -> Running {
    Running::new(open_on(Disk::real(), short(dir)))
}

/// So many KiB.
async fn write(running: &Running, kib: u64, seed: u64) {
    for n in 0..kib / 4 {
        running.put(&format!("k{}", n % 10), seed + n + 1, &[b'x'; 4096]).await;
    }
}

async fn keep_short(running: &Running) {
    running.node.keep_short(&mut |_| true).await;
}

fn segments(running: &Running) -> usize {
    running.node.log.size().segments
}

#[tokio::test]
async fn the_log_is_given_back_behind_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    run.lead(KEY, 1).await;
    for round in 0..6 {
        write(&run, 400, round * 1000).await;
        keep_short(&run).await;
        assert!(segments(&run) <= 8, "{}", segments(&run));
    }
    assert!(run.node.log.start() > Position(1 << 20));
    // Of what was just given back nothing is looked for any more.
    let floor = run.node.look().partitions[&KEY].floor();
    assert!(floor > Offset(300) && floor < run.node.look().partitions[&KEY].last());
    {
        let inner = run.node.look();
        let p = &inner.partitions[&KEY];
        let first = p.place(&run.node.log, KEY, floor).unwrap();
        assert!(first >= run.node.log.start());
        assert!(p.place(&run.node.log, KEY, Offset(floor.0 - 1)).is_err());
    }
    let before = seen(&run.node, KEY, &["k0", "k7"]);
    assert_eq!(before.rows.len(), 120);
    run.kill().await;
    let run = running(dir.path());
    // What the log still has before the snapshot's position is there for followers.
    let again = run.node.look().partitions[&KEY].floor();
    assert!(again <= Offset(floor.0 + 8), "{again} {floor}");
    run.lead(KEY, 2).await;
    assert_eq!(seen(&run.node, KEY, &["k0", "k7"]), before);
}

/// H23.
#[tokio::test]
async fn a_partition_that_writes_rarely_or_never_does_not_pin_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    let never = PartitionKey::new(7, 5);
    for key in [KEY, OTHER, never] {
        run.lead(key, 1).await;
    }
    // An epoch with no entry at all: R2 asks for it after a restart.
    run.lead(never, 9).await;
    run.request(OTHER, (3, 1), vec![row("rare", 1, b"one")]).await;
    for round in 0..4 {
        write(&run, 800, round * 1000).await;
        keep_short(&run).await;
    }
    assert!(segments(&run) <= 8, "{}", segments(&run));
    let rare = seen(&run.node, OTHER, &["rare"]);
    assert_eq!(rare.rows.len(), 1);
    run.stop().await;
    let run = running(dir.path());
    assert_eq!(seen(&run.node, OTHER, &["rare"]), rare);
    {
        let inner = run.node.look();
        assert_eq!(inner.partitions[&never].epoch, Epoch(9));
        assert_eq!(inner.partitions[&OTHER].epoch, Epoch(1));
        assert_eq!(inner.partitions[&never].quarantine, None);
    }
    // And goes on from there.
    run.lead(OTHER, 2).await;
    assert_eq!(run.request(OTHER, (3, 1), vec![row("rare", 1, b"one")]).await, 1);
    assert_eq!(run.request(OTHER, (3, 2), vec![row("rare", 2, b"two")]).await, 2);
    run.kill().await;
    let run = running(dir.path());
    assert_eq!(run.node.look().partitions[&OTHER].last(), Offset(2));
}

/// H23, R29: what it has is kept, as a snapshot and as records, and it stays damaged.
#[tokio::test]
async fn a_damaged_copy_does_not_pin_the_log_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    run.lead(KEY, 1).await;
    run.lead(OTHER, 1).await;
    for n in 1..=5 {
        run.request(OTHER, (0, 0), vec![row("rare", n, b"one")]).await;
    }
    run.node.quarantine(&mut run.node.look(), OTHER, "for a test".into());
    for round in 0..4 {
        write(&run, 800, round * 1000).await;
        keep_short(&run).await;
    }
    assert!(segments(&run) <= 8, "{}", segments(&run));
    assert_eq!(seen(&run.node, OTHER, &["rare"]).rows.len(), 5);
    run.stop().await;
    let run = running(dir.path());
    let after = seen(&run.node, OTHER, &["rare"]);
    assert_eq!((after.rows.len(), after.last), (5, Offset(5)));
    assert_eq!(after.quarantine.as_deref(), Some("for a test"));
}

/// R37: nothing of it is lost.
#[tokio::test]
async fn a_copy_without_a_table_does_not_pin_the_log_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    let foreign = Table { tid: TableId(8), ..plain() };
    let orphan = PartitionKey::new(8, 0);
    run.lead_table(orphan, 1, foreign).await;
    for n in 1..=5 {
        run.request(orphan, (0, 0), vec![row("rare", n, b"one")]).await;
    }
    run.lead(KEY, 1).await;
    run.stop().await;
    let files = Files::new(Disk::real(), dir.path().to_owned());
    files.remove_table(TableId(8)).unwrap();
    let run = running(dir.path());
    run.lead(KEY, 2).await;
    assert_eq!(run.node.look().orphans[&orphan].last, Offset(5));
    for round in 0..4 {
        write(&run, 800, round * 1000).await;
        keep_short(&run).await;
    }
    assert!(segments(&run) <= 8, "{}", segments(&run));
    let kept = stela_common::fs::read_dir(files.lost_and_found()).unwrap();
    let raw = stela_common::fs::read(&kept[0]).unwrap();
    assert_eq!(stela_common::log::parse(&raw).filter(Result::is_ok).count(), 5);
    assert!(run.node.look().orphans[&orphan].damage.is_some());
}

#[tokio::test]
async fn a_pin_keeps_the_log_until_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    run.lead(KEY, 1).await;
    let start = run.node.log.start();
    let pin = run.node.pin(start);
    for round in 0..3 {
        write(&run, 800, round * 1000).await;
        keep_short(&run).await;
    }
    assert_eq!(run.node.log.start(), start);
    drop(pin);
    keep_short(&run).await;
    assert!(segments(&run) <= 8);
}

#[tokio::test]
async fn snapshots_are_made_when_they_are_due() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.snapshots.every = 10;
    let run = Running::new(open_on(Disk::real(), config));
    run.lead(KEY, 1).await;
    let base = || run.node.look().partitions[&KEY].store.base();
    for n in 1..=9 {
        run.put("k", n, b"v").await;
    }
    keep_short(&run).await;
    assert_eq!(base(), Offset(0));
    run.put("k", 10, b"v").await;
    keep_short(&run).await;
    assert_eq!(base(), Offset(10));
    run.node.keep_short(&mut |_| panic!("nothing is due")).await;
}

/// Entries that were void already when the log was given back up to the middle of them are not missed.
#[tokio::test]
async fn void_entries_of_which_a_part_is_gone_are_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let run = running(dir.path());
    run.lead(KEY, 1).await;
    run.put("k", 1, b"kept").await;
    run.node.make_snapshot(KEY).await.unwrap();
    write(&run, 300, 10).await;
    run.node.act(|inner, work| {
        let node = &run.node;
        let append = |kind, offset| {
            let record = stela_common::log::NewRecord {
                kind,
                partition: KEY,
                offset: Offset(offset),
                epoch: Epoch(1),
                commit_lag: 0,
                body: &[],
            };
            node.log.append(&[record]).unwrap().positions[0]
        };
        let cut = append(stela_common::log::Kind::Truncate, 1);
        inner.partitions.get_mut(&KEY).unwrap().truncated(&node.log, KEY, Offset(1), cut);
        let _ = work;
    });
    run.lead(OTHER, 1).await;
    for n in 0..100 {
        run.request(OTHER, (0, 0), vec![row("o", n, &[b'x'; 4096])]).await;
    }
    let mut config = short(dir.path());
    run.kill().await;
    // So short that the bound lies between the void entries.
    config.log_keep = 4 * (500 << 10);
    let run = Running::new(open_on(Disk::real(), config.clone()));
    let voided = run.node.log.start();
    keep_short(&run).await;
    assert!(run.node.log.start() > voided);
    run.kill().await;
    let node = open_on(Disk::real(), config);
    let after = seen(&node, KEY, &["k"]);
    assert_eq!((after.last, after.quarantine), (Offset(1), None));
}
