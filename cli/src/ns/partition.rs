//! A partition as a file: `gettablepartition` writes it, `settablepartition` brings it into force.
//!
//! The file is protobuf's text format, with the fields of OpenMLDB's `TablePartition`.

use std::fmt::Write as _;

use stela_common::fs;
use stela_proto::nameserver as pb;

use super::text::{self, Message, Value};
use super::{Session, view};
use crate::print::Answer;
use crate::shell::unsigned;

pub(super) async fn gettablepartition(session: &Session, args: &[&str]) -> Answer {
    const FAILED: &str = "Fail to get table partition. error msg: ";
    let [table, pid, ..] = args else { return Answer::failed("Bad format") };
    let Some(pid) = unsigned::<u32>(pid) else {
        return Answer::failed("Invalid args. pid should be uint32_t");
    };
    let tables = match view::visible(session, table).await {
        Ok(tables) => tables,
        Err(e) => return Answer::refused(FAILED, &e),
    };
    let Some((_, partitions)) = tables.last() else {
        return Answer::failed(format!("{FAILED}table does not exist"));
    };
    let Some(partition) = partitions.iter().find(|p| p.pid == pid) else {
        return Answer::failed(format!("{FAILED}pid does not exist"));
    };
    let file = format!("./{table}_{pid}.txt");
    match fs::write(&file, written(partition)) {
        Ok(()) => Answer::done("get table partition ok"),
        Err(e) => Answer::failed(format!("fail to open file{file}")).because(e.to_string()),
    }
}

/// A partition as text.
fn written(partition: &pb::PartitionRow) -> String {
    let mut text = format!("pid: {}\n", partition.pid);
    for r in &partition.replicas {
        let _ = write!(
            text,
            "partition_meta {{\n  endpoint: \"{}\"\n  is_leader: {}\n  offset: {}\n  record_cnt: {}\n  is_alive: {}\n}}\n",
            r.endpoint, r.leader, r.offset, r.record_cnt, r.alive
        );
    }
    let _ = write!(text, "term_offset {{\n  term: {}\n  offset: 0\n}}\n", partition.epoch);
    text
}

pub(super) async fn settablepartition(session: &Session, args: &[&str]) -> Answer {
    let [table, path, ..] = args else { return Answer::failed("Bad format") };
    let read = match fs::read_to_string(path) {
        Ok(read) => read,
        Err(e) => {
            return Answer::failed(format!("can not open file {path}")).because(e.to_string());
        }
    };
    let Some((pid, rows)) = text::parse(&read).as_ref().and_then(partition) else {
        return Answer::failed("table partition file format error");
    };
    if let Some(wrong) = wrong(&rows) {
        return Answer::failed(wrong);
    }
    match session.client.admin().set_table_partition(session.table(table), pid, rows).await {
        Ok(_) => Answer::done("set table partition ok"),
        Err(e) => Answer::refused("Fail to set table partition. error msg: ", &e),
    }
}

/// What a file cannot say.
fn wrong(rows: &[pb::ReplicaState]) -> Option<String> {
    for (at, row) in rows.iter().enumerate() {
        let same = |other: &&pb::ReplicaState| {
            other.endpoint == row.endpoint && other.leader == row.leader
        };
        if rows[..at].iter().any(|other| same(&other)) {
            return Some(match row.leader {
                true => format!("has same leader {}", row.endpoint),
                false => format!("has same follower{}", row.endpoint),
            });
        }
    }
    (!rows.iter().any(|r| r.leader)).then(|| "has no leader".into())
}

fn partition(message: &Message) -> Option<(u32, Vec<pb::ReplicaState>)> {
    let (mut pid, mut rows) = (None, Vec::new());
    for (field, value) in message {
        match (field.as_str(), value) {
            ("pid", Value::Word(word)) => pid = Some(unsigned(word)?),
            ("partition_meta", Value::Message(meta)) => rows.push(replica(meta)?),
            // What is known of the past, and figures that are reported anew.
            (
                "term_offset"
                | "remote_partition_meta"
                | "record_cnt"
                | "record_byte_size"
                | "diskused",
                _,
            ) => {}
            _ => return None,
        }
    }
    Some((pid?, rows)).filter(|(_, rows)| !rows.is_empty())
}

fn replica(message: &Message) -> Option<pb::ReplicaState> {
    // A missing `is_alive` means alive.
    let mut row = pb::ReplicaState { endpoint: String::new(), leader: false, alive: true };
    for (field, value) in message {
        let Value::Word(word) = value else { return None };
        match field.as_str() {
            "endpoint" => row.endpoint.clone_from(word),
            "is_leader" => row.leader = word.parse().ok()?,
            "is_alive" => row.alive = word.parse().ok()?,
            _ => {}
        }
    }
    Some(row).filter(|r| !r.endpoint.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let replica = |endpoint: &str, leader, alive| pb::ReplicaRow {
            endpoint: endpoint.into(),
            leader,
            alive,
            ..Default::default()
        };
        let row = pb::PartitionRow {
            pid: 3,
            epoch: 7,
            replicas: vec![replica("a:1", true, true), replica("b:1", false, false)],
            ..Default::default()
        };
        let (pid, rows) = partition(&text::parse(&written(&row)).unwrap()).unwrap();
        let rows: Vec<_> = rows.iter().map(|r| (r.endpoint.as_str(), r.leader, r.alive)).collect();
        assert_eq!((pid, rows), (3, vec![("a:1", true, true), ("b:1", false, false)]));
    }

    #[test]
    fn wrong_files_are_told_in_the_words_of_the_command() {
        let read = |text: &str| partition(&text::parse(text)?).map(|(_, rows)| wrong(&rows));
        let one = |endpoint: &str, leader: bool| {
            format!("partition_meta {{ endpoint: \"{endpoint}\" is_leader: {leader} }} ")
        };
        assert_eq!(read("pid: 0"), None);
        assert_eq!(read("partition_meta { is_leader: true }"), None);
        assert_eq!(read(&format!("pid: 0 {}", one("a", true))), Some(None));
        let twice = |leader| format!("pid: 0 {}{}", one("a", leader), one("a", leader));
        assert_eq!(read(&twice(true)), Some(Some("has same leader a".into())));
        assert_eq!(read(&twice(false)), Some(Some("has same followera".into())));
        assert_eq!(
            read(&format!("pid: 0 {}", one("a", false))),
            Some(Some("has no leader".into()))
        );
    }
}
