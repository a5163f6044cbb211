//! What the nameserver that leads does beside the log: it hears the tablets, gives them leases, judges who is there,
//! and takes the next safe steps.
//!
//! ```text
//! tablet ==heartbeats==> attend --signs, reports--> Soft --observed--> plan --commands--> group
//!        <=news, lease== (R17: only after a confirm)   ^---probe (R18)                     |
//!                          ^----------------------- applied ------------------------------+
//! ```
//!
//! * `reign`: from taking over to being deposed; the planning passes.
//! * [`attend`]: one heartbeat stream. [`tell`]: what a tablet is told on it.
//! * `execute`: operations that are calls to tablets.
//! * [`soft`]: what is known beside the state, and the plan. [`judge`]: who is there. [`guard`]: whether it is they who are
//!   silent (R19). [`trials`]: who does not come to serve (R23). All are decisions over values, with the time as an input.
//!
//! **Invariants**
//! * Nothing is judged, told or granted but in a *reign*: after this nameserver has committed its controller epoch, and
//!   until it learns that it is deposed or has a proposal whose outcome is unknown.
//! * A decision is made on a state that was confirmed after the pass began, and its outcome is known before the next one.

pub mod attend;
mod execute;
pub mod guard;
pub mod judge;
mod reign;
pub mod soft;
pub(crate) mod steps;
pub mod tell;
pub mod trials;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use stela_common::clock::Millis;
use stela_common::ids::{Incarnation, PartitionKey, TabletId};
use stela_meta_state::plan::Report;
use stela_meta_state::state::State;
use tokio::sync::watch;

use self::judge::{StreamId, Timing};
use self::soft::Soft;
use crate::config::Config;
use crate::group::Group;
use crate::probe::{self, Probes};

/// How often the time is looked at.
pub const PULSE: Duration = Duration::from_millis(100);
/// A removal waits no longer than this for the verdict on whom it removes.
const VERDICT: Duration = Duration::from_millis(400);

/// A time in which this nameserver controls the tablets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reign {
    /// Its controller epoch (R20).
    pub epoch: u64,
}

/// The control loops of this nameserver, and what they know.
pub struct Control {
    group: Group,
    timing: Timing,
    soft: Mutex<Soft>,
    reign: watch::Sender<Option<Reign>>,
    /// Told when there is something new for the planner.
    signs: watch::Sender<()>,
    /// Told when there are orders for tablets.
    orders: watch::Sender<()>,
    probes: Probes,
    calls: execute::Calls,
    streams: AtomicU64,
}

impl Control {
    /// Starts the loops; they end with the group.
    #[must_use]
    pub fn start(group: Group, config: &Config) -> Arc<Self> {
        let timing = Timing { lease: config.lease_ms, heartbeat: config.heartbeat_ms };
        let this = Arc::new(Self {
            group,
            timing,
            soft: Mutex::new(Soft::new(timing, Millis::now())),
            reign: watch::Sender::new(None),
            signs: watch::Sender::new(()),
            orders: watch::Sender::new(()),
            probes: Probes::default(),
            calls: execute::Calls::default(),
            streams: AtomicU64::new(0),
        });
        tokio::spawn(reign::run(this.clone()));
        this
    }

    /// The present reign; `None`: this nameserver does not control.
    #[must_use]
    pub fn reign(&self) -> watch::Receiver<Option<Reign>> {
        self.reign.subscribe()
    }

    /// A run is registered; its inventory is its first report.
    pub fn registered(
        &self,
        tablet: TabletId,
        run: Incarnation,
        inventory: impl IntoIterator<Item = (PartitionKey, Report)>,
    ) {
        self.note(|soft, state| {
            // Unless its successor has registered meanwhile.
            if state.tablets.get(&tablet).is_some_and(|t| t.incarnation == run) {
                soft.judge.registered(tablet, run, Millis::now());
                soft.report(state, tablet, inventory);
            }
        });
        self.signs.send_replace(());
    }

    /// Looks at what is known beside the state, and at the state.
    pub fn look<T>(&self, look: impl FnOnce(&Soft, &State) -> T) -> T {
        self.note(|soft, state| look(soft, state))
    }

    /// A leader wants to remove these tablets from a set. If one of them has died, that is to be on record before the
    /// proposal is judged: a leader is not refused for removing the dead (R20b), and the elections come first. So they
    /// are looked at now; this returns when the matter is settled, or has taken too long.
    pub async fn settle(&self, removed: &[TabletId]) {
        if self.reign.borrow().is_none() {
            return;
        }
        let settled = removed.iter().copied().filter_map(|tablet| {
            let (endpoint, run) = self.healthy(tablet)?;
            Some(async move {
                if self.probes.look(endpoint, run).await == probe::Found::Gone {
                    self.await_offline(tablet).await;
                }
            })
        });
        let settled = futures::future::join_all(settled);
        if tokio::time::timeout(VERDICT, settled).await.is_err() {
            tracing::debug!(?removed, "no verdict yet on tablets that a leader removes");
        }
    }

    /// Its process is gone: the end of its stream will be noticed, and the planner will say so.
    async fn await_offline(&self, tablet: TabletId) {
        let mut applied = self.group.store().watch();
        while self.healthy(tablet).is_some() && applied.changed().await.is_ok() {}
    }

    /// Address and run of a tablet that is healthy as far as the state knows.
    fn healthy(&self, tablet: TabletId) -> Option<(String, Incarnation)> {
        self.group.store().read(|state| {
            let it = state.tablets.get(&tablet).filter(|t| t.healthy)?;
            Some((it.endpoint.clone(), it.incarnation))
        })
    }

    /// Begins with nothing.
    fn forget(&self) {
        *self.soft.lock() = Soft::new(self.timing, Millis::now());
    }

    fn endpoint_of(&self, tablet: TabletId) -> String {
        self.group.store().read(|state| {
            state.tablets.get(&tablet).map(|t| t.endpoint.clone()).unwrap_or_default()
        })
    }

    fn note<T>(&self, note: impl FnOnce(&mut Soft, &State) -> T) -> T {
        // Always in this order: the soft state, then the state.
        let mut soft = self.soft.lock();
        self.group.store().read(|state| note(&mut soft, state))
    }

    fn next_stream(&self) -> StreamId {
        StreamId(self.streams.fetch_add(1, Ordering::Relaxed))
    }

    /// Looks, at once, whether a run whose stream ended is still there (R18); not of one that is judged already.
    fn suspect(self: &Arc<Self>, tablet: TabletId, run: Incarnation) {
        let Some((endpoint, _)) = self.healthy(tablet).filter(|(_, registered)| *registered == run)
        else {
            return;
        };
        let (this, begun) = (self.clone(), Millis::now());
        tokio::spawn(async move {
            if probe::probe(&endpoint, run).await == probe::Found::Gone {
                this.soft.lock().judge.refused(tablet, run, begun);
                this.signs.send_replace(());
            }
        });
    }

    /// R19: is it they who are silent, or does this nameserver not hear? A quorum is asked for, and one other nameserver
    /// whether it reaches any of them.
    fn ask_another(self: &Arc<Self>, missing: BTreeSet<TabletId>) {
        let this = self.clone();
        tokio::spawn(async move {
            tracing::warn!(
                tablets = missing.len(),
                "many tablets are silent: another nameserver is asked"
            );
            if this.group.confirm().await.is_ok()
                && this.group.reached_by_another(&missing).await == Some(false)
            {
                this.soft.lock().guard.unreachable(&missing);
                this.signs.send_replace(());
            }
        });
    }
}
