//! What each command prints, against a tablet in memory.

use stela_common::ids::TableId;
use stela_common::table::{Column, ColumnType, Index, Table, Ttl, TtlKind};
use stela_proto::nameserver as ns;

use super::*;
use crate::fake::{self, Fake};
use crate::print::{self, Style};

struct Nobody;

impl Ask for Nobody {
    fn yes(&mut self, _: &str) -> bool {
        unreachable!("this client never asks")
    }
}

async fn session(layout: Layout) -> (Fake, Session) {
    let fake = fake::start().await;
    let session =
        Session { endpoint: fake.tablet.clone(), timeout: Duration::from_secs(2), layout };
    (fake, session)
}

async fn say(session: &mut Session, line: &str) -> String {
    told(session, line).await.0
}

/// What a command prints, and the causes that it gives apart.
async fn told(session: &mut Session, line: &str) -> (String, Vec<String>) {
    let answer = session.command(&Words::new(line), &mut Nobody).await;
    let mut out = Vec::new();
    print::write(&mut out, &answer, Style { json: false, longest_cell: 256 }).unwrap();
    (String::from_utf8(out).unwrap(), answer.causes)
}

/// Each line's answer, which is one line, and its cause.
async fn each(session: &mut Session, script: &[(&str, &str, &str)]) {
    for (line, want, cause) in script {
        let (text, causes) = told(session, line).await;
        assert_eq!(text, format!("{want}\n"), "{line}");
        assert_eq!(causes.join("; "), *cause, "{line}");
    }
}

/// Table 1 with a schema, and table 2 without one.
fn tables(fake: &Fake) {
    let index = |name: &str, columns: &[&str], deleted| Index {
        name: name.into(),
        columns: columns.iter().map(|c| (*c).into()).collect(),
        ts: None,
        ttl: Ttl { kind: TtlKind::Absolute, abs: 60, lat: 0 },
        deleted,
        added: Default::default(),
    };
    let column = |name: &str, kind, not_null| Column { name: name.into(), kind, not_null };
    let columns =
        vec![column("card", ColumnType::Varchar, true), column("mcc", ColumnType::Int, false)];
    let indexes = vec![
        index("old", &["card"], true),
        index("card", &["card"], false),
        index("mcc", &["mcc"], false),
    ];
    let table = Table {
        tid: TableId(1),
        db: String::new(),
        name: "t".into(),
        columns,
        indexes,
        partition_num: 1,
        replica_num: 1,
        options: Default::default(),
        created_index: 0,
        added_columns: 0,
    };
    let plain = Table {
        tid: TableId(2),
        columns: vec![],
        indexes: vec![index("key", &[], false)],
        ..table.clone()
    };
    let row = |table: &Table| ns::TableRow { table: Some(table.into()), ..Default::default() };
    fake.model.lock().tables = vec![row(&table), row(&plain)];
}

fn status(tid: u32, pid: u32, leading: bool) -> pb::TableStatusRow {
    pb::TableStatusRow {
        tid,
        pid,
        offset: 4,
        leading,
        state: "kTableNormal".into(),
        enable_expire: true,
        memory: 1344,
        ..Default::default()
    }
}

#[tokio::test]
async fn table_status() {
    let (fake, mut session) = session(Layout::Current).await;
    fake.model.lock().status = vec![status(2, 0, false), status(1, 0, true)];
    assert_eq!(
        say(&mut session, "gettablestatus").await,
        concat!(
            "  tid  pid  offset  mode            state         enable_expire  ttl   ttl_offset  memused  compress_type  skiplist_height\n",
            "----------------------------------------------------------------------------------------------------------------------------\n",
            "  1    0    4       kTableLeader    kTableNormal  true           0min  0s          1.312 K  kNoCompress    0              \n",
            "  2    0    4       kTableFollower  kTableNormal  true           0min  0s          1.312 K  kNoCompress    0              \n",
        )
    );
    assert_eq!(say(&mut session, "gettablestatus 2 0").await.lines().count(), 3);
    assert_eq!(say(&mut session, "gettablestatus 9 9").await.lines().count(), 2);
    assert_eq!(say(&mut session, "gettablestatus 1").await, "Bad gettablestatus format\n");
    assert_eq!(
        say(&mut session, "gettablestatus x 0").await,
        "Invalid args, tid should be uint32_t\n"
    );
    assert_eq!(
        say(&mut session, "gettablestatus 1 x").await,
        "Invalid args, pid should be uint32_t\n"
    );
    session.layout = Layout::Classic;
    assert!(!say(&mut session, "gettablestatus  ").await.contains("skiplist_height"));
}

#[tokio::test]
async fn followers() {
    let (fake, mut session) = session(Layout::Classic).await;
    assert_eq!(
        say(&mut session, "getfollower 4 1").await,
        "get failed, error msg: has no follower\n"
    );
    assert_eq!(say(&mut session, "getfollower 4").await, "Bad get follower format\n");
    let follower = |endpoint: &str, offset| pb::FollowerRow { endpoint: endpoint.into(), offset };
    fake.model.lock().followers =
        vec![follower("172.27.128.32:8541", 5_921_707), follower("172.27.128.31:8541", 5_920_714)];
    // D10 of the reference.
    assert_eq!(
        say(&mut session, "getfollower 4 1").await,
        concat!(
            "  #  tid  pid  leader_offset  follower            offset \n",
            "-----------------------------------------------------------\n",
            "  0  4    1    5923724        172.27.128.31:8541  5920714\n",
            "  1  4    1    5923724        172.27.128.32:8541  5921707\n",
        )
    );
}

#[tokio::test]
async fn a_tablet_that_is_not_there() {
    let (_, mut session) = session(Layout::Current).await;
    session.endpoint = "127.0.0.1:1".into();
    let text = say(&mut session, "gettablestatus").await;
    assert!(
        text.starts_with("gettablestatus failed, error msg: Fail to connect 127.0.0.1:1: "),
        "{text}"
    );
    let text = say(&mut session, "getfollower 1 0").await;
    assert!(text.starts_with("get failed, error msg: Fail to connect 127.0.0.1:1: "), "{text}");
}

#[tokio::test]
async fn the_rest() {
    let (_, mut session) = session(Layout::Current).await;
    assert_eq!(session.prompt(), format!("{}> ", session.endpoint));
    assert_eq!(say(&mut session, "preview 1 0").await, "unsupport preview\n");
    assert_eq!(say(&mut session, "screate").await, "unsupported cmd\n");
    assert_eq!(
        say(&mut session, "help getfollower").await,
        "desc: get follower\nusage: getfollower tid pid\nex: getfollower 1 0\n"
    );
    assert_eq!(say(&mut session, "man nothing").await, "unsupported cmd nothing\n");
    assert!(say(&mut session, "help").await.contains("gettablestatus - get table status\n"));
    assert_eq!(say(&mut session, "help a b").await.lines().count(), 4);
}

/// D9 of the reference, with what is not constant here.
#[tokio::test]
async fn table_status_in_every_state() {
    let (fake, mut session) = session(Layout::Current).await;
    let row = |tid, state: &str, enable_expire, ttl: &str| pb::TableStatusRow {
        state: state.into(),
        enable_expire,
        ttl: ttl.into(),
        ..status(tid, 0, true)
    };
    fake.model.lock().status = vec![
        row(1, "kSnapshotPaused", true, "43200min"),
        row(2, "kTableNormal", false, "60min&&5"),
        row(3, "kMakingSnapshot", true, "10"),
    ];
    assert_eq!(
        say(&mut session, "gettablestatus").await,
        concat!(
            "  tid  pid  offset  mode          state            enable_expire  ttl       ttl_offset  memused  compress_type  skiplist_height\n",
            "---------------------------------------------------------------------------------------------------------------------------------\n",
            "  1    0    4       kTableLeader  kSnapshotPaused  true           43200min  0s          1.312 K  kNoCompress    0              \n",
            "  2    0    4       kTableLeader  kTableNormal     false          60min&&5  0s          1.312 K  kNoCompress    0              \n",
            "  3    0    4       kTableLeader  kMakingSnapshot  true           10        0s          1.312 K  kNoCompress    0              \n",
        )
    );
}

#[tokio::test]
async fn commands_that_the_tablet_carries_out() {
    let (fake, mut session) = session(Layout::Current).await;
    tables(&fake);
    each(
        &mut session,
        &[
            ("loadtable t 1 0 144000 8", "LoadTable ok", ""),
            ("loadtable t 1 0 144000 8 false", "LoadTable ok", ""),
            ("makesnapshot 1 0", "MakeSnapshot ok", ""),
            ("pausesnapshot 1 0", "PauseSnapshot ok", ""),
            ("recoversnapshot 1 0", "RecoverSnapshot ok", ""),
            ("sendsnapshot 1 0 127.0.0.1:9527", "SendSnapshot ok", ""),
            ("drop 1 0", "Drop table ok", ""),
            ("setexpire 1 0 true", "setexpire ok", ""),
            ("setexpire 1 0 FALSE", "setexpire ok", ""),
            ("delete 1 0 c1", "Delete ok", ""),
            ("delete 1 0 5 mcc", "Delete ok", ""),
            ("count 1 0 c1", "count: 0", ""),
            ("count 1 3 5 mcc true", "count: 0", ""),
            ("count tid=2 pid=0 key=k", "count: 0", ""),
        ],
    )
    .await;
    let asked = std::mem::take(&mut fake.model.lock().asked);
    let count = |tid, pid, key: &'static str, index, filter_expired| {
        let target = Some(pb::Target { tid, pid, epoch: 0 });
        let from = pb::ReadFrom::Any.into();
        format!(
            "count {:?}",
            pb::CountRequest {
                target,
                key: key.into(),
                index,
                filter_expired,
                from,
                ..Default::default()
            }
        )
    };
    let load = |leader| {
        format!("load {:?}", pb::LoadTableRequest { tid: 1, pid: 0, name: "t".into(), leader })
    };
    assert_eq!(asked[..2], [load(true), load(false)]);
    assert!(asked[5].contains("endpoint: \"127.0.0.1:9527\", wait_ms: 1000"), "{}", asked[5]);
    assert!(asked[7].ends_with("on: true }") && asked[8].ends_with("on: false }"));
    // The first index is the first that is not deleted, and its number is that of its place.
    assert!(asked[9].contains("index: 1,") && asked[10].contains("index: 2,"), "{asked:?}");
    // What is counted is what was asked for.
    assert_eq!(
        asked[11..],
        [count(1, 0, "c1", 1, false), count(1, 3, "5", 2, true), count(2, 0, "k", 0, false)]
    );
}

#[tokio::test]
async fn what_the_tablet_refuses_in_the_words_of_each_command() {
    let (fake, mut session) = session(Layout::Current).await;
    tables(&fake);
    fake.model.lock().refuse_manual = Some(Refusal::new(Code::Quarantined, "because"));
    each(
        &mut session,
        &[
            ("loadtable t 1 0 144000 8 true", "Fail to LoadTable: ReturnCode[176]because", ""),
            ("makesnapshot 1 0", "Fail to MakeSnapshot", "because"),
            ("pausesnapshot 1 0", "Fail to PauseSnapshot", "because"),
            ("recoversnapshot 1 0", "Fail to RecoverSnapshot", "because"),
            ("sendsnapshot 1 0 127.0.0.1:9527", "Fail to SendSnapshot", "because"),
            ("drop 1 0", "Fail to drop table", "because"),
            ("setexpire 1 0 true", "Fail to setexpire", "because"),
            ("delete 1 0 c1", "Delete failed", "because"),
            ("delete 1 0 c1 old", "Delete failed", "idx name not found"),
            ("delete 9 0 c1", "Delete failed", "table does not exist"),
            ("count 1 0 c1", "Count failed. error msg: because", ""),
            ("count 1 0 c1 nokey", "Count failed. error msg: idx name not found", ""),
            ("count 1 0 c1 old", "Count failed. error msg: idx name not found", ""),
            ("count 9 0 c1", "Count failed. error msg: table does not exist", ""),
            ("showschema 9 0", "ShowSchema failed", "table does not exist"),
            ("connectzk", "Fail to connect zk", NO_ZOOKEEPER),
            ("disconnectzk", "Fail to disconnect zk", NO_ZOOKEEPER),
        ],
    )
    .await;
}

#[tokio::test]
async fn arguments_are_checked_in_the_words_of_each_command() {
    let (_fake, mut session) = session(Layout::Current).await;
    const TID: &str = "Invalid args, tid should be uint32_t";
    const PID: &str = "Invalid args, pid should be uint32_t";
    const LOAD: &str =
        "Bad LoadTable format eg loadtable <name> <tid> <pid> <ttl> <seg_cnt> [<is_leader>]";
    const DROP: &str = "Bad drop command, you should input like 'drop tid pid' ";
    const TTL: &str = "Bad setttl format, eg setttl tid pid type ttl [index_name]";
    const COUNT: &str = "count format error! eg. count tid pid key [col_name] [filter_expired_data] | count tid=xxx pid=xxx key=xxx index_name=xxx [filter_expired_data]";
    const INDEX: &str = "Bad format\nusage: deleteindex tid pid index_name";
    let script = [
        ("gettablestatus 1", "Bad gettablestatus format"),
        ("gettablestatus 1 2 3", "Bad gettablestatus format"),
        ("getfollower 1", "Bad get follower format"),
        ("getfollower x 0", TID),
        ("getfollower 1 -1", PID),
        ("loadtable t 1 0 144000", LOAD),
        ("loadtable t 1 0 144000 8 maybe", LOAD),
        ("loadtable t x 0 144000 8", "Bad LoadTable format"),
        ("loadtable t 1 x 144000 8", "Bad LoadTable format"),
        ("loadtable t 1 0 x 8", "Bad LoadTable format"),
        ("loadtable t 1 0 144000 x", "Bad LoadTable format"),
        ("changerole 1 0", "Bad changerole format"),
        ("changerole x 0 leader", TID),
        ("changerole 1 x leader", PID),
        ("changerole 1 0 boss", "role must be leader or follower"),
        ("changerole 1 0 leader x", "Invalid args, termid should be uint64_t"),
        ("addreplica 1 0", "Bad addreplica format"),
        ("addreplica x 0 e", TID),
        ("addreplica 1 x e", PID),
        ("delreplica 1 0", "Bad delreplica format"),
        ("delreplica x 0 e", TID),
        ("delreplica 1 x e", PID),
        ("makesnapshot 1", "Bad MakeSnapshot format"),
        ("makesnapshot x 0", TID),
        ("makesnapshot 1 x", PID),
        ("pausesnapshot 1", "Bad PauseSnapshot format"),
        ("pausesnapshot x 0", TID),
        ("pausesnapshot 1 x", PID),
        ("recoversnapshot 1", "Bad RecoverSnapshot format"),
        ("recoversnapshot x 0", TID),
        ("recoversnapshot 1 x", PID),
        ("sendsnapshot 1 0", "Bad SendSnapshot format"),
        ("sendsnapshot x 0 e", TID),
        ("sendsnapshot 1 x e", PID),
        ("drop 1", DROP),
        ("drop x 0", TID),
        ("drop 1 x", PID),
        ("setexpire 1 0", "Bad format"),
        ("setexpire x 0 true", TID),
        ("setexpire 1 x true", PID),
        ("setexpire 1 0 maybe", "Bad format"),
        ("setttl 1 0 absolute", TTL),
        ("setttl 1 0 absandlat 1", TTL),
        ("setttl 1 0 later 1", TTL),
        ("setttl x 0 absolute 1", "Invalid args tid and pid should be uint32_t"),
        ("setttl 1 x absolute 1", "Invalid args tid and pid should be uint32_t"),
        ("setttl 1 0 absolute x", "Invalid args ttl which should be uint64_t"),
        ("showschema 1", "Bad show schema format"),
        ("showschema x 0", TID),
        ("showschema 1 x", PID),
        ("count 1 0", COUNT),
        ("count tid=1 pid=", COUNT),
        ("count tid=1 pid=0", "count format error: key does not exist!"),
        ("count x 0 k", TID),
        ("count 1 x k", PID),
        ("count tid=1 pid=x key=k", PID),
        ("count 1 0 k i maybe", "filter_expired_data parameter should be true or false"),
        ("delete 1 0", "Bad delete format"),
        ("delete x 0 k", TID),
        ("delete 1 x k", PID),
        ("deleteindex 1 0", INDEX),
        ("deleteindex 1 0 i j", INDEX),
        ("deleteindex x 0 i", TID),
        ("deleteindex 1 x i", PID),
        ("preview 1 0", "unsupport preview"),
    ];
    for (line, want) in script {
        each(&mut session, &[(line, want, "")]).await;
    }
}

#[tokio::test]
async fn the_schema_without_deleted_indexes() {
    let (fake, mut session) = session(Layout::Current).await;
    tables(&fake);
    assert_eq!(
        say(&mut session, "showschema 1 0").await,
        concat!(
            " --- ------- --------- ------ --------- \n",
            "  #   Field   Type      Null   Default  \n",
            " --- ------- --------- ------ --------- \n",
            "  1   card    Varchar   NO              \n",
            "  2   mcc     Int       YES             \n",
            " --- ------- --------- ------ --------- \n",
            "\n",
            "#ColumnKey\n",
            " --- ------ ------ ---- ------- --------------- ----------- \n",
            "  #   name   keys   ts   ttl     ttl_type        type       \n",
            " --- ------ ------ ---- ------- --------------- ----------- \n",
            "  1   card   card   -    60min   kAbsoluteTime   kCovering  \n",
            "  2   mcc    mcc    -    60min   kAbsoluteTime   kCovering  \n",
            " --- ------ ------ ---- ------- --------------- ----------- \n",
        )
    );
    assert_eq!(say(&mut session, "showschema 2 0").await, "No schema for table\n");
}

/// Where nobody answers the words of each command have no place for the cause, but for three.
#[tokio::test]
async fn a_tablet_that_does_not_answer() {
    let (_, mut session) = session(Layout::Current).await;
    session.endpoint = "127.0.0.1:1".into();
    for (line, want, place) in [
        ("loadtable t 1 0 1 8", "Fail to LoadTable: ReturnCode[1004]Fail to connect", true),
        ("makesnapshot 1 0", "Fail to MakeSnapshot\n", false),
        ("pausesnapshot 1 0", "Fail to PauseSnapshot\n", false),
        ("recoversnapshot 1 0", "Fail to RecoverSnapshot\n", false),
        ("sendsnapshot 1 0 e", "Fail to SendSnapshot\n", false),
        ("drop 1 0", "Fail to drop table\n", false),
        ("setexpire 1 0 true", "Fail to setexpire\n", false),
        ("showschema 1 0", "ShowSchema failed\n", false),
        ("count 1 0 k", "Count failed. error msg: \n", false),
        ("delete 1 0 k", "Delete failed\n", false),
    ] {
        let (text, causes) = told(&mut session, line).await;
        assert!(text.starts_with(want), "{line}: {text}");
        let apart = causes.iter().any(|c| c.starts_with("Fail to connect 127.0.0.1:1: "));
        assert_eq!(apart, !place, "{line}: {causes:?}");
    }
}

#[tokio::test]
async fn help_tells_of_all_or_of_one() {
    let (_, mut session) = session(Layout::Current).await;
    let all = say(&mut session, "help").await;
    assert!(all.contains("changerole - change role\n"), "{all}");
    assert_eq!(
        say(&mut session, "help loadtable").await,
        "desc: create table and load data\nusage: loadtable table_name tid pid ttl segment_cnt is_leader\nex: loadtable table1 1 0 144000 8 true\n"
    );
}

/// What the nameservers decide is asked of them, whom the tablet names.
#[tokio::test]
async fn what_the_nameservers_decide() {
    let (fake, mut session) = session(Layout::Current).await;
    for (line, ok, failed) in [
        ("addreplica 1 0 127.0.0.1:9527", "AddReplica ok", "Fail to Add Replica"),
        ("delreplica 1 0 127.0.0.1:9527", "DelReplica ok", "Fail to Del Replica"),
        ("setttl 1 0 absolute 10", "Set ttl ok !", "Set ttl failed! "),
        ("setttl 1 0 absandlat 10 2 card", "Set ttl ok !", "Set ttl failed! "),
        ("deleteindex 1 0 card", "delete index ok", "Fail to delete index. error msg: "),
    ] {
        fake.model.lock().refuse = None;
        assert_eq!(say(&mut session, line).await, format!("{ok}\n"), "{line}");
        fake.model.lock().refuse = Some(Code::TableNotFound.into());
        assert_eq!(say(&mut session, line).await, format!("{failed}\n"), "{line}");
    }
    for (line, failed) in [
        ("changerole 1 0 leader", "Fail to change leader"),
        ("changerole 1 0 follower 7", "Fail to change follower"),
    ] {
        fake.model.lock().refuse = None;
        // No such table is known to the nameserver.
        assert_eq!(say(&mut session, line).await, format!("{failed}\n"), "{line}");
    }
}
