//! Trying again: which answers call for it, where to, and after what pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stela_proto::tablet::{answer, call};
use tokio::sync::watch;

use super::link::{Link, Lost};
use super::{Shared, TableHandle};
use crate::code::{Code, Refusal};

/// The first attempt's time; each further one has twice as much, so that a slow answer is waited for in the end.
const ATTEMPT: Duration = Duration::from_secs(1);
const ATTEMPT_MOST: Duration = Duration::from_secs(8);

/// The pause before a retry: from 10 ms to 200 ms, doubling, half of it random, so that callers do not march in step.
pub(super) fn backoff(tries: u32) -> Duration {
    let most = (10u64 << tries.min(5)).min(200);
    Duration::from_millis(rand::random_range(most / 2..=most))
}

/// What an answer calls for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Advice {
    /// Somebody else leads, or in another epoch.
    Redirect,
    /// Try again, here or where the route then says.
    Again,
    /// It stays so.
    Final,
}

/// What the answer with that code calls for.
pub(super) fn advice(code: Code) -> Advice {
    match code {
        Code::TableIsFollower | Code::StaleEpoch => Advice::Redirect,
        // TableNotFound: a replica that has not been told yet of a table just created. The route knows if it is gone.
        Code::TableNotFound
        | Code::TableLoading
        | Code::NotServing
        | Code::LeaseExpired
        | Code::Busy
        | Code::NotEnoughInSync
        | Code::Behind
        | Code::Quarantined => Advice::Again,
        _ => Advice::Final,
    }
}

/// The attempts of one request at one partition.
pub(super) struct Attempts<'a> {
    shared: &'a Arc<Shared>,
    table: &'a TableHandle,
    pid: u32,
    deadline: Instant,
    patience: Duration,
    tries: u32,
    /// Redirects followed without a pause since the last one.
    hops: u32,
    /// The leader did not answer: ask another replica whom it follows.
    astray: u32,
    changes: watch::Receiver<u64>,
    last: Refusal,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        table: &'a TableHandle,
        pid: u32,
        deadline: Instant,
    ) -> Self {
        Self {
            shared,
            table,
            pid,
            deadline,
            patience: ATTEMPT,
            tries: 0,
            hops: 0,
            astray: 0,
            changes: table.routes.changes(),
            last: Refusal::new(
                Code::NotServing,
                format!("partition {pid} of table {} has no leader", table.name()),
            ),
        }
    }

    /// Whom to ask now, and for which epoch.
    pub(super) fn target(&mut self) -> Option<(Arc<Link>, u64)> {
        self.changes.mark_unchanged();
        let route = self.table.routes.of(self.pid);
        // Twice in vain and no nameserver tells: a replica may know who leads.
        if self.astray > 1 && self.table.routes.trouble().is_some() && !route.replicas.is_empty() {
            let at = (self.astray as usize - 2) % route.replicas.len();
            return Some((route.replicas[at].clone(), route.epoch));
        }
        route.leader.map(|leader| (leader, route.epoch))
    }

    /// Whom to ask now for a read that any replica may answer: each in turn, in whatever epoch it is.
    pub(super) fn replica(&mut self, tries: usize) -> Option<(Arc<Link>, u64)> {
        self.changes.mark_unchanged();
        let route = self.table.routes.of(self.pid);
        let at = tries % route.replicas.len().max(1);
        route.replicas.get(at).cloned().or(route.leader).map(|link| (link, 0))
    }

    /// Makes one attempt.
    pub(super) async fn ask(
        &mut self,
        link: &Arc<Link>,
        kind: call::Kind,
        size: usize,
    ) -> Result<answer::Kind, Lost> {
        let driver = &self.shared.driver;
        let deadline = (Instant::now() + self.patience).min(self.deadline);
        link.call(driver.handle(), driver.cluster(), kind, size, deadline).await
    }

    /// The attempt had no answer. `false`: the time is over.
    pub(super) async fn lost(&mut self, lost: &Lost) -> bool {
        self.astray += 1;
        if lost.sent {
            self.patience = (self.patience * 2).min(ATTEMPT_MOST);
        }
        self.last = Refusal::new(Code::RpcFailed, lost.text.clone());
        self.table.routes.refresh(self.shared);
        self.pause().await
    }

    /// The attempt was refused in a way that calls for another one. `false`: the time is over, or the table is gone.
    pub(super) async fn refused(&mut self, refusal: Refusal, leader: &str, epoch: u64) -> bool {
        self.astray = 0;
        let redirect = advice(refusal.code) == Advice::Redirect;
        self.last = refusal;
        let news = redirect
            && epoch != 0
            && self.table.routes.hint(&self.shared.driver, self.pid, leader, epoch);
        if news && self.hops < 2 {
            self.hops += 1;
            return Instant::now() < self.deadline;
        }
        self.table.routes.refresh(self.shared);
        self.pause().await
    }

    /// There is nobody to ask. `false`: the time is over, or the table is gone.
    pub(super) async fn nobody(&mut self) -> bool {
        self.table.routes.refresh(self.shared);
        self.pause().await
    }

    /// The partition's leader knows of an index that is not in this version of the table. Answers the version that has it;
    /// `None`: the time is over, or the table is gone.
    pub(super) async fn newer_than(&mut self, version: u32, refusal: Refusal) -> Option<u32> {
        self.last = refusal;
        loop {
            let newest = self.table.routes.definition().version();
            if newest > version {
                return Some(newest);
            }
            self.table.routes.refresh(self.shared);
            if !self.pause().await {
                return None;
            }
        }
    }

    /// Waits for the pause to end or the route to change.
    async fn pause(&mut self) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        let until = (now + backoff(self.tries)).min(self.deadline);
        self.tries += 1;
        self.hops = 0;
        let _ = self.shared.driver.within(until, self.changes.changed()).await;
        if let Some(gone) = self.table.routes.trouble().filter(|t| t.code == Code::TableNotFound) {
            self.last = gone;
            return false;
        }
        Instant::now() < self.deadline
    }

    /// Why there was no success, when there is no time left.
    pub(super) fn over(self) -> Refusal {
        match self.last.code {
            Code::TableNotFound => self.last,
            code => Refusal::new(
                code,
                format!("{} (tried for {:.1} s)", self.last, self.shared.timeout.as_secs_f64()),
            ),
        }
    }
}
