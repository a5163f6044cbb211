//! What each command prints, against a cluster in memory.

use std::time::Duration;

use stela_common::code::{Code, Refusal};

use super::*;
use crate::fake::{self, Fake};
use crate::print::{self, Style};

struct Answers {
    yes: bool,
    asked: Vec<String>,
}

impl Ask for Answers {
    fn yes(&mut self, question: &str) -> bool {
        self.asked.push(question.into());
        self.yes
    }
}

struct Bench {
    fake: Fake,
    session: Session,
    answers: Answers,
    json: bool,
    /// Of the last command.
    failed: bool,
    causes: Vec<String>,
}

async fn bench(layout: Layout) -> Bench {
    let fake = fake::start().await;
    let options = Cluster {
        nameservers: vec![fake.nameserver.clone()],
        cluster: None,
        timeout: Duration::from_millis(1000),
    };
    let client = Client::connect(options).await.unwrap();
    let session =
        Session { client, leader: "NS".into(), by_list: true, db: Arc::default(), layout };
    let answers = Answers { yes: true, asked: vec![] };
    Bench { fake, session, answers, json: false, failed: false, causes: vec![] }
}

impl Bench {
    async fn say(&mut self, line: &str) -> String {
        let answer = self.session.command(&Words::new(line), &mut self.answers).await;
        let mut out = Vec::new();
        print::write(&mut out, &answer, Style { json: self.json, longest_cell: 256 }).unwrap();
        (self.failed, self.causes) = (answer.failed, answer.causes);
        self.fake.mask(&String::from_utf8(out).unwrap())
    }

    /// Lines without the blanks at their ends.
    async fn lines(&mut self, line: &str) -> Vec<String> {
        self.say(line).await.lines().map(|l| l.trim_end().to_owned()).collect()
    }

    /// Each line's answer, which is one line.
    async fn each(&mut self, script: &[(&str, &str)]) {
        for (line, want) in script {
            assert_eq!(self.say(line).await, format!("{want}\n"), "{line}");
        }
    }
}

#[tokio::test]
async fn databases() {
    let mut bench = bench(Layout::Current).await;
    bench
        .each(&[
            ("createdb", "createdb format error. eg: createdb database_name"),
            ("createdb db2", "Create database db2 ok"),
            ("createdb db1", "Create database db1 ok"),
            ("createdb db1", "Create database failed. error msg: database already exists"),
            ("use nowhere", "Use database failed. error msg: database not found"),
            ("use db1", "Use database: db1"),
        ])
        .await;
    assert_eq!(bench.session.prompt(), "NS db1> ");
    bench.each(&[("use nowhere", "Use database failed. error msg: database not found")]).await;
    assert_eq!((bench.session.prompt(), bench.failed), ("NS db1> ".into(), true));
    bench
        .each(&[
            ("use __INTERNAL_DB", "Use database: __INTERNAL_DB"),
            ("use", "Use default database"),
        ])
        .await;
    assert_eq!(bench.session.prompt(), "NS > ");
    bench.fake.model.lock().databases.push("__PRE_AGG_DB".into());
    assert_eq!(bench.say("showdb").await, "  #  name\n-----------\n  1  db1 \n  2  db2 \n");
    bench.answers.yes = false;
    bench.each(&[("dropdb db2", "'dropdb db2' cmd is canceled!")]).await;
    bench.answers.yes = true;
    bench
        .each(&[
            ("dropdb", "dropdb format error. eg: dropdb database_name"),
            ("dropdb db2", "Drop database db2 ok"),
            ("use db1", "Use database: db1"),
            ("create t 0 1 1", "Create table ok"),
            ("dropdb db1", "Drop database failed. error msg: database not empty"),
        ])
        .await;
    assert_eq!(bench.answers.asked[0], "Dropdb will drop all tables in the database db2? yes/no");
}

#[tokio::test]
async fn tables_in_both_layouts() {
    let mut bench = bench(Layout::Classic).await;
    bench
        .each(&[
            ("createdb db", "Create database db ok"),
            ("use db", "Use database: db"),
            ("create flow latest:3 1 2", "Create table ok"),
            ("create flow latest:3 1 2", "Fail to create table. error msg: table already exists"),
            ("create flow 1 2", "create format error! ex: create table_meta_file | create name ttl partition_num replica_num [name:type:index ...]"),
            ("create /no/such/file", "can not open file /no/such/file"),
        ])
        .await;
    bench.fake.model.lock().tables[0].partitions[0].replicas[1].known = false;
    let tablet = bench.fake.tablet.clone();
    let pad = |text: &str| format!("{text}{}", " ".repeat(tablet.len() - text.len()));
    let wide = |lines: Vec<String>| -> Vec<String> {
        lines.iter().map(|l| l.replace("TABLET", &tablet)).collect()
    };
    let dashes = |header: &str| "-".repeat(header.len() + 2);
    assert_eq!(
        wide(bench.lines("showtable").await),
        [
            format!(
                "  name  tid  pid  {}  role      ttl  is_alive  compress_type  offset  record_cnt  memused",
                pad("endpoint")
            ),
            dashes(&format!(
                "  name  tid  pid  {tablet}  role      ttl  is_alive  compress_type  offset  record_cnt  memused"
            )),
            format!(
                "  flow  1    0    {tablet}  leader    3    yes       kNoCompress    8       4           498.000"
            ),
            format!(
                "  flow  1    0    {}  follower  3    yes       kNoCompress    -       -           -",
                pad("0.0.0.1:1")
            ),
        ]
    );
    bench.session.layout = Layout::Current;
    assert_eq!(
        wide(bench.lines("showtable flow").await),
        [
            format!(
                "  name  tid  pid  {}  role      is_alive  offset  record_cnt  memused  diskused",
                pad("endpoint")
            ),
            dashes(&format!(
                "  name  tid  pid  {tablet}  role      is_alive  offset  record_cnt  memused  diskused"
            )),
            format!(
                "  flow  1    0    {tablet}  leader    yes       8       4           498.000  9.128 K"
            ),
            format!(
                "  flow  1    0    {}  follower  yes       -       -           -        0.000",
                pad("0.0.0.1:1")
            ),
        ]
    );
    assert_eq!(bench.lines("showtable other").await.len(), 2);
    assert!(!bench.failed);
    bench.fake.model.lock().tables[0].partitions.clear();
    assert!(bench.lines("showtable").await[2].starts_with("  flow  1    -    -"));
    bench.answers.yes = false;
    bench.each(&[("drop", "Bad format"), ("drop flow", "'drop flow' cmd is canceled!")]).await;
    assert_eq!(bench.answers.asked, ["Drop table flow? yes/no"]);
    bench.answers.yes = true;
    bench
        .each(&[
            ("drop flow", "drop ok"),
            ("drop flow", "failed to drop. error msg: table does not exist"),
        ])
        .await;
    assert!(bench.fake.names().is_empty());
}

#[tokio::test]
async fn tables_of_no_database_come_first() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create zero 0 1 1").await;
    bench.say("createdb db").await;
    bench.say("use db").await;
    bench.say("create b 0 1 1").await;
    bench.say("create a 0 1 1").await;
    let names: Vec<String> = bench.lines("showtable").await[2..]
        .iter()
        .filter_map(|l| l.split_whitespace().next().map(Into::into))
        .collect();
    assert_eq!(names, ["zero", "a", "b"]);
    bench.say("use").await;
    assert_eq!(bench.lines("showtable").await.len(), 3);
}

#[tokio::test]
async fn a_schema() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t absandlat:60:5 1 1 card:string:index amount:double").await;
    assert_eq!(
        bench.say("showschema t").await,
        concat!(
            " --- -------- --------- ------ --------- \n",
            "  #   Field    Type      Null   Default  \n",
            " --- -------- --------- ------ --------- \n",
            "  1   card     Varchar   YES             \n",
            "  2   amount   Double    YES             \n",
            " --- -------- --------- ------ --------- \n",
            "\n",
            "#ColumnKey\n",
            " --- ------ ------ ---- ---------- ------------ ----------- \n",
            "  #   name   keys   ts   ttl        ttl_type     type       \n",
            " --- ------ ------ ---- ---------- ------------ ----------- \n",
            "  1   card   card   -    60min&&5   kAbsAndLat   kCovering  \n",
            " --- ------ ------ ---- ---------- ------------ ----------- \n",
        )
    );
    bench
        .each(&[
            ("showschema", "showschema format error. eg: showschema tablename"),
            ("showschema u", "table u does not exist"),
            ("info", "info format error. eg: info tablename"),
        ])
        .await;
    let info: Vec<Vec<String>> = bench
        .lines("info t")
        .await
        .iter()
        .map(|l| l.split_whitespace().map(Into::into).collect())
        .collect();
    assert_eq!(info[2], ["name", "t"]);
    assert_eq!(info[6], ["record_cnt", "4"]);
    assert_eq!(info[8], ["diskused", "9.128", "K"]);
    assert_eq!(info[9], ["partition_key", "-"]);
    assert_eq!((bench.say("info u").await, bench.failed), (String::new(), true));
}

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
    assert_eq!(lines[3].split_whitespace().collect::<Vec<_>>(), ["0.0.0.0:1", "-", "standby"]);
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
async fn rows_without_a_schema() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 4 1").await;
    let scan_usage = "scan format error. eg: scan table_name pk start_time end_time [limit] | ";
    bench
        .each(&[
            ("put t", "put format error. eg: put table_name pk ts value | put table_name [ts] field1 field2 ..."),
            ("put u k 1 v", "put failed! table u does not exist"),
            ("put t k x v", "Invalid args. ts x should be unsigned int"),
            ("put t k 1 v w", "put format error! input value does not match the schema"),
            ("put t k 1 v1", "Put ok"),
            ("put t k 2 v2", "Put ok"),
            ("put t k 3 v3", "Put ok"),
            ("get t k 0", "value :v3"),
            ("get t k key 1", "value :v1"),
            ("get table_name=t key=k ts=2", "value :v2"),
            ("get t k 9", "Get failed. error msg: key not found"),
            ("get t k nokey 1", "Get failed. error msg: idx name not found"),
            ("get t k x", "Invalid args. ts should be unsigned int"),
            ("get u k 0", "get failed! table u does not exist"),
            ("get table_name=u key=k ts=0", "get failed! table table_name=u does not exist"),
            ("count t k", "count: 3"),
            ("count t k key true", "count: 3"),
            ("count t other", "count: 0"),
            ("count u k", "get failed! table u does not exist"),
            ("scan t k x 0", "Invalid args. st and et shouldbe uint64_t, limit should be uint32_t"),
            ("scan t k 1 2", "Fail to scan table. error msg: starttime less than endtime"),
            ("scan u k 0 0", "scan failed! table u does not exist"),
        ])
        .await;
    assert!(bench.say("scan t k 0").await.starts_with(scan_usage));
    let want = "  #  key  ts  data\n--------------------\n  1  k    3   v3  \n  2  k    2   v2  \n";
    for line in ["scan t k 0 1", "scan t k 3 0 2", "scan table_name=t st=3 et=1 key=k limit=2"] {
        assert_eq!(bench.say(line).await, want, "{line}");
    }
    bench.fake.model.lock().page = 2;
    assert_eq!(bench.lines("scan t k 0 0").await.len(), 5);
    bench
        .each(&[
            (
                "delete t",
                "delete format error. eg: delete table_name key | deletetable_name key idx_name",
            ),
            ("delete t k nokey", "idx_name nokey does not exist"),
            ("delete t k", "delete ok"),
            ("count t k", "count: 0"),
            ("delete u k", "delete failed! table u does not exist"),
        ])
        .await;
    assert_eq!(bench.lines("scan t k 0 0").await.len(), 2);
}

#[tokio::test]
async fn rows_with_a_schema() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 4 1 card:string:index mcc:int:index amount:double").await;
    bench
        .each(&[
            ("put t 7 c1 5", "put format error! input value does not match the schema"),
            ("put t 7 c1 five 1.5", "Encode data error"),
            ("put t 7 c1 5 1.5", "Put ok"),
            ("put t 8 c1 5 null", "Put ok"),
            ("get t c2 0", "Fail to get value! error msg: key not found"),
            (
                "scan t c1 card 0",
                "scan format error. eg: scan table_name key col_name start_time end_time [limit]",
            ),
            ("count t 5 mcc", "count: 2"),
        ])
        .await;
    let want =
        "  #  ts  card  mcc  amount\n----------------------------\n  1  7   c1    5    1.5   \n";
    assert_eq!(bench.say("get t c1 7").await, want);
    assert_eq!(bench.say("get t 5 mcc 7").await, want);
    let want = "  #  ts  card  mcc  amount\n----------------------------\n  1  8   c1    5    -     \n  2  7   c1    5    1.5   \n";
    assert_eq!(bench.say("scan t 5 mcc 0 0").await, want);
    bench.json = true;
    assert_eq!(
        bench.say("scan t 5 mcc 0 0 1").await,
        "[{\"#\":1,\"ts\":8,\"card\":\"c1\",\"mcc\":5,\"amount\":null}]\n"
    );
    assert_eq!(bench.say("put t 9 c1 5 2").await, "{\"ok\":true,\"message\":\"Put ok\"}\n");
    assert_eq!(
        bench.say("drop u").await,
        "{\"ok\":false,\"message\":\"failed to drop. error msg: table does not exist\"}\n"
    );
}

#[tokio::test]
async fn a_time_column_takes_the_place_of_the_time() {
    let mut bench = bench(Layout::Current).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("meta");
    let meta = "name: 't' column_desc { name: 'k' data_type: kString } column_desc { name: 'at' data_type: kTimestamp }
        column_key { index_name: 'k' ts_name: 'at' } partition_num: 1 replica_num: 1";
    stela_common::fs::write(&path, meta.as_bytes()).unwrap();
    bench
        .each(&[
            (&format!("create {}", path.display()), "Create table ok"),
            ("put t a 5", "Put ok"),
        ])
        .await;
    // The fake does not read the column; what is shown has no column of its own for the time.
    assert_eq!(bench.say("scan t a k 0 0").await, "  #  k  at\n------------\n  1  a  5 \n");
}

#[tokio::test]
async fn a_write_that_fails_names_its_partition_and_the_cause() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 1 1").await;
    bench.fake.model.lock().refuse_put = Some(Code::DiskFull.into());
    bench.each(&[("put t k 1 v", "put failed. tid 1 pid 0 endpoint TABLET ts 1 ")]).await;
    assert!(bench.failed);
    assert_eq!(bench.causes, [Code::DiskFull.text()]);
}

#[tokio::test]
async fn a_partition_that_nobody_leads() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 1 1").await;
    bench.fake.model.lock().tables[0].partitions[0].replicas[0].alive = false;
    bench
        .each(&[
            ("put t k 1 v", "put error. cannot find healthy endpoint. pid is 0"),
            ("get t k 0", "failed to get. error msg: cannot find healthy endpoint. pid is 0"),
            ("scan t k 0 0", "failed to scan. error msg: cannot find healthy endpoint. pid is 0"),
            ("count t k", "failed to count. cannot not found tablet client, pid is 0"),
            ("delete t k", "failed to delete. error msg: cannot find healthy endpoint. pid is 0"),
        ])
        .await;
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
