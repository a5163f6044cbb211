//! What a tablet is to fetch: at most one snapshot for each partition, as its core said last.
//!
//! A leader repeats that a snapshot is needed as long as it is (about twice a second), so nothing here has a timer: an
//! attempt that failed is followed by the next one when the core says so again and the pause is over.

use std::collections::BTreeMap;

use stela_common::clock::Millis;
use stela_common::ids::{Incarnation, Offset, PartitionKey, TabletId};

/// From a failed attempt to the next, ms: at first, and at most.
const PAUSE: (u64, u64) = (500, 30_000);
/// What was not asked for again for so long is not needed any more, ms.
const STALE: u64 = 10_000;

/// A snapshot that a core wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Want {
    /// The leader that has it.
    pub peer: TabletId,
    /// Which run.
    pub incarnation: Incarnation,
    /// Up to where its log and the one here are equal.
    pub common: Offset,
    /// What the snapshot has to reach at least.
    pub offset: Offset,
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes that are here.
    pub done: u64,
    /// Bytes in all; 0: not known yet.
    pub total: u64,
}

/// One partition's.
struct Job {
    want: Want,
    asked: Millis,
    /// An attempt is under way.
    running: bool,
    /// It was asked for since the last attempt began.
    due: bool,
    not_before: Millis,
    pause: u64,
    progress: Progress,
}

/// All of them.
#[derive(Default)]
pub(super) struct Jobs(BTreeMap<PartitionKey, Job>);

impl Jobs {
    pub(super) fn want(&mut self, key: PartitionKey, want: Want, now: Millis) {
        let job = self.0.entry(key).or_insert(Job {
            want,
            asked: now,
            running: false,
            due: true,
            not_before: now,
            pause: PAUSE.0,
            progress: Progress::default(),
        });
        (job.want, job.asked, job.due) = (want, now, true);
    }

    /// An attempt that is to begin, at most so many at once.
    pub(super) fn begin(&mut self, at_once: usize, now: Millis) -> Option<(PartitionKey, Want)> {
        if self.0.values().filter(|j| j.running).count() >= at_once {
            return None;
        }
        let is_due = |job: &Job| job.due && !job.running && job.not_before <= now;
        // Whoever failed last comes last.
        let jobs = self.0.iter_mut().filter(|(_, job)| is_due(job));
        let (key, job) = jobs.min_by_key(|(_, job)| job.not_before)?;
        (job.running, job.due) = (true, false);
        Some((*key, job.want))
    }

    /// Is it still wanted?
    pub(super) fn is_wanted(&self, key: PartitionKey, now: Millis) -> bool {
        self.0.get(&key).is_some_and(|job| now.since(job.asked) < STALE)
    }

    /// So much is here.
    pub(super) fn advanced(&mut self, key: PartitionKey, progress: Progress) {
        if let Some(job) = self.0.get_mut(&key) {
            if progress.done > job.progress.done && job.progress.total == progress.total {
                job.pause = PAUSE.0;
            }
            job.progress = progress;
        }
    }

    /// The attempt failed. Returns for how long nothing is tried, ms.
    pub(super) fn failed(&mut self, key: PartitionKey, now: Millis) -> u64 {
        let Some(job) = self.0.get_mut(&key) else { return 0 };
        let pause = job.pause;
        job.running = false;
        job.not_before = now.plus(pause);
        job.pause = (pause * 2).min(PAUSE.1);
        pause
    }

    /// It is done, or over.
    pub(super) fn done(&mut self, key: PartitionKey) {
        self.0.remove(&key);
    }

    pub(super) fn progress(&self, key: PartitionKey) -> Option<Progress> {
        self.0.get(&key).filter(|job| job.running).map(|job| job.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: PartitionKey = PartitionKey::new(7, 0);

    fn want(offset: u64) -> Want {
        let (peer, incarnation) = (TabletId(1), Incarnation(9));
        Want { peer, incarnation, common: Offset(0), offset: Offset(offset) }
    }

    #[test]
    fn an_attempt_follows_when_it_is_asked_for_again_and_the_pause_is_over() {
        let mut jobs = Jobs::default();
        jobs.want(KEY, want(1), Millis(0));
        assert_eq!(jobs.begin(2, Millis(0)), Some((KEY, want(1))));
        jobs.want(KEY, want(2), Millis(10));
        assert_eq!(jobs.begin(2, Millis(10)), None, "it runs");
        assert_eq!(jobs.failed(KEY, Millis(20)), 500);
        assert_eq!(jobs.begin(2, Millis(519)), None);
        assert_eq!(jobs.begin(2, Millis(520)), Some((KEY, want(2))));
        assert_eq!(jobs.failed(KEY, Millis(600)), 1000);
        assert_eq!(jobs.begin(2, Millis(9000)), None, "nobody has asked since");
        jobs.want(KEY, want(3), Millis(9000));
        jobs.begin(2, Millis(9000)).unwrap();
        jobs.advanced(KEY, Progress { done: 0, total: 9 });
        jobs.advanced(KEY, Progress { done: 4, total: 9 });
        assert_eq!(jobs.progress(KEY), Some(Progress { done: 4, total: 9 }));
        assert_eq!(jobs.failed(KEY, Millis(9100)), 500, "it got on");
        assert_eq!(jobs.progress(KEY), None);
        assert!(jobs.is_wanted(KEY, Millis(18_999)) && !jobs.is_wanted(KEY, Millis(19_000)));
    }

    #[test]
    fn no_more_at_once_than_is_said_and_the_least_unlucky_first() {
        let mut jobs = Jobs::default();
        let key = |pid| PartitionKey::new(7, pid);
        (0..3).for_each(|pid| jobs.want(key(pid), want(1), Millis(0)));
        jobs.begin(2, Millis(0)).unwrap();
        jobs.begin(2, Millis(0)).unwrap();
        assert_eq!(jobs.begin(2, Millis(0)), None);
        jobs.failed(key(0), Millis(1));
        jobs.want(key(0), want(1), Millis(2));
        assert_eq!(jobs.begin(2, Millis(1000)).map(|(k, _)| k), Some(key(2)));
        jobs.done(key(1));
        assert_eq!(jobs.begin(2, Millis(1000)).map(|(k, _)| k), Some(key(0)));
    }
}
