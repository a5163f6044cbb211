//! Recorded operations: what the cluster did, in OpenMLDB's words.
//!
//! Invariants: an op that has ended never changes; at most [`OPS`] are remembered, and the oldest of those that have
//! ended goes first; nothing is decided by them.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{OpId, PartitionKey, TabletId};

use super::{Outcome, Step};
use crate::command::Reply;
use crate::object::Key;
use crate::state::{OPS, Op, OpKind, OpStatus};

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
        word: &str,
    ) {
        let op = self.begin(kind, key, tablet, auto, word);
        self.finish(op, OpStatus::Done, word);
    }

    /// An op that goes on.
    pub(super) fn begin(
        &mut self,
        kind: OpKind,
        key: PartitionKey,
        tablet: TabletId,
        auto: bool,
        task: &str,
    ) -> OpId {
        let table = self.state.tables.get(&key.tid);
        let (db, name) = table.map(|t| (t.db.clone(), t.name.clone())).unwrap_or_default();
        let at = self.now / 1000;
        self.state.counters.op += 1;
        let id = OpId(self.state.counters.op);
        let op = Op {
            kind,
            db,
            name,
            key,
            tablet,
            status: OpStatus::Doing,
            auto,
            task: task.to_owned(),
            start: at,
            end: 0,
            version: self.version(),
        };
        self.state.ops.insert(id, op);
        self.changed.insert(Key::Op(id));
        self.forget_ops();
        id
    }

    /// An op that goes on has ended.
    pub(super) fn finish(&mut self, id: OpId, status: OpStatus, word: &str) {
        let (version, at) = (self.version(), self.now / 1000);
        if let Some(op) = self.state.ops.get_mut(&id) {
            op.status = status;
            word.clone_into(&mut op.task);
            op.end = at.max(op.start).max(1);
            op.version = version;
            self.changed.insert(Key::Op(id));
        }
    }

    fn forget_ops(&mut self) {
        while self.state.ops.len() > OPS {
            let oldest =
                self.state.ops.iter().find(|(_, op)| op.status.is_final()).map(|(id, _)| *id);
            let Some(id) = oldest else { return };
            self.state.ops.remove(&id);
            self.changed.insert(Key::Op(id));
        }
    }

    /// R21: an automatic op that would go on while `auto_failover` is off ends as cancelled instead.
    pub(super) fn update_op(&mut self, id: OpId, status: OpStatus, task: &str) -> Outcome {
        let (version, at, off) = (self.version(), self.now / 1000, !self.state.auto_failover());
        match self.state.ops.get_mut(&id) {
            Some(op) if !op.status.is_final() => {
                op.status =
                    if op.auto && off && !status.is_final() { OpStatus::Canceled } else { status };
                task.clone_into(&mut op.task);
                if op.start == 0 && op.status != OpStatus::Inited {
                    op.start = at;
                }
                op.end = if op.status.is_final() { at } else { 0 };
                op.version = version;
                self.changed.insert(Key::Op(id));
                Ok(Reply::Done)
            }
            _ => Err(Refusal::new(Code::InvalidParameter, "op status is not kDoing or kInited")),
        }
    }
}
