//! What a tablet tells of its replicas: all of them when it registers (R14), what has changed with each heartbeat.

use stela_common::ids::PartitionKey;
use stela_proto::heartbeat as pb;

use crate::node::Inner;

impl Inner {
    /// What is on disk, for registration.
    pub fn inventory(&self) -> Vec<pb::Inventory> {
        let known = self.partitions.iter().map(|(key, p)| {
            let (last, epoch) = (p.last(), p.epochs.epoch_at(p.last()));
            let created = p.store.table().created_index;
            (*key, last, epoch, p.quarantine.is_some(), created, p.loading.is_some())
        });
        let orphans = self.orphans.iter().map(|(key, l)| {
            (*key, l.last, l.epochs.epoch_at(l.last), l.damage.is_some(), 0, false)
        });
        known
            .chain(orphans)
            .map(|(key, last, epoch, damaged, created_index, loading)| pb::Inventory {
                tid: key.tid.0,
                pid: key.pid.0,
                last_epoch: epoch.0,
                last_offset: last.0,
                damaged,
                created_index,
                loading,
            })
            .collect()
    }

    /// A new nameserver has no reports yet.
    pub fn forget_reports(&mut self) {
        let keys: Vec<PartitionKey> = self.partitions.keys().copied().collect();
        for key in keys {
            if let Some(p) = self.partitions.get_mut(&key) {
                p.reported = None;
            }
            self.touch(key);
        }
    }

    /// Reports that differ from the last ones.
    pub fn reports(&mut self) -> Vec<pb::ReplicaReport> {
        let mut reports = Vec::new();
        for key in std::mem::take(&mut self.unreported) {
            let Some(p) = self.partitions.get_mut(&key) else { continue };
            p.unreported = false;
            let last = p.last();
            let damaged = p.quarantine.is_some();
            // While its log refuses writes it can store no epoch (R2): whoever elects passes it over, as if it were
            // damaged, or it would be elected again and again.
            let quarantined = damaged || p.suspended.is_some();
            let serving = p.core.serving() && p.suspended.is_none();
            let start = p
                .served
                .filter(|(epoch, _)| serving && *epoch == p.core.epoch())
                .map(|(_, start)| start.0);
            let report = pb::ReplicaReport {
                tid: key.tid.0,
                pid: key.pid.0,
                epoch: p.core.epoch().0,
                serving,
                leading: p.core.leads(),
                offset: last.0,
                commit: if damaged { 0 } else { p.applied.0 },
                record_cnt: p.store.records(),
                key_cnt: p.store.keys(),
                loading: p.loading.is_some(),
                memory: p.store.memory(),
                disk: p.store.disk(),
                quarantined,
                last_epoch: p.epochs.epoch_at(last).0,
                epoch_start: start,
                waits_for_others: p.core.waits_for_others() && p.suspended.is_none(),
                surrendered: p.core.surrendered().unwrap_or_default().0,
            };
            if p.reported.as_ref() != Some(&report) {
                p.reported = Some(report);
                reports.push(report);
            }
        }
        reports
    }
}
