use stela_common::ids::TableId;
use stela_common::table::{Index, Options, Ttl};

use super::super::source::tests::text as source;
use super::*;

fn table(columns: &[(&str, ColumnType)], keys: &[&str], ts: Option<&str>) -> Table {
    let column = |(name, kind): &(&str, ColumnType)| Column {
        name: (*name).into(),
        kind: *kind,
        not_null: false,
    };
    let index = |(at, key): (usize, &&str)| Index {
        name: format!("i{at}"),
        columns: key.split('+').filter(|k| !k.is_empty()).map(Into::into).collect(),
        ts: ts.map(Into::into),
        ttl: Ttl::default(),
        deleted: false,
        added: Default::default(),
    };
    Table {
        tid: TableId(1),
        db: "d".into(),
        name: "t".into(),
        columns: columns.iter().map(column).collect(),
        indexes: keys.iter().enumerate().map(index).collect(),
        partition_num: 1,
        replica_num: 1,
        options: Options::default(),
        created_index: 0,
        added_columns: 0,
    }
}

fn metrics() -> Table {
    use ColumnType::*;
    table(&[("metric", Varchar), ("ts", Timestamp), ("value", Double)], &["metric"], Some("ts"))
}

/// What the records after the header of `csv` hold, or why there is no mapping.
fn read(
    table: &Table,
    csv: &str,
    wanted: Wanted<'_>,
    no_header: bool,
) -> Result<Vec<Result<Content, String>>, String> {
    let mut source = source(csv);
    let columns = Columns::of(&mut source, no_header, &[]).map_err(|e| e.to_string())?;
    let mapping = Mapping::new(table, &columns, &wanted).map_err(|e| e.to_string())?;
    let mut contents = Vec::new();
    while let Some((_, record)) = source.next().map_err(|e| e.to_string())? {
        contents.push(mapping.content(record));
    }
    Ok(contents)
}

fn by(
    key: Option<&'static str>,
    time: Option<&'static str>,
    value: Option<&'static str>,
) -> Wanted<'static> {
    Wanted { key, time, value }
}

#[test]
fn a_table_without_a_schema_takes_three_columns_by_name_number_or_default() {
    let plain = table(&[], &[""], None);
    let want = Content::Plain { key: "k".into(), value: "v".into(), time: 5 };
    for (csv, wanted, no_header) in [
        ("key,time,value\nk,5,v\n", by(None, None, None), false),
        ("x,value,ts,id\n1,v,5,k\n", by(Some("id"), Some("ts"), None), false),
        ("5,k,v\n", by(Some("2"), Some("1"), Some("3")), true),
    ] {
        assert_eq!(read(&plain, csv, wanted, no_header).unwrap(), [Ok(want.clone())], "{csv}");
    }
    let told = read(&plain, "key,ts,value\n", by(None, None, None), false).unwrap_err();
    assert!(told.contains("--time") && told.contains("key, ts, value"), "{told}");
}

#[test]
fn a_table_with_a_schema_takes_its_columns_by_name() {
    let got = read(
        &metrics(),
        "value,other,ts,metric\n1.5,x,2024-02-29 13:14:15,cpu\n,x,7,\n",
        Wanted::default(),
        false,
    );
    let row = |metric: &str, ts, value| Content::Values {
        values: vec![Value::Varchar(metric.into()), Value::Timestamp(ts), value],
        time: 0,
    };
    assert_eq!(
        got.unwrap(),
        [Ok(row("cpu", 1_709_212_455_000, Value::Double(1.5))), Ok(row("", 7, Value::Null))]
    );
}

#[test]
fn key_time_and_value_name_the_columns_where_names_differ() {
    let want = Content::Values {
        values: vec![Value::Varchar("m".into()), Value::Timestamp(5), Value::Double(2.0)],
        time: 0,
    };
    for (csv, wanted, no_header) in [
        ("name,when,value\nm,5,2\n", by(Some("name"), Some("when"), None), false),
        ("5,2,m\n", by(Some("3"), Some("1"), Some("2")), true),
    ] {
        assert_eq!(read(&metrics(), csv, wanted, no_header).unwrap(), [Ok(want.clone())], "{csv}");
    }
}

#[test]
fn the_time_of_the_request_comes_from_a_column_of_the_file() {
    use ColumnType::*;
    let cards = table(&[("card", Varchar), ("amount", Double)], &["card"], None);
    let got =
        read(&cards, "card,amount,when\nc,1,9\n", by(None, Some("when"), None), false).unwrap();
    assert_eq!(
        got,
        [Ok(Content::Values {
            values: vec![Value::Varchar("c".into()), Value::Double(1.0)],
            time: 9
        })]
    );
    let told = read(&cards, "card,amount,when\n", Wanted::default(), false).unwrap_err();
    assert!(told.contains("--time") && told.contains("when"), "{told}");
}

#[test]
fn what_cannot_be_mapped_is_told_with_the_cure() {
    use ColumnType::*;
    let told = |table: &Table, csv: &str, wanted, no_header| {
        read(table, csv, wanted, no_header).unwrap_err()
    };
    let text = told(&metrics(), "metric,ts\n", Wanted::default(), false);
    assert!(text.contains("for value of table t") && text.contains("--columns"), "{text}");
    let text = told(&metrics(), "m,1,2\n", Wanted::default(), true);
    assert!(text.contains("without a header") && text.contains("metric, ts, value"), "{text}");
    let pair = table(&[("a", Varchar), ("b", Varchar), ("c", Int), ("d", Int)], &["a+b"], None);
    let text = told(&pair, "a,b,c,d,t\n", by(Some("a"), Some("t"), None), false);
    assert!(text.contains("--key") && text.contains("several columns"), "{text}");
    let text = told(&pair, "a,b,c,d,t\n", by(None, Some("t"), Some("c")), false);
    assert!(text.contains("--value"), "{text}");
}

#[test]
fn a_bad_row_says_what_is_wrong_with_it() {
    let csv = "metric,ts,value\nm,1\nm,soon,1\nm,1,much\nm,1,1\n";
    let got = read(&metrics(), csv, Wanted::default(), false).unwrap();
    let wrong: Vec<&str> =
        got.iter().filter_map(|r| r.as_ref().err()).map(String::as_str).collect();
    assert_eq!(wrong.len(), 3);
    assert_eq!(wrong[0], "2 fields instead of 3");
    assert!(
        wrong[1].contains("'soon' is no time") && wrong[1].contains("column ts"),
        "{}",
        wrong[1]
    );
    assert_eq!(wrong[2], "'much' is not a Double (column value)");
    assert!(got[3].is_ok());
}

#[test]
fn rows_that_no_tablet_takes_are_refused_here() {
    let row = |key: &'static [u8], value: usize| Row {
        time: 1,
        dimensions: vec![(0, Bytes::from_static(key))],
        value: vec![0; value].into(),
    };
    assert!(check(&metrics(), &row(b"k", 10)).is_ok());
    assert!(check(&metrics(), &row(b"", 10)).unwrap_err().contains("the key is empty (index i0)"));
    assert!(check(&metrics(), &row(b"k", limits::VALUE + 1)).unwrap_err().contains("too large"));
    let long = Row {
        time: 1,
        dimensions: vec![(0, vec![b'k'; limits::KEY + 1].into())],
        value: Bytes::new(),
    };
    assert!(check(&metrics(), &long).unwrap_err().contains("a key of"));
}

#[test]
fn columns_that_go_nowhere_are_told() {
    let mut source = source("x,metric,ts,value,y\n");
    let columns = Columns::of(&mut source, false, &[]).unwrap();
    let mapping = Mapping::new(&metrics(), &columns, &Wanted::default()).unwrap();
    assert_eq!(mapping.unused(&columns), ["x", "y"]);
}

#[test]
fn bytes_that_are_no_text_are_a_bad_row_where_text_is_needed() {
    let mut raw = source("a,b,c\n");
    let columns =
        Columns::of(&mut raw, true, &["metric".into(), "ts".into(), "value".into()]).unwrap();
    let record = ByteRecord::from(vec![&b"\xff"[..], b"1", b"2"]);
    let mapping = Mapping::new(&metrics(), &columns, &Wanted::default()).unwrap();
    assert_eq!(mapping.content(&record), Err("field 1 is not UTF-8".into()));
}
