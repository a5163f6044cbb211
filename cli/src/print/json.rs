//! Answers as JSON, one value per line: a table is an array of objects, anything else `{"ok": .., "message": ..}`.
//!
//! An object's fields are in the order of the columns; numbers are in base units.

use serde_json::Value;

use super::{Answer, Part, Table};

/// The lines of an answer.
pub(super) fn answer(answer: &Answer) -> String {
    let tables: Vec<&Table> = answer
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Plain(table) | Part::Ruled(table) => Some(table),
            Part::Line(_) => None,
        })
        .collect();
    if tables.is_empty() || answer.failed {
        return message(answer);
    }
    tables.into_iter().map(|t| format!("{}\n", array(t))).collect()
}

fn message(answer: &Answer) -> String {
    let lines: Vec<&str> = answer
        .parts
        .iter()
        .filter_map(|part| match part {
            Part::Line(line) => Some(line.as_str()),
            _ => None,
        })
        .collect();
    if lines.is_empty() && !answer.failed {
        return String::new();
    }
    format!("{{\"ok\":{},\"message\":{}}}\n", !answer.failed, Value::from(lines.join("\n")))
}

fn array(table: &Table) -> String {
    let object = |row: &Vec<super::Cell>| {
        let field = |(name, cell): (&String, &super::Cell)| {
            format!("{}:{}", Value::from(name.as_str()), cell.json)
        };
        format!("{{{}}}", table.columns.iter().zip(row).map(field).collect::<Vec<_>>().join(","))
    };
    format!("[{}]", table.rows.iter().map(object).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::super::Cell;
    use super::*;

    #[test]
    fn tables_and_messages() {
        let mut table = Table::new(&["name", "offset", "memused", "age", "alive", "end_time"]);
        let quoted = Cell::text("a\"b");
        table.push(vec![
            quoted,
            Cell::number(7u64),
            Cell::bytes(2048),
            Cell::age(6005),
            Cell::yes_no(true),
            Cell::none(),
        ]);
        let text = super::answer(&Answer::table(table));
        assert_eq!(
            text,
            "[{\"name\":\"a\\\"b\",\"offset\":7,\"memused\":2048,\"age\":6005,\"alive\":true,\"end_time\":null}]\n"
        );
        assert!(serde_json::from_str::<Value>(&text).is_ok());
        assert_eq!(super::answer(&Answer::table(Table::new(&["#"]))), "[]\n");
        assert_eq!(
            super::answer(&Answer::done("Put ok")),
            "{\"ok\":true,\"message\":\"Put ok\"}\n"
        );
        assert_eq!(super::answer(&Answer::failed("no")), "{\"ok\":false,\"message\":\"no\"}\n");
    }
}
