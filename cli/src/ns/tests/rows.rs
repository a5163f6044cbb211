//! Rows.

use stela_common::code::Code;

use super::*;

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
            ("preview t", "failed to preview. error msg: cannot find healthy endpoint. pid is 0"),
        ])
        .await;
}

#[tokio::test]
async fn a_preview_goes_through_the_partitions_in_order() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 4 1").await;
    bench
        .each(&[
            ("preview", "preview format error. eg: preview table_name [limit]"),
            ("preview t x", "preview error. limit should be unsigned int"),
            ("preview t -1", "preview error. limit should be unsigned int"),
            ("preview t 1001", "preview error. limit is greater than the max num 1000"),
            ("preview t 0", "preview error. limit must be greater than zero"),
            ("preview u", "preview failed! table u does not exist"),
        ])
        .await;
    let header = "  #  key  ts  data\n--------------------\n";
    assert_eq!(bench.say("preview t").await, header);
    for (n, key) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        bench.say(&format!("put t {key} {n} v{n}")).await;
        bench.say(&format!("put t {key} 9 w{n}")).await;
    }
    let pid = |key: &str| stela_common::route::partition_of(key.as_bytes(), 4);
    let mut keys = ["a", "b", "c", "d", "e"];
    keys.sort_by_key(|key| (pid(key), *key));
    let want: Vec<String> =
        keys.iter().flat_map(|key| [(*key).to_owned(), (*key).to_owned()]).collect();
    for page in [0, 1, 3] {
        bench.fake.model.lock().page = page;
        let lines = bench.lines("preview t").await;
        let shown: Vec<&str> =
            lines[2..].iter().filter_map(|l| l.split_whitespace().nth(1)).collect();
        assert_eq!(shown, want, "{page}");
        assert_eq!(bench.lines("preview t 3").await.len(), 2 + 3);
    }
    bench.fake.model.lock().refuse = Some(Code::InvalidParameter.into());
    assert_eq!(
        bench.say("preview t").await,
        "failed to get table info. error msg: invalid parameter\n"
    );
}

#[tokio::test]
async fn a_preview_of_a_table_with_a_schema_shows_its_columns() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 1 1 card:string:index mcc:int:index").await;
    bench.say("put t 7 c1 5").await;
    // A column that was added since has no value in that row.
    let added = stela_proto::common::Column {
        name: "extra".into(),
        r#type: stela_proto::common::ColumnType::Double.into(),
        not_null: false,
    };
    bench.fake.model.lock().tables[0].table.as_mut().unwrap().columns.push(added);
    let want =
        "  #  ts  card  mcc  extra\n---------------------------\n  1  7   c1    5    -    \n";
    for line in ["preview t", "preview t 1", "get t c1 0", "scan t c1 card 0 0"] {
        assert_eq!(bench.say(line).await, want, "{line}");
    }
}

#[tokio::test]
async fn a_deleted_index_is_not_found_and_gets_no_rows() {
    let mut bench = bench(Layout::Current).await;
    bench.say("create t 0 1 1 card:string:index mcc:int:index").await;
    bench.fake.model.lock().tables[0].table.as_mut().unwrap().indexes[0].deleted = true;
    bench
        .each(&[
            ("put t 7 c1 5", "Put ok"),
            ("get t c1 card 0", "Fail to get value! error msg: idx name not found"),
            ("scan t c1 card 0 0", "Fail to scan table. error msg: idx name not found"),
            ("count t c1 card", "Count failed. error msg: idx name not found"),
            ("delete t c1 card", "idx_name card does not exist"),
            ("count t 5", "count: 1"),
        ])
        .await;
    assert!(!bench.say("showschema t").await.contains(" card   card "));
}
