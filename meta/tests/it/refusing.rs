//! Starts that must fail: one line that names the cause and the cure, within 2 s, and nothing changed on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stela_meta::{Config, RaftConfig};

use crate::nodes::{Nodes, create, start};

/// Every file below with its content, the note of who holds the lock aside.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(content(&path));
        } else if path.file_name().is_some_and(|n| n != "LOCK") {
            all.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    all
}

fn refused(config: &Config, cause: &[&str]) {
    let before = (config.dir.exists(), content(&config.dir));
    let began = Instant::now();
    let text = start(config).err().expect("it started").to_string();
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "it took {:?} to say: {text}",
        began.elapsed()
    );
    assert!(!text.contains('\n'), "more than one line: {text}");
    for word in cause {
        assert!(text.contains(word), "'{text}' does not name {word}");
    }
    assert!((config.dir.exists(), content(&config.dir)) == before, "something changed on disk");
}

#[test]
fn wrong_settings_ports_clusters_and_directories() {
    let mut nodes = Nodes::ready(1, RaftConfig::default());
    let good = nodes.configs[0].clone();
    let fresh = |name: &str| Config { dir: nodes.path(name), ..good.clone() };
    let ours = good.endpoint.clone();
    let free = ours.replace(":7001", ":7002");

    refused(&Config { endpoint: free.clone(), ..fresh("a") }, &[&free, "--nameservers"]);
    refused(&fresh("b"), &[&ours, "--endpoint"]); // the port is in use
    let list = vec![ours.clone(), free.clone()];
    let other = Config {
        endpoint: free.clone(),
        nameservers: list.clone(),
        cluster: "other".into(),
        ..fresh("c")
    };
    refused(&other, &[&ours, "'test'", "'other'", "--cluster"]);
    let locked = Config { endpoint: free.clone(), nameservers: list.clone(), ..good.clone() };
    refused(&locked, &[&format!("belongs to nameserver {ours}"), "--db_root_path"]);
    let in_file = nodes.path("file");
    std::fs::write(&in_file, "x").unwrap();
    let unwritable = Config {
        endpoint: free.clone(),
        nameservers: vec![free.clone()],
        dir: in_file.join("d"),
        ..good.clone()
    };
    refused(&unwritable, &["file", "not writable"]);

    let node = nodes.node(0);
    node.propose(create("a")).unwrap();
    nodes.stop(0);
    refused(
        &Config { cluster: "other".into(), ..good.clone() },
        &["belongs to cluster 'test'", "--cluster"],
    );
    let held = stela_common::fs::lock_dir(&good.dir).unwrap();
    refused(&good, &["locked by process"]);
    drop(held);
    let identity = good.dir.join("NAMESERVER");
    let text = std::fs::read_to_string(&identity).unwrap();
    std::fs::write(&identity, text.replace("nameserver 1", "nameserver 2")).unwrap();
    refused(&good, &["NAMESERVER", "format 2"]);
    std::fs::write(&identity, text.replace("node 1", "node 2")).unwrap();
    refused(&good, &["NAMESERVER is damaged"]);
    std::fs::write(&identity, &text).unwrap();
    std::fs::write(good.dir.join("TABLET"), "{}").unwrap();
    refused(&good, &["belongs to a tablet", "--role"]);
    std::fs::remove_file(good.dir.join("TABLET")).unwrap();
    nodes.start_all();
    assert_eq!(nodes.node(0).databases(), ["a"]);
}
