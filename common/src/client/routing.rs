//! Where the partitions of a table are led.
//!
//! Invariants:
//! * What is known of a partition never goes back to an earlier epoch.
//! * At most one refresh per table is under way, whoever wants it. It runs on the driver: callers wait for a change or
//!   for their own pause, never for a nameserver.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use stela_proto::nameserver as pb;
use tokio::sync::watch;

use super::Shared;
use super::driver::Driver;
use super::link::Link;
use crate::code::{Code, Refusal};
use crate::table::Table;

/// A refresh that was asked for is repeated until then.
const REFRESH: Duration = Duration::from_secs(3);

/// How often that is asked while an index is being filled, at most.
const WHILE_FILLING: Duration = Duration::from_secs(2);

/// What is known of one partition.
#[derive(Clone, Default)]
pub(super) struct Route {
    /// Who leads, as far as known.
    pub(super) leader: Option<Arc<Link>>,
    /// In which epoch; 0: not known.
    pub(super) epoch: u64,
    /// Where its replicas are.
    pub(super) replicas: Vec<Arc<Link>>,
}

/// What is known of a table's partitions.
pub(super) struct Routes {
    db: String,
    name: String,
    tid: u32,
    routes: Mutex<Vec<Route>>,
    /// The newest definition that was told.
    definition: Mutex<Arc<Table>>,
    /// When it was last asked for.
    asked: Mutex<Instant>,
    /// The last refresh's failure: the table is gone, or no nameserver answered.
    trouble: Mutex<Option<Refusal>>,
    refreshing: AtomicBool,
    changed: watch::Sender<u64>,
}

impl Routes {
    pub(super) fn new(driver: &Driver, row: &pb::TableRow, table: &Table) -> Self {
        let routes = Self {
            db: table.db.clone(),
            name: table.name.clone(),
            tid: table.tid.0,
            routes: Mutex::new(vec![Route::default(); table.partition_num as usize]),
            definition: Mutex::new(Arc::new(table.clone())),
            asked: Mutex::new(Instant::now()),
            trouble: Mutex::new(None),
            refreshing: AtomicBool::new(false),
            changed: watch::Sender::new(0),
        };
        routes.update(driver, &row.partitions);
        routes
    }

    /// What is known of a partition.
    pub(super) fn of(&self, pid: u32) -> Route {
        self.routes.lock().get(pid as usize).cloned().unwrap_or_default()
    }

    /// The newest definition that was told.
    pub(super) fn definition(&self) -> Arc<Table> {
        self.definition.lock().clone()
    }

    /// While an index is being filled: whether that has ended is asked for now and then.
    pub(super) fn watch_filling(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.asked.lock().elapsed() > WHILE_FILLING {
            self.refresh(shared);
        }
    }

    /// The last refresh's failure.
    pub(super) fn trouble(&self) -> Option<Refusal> {
        self.trouble.lock().clone()
    }

    /// Tells of each change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes over what a nameserver says.
    pub(super) fn update(&self, driver: &Driver, rows: &[pb::PartitionRow]) {
        let mut changed = false;
        let mut routes = self.routes.lock();
        for row in rows {
            let Some(route) = routes.get_mut(row.pid as usize) else { continue };
            if row.epoch < route.epoch {
                continue;
            }
            // A dead leader keeps the role until it is back in sync: the real one is alive.
            let leader =
                row.replicas.iter().find(|r| r.leader && r.alive).map(|r| driver.link(&r.endpoint));
            let same = |a: &Arc<Link>, b: &Option<Arc<Link>>| {
                b.as_ref().is_some_and(|b| Arc::ptr_eq(a, b))
            };
            changed |=
                row.epoch > route.epoch || leader.as_ref().is_some_and(|l| !same(l, &route.leader));
            route.replicas = row.replicas.iter().map(|r| driver.link(&r.endpoint)).collect();
            route.epoch = row.epoch;
            route.leader = leader.or(route.leader.take());
        }
        drop(routes);
        if changed {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    /// Takes over what a tablet says; `true` if that is news.
    pub(super) fn hint(&self, driver: &Driver, pid: u32, leader: &str, epoch: u64) -> bool {
        let mut routes = self.routes.lock();
        let Some(route) = routes.get_mut(pid as usize) else { return false };
        if epoch < route.epoch {
            return false;
        }
        let mut news = epoch > route.epoch;
        route.epoch = epoch;
        if !leader.is_empty() && route.leader.as_ref().is_none_or(|l| l.endpoint() != leader) {
            route.leader = Some(driver.link(leader));
            news = true;
        }
        drop(routes);
        if news {
            self.changed.send_modify(|n| *n += 1);
        }
        news
    }

    /// Asks the nameservers, unless somebody does already.
    pub(super) fn refresh(self: &Arc<Self>, shared: &Arc<Shared>) {
        if self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        *self.asked.lock() = Instant::now();
        let (this, shared) = (self.clone(), shared.clone());
        shared.driver.clone().handle().spawn(async move {
            let done = Done(&this.refreshing);
            let result = this.fetch(&shared).await;
            match &result {
                Ok(partitions) => this.update(&shared.driver, partitions),
                // Whoever waits learns of it at once.
                Err(e) if e.code == Code::TableNotFound => this.changed.send_modify(|n| *n += 1),
                Err(_) => {}
            }
            *this.trouble.lock() = result.err();
            drop(done);
        });
    }

    fn learn(&self, table: Table) {
        let mut definition = self.definition.lock();
        let newer = table.version() > definition.version();
        if table.version() >= definition.version() && **definition != table {
            *definition = Arc::new(table);
        }
        drop(definition);
        if newer {
            self.changed.send_modify(|n| *n += 1);
        }
    }

    async fn fetch(&self, shared: &Shared) -> Result<Vec<pb::PartitionRow>, Refusal> {
        let request = pb::ShowTableRequest {
            db: self.db.clone(),
            name: self.name.clone(),
            all_databases: false,
        };
        let deadline = Instant::now() + REFRESH;
        let reply: pb::ShowTableReply = shared
            .nameservers
            .ask(false, deadline, |mut c| {
                let request = request.clone();
                async move { c.show_table(request).await }
            })
            .await?;
        let ours = |row: &pb::TableRow| row.table.as_ref().is_some_and(|t| t.tid == self.tid);
        match reply.tables.into_iter().find(ours) {
            Some(row) => {
                if let Some(Ok(table)) = row.table.as_ref().map(Table::try_from) {
                    self.learn(table);
                }
                Ok(row.partitions)
            }
            None => Err(Refusal::new(
                Code::TableNotFound,
                format!("table {} does not exist any more", self.name),
            )),
        }
    }
}

/// Clears the mark also when the task is dropped.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
