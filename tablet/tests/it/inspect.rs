//! A tablet's directory, looked at when the tablet is gone.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use stela_proto::tablet as pb;
use stela_tablet::inspect::{Item, inspect};

use crate::cluster::*;
use crate::nameserver::FakeNameserver;

#[allow(clippy::disallowed_methods)] // behind the tablet's back
fn flip(path: &Path, at: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn damaged(items: &[Item]) -> Vec<(&'static str, String)> {
    items.iter().filter_map(|i| Some((i.kind, i.damage.clone()?))).collect()
}

#[tokio::test]
async fn every_file_is_listed_and_whatever_rots_in_it_is_told() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let running = home.start().await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    for n in 0..200 {
        client.store(&format!("k{n}"), 1, "a value").await;
    }
    let request = pb::MakeSnapshotRequest { tid: TID, pid: 0 };
    let made = client.0.make_snapshot(request).await.unwrap().into_inner();
    assert_eq!(said(&made.status), OK);
    client.store("later", 1, "a value").await;
    let busy = inspect(&home.path()).unwrap_err().to_string();
    assert!(busy.contains("is locked by"), "{busy}");
    running.stop().await;

    let items = inspect(&home.path()).unwrap();
    assert_eq!(damaged(&items), [], "{items:?}");
    let of = |kind: &str| {
        items.iter().find(|i| i.kind == kind).unwrap_or_else(|| panic!("{kind}: {items:?}"))
    };
    assert!(of("identity").detail.contains(&home.endpoint));
    assert!(of("table").detail.contains("db.t, partitions 0"));
    assert!(of("snapshot").detail.contains("up to offset 200, 200 index entries"));
    assert!(of("log").detail.ends_with("stopped cleanly"));
    assert!(of("checkpoint").detail.starts_with("of 1 partitions, 201 index entries"));
    for (kind, at) in [
        ("identity", 20),
        ("fences", 20),
        ("table", 40),
        ("checkpoint", 300),
        ("snapshot", 3000),
        ("segment", 6000),
    ] {
        let item = of(kind);
        assert!(item.bytes > at, "{item:?}");
        flip(&item.path, at);
        let found = inspect(&home.path()).unwrap();
        let told = damaged(&found);
        let kind = if kind == "segment" { "log" } else { kind };
        assert!(told.iter().any(|(k, why)| *k == kind && !why.is_empty()), "{kind}: {told:?}");
        flip(&item.path, at);
    }
    assert_eq!(damaged(&inspect(&home.path()).unwrap()), []);
    let nothing = inspect(&home.path().join("tables")).unwrap_err().to_string();
    assert!(nothing.contains("has no tablet in it"), "{nothing}");
}

/// Files that are gone: a start shows nothing of what they held, and says why.
#[tokio::test]
async fn a_directory_that_lacks_a_segment_or_is_another_tablet_s_is_refused_with_the_reason() {
    let nameserver = FakeNameserver::start().await;
    let home = Home::new(&nameserver);
    let config = stela_tablet::Config { segment_bytes: 256 << 10, ..home.config() };
    let running = home.start_with(config.clone()).await;
    nameserver.create(table(1, 1), &[1]);
    nameserver.elect(TID, 1, &[1]);
    until("it serves", || nameserver.report(1, TID, 0).serving).await;
    let mut client = running.client().await;
    for n in 0..200 {
        client.store("k", n, &"v".repeat(5000)).await;
    }
    running.stop().await;
    let mut segments = files(&home.path().join("log"));
    segments.retain(|path| path.extension().is_some_and(|e| e == "seg"));
    assert!(segments.len() > 3, "{segments:?}");
    assert_eq!(damaged(&inspect(&home.path()).unwrap()), []);

    for gone in [segments[0].clone(), segments[1].clone()] {
        let kept = home.path().join("kept");
        let bytes = stela_common::fs::read(&gone).unwrap();
        stela_common::fs::write(&kept, &bytes).unwrap();
        stela_common::fs::Disk::real().remove_file(&gone).unwrap();
        let told = damaged(&inspect(&home.path()).unwrap());
        assert!(told.iter().any(|(kind, why)| *kind == "log" && why.contains("7_0")), "{told:?}");
        let running = home.start_with(config.clone()).await;
        nameserver.elect(TID, 1, &[1]);
        let mut client = running.client().await;
        let get = client.get("k", 199).await;
        assert_eq!(said(&get.status).0, 176, "{get:?}");
        until("it is told", || nameserver.report(1, TID, 0).quarantined).await;
        running.kill().await;
        stela_common::fs::write(&gone, &bytes).unwrap();
    }
    // In the directory of one that listens elsewhere.
    let other = Home::new(&nameserver);
    let config = stela_tablet::Config { dir: home.path(), ..other.config() };
    let (running, _) = other.launch(stela_common::fs::Disk::real(), config);
    let refused = running.ended().await.unwrap_err().to_string();
    assert!(refused.contains("belongs to tablet") && refused.contains(&home.endpoint), "{refused}");
}
