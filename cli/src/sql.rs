//! `sql_client`: the one statement that OpenMLDB's operations tool asks of it, `show table status`.
//!
//! **Invariants**
//! * Readers go by position: a row has 14 cells, or 13 where there is nothing to warn of, and no cell has a blank in it. So a
//!   table that something is wrong with is not dropped from a report, as it is where the warning is a sentence.
//! * Any other statement is refused in one line that says where to go.

use std::process::ExitCode;

use stela_common::client::Client;
use stela_proto::nameserver as pb;

use crate::flags::Flags;
use crate::ns::{self, Reached};
use crate::print::{Answer, Cell, Part, Table};
use crate::shell::{self, Ask, Names, Options, Shell, Words};

const COLUMNS: [&str; 14] = [
    "Table_id",
    "Table_name",
    "Database_name",
    "Storage_type",
    "Rows",
    "Memory_data_size",
    "Disk_data_size",
    "Partition",
    "Partition_unalive",
    "Replica",
    "Offline_path",
    "Offline_format",
    "Offline_symbolic_paths",
    "Warnings",
];

const UNKNOWN: &str = "unsupported statement: Stela has no SQL beyond show table status [like '<database>']; \
                       use --role=ns_client";

/// Runs the client. `usage`: the status for wrong flags.
pub(crate) fn main(flags: &Flags, usage: u8) -> ExitCode {
    let options = Options::new(flags);
    match ns::reach(flags, &options, usage) {
        Ok(Reached { runtime, client, .. }) => shell::run(&mut Session(client), &options, &runtime),
        Err(status) => status,
    }
}

struct Session(Client);

impl Shell for Session {
    fn prompt(&self) -> String {
        "> ".into()
    }

    async fn command(&mut self, words: &Words<'_>, _: &mut dyn Ask) -> Answer {
        let statement = [&[words.command()], words.args()].concat().join(" ");
        if ["exit", "quit"].contains(&statement.trim_end_matches([' ', ';'])) {
            return Answer { end: true, ..Answer::done("bye") };
        }
        let Some(pattern) = pattern(&statement) else { return Answer::failed(UNKNOWN) };
        match self.0.admin().show_table("", "", true).await {
            Ok(reply) => status(reply.tables, &pattern),
            Err(e) => Answer::refused("Fail to show table status. error msg: ", &e),
        }
    }

    fn names(&self) -> Box<dyn Names> {
        Box::new(Statement)
    }
}

struct Statement;

impl Names for Statement {
    fn after(&self, words: &[&str]) -> Vec<String> {
        let known = ["show", "table", "status", "like"];
        known.get(words.len()).map(|word| (*word).to_owned()).into_iter().collect()
    }
}

/// The pattern of `show table status [like '..'] [;]`; `None`: it is another statement.
fn pattern(statement: &str) -> Option<String> {
    let mut rest = statement.trim().trim_end_matches(';').trim_end();
    let mut keyword = |word: &str| {
        let (first, behind) = rest.split_at_checked(word.len())?;
        let ends = behind.is_empty() || behind.starts_with([' ', '\t', '\'', '"']);
        (first.eq_ignore_ascii_case(word) && ends).then(|| rest = behind.trim_start())
    };
    keyword("show")?;
    keyword("table")?;
    keyword("status")?;
    if keyword("like").is_none() {
        return rest.is_empty().then(|| "%".into());
    }
    let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c))?;
    let inner = rest.strip_prefix(quote)?.strip_suffix(quote)?;
    (!inner.contains(quote)).then(|| inner.to_owned())
}

/// `%` is any text, `_` any character. Time is the product of both lengths at most.
fn like(text: &str, pattern: &str) -> bool {
    // reached[i]: the first i characters are matched by what there has been of the pattern.
    let text: Vec<char> = text.chars().collect();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for p in pattern.chars() {
        if p == '%' {
            let first = reached.iter().position(|r| *r).unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for at in (0..text.len()).rev() {
            reached[at + 1] = reached[at] && (p == '_' || p == text[at]);
        }
        reached[0] = false;
    }
    reached[text.len()]
}

fn status(mut tables: Vec<pb::TableRow>, pattern: &str) -> Answer {
    let name = |row: &pb::TableRow| {
        row.table.as_ref().map(|t| (t.db.clone(), t.name.clone())).unwrap_or_default()
    };
    tables.retain(|row| like(&name(row).0, pattern));
    tables.sort_by_cached_key(|row| std::cmp::Reverse(name(row)));
    let mut shown = Table::new(&COLUMNS);
    tables.iter().for_each(|row| shown.push(cells(row)));
    let count = format!("{} rows in set", tables.len());
    let parts = vec![Part::Ruled(shown), Part::Line(String::new()), Part::Line(count)];
    Answer { parts, ..Answer::default() }
}

fn cells(row: &pb::TableRow) -> Vec<Cell> {
    let table = row.table.clone().unwrap_or_default();
    // Replicas hold the same: one of each partition is counted, the leader where it is known.
    let of_each = row.partitions.iter().filter_map(|p| {
        let known = p.replicas.iter().filter(|r| r.known);
        known.max_by_key(|r| (r.leader && r.alive, r.offset))
    });
    let sum =
        |figure: fn(&pb::ReplicaRow) -> u64| Cell::number(of_each.clone().map(figure).sum::<u64>());
    let dead = row.partitions.iter().flat_map(|p| &p.replicas).filter(|r| !r.alive).count();
    let count = |n: usize| Cell::number(u64::try_from(n).unwrap_or(u64::MAX));
    vec![
        Cell::number(table.tid),
        Cell::text(table.name),
        // An empty cell would shift the others.
        Cell::text(if table.db.is_empty() { "-".into() } else { table.db }),
        Cell::text("memory"),
        sum(|r| r.record_cnt),
        sum(|r| r.memory),
        sum(|r| r.disk),
        count(row.partitions.len()),
        count(dead),
        Cell::number(table.replica_num),
        Cell::text("NULL"),
        Cell::text("NULL"),
        Cell::text("NULL"),
        Cell::text(warnings(row)),
    ]
}

fn warnings(row: &pb::TableRow) -> String {
    let mut all = Vec::new();
    for partition in &row.partitions {
        if !partition.serving {
            all.push(format!("pid={},nobody_serves", partition.pid));
        }
        let dead = partition.replicas.iter().filter(|r| !r.alive);
        all.extend(dead.map(|r| format!("pid={},{},not_alive", partition.pid, r.endpoint)));
    }
    all.join(";")
}

#[cfg(test)]
mod tests {
    use stela_proto::common;

    use super::*;
    use crate::print::{self, Style};

    #[test]
    fn the_statement() {
        for (statement, want) in [
            ("show table status like '%';", Some("%")),
            ("SHOW Table  STATUS LIKE \"d_%\" ; ", Some("d_%")),
            ("show table status like'x'", Some("x")),
            ("show table status like '';", Some("")),
            ("show table status", Some("%")),
            ("show table status;", Some("%")),
            ("show table status like", None),
            ("show table status like %", None),
            ("show table status like '%", None),
            ("show table status like '", None),
            ("show table status like 'a' or 'b'", None),
            ("show table statuses", None),
            ("show tables", None),
            ("select 1;", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(pattern(statement).as_deref(), want, "{statement}");
        }
    }

    #[test]
    fn patterns() {
        for (text, pattern, want) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("db", "db", true),
            ("db", "DB", false),
            ("db", "d_", true),
            ("db", "d", false),
            ("db1", "d%", true),
            ("db1", "%b%1%", true),
            ("db1", "%2%", false),
            ("é1", "_1", true),
            ("a%b", "a%%b", true),
        ] {
            assert_eq!(like(text, pattern), want, "{text} like {pattern}");
        }
        let long = "a".repeat(2000);
        assert!(!like(&long, &"%a".repeat(1000).replace("%a%a", "%a%b")));
    }

    fn table(tid: u32, db: &str, name: &str, alive: bool) -> pb::TableRow {
        let replica = |endpoint: &str, leader, alive, record_cnt| pb::ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive,
            known: true,
            offset: record_cnt,
            record_cnt,
            memory: 10 * record_cnt,
            disk: 100 * record_cnt,
            ..Default::default()
        };
        let partition = |pid| pb::PartitionRow {
            pid,
            serving: true,
            replicas: vec![replica("a:1", true, true, 3), replica("b:1", false, alive, 2)],
            ..Default::default()
        };
        pb::TableRow {
            table: Some(common::Table {
                tid,
                db: db.into(),
                name: name.into(),
                replica_num: 2,
                ..Default::default()
            }),
            partitions: vec![partition(0), partition(1)],
        }
    }

    /// As the tool reads it: rows behind the first ruler, by position.
    fn rows(answer: &Answer) -> Vec<Vec<String>> {
        let mut out = Vec::new();
        print::write(&mut out, answer, Style { json: false, longest_cell: 256 }).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines = text.lines().map(str::trim_start).skip_while(|l| !l.starts_with("------"));
        let rows = lines.filter(|l| !l.starts_with("------") && !l.is_empty());
        rows.map(|l| l.split_whitespace().map(Into::into).collect()).collect()
    }

    #[test]
    fn every_row_has_its_cells_whatever_is_wrong() {
        let tables = vec![
            table(1, "db1", "t1", true),
            table(2, "db2", "a", false),
            table(3, "", "free", true),
            table(4, "db1", "t2", true),
        ];
        let rows = rows(&status(tables.clone(), "%"));
        assert_eq!(rows[0], COLUMNS);
        let names: Vec<&str> = rows[1..5].iter().map(|r| r[1].as_str()).collect();
        assert_eq!(names, ["a", "t2", "t1", "free"]);
        assert_eq!(
            rows[1][3..13],
            ["memory", "6", "60", "600", "2", "2", "2", "NULL", "NULL", "NULL"]
        );
        assert_eq!(rows[1][13], "pid=0,b:1,not_alive;pid=1,b:1,not_alive");
        assert!(rows[2..5].iter().all(|r| r.len() == 13 && r[8] == "0"));
        assert_eq!(rows[5], ["4", "rows", "in", "set"]);
        let Answer { parts, .. } = status(tables, "db1");
        assert_eq!(parts[1..], [Part::Line(String::new()), Part::Line("2 rows in set".into())]);
    }

    #[test]
    fn nobody_serves_is_a_warning() {
        let mut row = table(1, "db", "t", false);
        row.partitions.truncate(1);
        row.partitions[0].serving = false;
        assert_eq!(warnings(&row), "pid=0,nobody_serves;pid=0,b:1,not_alive");
    }
}
