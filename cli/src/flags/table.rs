//! Every flag there is.

use super::FlagError;

/// What the process is started as.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// A member of the meta group.
    Nameserver,
    /// A data server.
    Tablet,
    /// The client for operators.
    NsClient,
    /// The client of one tablet.
    Client,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 4] =
        [Self::Nameserver, Self::Tablet, Self::NsClient, Self::Client];

    /// Its word in `--role=`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nameserver => "nameserver",
            Self::Tablet => "tablet",
            Self::NsClient => "ns_client",
            Self::Client => "client",
        }
    }

    /// Its subcommand.
    pub(crate) fn command(self) -> &'static str {
        if self == Self::NsClient { "ns-client" } else { self.word() }
    }

    /// The role of that word or subcommand.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.word() == word || r.command() == word)
    }

    /// Is it one of the two clients, whose exit status scripts know?
    pub(crate) fn is_client(self) -> bool {
        matches!(self, Self::NsClient | Self::Client)
    }
}

/// What values a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Anything.
    Text,
    /// A whole number.
    Number,
    /// `--f`, `--nof`, `--f=true`.
    Truth,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// The truth value that a text means.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Some(true),
        "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

impl Kind {
    /// Is it a value of this kind?
    ///
    /// # Errors
    /// What it should be.
    pub(super) fn check(self, name: &str, value: &str) -> Result<(), FlagError> {
        let wrong =
            |want: &str| Err(FlagError::new(format!("--{name}={value} is wrong: it takes {want}")));
        match self {
            Self::Text => Ok(()),
            Self::Number if value.parse::<u64>().is_ok() => Ok(()),
            Self::Number => wrong("a whole number"),
            Self::Truth if truth(value).is_some() => Ok(()),
            Self::Truth => wrong("true or false"),
            Self::Word(words) if words.contains(&value) => Ok(()),
            Self::Word(words) => wrong(&format!("one of {}", words.join(", "))),
        }
    }
}

/// A flag.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// Its name, with `_` where users may also write `-`.
    pub(crate) name: &'static str,
    /// What values it takes.
    pub(crate) kind: Kind,
    /// Its value when it is not given.
    pub(crate) default: &'static str,
    /// Who uses it; nobody: it is OpenMLDB's, and accepted so that flag files can be shared.
    pub(crate) roles: &'static [Role],
    /// One line for people.
    pub(crate) help: &'static str,
}

impl Flag {
    /// Is it one that only OpenMLDB uses?
    pub(crate) fn foreign(&self) -> bool {
        self.roles.is_empty()
    }
}

const ALL: &[Role] = &Role::ALL;
const SERVERS: &[Role] = &[Role::Nameserver, Role::Tablet];
const CLIENTS: &[Role] = &[Role::NsClient, Role::Client];
const NS_CLIENT: &[Role] = &[Role::NsClient];

const fn flag(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    roles: &'static [Role],
    help: &'static str,
) -> Flag {
    Flag { name, kind, default, roles, help }
}

const fn foreign(name: &'static str, kind: Kind) -> Flag {
    flag(name, kind, "", &[], "")
}

/// The flags, in the order in which help shows them.
pub(crate) const FLAGS: &[Flag] = &[
    flag("role", Kind::Text, "", ALL, "what to start: nameserver, tablet, ns_client or client"),
    flag(
        "endpoint",
        Kind::Text,
        "",
        ALL,
        "ip:port where a server listens and by which it is known; for clients, the server to talk to",
    ),
    flag(
        "nameservers",
        Kind::Text,
        "",
        &[Role::Nameserver, Role::Tablet, Role::NsClient],
        "all nameservers of the cluster, as ip:port,ip:port,ip:port",
    ),
    flag(
        "zk_cluster",
        Kind::Text,
        "",
        NS_CLIENT,
        "the same, under the name that scripts for OpenMLDB use; servers ignore it",
    ),
    flag(
        "cluster",
        Kind::Text,
        "",
        &[Role::Nameserver, Role::Tablet, Role::NsClient],
        "the cluster's name (servers: openmldb if not given; clients: the one that answers)",
    ),
    flag(
        "zk_root_path",
        Kind::Text,
        "",
        &[Role::Nameserver, Role::Tablet, Role::NsClient],
        "/x is the same as --cluster=x",
    ),
    flag(
        "db_root_path",
        Kind::Text,
        "",
        SERVERS,
        "the directory of this server, its own; created if absent",
    ),
    flag(
        "bootstrap",
        Kind::Truth,
        "false",
        &[Role::Nameserver],
        "found the cluster, once every nameserver of the list has an empty directory and the same list",
    ),
    flag(
        "tablet_heartbeat_interval",
        Kind::Number,
        "200",
        SERVERS,
        "ms between two heartbeats of a tablet",
    ),
    flag(
        "tablet_heartbeat_timeout",
        Kind::Number,
        "2000",
        &[Role::Nameserver],
        "ms of silence after which a tablet counts as offline (its lease); more than 10000 means 2000",
    ),
    flag(
        "replica_lag_ms",
        Kind::Number,
        "1000",
        &[Role::Tablet],
        "ms that a follower may be behind before it leaves the in-sync set",
    ),
    flag(
        "log",
        Kind::Text,
        "info,openraft=warn",
        SERVERS,
        "what is logged on standard error: error, warn, info, debug, trace, or a filter such as info,stela_meta=debug",
    ),
    flag("cmd", Kind::Text, "", CLIENTS, "run this one command and exit"),
    flag(
        "interactive",
        Kind::Truth,
        "true",
        CLIENTS,
        "ask before tables are dropped; false: never ask, and print for scripts",
    ),
    flag("database", Kind::Text, "", NS_CLIENT, "the database that --cmd works in"),
    flag(
        "layout",
        Kind::Word(&["auto", "classic", "current"]),
        "auto",
        CLIENTS,
        "tables as the operators' document has them (classic) or as OpenMLDB 0.9 prints them (current); auto: current with --interactive=false",
    ),
    flag(
        "output",
        Kind::Word(&["text", "json"]),
        "text",
        CLIENTS,
        "json: tables as arrays of objects, one line each; sizes in bytes, ages in ms, times in s since 1970",
    ),
    flag(
        "strict_exit",
        Kind::Truth,
        "false",
        CLIENTS,
        "exit with status 1 when a command fails (otherwise always 0, as scripts expect)",
    ),
    flag(
        "request_timeout_ms",
        Kind::Number,
        "20000",
        CLIENTS,
        "ms after which a request is given up",
    ),
    flag(
        "zk_session_timeout",
        Kind::Number,
        "2000",
        NS_CLIENT,
        "ms to wait for a leading nameserver at the start",
    ),
    flag(
        "max_col_display_length",
        Kind::Number,
        "256",
        CLIENTS,
        "longest cell of a table, in bytes",
    ),
    flag(
        "flagfile",
        Kind::Text,
        "",
        ALL,
        "read flags from this file: one per line, # begins a comment",
    ),
    flag("help", Kind::Truth, "false", ALL, "print this help"),
    flag("version", Kind::Truth, "false", ALL, "print the version"),
    // OpenMLDB's, which nothing here needs.
    foreign("auto_failover", Kind::Truth),
    foreign("use_name", Kind::Truth),
    foreign("enable_distsql", Kind::Truth),
    foreign("enable_localtablet", Kind::Truth),
    foreign("enable_status_service", Kind::Truth),
    foreign("enable_timeseries_table", Kind::Truth),
    foreign("recycle_bin_enabled", Kind::Truth),
    foreign("binlog_notify_on_put", Kind::Truth),
    foreign("binlog_enable_crc", Kind::Truth),
    foreign("disable_wal", Kind::Truth),
    foreign("verify_compression", Kind::Truth),
    foreign("skip_grant_tables", Kind::Truth),
    foreign("logtostderr", Kind::Truth),
    foreign("alsologtostderr", Kind::Truth),
    foreign("host", Kind::Text),
    foreign("port", Kind::Text),
    foreign("data_dir", Kind::Text),
    foreign("user", Kind::Text),
    foreign("password", Kind::Text),
    foreign("zk_auth_schema", Kind::Text),
    foreign("zk_cert", Kind::Text),
    foreign("zk_log_level", Kind::Text),
    foreign("zk_log_file", Kind::Text),
    foreign("zk_keep_alive_check_interval", Kind::Text),
    foreign("openmldb_log_dir", Kind::Text),
    foreign("log_dir", Kind::Text),
    foreign("log_level", Kind::Text),
    foreign("log_file_size", Kind::Text),
    foreign("log_file_count", Kind::Text),
    foreign("glog_dir", Kind::Text),
    foreign("glog_level", Kind::Text),
    foreign("minloglevel", Kind::Text),
    foreign("v", Kind::Text),
    foreign("tablet_offline_check_interval", Kind::Text),
    foreign("name_server_task_pool_size", Kind::Text),
    foreign("name_server_task_concurrency", Kind::Text),
    foreign("name_server_task_max_concurrency", Kind::Text),
    foreign("name_server_task_concurrency_for_replica_cluster", Kind::Text),
    foreign("name_server_task_wait_time", Kind::Text),
    foreign("name_server_op_execute_timeout", Kind::Text),
    foreign("max_op_num", Kind::Text),
    foreign("get_task_status_interval", Kind::Text),
    foreign("get_table_status_interval", Kind::Text),
    foreign("get_replica_status_interval", Kind::Text),
    foreign("get_table_diskused_interval", Kind::Text),
    foreign("get_memory_stat_interval", Kind::Text),
    foreign("get_sys_mem_interval", Kind::Text),
    foreign("task_check_interval", Kind::Text),
    foreign("check_binlog_sync_progress_delta", Kind::Text),
    foreign("request_max_retry", Kind::Text),
    foreign("request_sleep_time", Kind::Text),
    foreign("partition_num", Kind::Text),
    foreign("replica_num", Kind::Text),
    foreign("system_table_replica_num", Kind::Text),
    foreign("make_snapshot_time", Kind::Text),
    foreign("make_snapshot_check_interval", Kind::Text),
    foreign("make_snapshot_threshold_offset", Kind::Text),
    foreign("make_snapshot_offline_interval", Kind::Text),
    foreign("make_snapshot_max_deleted_keys", Kind::Text),
    foreign("make_disktable_snapshot_interval", Kind::Text),
    foreign("snapshot_compression", Kind::Text),
    foreign("snapshot_pool_size", Kind::Text),
    foreign("snapshot_ttl_time", Kind::Text),
    foreign("snapshot_ttl_check_interval", Kind::Text),
    foreign("binlog_sync_batch_size", Kind::Text),
    foreign("binlog_sync_wait_time", Kind::Text),
    foreign("binlog_coffee_time", Kind::Text),
    foreign("binlog_match_logoffset_interval", Kind::Text),
    foreign("binlog_sync_to_disk_interval", Kind::Text),
    foreign("binlog_delete_interval", Kind::Text),
    foreign("binlog_single_file_max_size", Kind::Text),
    foreign("binlog_name_length", Kind::Text),
    foreign("go_back_max_try_cnt", Kind::Text),
    foreign("send_file_max_try", Kind::Text),
    foreign("retry_send_file_wait_time_ms", Kind::Text),
    foreign("stream_close_wait_time_ms", Kind::Text),
    foreign("stream_block_size", Kind::Text),
    foreign("stream_bandwidth_limit", Kind::Text),
    foreign("stream_wait_time_ms", Kind::Text),
    foreign("recycle_ttl", Kind::Text),
    foreign("recycle_bin_root_path", Kind::Text),
    foreign("recycle_bin_ssd_root_path", Kind::Text),
    foreign("recycle_bin_hdd_root_path", Kind::Text),
    foreign("ssd_root_path", Kind::Text),
    foreign("hdd_root_path", Kind::Text),
    foreign("seg_cnt", Kind::Text),
    foreign("gc_interval", Kind::Text),
    foreign("gc_safe_offset", Kind::Text),
    foreign("gc_pool_size", Kind::Text),
    foreign("disk_gc_interval", Kind::Text),
    foreign("gc_deleted_pk_version_delta", Kind::Text),
    foreign("statdb_ttl", Kind::Text),
    foreign("thread_pool_size", Kind::Text),
    foreign("task_pool_size", Kind::Text),
    foreign("io_pool_size", Kind::Text),
    foreign("put_concurrency_limit", Kind::Text),
    foreign("get_concurrency_limit", Kind::Text),
    foreign("scan_concurrency_limit", Kind::Text),
    foreign("put_slow_log_threshold", Kind::Text),
    foreign("query_slow_log_threshold", Kind::Text),
    foreign("scan_max_bytes_size", Kind::Text),
    foreign("scan_reserve_size", Kind::Text),
    foreign("max_traverse_cnt", Kind::Text),
    foreign("max_traverse_key_cnt", Kind::Text),
    foreign("max_traverse_pk_cnt", Kind::Text),
    foreign("traverse_cnt_limit", Kind::Text),
    foreign("preview_default_limit", Kind::Text),
    foreign("preview_limit_max_num", Kind::Text),
    foreign("max_memory_mb", Kind::Text),
    foreign("load_table_batch", Kind::Text),
    foreign("load_table_thread_num", Kind::Text),
    foreign("load_table_queue_size", Kind::Text),
    foreign("load_index_max_wait_time", Kind::Text),
    foreign("latest_ttl_max", Kind::Text),
    foreign("absolute_ttl_max", Kind::Text),
    foreign("skiplist_max_height", Kind::Text),
    foreign("key_entry_max_height", Kind::Text),
    foreign("latest_default_skiplist_height", Kind::Text),
    foreign("absolute_default_skiplist_height", Kind::Text),
    foreign("write_buffer_mb", Kind::Text),
    foreign("block_cache_mb", Kind::Text),
    foreign("block_cache_shardbits", Kind::Text),
    foreign("file_compression", Kind::Text),
    foreign("max_log_file_size", Kind::Text),
    foreign("keep_log_file_num", Kind::Text),
    foreign("bthread_concurrency", Kind::Text),
    foreign("sync_job_timeout", Kind::Text),
    foreign("deploy_job_max_wait_time_ms", Kind::Text),
    foreign("sync_deploy_stats_timeout", Kind::Text),
];
