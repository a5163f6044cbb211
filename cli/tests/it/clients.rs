//! The two clients against a cluster of one nameserver and one tablet.

use crate::process::{Outcome, Server, address, pipe, run};
use crate::servers::{nameserver, tablet, words};

struct Cluster {
    ip: String,
    // In the order in which they are ended.
    _tablet: Server,
    _nameserver: Server,
    _root: tempfile::TempDir,
}

fn cluster() -> Cluster {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let mut ns = Server::start(&words(&nameserver(&ip, root.path())));
    ns.line();
    let mut tab = Server::start(&words(&tablet(&ip, root.path())));
    tab.line();
    Cluster { ip, _tablet: tab, _nameserver: ns, _root: root }
}

impl Cluster {
    fn list(&self) -> String {
        format!("--zk_cluster={}:6527", self.ip)
    }

    fn one(&self, command: &str, more: &[&str]) -> Outcome {
        let (list, command) = (self.list(), format!("--cmd={command}"));
        run(&[
            &[
                "--role=ns_client",
                &list,
                "--zk_root_path=/openmldb",
                "--interactive=false",
                &command,
            ],
            more,
        ]
        .concat())
    }
}

/// Words of a line of a table.
fn cells(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn a_session_through_a_pipe_and_commands_one_by_one() {
    let cluster = cluster();
    let leader = format!("ns leader: {}:6527", cluster.ip);

    let script = "createdb db\nuse db\n\n/a/path\ncreate t 0 2 1\nput t k 1 v1\nput t k 2 v2\nget t k 0\ncount t k\nshowtable\ndrop t\nno\nnonsense\nquit\nshowdb\n";
    let piped = pipe(&["--role=ns_client", &cluster.list()], script);
    assert_eq!(piped.status, 0, "{piped:?}");
    let lines: Vec<&str> = piped.out.lines().collect();
    assert!(lines[0].starts_with("Welcome to openmldb with version "));
    assert_eq!(
        lines[1..9],
        [
            leader.as_str(),
            "Create database db ok",
            "Use database: db",
            "Create table ok",
            "Put ok",
            "Put ok",
            "value :v2",
            "count: 2"
        ]
    );
    // Nobody sits there, but what is printed is what people get: the classic layout, and questions.
    assert_eq!(cells(lines[9])[5..8], ["ttl", "is_alive", "compress_type"]);
    assert_eq!(cells(lines[11])[4], "leader");
    assert_eq!(
        lines[13..],
        ["Drop table t? yes/no", "'drop t' cmd is canceled!", "unsupported cmd", "bye"],
        "{lines:?}"
    );
    assert!(!piped.out.contains("> "), "there is no prompt");

    let shown = cluster.one("showtable t", &["--database=db"]);
    let lines: Vec<&str> = shown.out.lines().collect();
    assert_eq!((shown.status, lines[0]), (0, leader.as_str()));
    assert_eq!(cells(lines[1])[5..7], ["is_alive", "offset"]);
    let shown = cluster.one("showtablet", &["--layout=classic"]);
    assert!(shown.out.contains("kTabletHealthy"), "{shown:?}");
    let shown = cluster.one("showns", &["--output=json"]);
    assert_eq!(
        shown.out,
        format!(
            "[{{\"endpoint\":\"{}:6527\",\"real_endpoint\":null,\"role\":\"leader\"}}]\n",
            cluster.ip
        )
    );

    // A failure is a text, and a status only where that was asked for.
    let failed = cluster.one("drop nothing", &["--database=db"]);
    assert_eq!(
        (failed.status, failed.out.lines().nth(1)),
        (0, Some("failed to drop. error msg: table does not exist!")),
        "{failed:?}"
    );
    assert_eq!(cluster.one("drop nothing", &["--strict-exit"]).status, 1);
    // A database that is not there is not selected, and nothing is said.
    assert_eq!(cluster.one("showtable", &["--database=nowhere"]).out.lines().count(), 3);

    let other =
        run(&["--role=ns_client", &cluster.list(), "--zk_root_path=/other", "--cmd=showdb"]);
    assert_eq!((other.status, other.out.as_str()), (0, "get children failed\n"), "{other:?}");
    assert!(other.err.contains("is of cluster 'openmldb', not 'other'"), "{other:?}");

    let endpoint = format!("--endpoint={}:9527", cluster.ip);
    let status = run(&["--role=client", &endpoint, "--interactive=false", "--cmd=gettablestatus"]);
    let lines: Vec<&str> = status.out.lines().collect();
    assert_eq!(
        (cells(lines[2])[3], cells(lines[2])[4]),
        ("kTableLeader", "kTableNormal"),
        "{status:?}"
    );
    let tid = cells(lines[2])[0];
    let none = run(&[
        "--role=client",
        &endpoint,
        "--interactive=false",
        &format!("--cmd=getfollower {tid} 0"),
    ]);
    assert_eq!(none.out, "get failed, error msg: has no follower\n", "{none:?}");

    let preview = cluster.one("preview t 1", &["--database=db"]);
    let lines: Vec<&str> = preview.out.lines().collect();
    assert_eq!((cells(lines[1]), cells(lines[3])[3]), (vec!["#", "key", "ts", "data"], "v2"));
    let pid = stela_common::route::partition_of(b"k", 2).to_string();
    for (command, want) in [
        ("loadtable t TID PID 0 8 false", "LoadTable ok"),
        (
            "loadtable t TID 2 0 8",
            "Fail to LoadTable: ReturnCode[138]fail to get table db root path",
        ),
        ("pausesnapshot TID PID", "PauseSnapshot ok"),
        ("makesnapshot TID PID", "Fail to MakeSnapshot"),
        ("recoversnapshot TID PID", "RecoverSnapshot ok"),
        ("makesnapshot TID PID", "MakeSnapshot ok"),
        ("setexpire TID PID true", "setexpire ok"),
        ("showschema TID PID", "No schema for table"),
        ("count TID PID k", "count: 2"),
        ("delete TID PID k", "Delete ok"),
        ("count TID PID k key", "count: 0"),
        ("drop TID PID", "Fail to drop table"),
        ("drop TID 2", "Drop table ok"),
    ] {
        let command = format!("--cmd={}", command.replace("TID", tid).replace("PID", &pid));
        let said = run(&["--role=client", &endpoint, "--interactive=false", &command]);
        assert_eq!(said.out, format!("{want}\n"), "{said:?}");
    }
}

#[test]
fn each_line_of_a_pipe_is_answered_at_once() {
    let cluster = cluster();
    let mut client = Server::start(&["--role=ns_client", &cluster.list(), "--interactive=false"]);
    assert!(client.line().starts_with("Welcome "));
    assert!(client.line().starts_with("ns leader: "));
    // The next line is sent only when the answer is there.
    client.send("createdb db");
    assert_eq!(client.line(), "Create database db ok");
    client.send("use db");
    assert_eq!(client.line(), "Use database: db");
    client.send("create t 0 1 1");
    assert_eq!(client.line(), "Create table ok");
    client.send("showtable");
    assert!(!client.line().contains("compress_type"), "scripts get the current layout");
    assert!(client.line().starts_with("------"));
    assert_eq!(cells(&client.line())[0], "t");
    client.send("drop t");
    assert_eq!(client.line(), "drop ok", "nobody is asked");
}

#[test]
fn a_terminal() {
    let cluster = cluster();
    let args = ["--role=ns_client", &cluster.list()];
    let prompt = format!("{}:6527 > ", cluster.ip);
    for (term, shown, enter) in [("dumb", "showns", "\n"), ("xterm", "shown\t", "\r")] {
        let mut terminal = terminal::Terminal::start(&args, term);
        terminal.until(&prompt);
        terminal.send(&format!("{shown}{enter}"));
        // A terminal that is edited in repeats the prompt while keys are typed: what is waited for is the answer.
        terminal.until("real_endpoint  role");
        terminal.until(&prompt);
        terminal.send(&format!("createdb {term}{enter}"));
        terminal.until(&format!("Create database {term} ok"));
        terminal.send(&format!("use {term}{enter}"));
        terminal.until(&format!("{}:6527 {term}> ", cluster.ip));
        terminal.send(&format!("create t 0 1 1{enter}drop t{enter}"));
        terminal.until("Drop table t? yes/no");
        terminal.send(&format!("YES{enter}"));
        terminal.until("drop ok");
        terminal.until(&format!("{}:6527 {term}> ", cluster.ip));
        terminal.send("\x04");
        assert_eq!(terminal.status(), 0);
    }
}

mod terminal {
    //! A terminal of its own for a process.

    use std::io::{Read as _, Write as _};
    use std::process::{Child, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::thread;
    use std::time::Instant;

    use rustix::fs::{Mode, OFlags};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use crate::process::{PATIENCE, stela};

    pub struct Terminal {
        child: Child,
        master: std::fs::File,
        seen: Receiver<Vec<u8>>,
        text: String,
    }

    impl Terminal {
        pub fn start(args: &[&str], term: &str) -> Self {
            let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
            grantpt(&master).unwrap();
            unlockpt(&master).unwrap();
            let name = ptsname(&master, Vec::new()).unwrap();
            let slave = || {
                Stdio::from(
                    rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty())
                        .unwrap(),
                )
            };
            let child = stela(args)
                .stdin(slave())
                .stdout(slave())
                .stderr(slave())
                .env("TERM", term)
                .spawn()
                .unwrap();
            let master = std::fs::File::from(master);
            let (send, seen) = channel();
            let mut from = master.try_clone().unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = from.read(&mut buffer) {
                    if send.send(buffer[..n].to_vec()).is_err() {
                        return;
                    }
                }
            });
            Self { child, master, seen, text: String::new() }
        }

        pub fn send(&mut self, keys: &str) {
            self.master.write_all(keys.as_bytes()).unwrap();
        }

        /// What was printed up to and with `mark`.
        pub fn until(&mut self, mark: &str) -> String {
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Some(at) = self.text.find(mark) {
                    return self.text.drain(..at + mark.len()).collect();
                }
                let left = deadline.saturating_duration_since(Instant::now());
                match self.seen.recv_timeout(left) {
                    Ok(bytes) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                    Err(e) => panic!("no '{mark}' ({e}) in: {}", self.text),
                }
            }
        }

        pub fn status(&mut self) -> i32 {
            let deadline = Instant::now() + PATIENCE;
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.code().unwrap_or(-1);
                }
                assert!(Instant::now() < deadline, "it does not end");
                thread::sleep(std::time::Duration::from_millis(5));
            }
        }
    }

    impl Drop for Terminal {
        fn drop(&mut self) {
            // It may have ended by itself.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The two keys of a row are in different partitions, mostly.
#[test]
fn a_row_that_is_deleted_by_one_index_is_gone_from_all() {
    let cluster = cluster();
    let mut script =
        String::from("createdb db\nuse db\ncreate t 0 8 1 a:string:index b:string:index\n");
    for n in 0..20 {
        script += &format!("put t 1 a{n} b{n}\nput t 2 a{n} b{n}\nput t 3 other b{n}\n");
    }
    for n in 0..20 {
        script += &format!("delete t a{n} a\n");
    }
    for n in 0..20 {
        script += &format!("count t b{n} b\n");
    }
    let outcome = pipe(&["--role=ns_client", &cluster.list()], &script);
    assert_eq!(outcome.out.matches("count: 1\n").count(), 20, "{}", outcome.out);
    assert_eq!(outcome.out.matches("delete ok\n").count(), 20, "{}", outcome.out);
}
