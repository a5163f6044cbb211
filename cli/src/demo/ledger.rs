//! What the writers were told: every row that was acknowledged, and every row of which it is not known.
//!
//! Invariant: a metric and a time name one row, and the rows of a metric are noted in growing order of time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use stela_common::client::WriteError;

use super::turns::Acks;

/// The rows of one metric: time (ms) and value.
#[derive(Clone, Default, Debug)]
pub(super) struct Series {
    /// They must be there.
    pub(super) acked: Vec<(u64, f64)>,
    /// They may be there.
    pub(super) open: Vec<(u64, f64)>,
    /// Every row up to this time has been noted.
    pub(super) until: u64,
}

/// All of it.
#[derive(Clone, Default, Debug)]
pub(super) struct Ledger {
    /// By metric.
    pub(super) series: BTreeMap<String, Series>,
    /// By partition.
    pub(super) partitions: Vec<Acks>,
    /// Acknowledged rows.
    pub(super) acked: u64,
    /// Rows of which it is not known.
    pub(super) open: u64,
    /// What was said of rows that were not acknowledged, and how often.
    pub(super) troubles: BTreeMap<String, u64>,
}

/// The ledger that all writers keep together.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Ledger>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ledger {
    /// A ledger of so many partitions.
    pub(super) fn of(partitions: u32) -> Shared {
        let ledger =
            Self { partitions: vec![Acks::default(); partitions as usize], ..Self::default() };
        Shared(Arc::new(Mutex::new(ledger)))
    }

    pub(super) fn acknowledged(
        &mut self,
        metric: &str,
        row: (u64, f64),
        pid: u32,
        epoch: u64,
        at: Instant,
    ) {
        let series = self.series(metric, row.0);
        series.acked.push(row);
        self.acked += 1;
        if let Some(acks) = self.partitions.get_mut(pid as usize) {
            acks.note(epoch, at);
        }
    }

    pub(super) fn failed(&mut self, metric: &str, row: (u64, f64), error: &WriteError) {
        let series = self.series(metric, row.0);
        if matches!(error, WriteError::Unknown(_)) {
            series.open.push(row);
            self.open += 1;
        }
        *self.troubles.entry(error.to_string()).or_default() += 1;
    }

    /// Pauses are measured from now on.
    pub(super) fn measure(&mut self) {
        self.partitions.iter_mut().for_each(Acks::measure);
    }

    /// How many metrics there are of each family, the part of the name before the first dot.
    pub(super) fn families(&self) -> Vec<(String, u64)> {
        let mut families: BTreeMap<&str, u64> = BTreeMap::new();
        for metric in self.series.keys() {
            *families.entry(metric.split('.').next().unwrap_or(metric)).or_default() += 1;
        }
        families.into_iter().map(|(family, n)| (family.to_owned(), n)).collect()
    }

    fn series(&mut self, metric: &str, time: u64) -> &mut Series {
        let series = self.series.entry(metric.to_owned()).or_default();
        series.until = series.until.max(time);
        series
    }
}
