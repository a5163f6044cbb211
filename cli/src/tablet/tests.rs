//! What each command prints, against a tablet in memory.

use stela_proto::tablet as pb;

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
    let answer = session.command(&Words::new(line), &mut Nobody).await;
    let mut out = Vec::new();
    print::write(&mut out, &answer, Style { json: false, longest_cell: 256 }).unwrap();
    String::from_utf8(out).unwrap()
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
        say(&mut session, "loadtable t 1 0 144000 8").await,
        "loadtable failed, error msg: loadtable is not part of this version of stela\n"
    );
    assert_eq!(
        say(&mut session, "help getfollower").await,
        "desc: get follower\nusage: getfollower tid pid\nex: getfollower 1 0\n"
    );
    assert_eq!(say(&mut session, "man nothing").await, "unsupported cmd nothing\n");
    assert!(say(&mut session, "help").await.contains("gettablestatus - get table status\n"));
    assert_eq!(say(&mut session, "help a b").await.lines().count(), 4);
}
