//! What a client of OpenMLDB's tablet may count on, item by item (the checklist of its behaviour, by number).

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use stela_common::fs::{Disk, Op, Recorder};
use stela_common::row::{Value, encode};
use stela_common::table::{Column, ColumnType, Index, Sync, Ttl, TtlKind};
use stela_proto::common::Table as Described;
use stela_proto::tablet as pb;
use stela_proto::tablet::{ReadFrom, TimeMatch, answer, call};
use stela_tablet::Config;

use crate::cluster::*;
use crate::image::{Cut, Image};
use crate::nameserver::FakeNameserver;

/// A tablet that leads the one partition of a table.
async fn leading(table: Described) -> (FakeNameserver, Home, Running, Client) {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let sweep = std::time::Duration::from_millis(200);
    let running = home.start_with(Config { sweep, ..home.config() }).await;
    nameserver.create(table, &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let client = running.client().await;
    (nameserver, home, running, client)
}

fn with_ttl(kind: TtlKind, abs: u64, lat: u64) -> Described {
    let mut table = plain_table(1, 1);
    table.indexes[0].ttl = Ttl { kind, abs, lat };
    (&table).into()
}

fn columns() -> Vec<Column> {
    let column = |name: &str, kind| Column { name: name.into(), kind, not_null: true };
    vec![
        column("a", ColumnType::Varchar),
        column("b", ColumnType::Varchar),
        column("t", ColumnType::BigInt),
    ]
}

/// Two indexes: `a` with the time of the request, `b` with that in `t`.
fn with_two() -> Described {
    let index = |name: &str, ts: Option<&str>| Index {
        name: name.into(),
        columns: vec![name.into()],
        ts: ts.map(Into::into),
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    let mut table = plain_table(1, 1);
    table.columns = columns();
    table.indexes = vec![index("a", None), index("b", Some("t"))];
    (&table).into()
}

fn of_two(time: u64, a: &str, b: &str, t: i64) -> pb::Row {
    let values = [Value::Varchar(a.into()), Value::Varchar(b.into()), Value::BigInt(t)];
    let value = encode(&columns(), &values).unwrap().into();
    let dimension = |index, key: &str| pb::Dimension { index, key: key.to_owned().into() };
    pb::Row { time, dimensions: vec![dimension(0, a), dimension(1, b)], value }
}

fn bytes(key: &str) -> Bytes {
    Bytes::copy_from_slice(key.as_bytes())
}

fn scan(key: &str, st: u64, et: u64) -> pb::ScanRequest {
    pb::ScanRequest { target: target(0), key: bytes(key), st, et, ..Default::default() }
}

async fn times(client: &mut Client, request: pb::ScanRequest) -> Vec<u64> {
    let reply = client.0.scan(request).await.unwrap().into_inner();
    assert_eq!(said(&reply.status), OK);
    reply.rows.iter().map(|r| r.ts).collect()
}

#[tokio::test]
async fn c1_rows_come_newest_first_in_the_range_that_is_asked_for() {
    let (_nameserver, _home, _running, mut client) = leading(table(1, 1)).await;
    let rows = [4, 9, 1, 7, 10, 2, 8, 3, 6, 5].map(|ts| row("k", ts, "v"));
    assert_eq!(said(&client.put(put(rows.to_vec(), (0, 0))).await.status), OK);
    assert!(times(&mut client, scan("k", 0, 0)).await.into_iter().eq((1..=10).rev()));
    assert_eq!(times(&mut client, scan("k", 5, 0)).await, [5, 4, 3, 2, 1]);
    assert_eq!(times(&mut client, scan("k", 5, 3)).await, [5, 4]);
    let two = client.scan("k", 0, 0, 2, ReadFrom::Leader).await;
    assert_eq!((two.rows.len(), two.finished), (2, false));
    let backwards = client.scan("k", 2, 5, 0, ReadFrom::Leader).await;
    assert_eq!(said(&backwards.status), (117, "starttime less than endtime"));
    // At least three, though the range has two.
    let more = pb::ScanRequest { min_rows: 3, ..scan("k", 5, 3) };
    assert_eq!(times(&mut client, more).await, [5, 4, 3]);
    let none = pb::ScanRequest { min_rows: 3, limit: 2, ..scan("k", 5, 3) };
    assert_eq!(said(&client.0.scan(none).await.unwrap().into_inner().status).0, 307);
}

#[tokio::test]
async fn c2_rows_of_one_time_stay_newest_insert_first_also_after_a_restart() {
    let (nameserver, home, running, mut client) = leading(table(1, 1)).await;
    for value in ["a", "b"] {
        client.put(put(vec![row("k", 5, value)], (0, 0))).await;
    }
    let rows = [(5, "b".to_owned()), (5, "a".into())];
    assert_eq!(client.rows("k", ReadFrom::Leader).await, rows);
    let distinct = pb::ScanRequest { distinct: true, ..scan("k", 0, 0) };
    assert_eq!(times(&mut client, distinct).await, [5]);
    assert_eq!(client.get("k", 5).await.value, "b");
    // The first two pages of one row each are told apart by how many of that time were seen.
    let second = pb::ScanRequest { limit: 1, skip: 1, ..scan("k", 5, 0) };
    let second = client.0.scan(second).await.unwrap().into_inner();
    assert_eq!((second.rows.len(), &second.rows[0].value[..]), (1, &b"a"[..]));
    running.stop().await;
    let running = home.start().await;
    nameserver.elect(TID, 1, &[1]);
    let mut client = running.client().await;
    client.store("other", 1, "v").await;
    assert_eq!(client.rows("k", ReadFrom::Leader).await, rows);
}

#[tokio::test]
async fn c3_a_row_is_found_by_its_time_or_by_its_neighbours() {
    let (_nameserver, _home, _running, mut client) = leading(table(1, 1)).await;
    let rows = [10, 20, 30].map(|ts| row("k", ts, &ts.to_string()));
    client.put(put(rows.to_vec(), (0, 0))).await;
    let mut found = async |ts, kind: TimeMatch, et, et_kind: TimeMatch| {
        let request = pb::GetRequest {
            target: target(0),
            key: bytes("k"),
            ts,
            r#type: kind.into(),
            et,
            et_type: et_kind.into(),
            ..Default::default()
        };
        let reply = client.0.get(request).await.unwrap().into_inner();
        let (code, text) = said(&reply.status);
        if code == 0 { Ok(reply.ts) } else { Err((code, text.to_owned())) }
    };
    use TimeMatch::{Default as Usual, Eq, Ge, Gt, Le, Lt};
    let missing = Err((109, "key not found".to_owned()));
    assert_eq!(found(15, Usual, 0, Usual).await, missing);
    assert_eq!(found(20, Eq, 0, Usual).await, Ok(20));
    assert_eq!(found(15, Le, 0, Usual).await, Ok(10));
    assert_eq!(found(20, Le, 0, Usual).await, Ok(20));
    assert_eq!(found(20, Lt, 0, Usual).await, Ok(10));
    assert_eq!(found(20, Gt, 0, Usual).await, Ok(30));
    assert_eq!(found(30, Ge, 0, Usual).await, Ok(30));
    assert_eq!(found(30, Gt, 0, Usual).await, missing);
    assert_eq!(found(10, Lt, 0, Usual).await, missing);
    assert_eq!(found(0, Eq, 0, Usual).await, Ok(30));
    assert_eq!(found(15, Le, 10, Gt).await, missing);
    assert_eq!(found(15, Le, 10, Ge).await, Ok(10));
    assert_eq!(found(20, Eq, 10, Eq).await, Err((307, "invalid args".into())));
    assert_eq!(found(20, Eq, 20, Eq).await, Ok(20));
    assert_eq!(found(20, Eq, 10, Lt).await, Err((307, "st/et sub key type is invalid".into())));
    let unknown =
        pb::GetRequest { target: target(0), key: bytes("k"), index: 1, ..Default::default() };
    let unknown = client.0.get(unknown).await.unwrap().into_inner();
    assert_eq!(said(&unknown.status), (108, "idx name not found"));
}

#[tokio::test]
async fn c4_each_kind_of_time_to_live_hides_what_it_says() {
    let minute = 60_000;
    let now = stela_common::clock::wall_ms();
    // 1 to 6 minutes old.
    let rows: Vec<pb::Row> = (1..=6).map(|age| row("k", now - age * minute - 5000, "v")).collect();
    for (kind, abs, lat, seen) in [
        (TtlKind::Absolute, 0, 0, 6),
        (TtlKind::Absolute, 3, 0, 2),
        (TtlKind::Latest, 0, 0, 6),
        (TtlKind::Latest, 0, 4, 4),
        (TtlKind::AbsAndLat, 3, 4, 4),
        (TtlKind::AbsAndLat, 5, 2, 4),
        (TtlKind::AbsAndLat, 0, 2, 6),
        (TtlKind::AbsOrLat, 3, 4, 2),
        (TtlKind::AbsOrLat, 5, 3, 3),
        (TtlKind::AbsOrLat, 0, 3, 3),
    ] {
        let (_nameserver, _home, running, mut client) = leading(with_ttl(kind, abs, lat)).await;
        client.put(put(rows.iter().rev().cloned().collect(), (0, 0))).await;
        let what = format!("{kind:?} {abs} {lat}");
        assert_eq!(client.rows("k", ReadFrom::Leader).await.len(), seen, "{what}");
        let oldest = now - (seen as u64) * minute - 5000;
        assert_eq!(said(&client.get("k", oldest).await.status), OK, "{what}");
        if seen < 6 {
            let expired = client.get("k", oldest - minute).await;
            assert_eq!(said(&expired.status), (109, "key not found"), "{what}");
        }
        running.stop().await;
    }
}

#[tokio::test]
async fn c5_a_row_is_in_all_indexes_or_in_none() {
    let (_nameserver, _home, _running, mut client) = leading(with_two()).await;
    let mut bad = of_two(1, "x", "y", 1);
    bad.dimensions[1].index = 9;
    let both = vec![of_two(1, "x", "y", 1), bad];
    let refused = client.put(put(both, (0, 0))).await;
    assert_eq!(said(&refused.status), (115, "invalid dimension parameter"));
    let negative = client.put(put(vec![of_two(1, "x", "y", -1)], (0, 0))).await;
    assert_eq!(said(&negative.status), (116, "7.0: ts is negative"));
    let mut count = async |index, key: &str| {
        let request =
            pb::CountRequest { target: target(0), key: bytes(key), index, ..Default::default() };
        client.0.count(request).await.unwrap().into_inner().count
    };
    assert_eq!((count(0, "x").await, count(1, "y").await), (0, 0));
    let mut client = _running.client().await;
    let rows = vec![of_two(1, "x", "y", 1), of_two(2, "x", "z", 2), of_two(3, "w", "y", 3)];
    client.put(put(rows, (0, 0))).await;
    // Deleted by one index, it is gone from the other.
    assert_eq!(said(&client.delete("x").await.status), OK);
    assert_eq!((count(0, "x").await, count(1, "y").await, count(1, "z").await), (0, 1, 0));
    // By a range, of one key and of all; and only where it says.
    let ranged = |dimensions, ts, end_ts, ts_name: &str, only_there| pb::DeleteRequest {
        target: target(0),
        dimensions,
        ts: Some(ts),
        end_ts,
        ts_name: ts_name.into(),
        only_there,
        ..Default::default()
    };
    let rows = (1..=9).map(|n| of_two(n, "k", "l", i64::try_from(n).unwrap() * 10)).collect();
    client.put(put(rows, (0, 0))).await;
    let key = vec![pb::Dimension { index: 1, key: bytes("l") }];
    client.0.delete(ranged(key, 50, Some(20), "", false)).await.unwrap();
    assert_eq!((count(0, "k").await, count(1, "l").await), (6, 6));
    client.0.delete(ranged(vec![], 2, None, "", true)).await.unwrap();
    assert_eq!((count(0, "k").await, count(1, "l").await), (4, 6));
    client.0.delete(ranged(vec![], 1000, None, "t", false)).await.unwrap();
    assert_eq!((count(0, "k").await, count(1, "l").await, count(0, "w").await), (0, 0, 0));
    let unknown = client.0.delete(ranged(vec![], 1, None, "none", false)).await.unwrap();
    assert_eq!(said(&unknown.into_inner().status), (137, "ts name not found"));
    let backwards = client.0.delete(ranged(vec![], 1, Some(2), "", false)).await.unwrap();
    assert_eq!(said(&backwards.into_inner().status).0, 161);
    let nothing = pb::DeleteRequest { target: target(0), ..Default::default() };
    let nothing = client.0.delete(nothing).await.unwrap().into_inner();
    assert_eq!(said(&nothing.status), (161, "invalid args"));
}

#[tokio::test]
async fn c5_what_is_there_is_not_put_again_if_it_is_to_be_absent() {
    let (_nameserver, _home, _running, mut client) = leading(table(1, 1)).await;
    let absent = |value: &str, time| pb::PutRequest {
        if_absent: true,
        ..put(vec![row("k", time, value)], (0, 0))
    };
    assert_eq!(said(&client.put(absent("a", 1)).await.status), OK);
    assert_eq!(said(&client.put(absent("a", 1)).await.status), (0, "exists but ignore"));
    assert_eq!(client.count("k").await, 1);
    assert_eq!(said(&client.put(absent("b", 1)).await.status), OK);
    assert_eq!(said(&client.put(absent("a", 2)).await.status), OK);
    assert_eq!(client.count("k").await, 3);
    // Many at once, of which one is first.
    let mut session = Session::open(&mut client).await;
    let many = (0..20).map(|_| call::Kind::Put(absent("new", 9))).collect();
    let texts: Vec<String> = session
        .ask(many)
        .await
        .into_iter()
        .map(|answer| match answer {
            answer::Kind::Put(reply) => reply.status.unwrap().msg,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(texts.iter().filter(|t| *t == "ok").count(), 1, "{texts:?}");
    assert_eq!(client.count("k").await, 4);
}

#[tokio::test]
async fn c6_a_count_tells_what_is_stored_from_what_can_be_seen() {
    let (_nameserver, _home, _running, mut client) =
        leading(with_ttl(TtlKind::AbsOrLat, 0, 3)).await;
    let rows = [1, 2, 3, 4, 4, 5].map(|ts| row("k", ts, "v"));
    client.put(put(rows.to_vec(), (0, 0))).await;
    let mut count = async |filter_expired, st, et, distinct| {
        let key = bytes("k");
        let request = pb::CountRequest {
            target: target(0),
            key,
            filter_expired,
            st,
            et,
            distinct,
            ..Default::default()
        };
        client.0.count(request).await.unwrap().into_inner().count
    };
    assert_eq!(count(false, 0, 0, false).await, 6);
    assert_eq!(count(true, 0, 0, false).await, 3);
    assert_eq!(count(true, 0, 0, true).await, 2);
    assert_eq!(count(true, 4, 0, false).await, 2);
    assert_eq!(count(true, 0, 4, false).await, 1);
}

#[tokio::test]
async fn c7_pages_show_every_row_once_while_others_come_and_go() {
    let (_nameserver, _home, running, mut client) = leading(table(1, 1)).await;
    let mut session = Session::open(&mut client).await;
    let puts = (0..1000u64).map(|n| {
        let rows = (0..1 + n % 3).map(|copy| row(&format!("key{n}"), 5, &format!("v{n}.{copy}")));
        call::Kind::Put(put(rows.collect(), (0, 0)))
    });
    session.ask(puts.collect()).await;
    let mut other = running.client().await;
    let (mut seen, mut cursor, mut page) = (Vec::new(), Bytes::new(), 0u64);
    loop {
        let request =
            pb::TraverseRequest { target: target(0), limit: 7, cursor, ..Default::default() };
        let reply = client.0.traverse(request).await.unwrap().into_inner();
        assert!(said(&reply.status) == OK && reply.rows.len() <= 7);
        seen.extend(reply.rows.into_iter().map(|r| String::from_utf8(r.value.to_vec()).unwrap()));
        if reply.finished {
            break;
        }
        cursor = reply.cursor;
        other.store(&format!("new{}", page % 50), page, "x").await;
        other.delete(&format!("new{}", (page + 25) % 50)).await;
        page += 1;
    }
    seen.retain(|value| value != "x");
    let count = seen.len();
    seen.sort();
    seen.dedup();
    let rows: u64 = (0..1000).map(|n| 1 + n % 3).sum();
    assert_eq!((count as u64, seen.len() as u64), (rows, rows));
}

/// Flips one bit of a file where these bytes stand.
fn flip(dir: &std::path::Path, needle: &[u8]) -> bool {
    let mut flipped = false;
    for path in files(dir) {
        let bytes = stela_common::fs::read(&path).unwrap();
        let Some(at) = bytes.windows(needle.len()).position(|w| w == needle) else { continue };
        #[allow(clippy::disallowed_methods)] // behind the tablet's back
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
        flipped = true;
    }
    flipped
}

#[tokio::test]
async fn c11_a_value_that_rots_is_never_shown_and_the_copy_is_kept_apart() {
    let (nameserver, home, _running, mut client) = leading(table(1, 1)).await;
    client.store("k", 1, "a value that will rot").await;
    client.store("l", 1, "another one").await;
    assert_eq!(client.get("k", 0).await.value, "a value that will rot");
    assert!(flip(&home.path().join("log"), b"a value that will rot"));
    let reply = client.get("k", 0).await;
    let (code, text) = said(&reply.status);
    assert!(reply.value.is_empty() && code == 176, "{code} {text}");
    assert!(text.contains("checksum") && text.contains("of the log"), "{text}");
    until("it is reported", || nameserver.report(1, TID, 0).quarantined).await;
    assert_ne!(said(&client.get("l", 0).await.status), OK);
    assert_ne!(said(&client.put(put(vec![row("l", 2, "v")], (0, 0))).await.status), OK);
}

#[tokio::test]
async fn c15_the_figures_of_a_partition_are_right() {
    let (_nameserver, _home, running, mut client) =
        leading(with_ttl(TtlKind::Absolute, 1, 0)).await;
    let now = stela_common::clock::wall_ms();
    let mut session = Session::open(&mut client).await;
    let old = (0..3000u64)
        .map(|n| call::Kind::Put(put(vec![row(&format!("old{n}"), now - 120_000, "v")], (0, 0))));
    session.ask(old.collect()).await;
    let new = (0..3000u64).map(|n| {
        let rows = vec![row(&format!("new{}", n % 1000), now + 1_000_000 + n, "v")];
        call::Kind::Put(put(rows, (0, 0)))
    });
    session.ask(new.collect()).await;
    let before = client.status().await;
    assert_eq!((before.record_cnt, before.key_cnt), (6000, 4000));
    // The sweep of this tablet comes soon.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while client.status().await.record_cnt != 3000 {
        assert!(tokio::time::Instant::now() < deadline, "{:?}", client.status().await);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let after = client.status().await;
    assert_eq!(after.key_cnt, 1000);
    assert!(after.mapped > 6000 * 30, "{after:?}");
    assert!(after.memory * 2 < before.memory + before.memory / 4, "{before:?} {after:?}");
    running.stop().await;
}

/// Until a put gets that code.
async fn refused_with(client: &mut Client, code: i32, text: &str) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let reply = client.put(put(vec![row("more", 1, "v")], (0, 0))).await;
        match said(&reply.status) {
            OK => assert!(tokio::time::Instant::now() < deadline, "puts are still taken"),
            refused => return assert_eq!(refused, (code, text)),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn c13_without_room_on_the_disk_puts_are_refused_and_reads_go_on() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let running = home.start().await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    running.client().await.store("k", 1, "v").await;
    running.stop().await;

    // Kept in reserve is more than any disk has.
    let running = home.start_with(Config { disk_reserve: u64::MAX / 2, ..home.config() }).await;
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    refused_with(&mut client, 175, "disk is full: the partition is read-only until space is back")
        .await;
    assert_eq!(client.get("k", 0).await.value, "v");
    assert_eq!(said(&client.delete("k").await.status), OK);
    running.stop().await;

    let running = home.start().await;
    nameserver.elect(TID, 1, &[1]);
    running.client().await.store("k", 2, "there is room again").await;
}

#[tokio::test]
async fn c13_without_memory_puts_are_refused_until_rows_are_deleted() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let running = home.start_with(Config { max_memory: 100_000, ..home.config() }).await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    client.store("hot", 1, "v").await;
    let mut session = Session::open(&mut client).await;
    for batch in 0..10u64 {
        let puts = (0..1000)
            .map(|n| call::Kind::Put(put(vec![row("hot", batch * 1000 + n, "v")], (0, 0))));
        session.ask(puts.collect()).await;
    }
    refused_with(&mut client, 160, "exceed max memory").await;
    assert_eq!(said(&client.get("hot", 0).await.status), OK);
    assert_eq!(said(&client.delete("hot").await.status), OK);
    client.store("hot", 1, "there is room again").await;
}

#[tokio::test]
async fn c11_what_nobody_reads_is_found_when_it_rots() {
    for snapshot in [false, true] {
        let nameserver = FakeNameserver::start().await;
        let home = Home::new(&nameserver);
        let scrub = std::time::Duration::from_millis(300);
        let running = home.start_with(Config { scrub, ..home.config() }).await;
        nameserver.create(table(1, 1), &[1]);
        nameserver.elect(TID, 1, &[1]);
        until("it serves", || nameserver.report(1, TID, 0).serving).await;
        let mut client = running.client().await;
        client.store("k", 1, "a value that nobody reads").await;
        let mut at = home.path().join("log");
        if snapshot {
            let request = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
            client.0.make_snapshot(request).await.unwrap();
            at = home.path().join("snapshots").join(format!("{TID}_0"));
        }
        assert!(flip(&at, b"a value that nobody reads"));
        until("it is found", || nameserver.report(1, TID, 0).quarantined).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn c8_who_follows_loads_has_nothing_or_makes_a_snapshot_says_so() {
    let recorder = Arc::new(Recorder::new().without_physical_sync());
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let running = home.start_on(Disk::recording(recorder.clone())).await;
    let beside = Home::new(&nameserver);
    let following = beside.start().await;
    nameserver.create(table(1, 2), &[1, 2]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut follower = following.client().await;
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let reply = follower.put(put(vec![row("k", 1, "v")], (0, 0))).await;
        // Until it has been told of the table.
        if said(&reply.status).0 != 100 || std::time::Instant::now() > deadline {
            break reply;
        }
    };
    assert_eq!(said(&refused.status), (103, "table is follower"));
    let mut client = running.client().await;
    let mut missing = put(vec![row("k", 1, "v")], (0, 0));
    missing.target = Some(pb::Target { tid: 99, pid: 0, epoch: 0 });
    assert_eq!(said(&client.put(missing).await.status), (100, "table does not exist"));
    let get = pb::GetRequest { target: target(7), key: bytes("k"), ..Default::default() };
    let none = client.0.get(get).await.unwrap().into_inner();
    assert_eq!(said(&none.status), (100, "table does not exist"));

    following.kill().await;
    client.store("first", 1, "v").await;
    // The disk keeps whoever makes a snapshot waiting.
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    recorder.inject(move |op| {
        if let Op::Create { path, .. } = op
            && path.extension().is_some_and(|e| e == "tmp")
            && path.to_string_lossy().contains("snapshots")
        {
            let _ = wait.recv();
        }
        None
    });
    let mut other = running.client().await;
    let make = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
    let making = tokio::spawn(async move { other.0.make_snapshot(make).await });
    let one = pb::ReplicaRequest { tid: TID, pid: 0 };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while client.status().await.state != "kMakingSnapshot" {
        assert!(std::time::Instant::now() < deadline, "no snapshot is made");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let dropped = client.0.drop_replica(one).await.unwrap().into_inner();
    assert_eq!(said(&dropped.status), (106, "table status is kMakingSnapshot"));
    drop(go_on);
    assert_eq!(said(&making.await.unwrap().unwrap().into_inner().status), OK);

    // A start reads 400,000 rows from the log: until they are there, writes are told so, and reads wait.
    let mut session = Session::open(&mut client).await;
    for batch in 0..400u64 {
        let rows = (0..1000).map(|n| row(&format!("key{n}"), batch, "v")).collect();
        session.ask(vec![call::Kind::Put(put(rows, (0, 0)))]).await;
    }
    running.kill().await;
    let mut seen = false;
    for _ in 0..10 {
        let (running, ready) = home.launch(Disk::real(), home.config());
        ready.await.unwrap();
        let mut client = running.client().await;
        let early = client.put(put(vec![row("k", 1, "v")], (0, 0))).await;
        if said(&early.status).0 == 104 {
            assert!(said(&early.status).1.starts_with("table is loading: "));
            let state = client.status().await;
            assert!(["kTableLoading", "kTableNormal"].contains(&state.state.as_str()));
            nameserver.elect(TID, 1, &[1]);
            until("it serves", || nameserver.report(1, TID, 0).serving).await;
            assert_eq!(client.count("key7").await, 400);
            seen = true;
            break;
        }
        running.kill().await;
    }
    assert!(seen, "nobody came early enough");
}

/// What of so many rows, put one after the other, a power cut at some moment leaves.
async fn power_cuts(sync: Sync, mut check: impl FnMut(&str, u64, &[u64])) {
    const ROWS: u64 = 60;
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let recorder = Arc::new(Recorder::new().without_physical_sync());
    let running = home.start_on(Disk::recording(recorder.clone())).await;
    let mut definition = plain_table(1, 1);
    definition.options.sync = sync;
    nameserver.create((&definition).into(), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    let from = recorder.len();
    let mut acknowledged = Vec::new();
    for n in 1..=ROWS {
        client.store("k", n, &"v".repeat(usize::try_from(n).unwrap() * 40)).await;
        acknowledged.push(recorder.len());
    }
    let ops = recorder.ops();
    running.kill().await;

    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut steps: Vec<usize> = (0..12).map(|_| random.random_range(from..ops.len())).collect();
    steps.sort_unstable();
    let dirs = ["", "tables", "log", "lost+found"];
    let image =
        |name: &&'static str| (*name, Image::of(&home.path().join(name), &Default::default()));
    let mut images: Vec<_> = dirs.iter().map(image).collect();
    let mut steps = steps.into_iter().zip(Cut::ALL.into_iter().cycle()).peekable();
    for (step, op) in ops.iter().enumerate() {
        images.iter_mut().for_each(|(_, image)| image.apply(op));
        while let Some((_, cut)) = steps.next_if(|(at, _)| *at == step) {
            let left = tempfile::tempdir().unwrap();
            for (name, image) in &images {
                let dir = left.path().join(name);
                stela_common::fs::create_dir_all(&Disk::real(), &dir).unwrap();
                for (name, bytes) in image.cut(cut, &mut random) {
                    stela_common::fs::write(dir.join(name), bytes).unwrap();
                }
            }
            let config = Config { dir: left.path().to_owned(), ..home.config() };
            let running = home.start_with(config).await;
            nameserver.elect(TID, 1, &[1]);
            until("it serves", || nameserver.report(1, TID, 0).serving).await;
            let mut client = running.client().await;
            let mut found = times(&mut client, scan("k", 0, 0)).await;
            found.reverse();
            let due = acknowledged.iter().filter(|after| **after <= step + 1).count() as u64;
            check(&format!("{cut:?} after step {step}, {op:?}"), due, &found);
            running.kill().await;
        }
    }
}

#[tokio::test]
async fn c10_a_power_cut_loses_nothing_with_sync_commit_and_else_the_last_rows_only() {
    let no_gap = |at: &str, found: &[u64]| {
        let whole = (1..).zip(found).all(|(n, found)| n == *found);
        assert!(whole, "{at}: a row in the middle is lost: {found:?}");
    };
    power_cuts(Sync::Commit, |at, due, found| {
        no_gap(at, found);
        assert!(found.len() as u64 >= due, "{at}: {due} were acknowledged, there are {found:?}");
    })
    .await;
    power_cuts(Sync::Interval(60_000), |at, _, found| no_gap(at, found)).await;
}
