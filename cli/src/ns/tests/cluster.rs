//! The cluster as a whole: the switch, its servers, what they refuse, and the session.

use stela_common::code::{Code, Refusal};

use super::*;

#[tokio::test]
async fn the_switch_and_the_commands_that_it_forbids() {
    let mut bench = bench(Layout::Classic).await;
    let shown = |value: &str| {
        format!("  key            value\n{}\n  auto_failover  {value:5}\n", "-".repeat(24))
    };
    assert_eq!(bench.say("confget").await, shown("true"));
    let on = "auto_failover is enabled";
    for (line, words) in [
        ("offlineendpoint e", "failed to offline endpoint. error msg: "),
        ("recoverendpoint e", "failed to recover endpoint. error msg: "),
        ("recovertable t 0 e", "Fail to recover table. error msg:"),
        ("changeleader t 0", "failed to change leader. error msg: "),
        ("migrate a t 0 b", "failed to migrate partition. error msg: "),
        ("updatetablealive t * e no", "Fail to update table alive. error msg: "),
        ("settablepartition t f", "Fail to set table partition. error msg: "),
        ("cancelop 1", "Cancel op failed, error msg: ReturnCode[301]"),
    ] {
        bench.session.client.admin().conf_set("auto_failover", "true").await.unwrap();
        bench.each(&[(line, &format!("{words}{on}"))]).await;
        assert!(bench.failed);
        bench.session.client.admin().conf_set("auto_failover", "false").await.unwrap();
        let text = bench.say(line).await;
        assert!(
            text.contains("error msg") && text.contains("is not part of this version of stela"),
            "{text}"
        );
    }
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
            (
                "addreplica t 0 e",
                "addreplica failed. error msg: addreplica is not part of this version of stela",
            ),
            (
                "connectzk",
                "connectzk failed. error msg: connectzk is not part of this version of stela",
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
