//! R13: a new epoch and who leads in it. The only writer of epochs after a partition's first.
//!
//! Invariants: the leader comes out of the in-sync set, as the run that is registered, trusted, healthy and not held;
//! the set loses its untrusted and offline members and is never empty; an epoch has one leader for ever. But for an
//! unclean election, recorded as such, after which the set is the leader alone: an operator's (R16), or that of the
//! longest log when every member may lack its tail and nothing else (R15; which is the longest, the proposer knows).

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Epoch, Offset, PartitionKey, TabletId};
use stela_common::wire::Member;

use super::{Outcome, Step, same_version, stale};
use crate::command::{Elect, Reply};
use crate::object::Key;
use crate::op::OpKind;
use crate::rules::Rules;
use crate::state::{Doubt, HISTORY, Leadership, Partition};

impl Step<'_> {
    pub(super) fn elect<R: Rules>(&mut self, elect: &Elect) -> Outcome {
        self.may_elect::<R>(elect)?;
        let partition = self.partition(elect.key)?;
        let (mut in_sync, left): (Vec<Member>, Vec<Member>) =
            partition.in_sync.iter().partition(|m| !m.untrusted && self.state.is_healthy(m.tablet));
        let elected =
            Member { tablet: elect.leader, incarnation: elect.incarnation, untrusted: false };
        if elect.unclean.is_some() {
            in_sync = vec![elected];
        } else if R::ELECT_OUTSIDE && in_sync.iter().all(|m| m.tablet != elect.leader) {
            in_sync.push(elected);
        }
        let (before, switch) = (partition.leader, partition.switch);
        // `offlineendpoint`: whoever hands over is held, and leaves the set with that.
        if let Some(held) = switch.and_then(|s| self.state.ops.get(&s.op)).filter(|op| op.hold) {
            in_sync.retain(|m| m.tablet != held.tablet || m.tablet == elect.leader);
        }
        let offline: Vec<TabletId> = left
            .iter()
            .map(|m| m.tablet)
            .filter(|t| *t != before && *t != elect.leader && !self.state.is_healthy(*t))
            .collect();

        let version = self.version();
        if let Some(partition) = self.state.partitions.get_mut(&elect.key) {
            partition.epoch = partition.epoch.next();
            partition.leader = elect.leader;
            partition.leader_incarnation = elect.incarnation;
            partition.set_in_sync(in_sync);
            partition.version = version;
            partition.switch = None;
            let unclean = elect.unclean.is_some();
            if unclean {
                partition.last_unclean = partition.epoch;
                partition.uncleans += 1;
                release(partition, elect.leader);
            }
            note_former_leader(partition, before);
            partition.history.push(Leadership {
                epoch: partition.epoch,
                leader: elect.leader,
                unclean,
                surrendered: elect.surrendered,
                start: None,
            });
            let old = partition.history.len().saturating_sub(HISTORY);
            partition.history.drain(..old);
            self.changed.insert(Key::Partition(elect.key));
        }
        let why = if elect.auto { "tail may be lost" } else { "unclean" };
        let word = elect.unclean.as_ref().map(|shown| format!("{why}: {shown}"));
        if let Some(switch) = switch {
            self.fulfil(switch, elect.leader);
        }
        if switch.is_none() || word.is_some() {
            let word = word.unwrap_or_default();
            self.record_as(OpKind::ChangeLeader, elect.key, elect.leader, elect.auto, &word);
        }
        for tablet in offline {
            self.record(OpKind::OfflineReplica, elect.key, tablet, elect.auto);
        }
        Ok(Reply::Version(version))
    }

    fn may_elect<R: Rules>(&self, elect: &Elect) -> Result<(), Refusal> {
        if elect.auto && !self.state.acts_by_itself() {
            return Err(Refusal::new(Code::AutoFailoverEnabled, "auto_failover is disabled"));
        }
        let partition = self.partition(elect.key)?;
        same_version(partition, elect.expected)?;
        if elect.surrendered.is_some_and(|t| t != partition.leader) {
            return Err(Refusal::new(Code::InvalidParameter, "who surrendered does not lead"));
        }
        if partition.replica(elect.leader).is_none() {
            return Err(Code::PidNotFound.into());
        }
        let tablet = self.tablet_of(elect.leader)?;
        if tablet.incarnation != elect.incarnation {
            return Err(stale("another run of the tablet is registered"));
        }
        if !tablet.healthy {
            return Err(Code::TabletNotHealthy.into());
        }
        if R::ELECT_OUTSIDE {
            return Ok(());
        }
        match &elect.unclean {
            Some(_) if elect.auto => return self.may_elect_longest(partition, elect),
            Some(_) => return self.may_elect_unclean(partition),
            None => {}
        }
        let refused = |why| Err(Refusal::new(Code::InvalidParameter, why));
        match partition.member(elect.leader) {
            None => refused("candidate is not in sync"),
            Some(member) if member.untrusted => {
                refused("candidate cannot prove that its copy is whole")
            }
            Some(_) if partition.is_held(elect.leader) => refused("candidate is held"),
            Some(_) => Ok(()),
        }
    }

    /// R15: every member is back, and may lack nothing but its tail.
    fn may_elect_longest(&self, partition: &Partition, elect: &Elect) -> Result<(), Refusal> {
        let refused = |why| Err(Refusal::new(Code::InvalidParameter, why));
        let back = |m: &Member| {
            partition.doubt(m.tablet) == Some(Doubt::Tail) && self.state.is_healthy(m.tablet)
        };
        if partition.member(elect.leader).is_none() {
            refused("candidate is not in sync")
        } else if partition.is_held(elect.leader) {
            refused("candidate is held")
        } else if !partition.in_sync.iter().all(back) {
            refused("a member is not there, or lacks more than its tail or nothing")
        } else {
            Ok(())
        }
    }

    /// R16: only where nobody leads and nobody can be elected without loss.
    fn may_elect_unclean(&self, partition: &Partition) -> Result<(), Refusal> {
        let refused = |why: String| Err(Refusal::new(Code::InvalidParameter, why));
        let of = |id: TabletId| {
            self.state.tablets.get(&id).map_or_else(String::new, |t| t.endpoint.clone())
        };
        if self.state.leader_runs(partition) {
            return refused(format!("{} leads: use changeleader", of(partition.leader)));
        }
        let clean = partition.in_sync.iter().map(|m| m.tablet);
        match clean.into_iter().find(|id| self.state.is_electable(partition, *id)) {
            Some(id) => refused(format!("{} can lead without any loss: use changeleader", of(id))),
            None => Ok(()),
        }
    }

    /// R10: the leader's log end when its epoch began, for display; the version stays, as no decision rests on it.
    pub(super) fn started(&mut self, key: PartitionKey, epoch: Epoch, start: Offset) -> Outcome {
        self.partition(key)?;
        let began = self
            .state
            .partitions
            .get_mut(&key)
            .and_then(|p| p.history.iter_mut().find(|l| l.epoch == epoch));
        match began {
            None => Err(stale(format_args!("no epoch {epoch} is on record"))),
            Some(Leadership { start: Some(known), .. }) if *known != start => {
                Err(stale(format_args!("epoch {epoch} began at {known}")))
            }
            Some(began) => {
                began.start = Some(start);
                self.changed.insert(Key::Partition(key));
                Ok(Reply::Done)
            }
        }
    }
}

/// An operator has chosen this replica: it is held no longer (R22).
fn release(partition: &mut Partition, chosen: TabletId) {
    partition.replicas.iter_mut().filter(|r| r.tablet == chosen).for_each(|r| r.held = false);
}

/// Marks the replica that led before if it is out of the new set or held, and clears the mark of the one that leads.
fn note_former_leader(partition: &mut Partition, before: TabletId) {
    let (leader, in_sync) = (partition.leader, &partition.in_sync);
    for replica in &mut partition.replicas {
        if replica.tablet == leader {
            replica.was_leader = false;
        } else if replica.tablet == before {
            replica.was_leader = replica.held || in_sync.iter().all(|m| m.tablet != before);
        }
    }
}
