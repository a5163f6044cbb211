//! Every flag that means something here.

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
    /// The client that knows one statement of SQL.
    SqlClient,
}

impl Role {
    /// All of them.
    pub(crate) const ALL: [Self; 5] =
        [Self::Nameserver, Self::Tablet, Self::NsClient, Self::Client, Self::SqlClient];

    /// Its word in `--role=`.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Nameserver => "nameserver",
            Self::Tablet => "tablet",
            Self::NsClient => "ns_client",
            Self::Client => "client",
            Self::SqlClient => "sql_client",
        }
    }

    /// Its subcommand.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::NsClient => "ns-client",
            Self::SqlClient => "sql-client",
            _ => self.word(),
        }
    }

    /// The role of that word or subcommand.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.word() == word || r.command() == word)
    }

    /// Is it one of the clients, whose exit status scripts know?
    pub(crate) fn is_client(self) -> bool {
        matches!(self, Self::NsClient | Self::Client | Self::SqlClient)
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
    /// Who uses it.
    pub(crate) roles: &'static [Role],
    /// One line for people.
    pub(crate) help: &'static str,
}

const ALL: &[Role] = &Role::ALL;
const SERVERS: &[Role] = &[Role::Nameserver, Role::Tablet];
const CLIENTS: &[Role] = &[Role::NsClient, Role::Client, Role::SqlClient];
/// They look for the leading nameserver.
const SEEKERS: &[Role] = &[Role::NsClient, Role::SqlClient];
/// They have a list of nameservers.
const MEMBERS: &[Role] = &[Role::Nameserver, Role::Tablet, Role::NsClient, Role::SqlClient];
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

/// The flags, in the order in which help shows them.
pub(crate) const FLAGS: &[Flag] = &[
    flag(
        "role",
        Kind::Text,
        "",
        ALL,
        "what to start: nameserver, tablet, ns_client, client or sql_client",
    ),
    flag(
        "endpoint",
        Kind::Text,
        "",
        ALL,
        "ip:port where a server listens and by which it is known; for clients, the server to talk to",
    ),
    flag(
        "listen",
        Kind::Text,
        "",
        SERVERS,
        "ip:port where a server listens, if --endpoint is the address of a proxy or of a container's host",
    ),
    flag(
        "nameservers",
        Kind::Text,
        "",
        MEMBERS,
        "all nameservers of the cluster, as ip:port,ip:port,ip:port",
    ),
    flag(
        "zk_cluster",
        Kind::Text,
        "",
        SEEKERS,
        "the same, under the name that scripts for OpenMLDB use; servers ignore it",
    ),
    flag(
        "cluster",
        Kind::Text,
        "",
        MEMBERS,
        "the cluster's name (servers: openmldb if not given; clients: the one that answers)",
    ),
    flag("zk_root_path", Kind::Text, "", MEMBERS, "/x is the same as --cluster=x"),
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
        "snapshot_transfer_mb_s",
        Kind::Number,
        "64",
        &[Role::Tablet],
        "MiB per second with which snapshots go to other tablets, all together; 0: no limit",
    ),
    flag(
        "snapshot_min_log_mb",
        Kind::Number,
        "64",
        &[Role::Tablet],
        "MiB of log since its last snapshot, at least, before a partition gets a new one; or the size of that one",
    ),
    flag(
        "snapshot_every",
        Kind::Number,
        "0",
        &[Role::Tablet],
        "entries after which a partition gets a new snapshot, whatever their size; 0: by size only",
    ),
    flag(
        "log_keep_mb",
        Kind::Number,
        "1024",
        &[Role::Tablet],
        "MiB that the log may take: a follower that misses more than it still has gets a snapshot",
    ),
    flag(
        "make_snapshot_time",
        Kind::Number,
        "23",
        &[Role::Tablet],
        "hour of the local day in which every partition that has changed gets a snapshot; 24: none does",
    ),
    flag(
        "scrub_hours",
        Kind::Number,
        "168",
        &[Role::Tablet],
        "hours in which a tablet reads all that it has, to find what has rotted while there are other copies; 0: never",
    ),
    flag(
        "disk_reserve_mb",
        Kind::Number,
        "256",
        &[Role::Tablet],
        "MiB of disk that puts leave free: with less they are refused, and taken again when there is room",
    ),
    flag(
        "data_format",
        Kind::Number,
        "2",
        &[Role::Tablet],
        "how a tablet writes: 2, or 1 as long as the cluster may have to go back to version 0.1, which reads nothing newer",
    ),
    flag(
        "max_memory_mb",
        Kind::Number,
        "0",
        &[Role::Tablet],
        "MiB that the indexes of a tablet may take; beyond, puts are refused until there is room again; 0: no limit",
    ),
    flag(
        "log",
        Kind::Text,
        "info,openraft=off",
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
        SEEKERS,
        "ms to wait for a leading nameserver at the start",
    ),
    flag(
        "preview_default_limit",
        Kind::Number,
        "100",
        NS_CLIENT,
        "rows that preview shows if nothing is said",
    ),
    flag(
        "preview_limit_max_num",
        Kind::Number,
        "1000",
        NS_CLIENT,
        "rows that preview shows at most",
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
];
