//! The storage as the library expects it, and what of it survives a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite, log_id};
use openraft::{EntryPayload, RaftLogReader, RaftSnapshotBuilder};
use stela_common::fs;
use stela_meta_state::command::{Batch, Command, Proposal, Reply};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::log::LogStore;
use super::machine::Machine;
use super::types::{Entry, LogId, Membership, Payload, Peer, StorageError, TypeConfig, Vote};
use crate::config::Config;
use crate::error::StartError;
use crate::group::Group;
use crate::run::run_with;

const SEGMENT: u64 = 64 << 10;

fn open_log(dir: &Path) -> Result<LogStore, StartError> {
    LogStore::open(&dir.join("log"), SEGMENT, Arc::new(()), |e| panic!("a sync failed: {e}"))
}

fn open(dir: &Path) -> Result<(LogStore, Machine), StartError> {
    let log = open_log(dir)?;
    let machine = Machine::open(dir, &log, Arc::new(()))?;
    Ok((log, machine))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let (log, machine) = open(dir.path()).unwrap();
        Ok((dir, log, machine))
    }
}

#[test]
fn the_librarys_own_suite_passes() {
    Suite::test_all(Builder).unwrap();
}

fn entry(term: u64, index: u64, name: &str) -> Entry {
    let proposal =
        Proposal { request: None, now: 1, command: Command::CreateDatabase { name: name.into() } };
    let payload = Payload::encode(Batch { commands: vec![proposal] }).unwrap();
    Entry { log_id: log_id(term, 1, index), payload: EntryPayload::Normal(payload) }
}

fn entries(term: u64, range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index, &format!("d{index}"))).collect()
}

fn first_entry() -> Entry {
    let peer = Peer { endpoint: "a:1".into(), dir_uuid: "u".into() };
    let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, peer)]));
    Entry { log_id: log_id(0, 0, 0), payload: EntryPayload::Membership(membership) }
}

async fn all(log: &mut LogStore) -> Vec<Entry> {
    log.try_get_log_entries(..).await.unwrap()
}

#[tokio::test]
async fn votes_entries_truncations_and_purges_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let vote = Vote::new_committed(3, 2);
    let kept: Vec<Entry> = {
        let mut log = open_log(dir.path()).unwrap();
        assert!(log.ends().pristine);
        log.save_vote(&Vote::new(2, 1)).await.unwrap();
        log.blocking_append([first_entry()]).await.unwrap();
        log.blocking_append(entries(1, 1..10)).await.unwrap();
        log.save_vote(&vote).await.unwrap();
        log.truncate(log_id(1, 1, 8)).await.unwrap();
        log.save_committed(Some(log_id(1, 1, 7))).await.unwrap();
        log.blocking_append(entries(3, 8..12)).await.unwrap();
        log.purge(log_id(1, 1, 4)).await.unwrap();
        all(&mut log).await
    };
    assert_eq!(
        kept.iter().map(|e| e.log_id.index).collect::<Vec<_>>(),
        (5..12).collect::<Vec<_>>()
    );
    let mut log = open_log(dir.path()).unwrap();
    assert_eq!(all(&mut log).await, kept);
    assert_eq!(log.read_vote().await.unwrap(), Some(vote));
    assert_eq!(log.read_committed().await.unwrap(), Some(log_id(1, 1, 7)));
    let state = log.get_log_state().await.unwrap();
    assert_eq!(
        (state.last_purged_log_id, state.last_log_id),
        (Some(log_id(1, 1, 4)), Some(log_id(3, 1, 11)))
    );
    assert_eq!(log.id_at(9), Some(log_id(3, 1, 9)));
    assert!(!log.ends().pristine);
}

#[tokio::test]
async fn a_vote_outlives_the_segment_that_it_was_written_to() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut log = open_log(dir.path()).unwrap();
        log.save_vote(&Vote::new(7, 3)).await.unwrap();
        let long = "x".repeat(2 << 10);
        for index in 0..200 {
            log.blocking_append([entry(7, index, &long)]).await.unwrap();
            if index > 20 {
                log.purge(log_id(7, 1, index - 10)).await.unwrap();
            }
        }
        assert!(log.bytes() <= 4 * SEGMENT, "{} bytes", log.bytes());
    }
    let mut log = open_log(dir.path()).unwrap();
    assert_eq!(log.read_vote().await.unwrap(), Some(Vote::new(7, 3)));
    assert_eq!(log.ends().purged, Some(log_id(7, 1, 189)));
    assert_eq!(all(&mut log).await.len(), 10);
}

#[tokio::test]
async fn a_purge_beyond_the_end_begins_anew_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut log = open_log(dir.path()).unwrap();
        log.blocking_append([first_entry()]).await.unwrap();
        log.blocking_append(entries(1, 1..5)).await.unwrap();
        log.purge(log_id(2, 1, 100)).await.unwrap();
        log.blocking_append(entries(2, 101..104)).await.unwrap();
    }
    let mut log = open_log(dir.path()).unwrap();
    assert_eq!(log.ends().last, Some(log_id(2, 1, 103)));
    assert_eq!(all(&mut log).await, entries(2, 101..104));
}

/// Applies entries 0 to `to` of a log that holds them.
async fn filled(dir: &Path, to: u64) -> (LogStore, Machine) {
    let (mut log, mut machine) = open(dir).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    log.blocking_append([first_entry()]).await.unwrap();
    log.blocking_append(entries(1, 1..to + 1)).await.unwrap();
    let replies = machine.apply(all(&mut log).await).await.unwrap();
    assert!(replies.iter().skip(1).all(|r| *r == [Reply::Done]));
    (log, machine)
}

fn names(machine: &Machine) -> usize {
    machine.store().read(|state| state.databases.len())
}

async fn last(machine: &mut Machine) -> Option<LogId> {
    machine.applied_state().await.unwrap().0
}

#[tokio::test]
async fn the_state_is_there_after_a_clean_stop_and_after_none() {
    let dir = tempfile::tempdir().unwrap();
    let (log, machine) = filled(dir.path(), 20).await;
    machine.close();
    drop((log, machine));
    let (mut log, mut machine) = open(dir.path()).unwrap();
    assert_eq!((last(&mut machine).await, names(&machine)), (Some(log_id(1, 1, 20)), 20));
    let membership = machine.applied_state().await.unwrap().1;
    assert_eq!(*membership.log_id(), Some(log_id(0, 0, 0)));
    log.blocking_append(entries(1, 21..31)).await.unwrap();
    machine.apply(log.try_get_log_entries(21..31).await.unwrap()).await.unwrap();
    // No clean stop: the copy on disk may be behind, never wrong.
    drop((log, machine));
    let (mut log, mut machine) = open(dir.path()).unwrap();
    let behind = last(&mut machine).await.unwrap().index;
    assert!((20..=30).contains(&behind) && names(&machine) as u64 == behind);
    machine.apply(log.try_get_log_entries(behind + 1..31).await.unwrap()).await.unwrap();
    assert_eq!(names(&machine), 30);
}

#[tokio::test]
async fn without_its_copy_the_state_comes_from_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (log, mut machine) = filled(dir.path(), 20).await;
    let snapshot = machine.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id, Some(log_id(1, 1, 20)));
    machine.close();
    drop((log, machine));
    fs::remove_dir_all(dir.path().join("applied")).unwrap();
    let (mut log, mut machine) = open(dir.path()).unwrap();
    assert_eq!((last(&mut machine).await, names(&machine)), (Some(log_id(1, 1, 20)), 20));
    assert_eq!(all(&mut log).await.len(), 21);
    machine.close();
    drop((log, machine));
    // What was made again is on disk, too.
    let (_log, mut machine) = open(dir.path()).unwrap();
    assert_eq!((last(&mut machine).await, names(&machine)), (Some(log_id(1, 1, 20)), 20));
}

#[tokio::test]
async fn a_copy_that_is_ahead_of_the_log_or_of_another_one_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let (log, machine) = filled(dir.path(), 20).await;
    machine.close();
    drop((log, machine));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    {
        let mut log = open_log(dir.path()).unwrap();
        log.blocking_append([first_entry()]).await.unwrap();
        log.blocking_append(entries(1, 1..11)).await.unwrap();
    }
    let (mut log, mut machine) = open(dir.path()).unwrap();
    assert_eq!((last(&mut machine).await, names(&machine)), (None, 0));
    assert!(fs::exists(dir.path().join("applied.bad-1")));
    machine.apply(all(&mut log).await).await.unwrap();
    assert_eq!(names(&machine), 10);
    machine.close();
    drop((log, machine));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    {
        let mut log = open_log(dir.path()).unwrap();
        log.blocking_append([first_entry()]).await.unwrap();
        log.blocking_append(entries(2, 1..31)).await.unwrap();
    }
    let (_log, mut machine) = open(dir.path()).unwrap();
    assert_eq!(last(&mut machine).await, None, "entry 10 of this log is another one");
}

#[tokio::test]
async fn what_reaches_to_the_first_entry_of_the_log_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, machine) = filled(dir.path(), 20).await;
    log.purge(log_id(1, 1, 15)).await.unwrap();
    machine.close();
    drop((log, machine));
    fs::remove_dir_all(dir.path().join("applied")).unwrap();
    let refused = open(dir.path()).err().expect("it opened").to_string();
    assert!(refused.contains("neither its snapshot nor its applied state"), "{refused}");
}

#[tokio::test]
async fn an_installed_snapshot_is_the_state_and_stays_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (_log, mut machine) = filled(from.path(), 20).await;
    let snapshot = machine.build_snapshot().await.unwrap();
    {
        let (_log, mut other) = filled(to.path(), 5).await;
        other.install_snapshot(&snapshot.meta, snapshot.snapshot).await.unwrap();
        assert_eq!(names(&other), 20);
        assert_eq!(other.store().changed_since(5), None, "what changed is not known any more");
    }
    let (_log, mut other) = open(to.path()).unwrap();
    assert_eq!((last(&mut other).await, names(&other)), (Some(log_id(1, 1, 20)), 20));
}

/// O15: a library that has ended for itself ends the process.
#[tokio::test]
async fn a_dead_core_ends_the_nameserver_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b]: [u8; 2] = rand::random();
    let endpoint = format!("127.{}.{}.1:7001", a.clamp(1, 254), b);
    let config = Config::new(endpoint.clone(), vec![endpoint], dir.path().join("ns"), "c".into());
    let config = Config { bootstrap: true, ..config };
    let (tell, group) = tokio::sync::oneshot::channel();
    let (told, ready) = tokio::sync::oneshot::channel();
    let attach = move |group: &Group, _: &mut _| assert!(tell.send(group.clone()).is_ok());
    let running =
        run_with(config, CancellationToken::new(), move |_| told.send(()).unwrap(), attach);
    let running = tokio::spawn(running);
    let group = group.await.unwrap();
    ready.await.unwrap();
    assert!(group.leadership().borrow().here);
    group.seat().member().unwrap().raft.shutdown().await.unwrap();
    let ended = running.await.unwrap().unwrap_err();
    assert!(matches!(ended, StartError::Raft { .. }), "{ended}");
    assert!(!group.leadership().borrow().here);
}
