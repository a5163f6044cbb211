//! The client: routing, redirects, retries with the same request id, and one pipelined session stream per tablet.
//!
//! ```text
//! caller --put--> write (R32 ids, R33 split) --+
//! caller --get--> read ------------------------+-> attempts -> link (queue) ==frames==> tablet
//! caller --admin-> nameservers                 |                  one thread: driver
//!                      ^------- refresh -------+-> routing
//! ```
//!
//! Invariants:
//! * An acknowledged write is one that a leader acknowledged. A write is repeated under the same request id until its
//!   outcome is known or the timeout is over; a retry never applies it twice (R32).
//! * [`WriteError::Refused`] is said only of a write of which nothing was applied; in doubt it is
//!   [`WriteError::Unknown`].
//! * Whatever waits is bounded: 64 unanswered writes per partition, 64 MiB in flight, and the timeout for each request.
//!
//! It does no disk I/O and takes no lock across an `await`.

mod admin;
mod attempts;
mod delete;
mod driver;
mod error;
mod link;
mod nameservers;
mod read;
mod routing;
mod session;
mod table;
mod write;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use self::admin::{Admin, TableOptions};
pub use self::delete::Deletion;
pub use self::error::{ConnectError, WriteError};
pub use self::read::{Filter, Get, Range, ReadFrom, Scanned, TimeMatch, Traversed};
pub use self::table::{Row, TableHandle};
pub use self::write::{PutOutcome, Stored};

use self::driver::Driver;
use self::nameservers::Nameservers;
use self::routing::Routes;
use crate::code::{Code, Refusal};
use crate::table::Table;

/// How to reach a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Nameservers, `host:port`; one that answers is enough.
    pub nameservers: Vec<String>,
    /// The cluster that is meant; `None`: the one that answers.
    pub cluster: Option<String>,
    /// How long a request is tried (`request_timeout_ms`).
    pub timeout: Duration,
    /// The address of this machine that connections come from; `None`: the system chooses.
    pub source: Option<IpAddr>,
}

impl Options {
    /// The cluster behind these nameservers, with the default timeout of 20 s.
    #[must_use]
    pub fn new(nameservers: Vec<String>) -> Self {
        Self { nameservers, cluster: None, timeout: Duration::from_secs(20), source: None }
    }
}

/// A connection to a cluster. Clones share everything: connections, request ids, routes.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    driver: Arc<Driver>,
    nameservers: Nameservers,
    timeout: Duration,
    /// Names this client in metadata writes.
    id: u64,
    /// The number of the last metadata write.
    writes: tokio::sync::Mutex<u64>,
    /// Open tables: one handle each, so that there is one session per partition.
    tables: Mutex<HashMap<u32, Arc<TableHandle>>>,
}

impl Client {
    /// Finds a nameserver that answers, within two seconds.
    ///
    /// # Errors
    /// None answers, or one answers for another cluster.
    pub async fn connect(options: Options) -> Result<Self, ConnectError> {
        let no_thread = |e: std::io::Error| ConnectError::NoAnswer {
            tried: options.nameservers.clone(),
            last: format!("cannot start the client's thread: {e}"),
        };
        let driver = Arc::new(Driver::start(options.source).map_err(no_thread)?);
        let nameservers =
            Nameservers::connect(driver.clone(), &options.nameservers, options.cluster.as_deref())
                .await?;
        Ok(Self(Arc::new(Shared {
            driver,
            nameservers,
            timeout: options.timeout,
            id: rand::random_range(1..=u64::MAX),
            writes: tokio::sync::Mutex::new(0),
            tables: Mutex::default(),
        })))
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> String {
        self.0.driver.cluster().to_owned()
    }

    /// The endpoint of the leading nameserver, once there is one.
    ///
    /// # Errors
    /// There is none within the timeout, or no nameserver answers.
    pub async fn leader(&self) -> Result<String, Refusal> {
        let deadline = Instant::now() + self.0.timeout;
        for tries in 0.. {
            let reply = self.admin().cluster().await?;
            self.0.nameservers.learn(&reply);
            if !reply.leader.is_empty() {
                return Ok(reply.leader);
            }
            let pause = attempts::backoff(tries);
            if Instant::now() + pause >= deadline {
                break;
            }
            self.0.driver.sleep(pause).await;
        }
        Err(Refusal::new(Code::NotLeader, "no nameserver leads: a majority of them must be up"))
    }

    /// The commands that go to the nameservers.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin(self.0.clone())
    }

    /// Opens a table: its schema, and where its partitions are led.
    ///
    /// # Errors
    /// There is none of that name, or no nameserver answers.
    pub async fn table(&self, db: &str, name: &str) -> Result<Arc<TableHandle>, Refusal> {
        let reply = self.admin().show_table(db, name, false).await?;
        let ours = |t: &stela_proto::common::Table| t.db == db && t.name == name;
        let Some(row) = reply.tables.iter().find(|row| row.table.as_ref().is_some_and(ours)) else {
            return Err(Refusal::new(Code::TableNotFound, format!("table {name} does not exist")));
        };
        let table = Table::try_from(row.table.as_ref().ok_or(crate::wire::Malformed("table"))?)?;
        let mut tables = self.0.tables.lock();
        if let Some(open) = tables.get(&table.tid.0).filter(|open| *open.table() == table) {
            open.routes.update(&self.0.driver, &row.partitions);
            return Ok(open.clone());
        }
        let routes = Routes::new(&self.0.driver, row, &table);
        let open = Arc::new(TableHandle::new(table, routes));
        tables.insert(open.tid(), open.clone());
        Ok(open)
    }

    /// The runtime of the client's thread. Callers that want the last bit of speed run their tasks there, beside the
    /// connections; they must never block it.
    #[must_use]
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.0.driver.handle().clone()
    }
}
