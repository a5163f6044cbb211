//! The bytes of a row.
//!
//! ```text
//! format u8 = 2 | number of columns n u16 | null bitmap ceil(n/8) | each non-null column in order
//! bool 1, smallint 2, int and date 4, bigint and timestamp 8, float 4, double 8 bytes, little endian;
//! varchar: length u32, bytes
//! ```
//! Columns are ever only appended. So a row that was written before some were reads as null there, and of one that was
//! written by somebody who knows of more, what is known is read. Rows of format 1 (`1 | schema version u8 | null bitmap |
//! columns`) do not say how many columns they have: those of the table, or as many fewer as their bytes are for. Decoding
//! never panics on foreign bytes.

use crate::table::{Column, ColumnType};

const FORMAT: u8 = 2;
/// Without a number of columns.
const UNCOUNTED: u8 = 1;

/// A value of a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// No value.
    Null,
    /// `bool`
    Bool(bool),
    /// `smallint`
    SmallInt(i16),
    /// `int`
    Int(i32),
    /// `bigint`
    BigInt(i64),
    /// `float`
    Float(f32),
    /// `double`
    Double(f64),
    /// `string`
    Varchar(String),
    /// Days since 1970-01-01.
    Date(i32),
    /// Milliseconds since 1970.
    Timestamp(i64),
}

/// Why a text or bytes are not a value or row.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RowError {
    /// A text that the column's type does not take.
    #[error("'{text}' is not a {kind} (column {column})")]
    Text {
        /// The text.
        text: String,
        /// The type.
        kind: ColumnType,
        /// The column's name.
        column: String,
    },
    /// A null where none may be.
    #[error("column {0} may not be null")]
    Null(String),
    /// More or fewer values than columns.
    #[error("{got} values for {want} columns")]
    Count {
        /// Values given.
        got: usize,
        /// Columns there are.
        want: usize,
    },
    /// A value of another type than its column's.
    #[error("value of another type in column {0}")]
    Kind(String),
    /// Bytes that are no row of this table.
    #[error("invalid value")]
    Bytes,
    /// Written by a newer version.
    #[error("row format {0} is newer than this version knows")]
    Newer(u8),
}

impl Value {
    /// Reads a value as `ns_client` takes it; `null` is no value.
    ///
    /// # Errors
    /// [`RowError::Text`], [`RowError::Null`].
    pub fn parse(text: &str, column: &Column) -> Result<Self, RowError> {
        let bad =
            || RowError::Text { text: text.into(), kind: column.kind, column: column.name.clone() };
        if text == "null" {
            return if column.not_null {
                Err(RowError::Null(column.name.clone()))
            } else {
                Ok(Self::Null)
            };
        }
        Ok(match column.kind {
            ColumnType::Bool => Self::Bool(match text {
                "true" | "True" | "TRUE" | "1" => true,
                "false" | "False" | "FALSE" | "0" => false,
                _ => return Err(bad()),
            }),
            ColumnType::SmallInt => Self::SmallInt(text.parse().map_err(|_| bad())?),
            ColumnType::Int => Self::Int(text.parse().map_err(|_| bad())?),
            ColumnType::BigInt => Self::BigInt(text.parse().map_err(|_| bad())?),
            ColumnType::Float => Self::Float(text.parse().map_err(|_| bad())?),
            ColumnType::Double => Self::Double(text.parse().map_err(|_| bad())?),
            ColumnType::Varchar => Self::Varchar(text.into()),
            ColumnType::Date => Self::Date(date::parse(text).ok_or_else(bad)?),
            ColumnType::Timestamp => Self::Timestamp(text.parse().map_err(|_| bad())?),
        })
    }

    /// The text that stands for this value in a key and in a table; null is `-`.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Null => "-".into(),
            Self::Bool(v) => v.to_string(),
            Self::SmallInt(v) => v.to_string(),
            Self::Int(v) => v.to_string(),
            Self::BigInt(v) | Self::Timestamp(v) => v.to_string(),
            Self::Float(v) => v.to_string(),
            Self::Double(v) => v.to_string(),
            Self::Varchar(v) => v.clone(),
            Self::Date(v) => date::format(*v),
        }
    }

    fn kind(&self) -> Option<ColumnType> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => ColumnType::Bool,
            Self::SmallInt(_) => ColumnType::SmallInt,
            Self::Int(_) => ColumnType::Int,
            Self::BigInt(_) => ColumnType::BigInt,
            Self::Float(_) => ColumnType::Float,
            Self::Double(_) => ColumnType::Double,
            Self::Varchar(_) => ColumnType::Varchar,
            Self::Date(_) => ColumnType::Date,
            Self::Timestamp(_) => ColumnType::Timestamp,
        })
    }
}

/// The bytes of a row with these values, one for each column.
///
/// # Errors
/// [`RowError::Count`], [`RowError::Null`], [`RowError::Kind`].
pub fn encode(columns: &[Column], values: &[Value]) -> Result<Vec<u8>, RowError> {
    if columns.len() != values.len() {
        return Err(RowError::Count { got: values.len(), want: columns.len() });
    }
    let count = u16::try_from(columns.len())
        .map_err(|_| RowError::Count { got: values.len(), want: usize::from(u16::MAX) })?;
    let mut out = vec![FORMAT];
    out.extend(count.to_le_bytes());
    let nulls = out.len();
    out.resize(nulls + columns.len().div_ceil(8), 0);
    for (at, (column, value)) in columns.iter().zip(values).enumerate() {
        if value.kind().is_some_and(|k| k != column.kind) {
            return Err(RowError::Kind(column.name.clone()));
        }
        match value {
            Value::Null if column.not_null => return Err(RowError::Null(column.name.clone())),
            Value::Null => out[nulls + at / 8] |= 1 << (at % 8),
            Value::Bool(v) => out.push(u8::from(*v)),
            Value::SmallInt(v) => out.extend(v.to_le_bytes()),
            Value::Int(v) | Value::Date(v) => out.extend(v.to_le_bytes()),
            Value::BigInt(v) | Value::Timestamp(v) => out.extend(v.to_le_bytes()),
            Value::Float(v) => out.extend(v.to_le_bytes()),
            Value::Double(v) => out.extend(v.to_le_bytes()),
            Value::Varchar(v) => {
                out.extend(u32::try_from(v.len()).map_err(|_| RowError::Bytes)?.to_le_bytes());
                out.extend(v.as_bytes());
            }
        }
    }
    Ok(out)
}

/// The values of a row, one for each column; of columns that were added after it was written, null.
///
/// # Errors
/// [`RowError::Bytes`], [`RowError::Newer`].
pub fn decode(columns: &[Column], bytes: &[u8]) -> Result<Vec<Value>, RowError> {
    let mut rest = bytes;
    let [format, next] = array(&mut rest)?;
    match format {
        FORMAT => {
            let [high] = array(&mut rest)?;
            counted(columns, u16::from_le_bytes([next, high]).into(), rest)
        }
        UNCOUNTED => {
            // The most columns that the bytes are right for: all of them, unless some were added since.
            let least = usize::from(!columns.is_empty());
            let fits = |count| counted(columns, count, rest).ok();
            (least..=columns.len()).rev().find_map(fits).ok_or(RowError::Bytes)
        }
        newer if newer > FORMAT => Err(RowError::Newer(newer)),
        _ => Err(RowError::Bytes),
    }
}

/// The values of a row that was written with `count` columns.
fn counted(columns: &[Column], count: usize, mut rest: &[u8]) -> Result<Vec<Value>, RowError> {
    let (known, added) = columns.split_at(count.min(columns.len()));
    if (known.is_empty() && !columns.is_empty()) || added.iter().any(|c| c.not_null) {
        return Err(RowError::Bytes);
    }
    let nulls = take(&mut rest, count.div_ceil(8))?;
    let beyond = count.div_ceil(8) * 8 - count;
    if nulls.last().is_some_and(|last| u32::from(*last) >> (8 - beyond) != 0) {
        return Err(RowError::Bytes);
    }
    let mut values = Vec::with_capacity(columns.len());
    for (at, column) in known.iter().enumerate() {
        if nulls[at / 8] >> (at % 8) & 1 == 1 {
            values.push(Value::Null);
            continue;
        }
        values.push(match column.kind {
            ColumnType::Bool => Value::Bool(take(&mut rest, 1)? != [0]),
            ColumnType::SmallInt => Value::SmallInt(i16::from_le_bytes(array(&mut rest)?)),
            ColumnType::Int => Value::Int(i32::from_le_bytes(array(&mut rest)?)),
            ColumnType::Date => Value::Date(i32::from_le_bytes(array(&mut rest)?)),
            ColumnType::BigInt => Value::BigInt(i64::from_le_bytes(array(&mut rest)?)),
            ColumnType::Timestamp => Value::Timestamp(i64::from_le_bytes(array(&mut rest)?)),
            ColumnType::Float => Value::Float(f32::from_le_bytes(array(&mut rest)?)),
            ColumnType::Double => Value::Double(f64::from_le_bytes(array(&mut rest)?)),
            ColumnType::Varchar => {
                let len = u32::from_le_bytes(array(&mut rest)?) as usize;
                let text =
                    std::str::from_utf8(take(&mut rest, len)?).map_err(|_| RowError::Bytes)?;
                Value::Varchar(text.into())
            }
        });
    }
    // What columns that are not known here hold cannot be told from garbage.
    if count <= columns.len() && !rest.is_empty() {
        return Err(RowError::Bytes);
    }
    values.resize(columns.len(), Value::Null);
    Ok(values)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], RowError> {
    let (head, tail) = rest.split_at_checked(len).ok_or(RowError::Bytes)?;
    *rest = tail;
    Ok(head)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], RowError> {
    take(rest, N)?.try_into().map_err(|_| RowError::Bytes)
}

/// Days since 1970 and their text, by Howard Hinnant's `days_from_civil`.
mod date {
    pub(super) fn parse(text: &str) -> Option<i32> {
        let mut parts = text.split('-');
        let (y, m, d) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (y, m, d): (i32, i32, i32) = (y.parse().ok()?, m.parse().ok()?, d.parse().ok()?);
        let days = from_civil(y, m, d);
        ((1..=9999).contains(&y) && to_civil(days) == (y, m, d)).then_some(days)
    }

    pub(super) fn format(days: i32) -> String {
        let (y, m, d) = to_civil(days);
        format!("{y:04}-{m:02}-{d:02}")
    }

    fn from_civil(y: i32, m: i32, d: i32) -> i32 {
        if !(1..=9999).contains(&y) || !(1..=12).contains(&m) || !(1..=31).contains(&d) {
            return 0;
        }
        let y = if m <= 2 { y - 1 } else { y };
        let era = y.div_euclid(400);
        let yoe = y.rem_euclid(400);
        let doy = (153 * ((m + 9) % 12) + 2) / 5 + d - 1;
        era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
    }

    fn to_civil(days: i32) -> (i32, i32, i32) {
        let z = i64::from(days) + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let d = doy - (153 * mp + 2) / 5 + 1;
        let m = if mp < 10 { mp + 3 } else { mp - 9 };
        let y = yoe + era * 400 + i64::from(m <= 2);
        (
            i32::try_from(y).unwrap_or(0),
            i32::try_from(m).unwrap_or(0),
            i32::try_from(d).unwrap_or(0),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns() -> Vec<Column> {
        use ColumnType::*;
        [Bool, SmallInt, Int, BigInt, Float, Double, Varchar, Date, Timestamp, Varchar]
            .into_iter()
            .enumerate()
            .map(|(at, kind)| Column { name: format!("c{at}"), kind, not_null: false })
            .collect()
    }

    fn values() -> impl Strategy<Value = Vec<Value>> {
        let null = |s: BoxedStrategy<Value>| prop_oneof![1 => Just(Value::Null), 4 => s];
        (
            null(any::<bool>().prop_map(Value::Bool).boxed()),
            null(any::<i16>().prop_map(Value::SmallInt).boxed()),
            null(any::<i32>().prop_map(Value::Int).boxed()),
            null(any::<i64>().prop_map(Value::BigInt).boxed()),
            null((-1e9f32..1e9).prop_map(Value::Float).boxed()),
            null((-1e9f64..1e9).prop_map(Value::Double).boxed()),
            null(".{0,40}".prop_map(Value::Varchar).boxed()),
            null((0..40_000i32).prop_map(Value::Date).boxed()),
            null(any::<i64>().prop_map(Value::Timestamp).boxed()),
            null(".{0,40}".prop_map(Value::Varchar).boxed()),
        )
            .prop_map(|(a, b, c, d, e, f, g, h, i, j)| vec![a, b, c, d, e, f, g, h, i, j])
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(values in values()) {
            let bytes = encode(&columns(), &values).unwrap();
            prop_assert_eq!(decode(&columns(), &bytes).unwrap(), values);
        }

        #[test]
        fn foreign_bytes_are_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&columns(), &bytes);
        }

        #[test]
        fn every_cut_of_a_row_is_refused(values in values(), at in 0usize..1000) {
            let bytes = encode(&columns(), &values).unwrap();
            prop_assert!(decode(&columns(), &bytes[..at % bytes.len()]).is_err());
        }

        #[test]
        fn a_row_is_read_with_columns_added_since_and_by_who_knows_of_fewer(values in values(), count in 1usize..10) {
            let (all, some) = (columns(), &columns()[..count]);
            let mut padded = values[..count].to_vec();
            padded.resize(all.len(), Value::Null);
            prop_assert_eq!(decode(&all, &encode(some, &values[..count]).unwrap()).unwrap(), padded);
            prop_assert_eq!(decode(some, &encode(&all, &values).unwrap()).unwrap(), &values[..count]);
        }

        #[test]
        fn rows_that_do_not_say_how_many_columns_they_have_are_read(values in values(), count in 1usize..=10) {
            let (all, some) = (columns(), &columns()[..count]);
            let counted = encode(some, &values[..count]).unwrap();
            let bytes: Vec<u8> = [UNCOUNTED, 1].into_iter().chain(counted[3..].iter().copied()).collect();
            prop_assert_eq!(decode(some, &bytes).unwrap(), &values[..count]);
            // With as many bytes of nulls there is no doubt.
            let same = &all[..if count <= 8 { 8 } else { 10 }];
            let mut padded = values[..count].to_vec();
            padded.resize(same.len(), Value::Null);
            prop_assert_eq!(decode(same, &bytes).unwrap(), padded);
        }
    }

    #[test]
    fn a_missing_column_reads_as_null_only_where_it_may_be() {
        let mut columns = columns();
        let row = encode(&columns[..1], &[Value::Bool(true)]).unwrap();
        assert_eq!(decode(&columns[..2], &row), Ok(vec![Value::Bool(true), Value::Null]));
        columns[1].not_null = true;
        assert_eq!(decode(&columns[..2], &row), Err(RowError::Bytes));
        // Of no column at all: no row of a table that has some.
        assert_eq!(decode(&columns[..1], &encode(&[], &[]).unwrap()), Err(RowError::Bytes));
        assert_eq!(decode(&columns[..1], &[3, 0, 0]), Err(RowError::Newer(3)));
    }

    #[test]
    fn dates() {
        let column = Column { name: "d".into(), kind: ColumnType::Date, not_null: false };
        for text in ["1970-01-01", "2024-02-29", "1999-12-31", "0001-01-01"] {
            assert_eq!(Value::parse(text, &column).unwrap().text(), text);
        }
        assert_eq!(Value::parse("1970-01-02", &column).unwrap(), Value::Date(1));
        for text in ["2023-02-29", "2023-13-01", "x", "2023-1", ""] {
            assert!(Value::parse(text, &column).is_err(), "{text}");
        }
    }
}
