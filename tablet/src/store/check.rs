//! What a partition takes: a write is looked at whole before anything changes, and becomes the body of an entry.

use bytes::Bytes;
use stela_common::code::{Code, Refusal};
use stela_common::row::{self, Value};
use stela_common::table::{Table, limits};
use stela_common::wire::Malformed;
use stela_proto::tablet as pb;

use super::entry::{Which, Writer, hash};
use crate::config::Format;

/// The entry of a put that is admitted at wall time `now` (ms) into a table whose indexes take their times from these
/// columns.
///
/// # Errors
/// What is wrong with the request.
pub fn put(
    table: &Table,
    times: &[Option<usize>],
    request: &pb::PutRequest,
    format: Format,
    now: u64,
) -> Result<Bytes, Refusal> {
    if request.rows.is_empty() {
        return Err(Malformed("rows").into());
    }
    check_id(request.session, request.seq)?;
    let size = size(request)?;
    let target = request.target.unwrap_or_default();
    let failed = |reason: &dyn std::fmt::Display| {
        Refusal::new(Code::PutFailed, format!("{}.{}: {reason}", target.tid, target.pid))
    };
    let (session, seq) = (request.session, request.seq);
    let mut writer = match (format, request.if_absent) {
        (Format::Summed, false) => Writer::put(session, seq, size),
        (Format::Summed, true) => Writer::put_if_absent(session, seq, size, now),
        (Format::Plain, false) => Writer::plain_put(session, seq, size),
        (Format::Plain, true) => return Err(needs_newest()),
    };
    for row in &request.rows {
        if row.value.len() > limits::VALUE {
            return Err(too_large("a value", row.value.len(), limits::VALUE));
        }
        let values = if table.has_schema() {
            values(table, &row.value).map_err(|e| failed(&e))?
        } else {
            Vec::new()
        };
        let mut seen = [false; limits::INDEXES];
        let dimensions = || row.dimensions.iter().filter(|d| !deleted(table, d));
        let count = u16::try_from(dimensions().count());
        let count = count.map_err(|_| Refusal::from(Code::InvalidDimension))?;
        let Some(first) = dimensions().next() else {
            if row.dimensions.is_empty() {
                return Err(Code::InvalidDimension.into());
            }
            // It belonged into deleted indexes alone.
            continue;
        };
        let ttl = table.indexes.get(first.index as usize).map(|i| i.ttl).unwrap_or_default();
        writer.row(count, &ttl);
        for dimension in dimensions() {
            let index = check_dimension(table, dimension)?;
            // A row has one key in an index.
            match seen.get_mut(usize::from(index)) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(Code::InvalidDimension.into()),
            }
            let ts = match times.get(usize::from(index)).copied().flatten() {
                None => row.time,
                Some(column) => time(values.get(column)).map_err(|reason| failed(&reason))?,
            };
            writer.dimension(index, ts, &dimension.key);
        }
        writer.value(&row.value);
    }
    Ok(writer.finish())
}

/// The entry of a deletion that is admitted at wall time `now` (ms).
///
/// # Errors
/// What is wrong with the request.
pub fn delete(
    table: &Table,
    request: &pb::DeleteRequest,
    format: Format,
    now: u64,
) -> Result<Bytes, Refusal> {
    check_id(request.session, request.seq)?;
    let keys = request.dimensions.iter().map(|d| d.key.len() + OVERHEAD);
    let rows = request.rows.iter().map(|r| r.key.len() + r.value.len() + OVERHEAD);
    let size: usize = keys.chain(rows).sum();
    if size > limits::REQUEST {
        return Err(too_large("a request", size, limits::REQUEST));
    }
    let invalid = |text: String| Refusal::new(Code::InvalidDeletion, text);
    let times = match (request.ts, request.end_ts) {
        (None, None) => None,
        (newest, oldest) => Some((newest.unwrap_or(u64::MAX), oldest)),
    };
    if let Some((newest, Some(oldest))) = times
        && newest < oldest
    {
        return Err(invalid(format!("invalid args: ts {newest} is before end_ts {oldest}")));
    }
    let (session, seq) = (request.session, request.seq);
    let mut writer = match format {
        Format::Summed => {
            Writer::delete(session, seq, now, !request.only_there && request.rows.is_empty())
        }
        Format::Plain if times.is_none() && request.rows.is_empty() => {
            Writer::plain_delete(session, seq)
        }
        Format::Plain => return Err(needs_newest()),
    };
    let ttl = |index: u16| table.indexes.get(usize::from(index)).map(|i| i.ttl).unwrap_or_default();
    for dimension in &request.dimensions {
        let index = check_dimension(table, dimension)?;
        if deleted(table, dimension) {
            return Err(Code::IndexNotFound.into());
        }
        writer.rows(index, which(Some(&dimension.key), times), &ttl(index));
    }
    for row in &request.rows {
        let dimension = pb::Dimension { index: row.index, key: row.key.clone() };
        let index = check_dimension(table, &dimension)?;
        if !deleted(table, &dimension) {
            let row = Which::Row { key: &row.key, ts: row.ts, hash: hash(&row.value) };
            writer.rows(index, row, &ttl(index));
        }
    }
    if request.dimensions.is_empty() && request.rows.is_empty() {
        if times.is_none() {
            return Err(invalid("invalid args".into()));
        }
        let column = Some(&request.ts_name).filter(|name| !name.is_empty());
        let mut named = 0;
        for (at, definition) in table.live_indexes() {
            if definition.ts.as_ref() == column
                && let Ok(index) = u16::try_from(at)
            {
                writer.rows(index, which(None, times), &definition.ttl);
                named += 1;
            }
        }
        if named == 0 {
            return Err(Refusal::new(Code::TsNotFound, Code::TsNotFound.text()));
        }
    }
    Ok(writer.finish())
}

fn needs_newest() -> Refusal {
    Refusal::new(Code::InvalidParameter, "not while tablets run with --data_format=1")
}

fn which(key: Option<&[u8]>, times: Option<(u64, Option<u64>)>) -> Which<'_> {
    match (key, times) {
        (Some(key), None | Some((u64::MAX, None))) => Which::Key(key),
        (key, times) => {
            let (newest, oldest) = times.unwrap_or((u64::MAX, None));
            Which::Times { key, newest, oldest }
        }
    }
}

/// What a row or a dimension takes beside its bytes, about.
const OVERHEAD: usize = 16;

fn size(request: &pb::PutRequest) -> Result<usize, Refusal> {
    let row = |r: &pb::Row| {
        r.value.len() + r.dimensions.iter().map(|d| d.key.len() + OVERHEAD).sum::<usize>()
    };
    let size = request.rows.iter().map(row).sum();
    if size > limits::REQUEST {
        return Err(too_large("a request", size, limits::REQUEST));
    }
    Ok(size + request.rows.len() * OVERHEAD)
}

/// R32: the numbers of a session start at 1.
fn check_id(session: u64, seq: u64) -> Result<(), Refusal> {
    if session != 0 && seq == 0 { Err(Malformed("seq").into()) } else { Ok(()) }
}

fn too_large(what: &str, len: usize, most: usize) -> Refusal {
    Refusal::new(Code::TooLarge, format!("{what} of {len} bytes is too large: at most {most}"))
}

/// Is it of an index that was deleted? Who has not heard of that yet still gives a key for it.
fn deleted(table: &Table, dimension: &pb::Dimension) -> bool {
    table.indexes.get(dimension.index as usize).is_some_and(|i| i.deleted)
}

fn check_dimension(table: &Table, dimension: &pb::Dimension) -> Result<u16, Refusal> {
    if dimension.key.len() > limits::KEY {
        return Err(too_large("a key", dimension.key.len(), limits::KEY));
    }
    match u16::try_from(dimension.index) {
        Ok(index) if usize::from(index) < table.indexes.len() && !dimension.key.is_empty() => {
            Ok(index)
        }
        _ => Err(Code::InvalidDimension.into()),
    }
}

fn values(table: &Table, value: &[u8]) -> Result<Vec<Value>, row::RowError> {
    let values = row::decode(&table.columns, value)?;
    let null = table.columns.iter().zip(&values).find(|(c, v)| c.not_null && **v == Value::Null);
    match null {
        Some((column, _)) => Err(row::RowError::Null(column.name.clone())),
        None => Ok(values),
    }
}

fn time(value: Option<&Value>) -> Result<u64, &'static str> {
    match value {
        Some(Value::BigInt(ts) | Value::Timestamp(ts)) => {
            u64::try_from(*ts).map_err(|_| "ts is negative")
        }
        _ => Err("get ts failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::entry::{Content, Entry};
    use crate::store::tests::{plain, with_times};

    fn dimension(index: u32, key: &'static [u8]) -> pb::Dimension {
        pb::Dimension { index, key: Bytes::from_static(key) }
    }

    fn request(dimensions: Vec<pb::Dimension>, value: impl Into<Bytes>) -> pb::PutRequest {
        let target = Some(pb::Target { tid: 7, pid: 1, epoch: 0 });
        let rows = vec![pb::Row { time: 5, dimensions, value: value.into() }];
        pb::PutRequest { target, rows, ..Default::default() }
    }

    fn refused(table: &Table, request: &pb::PutRequest) -> (Code, String) {
        let times: Vec<_> =
            table.indexes.iter().map(|i| i.ts.as_ref().and_then(|c| table.column(c))).collect();
        let refusal = put(table, &times, request, Format::Summed, 0).unwrap_err();
        (refusal.code, refusal.text)
    }

    #[test]
    fn bad_requests_get_the_code_and_text_of_the_reference() {
        let table = plain();
        let invalid = (Code::InvalidDimension, "invalid dimension parameter".to_owned());
        assert_eq!(refused(&table, &request(vec![], "v")), invalid);
        assert_eq!(refused(&table, &request(vec![dimension(1, b"k")], "v")), invalid);
        assert_eq!(refused(&table, &request(vec![dimension(u32::MAX, b"k")], "v")), invalid);
        assert_eq!(refused(&table, &request(vec![dimension(0, b"")], "v")), invalid);
        assert_eq!(
            refused(&table, &request(vec![dimension(0, b"k"), dimension(0, b"l")], "v")),
            invalid
        );
        let mut none = request(vec![], "v");
        none.rows.clear();
        assert_eq!(refused(&table, &none).0, Code::Malformed);
        let mut unnumbered = request(vec![dimension(0, b"k")], "v");
        unnumbered.session = 3;
        assert_eq!(refused(&table, &unnumbered).0, Code::Malformed);
    }

    #[test]
    fn what_is_too_large_is_said_with_the_limit() {
        let table = plain();
        let large = request(vec![dimension(0, b"k")], vec![0; limits::VALUE + 1]);
        assert_eq!(
            refused(&table, &large),
            (Code::TooLarge, "a value of 8388609 bytes is too large: at most 8388608".into())
        );
        let mut key = request(vec![dimension(0, b"k")], "v");
        key.rows[0].dimensions[0].key = vec![1; limits::KEY + 1].into();
        assert_eq!(refused(&table, &key).0, Code::TooLarge);
        let mut many = request(vec![dimension(0, b"k")], vec![0; limits::VALUE]);
        many.rows.push(many.rows[0].clone());
        assert_eq!(
            refused(&table, &many).1,
            "a request of 16777250 bytes is too large: at most 15728640"
        );
    }

    #[test]
    fn each_dimension_has_the_time_of_its_index() {
        let table = with_times();
        let times: Vec<_> =
            table.indexes.iter().map(|i| i.ts.as_ref().and_then(|c| table.column(c))).collect();
        let row = |ts| row::encode(&table.columns, &[Value::Varchar("a".into()), ts]).unwrap();
        let good = request(vec![dimension(0, b"a"), dimension(1, b"b")], row(Value::BigInt(77)));
        let body = put(&table, &times, &good, Format::Summed, 0).unwrap();
        let Content::Rows(mut rows) = Entry::parse(&body).unwrap().content() else {
            panic!("not a put")
        };
        let times_of: Vec<_> = rows.next().unwrap().dimensions.map(|d| d.ts).collect();
        assert_eq!(times_of, [5, 77]);

        let dimensions = || vec![dimension(1, b"b")];
        let failed = |reason: &str| (Code::PutFailed, format!("7.1: {reason}"));
        assert_eq!(
            refused(&table, &request(dimensions(), row(Value::BigInt(-1)))),
            failed("ts is negative")
        );
        assert_eq!(
            refused(&table, &request(dimensions(), row(Value::Null))),
            failed("get ts failed")
        );
        assert_eq!(refused(&table, &request(dimensions(), "x")), failed("invalid value"));
        let nameless = row::encode(&[], &[]).unwrap();
        assert_eq!(refused(&table, &request(dimensions(), nameless)), failed("invalid value"));
    }

    #[test]
    fn a_key_for_a_deleted_index_is_passed_over() {
        let mut table = with_times();
        table.indexes[1].deleted = true;
        let times: Vec<_> = table.indexes.iter().map(|_| None).collect();
        let row = || row::encode(&table.columns, &[Value::Varchar("a".into()), Value::Null]);
        let both = request(vec![dimension(0, b"a"), dimension(1, b"b")], row().unwrap());
        let body = put(&table, &times, &both, Format::Summed, 0).unwrap();
        let Content::Rows(mut rows) = Entry::parse(&body).unwrap().content() else {
            panic!("not a put")
        };
        let indexes: Vec<_> = rows.next().unwrap().dimensions.map(|d| d.index).collect();
        assert_eq!(indexes, [0]);
        // A part of a row for another partition may have had no other: refused, it put the whole in doubt.
        let only = request(vec![dimension(1, b"b")], row().unwrap());
        let body = put(&table, &times, &only, Format::Summed, 0).unwrap();
        let Content::Rows(rows) = Entry::parse(&body).unwrap().content() else {
            panic!("not a put")
        };
        assert_eq!(rows.count(), 0);
        assert_eq!(refused(&table, &request(vec![], row().unwrap())).0, Code::InvalidDimension);
        let dimensions = vec![dimension(1, b"b")];
        let gone = pb::DeleteRequest { dimensions, ..Default::default() };
        assert_eq!(delete(&table, &gone, Format::Summed, 0).unwrap_err().code, Code::IndexNotFound);
    }

    #[test]
    fn a_row_may_have_fewer_columns_than_the_table_or_more() {
        let mut table = with_times();
        let values = [Value::Varchar("a".into()), Value::BigInt(7)];
        let row = row::encode(&table.columns, &values).unwrap();
        let before = request(vec![dimension(0, b"a")], row);
        let added = |name: &str, not_null| stela_common::table::Column {
            name: name.into(),
            kind: stela_common::table::ColumnType::Int,
            not_null,
        };
        table.columns.push(added("c", false));
        let times = [None, Some(1)];
        assert!(put(&table, &times, &before, Format::Summed, 0).is_ok());
        let wide: Vec<Value> = values.into_iter().chain([Value::Int(3)]).collect();
        let wide = row::encode(&table.columns, &wide).unwrap();
        assert!(
            put(&with_times(), &times, &request(vec![dimension(0, b"a")], wide), Format::Summed, 0)
                .is_ok()
        );
        table.columns.push(added("d", true));
        assert!(put(&table, &times, &before, Format::Summed, 0).is_err());
    }
}
