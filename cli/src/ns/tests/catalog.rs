//! Databases and tables.

use super::*;

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
