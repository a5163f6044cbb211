//! What the drills share: a cluster under load, faults that are noted, and the verdict.
//!
//! Every verdict includes: the checkers find nothing wrong with the history (see [`check`]), no server panicked, and when everything is healed every partition is whole within a
//! minute. With less than [`ENOUGH`] acknowledged writes a second it is UNKNOWN.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use stela_common::client::Client;
use stela_common::table::Options;

use super::gaps::Gaps;
use super::promise::Promise;
use super::{Outcome, Plan};
use crate::check;
use crate::cluster::{Cluster, Setup};
use crate::history::{History, Stored};
use crate::workload::{Load, Parties, Place, await_whole, create, leaders, read_back};

/// Fewer acknowledged writes per second than this, and a drill has shown nothing.
pub const ENOUGH: f64 = 500.0;
/// The tables that are worked on, each with so many partitions on all tablets.
pub const TABLES: [&str; 2] = ["left", "right"];
/// Of each of them.
pub const PARTITIONS: u32 = 8;
/// When everything is healed, every partition is whole within this.
const WHOLE: Duration = Duration::from_secs(60);

/// A cluster under load.
pub struct Stage {
    /// The servers.
    pub cluster: Cluster,
    /// Of the first group, which no fault cuts off.
    pub client: Client,
    /// What is asked and answered.
    pub history: History,
    /// The writers and readers.
    pub load: Load,
    /// All that is random in the drill.
    pub random: StdRng,
    began: Instant,
    /// See [`Plan::times`].
    times: bool,
    /// Time in which writes could not be expected to go on.
    idle: Duration,
}

/// What a drill asks for.
#[derive(Clone, Debug, Default)]
pub struct Scene {
    /// The cluster.
    pub setup: Setup,
    /// Writers and readers.
    pub parties: Parties,
    /// The tables' options.
    pub options: Options,
    /// The second half of the writers and readers is of a group of its own.
    pub two_groups: bool,
}

impl Stage {
    /// Starts the cluster, makes the tables, and lets the load begin.
    ///
    /// # Errors
    /// The cluster does not come up.
    pub async fn begin(plan: Plan, scene: Scene) -> Result<Self> {
        let history = plan.history()?;
        let cluster = Cluster::start(&scene.setup).await?;
        let client = cluster.client().await?;
        let replicas = u32::try_from(scene.setup.tablets.min(3))?;
        for table in TABLES {
            create(&client, table, PARTITIONS, replicas, scene.options).await?;
        }
        await_whole(&client, WHOLE).await?;
        let far = cluster.client_of(1, Duration::from_secs(30)).await?;
        let clients: &[&Client] = if scene.two_groups { &[&client, &far] } else { &[&client] };
        let load = Load::start(&history, clients, &TABLES, scene.parties).await?;
        load.await_acked(500).await?;
        let random = StdRng::seed_from_u64(plan.seed);
        let began = Instant::now();
        Ok(Self {
            cluster,
            client,
            history,
            load,
            random,
            began,
            times: plan.times,
            idle: Duration::ZERO,
        })
    }

    /// How long the load has gone on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// The tablet that leads most, and what it leads.
    ///
    /// # Errors
    /// The tables cannot be shown.
    pub async fn busiest(&self) -> Result<(usize, BTreeSet<Place>)> {
        let mut led: Vec<(usize, BTreeSet<Place>)> = Vec::new();
        for (table, name) in TABLES.iter().enumerate() {
            for (endpoint, pids) in leaders(&self.client, name).await? {
                let at = self.cluster.find(&endpoint).context("a tablet that is not ours")?;
                let places = pids.into_iter().map(|pid| (table, pid));
                match led.iter_mut().find(|(server, _)| *server == at) {
                    Some((_, known)) => known.extend(places),
                    None => led.push((at, places.collect())),
                }
            }
        }
        led.into_iter().max_by_key(|(_, places)| places.len()).context("nobody leads")
    }

    /// The nameserver that leads.
    ///
    /// # Errors
    /// None does.
    pub async fn leading_nameserver(&self) -> Result<usize> {
        let leader = self.client.leader().await?;
        self.cluster.find(&leader).context("a nameserver that is not ours")
    }

    /// Waits until each of these partitions has acknowledged a write after `at`, and adds how long it had not.
    ///
    /// # Errors
    /// One has not for a minute.
    pub async fn await_gaps(
        &mut self,
        places: &BTreeSet<Place>,
        at: Instant,
        cause: &str,
        gaps: &mut Gaps,
    ) -> Result<Duration> {
        self.history.note(cause);
        let mut longest = Duration::ZERO;
        for place in places {
            let gap = loop {
                if let Some(gap) = self.load.tally.lock().gap(*place, at) {
                    break gap;
                }
                ensure!(at.elapsed() < WHOLE, "{place:?} takes no writes again: {cause}");
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            gaps.add(gap, format!("partition {} of '{}', {cause}", place.1, TABLES[place.0]));
            longest = longest.max(gap);
        }
        Ok(longest)
    }

    /// Waits until every partition is whole. Tells how long that took.
    ///
    /// # Errors
    /// One is not within a minute.
    pub async fn await_whole(&self) -> Result<Duration> {
        await_whole(&self.client, WHOLE).await
    }

    /// A time in which nobody expects writes to go on.
    pub fn excuse(&mut self, time: Duration) {
        self.idle += time;
    }

    /// Heals everything, ends the load, reads everything back, and judges. `enough`: were there as many faults as the drill
    /// is about?
    ///
    /// # Errors
    /// The harness failed.
    pub async fn conclude(mut self, promises: &[Promise], enough: bool) -> Result<Outcome> {
        let healed = Instant::now();
        let whole = match self.cluster.heal().await {
            Ok(()) => await_whole(&self.client, WHOLE).await,
            Err(e) => Err(e),
        };
        println!(
            "healed: {}",
            match &whole {
                Ok(_) => format!("every partition is whole after {:.3?}", healed.elapsed()),
                Err(e) => format!("{e:#}"),
            }
        );
        let (tally, elapsed) = self.load.finish().await;
        let healed = Promise::new(format!("whole within {WHOLE:?} of the healing"), whole.is_ok());
        let busy = elapsed.saturating_sub(self.idle);
        let rate = tally.count as f64 / busy.as_secs_f64().max(0.001);
        println!("{} rows acknowledged in {busy:.1?}, {rate:.0}/s", tally.count);
        show("write", &tally.errors);
        show("read", &tally.unread);
        if whole.is_ok() {
            // The last acknowledgements are with every replica when it is whole again.
            await_whole(&self.client, WHOLE).await?;
            read_back(&self.client, &TABLES, &tally, &self.history).await?;
        }
        self.history.finish()?;
        let mut outcome = if rate < ENOUGH || !enough { Outcome::Unknown } else { Outcome::Pass };
        for found in check::all(&Stored::read(self.history.path())?) {
            println!("{found}");
            outcome = outcome.max(found.outcome);
        }
        for promise in promises.iter().chain([&healed]) {
            println!("{promise}");
            if promise.broken(self.times) {
                outcome = Outcome::Fail;
            }
        }
        let panics = self.cluster.panics();
        panics.iter().for_each(|panic| println!("  {panic}"));
        if !panics.is_empty() {
            outcome = Outcome::Fail;
        }
        println!("the history is kept in {}", self.history.path().display());
        if outcome == Outcome::Fail {
            println!(
                "the servers' directories and output are in {}",
                self.cluster.keep().display()
            );
        }
        Ok(outcome)
    }
}

fn show(what: &str, errors: &std::collections::BTreeMap<String, usize>) {
    for (error, times) in errors.iter().take(10) {
        println!("  {times} x {what}: {error}");
    }
}
