//! Servers: they say when they are ready, stop when they are told, and keep their directory to themselves.

use std::path::Path;

use crate::process::{Server, address, run};

/// The arguments of a nameserver of a cluster of one.
pub fn nameserver(ip: &str, root: &Path) -> Vec<String> {
    vec![
        "--role=nameserver".into(),
        format!("--endpoint={ip}:6527"),
        format!("--nameservers={ip}:6527"),
        format!("--db_root_path={}", root.join("nameserver").display()),
        "--bootstrap".into(),
    ]
}

/// The arguments of its tablet.
pub fn tablet(ip: &str, root: &Path) -> Vec<String> {
    vec![
        "--role=tablet".into(),
        format!("--endpoint={ip}:9527"),
        format!("--nameservers={ip}:6527"),
        format!("--db_root_path={}", root.join("tablet").display()),
    ]
}

/// The same as words.
pub fn words(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// A terminal is closed, a logger ends: the servers go on, and stop when they are told.
#[test]
fn servers_outlive_whoever_read_their_log() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let mut nameserver = Server::start(&words(&nameserver(&ip, root.path())));
    nameserver.line();
    let mut tablet = Server::start(&words(&tablet(&ip, root.path())));
    tablet.line();
    nameserver.unheard();
    tablet.unheard();
    let list = format!("--zk_cluster={ip}:6527");
    let ask = |cmd: &str| {
        run(&["--role=ns_client", &list, "--interactive=false", "--database=d", cmd]).out
    };
    assert!(ask("--cmd=createdb d").ends_with("ok\n"), "createdb");
    assert!(ask("--cmd=create t 0 2 1").ends_with("Create table ok\n"), "create");
    assert!(ask("--cmd=put t k 1 v").ends_with("Put ok\n"), "put");
    assert_eq!(tablet.stop().0, 0);
    assert_eq!(nameserver.stop().0, 0);
}

#[test]
fn a_server_says_when_it_is_ready_and_stops_when_it_is_told() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let (ns, tab) = (nameserver(&ip, root.path()), tablet(&ip, root.path()));
    let mut nameserver = Server::start(&words(&ns));
    assert_eq!(nameserver.line(), format!("stela nameserver ready at {ip}:6527"));
    let mut tablet = Server::start(&words(&tab));
    assert_eq!(tablet.line(), format!("stela tablet ready at {ip}:9527"));

    // A second one finds the port taken.
    let second = run(&words(&ns));
    assert!(second.status == 1 && second.err.contains("cannot listen"), "{second:?}");

    assert_eq!(tablet.stop().0, 0);
    assert_eq!(nameserver.stop().0, 0);

    // The same from a file, and the flag that founds the group changes nothing now.
    let file = root.path().join("flags");
    let text: String = ns.iter().map(|flag| format!("{flag}\n")).collect();
    stela_common::fs::write(
        &file,
        format!("# a nameserver\n{text}--make_snapshot_time=23\n").as_bytes(),
    )
    .unwrap();
    let mut nameserver = Server::start(&[&format!("--flagfile={}", file.display())]);
    assert_eq!(nameserver.line(), format!("stela nameserver ready at {ip}:6527"));
    let (status, err) = nameserver.stop();
    assert_eq!((status, err.contains("panicked")), (0, false), "{err}");

    // Its directory is its own: not another cluster's, endpoint's or tablet's.
    let stranger = run(&[&words(&ns)[..], &["--cluster=other"]].concat());
    assert!(
        stranger.status == 1
            && stranger.err.contains("belongs to")
            && stranger.err.lines().count() == 1,
        "{stranger:?}"
    );
    let (own, list) =
        (format!("--endpoint={ip}:6528"), format!("--nameservers={ip}:6527,{ip}:6528"));
    let stranger = run(&[&words(&ns)[..], &[&own, &list]].concat());
    assert!(stranger.status == 1 && stranger.err.contains("belongs to"), "{stranger:?}");
    let stranger = run(&[&words(&tab)[..], &["--cluster=other"]].concat());
    assert!(stranger.status == 1 && stranger.err.contains("belongs to"), "{stranger:?}");
}
