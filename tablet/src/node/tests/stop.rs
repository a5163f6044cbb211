//! A clean stop: the next start reads next to nothing, and finds what it would have found in the log.

use super::*;
use crate::store::dedup::Dedup;
use crate::store::places::Places;

const KEYS: [&str; 3] = ["a", "b", "c"];

fn file(dir: &Path) -> PathBuf {
    dir.join("index.checkpoint")
}

/// A tablet with a snapshot, rows behind it, a deletion, and a tail that is not committed; stopped.
async fn stopped(dir: &Path) -> Seen {
    let run = Running::on(Disk::real(), dir);
    run.lead(KEY, 1).await;
    for n in 1..=700 {
        run.request(KEY, (5, n), vec![row(KEYS[n as usize % 3], n, b"value")]).await;
        if n == 300 {
            run.node.make_snapshot(KEY).await.unwrap();
        }
    }
    run.delete("b").await;
    // The other member never comes: what is written now stays uncommitted.
    run.told_in_sync(KEY, (1, 2), &[ME, TabletId(2)], plain());
    let target = Some(pb::Target { tid: KEY.tid.0, pid: KEY.pid.0, epoch: 0 });
    let rows = vec![row("a", 9999, b"not committed")];
    let (sender, _receiver) = oneshot::channel();
    let put = pb::PutRequest { target, session: 5, seq: 701, rows, ..Default::default() };
    run.inbox.offer(Request::Put(put), Caller::Unary(sender));
    until("it is in the log", || run.node.look().partitions[&KEY].last() == Offset(702)).await;
    let seen = seen(&run.node, KEY, &KEYS);
    assert_eq!((seen.last, seen.applied), (Offset(702), Offset(701)));
    run.stop().await;
    seen
}

/// All that a replica is.
#[derive(PartialEq, Debug)]
struct State {
    seen: Seen,
    replay_from: Position,
    epoch: Epoch,
    dedup: Dedup,
    places: Places,
    grown: u64,
}

/// Whether a start takes the checkpoint, and what it finds; with `all` that the log has taken as committed.
fn found(dir: &Path, all: bool) -> (bool, State) {
    let files = Files::new(Disk::real(), dir.to_owned());
    let (node, pending) =
        start::open(config(dir), Disk::real(), files, CancellationToken::new()).unwrap();
    let taken = pending.iter().any(loading::Pending::is_saved);
    loading::run(&node, pending);
    assert!(!stela_common::fs::exists(file(dir)), "it has done what it is for");
    node.look().adopt(&node, ME);
    let seen = if all { all_of(&node, &KEYS) } else { seen(&node, KEY, &KEYS) };
    let inner = node.look();
    let p = &inner.partitions[&KEY];
    let state = State {
        seen,
        replay_from: p.replay_from(),
        epoch: p.epoch,
        dedup: p.dedup.clone(),
        places: p.places.clone(),
        grown: p.store.grown(),
    };
    (taken, state)
}

#[tokio::test]
async fn the_next_start_reads_no_entry_and_finds_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let before = stopped(dir.path()).await;
    let (copy, without) = (copy_of(dir.path()), copy_of(dir.path()));
    let (taken, state) = found(copy.path(), false);
    assert!(taken);
    assert_eq!(state.seen, before);
    // From the log: nobody has said how much of it is committed.
    Disk::real().remove_file(&file(without.path())).unwrap();
    let (taken, from_log) = found(without.path(), true);
    assert!(!taken);
    let (taken, state) = found(dir.path(), true);
    assert!(taken);
    assert_eq!(state, from_log);
}

/// Any of it: not one byte makes a start fail, or find something else.
#[tokio::test]
async fn a_checkpoint_that_rots_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    let whole = stela_common::fs::read(file(dir.path())).unwrap();
    let (_, want) = found(copy_of(dir.path()).path(), true);
    for at in (0..whole.len()).step_by(whole.len() / 13).chain([8, whole.len() - 1]) {
        let rotten = copy_of(dir.path());
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        stela_common::fs::write(file(rotten.path()), &bytes).unwrap();
        let (taken, state) = found(rotten.path(), true);
        assert!(!taken, "byte {at}");
        assert_eq!(state, want, "byte {at}");
    }
    let short = copy_of(dir.path());
    stela_common::fs::write(file(short.path()), &whole[..whole.len() / 2]).unwrap();
    assert_eq!(found(short.path(), true), (false, want));
}

/// A start that was killed has left it behind, and the log went on.
#[tokio::test]
async fn a_checkpoint_of_an_earlier_stop_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    let old = stela_common::fs::read(file(dir.path())).unwrap();
    let run = Running::on(Disk::real(), dir.path());
    run.lead(KEY, 2).await;
    run.put("a", 10_000, b"later").await;
    run.stop().await;
    let newer = copy_of(dir.path());
    stela_common::fs::write(file(dir.path()), &old).unwrap();
    let (taken, state) = found(dir.path(), true);
    assert!(!taken);
    assert_eq!(found(newer.path(), true), (true, state));

    // Nor one of another tablet.
    let other = tempfile::tempdir().unwrap();
    stopped(other.path()).await;
    stela_common::fs::write(file(other.path()), &old).unwrap();
    assert!(!found(other.path(), true).0);
}

/// What it says of a log that was not closed is not known to be on disk.
#[tokio::test]
async fn a_crash_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    stopped(dir.path()).await;
    let run = Running::on(Disk::real(), dir.path());
    run.lead(KEY, 2).await;
    run.kill().await;
    assert!(!stela_common::fs::exists(file(dir.path())));
    assert!(!found(dir.path(), true).0);
}

/// A copy of a directory that nobody writes.
fn copy_of(dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut dirs = vec![PathBuf::new()];
    while let Some(at) = dirs.pop() {
        for path in stela_common::fs::read_dir(dir.join(&at)).unwrap() {
            let name = at.join(path.file_name().unwrap());
            if path.is_dir() {
                stela_common::fs::create_dir_all(&Disk::real(), copy.path().join(&name)).unwrap();
                dirs.push(name);
            } else {
                let bytes = stela_common::fs::read(&path).unwrap();
                stela_common::fs::write(copy.path().join(&name), &bytes).unwrap();
            }
        }
    }
    copy
}
