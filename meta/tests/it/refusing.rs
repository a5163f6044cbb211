//! Starts that must fail: one line that names the cause and the cure, within 2 s, and nothing changed on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use stela_meta::{Config, RaftConfig};
use stela_proto::raft as pb;
use stela_proto::raft::raft_client::RaftClient;
use tonic::Code;

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

#[test]
fn a_peer_that_is_not_the_one_it_should_be_or_talks_nonsense_is_refused() {
    let nodes = Nodes::ready(2, RaftConfig::default());
    let endpoint = nodes.configs[0].endpoint.clone();
    let uuid = |n: usize| nodes.node(0).run(introduce(nodes.configs[n].endpoint.clone())).dir_uuid;
    let good = pb::Identity {
        cluster: "test".into(),
        node: 2,
        dir_uuid: uuid(1),
        to: 1,
        to_dir_uuid: uuid(0),
    };
    let term = nodes.node(0).leadership().term;
    let ask = |from: Option<pb::Identity>, node: u64| {
        let vote = Some(pb::Vote { term: term + 50, node, committed: false });
        let request = pb::VoteRequest { from, vote, last: None };
        nodes.node(0).run(async {
            let mut client = RaftClient::connect(format!("http://{endpoint}")).await.unwrap();
            client.vote(request).await.map(|reply| reply.into_inner().granted).map_err(|e| e.code())
        })
    };
    let wrong = |change: fn(&mut pb::Identity)| {
        let mut from = good.clone();
        change(&mut from);
        ask(Some(from), 2)
    };
    assert_eq!(wrong(|f| f.cluster = "other".into()), Err(Code::PermissionDenied));
    assert_eq!(wrong(|f| f.to = 2), Err(Code::PermissionDenied));
    assert_eq!(wrong(|f| f.to_dir_uuid = "wiped".into()), Err(Code::PermissionDenied));
    assert_eq!(wrong(|f| f.to_dir_uuid.clear()), Err(Code::PermissionDenied));
    assert_eq!(wrong(|f| f.dir_uuid = "wiped".into()), Err(Code::PermissionDenied));
    assert_eq!(ask(None, 2), Err(Code::InvalidArgument));
    assert_eq!(
        ask(Some(good.clone()), 1),
        Err(Code::InvalidArgument),
        "it stands for somebody else"
    );
    let junk = pb::ForwardRequest { from: Some(good.clone()), command: (&b"junk"[..]).into() };
    let refused = nodes.node(0).run(async {
        let mut client = RaftClient::connect(format!("http://{endpoint}")).await.unwrap();
        client.forward(junk).await.unwrap_err().code()
    });
    assert_eq!(refused, Code::InvalidArgument);
    // Nothing of it has moved the group, and the one it should be is heard (and refused, as there is a leader).
    assert_eq!(ask(Some(good.clone()), 2), Ok(false));
    assert_eq!(nodes.node(0).leadership().term, term);
    nodes.node(1).propose(create("a")).unwrap();
}

async fn introduce(endpoint: String) -> pb::IntroduceReply {
    let mut client = RaftClient::connect(format!("http://{endpoint}")).await.unwrap();
    client.introduce(pb::IntroduceRequest::default()).await.unwrap().into_inner()
}
