//! Every command that operators know, with what `help` says of it.

/// What stands at a place of a command's arguments, for completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// A table of the selected database.
    Table,
    /// A database.
    Database,
    /// A tablet.
    Endpoint,
    /// A command.
    Command,
    /// A setting.
    Key,
    /// `true` or `false`.
    Truth,
    /// Nothing that could be known.
    Free,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// Its name.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) about: &'static str,
    /// How it is written, one line each.
    pub(super) usage: &'static [&'static str],
    /// An example or two.
    pub(super) examples: &'static [&'static str],
    /// What its arguments are.
    pub(super) places: &'static [Place],
    /// It works in this version.
    pub(super) here: bool,
}

use Place::{Database, Endpoint, Free, Key, Table, Truth};

const fn here(
    name: &'static str,
    about: &'static str,
    usage: &'static [&'static str],
    examples: &'static [&'static str],
    places: &'static [Place],
) -> Command {
    Command { name, about, usage, examples, places, here: true }
}

const fn later(
    name: &'static str,
    about: &'static str,
    usage: &'static [&'static str],
    examples: &'static [&'static str],
    places: &'static [Place],
) -> Command {
    Command { name, about, usage, examples, places, here: false }
}

/// All commands, in the order in which `help` lists them.
pub(super) const COMMANDS: &[Command] = &[
    later(
        "addindex",
        "add index to table",
        &["addindex table_name index_name [col_name] [ts_name]"],
        &["addindex test card card ts1"],
        &[Table],
    ),
    later(
        "addtablefield",
        "add field to the schema table",
        &["addtablefield table_name col_name col_type"],
        &["addtablefield test card string"],
        &[Table],
    ),
    later(
        "addreplica",
        "add replica to leader",
        &["addreplica name pid_group endpoint"],
        &["addreplica name 0 127.0.0.1:9527", "addreplica name 0-2 127.0.0.1:9527"],
        &[Table, Free, Endpoint],
    ),
    later("cancelop", "cancel the op", &["cancelop op_id"], &["cancelop 5"], &[]),
    later(
        "deleteop",
        "delete the op",
        &["deleteop op_id", "deleteop op_status"],
        &["deleteop 5", "deleteop done"],
        &[],
    ),
    here(
        "create",
        "create table",
        &[
            "create table_meta_file_path",
            "create table_name ttl partition_num replica_num [colname:coltype:index] [ack=all|leader] [sync=commit|interval:ms] [min_insync=n] [read=permit|confirm]",
        ],
        &[
            "create ./table_meta.txt",
            "create table1 144000 8 3",
            "create table2 latest:10 8 3 card:string:index mcc:string:index value:float",
            "create table3 0 8 3 card:string:index sync=interval:100 min_insync=2",
        ],
        &[],
    ),
    here(
        "confset",
        "update conf",
        &["confset auto_failover true/false"],
        &["confset auto_failover true"],
        &[Key, Truth],
    ),
    here(
        "confget",
        "get conf",
        &["confget", "confget conf_name"],
        &["confget", "confget auto_failover"],
        &[Key],
    ),
    here(
        "count",
        "count the num of data in specified key",
        &[
            "count table_name key [index_name] [filter_expired_data]",
            "count table_name=table_name key=key index_name=index_name filter_expired_data",
        ],
        &[
            "count name key1",
            "count name key1 true",
            "count table_name=table1 key=key1 index_name=idx1 filter_expired_data=true",
        ],
        &[Table],
    ),
    later(
        "changeleader",
        "select leader again when the endpoint of leader offline",
        &["changeleader table_name pid [candidate_leader]"],
        &[
            "changeleader table1 0",
            "changeleader table1 0 auto",
            "changeleader table1 0 127.0.0.1:9527",
        ],
        &[Table, Free, Endpoint],
    ),
    here(
        "delete",
        "delete pk",
        &["delete table_name key [index_name]"],
        &["delete table1 key1", "delete table1 key1 idx1"],
        &[Table],
    ),
    later(
        "delreplica",
        "delete replica from leader",
        &["delreplica name pid_group endpoint"],
        &["delreplica name 0 127.0.0.1:9527"],
        &[Table, Free, Endpoint],
    ),
    here("drop", "drop table", &["drop table_name"], &["drop table1"], &[Table]),
    here("exit", "exit client", &["exit"], &["exit"], &[]),
    here(
        "get",
        "get only one record",
        &[
            "get table_name key ts",
            "get table_name key index_name ts",
            "get table_name=table_name key=key index_name=index_name ts=ts",
        ],
        &[
            "get table1 key1 1528858466000",
            "get table1 key1 0",
            "get table_name=table1 key=key1 index_name=idx1 ts=0",
        ],
        &[Table],
    ),
    later(
        "gettablepartition",
        "get partition info",
        &["gettablepartition table_name pid"],
        &["gettablepartition table1 0"],
        &[Table],
    ),
    here("help", "get cmd info", &["help [cmd]"], &["help", "help create"], &[Place::Command]),
    later(
        "makesnapshot",
        "make snapshot",
        &["makesnapshot name pid"],
        &["makesnapshot table1 0"],
        &[Table],
    ),
    later(
        "migrate",
        "migrate partition form one endpoint to another",
        &["migrate src_endpoint table_name pid_group des_endpoint"],
        &["migrate 127.0.0.1:9991 table1 1-10 127.0.0.1:9992"],
        &[Endpoint, Table, Free, Endpoint],
    ),
    here("man", "get cmd info", &["man [cmd]"], &["man", "man create"], &[Place::Command]),
    later(
        "offlineendpoint",
        "select leader and delete replica when endpoint offline",
        &["offlineendpoint endpoint [concurrency]"],
        &["offlineendpoint 127.0.0.1:9527"],
        &[Endpoint],
    ),
    here(
        "preview",
        "preview data",
        &["preview table_name [limit]"],
        &["preview table1", "preview table1 10"],
        &[Table],
    ),
    here(
        "put",
        "insert data into table",
        &["put table_name pk ts value", "put table_name [ts] field1 field2 ..."],
        &["put table1 key1 1528858466000 value1", "put table2 1528858466000 card1 mcc1 1.5"],
        &[Table],
    ),
    here("quit", "exit client", &["quit"], &["quit"], &[]),
    later(
        "recovertable",
        "recover only one table partition",
        &["recovertable table_name pid endpoint"],
        &["recovertable table1 1 127.0.0.1:9527"],
        &[Table, Free, Endpoint],
    ),
    later(
        "recoverendpoint",
        "recover all tables in endpoint when online",
        &["recoverendpoint endpoint [need_restore] [concurrency]"],
        &["recoverendpoint 127.0.0.1:9527", "recoverendpoint 127.0.0.1:9527 false 2"],
        &[Endpoint, Truth],
    ),
    here(
        "scan",
        "get records for a period of time",
        &[
            "scan table_name pk start_time end_time [limit]",
            "scan table_name key index_name start_time end_time [limit]",
            "scan table_name=table_name key=key index_name=index_name st=start_time et=end_time [limit=limit]",
        ],
        &[
            "scan table1 key1 0 0",
            "scan table2 card1 card 1528858466000 1528858300000 10",
            "scan table_name=table2 key=card1 index_name=card st=0 et=0",
        ],
        &[Table],
    ),
    here(
        "showtable",
        "show table info",
        &["showtable [table_name]"],
        &["showtable", "showtable table1"],
        &[Table],
    ),
    here("showtablet", "show tablet info", &["showtablet"], &["showtablet"], &[]),
    later(
        "showsdkendpoint",
        "show sdkendpoint info",
        &["showsdkendpoint"],
        &["showsdkendpoint"],
        &[],
    ),
    here("showns", "show nameserver info", &["showns"], &["showns"], &[]),
    here("showdb", "show all databases", &["showdb"], &["showdb"], &[]),
    here(
        "showschema",
        "show schema info",
        &["showschema table_name"],
        &["showschema table1"],
        &[Table],
    ),
    here(
        "showopstatus",
        "show op info",
        &["showopstatus [table_name pid]"],
        &["showopstatus", "showopstatus table1", "showopstatus table1 0"],
        &[Table],
    ),
    later(
        "settablepartition",
        "set partition info",
        &["settablepartition table_name partition_file_path"],
        &["settablepartition table1 ./partition_file.txt"],
        &[Table],
    ),
    later(
        "setttl",
        "set table ttl",
        &["setttl table_name ttl_type ttl [index_name]"],
        &["setttl t1 absolute 10", "setttl t2 latest 5", "setttl t3 latest 5 ts1"],
        &[Table],
    ),
    later(
        "updatetablealive",
        "update table alive status",
        &["updatetablealive table_name pid endppoint is_alive"],
        &["updatetablealive t1 * 172.27.2.52:9991 no", "updatetablealive t1 0 172.27.2.52:9991 no"],
        &[Table, Free, Endpoint],
    ),
    here("info", "show information of the table", &["info table_name"], &["info table1"], &[Table]),
    later(
        "addrepcluster",
        "add remote replica cluster",
        &["addrepcluster zk_endpoints zk_path cluster_alias"],
        &["addrepcluster 10.1.1.1:2181,10.1.1.2:2181 /openmldb_cluster prod_dc01"],
        &[],
    ),
    later(
        "showrepcluster",
        "show remote replica cluster info",
        &["showrepcluster"],
        &["showrepcluster"],
        &[],
    ),
    later(
        "removerepcluster",
        "remove remote replica cluster",
        &["removerepcluster cluster_alias"],
        &["removerepcluster prod_dc01"],
        &[],
    ),
    later(
        "switchmode",
        "switch cluster mode",
        &["switchmode normal|leader"],
        &["switchmode normal", "switchmode leader"],
        &[],
    ),
    later(
        "synctable",
        "synctable from leader cluster to replica cluster",
        &["synctable table_name cluster_alias [pid]"],
        &["synctable test bj", "synctable test bj 0"],
        &[Table],
    ),
    later(
        "deleteindex",
        "delete index of specified index",
        &["deleteindex table_name index_name"],
        &["deleteindex test index0"],
        &[Table],
    ),
    later(
        "setsdkendpoint",
        "set sdkendpoint for external network sdk",
        &["setsdkendpoint server_name sdkendpoint"],
        &["setsdkendpoint tb1 202.12.18.1:9527"],
        &[],
    ),
    later(
        "showcatalogversion",
        "show catalog version",
        &["showcatalogversion"],
        &["showcatalogversion"],
        &[],
    ),
    here("createdb", "create database", &["createdb database_name"], &["createdb db1"], &[]),
    here(
        "dropdb",
        "drop an empty database",
        &["dropdb database_name"],
        &["dropdb db1"],
        &[Database],
    ),
    here(
        "use",
        "select the database that commands work in",
        &["use [database_name]"],
        &["use db1", "use"],
        &[Database],
    ),
];
