//! One tablet.

use std::io::Write as _;

use bytes::Bytes;
use stela_common::code::Code;
use stela_common::fs::Disk;
use stela_common::table::limits;
use stela_proto::tablet as pb;
use stela_proto::tablet::{answer, call};
use stela_tablet::StartError;

use crate::cluster::*;
use crate::nameserver::FakeNameserver;

/// A tablet that leads the one partition of a table.
async fn leading() -> (FakeNameserver, Home, Running, Client) {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let running = home.start().await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let client = running.client().await;
    (nameserver, home, running, client)
}

/// The same tablet, started again and elected again (R1).
async fn again(nameserver: &FakeNameserver, home: &Home) -> (Running, Client) {
    let running = home.start().await;
    nameserver.elect(TID, 1, &[1]);
    let client = running.client().await;
    let mut looks = client.clone();
    for _ in 0..4000 {
        if looks.status().await.serving {
            return (running, client);
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    panic!("it does not serve");
}

#[tokio::test]
async fn rows_are_put_read_counted_and_deleted() {
    let (nameserver, _home, running, mut client) = leading().await;
    let first = client.put(put(vec![row("k", 1, "a"), row("k", 3, "c")], (0, 0))).await;
    assert_eq!((said(&first.status), first.offset, first.epoch), (OK, 1, 1));
    assert_eq!(client.put(put(vec![row("k", 2, "b"), row("l", 9, "x")], (0, 0))).await.offset, 2);

    let newest = client.get("k", 0).await;
    assert_eq!((newest.ts, &newest.value[..], newest.commit), (3, &b"c"[..], 2));
    assert_eq!(client.get("k", 2).await.value, "b");
    assert_eq!(said(&client.get("k", 7).await.status), (109, "key not found"));
    let rows = [(3, "c".to_owned()), (2, "b".into()), (1, "a".into())];
    assert_eq!(client.rows("k", pb::ReadFrom::Leader).await, rows);
    let some = client.scan("k", 3, 1, 1, pb::ReadFrom::Leader).await;
    assert_eq!((some.rows.len(), some.rows[0].ts, some.finished), (1, 3, false));
    assert_eq!(client.count("k").await, 3);
    assert_eq!(said(&client.delete("k").await.status), OK);
    assert_eq!((client.count("k").await, client.count("l").await), (0, 1));
    assert_eq!(said(&client.delete("none").await.status), OK);

    // The nameserver hears of it soon after the last write.
    until("the last write is reported", || nameserver.report(1, TID, 0).commit == 4).await;
    let report = nameserver.report(1, TID, 0);
    assert_eq!((report.offset, report.record_cnt, report.epoch_start), (4, 1, Some(0)));
    assert!(report.disk > 0 && report.memory > 0);
    running.stop().await;
}

#[tokio::test]
async fn a_session_does_the_same_in_frames() {
    let (_nameserver, _home, _running, mut client) = leading().await;
    let mut session = Session::open(&mut client).await;
    let puts = (1..=500).map(|i| {
        call::Kind::Put(put(vec![row(&format!("k{}", i % 7), i, &format!("v{i}"))], (0, 0)))
    });
    let answers = session.ask(puts.collect()).await;
    for (i, answer) in (1..).zip(&answers) {
        let answer::Kind::Put(reply) = answer else { panic!("{answer:?}") };
        assert_eq!((said(&reply.status), reply.offset), (OK, i));
    }
    let key = Bytes::from_static(b"k3");
    let get = pb::GetRequest { target: target(0), key: key.clone(), ts: 0, ..Default::default() };
    let scan =
        pb::ScanRequest { target: target(0), key: key.clone(), limit: 2, ..Default::default() };
    let count = pb::CountRequest { target: target(0), key: key.clone(), ..Default::default() };
    let delete = pb::DeleteRequest {
        target: target(0),
        dimensions: vec![pb::Dimension { index: 0, key: key.clone() }],
        ..Default::default()
    };
    let answers = session
        .ask(vec![call::Kind::Get(get), call::Kind::Scan(scan), call::Kind::Count(count.clone())])
        .await;
    let [answer::Kind::Get(get), answer::Kind::Scan(scan), answer::Kind::Count(counted)] =
        &answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!((get.ts, &get.value[..]), (500, &b"v500"[..]));
    assert_eq!((scan.rows.len(), scan.finished), (2, false));
    assert_eq!(counted.count, 72);
    session.ask(vec![call::Kind::Delete(delete)]).await;
    let answers = session.ask(vec![call::Kind::Count(count)]).await;
    assert!(matches!(&answers[..], [answer::Kind::Count(c)] if c.count == 0), "{answers:?}");
}

async fn fill(client: &mut Client) {
    let mut session = Session::open(client).await;
    for batch in 0..10u64 {
        let puts = (0..50u64).map(|i| {
            let n = batch * 50 + i;
            call::Kind::Put(put(vec![row(&format!("k{}", n % 9), n, &format!("v{n}"))], (0, 0)))
        });
        for answer in session.ask(puts.collect()).await {
            assert!(matches!(&answer, answer::Kind::Put(r) if said(&r.status) == OK), "{answer:?}");
        }
    }
}

async fn is_filled(client: &mut Client) {
    for key in 0..9u64 {
        let expected: Vec<_> =
            (1..500).rev().filter(|n| n % 9 == key).map(|n| (n, format!("v{n}"))).collect();
        assert_eq!(client.rows(&format!("k{key}"), pb::ReadFrom::Leader).await, expected);
    }
    assert_eq!(client.status().await.offset, 500);
}

#[tokio::test]
async fn a_clean_restart_finds_everything() {
    let (nameserver, home, running, mut client) = leading().await;
    fill(&mut client).await;
    is_filled(&mut client).await;
    running.stop().await;
    let (running, mut client) = again(&nameserver, &home).await;
    is_filled(&mut client).await;
    assert_eq!(client.store("k0", 1000, "new").await.offset, 501);
    running.stop().await;
    let registrations = nameserver.state.lock().tablets[&1].registrations.clone();
    let clean: Vec<bool> = registrations.iter().map(|r| r.clean).collect();
    assert_eq!(clean, [true, true]);
    // R14: the list of starts names the run that was registered before.
    assert_eq!(registrations[1].starts[0], registrations[0].starts[0]);
    assert_eq!(registrations[1].inventory[0].last_offset, 500);
}

/// R14, found by the simulation: a run that could not register must not, by stopping cleanly, make up for the unclean stop
/// before it.
#[tokio::test]
async fn a_clean_stop_of_a_run_that_never_registered_proves_nothing() {
    let (nameserver, home, running, _client) = leading().await;
    running.kill().await;
    let mut config = home.config();
    config.nameservers = vec!["127.0.0.1:1".into()];
    let (unheard, _ready) = home.launch(Disk::real(), config);
    // The port is there before the log is open, an answer only after.
    while tokio::net::TcpStream::connect(&home.endpoint).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(!unheard.client().await.status().await.serving, "it is up, and nobody knows it");
    unheard.stop().await;
    let (running, _client) = again(&nameserver, &home).await;
    running.stop().await;
    let (_running, _client) = again(&nameserver, &home).await;
    let registrations = nameserver.state.lock().tablets[&1].registrations.clone();
    let clean: Vec<bool> = registrations.iter().map(|r| r.clean).collect();
    assert_eq!(clean, [true, false, true]);
}

#[tokio::test]
async fn a_killed_tablet_finds_every_acknowledged_row() {
    let (nameserver, home, running, mut client) = leading().await;
    fill(&mut client).await;
    running.kill().await;
    let (running, mut client) = again(&nameserver, &home).await;
    is_filled(&mut client).await;
    assert!(!nameserver.state.lock().tablets[&1].registrations[1].clean);
    // And once more, from a log that has been recovered.
    running.kill().await;
    let (_running, mut client) = again(&nameserver, &home).await;
    is_filled(&mut client).await;
}

#[tokio::test]
async fn a_snapshot_is_made_on_command_and_found_again() {
    let (nameserver, home, running, mut client) = leading().await;
    let request = stela_proto::tablet::MakeSnapshotRequest { tid: TID, pid: 0 };
    let empty = client.0.make_snapshot(request).await.unwrap().into_inner();
    assert_eq!((said(&empty.status), empty.offset), (OK, 0));
    fill(&mut client).await;
    let made = client.0.make_snapshot(request).await.unwrap().into_inner();
    assert_eq!((said(&made.status), made.offset), (OK, 500));
    is_filled(&mut client).await;
    assert_eq!(files(&home.path().join("snapshots/7_0")).len(), 1);
    let elsewhere = stela_proto::tablet::MakeSnapshotRequest { tid: TID, pid: 5 };
    let elsewhere = client.0.make_snapshot(elsewhere).await.unwrap().into_inner();
    assert_eq!(said(&elsewhere.status).0, Code::TableNotFound as i32);
    running.kill().await;
    let (running, mut client) = again(&nameserver, &home).await;
    is_filled(&mut client).await;
    assert_eq!(client.store("k0", 1000, "new").await.offset, 501);
    running.stop().await;
    let (_running, mut client) = again(&nameserver, &home).await;
    assert_eq!(client.get("k0", 0).await.value, "new");
}

#[tokio::test]
async fn snapshots_come_and_the_log_goes_by_itself() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let mut config = home.config();
    config.segment_bytes = 64 << 10;
    config.log_keep = 256 << 10;
    config.snapshots.grown = 64 << 10;
    config.snapshots.look = std::time::Duration::from_millis(5);
    let (running, ready) = home.launch(Disk::real(), config.clone());
    ready.await.unwrap();
    nameserver.create(table(2, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    for n in 1..=800 {
        client.store(&format!("k{}", n % 4), n, &"v".repeat(1000)).await;
    }
    let segments = || {
        let log = files(&home.path().join("log"));
        log.iter().filter(|p| p.extension().is_some_and(|e| e == "seg")).count()
    };
    until("the log is short", || segments() <= 5).await;
    running.kill().await;
    let (running, ready) = home.launch(Disk::real(), config);
    ready.await.unwrap();
    nameserver.elect(TID, 1, &[1]);
    until("it leads", || nameserver.report(1, TID, 0).epoch == 2).await;
    let mut client = running.client().await;
    client.store("new", 1, "v").await;
    assert_eq!(client.count("k1").await, 200);
}

#[tokio::test]
async fn a_repeated_request_is_applied_once() {
    let (nameserver, home, running, mut client) = leading().await;
    let request = |seq, value| put(vec![row("k", 1, value)], (77, seq));
    let first = client.put(request(1, "a")).await;
    assert_eq!((said(&first.status), first.offset), (OK, 1));
    assert_eq!(client.put(request(1, "a")).await.offset, 1);
    assert_eq!(client.put(request(2, "b")).await.offset, 2);
    // Repetitions that come together with the first.
    let mut session = Session::open(&mut client).await;
    let answers = session.ask((0..5).map(|_| call::Kind::Put(request(3, "c"))).collect()).await;
    for answer in &answers {
        assert!(
            matches!(answer, answer::Kind::Put(r) if r.offset == 3 && said(&r.status) == OK),
            "{answer:?}"
        );
    }
    assert_eq!(client.count("k").await, 3);
    // Seq above 1 of a session that nobody knows.
    let unknown = client.put(put(vec![row("k", 1, "x")], (78, 2))).await;
    assert_eq!(said(&unknown.status).0, Code::UnknownOutcome as i32);

    running.kill().await;
    let (_running, mut client) = again(&nameserver, &home).await;
    for (seq, value) in [(1, "a"), (2, "b"), (3, "c")] {
        let repeated = client.put(request(seq, value)).await;
        assert_eq!((said(&repeated.status), repeated.offset), (OK, seq));
    }
    assert_eq!(client.put(request(4, "d")).await.offset, 4);
    assert_eq!(client.count("k").await, 4);
    assert_eq!(client.put(request(100, "e")).await.offset, 5);
    assert_eq!(said(&client.put(request(4, "d")).await.status).0, Code::UnknownOutcome as i32);
}

#[tokio::test]
async fn refusals_have_the_codes_and_texts_that_clients_know() {
    let (_nameserver, _home, _running, mut client) = leading().await;
    let good = || put(vec![row("k", 1, "v")], (0, 0));
    let at =
        |tid, pid, epoch| pb::PutRequest { target: Some(pb::Target { tid, pid, epoch }), ..good() };
    let text = |code: Code| (code as i32, code.text());
    assert_eq!(said(&client.put(at(8, 0, 0)).await.status), (100, "table does not exist"));
    assert_eq!(said(&client.put(at(TID, 1, 0)).await.status), (100, "table does not exist"));
    assert_eq!(said(&client.put(at(TID, 0, 9)).await.status), text(Code::StaleEpoch));
    assert_eq!(said(&client.put(at(TID, 0, 1)).await.status), OK);
    assert_eq!(said(&client.put(pb::PutRequest { target: None, ..good() }).await.status).0, 100);
    let no_key = put(vec![row("", 1, "v")], (0, 0));
    assert_eq!(said(&client.put(no_key).await.status), (115, "invalid dimension parameter"));
    let mut no_index = good();
    no_index.rows[0].dimensions[0].index = 3;
    assert_eq!(said(&client.put(no_index).await.status), (115, "invalid dimension parameter"));
    assert_eq!(said(&client.put(put(vec![], (0, 0))).await.status).0, Code::Malformed as i32);
    let mut large = good();
    large.rows[0].value = vec![0; (8 << 20) + 1].into();
    let large = client.put(large).await;
    assert_eq!(
        said(&large.status),
        (177, "a value of 8388609 bytes is too large: at most 8388608")
    );
    // A record that does not fit into this log's small segments.
    let mut long = good();
    long.rows[0].value = vec![0; 5 << 20].into();
    let long = client.put(long).await;
    assert_eq!(said(&long.status).0, 177, "{long:?}");

    let get = pb::GetRequest { target: target(0), key: "k".into(), index: 1, ..Default::default() };
    assert_eq!(
        said(&client.0.get(get).await.unwrap().into_inner().status),
        (108, "idx name not found")
    );
    let scan = client.scan("k", 1, 2, 0, pb::ReadFrom::Leader).await;
    assert_eq!(said(&scan.status), (117, "starttime less than endtime"));
    let elsewhere = pb::CountRequest {
        target: Some(pb::Target { tid: 9, pid: 0, epoch: 0 }),
        ..Default::default()
    };
    assert_eq!(
        said(&client.0.count(elsewhere).await.unwrap().into_inner().status),
        (100, "table does not exist")
    );
    assert_eq!(client.count("k").await, 1);
}

#[tokio::test]
async fn malformed_messages_are_an_error_to_their_sender_only() {
    let (_nameserver, _home, running, mut client) = leading().await;
    client.store("k", 1, "v").await;
    // No HTTP at all.
    let mut raw = std::net::TcpStream::connect(&running.endpoint).unwrap();
    raw.write_all(&[0xff; 4096]).unwrap();
    drop(raw);
    // Another message than the method takes.
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{}", running.endpoint)).unwrap();
    let mut grpc = tonic::client::Grpc::new(channel.connect().await.unwrap());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<pb::GetTableStatusRequest, pb::PutReply>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/stela.tablet.Tablet/Put");
    let request = tonic::Request::new(pb::GetTableStatusRequest { tid: Some(5), pid: Some(6) });
    let refused = grpc.unary(request, path, codec).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Internal, "{refused}");
    // More than any request may have.
    let huge = row("k", 1, &"x".repeat(limits::REQUEST + (6 << 20)));
    let refused = client.0.put(put(vec![huge], (0, 0))).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange, "{refused}");
    // A call without a kind.
    let mut session = Session::open(&mut client).await;
    session.say(vec![pb::Call { id: 9, kind: None }]).await;
    let answer = session.hear(1).await.remove(0);
    let Some(answer::Kind::Put(reply)) = answer.kind else { panic!("{answer:?}") };
    assert_eq!((answer.id, said(&reply.status).0), (9, Code::Malformed as i32));
    // A stream of a tablet that means another cluster.
    let endpoint = format!("http://{}", running.endpoint);
    let mut peer =
        stela_proto::replication::replication_client::ReplicationClient::connect(endpoint)
            .await
            .unwrap();
    let open = stela_proto::replication::Open { cluster: "other".into(), ..Default::default() };
    let hello = stela_proto::replication::ToFollower { open: Some(open), ..Default::default() };
    let refused = peer.stream(futures::stream::iter([hello])).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");

    assert_eq!(client.get("k", 0).await.value, "v");
    assert_eq!(said(&client.put(put(vec![row("k", 2, "w")], (0, 0))).await.status), OK);
}

#[tokio::test]
async fn a_run_that_the_nameserver_forgot_registers_again_and_goes_on() {
    let (nameserver, _home, _running, mut client) = leading().await;
    client.store("k", 1, "v").await;
    nameserver.change(|s| {
        let run = s.tablets[&1].incarnation;
        s.forgotten.push(run);
    });
    until("it registers again", || nameserver.runs(1) == 2).await;
    let registrations = nameserver.state.lock().tablets[&1].registrations.clone();
    assert_eq!(registrations[0].starts.last(), registrations[1].starts.last(), "the same run");
    assert_eq!(client.store("k", 2, "w").await.offset, 2);
    assert_eq!(client.count("k").await, 2);
}

#[tokio::test]
async fn a_dropped_table_is_gone_for_good_and_confirmed() {
    let (nameserver, home, running, mut client) = leading().await;
    client.store("k", 1, "v").await;
    nameserver.drop_table(TID);
    until("the drop is confirmed", || nameserver.state.lock().confirmed.contains(&TID)).await;
    let gone = client.put(put(vec![row("k", 2, "w")], (0, 0))).await;
    assert_eq!(said(&gone.status), (100, "table does not exist"));
    assert!(files(&home.path().join("tables")).is_empty());
    running.kill().await;
    let running = home.start().await;
    assert!(nameserver.state.lock().tablets[&1].registrations[1].inventory.is_empty());
    running.stop().await;
}

#[tokio::test]
async fn without_a_lease_a_lone_leader_neither_reads_nor_acknowledges() {
    let (nameserver, _home, _running, mut client) = leading().await;
    nameserver.change(|s| s.lease_ms = 0);
    // The last lease runs out: writes are refused, or were taken up and cannot be acknowledged.
    let mut seq = 0;
    loop {
        seq += 1;
        let reply = client.put(put(vec![row("k", 1, "v")], (5, seq))).await;
        if said(&reply.status) != OK {
            assert_eq!(said(&reply.status).0, Code::LeaseExpired as i32, "{reply:?}");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(said(&client.get("k", 0).await.status).0, Code::LeaseExpired as i32);
    nameserver.change(|s| s.lease_ms = 2000);
    // The same request, once.
    while said(&client.put(put(vec![row("k", 1, "v")], (5, seq))).await.status) != OK {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(client.count("k").await, seq);
}

#[tokio::test]
async fn a_directory_keeps_its_owner() {
    let (_nameserver, home, running, _client) = leading().await;
    running.stop().await;
    let mut config = home.config();
    config.cluster = "other".into();
    let (running, _) = home.launch(Disk::real(), config);
    assert!(matches!(running.ended().await, Err(StartError::Foreign { .. })));
    // A new directory for a cluster that the nameservers are not of: refused, and nothing is left behind.
    let mut config = home.config();
    config.cluster = "other".into();
    config.dir = home.path().join("../fresh");
    let (running, _) = home.launch(Disk::real(), config.clone());
    let refused = running.ended().await.unwrap_err();
    assert!(refused.to_string().contains("is of cluster test"), "{refused}");
    assert!(!stela_common::fs::exists(&config.dir));
}
