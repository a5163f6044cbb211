//! The client against nameservers and tablets that do what a test says.

mod fake;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use parking_lot::Mutex;
use stela_proto::tablet as pb;

use self::fake::{
    Act, Meta, client, ids, key, nameserver, no, stored, table_row, tablet, tablet_of,
};
use super::*;

const SHORT: Duration = Duration::from_secs(5);

/// A script that goes through its list, and then stores everything.
fn steps(
    list: Vec<Act<pb::answer::Kind>>,
) -> impl FnMut(&pb::Call) -> Act<pb::answer::Kind> + Send {
    let mut list = list.into_iter();
    move |_| list.next().unwrap_or_else(|| stored(1))
}

#[tokio::test]
async fn a_redirect_follows_the_hint() {
    let new = tablet(|_| stored(9)).await;
    let hint = new.endpoint.clone();
    let old = tablet(move |_| no(Code::TableIsFollower, &hint, 2)).await;
    let (client, table, server, _) =
        client(table_row(&[&old.endpoint], &[&old.endpoint]), SHORT).await;
    // The nameserver is not needed for it.
    drop(server);
    let outcome = client.put(&table, vec![table.plain("k", "v", 1)]).await.unwrap();
    assert_eq!(outcome.parts[0].offset, 9);
    assert_eq!(table.leader(0), Some(new.endpoint.clone()));
    assert_eq!(ids(&old), ids(&new), "the redirected request is the same one");
    client.put(&table, vec![table.plain("k", "v", 2)]).await.unwrap();
    assert_eq!((old.seen.lock().len(), new.seen.lock().len()), (1, 2), "the hint is remembered");
}

#[tokio::test]
async fn a_retry_keeps_the_request_id() {
    // The first one establishes the session; then a lost connection, an unanswered request, and refusals that pass.
    let list = vec![
        stored(1),
        Act::HangUp,
        Act::Ignore,
        no(Code::LeaseExpired, "", 1),
        no(Code::NotServing, "", 1),
        no(Code::TableNotFound, "", 0),
        no(Code::Busy, "", 0),
        no(Code::NotEnoughInSync, "", 1),
    ];
    let fake = tablet(steps(list)).await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    for n in 1..=3 {
        client.put(&table, vec![table.plain("k", "v", n)]).await.unwrap();
    }
    let ids = ids(&fake);
    let session = ids[0].0;
    let mut expected = vec![(session, 1)];
    expected.extend([(session, 2); 8]);
    expected.push((session, 3));
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn an_unknown_outcome_of_a_first_attempt_opens_a_new_session() {
    let fake = tablet(steps(vec![stored(1), no(Code::UnknownOutcome, "", 1)])).await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    for n in 1..=2 {
        client.put(&table, vec![table.plain("k", "v", n)]).await.unwrap();
    }
    let ids = ids(&fake);
    assert_eq!(ids.iter().map(|(_, seq)| *seq).collect::<Vec<_>>(), [1, 2, 1]);
    assert_eq!(ids[0].0, ids[1].0);
    assert_ne!(ids[1].0, ids[2].0);
}

#[tokio::test]
async fn an_unknown_outcome_of_a_repeat_is_reported() {
    for first in [Act::HangUp, no(Code::LeaseExpired, "", 1), no(Code::TableIsFollower, "", 1)] {
        let fake = tablet(steps(vec![stored(1), first, no(Code::UnknownOutcome, "", 1)])).await;
        let (client, table, _server, _) =
            client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
        client.put(&table, vec![table.plain("k", "v", 1)]).await.unwrap();
        let error = client.put(&table, vec![table.plain("k", "v", 2)]).await.unwrap_err();
        assert!(matches!(error, WriteError::Unknown(_)), "{error:?}");
        // The session is not used again.
        client.put(&table, vec![table.plain("k", "v", 3)]).await.unwrap();
        assert_eq!(ids(&fake).last().unwrap().1, 1);
    }
}

#[tokio::test]
async fn refusals_are_told_apart_from_doubt() {
    let fake =
        tablet(steps(vec![no(Code::DiskFull, "", 1), Act::HangUp, no(Code::DiskFull, "", 1)]))
            .await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    let put = || client.put(&table, vec![table.plain("k", "v", 1)]);
    assert_eq!(put().await, Err(WriteError::Refused(Code::DiskFull.into())));
    assert!(
        matches!(put().await, Err(WriteError::Unknown(_))),
        "the first attempt may have been applied"
    );
    let huge = client.put(&table, vec![table.plain("k", vec![0; 9 << 20], 1)]).await;
    assert!(matches!(huge, Err(WriteError::Refused(r)) if r.code == Code::TooLarge));
}

#[tokio::test]
async fn a_dead_leader_is_a_refusal_at_the_deadline_and_a_silent_one_is_doubt() {
    let fake = tablet(|_| Act::Ignore).await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), Duration::from_millis(600)).await;
    let put = || client.put(&table, vec![table.plain("k", "v", 1)]);
    assert!(matches!(put().await, Err(WriteError::Unknown(_))));
    drop(fake);
    // The client may not have noticed yet, and send one more into the connection that is gone.
    let _ = put().await;
    let began = Instant::now();
    let error = put().await.unwrap_err();
    assert!(matches!(&error, WriteError::Refused(r) if r.code == Code::RpcFailed), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_new_leader_is_learned_from_the_nameservers() {
    let (old, new) = (tablet(|_| stored(1)).await, tablet(|_| stored(2)).await);
    let (client, table, _server, meta) =
        client(table_row(&[&old.endpoint], &[&old.endpoint]), SHORT).await;
    client.put(&table, vec![table.plain("k", "v", 1)]).await.unwrap();
    let mut row = table_row(&[&new.endpoint], &[&old.endpoint, &new.endpoint]);
    row.partitions[0].epoch = 2;
    // The dead leader keeps its role until it is back in sync.
    row.partitions[0].replicas[0].leader = true;
    row.partitions[0].replicas[0].alive = false;
    drop(old);
    let later = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        meta.tables.lock()[0] = row;
        Instant::now()
    });
    let outcome = client.put(&table, vec![table.plain("k", "v", 2)]).await.unwrap();
    assert_eq!(outcome.parts[0].offset, 2);
    assert!(
        later.await.unwrap().elapsed() < Duration::from_millis(400),
        "the change is noticed at once"
    );
}

/// A deletion that may have been sent before, and is told that the table has a new index, was in doubt at once.
#[tokio::test]
async fn a_repeated_deletion_learns_of_a_new_index() {
    let mut attempts = 0;
    let fake = tablet(move |call| {
        let Some(pb::call::Kind::Delete(delete)) = &call.kind else { return stored(1) };
        attempts += 1;
        match (attempts, delete.table_version) {
            (1, _) => Act::HangUp,
            (_, 0) => no(Code::StaleTable, "", 1),
            _ => stored(2),
        }
    });
    let fake = fake.await;
    let (client, table, _server, meta) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    let add = |meta: &Meta| {
        let table = &mut meta.tables.lock()[0];
        let indexes = &mut table.table.as_mut().unwrap().indexes;
        indexes.push(stela_proto::common::Index {
            name: "new".into(),
            version: 1,
            ..indexes[0].clone()
        });
    };
    add(&meta);
    let deleted = client.delete(&table, 0, b"k", Deletion::default()).await.unwrap();
    assert_eq!(deleted.parts[0].offset, 2);
    // The nameservers do not have it in time: part of it may have been deleted.
    let newer = tablet(|_| no(Code::StaleTable, "", 1)).await;
    let row = table_row(&[&newer.endpoint], &[&newer.endpoint]);
    let (client, table, _server, _) = fake::client(row, Duration::from_millis(300)).await;
    let error = client.delete(&table, 0, b"k", Deletion::default()).await.unwrap_err();
    assert!(matches!(error, WriteError::Unknown(_)), "{error:?}");
}

/// Whether a row is there was asked of its first key alone, also for an index that had been added: it was not brought there.
#[tokio::test]
async fn what_is_stored_if_it_is_absent_is_looked_for_in_an_added_index_too() {
    let fake = tablet(|_| stored(1)).await;
    let mut row = table_row(&[&fake.endpoint], &[&fake.endpoint]);
    let indexes = &mut row.table.as_mut().unwrap().indexes;
    for (name, version) in [("second", 0), ("added", 1)] {
        let index = stela_proto::common::Index { name: name.into(), version, ..indexes[0].clone() };
        indexes.push(index);
    }
    let (client, table, _server, _) = client(row, SHORT).await;
    let dimensions = (0..3).map(|index| (index, "k".into())).collect();
    let row = Row { time: 1, dimensions, value: "v".into() };
    let asked = |fake: &fake::Fake<pb::Call>| -> Vec<Vec<u32>> {
        let call = fake.seen.lock().pop().unwrap();
        let Some(pb::call::Kind::Put(put)) = call.kind else { panic!("not a put") };
        put.rows.iter().map(|r| r.dimensions.iter().map(|d| d.index).collect()).collect()
    };
    client.put_if_absent(&table, vec![row.clone()]).await.unwrap();
    assert_eq!(asked(&fake), [vec![0, 1], vec![2]]);
    client.put(&table, vec![row]).await.unwrap();
    assert_eq!(asked(&fake), [vec![0, 1, 2]]);
}

#[tokio::test]
async fn a_dropped_table_is_a_refusal() {
    let fake = tablet(|_| no(Code::TableNotFound, "", 0)).await;
    let (client, table, _server, meta) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    meta.tables.lock().clear();
    let error = client.put(&table, vec![table.plain("k", "v", 1)]).await.unwrap_err();
    assert!(matches!(&error, WriteError::Refused(r) if r.code == Code::TableNotFound), "{error:?}");
    assert!(client.table("db", "t").await.is_err());
}

#[tokio::test]
async fn at_most_64_are_unanswered_per_partition() {
    // The first is answered at once, the others never.
    let fake =
        tablet(steps(std::iter::once(stored(1)).chain((0..300).map(|_| Act::Ignore)).collect()))
            .await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    let puts = (0..300).map(|n| client.put(&table, vec![table.plain("k", "v", n)])).map(Box::pin);
    let mut puts = std::pin::pin!(join_all(puts));
    let mut arrived = async |count: usize, patience: Duration| {
        let deadline = Instant::now() + patience;
        while fake.seen.lock().len() < count && Instant::now() < deadline {
            let pause = tokio::time::sleep(Duration::from_millis(5));
            futures::future::select(&mut puts, std::pin::pin!(pause)).await;
        }
        fake.seen.lock().len()
    };
    assert_eq!(arrived(65, SHORT).await, 65);
    assert_eq!(arrived(66, Duration::from_millis(300)).await, 65, "the others wait");
}

#[tokio::test]
async fn many_callers_share_frames() {
    let frames = Arc::new(Mutex::new(0));
    let fake = tablet_of("test", frames.clone(), |_| stored(1)).await;
    let (client, table, _server, _) =
        client(table_row(&[fake.endpoint.as_str(); 8], &[&fake.endpoint]), SHORT).await;
    let work = |caller: u64| {
        let (client, table) = (&client, &table);
        async move {
            for n in 0..100 {
                client.put(table, vec![table.plain(format!("k{caller}"), "v", n)]).await.unwrap();
            }
        }
    };
    join_all((0..50).map(work)).await;
    let (frames, calls) = (*frames.lock(), fake.seen.lock().len());
    assert_eq!(calls, 5000);
    assert!(frames * 2 < calls, "{frames} frames for {calls} calls");
}

#[tokio::test]
async fn rows_are_one_request_per_partition() {
    let (good, bad) = (tablet(|_| stored(5)).await, tablet(|_| no(Code::DiskFull, "", 1)).await);
    let ends = [good.endpoint.as_str(), good.endpoint.as_str()];
    let (client, table, _server, _) = client(table_row(&ends, &ends), SHORT).await;
    let rows = || -> Vec<Row> { (0..20).map(|n| table.plain(key(n), "v", 1)).collect() };
    let outcome = client.put(&table, rows()).await.unwrap();
    assert_eq!(outcome.parts.iter().map(|p| p.pid).collect::<Vec<_>>(), [0, 1]);
    let total: usize = good
        .seen
        .lock()
        .iter()
        .map(|c| match &c.kind {
            Some(pb::call::Kind::Put(p)) => p.rows.len(),
            _ => 0,
        })
        .sum();
    assert_eq!((good.seen.lock().len(), total), (2, 20));

    // A row whose keys are of two partitions: half of it is at each. One of them refuses: it may be half there (R33).
    table.routes.hint(&client.0.driver, 1, &bad.endpoint, 2);
    let (a, b) = (
        (0..).map(key).find(|k| table.partition_of(k) == 0),
        (0..).map(key).find(|k| table.partition_of(k) == 1),
    );
    let row =
        Row { time: 1, dimensions: vec![(0, a.unwrap()), (1, b.unwrap())], value: "v".into() };
    let error = client.put(&table, vec![row]).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Unknown(text) if text.contains("acknowledged their part: 0")),
        "{error:?}"
    );
    let split = good.seen.lock().last().cloned().unwrap();
    assert!(matches!(split.kind, Some(pb::call::Kind::Put(p)) if p.rows[0].dimensions.len() == 1));
}

#[tokio::test]
async fn reads_find_and_miss_and_follow_redirects() {
    let get = |status, value: &'static str| {
        Act::Say(pb::answer::Kind::Get(pb::GetReply {
            status,
            ts: 4,
            value: value.into(),
            epoch: 1,
            ..Default::default()
        }))
    };
    let list = vec![
        get(crate::wire::refused(&Code::LeaseExpired.into()), ""),
        get(crate::wire::ok(), "x"),
        get(crate::wire::refused(&Code::KeyNotFound.into()), ""),
        get(crate::wire::refused(&Code::IndexNotFound.into()), ""),
    ];
    let fake = tablet(steps(list)).await;
    let (client, table, _server, _) =
        client(table_row(&[&fake.endpoint], &[&fake.endpoint]), SHORT).await;
    let get = || client.get(&table, 0, b"k", 0, ReadFrom::Leader);
    assert_eq!(get().await, Ok(Some((4, "x".into()))));
    assert_eq!(get().await, Ok(None));
    assert_eq!(get().await, Err(Code::IndexNotFound.into()));
    let gone = client.get_at("127.0.0.1:1", &table, 0, b"k", 0).await;
    assert_eq!(gone.unwrap_err().code, Code::RpcFailed);
}

#[tokio::test]
async fn a_tablet_of_another_cluster_gets_no_call() {
    let stranger = tablet_of("other", Arc::default(), |_| stored(1)).await;
    let row = table_row(&[&stranger.endpoint], &[&stranger.endpoint]);
    let (client, table, _server, _) = client(row, Duration::from_millis(300)).await;
    let error = client.put(&table, vec![table.plain("k", "v", 1)]).await.unwrap_err();
    assert!(
        matches!(&error, WriteError::Refused(r) if r.text.contains("cluster 'other', not 'test'")),
        "{error:?}"
    );
    assert!(stranger.seen.lock().is_empty());
}

#[tokio::test]
async fn connecting_names_cause_and_cure_in_time() {
    let server = nameserver(fake::Meta { cluster: "prod".into(), ..Default::default() }).await;
    let list = vec!["127.0.0.1:1".to_owned(), server.endpoint.clone()];
    let client = Client::connect(Options::new(list.clone())).await.unwrap();
    assert_eq!(client.cluster(), "prod");

    let began = Instant::now();
    let asked = Options { cluster: Some("test".into()), ..Options::new(list) };
    let error = Client::connect(asked).await.err().unwrap();
    assert!(
        matches!(&error, ConnectError::WrongCluster { found, .. } if found == "prod"),
        "{error}"
    );
    let error = Client::connect(Options::new(vec!["127.0.0.1:1".into()])).await.err().unwrap();
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("refused") && !text.contains('\n'),
        "{text}"
    );
    assert!(Client::connect(Options::new(vec![])).await.is_err());
    assert!(Client::connect(Options::new(vec!["not an endpoint".into()])).await.is_err());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_metadata_write_is_repeated_elsewhere_with_the_same_id() {
    let failing = fake::Meta {
        cluster: "test".into(),
        failures: Arc::new(Mutex::new(usize::MAX)),
        ..Default::default()
    };
    let working = fake::Meta { cluster: "test".into(), ..Default::default() };
    let (a, b) = (nameserver(failing.clone()).await, nameserver(working.clone()).await);
    let client = Client::connect(Options::new(vec![a.endpoint.clone()])).await.unwrap();
    let row = |e: &str| stela_proto::nameserver::NameserverRow {
        endpoint: e.into(),
        ..Default::default()
    };
    let nameservers = vec![row(&a.endpoint), row(&b.endpoint)];
    client
        .0
        .nameservers
        .learn(&stela_proto::nameserver::ClusterReply { nameservers, ..Default::default() });
    client.admin().conf_set("auto_failover", "false").await.unwrap();
    client.admin().conf_set("auto_failover", "true").await.unwrap();
    let (failed, done) = (failing.writes.lock().clone(), working.writes.lock().clone());
    assert_eq!(failed, done[..1], "the same id");
    assert_eq!(done.iter().map(|r| r.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(done[0].client, done[1].client);
}

#[tokio::test]
async fn a_metadata_write_without_an_answer_is_in_doubt() {
    let failing = fake::Meta {
        cluster: "test".into(),
        failures: Arc::new(Mutex::new(usize::MAX)),
        ..Default::default()
    };
    let server = nameserver(failing).await;
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::new(vec![server.endpoint.clone()])
    };
    let client = Client::connect(options).await.unwrap();
    let refusal = client.admin().conf_set("auto_failover", "false").await.unwrap_err();
    assert_eq!(refusal.code, Code::SetFailed);
    drop(server);
    // A request that meets the connection as it breaks is in doubt as well; once it is gone, none is.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let refusal = client.admin().conf_set("auto_failover", "false").await.unwrap_err();
        if refusal.code == Code::RpcFailed {
            break;
        }
        assert_eq!(refusal.code, Code::SetFailed, "{refusal}");
        assert!(std::time::Instant::now() < deadline, "{refusal}");
    }
}
