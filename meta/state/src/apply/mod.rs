//! Applying a batch of commands: the only way a state changes.
//!
//! Invariants: a pure function of (state, index, batch); it never panics; each command checks all of its preconditions
//! before it changes anything, so a refused one leaves the state as it was (but for the note that R20b takes of its own
//! refusal); what it changes gets the index as its version and is reported by key.
//!
//! Called by the Raft state machine, by the simulation and by tests. One file per family of commands.

mod catalog;
mod config;
mod elect;
mod in_sync;
mod jobs;
mod ops;
mod order;
mod register;
mod replica;
mod session;
mod switch;
mod tablet;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{PartitionKey, TabletId, Version};
use stela_common::table::Options;

pub use self::in_sync::{REFUSAL_HOLDS, REFUSED_ONCE_IN};
use crate::command::{Batch, Command, Reply};
use crate::object::{Changed, Key};
use crate::rules::{Rules, Sound};
use crate::state::{Partition, State, Tablet};

/// What a command comes to.
type Outcome = Result<Reply, Refusal>;

/// One command being applied.
struct Step<'a> {
    state: &'a mut State,
    changed: &'a mut Changed,
    /// The Raft index of the batch.
    index: u64,
    /// The proposer's wall time, ms.
    now: u64,
}

impl State {
    /// Applies a batch at its Raft index; one answer per command.
    pub fn apply(&mut self, index: u64, batch: &Batch) -> Vec<Reply> {
        self.apply_tracked(index, batch, &mut Changed::new())
    }

    /// Applies a batch and adds the keys of all objects that it changed, [`Key::Meta`] always among them.
    pub fn apply_tracked(
        &mut self,
        index: u64,
        batch: &Batch,
        changed: &mut Changed,
    ) -> Vec<Reply> {
        self.apply_with::<Sound>(index, batch, changed)
    }

    /// Applies a batch under rules that may have a planted mistake. An index that was applied before changes nothing;
    /// what became of its commands is not known any more. An empty batch just moves the index on.
    pub fn apply_with<R: Rules>(
        &mut self,
        index: u64,
        batch: &Batch,
        changed: &mut Changed,
    ) -> Vec<Reply> {
        if index <= self.applied {
            return batch
                .commands
                .iter()
                .map(|_| Refusal::from(Code::UnknownOutcome).into())
                .collect();
        }
        self.applied = index;
        changed.insert(Key::Meta);
        let mut replies = Vec::with_capacity(batch.commands.len());
        for proposal in &batch.commands {
            let mut step = Step { state: self, changed, index, now: proposal.now };
            let reply = match proposal.request.and_then(|request| step.recall(request)) {
                Some(reply) => reply,
                None => {
                    let reply = step.command::<R>(&proposal.command).unwrap_or_else(Into::into);
                    if let Some(request) = proposal.request {
                        step.remember(request, &reply);
                    }
                    reply
                }
            };
            replies.push(reply);
        }
        replies
    }
}

impl Step<'_> {
    fn command<R: Rules>(&mut self, command: &Command) -> Outcome {
        match command {
            Command::Found { cluster } => self.found(cluster),
            Command::TakeOver { node } => self.take_over(*node),
            Command::SetConfig { key, value, by } => self.set_config(key, value, by),
            Command::CreateDatabase { name } => self.create_database(name),
            Command::DropDatabase { name } => self.drop_database(name),
            Command::CreateTable { table, placement } => self.create_table(table, placement),
            Command::DropTable { db, name } => self.drop_table(db, name),
            Command::ConfirmDropped { tid, tablet } => self.confirm_dropped(*tid, *tablet),
            Command::Register(it) => self.register::<R>(it),
            Command::Offline { tablet, incarnation, auto: _ } => {
                self.offline(*tablet, *incarnation)
            }
            Command::Online { tablet, incarnation } => self.online(*tablet, *incarnation),
            Command::Elect(it) => self.elect::<R>(it),
            Command::Switch { key, target } => self.switch(*key, *target),
            Command::EndSwitch { key, op, why } => self.end_switch(*key, *op, why),
            Command::SetTable { db, name, ack, sync, min_insync, read } => {
                self.set_table(db, name, |options| Options {
                    ack: ack.unwrap_or(options.ack),
                    sync: sync.unwrap_or(options.sync),
                    min_insync: min_insync.unwrap_or(options.min_insync),
                    read: read.unwrap_or(options.read),
                })
            }
            Command::ChangeInSync(it) => self.change_in_sync::<R>(it),
            Command::Started { key, epoch, start } => self.started(*key, *epoch, *start),
            Command::Order(order) => self.order(order),
            Command::StartOp { op } => self.start_op(*op),
            Command::TakeAway { op } => self.take_away(*op),
            Command::EndOp { op, status, why } => self.end_by_plan(*op, *status, why),
            Command::ConfirmRemoved { key, tablet } => self.confirm_removed(*key, *tablet),
            Command::GoOn { job, work } => self.go_on(*job, work),
            Command::EndJob { job, status, why } => self.end_job(*job, *status, why),
            Command::UpdateOp { op, status, task } => self.update_op(*op, *status, task),
        }
    }

    /// The version that this command gives to what it changes.
    fn version(&self) -> Version {
        Version(self.index)
    }

    fn partition(&self, key: PartitionKey) -> Result<&Partition, Refusal> {
        self.state.partitions.get(&key).ok_or_else(|| Code::PidNotFound.into())
    }

    fn tablet_of(&self, id: TabletId) -> Result<&Tablet, Refusal> {
        self.state.tablets.get(&id).ok_or_else(|| Code::EndpointNotFound.into())
    }

    /// The next version of every partition of which that tablet has a replica that is not in sync: whatever was
    /// proposed before the tablet's change is stale now.
    fn renew_outsiders(&mut self, id: TabletId) {
        let version = self.version();
        for (key, partition) in &mut self.state.partitions {
            if partition.replica(id).is_some() && partition.member(id).is_none() {
                partition.version = version;
                self.changed.insert(Key::Partition(*key));
            }
        }
    }
}

/// A decision on what is no longer so.
fn stale(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::StaleEpoch, format!("{}: {what}", Code::StaleEpoch.text()))
}

/// Refuses a decision that was made on another version of the partition.
fn same_version(partition: &Partition, expected: Version) -> Result<(), Refusal> {
    if partition.version == expected {
        Ok(())
    } else {
        Err(stale(format_args!("version {expected} was expected, it is {}", partition.version)))
    }
}
