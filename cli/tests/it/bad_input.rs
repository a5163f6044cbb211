//! What is wrong is said in one line that names the cause and the cure, soon, and nothing is changed on disk.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::process::{Outcome, PATIENCE, address, run};

/// One line on standard error, nothing on standard output, and the status.
fn refused(outcome: &Outcome, status: i32, parts: &[&str]) {
    assert_eq!((outcome.status, outcome.out.as_str()), (status, ""), "{outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
    assert!(outcome.err.starts_with("stela: "), "{outcome:?}");
    for part in parts {
        assert!(outcome.err.contains(part), "{part}: {outcome:?}");
    }
    // Two seconds is the promise; this machine may be busy with other tests.
    assert!(outcome.took < PATIENCE / 3, "{outcome:?}");
}

fn server(role: &str, endpoint: &str, list: &str, dir: &Path) -> Outcome {
    let (endpoint, list) = (format!("--endpoint={endpoint}"), format!("--nameservers={list}"));
    let dir = format!("--db_root_path={}", dir.display());
    run(&[&format!("--role={role}"), &endpoint, &list, &dir])
}

#[test]
fn flags() {
    refused(&run(&["tablet", "--bogus=1"]), 2, &["unknown flag --bogus", "--help"]);
    refused(
        &run(&["--role=nameserver", "--endpiont=x"]),
        2,
        &["unknown flag --endpiont", "did you mean --endpoint"],
    );
    // As scripts know it from the clients.
    refused(&run(&["--bogus", "--role=ns_client"]), 1, &["unknown flag --bogus"]);
    refused(
        &run(&["--role=client", "--interactive=maybe"]),
        1,
        &["--interactive=maybe is wrong", "true or false"],
    );
    refused(
        &run(&["--role=tablet", "--flagfile=/no/such/file"]),
        2,
        &["cannot read --flagfile=/no/such/file"],
    );
    refused(&run(&["--role=tablet", "--log=a=b=c"]), 2, &["--endpoint is missing"]);
    refused(
        &run(&["tablet", "--role=nameserver"]),
        2,
        &["--role=nameserver after the command tablet"],
    );
    refused(&run(&["ns-client", "--cluster=a", "--zk_root_path=/b"]), 2, &["name two clusters"]);
    refused(&run(&["demo", "--bogus"]), 2, &["--bogus", "stela demo --help"]);
    refused(&run(&["import"]), 2, &["stela import --help"]);
}

#[test]
fn roles_and_commands() {
    refused(
        &run(&["--role=bogus"]),
        2,
        &["Invalid role: bogus", "nameserver, tablet, ns_client, client"],
    );
    refused(&run(&["--role=apiserver"]), 2, &["Invalid role: apiserver", "ns_client"]);
    refused(&run(&["bogus"]), 2, &["unknown command 'bogus'", "stela --help"]);
    refused(&run(&["--endpoint=127.0.0.1:1"]), 2, &["no --role is given"]);
    let nothing = run(&[]);
    assert!(nothing.status == 2 && nothing.err.contains("Usage: stela"), "{nothing:?}");
}

#[test]
fn help_and_version() {
    for args in [
        &["--help"][..],
        &["help"],
        &["tablet", "--help"],
        &["--role=client", "--help"],
        &["demo", "--help"],
        &["help", "import"],
    ] {
        let outcome = run(args);
        assert_eq!((outcome.status, outcome.err.as_str()), (0, ""), "{args:?}");
        assert!(outcome.out.contains("Usage: stela"), "{outcome:?}");
    }
    for args in [&["--version"][..], &["--role=tablet", "--version"], &["nameserver", "--version"]]
    {
        let outcome = run(args);
        assert_eq!(
            (outcome.status, outcome.out),
            (0, format!("stela version {}\n", stela::VERSION))
        );
    }
}

#[test]
fn a_list_without_the_own_endpoint() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let dir = root.path().join("ns");
    let outcome =
        server("nameserver", &format!("{ip}:6527"), &format!("{ip}:6528,{ip}:6529"), &dir);
    refused(&outcome, 1, &["--nameservers=", "own --endpoint"]);
    assert!(!dir.exists());
}

#[test]
fn a_port_in_use() {
    let root = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = taken.local_addr().unwrap().to_string();
    for role in ["nameserver", "tablet"] {
        let dir = root.path().join(role);
        refused(&server(role, &endpoint, &endpoint, &dir), 1, &["cannot listen", &endpoint]);
        assert!(!dir.exists());
    }
}

#[test]
fn an_address_of_another_machine() {
    let root = tempfile::tempdir().unwrap();
    // TEST-NET-1: nobody's.
    for role in ["nameserver", "tablet"] {
        let dir = root.path().join(role);
        refused(
            &server(role, "192.0.2.1:6527", "192.0.2.1:6527", &dir),
            1,
            &["cannot listen", "192.0.2.1:6527"],
        );
        assert!(!dir.exists());
    }
}

#[test]
fn a_directory_that_cannot_be_written() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let file = root.path().join("file");
    stela_common::fs::write(&file, b"x").unwrap();
    let endpoint = format!("{ip}:6527");
    let dir = file.join("dir");
    for role in ["nameserver", "tablet"] {
        refused(&server(role, &endpoint, &endpoint, &dir), 1, &[&dir.display().to_string()]);
    }
    assert_eq!(stela_common::fs::read(&file).unwrap(), b"x");
}

#[test]
fn a_directory_of_another_kind_of_server() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let endpoint = format!("{ip}:6527");
    for (role, mark) in [("nameserver", "TABLET"), ("tablet", "NAMESERVER")] {
        let dir = root.path().join(role);
        std::fs::DirBuilder::new().create(&dir).unwrap();
        stela_common::fs::write(dir.join(mark), b"x").unwrap();
        refused(&server(role, &endpoint, &endpoint, &dir), 1, &[&dir.display().to_string()]);
        let found = stela_common::fs::read_dir(&dir).unwrap();
        assert_eq!(found, [dir.join(mark)], "{role}");
    }
}

#[test]
fn a_directory_that_holds_something_else() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let endpoint = format!("{ip}:6527");
    let file = root.path().join("mine.txt");
    stela_common::fs::write(&file, b"x").unwrap();
    for role in ["nameserver", "tablet"] {
        refused(&server(role, &endpoint, &endpoint, root.path()), 1, &["is not empty"]);
        assert_eq!(
            stela_common::fs::read_dir(root.path()).unwrap(),
            std::slice::from_ref(&file),
            "{role}"
        );
    }
}

#[test]
fn a_cluster_that_is_not_there() {
    // The compatible roles keep their texts on standard output and their status; the cause goes to standard error.
    let nowhere = "127.0.0.1:1";
    let list = format!("--zk_cluster={nowhere}");
    let outcome = run(&["--role=ns_client", &list, "--interactive=false", "--cmd=showtable"]);
    assert_eq!(
        (outcome.status, outcome.out.as_str()),
        (0, "zk client init failed\n"),
        "{outcome:?}"
    );
    assert!(outcome.err.starts_with("stela: no nameserver of 127.0.0.1:1 answers"), "{outcome:?}");
    assert!(outcome.took < Duration::from_secs(10));
    let strict = run(&["--role=ns_client", &list, "--cmd=showtable", "--strict-exit"]);
    assert_eq!((strict.status, strict.out.as_str()), (1, "zk client init failed\n"));
    let direct = run(&["--role=ns_client", &format!("--endpoint={nowhere}"), "--cmd=showtable"]);
    assert_eq!((direct.status, direct.out.as_str()), (0, "client init failed\n"));
    let none = run(&["--role=ns_client", "--cmd=showtable"]);
    assert_eq!(
        (none.status, none.out.as_str()),
        (0, "Start failed! not set endpoint or zk_cluster\n")
    );
    let none = run(&["--role=client", "--interactive=false", "--cmd=gettablestatus"]);
    assert_eq!((none.status, none.out.as_str()), (0, "Start failed! not set endpoint\n"));
    let silent = run(&[
        "--role=client",
        &format!("--endpoint={nowhere}"),
        "--interactive=false",
        "--cmd=gettablestatus",
    ]);
    assert!(
        silent.status == 0 && silent.out.starts_with("gettablestatus failed, error msg: "),
        "{silent:?}"
    );
}
