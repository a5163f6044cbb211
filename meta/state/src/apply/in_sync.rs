//! R7, R8, R20b: proposals of a new in-sync set.
//!
//! Invariants: a proposal holds for one epoch and one version; only the run that leads adds and marks; the leader is never
//! removed or marked, so the set is never empty; an added member is the run that is registered. A refusal of what is not stale is
//! definite for every copy of that addition: whatever could make it acceptable later also moves the version.

use std::collections::BTreeSet;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, PartitionKey, TabletId};
use stela_common::wire::Member;

use super::{Outcome, Step, same_version, stale};
use crate::command::{ChangeInSync, Reply};
use crate::object::Key;
use crate::op::{OpKind, OpStatus};
use crate::rules::Rules;
use crate::state::{Doubt, Partition};

/// R20b: a removal down to one member is refused at most once in this time, wall ms.
pub const REFUSED_ONCE_IN: u64 = 10_000;
/// R20b: for so long that one refusal holds, so that the nameserver elects before the proposal is repeated, wall ms.
pub const REFUSAL_HOLDS: u64 = 1_000;

/// What a proposal asks for.
struct Asked {
    added: Vec<TabletId>,
    removed: Vec<TabletId>,
    /// They lost what they had acknowledged (R6): from now on nobody elects them.
    marked: Vec<TabletId>,
}

impl Step<'_> {
    pub(super) fn change_in_sync<R: Rules>(&mut self, change: &ChangeInSync) -> Outcome {
        let asked = self.may_change::<R>(change)?;
        self.rather_elect(change, &asked)?;
        let in_sync = self.bound(change);
        let version = self.version();
        if let Some(partition) = self.state.partitions.get_mut(&change.key) {
            for replica in partition.replicas.iter_mut().filter(|r| asked.added.contains(&r.tablet))
            {
                replica.was_leader = false;
            }
            for replica in
                partition.replicas.iter_mut().filter(|r| asked.marked.contains(&r.tablet))
            {
                replica.doubt = Some(Doubt::Lost);
            }
            partition.set_in_sync(in_sync);
            partition.version = version;
            if !(asked.added.is_empty() && asked.removed.is_empty()) {
                partition.refused_shrink_epoch = Epoch(0);
            }
            self.changed.insert(Key::Partition(change.key));
        }
        for tablet in asked.removed {
            self.record(OpKind::OfflineReplica, change.key, tablet, true);
        }
        for tablet in asked.added {
            self.note_addition(change.key, tablet);
        }
        Ok(Reply::Version(version))
    }

    /// That a replica came into the set is an op of its own, unless it is what the partition's op is about: tools take the
    /// newest op for the one that they wait for.
    fn note_addition(&mut self, key: PartitionKey, tablet: TabletId) {
        let current = self.state.partitions.get(&key).and_then(|p| self.state.current_op(p));
        match current.map(|(id, op)| (id, op.kind, op.tablet, op.copies_to())) {
            Some((id, OpKind::ReAddReplica, about, _)) if about == tablet => {
                self.end_op(id, OpStatus::Done, "");
            }
            Some((.., Some(to))) if to == tablet => {}
            _ => self.record(OpKind::ReAddReplica, key, tablet, true),
        }
    }

    fn may_change<R: Rules>(&self, change: &ChangeInSync) -> Result<Asked, Refusal> {
        let partition = self.partition(change.key)?;
        if partition.epoch != change.epoch {
            return Err(stale(format_args!(
                "epoch {} is over, it is {}",
                change.epoch, partition.epoch
            )));
        }
        same_version(partition, change.expected)?;
        let proposer = self.tablet_of(change.by)?;
        if proposer.incarnation != change.by_incarnation || partition.replica(change.by).is_none() {
            return Err(Refusal::new(
                Code::TableIsFollower,
                "the proposer is no registered replica",
            ));
        }
        let asked = compare(partition, &change.in_sync)?;
        if asked.removed.contains(&partition.leader) || asked.marked.contains(&partition.leader) {
            return Err(Refusal::new(Code::TableIsLeader, "can not del leader"));
        }
        if !(asked.added.is_empty() && asked.marked.is_empty())
            && (change.by, change.by_incarnation)
                != (partition.leader, partition.leader_incarnation)
        {
            return Err(Refusal::new(
                Code::TableIsFollower,
                "only the leader adds to its set or marks in it",
            ));
        }
        for member in change.in_sync.iter().filter(|m| asked.added.contains(&m.tablet)) {
            self.may_add::<R>(partition, member)?;
        }
        Ok(asked)
    }

    /// R8.
    fn may_add<R: Rules>(&self, partition: &Partition, member: &Member) -> Result<(), Refusal> {
        let replica = partition.replica(member.tablet).ok_or(Code::PidNotFound)?;
        let tablet = self.tablet_of(member.tablet)?;
        if !tablet.healthy {
            return Err(Code::TabletNotHealthy.into());
        }
        if replica.held {
            return Err(Refusal::new(Code::InvalidParameter, "the replica is held"));
        }
        if tablet.incarnation != member.incarnation && !R::ADD_ANY_INCARNATION {
            return Err(Refusal::new(
                Code::InvalidParameter,
                "another run of the tablet is registered",
            ));
        }
        Ok(())
    }

    /// The new set: who stays, stays as it is or is marked; who comes, comes trusted and as the run that is registered.
    fn bound(&self, change: &ChangeInSync) -> Vec<Member> {
        let partition = self.state.partitions.get(&change.key);
        let bind = |m: &Member| {
            let stays = partition.and_then(|p| p.member(m.tablet)).copied();
            let stays = stays.map(|s| Member { untrusted: s.untrusted || m.untrusted, ..s });
            stays.or_else(|| {
                let tablet = self.state.tablets.get(&m.tablet)?;
                Some(Member { tablet: m.tablet, incarnation: tablet.incarnation, untrusted: false })
            })
        };
        change.in_sync.iter().filter_map(bind).collect()
    }

    /// R20b: a leader that removes everybody else although they are healthy may be the one that is cut off. The refusal
    /// is noted (the version stays), and the planner elects one of the others. With `auto_failover` off nobody would.
    fn rather_elect(&mut self, change: &ChangeInSync, asked: &Asked) -> Result<(), Refusal> {
        let partition = self.partition(change.key)?;
        let healthy = asked.removed.iter().all(|t| self.state.is_healthy(*t));
        let electable = asked.removed.iter().any(|t| self.state.is_electable(partition, *t));
        let alone = !asked.removed.is_empty() && change.in_sync.len() == 1;
        if !alone || !healthy || !electable || !self.state.acts_by_itself() {
            return Ok(());
        }
        let since = self.now.saturating_sub(partition.refused_shrink_at);
        // A time ahead of this proposer's clock says nothing: it is another nameserver's.
        let past = (1..=self.now).contains(&partition.refused_shrink_at);
        let noted = past && since < REFUSED_ONCE_IN;
        if noted && (partition.refused_shrink_epoch != change.epoch || since >= REFUSAL_HOLDS) {
            return Ok(());
        }
        if !noted {
            self.note_refusal(change.key);
        }
        Err(Refusal::new(
            Code::NotEnoughInSync,
            "the removed replicas are healthy: one of them is to lead",
        ))
    }

    fn note_refusal(&mut self, key: PartitionKey) {
        if let Some(partition) = self.state.partitions.get_mut(&key) {
            partition.refused_shrink_at = self.now.max(1);
            partition.refused_shrink_epoch = partition.epoch;
            self.changed.insert(Key::Partition(key));
        }
    }
}

/// Who comes and who goes. Who stays must be meant as the run that the set names.
fn compare(partition: &Partition, proposed: &[Member]) -> Result<Asked, Refusal> {
    let invalid = |why| Err(Refusal::new(Code::InvalidParameter, why));
    let tablets: BTreeSet<TabletId> = proposed.iter().map(|m| m.tablet).collect();
    if tablets.len() != proposed.len() {
        return invalid("a member is named twice");
    }
    let (mut added, mut marked) = (Vec::new(), Vec::new());
    for member in proposed {
        match partition.member(member.tablet) {
            None => added.push(member.tablet),
            Some(known) if known.incarnation != member.incarnation => {
                return invalid("a member is named as another run");
            }
            Some(known) if member.untrusted && !known.untrusted => marked.push(member.tablet),
            Some(_) => {}
        }
    }
    let removed: Vec<TabletId> =
        partition.in_sync.iter().map(|m| m.tablet).filter(|t| !tablets.contains(t)).collect();
    if added.is_empty() && removed.is_empty() && marked.is_empty() {
        return invalid("nothing would change");
    }
    Ok(Asked { added, removed, marked })
}
