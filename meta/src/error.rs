//! Why a nameserver does not start: one line each that names the cause and the cure.

use std::path::PathBuf;

use stela_common::fs::LockError;

/// Why a nameserver does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting.
    #[error("{0}")]
    Config(String),
    /// The own endpoint is not in the list.
    #[error(
        "--nameservers={list} does not name this server's own --endpoint={endpoint}; add it to the list, or correct the endpoint"
    )]
    NotInList {
        /// The own endpoint.
        endpoint: String,
        /// The list.
        list: String,
    },
    /// The port cannot be had.
    #[error(
        "cannot listen on {endpoint}: {source}; stop what uses the port (ss -ltnp shows it) or give another --endpoint"
    )]
    Listen {
        /// The endpoint.
        endpoint: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The directory belongs to another cluster, node or kind of server.
    #[error("directory {} belongs to {owner}, not to {own}; give this server its own --db_root_path, or correct {flag}", dir.display())]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who we are.
        own: String,
        /// The flag that may be wrong.
        flag: &'static str,
    },
    /// The directory holds something that no nameserver put there.
    #[error("directory {} is not empty and not a nameserver's (it has {}); give an empty one, or correct --db_root_path", dir.display(), file.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// What is there.
        file: PathBuf,
    },
    /// A nameserver of the list answers for another cluster.
    #[error(
        "nameserver {endpoint} answers for cluster '{theirs}', this server was told '{ours}'; correct --nameservers or --cluster"
    )]
    OtherCluster {
        /// Who answered.
        endpoint: String,
        /// Its cluster.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// Written by a newer version.
    #[error("{} has format {found}, this version reads up to {known}; start it with the version that wrote it, or a newer one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// Something in the directory cannot be trusted.
    #[error("{}: {what}; move the directory away and start again: the nameserver then waits to be added to its group", dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The segment log.
    #[error("{0}")]
    Log(String),
    /// The disk refused.
    #[error("{}: {source}; check the disk and the owner of the directory", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Raft itself does not start or has died.
    #[error("the raft group of {} does not run: {what}; see the log of this server, restart it, and replace its directory if that does not help", dir.display())]
    Raft {
        /// The directory.
        dir: PathBuf,
        /// What it said.
        what: String,
    },
}

impl StartError {
    /// An I/O error at a path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
