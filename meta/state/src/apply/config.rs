//! The cluster as a whole: its name, its settings, and who controls it.
//!
//! Invariants: the name is set once; the controller epoch grows with each nameserver that takes over; the only setting
//! is `auto_failover`, stored as `true` or `false`.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{NodeId, OpId};

use super::{Outcome, Step};
use crate::command::Reply;
use crate::object::Key;
use crate::op::{OpKind, OpStatus};
use crate::state::Setting;

impl Step<'_> {
    pub(super) fn found(&mut self, cluster: &str) -> Outcome {
        if cluster.is_empty() {
            return Err(Code::InvalidParameter.into());
        }
        if !self.state.cluster.is_empty() && self.state.cluster != cluster {
            let text = format!("{}: this is {}", Code::WrongCluster.text(), self.state.cluster);
            return Err(Refusal::new(Code::WrongCluster, text));
        }
        self.state.cluster = cluster.to_owned();
        Ok(Reply::Done)
    }

    pub(super) fn take_over(&mut self, node: NodeId) -> Outcome {
        self.state.controller.epoch += 1;
        self.state.controller.node = node;
        Ok(Reply::Controller(self.state.controller.epoch))
    }

    pub(super) fn set_config(&mut self, key: &str, value: &str, by: &str) -> Outcome {
        let value = value.to_ascii_lowercase();
        if key != "auto_failover" || (value != "true" && value != "false") {
            return Err(Code::InvalidParameter.into());
        }
        if value == "true" {
            self.end_holding();
            self.clear_holds();
        }
        self.state
            .config
            .insert(key.to_owned(), Setting { value, by: by.to_owned(), at: self.now });
        self.changed.insert(Key::Config(key.to_owned()));
        Ok(Reply::Done)
    }

    /// What is queued and would hold a replica back is not carried out any more (H21).
    fn end_holding(&mut self) {
        let open = self.state.partitions.values().flat_map(|p| &p.queue).copied();
        let holds = |id: &OpId| {
            self.state.ops.get(id).is_some_and(|op| {
                op.hold || matches!(op.kind, OpKind::OfflineReplica | OpKind::UpdatePartitionStatus)
            })
        };
        let holding: Vec<OpId> = open.filter(holds).collect();
        for op in holding {
            self.end_op(op, OpStatus::Canceled, "auto_failover was turned on");
        }
    }

    /// R22: what was held back by hand, or by a restart in off mode, is the cluster's own affair again.
    fn clear_holds(&mut self) {
        let version = self.version();
        for (key, partition) in &mut self.state.partitions {
            if !partition.replicas.iter().any(|r| r.held) {
                continue;
            }
            for replica in partition.replicas.iter_mut().filter(|r| r.held) {
                replica.held = false;
                if partition.in_sync.iter().any(|m| m.tablet == replica.tablet) {
                    replica.was_leader = false;
                }
            }
            partition.version = version;
            self.changed.insert(Key::Partition(*key));
        }
    }
}
