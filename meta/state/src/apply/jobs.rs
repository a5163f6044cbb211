//! Jobs: how they begin, go on and end.
//!
//! Invariants: at most one goes on; it acts through operations, which it leaves in order when it ends: those that have not
//! begun end with it, and one that has begun goes on to its end. At most [`JOBS`] are remembered.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{JobId, OpId, TabletId};

use super::{Outcome, Step};
use crate::command::{Reply, Work};
use crate::job::{Job, JobKind, Moved};
use crate::object::Key;
use crate::op::{OpKind, OpStatus};
use crate::state::JOBS;

impl Step<'_> {
    pub(super) fn start_job(
        &mut self,
        kind: JobKind,
        endpoints: &[String],
        allow_single_replica: bool,
    ) -> Outcome {
        if let Some((id, job)) = self.state.jobs.iter().find(|(_, j)| !j.status.is_final()) {
            let text = format!("job {id} ({}) goes on; stela ops show {id}", job.kind.word());
            return Err(Refusal::new(Code::OpExists, text));
        }
        let mut tablets = Vec::new();
        for endpoint in endpoints {
            let (id, _) = self.state.tablet(endpoint).ok_or_else(|| {
                Refusal::new(Code::EndpointNotFound, format!("no tablet is known at {endpoint}"))
            })?;
            tablets.push(id);
        }
        let moved = self.may_start(kind, &tablets)?;
        for (id, tablet) in &mut self.state.tablets {
            let leaving = match kind {
                JobKind::ScaleIn if tablets.contains(id) => true,
                // They are to have their share again.
                JobKind::ScaleOut => false,
                _ => continue,
            };
            if std::mem::replace(&mut tablet.leaving, leaving) != leaving {
                self.changed.insert(Key::Tablet(*id));
            }
        }
        if kind == JobKind::RecoverData {
            self.release_all();
        }
        self.state.counters.job += 1;
        let id = JobId(self.state.counters.job);
        let job = Job {
            kind,
            tablets,
            allow_single_replica,
            status: OpStatus::Doing,
            moved,
            done: 0,
            failed: 0,
            start: (self.now / 1000).max(1),
            end: 0,
            why: String::new(),
            version: self.version(),
        };
        self.state.jobs.insert(id, job);
        self.changed.insert(Key::Job(id));
        self.forget_jobs();
        Ok(Reply::Job(id))
    }

    /// Checks what can be known before it begins; answers with what a `post-upgrade` is to bring back.
    fn may_start(&self, kind: JobKind, tablets: &[TabletId]) -> Result<Vec<Moved>, Refusal> {
        let refused = |text: String| Err(Refusal::new(Code::InvalidParameter, text));
        let wants = match kind {
            JobKind::RecoverData | JobKind::ScaleOut => 0,
            JobKind::ScaleIn => tablets.len().max(1),
            JobKind::PreUpgrade | JobKind::PostUpgrade => 1,
        };
        if tablets.len() != wants {
            return refused(match wants {
                0 => format!("{} takes no endpoints", kind.word()),
                _ => format!("{} takes an endpoint", kind.word()),
            });
        }
        if let Some(away) = tablets.iter().find(|t| !self.state.is_healthy(**t)) {
            return Err(Refusal::new(
                Code::TabletNotHealthy,
                format!("{}: {}", self.state.endpoint(*away), Code::TabletNotHealthy.text()),
            ));
        }
        match kind {
            JobKind::ScaleIn => {
                let stay = self.state.tablets.iter();
                let stay: Vec<TabletId> = stay
                    .filter(|(id, t)| t.healthy && !tablets.contains(id))
                    .map(|(id, _)| *id)
                    .collect();
                let too_many = self.state.partitions.iter().find(|(_, p)| {
                    p.replicas.iter().any(|r| tablets.contains(&r.tablet))
                        && p.replicas.len() > stay.len()
                });
                if let Some((key, partition)) = too_many {
                    let name = self.state.tables.get(&key.tid).map_or("", |t| t.name.as_str());
                    return refused(format!(
                        "table {name} has {} replicas, and {} healthy tablets would be left",
                        partition.replicas.len(),
                        stay.len()
                    ));
                }
                Ok(Vec::new())
            }
            JobKind::PostUpgrade => {
                let mut before = self.state.jobs.values().rev();
                let before = before
                    .find(|j| j.kind == JobKind::PreUpgrade && j.tablets == tablets)
                    .map(|j| j.moved.clone());
                before.ok_or_else(|| {
                    let text = "no pre-upgrade of that endpoint is on record";
                    Refusal::new(Code::InvalidParameter, text)
                })
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Nothing is held back any more.
    fn release_all(&mut self) {
        let held: Vec<_> = self
            .state
            .partitions
            .iter()
            .flat_map(|(key, p)| p.replicas.iter().filter(|r| r.held).map(|r| (*key, r.tablet)))
            .collect();
        held.into_iter().for_each(|(key, tablet)| self.release(key, tablet));
    }

    pub(super) fn go_on(&mut self, id: JobId, work: &[Work]) -> Outcome {
        let version = self.version();
        let Some(job) = self.state.jobs.get_mut(&id).filter(|j| !j.status.is_final()) else {
            return Err(Code::OpNotOpen.into());
        };
        if job.kind == JobKind::PreUpgrade {
            for piece in work.iter().filter(|w| w.kind == OpKind::ChangeLeader) {
                let extra =
                    work.iter().find(|w| w.kind == OpKind::AddReplica && w.key == piece.key);
                let moved = Moved { key: piece.key, extra: extra.and_then(|w| w.to) };
                if job.moved.iter().all(|m| m.key != moved.key) {
                    job.moved.push(moved);
                }
            }
        }
        job.version = version;
        self.changed.insert(Key::Job(id));
        work.iter().for_each(|piece| self.enqueue_work(id, piece));
        Ok(Reply::Done)
    }

    /// An operation of a job has ended.
    pub(super) fn count_for(&mut self, id: JobId, status: OpStatus) {
        if let Some(job) = self.state.jobs.get_mut(&id).filter(|j| !j.status.is_final()) {
            match status {
                OpStatus::Done => job.done += 1,
                _ => job.failed += 1,
            }
            self.changed.insert(Key::Job(id));
        }
    }

    pub(super) fn end_job(&mut self, id: JobId, status: OpStatus, why: &str) -> Outcome {
        let (version, at) = (self.version(), self.now / 1000);
        let Some(job) = self.state.jobs.get_mut(&id).filter(|j| !j.status.is_final()) else {
            return Err(Code::OpNotOpen.into());
        };
        job.status = status;
        why.clone_into(&mut job.why);
        job.end = at.max(job.start);
        job.version = version;
        self.changed.insert(Key::Job(id));
        let waiting: Vec<OpId> = self
            .state
            .partitions
            .values()
            .flat_map(|p| &p.queue)
            .filter(|op| {
                let op = self.state.ops.get(op);
                op.is_some_and(|op| op.job == Some(id) && op.status == OpStatus::Inited)
            })
            .copied()
            .collect();
        waiting.into_iter().for_each(|op| self.end_op(op, OpStatus::Canceled, "its job has ended"));
        Ok(Reply::Done)
    }

    pub(super) fn cancel_job(&mut self, id: JobId) -> Outcome {
        let scale_in: Vec<TabletId> = match self.state.jobs.get(&id) {
            Some(job) if job.kind == JobKind::ScaleIn => job.tablets.clone(),
            _ => Vec::new(),
        };
        self.end_job(id, OpStatus::Canceled, "by an operator")?;
        for tablet in scale_in {
            if let Some(it) = self.state.tablets.get_mut(&tablet) {
                it.leaving = false;
                self.changed.insert(Key::Tablet(tablet));
            }
        }
        Ok(Reply::Done)
    }

    fn forget_jobs(&mut self) {
        while self.state.jobs.len() > JOBS {
            let oldest =
                self.state.jobs.iter().find(|(_, j)| j.status.is_final()).map(|(id, _)| *id);
            let Some(id) = oldest else { return };
            self.state.jobs.remove(&id);
            self.changed.insert(Key::Job(id));
        }
    }
}
