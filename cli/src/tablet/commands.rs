//! Every command of the tablet's client that operators know, with what `help` says of it.

use crate::print::{Answer, Part};
use crate::shell::Names;

/// A command: its name, what it does, how it is written, an example.
struct Command(&'static str, &'static str, &'static str, &'static str);

/// All commands, in the order in which `help` lists them.
const COMMANDS: &[Command] = &[
    Command(
        "addreplica",
        "add replica to leader",
        "addreplica tid pid endpoint",
        "addreplica 1 0 127.0.0.1:9527",
    ),
    Command("changerole", "change role", "changerole tid pid role", "changerole 1 0 leader"),
    Command(
        "count",
        "count the num of data in specified key",
        "count tid pid key [col_name] [filter_expired_data]",
        "count 1 0 key1",
    ),
    Command(
        "delreplica",
        "delete replica from leader",
        "delreplica tid pid endpoint",
        "delreplica 1 0 127.0.0.1:9527",
    ),
    Command("delete", "delete pk", "delete tid pid key [col_name]", "delete 1 0 key1"),
    Command(
        "deleteindex",
        "delete index",
        "deleteindex tid pid index_name",
        "deleteindex 1 0 idx1",
    ),
    Command("drop", "drop table", "drop tid pid", "drop 1 0"),
    Command("exit", "exit client", "exit", "exit"),
    Command("gettablestatus", "get table status", "gettablestatus [tid pid]", "gettablestatus 1 0"),
    Command("getfollower", "get follower", "getfollower tid pid", "getfollower 1 0"),
    Command("help", "get cmd info", "help [cmd]", "help gettablestatus"),
    Command(
        "loadtable",
        "create table and load data",
        "loadtable table_name tid pid ttl segment_cnt is_leader",
        "loadtable table1 1 0 144000 8 true",
    ),
    Command("man", "get cmd info", "man [cmd]", "man gettablestatus"),
    Command("makesnapshot", "make snapshot", "makesnapshot tid pid", "makesnapshot 1 0"),
    Command("pausesnapshot", "pause snapshot", "pausesnapshot tid pid", "pausesnapshot 1 0"),
    Command("quit", "exit client", "quit", "quit"),
    Command(
        "recoversnapshot",
        "recover snapshot",
        "recoversnapshot tid pid",
        "recoversnapshot 1 0",
    ),
    Command(
        "sendsnapshot",
        "send snapshot to another endpoint",
        "sendsnapshot tid pid endpoint",
        "sendsnapshot 1 0 127.0.0.1:9527",
    ),
    Command(
        "setexpire",
        "enable or disable ttl",
        "setexpire tid pid is_expire",
        "setexpire 1 0 true",
    ),
    Command("showschema", "show schema", "showschema tid pid", "showschema 1 0"),
    Command(
        "setttl",
        "set ttl for partition",
        "setttl tid pid ttl_type ttl [index_name]",
        "setttl 1 0 absolute 10",
    ),
];

/// `help` and `man`.
pub(super) fn help(args: &[&str]) -> Answer {
    let lines: Vec<String> = match args {
        [] => COMMANDS.iter().map(|Command(name, about, ..)| format!("{name} - {about}")).collect(),
        [word] => match COMMANDS.iter().find(|c| c.0 == *word) {
            Some(Command(_, about, usage, example)) => {
                vec![format!("desc: {about}"), format!("usage: {usage}"), format!("ex: {example}")]
            }
            None => return Answer::failed(format!("unsupported cmd {word}")),
        },
        _ => ["help format error!", "usage: help [cmd]", "ex: help", "ex: help gettablestatus"]
            .map(Into::into)
            .into(),
    };
    let parts = lines.into_iter().map(Part::Line).collect();
    Answer { parts, failed: args.len() > 1, ..Answer::default() }
}

/// Completes commands.
pub(super) struct Commands;

impl Names for Commands {
    fn after(&self, words: &[&str]) -> Vec<String> {
        match words {
            [] | ["help" | "man"] => COMMANDS.iter().map(|c| c.0.to_owned()).collect(),
            _ => Vec::new(),
        }
    }
}
