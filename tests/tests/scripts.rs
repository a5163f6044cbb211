//! The scripts of `deploy/`, run as an operator runs them: start, stop, recover, what they say to bad input, and each drill
//! once. One at a time: each is a cluster of six processes.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, chmod};
use rustix::process::{Pid, Signal, kill_process};
use stela_common::fs::{self, Disk};
use tempfile::TempDir;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A hosts file for three nameservers and three tablets, and the program that they run.
struct Place {
    root: TempDir,
    ip: String,
    _guard: MutexGuard<'static, ()>,
}

/// What a script said, and its status.
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name)
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    println!("{command:?}: {}\n{out}{err}", output.status);
    Said { status: output.status.code(), out, err }
}

impl Place {
    fn new() -> Self {
        let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let root =
            tempfile::Builder::new().prefix("stela-scripts-").tempdir().expect("a directory");
        let [a, b, c]: [u8; 3] = rand::random();
        let ip = format!("127.{}.{b}.{}", a.clamp(1, 254), c.clamp(2, 254));
        let place = Self { root, ip, _guard: guard };
        // The harness is stela, too, and is always built; the binary of that name need not be.
        let program =
            format!("#!/bin/sh\nexec '{}' as-stela \"$@\"\n", env!("CARGO_BIN_EXE_stela-tests"));
        place.write("stela", &program);
        chmod(place.path("stela"), Mode::RWXU).expect("an executable file");
        place.write("hosts", &place.hosts());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
    }

    fn hosts(&self) -> String {
        let line = |role: &str, port: u16| {
            format!("{}:{port} {}\n", self.ip, self.path(&format!("{role}{port}")).display())
        };
        let nameservers: String = (6527..6530).map(|port| line("nameserver", port)).collect();
        let tablets: String = (9527..9530).map(|port| line("tablet", port)).collect();
        format!("# mine\n[nameserver]\n{nameservers}\n[tablet] # all of them\n{tablets}")
    }

    fn endpoint(&self, port: u16) -> String {
        format!("{}:{port}", self.ip)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(script(name));
        command
            .env("openmldb_bin_path", self.path("stela"))
            .env("stela_hosts", self.path("hosts"))
            .env_remove("zk_cluster")
            .env("zk_root_path", "/scripts")
            .env("drill_untimed", "1")
            .env("TMPDIR", self.root.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, name: &str, args: &[&str]) -> Said {
        said(self.command(name).args(args))
    }

    /// A script that must succeed.
    fn must(&self, name: &str, args: &[&str]) -> String {
        let said = self.run(name, args);
        assert_eq!(said.status, Some(0), "{name} {args:?}");
        said.out
    }

    /// A script that must refuse, with status 1 and these words on standard error.
    fn refuses(&self, command: &mut Command, words: &[&str]) {
        let said = said(command);
        assert_eq!(said.status, Some(1));
        assert!(words.iter().all(|word| said.err.contains(word)), "{words:?}: {}", said.err);
    }

    fn ns(&self, words: &str) -> String {
        let mut command = Command::new(self.path("stela"));
        command.args(["--role=ns_client", "--interactive=false", "--database=db"]);
        command.arg(format!("--zk_cluster={}", self.endpoint(6528)));
        said(command.arg(format!("--cmd={words}"))).out
    }

    fn drill(&self, name: &str) {
        let said = self.run(&format!("drills/{name}.sh"), &["1"]);
        // Too little work shows nothing, on a machine that is busy with something else.
        let word = match said.status {
            Some(0) => "PASS",
            Some(2) => "UNKNOWN",
            other => panic!("{name} ended with {other:?}"),
        };
        assert!(
            said.out.lines().last().is_some_and(|l| l.starts_with(&format!("{word} {name}: ")))
        );
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whatever a failed test left running; of nothing this is no error.
        let _ = self.command("stop-all.sh").env("stela_patience", "10").output();
    }
}

#[test]
fn a_cluster_is_started_stopped_and_recovered() {
    let place = Place::new();
    let out = place.must("start-all.sh", &[]);
    assert_eq!(out.matches(" is ready").count(), 6);
    assert!(out.contains("recoverdata") && out.contains("kDone"));
    assert_eq!(place.must("start-all.sh", &[]).matches("runs already").count(), 6);
    assert!(place.ns("createdb db").contains("ok"));
    assert!(place.ns("create t 0 4 3").contains("ok"));
    assert!(place.ns("put t k 1 v").contains("Put ok"));

    // A recovery that has to wait is interrupted, and goes on.
    let tablet = place.endpoint(9528);
    place.must("stop-all.sh", &[&tablet]);
    let mut recovery = place.command("recoverdata.sh");
    let mut recovery = recovery.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(recovery.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("not in sync")), "it had nothing to wait for");
    kill_process(Pid::from_child(&recovery), Signal::TERM).unwrap();
    assert!(lines.any(|line| line.contains(" ops show ") && line.contains(" --wait ")));
    assert_eq!(recovery.wait().unwrap().code(), Some(130));
    place.must("start-all.sh", &[&tablet]);
    assert!(place.must("recoverdata.sh", &[]).contains("kDone"));
    assert_eq!(place.ns("showtable t").matches(" yes ").count(), 12);

    assert_eq!(place.must("stop-all.sh", &[]).matches(" is stopped").count(), 6);
    assert_eq!(place.must("stop-all.sh", &[]).matches(" does not run").count(), 6);
    place.must("start-all.sh", &[]);
    assert!(place.ns("get t k 1").contains("value :v"));
    place.must("stop-all.sh", &[]);
}

#[test]
fn what_is_wrong_is_said_with_its_cure() {
    let place = Place::new();
    let [start, stop, recover] = ["start-all.sh", "stop-all.sh", "recoverdata.sh"]
        .map(|name| move |p: &Place| p.command(name));

    // The binary.
    let unset = "openmldb_bin_path";
    place.refuses(recover(&place).env(unset, ""), &["openmldb_bin_path is empty", "env.sh"]);
    place.refuses(start(&place).env(unset, "/no/stela"), &["no program /no/stela", "env.sh"]);
    place.refuses(start(&place).env(unset, "/bin/ls"), &["is not Stela"]);
    place.refuses(place.command("drills/manual-mode.sh").env(unset, "/no/stela"), &["no program"]);

    // The cluster.
    place.refuses(&mut recover(&place), &["no nameserver", "start-all.sh starts it"]);
    place.refuses(recover(&place).env("zk_cluster", "127.0.0.1:1"), &["127.0.0.1:1"]);
    place.refuses(start(&place).env("zk_cluster", "127.0.0.1:1"), &["zk_cluster is 127.0.0.1:1"]);
    place.refuses(start(&place).arg("1.1.1.1:1"), &["no server 1.1.1.1:1"]);

    // The hosts file.
    place.refuses(stop(&place).env("stela_hosts", "/no/hosts"), &["cannot read", "/no/hosts"]);
    for (text, word) in [
        ("1.1.1.1:1 /x", "line 1: it stands in no section"),
        ("[tablets]", "no section [tablets]"),
        ("[tablet]\nhere:1 /x", "line 2: here:1 is not ip:port"),
        ("[tablet]\n1.1.1.1:70000 /x", "below 65536"),
        ("[tablet]\n1.1.1.1:1", "one directory"),
        ("[tablet]\n1.1.1.1:1 x", "from the root on"),
        ("[tablet]\n1.1.1.1:1 /x y", "without blanks"),
        ("[tablet]\n1.1.1.1:1 /x\n1.1.1.1:1 /y", "line 3: 1.1.1.1:1 is there twice"),
        ("[tablet]\n1.1.1.1:1 /x\n1.1.1.1:2 /x/", "/x is that of 1.1.1.1:1"),
        ("[tablet]\n1.1.1.1:1 /x", "names no nameserver"),
        ("[nameserver]\n1.1.1.1:1 /x", "names no tablet"),
    ] {
        place.write("hosts", text);
        place.refuses(&mut start(&place), &[word]);
    }
    place.write("hosts", &place.hosts());

    // A directory with something else in it, on a nameserver that the others wait for.
    let foreign = place.path("nameserver6528");
    fs::create_dir_all(&Disk::real(), &foreign).unwrap();
    fs::write(foreign.join("letter"), b"x").unwrap();
    place.refuses(&mut start(&place), &["is not empty and not a nameserver's", "start again"]);
    fs::remove_dir_all(&foreign).unwrap();

    // A port of somebody else: the rest runs, and the same command goes on when the port is free.
    let taken = TcpListener::bind(place.endpoint(9529)).unwrap();
    place.refuses(&mut start(&place), &["9529: did not start", "Address already in use"]);
    place.refuses(&mut stop(&place), &["9529: was not started by start-all.sh"]);
    drop(taken);
    place.must("start-all.sh", &[]);
    place.must("stop-all.sh", &[]);

    // Tablets with data and no nameserver that knows of it: no second cluster is founded.
    for port in 6527..6530 {
        fs::remove_dir_all(place.path(&format!("nameserver{port}"))).unwrap();
    }
    place.refuses(&mut start(&place), &["all empty, but tablets have data"]);
}

#[test]
fn a_rolling_restart_refuses_nothing() {
    Place::new().drill("rolling-restart");
}

#[test]
fn killed_tablets_return_by_themselves() {
    Place::new().drill("kill-and-return");
}

#[test]
fn everything_down_and_up_loses_nothing() {
    Place::new().drill("all-down-and-up");
}

#[test]
fn the_document_by_hand() {
    Place::new().drill("manual-mode");
}
