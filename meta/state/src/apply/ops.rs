//! Recorded operations: how they are queued, begin and end, and what ending one takes back.
//!
//! Invariants: an op that has ended never changes; one that has not stands in its partition's queue, and only the first
//! there has begun; at most [`OPS`] are remembered, and the oldest of those that have ended goes first. What an operation
//! needs is checked when it is ordered and again when it begins; one that cannot begin has failed.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{JobId, OpId, PartitionKey, TableId, TabletId};

use super::{Outcome, Step};
use crate::command::{Reply, Work};
use crate::object::Key;
use crate::op::{Op, OpKind, OpStatus, Task};
use crate::state::{OPS, Switch};

/// What an op is about, beside its kind.
#[derive(Clone, Copy, Default)]
pub(super) struct About {
    pub(super) tablet: TabletId,
    pub(super) to: Option<TabletId>,
    pub(super) parent: Option<OpId>,
    pub(super) job: Option<JobId>,
    pub(super) limit: u32,
    pub(super) hold: bool,
}

impl About {
    pub(super) fn tablet(tablet: TabletId) -> Self {
        Self { tablet, ..Self::default() }
    }
}

/// Why an operation cannot begin, in words.
type Begun = Result<(), String>;

impl Step<'_> {
    /// Records what this very command did: begun and ended at once.
    pub(super) fn record(&mut self, kind: OpKind, key: PartitionKey, tablet: TabletId, auto: bool) {
        self.record_as(kind, key, tablet, auto, "");
    }

    /// The same, with a word about it.
    pub(super) fn record_as(
        &mut self,
        kind: OpKind,
        key: PartitionKey,
        tablet: TabletId,
        auto: bool,
        why: &str,
    ) {
        let op = self.note(kind, key, About::tablet(tablet), auto);
        self.mark_begun(op);
        self.finish(op, OpStatus::Done, why);
    }

    /// An op in the queue of its partition. It begins at once if nothing is before it and it makes no copy.
    pub(super) fn enqueue(&mut self, kind: OpKind, key: PartitionKey, about: About) -> OpId {
        let op = self.note(kind, key, about, false);
        let first = self.state.partitions.get_mut(&key).is_some_and(|partition| {
            partition.queue.push(op);
            partition.queue.len() == 1
        });
        self.changed.insert(Key::Partition(key));
        if first && !kind.is_transfer() && about.limit == 0 {
            self.begin(op);
        }
        op
    }

    /// An op that another one of the same partition asks for: it comes before all that waits, and begins at once.
    fn begin_child(&mut self, parent: OpId, kind: OpKind, tablet: TabletId) {
        let Some(asked) = self.state.ops.get(&parent).cloned() else { return };
        let about = About {
            tablet,
            to: kind.is_switch().then_some(tablet),
            parent: Some(parent),
            job: asked.job,
            limit: asked.limit,
            hold: false,
        };
        let child = self.note(kind, asked.key, about, false);
        if let Some(partition) = self.state.partitions.get_mut(&asked.key) {
            partition.queue.insert(1.min(partition.queue.len()), child);
            self.changed.insert(Key::Partition(asked.key));
        }
        self.begin(child);
    }

    fn note(&mut self, kind: OpKind, key: PartitionKey, about: About, auto: bool) -> OpId {
        let table = self.state.tables.get(&key.tid);
        let (db, name) = table.map(|t| (t.db.clone(), t.name.clone())).unwrap_or_default();
        self.state.counters.op += 1;
        let id = OpId(self.state.counters.op);
        let op = Op {
            kind,
            db,
            name,
            key,
            tablet: about.tablet,
            status: OpStatus::Inited,
            auto,
            task: String::new(),
            start: 0,
            end: 0,
            version: self.version(),
            to: about.to,
            parent: about.parent,
            job: about.job,
            limit: about.limit,
            hold: about.hold,
            why: String::new(),
        };
        self.state.ops.insert(id, op);
        self.changed.insert(Key::Op(id));
        self.forget_ops();
        id
    }

    fn mark_begun(&mut self, id: OpId) {
        let (version, at) = (self.version(), self.now / 1000);
        if let Some(op) = self.state.ops.get_mut(&id) {
            op.status = OpStatus::Doing;
            op.start = at.max(1);
            op.task = op.kind.first_task().word().into();
            op.version = version;
            self.changed.insert(Key::Op(id));
        }
    }

    /// The planner says that the first of a queue can begin.
    pub(super) fn start_op(&mut self, id: OpId) -> Outcome {
        let op = self.open_op(id)?;
        let first = self.partition(op.key)?.queue.first() == Some(&id);
        if op.status != OpStatus::Inited || !first {
            return Err(Code::OpNotOpen.into());
        }
        self.begin(id);
        Ok(Reply::Done)
    }

    fn begin(&mut self, id: OpId) {
        self.mark_begun(id);
        let Some(op) = self.state.ops.get(&id).cloned() else { return };
        let begun = match op.kind {
            OpKind::ChangeLeader | OpKind::ReLoadTable => self.begin_switch(id, &op),
            OpKind::OfflineReplica | OpKind::UpdatePartitionStatus => {
                self.hold(op.key, op.tablet);
                self.end_op(id, OpStatus::Done, "");
                Ok(())
            }
            OpKind::RecoverTable => self.begin_recovery(id, &op),
            OpKind::AddReplica => self.begin_copy(id, &op),
            OpKind::Migrate => self.may_migrate(&op).and_then(|()| self.begin_copy(id, &op)),
            OpKind::DelReplica => self.take_replica(op.key, op.tablet).map(|()| {
                self.set_task(id, Task::DropTable);
            }),
            OpKind::MakeSnapshot | OpKind::ReAddReplica | OpKind::AddIndex => Ok(()),
        };
        if let Err(why) = begun {
            self.end_op(id, OpStatus::Failed, &why);
        }
    }

    fn begin_switch(&mut self, id: OpId, op: &Op) -> Begun {
        if op.hold {
            self.hold(op.key, op.tablet);
        }
        let runs = |step: &Self| {
            step.state.partitions.get(&op.key).is_some_and(|p| {
                step.state.leader_runs(p)
                    && op.to.map_or(op.hold && p.leader != op.tablet, |to| to == p.leader)
            })
        };
        if runs(self) {
            // It leads already.
            self.end_op(id, OpStatus::Done, "");
            return Ok(());
        }
        if let Some(to) = op.to {
            let partition = self.partition(op.key).map_err(|e| e.text)?;
            if partition.replica(to).is_none() {
                return Err("the candidate has no replica".into());
            }
            if partition.is_held(to) {
                return Err("the candidate is held".into());
            }
            if !self.state.is_healthy(to) {
                return Err("the candidate is offline".into());
            }
        }
        if let Some(partition) = self.state.partitions.get_mut(&op.key) {
            partition.switch = Some(Switch { target: op.to, op: id });
            self.changed.insert(Key::Partition(op.key));
        }
        Ok(())
    }

    /// R22: the replica is held no longer. Where its partition is led, the leader takes it back (R8, R21); where it is
    /// not, it is to lead if it can.
    fn begin_recovery(&mut self, id: OpId, op: &Op) -> Begun {
        if !self.state.is_healthy(op.tablet) {
            return Err(Code::TabletNotHealthy.text().into());
        }
        if self.partition(op.key).map_err(|e| e.text)?.replica(op.tablet).is_none() {
            return Err(format!("{} holds no replica", self.state.endpoint(op.tablet)));
        }
        self.release(op.key, op.tablet);
        let partition = self.partition(op.key).map_err(|e| e.text)?;
        let led = self.state.leader_runs(partition);
        let single = partition.replicas.len() == 1;
        let child = if led && self.state.is_alive(partition, op.tablet) {
            None
        } else if !led && self.state.is_electable(partition, op.tablet) {
            Some(if single { OpKind::ReLoadTable } else { OpKind::ChangeLeader })
        } else {
            Some(OpKind::ReAddReplica)
        };
        // The child stands in the queue before its parent leaves it.
        if let Some(kind) = child {
            self.begin_child(id, kind, op.tablet);
        }
        self.end_op(id, OpStatus::Done, "");
        Ok(())
    }

    fn begin_copy(&mut self, id: OpId, op: &Op) -> Begun {
        let to = op.to.unwrap_or(op.tablet);
        if !self.state.is_healthy(to) {
            return Err(Code::TabletNotHealthy.text().into());
        }
        self.add_replica(op.key, to)?;
        self.set_task(id, Task::SendSnapshot);
        Ok(())
    }

    fn may_migrate(&self, op: &Op) -> Begun {
        let partition = self.partition(op.key).map_err(|e| e.text)?;
        if partition.replica(op.tablet).is_none() {
            return Err("src_endpoint has no replica".into());
        }
        if partition.leader == op.tablet {
            return Err("cannot migrate leader".into());
        }
        Ok(())
    }

    fn set_task(&mut self, id: OpId, task: Task) {
        let version = self.version();
        if let Some(op) = self.state.ops.get_mut(&id) {
            op.task = task.word().into();
            op.version = version;
            self.changed.insert(Key::Op(id));
        }
    }

    /// The second half of a `Migrate`: the copy is in sync, and the former one goes.
    pub(super) fn take_away(&mut self, id: OpId) -> Outcome {
        let op = self.open_op(id)?.clone();
        let partition = self.partition(op.key)?;
        let there = op.to.is_some_and(|to| self.state.is_alive(partition, to));
        if op.kind != OpKind::Migrate || op.status != OpStatus::Doing || !there {
            return Err(Code::OpNotOpen.into());
        }
        match self.take_replica(op.key, op.tablet) {
            Ok(()) => self.set_task(id, Task::DropTable),
            Err(why) => {
                self.set_task(id, Task::DelReplica);
                self.end_op(id, OpStatus::Failed, &why);
            }
        }
        Ok(Reply::Done)
    }

    pub(super) fn end_by_plan(&mut self, id: OpId, status: OpStatus, why: &str) -> Outcome {
        self.open_op(id)?;
        if !status.is_final() {
            return Err(Code::InvalidParameter.into());
        }
        self.end_op(id, status, why);
        Ok(Reply::Done)
    }

    fn open_op(&self, id: OpId) -> Result<&Op, Refusal> {
        let open = self.state.ops.get(&id).filter(|op| !op.status.is_final());
        open.ok_or_else(|| Code::OpNotOpen.into())
    }

    /// Ends an op that has not ended. What it had begun and not brought to an end is taken back.
    pub(super) fn end_op(&mut self, id: OpId, status: OpStatus, why: &str) {
        let Some(op) = self.state.ops.get(&id).filter(|op| !op.status.is_final()).cloned() else {
            return;
        };
        if let Some(partition) = self.state.partitions.get_mut(&op.key) {
            if partition.switch.is_some_and(|s| s.op == id) {
                partition.switch = None;
            }
            partition.queue.retain(|queued| *queued != id);
            self.changed.insert(Key::Partition(op.key));
        }
        let copy = op.copies_to().filter(|_| op.status == OpStatus::Doing);
        if let Some(to) = copy.filter(|_| status != OpStatus::Done) {
            // Unless it has become the leader, or nobody leads: then it is a replica like the others.
            let _ = self.take_replica(op.key, to);
        }
        self.finish(id, status, why);
        if op.kind == OpKind::AddIndex {
            self.fill(op.key.tid, status);
        }
    }

    /// An index that is being filled is there when all partitions have done their part; when one of them does not do it,
    /// it is taken back.
    fn fill(&mut self, tid: TableId, status: OpStatus) {
        let is_open =
            |op: &Op| op.kind == OpKind::AddIndex && op.key.tid == tid && !op.status.is_final();
        if status == OpStatus::Done && self.state.ops.values().any(is_open) {
            return;
        }
        let Some(table) = self.state.tables.get_mut(&tid) else { return };
        let Some(at) = table.filling().map(|(at, _)| at) else { return };
        table.indexes[at].added.filling = false;
        table.indexes[at].deleted = status != OpStatus::Done;
        self.changed.insert(Key::Table(tid));
    }

    fn finish(&mut self, id: OpId, status: OpStatus, why: &str) {
        let (version, at) = (self.version(), self.now / 1000);
        let Some(op) = self.state.ops.get_mut(&id) else { return };
        op.status = status;
        why.clone_into(&mut op.why);
        if status == OpStatus::Done {
            op.task.clear();
        }
        op.end = at.max(op.start).max(1);
        op.version = version;
        let job = op.job;
        self.changed.insert(Key::Op(id));
        if let Some(job) = job {
            self.count_for(job, status);
        }
    }

    fn forget_ops(&mut self) {
        while self.state.ops.len() > OPS {
            let oldest =
                self.state.ops.iter().find(|(_, op)| op.status.is_final()).map(|(id, _)| *id);
            let Some(id) = oldest else { return };
            self.forget_op(id);
        }
    }

    pub(super) fn forget_op(&mut self, id: OpId) {
        self.state.ops.remove(&id);
        self.changed.insert(Key::Op(id));
    }

    /// R21: an automatic op that would go on while `auto_failover` is off ends as cancelled instead.
    pub(super) fn update_op(&mut self, id: OpId, status: OpStatus, task: &str) -> Outcome {
        let op = self.open_op(id)?;
        if op.status == OpStatus::Inited {
            return Err(Code::OpNotOpen.into());
        }
        let off = op.auto && !self.state.acts_by_itself() && !status.is_final();
        let status = if off { OpStatus::Canceled } else { status };
        if status.is_final() {
            self.end_op(id, status, "");
            return Ok(Reply::Done);
        }
        let version = self.version();
        if let Some(op) = self.state.ops.get_mut(&id) {
            task.clone_into(&mut op.task);
            op.version = version;
            self.changed.insert(Key::Op(id));
        }
        Ok(Reply::Done)
    }

    /// The operations of a job that come next.
    pub(super) fn enqueue_work(&mut self, job: JobId, work: &Work) {
        let about = About { tablet: work.tablet, to: work.to, job: Some(job), ..About::default() };
        if self.state.partitions.contains_key(&work.key) {
            self.enqueue(work.kind, work.key, about);
        }
    }
}
