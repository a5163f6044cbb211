//! HTTP and JSON on the ports that gRPC has: what tools post, what is wrong with a request, and whatever else arrives.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::process::{PATIENCE, Server, address, run};
use crate::servers::{nameserver, tablet, words};

/// Sends bytes and reads until the other end closes. Empty: it closed without a word.
fn raw(endpoint: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may have answered, and closed, before it has everything.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// How an answer begins to bytes whose sender may go on: nobody closes.
fn begin(endpoint: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(endpoint).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The status and the JSON of an answer.
fn ask(endpoint: &str, method: &str, path: &str, body: &str) -> (u16, serde_json::Value) {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {endpoint}\r\nContent-type: application/json\r\n\
         Authorization: foo\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = raw(endpoint, request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.to_ascii_lowercase().contains("content-type: application/json"), "{head}");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap();
    (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")))
}

#[test]
fn tools_post_json_to_the_ports_of_grpc() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let mut ns = Server::start(&words(&nameserver(&ip, root.path())));
    ns.line();
    let mut tab = Server::start(&words(&tablet(&ip, root.path())));
    tab.line();
    let (at_ns, at_tablet) = (format!("{ip}:6527"), format!("{ip}:9527"));
    let list = format!("--zk_cluster={at_ns}");
    let command = |cmd: &str| {
        let cmd = format!("--cmd={cmd}");
        run(&["--role=ns_client", &list, "--interactive=false", "--database=d", &cmd]).out
    };
    command("createdb d");
    assert!(command("create t 0 2 1").ends_with("Create table ok\n"));

    let show = |body: &str| ask(&at_ns, "POST", "/NameServer/ShowTable", body);
    let (status, shown) = show(r#"{"db": "d", "name": "t"}"#);
    assert_eq!((status, &shown["code"], &shown["msg"]), (200, &0.into(), &"ok".into()), "{shown}");
    let table = &shown["table_info"][0];
    assert_eq!((&table["name"], &table["db"]), (&"t".into(), &"d".into()));
    let replica = &table["table_partition"][1]["partition_meta"][0];
    assert_eq!(replica["endpoint"], *at_tablet);
    assert!(replica["is_leader"] == true && replica["is_alive"] == true, "{shown}");
    assert!(replica["offset"].is_u64());
    let (_, none) = show(r#"{"db": "d", "name": "no", "unknown": {"key": []}}"#);
    assert_eq!(none["table_info"].as_array().map(Vec::len), Some(0), "{none}");

    let load = |body: &str| ask(&at_tablet, "POST", "/TabletServer/LoadTable", body);
    let meta = |name: &str, pid: u32| {
        let tid = &table["tid"];
        format!(
            r#"{{"table_meta": {{"name": "{name}", "tid": {tid}, "pid": {pid}, "ttl": 0, "seg_cnt": 8, "storage_mode": "kMemory"}}}}"#
        )
    };
    // The tablet hears of a new table a moment later than who made it.
    let deadline = Instant::now() + PATIENCE;
    let (status, loaded) = loop {
        let (status, loaded) = load(&meta("t", 1));
        if loaded["code"] != 138 || Instant::now() > deadline {
            break (status, loaded);
        }
    };
    assert_eq!((status, loaded), (200, serde_json::json!({"code": 0, "msg": "ok"})));
    let (status, refused) = load(&meta("other", 1));
    assert!(status == 200 && refused["code"] == 307, "{refused}");
    let (status, refused) = load(&meta("t", 9));
    assert!(status == 200 && refused["code"] == 138, "{refused}");

    for (endpoint, path, role) in [
        (&at_ns, "/NameServer/ShowTable", "nameserver"),
        (&at_tablet, "/TabletServer/LoadTable", "tablet"),
    ] {
        let (status, health) = ask(endpoint, "GET", "/health", "");
        assert_eq!((status, &health["status"], &health["role"]), (200, &"ok".into(), &role.into()));
        for bad in ["", "{", "[]", "{\"db\": 1, \"table_meta\": 1}", &"[".repeat(10_000)] {
            let (status, why) = ask(endpoint, "POST", path, bad);
            let told = why["msg"].as_str().is_some_and(|m| m.contains("not as expected"));
            assert!(status == 400 && why["code"] == 180 && told, "{bad:.40}: {why}");
        }
        assert_eq!(ask(endpoint, "GET", path, "").0, 405);
        assert_eq!(ask(endpoint, "POST", "/health", "{}").0, 405);
        assert_eq!(ask(endpoint, "POST", "/NameServer", "{}").0, 404);
        assert_eq!(ask(endpoint, "GET", "/../%00%ff", "").0, 404);
        let long = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n");
        assert_eq!(begin(endpoint, long.as_bytes()), "HTTP/1.1 413 ");
        let chunks =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunks = chunks + &format!("10000\r\n{}\r\n", "x".repeat(0x10000)).repeat(17);
        assert_eq!(begin(endpoint, chunks.as_bytes()), "HTTP/1.1 413 ");
        for junk in [
            &b"\x16\x03\x01\x02\x00\x01"[..],
            b"GET",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nxxxx",
            b"\0",
        ] {
            // Nobody waits for what would come behind it.
            drop(TcpStream::connect(endpoint).unwrap().write_all(junk));
        }
        // Two requests on one connection.
        let one = "GET /health HTTP/1.1\r\nHost: x\r\n";
        let two = format!("{one}\r\n{one}Connection: close\r\n\r\n");
        assert_eq!(raw(endpoint, two.as_bytes()).matches("\"status\":\"ok\"").count(), 2);
    }

    // gRPC is where it was: also what it says of a service that is not there.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let unknown = runtime.block_on(async {
        use stela_proto::nameserver::{ClusterRequest, nameserver_client::NameserverClient};
        let mut client = NameserverClient::connect(format!("http://{at_tablet}")).await.unwrap();
        client.cluster(ClusterRequest {}).await.unwrap_err()
    });
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    assert!(command("showtable t").contains(&at_tablet));
    for (server, name) in [(tab, "tablet"), (ns, "nameserver")] {
        let (status, err) = server.stop();
        assert!(status == 0 && !err.contains("panicked"), "{name}: {status} {err}");
    }
}

#[test]
fn one_statement_of_sql() {
    let (root, ip) = (tempfile::tempdir().unwrap(), address());
    let mut ns = Server::start(&words(&nameserver(&ip, root.path())));
    ns.line();
    let mut tab = Server::start(&words(&tablet(&ip, root.path())));
    tab.line();
    let list = format!("--zk_cluster={ip}:6527");
    let ask = |role: &str, cmd: &str, more: &[&str]| {
        let (role, cmd) = (format!("--role={role}"), format!("--cmd={cmd}"));
        let args = [&list, "--zk_root_path=/openmldb", role.as_str(), "--interactive=false", &cmd];
        run(&[&args[..], more].concat())
    };
    ask("ns_client", "createdb d", &[]);
    ask("ns_client", "create t 0 2 1", &["--database=d"]);
    // A partition that nobody serves yet is a warning in the last column.
    let deadline = Instant::now() + Duration::from_secs(30);
    let shown = loop {
        let shown = ask("sql_client", "show table status like '%';", &[]);
        assert_eq!((shown.status, shown.err.as_str()), (0, ""), "{shown:?}");
        if !shown.out.contains("nobody_serves") {
            break shown;
        }
        assert!(Instant::now() < deadline, "{shown:?}");
    };
    let lines: Vec<&str> = shown.out.lines().collect();
    assert!(lines[0].starts_with(" ----------") && lines[1].trim_start().starts_with("Table_id"));
    let cells: Vec<&str> = lines[3].split_whitespace().collect();
    assert_eq!(cells[1..4], ["t", "d", "memory"]);
    assert_eq!(cells[7..], ["2", "0", "1", "NULL", "NULL", "NULL"]);
    assert_eq!(lines[5..], ["", "1 rows in set"]);
    let none = ask("sql_client", "SHOW TABLE STATUS LIKE 'e_';", &[]).out;
    assert!(none.ends_with("\n0 rows in set\n"), "{none}");
    let other = ask("sql_client", "select * from t;", &[]);
    assert!(other.status == 0 && other.out.contains("--role=ns_client"), "{other:?}");
    assert_eq!(other.out.lines().count(), 1);
    assert_eq!(ask("sql_client", "drop table t", &["--strict-exit"]).status, 1);
}
