//! What is kept on disk, how much of it, and what happens when a part of it is gone.

use std::path::Path;

use stela_meta::RaftConfig;
use stela_meta_state::command::{Command, Reply};

use crate::nodes::{Nodes, create, small, start, until};

fn bytes_in(dir: &Path) -> u64 {
    // A file may be renamed or removed while this looks.
    std::fs::read_dir(dir).unwrap().filter_map(|e| e.ok()?.metadata().ok()).map(|m| m.len()).sum()
}

/// A command that changes one object over and over, of so many bytes.
fn overwrite(bytes: usize) -> Command {
    Command::SetConfig { key: "auto_failover".into(), value: "true".into(), by: "x".repeat(bytes) }
}

#[test]
fn the_log_stays_bounded_under_continuous_writes() {
    let nodes = Nodes::ready(1, small());
    let log = nodes.dir(0).join("log");
    let (mut largest, mut written) = (0, 0);
    // 4 MiB of entries in 1,000 of them, 16 segments of 256 KiB without a purge.
    for _ in 0..1000 {
        assert_eq!(nodes.node(0).propose(overwrite(4 << 10)).unwrap().0, Reply::Done);
        written += 4 << 10;
        largest = largest.max(bytes_in(&log));
    }
    println!("{written} bytes written, the log had at most {largest}");
    // 100 entries until a snapshot, 50 kept behind it, 50 purged at once, rounded to segments, and one to come.
    assert!(largest <= 7 * (256 << 10), "{largest} bytes");
    assert!(nodes.node(0).group.store().applied() > 1000);
}

#[test]
fn the_log_stays_bounded_when_few_entries_are_large() {
    let raft = stela_meta::RaftConfig { snapshot_every: 100_000, keep_entries: 100_000, ..small() };
    let nodes = Nodes::ready(1, raft);
    let log = nodes.dir(0).join("log");
    for _ in 0..200 {
        assert_eq!(nodes.node(0).propose(overwrite(32 << 10)).unwrap().0, Reply::Done);
    }
    until("the log is within its bound", || bytes_in(&log) <= 9 * (256 << 10));
}

#[test]
fn a_follower_that_was_away_for_long_takes_a_snapshot() {
    let mut nodes = Nodes::ready(3, small());
    let leader = nodes.leader();
    let away = (leader + 1) % 3;
    nodes.kill(away);
    for n in 0..500 {
        assert_eq!(nodes.node(leader).propose(create(format!("d{n:03}"))).unwrap().0, Reply::Done);
    }
    nodes.start_all();
    assert_eq!(nodes.node(away).databases().len(), 500);
    nodes.kill(away);
    nodes.start_all();
    assert_eq!(nodes.node(away).databases().len(), 500);
}

#[test]
fn the_applied_state_is_made_again_when_it_is_removed_damaged_or_of_another_time() {
    let mut nodes = Nodes::ready(1, small());
    let applied = nodes.dir(0).join("applied");
    let mut count = 0;
    let mut fill = |nodes: &Nodes, n: usize| {
        for _ in 0..n {
            count += 1;
            assert_eq!(
                nodes.node(0).propose(create(format!("d{count:04}"))).unwrap().0,
                Reply::Done
            );
        }
        count
    };
    fill(&nodes, 130);
    nodes.stop(0);
    copy_dir(&applied, &nodes.path("older"));
    nodes.start_all();
    let total = fill(&nodes, 300);
    // Removed.
    nodes.kill(0);
    std::fs::remove_dir_all(&applied).unwrap();
    nodes.start_all();
    assert_eq!(nodes.node(0).databases().len(), total);
    // Damaged: all over what it holds. (sled may see it itself and begin anew, or it is moved aside.)
    nodes.stop(0);
    let db = applied.join("db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes.iter_mut().step_by(97).for_each(|b| *b ^= 0x55);
    std::fs::write(&db, bytes).unwrap();
    nodes.start_all();
    assert_eq!(nodes.node(0).databases().len(), total);
    // Older than the first entry of the log.
    nodes.stop(0);
    std::fs::remove_dir_all(&applied).unwrap();
    copy_dir(&nodes.path("older"), &applied);
    nodes.start_all();
    assert_eq!(nodes.node(0).databases().len(), total);
}

#[test]
fn a_log_that_was_lost_is_not_taken_for_an_empty_directory() {
    let mut nodes = Nodes::ready(1, RaftConfig::default());
    assert_eq!(nodes.node(0).propose(create("a")).unwrap().0, Reply::Done);
    nodes.stop(0);
    std::fs::rename(nodes.dir(0).join("log"), nodes.path("log")).unwrap();
    let refused = start(&nodes.configs[0]).err().expect("it started").to_string();
    assert!(refused.contains("log is missing"), "{refused}");
    std::fs::create_dir(nodes.dir(0).join("log")).unwrap();
    let refused = start(&nodes.configs[0]).err().expect("it started").to_string();
    assert!(refused.contains("its log is empty"), "{refused}");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}
