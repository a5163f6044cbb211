//! The cluster as a whole: the switch, its servers, what they refuse, and the session.

use stela_common::code::{Code, Refusal};

use super::*;

const PID: &str = "Invalid args. pid should be uint32_t";

#[tokio::test]
async fn the_switch_and_the_commands_that_it_forbids() {
    let mut bench = bench(Layout::Classic).await;
    let shown = |value: &str| {
        format!("  key            value\n{}\n  auto_failover  {value:5}\n", "-".repeat(24))
    };
    assert_eq!(bench.say("confget").await, shown("true"));
    let changed = "change leader ok. If there are writing operations while changing a leader, it may cause data loss.";
    let ttl = "Set ttl ok ! Note that, it will take effect after two garbage collection intervals (i.e. gc_interval).";
    for (line, ok, words) in [
        ("offlineendpoint e 2", "offline endpoint ok", "failed to offline endpoint. error msg: "),
        (
            "recoverendpoint e TRUE 2",
            "recover endpoint ok",
            "failed to recover endpoint. error msg: ",
        ),
        ("recovertable t 0 e", "recover table ok", "Fail to recover table. error msg:"),
        ("changeleader t 0", changed, "failed to change leader. error msg: "),
        ("changeleader t 0 auto", changed, "failed to change leader. error msg: "),
        ("migrate a t 0 b", "partition migrate ok", "failed to migrate partition. error msg: "),
        ("addreplica t 1-3 e", "AddReplica ok", "Fail to addreplica. error msg:"),
        ("delreplica t 1,2 e", "DelReplica ok", "Fail to delreplica. error msg:"),
        ("updatetablealive t * e no", "update ok", "Fail to update table alive. error msg: "),
        ("makesnapshot t 0", "MakeSnapshot ok", "Fail to makesnapshot. error msg:"),
        ("cancelop 1", "Cancel op ok!", "Cancel op failed, error msg: ReturnCode[301]"),
        ("deleteop 1", "Delete op ok!", "Delete op failed, error msg: ReturnCode[301]"),
        ("deleteop DONE", "Delete op ok!", "Delete op failed, error msg: ReturnCode[301]"),
        ("setttl t absolute 10", ttl, "Set ttl failed! "),
        ("deleteindex t i", "delete index ok", "Fail to delete index. error msg: "),
        ("setsdkendpoint e null", "setsdkendpoint ok", "setsdkendpoint failed. error msg: "),
    ] {
        bench.fake.model.lock().refuse = None;
        bench.each(&[(line, ok)]).await;
        assert!(!bench.failed, "{line}");
        bench.fake.model.lock().refuse = Some(Code::AutoFailoverEnabled.into());
        bench.each(&[(line, &format!("{words}auto_failover is enabled"))]).await;
        assert!(bench.failed, "{line}");
    }
    bench.fake.model.lock().refuse = None;
    bench
        .each(&[
            ("offlineendpoint", "Bad format"),
            ("confset", "Bad format"),
            ("confset auto_failover", "Bad format"),
            (
                "confset auto_failover maybe",
                "failed to set auto_failover. error msg: invalid parameter",
            ),
            ("confset other true", "failed to set other. error msg: invalid parameter"),
            ("confset auto_failover false", "set auto_failover ok"),
            ("confget other", "failed to set other. error msg: cannot found key other"),
            ("offlineendpoint e 0", "Invalid args. concurrency should be greater than 0"),
            ("offlineendpoint e x", "Invalid args. concurrency should be uint32_t"),
            ("recoverendpoint", "Bad format"),
            ("recoverendpoint e maybe", "Invalid args. need_restore should be true or false"),
            ("recoverendpoint e true x", "Invalid args. concurrency should be uint32"),
            ("recovertable t 1", "Bad format"),
            ("recovertable t x e", PID),
            ("changeleader t", "Bad format"),
            ("changeleader t x", PID),
            (
                "migrate a t 1",
                "Bad format. eg, migrate 127.0.0.1:9991 table1 1-10 127.0.0.1:9992",
            ),
            ("migrate a t 1 a", "migrate error. src_endpoint is same as des_endpoint"),
            ("migrate a t 1-3,5 b", "pid group[1-3,5] format error"),
            ("addreplica t 0", "Bad format"),
            ("addreplica t 5-1 e", "has not valid pid"),
            ("delreplica t", "Bad format"),
            ("delreplica t a e", "pid group[a] format error"),
            ("updatetablealive t 0 e", "Bad format"),
            ("updatetablealive t x e maybe", "is_alive should be yes or no"),
            ("updatetablealive t x e yes", PID),
            ("makesnapshot t", "Bad format"),
            ("makesnapshot t x", PID),
            ("cancelop", "bad cancelop format, eg cancelop 1002"),
            ("cancelop x", "Invalid args. op_id should be uint64_t"),
            ("deleteop", "bad deleteop format, eg: deleteop 1002, deleteop doing"),
            ("deleteop doing", "invalid args"),
            ("deleteindex t", "Bad format\nusage: deleteindex table_name index_name"),
            (
                "setsdkendpoint a",
                "Bad format for setsdkendpoint!eg. setsdkendpoint server_name sdkendpoint",
            ),
            ("settablepartition t", "Bad format"),
            ("settablepartition t /no/such/file", "can not open file /no/such/file"),
            ("gettablepartition t", "Bad format"),
            ("gettablepartition t x", PID),
            ("connectzk", "Fail to connect zk"),
            ("disconnectzk", "Fail to disconnect zk"),
            (
                "addrepcluster a",
                "addrepcluster format error. eg: addrepcluster zk_endpoints zk_path alias_name",
            ),
            (
                "addrepcluster a b c",
                "addrepcluster failed. error msg: replication between clusters is not supported yet",
            ),
            ("removerepcluster", "Bad format. eg removerepcluster dc2"),
            ("switchmode", "Bad format"),
            ("switchmode other", "invalid mode type"),
            ("switchmode normal", "switchmode ok"),
            (
                "synctable t",
                "Bad format for synctable! eg. synctable table_name cluster_alias [pid]",
            ),
            ("foo", "unsupported cmd"),
            ("SHOWTABLE", "unsupported cmd"),
        ])
        .await;
    assert_eq!(bench.say("confget auto_failover").await, shown("false"));
}

#[tokio::test]
async fn nameservers_and_operations() {
    let mut bench = bench(Layout::Current).await;
    let lines = bench.lines("showns").await;
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["NS", "-", "leader"]);
    assert!(lines[3].trim_start().starts_with("0.0.0.0:") && lines[3].contains("  -  "));
    assert!(lines[3].trim_end().ends_with("standby"), "who is away or only follows is no standby");
    assert_eq!(lines.len(), 4, "{lines:?}");
    bench.session.by_list = false;
    bench.each(&[("showns", "Show nameserver failed. zk_cluster is empty")]).await;

    let op = |id, name: &str, pid| stela_proto::nameserver::OpRow {
        id,
        name: name.into(),
        pid: Some(pid),
        ..Default::default()
    };
    bench.fake.model.lock().ops = vec![op(3, "t", 1), op(2, "t", 0), op(1, "u", 0)];
    let ids = |lines: Vec<String>| -> Vec<String> {
        lines[2..].iter().filter_map(|l| l.split_whitespace().next().map(Into::into)).collect()
    };
    assert_eq!(ids(bench.lines("showopstatus").await), ["1", "2", "3"]);
    assert_eq!(ids(bench.lines("showopstatus t ").await), ["2", "3"]);
    assert_eq!(ids(bench.lines("showopstatus t 1").await), ["3"]);
    bench.each(&[("showopstatus t x", "Invalid args. pid should be uint32_t")]).await;
}

#[tokio::test]
async fn what_the_nameserver_refuses_is_told_in_the_words_of_each_command() {
    let mut bench = bench(Layout::Current).await;
    bench.fake.model.lock().refuse = Some(Refusal::new(Code::Malformed, "because"));
    bench
        .each(&[
            ("showtablet", "Fail to show tablets. error msg: because"),
            ("showtable", "failed to showtable. error msg: because"),
            ("showopstatus", "Fail to show tablets. error msg: because"),
            ("confget auto_failover", "failed to set auto_failover. error msg: because"),
            ("confget", "failed to get conf. error msg: because"),
            ("showdb", "Fail to show databases. error msg: because"),
            ("use db", "Use database failed. error msg: because"),
            ("showschema t", "failed to showschema. error msg: because"),
            ("info t", "failed to get table info. error msg: because"),
            ("get t k 0", "failed to get table info. error msg: because"),
            ("cancelop 1", "Cancel op failed, error msg: ReturnCode[180]because"),
        ])
        .await;
}

#[tokio::test]
async fn a_nameserver_that_does_not_answer() {
    let mut bench = bench(Layout::Current).await;
    bench.fake.model.lock().refuse = Some(Refusal::new(Code::RpcFailed, "nobody is there"));
    bench.each(&[("showtablet", "Fail to show tablets. error msg: ")]).await;
    assert!(bench.failed && bench.causes[0].contains("nobody is there"));
    bench
        .each(&[("changeleader t 0", "failed to change leader. error msg: nobody is there")])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_completed_from_the_cluster() {
    let mut bench = bench(Layout::Current).await;
    bench.say("createdb db1").await;
    bench.say("use db1").await;
    bench.say("create flow 0 1 1").await;
    let names = bench.session.names();
    let found = tokio::task::block_in_place(|| {
        (names.after(&["use"]), names.after(&["drop"]), names.after(&["confset"]))
    });
    assert_eq!(found, (vec!["db1".into()], vec!["flow".into()], vec!["auto_failover".into()]));
    assert!(names.after(&[]).contains(&"showtable".to_owned()));
    assert!(names.after(&["drop", "flow"]).is_empty());
}

#[tokio::test]
async fn the_session_ends() {
    let mut bench = bench(Layout::Current).await;
    let answer = bench.session.command(&Words::new("quit"), &mut bench.answers).await;
    assert_eq!(answer, Answer { end: true, ..Answer::done("bye") });
    assert_eq!(
        bench.session.between().await,
        Some(format!("ns leader: {}", bench.fake.nameserver))
    );
    assert_eq!(bench.session.between().await, None);
}
