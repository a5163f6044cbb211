//! R14: one run of a tablet's process registers, in one command with all that follows from it.
//!
//! Invariants: a run that was superseded never registers again; a trusted member always stands in its sets as the run
//! that is registered; a member that cannot prove its copy keeps its place, marked with the worst reason that there was
//! (R15), and the mark stays until it is removed. Nothing is elected here: that the leader's run is gone is for the planner to see (R1).

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Incarnation, PartitionKey, TableId, TabletId};
use stela_common::table::limits;

use super::{Outcome, Step, stale};
use crate::command::{Register, Reply};
use crate::object::Key;
use crate::rules::Rules;
use crate::state::{Doubt, PAST, Tablet};

/// A table number above this is no catalog's: it does not use up those that are left.
const NUMBERS: u32 = u32::MAX / 2;

/// What a registration proves of the copies on its disk.
struct Proof<'a> {
    /// The same directory, and it knows the run that registered last: not rolled back, cloned or wiped.
    same_disk: bool,
    /// Nothing that was only in memory is gone: a clean stop, or the same boot of the machine.
    no_tail_lost: bool,
    /// Partitions with damage that is not proven harmless (R30).
    damaged: &'a [PartitionKey],
}

impl Proof<'_> {
    /// What is left to doubt of the copy of that partition.
    fn doubt(&self, key: PartitionKey, may_lose_tail: bool) -> Option<Doubt> {
        if !self.same_disk {
            Some(Doubt::Disk)
        } else if self.damaged.contains(&key) {
            Some(Doubt::Damage)
        } else if may_lose_tail && !self.no_tail_lost {
            Some(Doubt::Tail)
        } else {
            None
        }
    }
}

impl Step<'_> {
    pub(super) fn register<R: Rules>(&mut self, register: &Register) -> Outcome {
        let own = own_run(register)?;
        let outcome = self.admit::<R>(register, own)?;
        self.keep_numbers(register.highest);
        Ok(outcome)
    }

    /// R37: a catalog that was founded anew, or restored, does not give out a number of which copies exist (H26).
    fn keep_numbers(&mut self, highest: TableId) {
        if highest.0 <= NUMBERS {
            self.state.counters.table = self.state.counters.table.max(highest.0);
        }
    }

    fn admit<R: Rules>(&mut self, register: &Register, own: Incarnation) -> Outcome {
        let Some((id, known)) = self.state.tablet(&register.endpoint) else {
            return self.welcome(register, own);
        };
        if known.incarnation == own {
            if !known.healthy {
                self.set_health(id, true);
                self.renew_outsiders(id);
            }
            return Ok(Reply::Registered(id));
        }
        if known.starts.contains(&own) || known.past.contains(&own) {
            return Err(stale("late registration of a run that was superseded"));
        }
        let proof = Proof {
            same_disk: known.dir_uuid == register.dir_uuid
                && register.starts.contains(&known.incarnation),
            no_tail_lost: register.clean
                || (!register.boot_id.is_empty() && register.boot_id == known.boot_id),
            damaged: &register.damaged,
        };
        let mut past = known.past.clone();
        past.extend(known.starts.iter().filter(|run| !register.starts.contains(run)));
        past.drain(..past.len().saturating_sub(PAST));
        let sdk_endpoint = known.sdk_endpoint.clone();
        self.rebind::<R>(id, own, &proof);
        let tablet = Tablet { sdk_endpoint, ..self.described(register, own, past) };
        self.state.tablets.insert(id, tablet);
        self.changed.insert(Key::Tablet(id));
        Ok(Reply::Registered(id))
    }

    /// A new address is a new tablet.
    fn welcome(&mut self, register: &Register, own: Incarnation) -> Outcome {
        let number = self.state.counters.tablet.checked_add(1).ok_or(Code::InvalidParameter)?;
        let id = TabletId(number);
        self.state.counters.tablet = number;
        self.state.tablets.insert(id, self.described(register, own, Vec::new()));
        self.changed.insert(Key::Tablet(id));
        Ok(Reply::Registered(id))
    }

    fn described(&self, register: &Register, own: Incarnation, past: Vec<Incarnation>) -> Tablet {
        Tablet {
            endpoint: register.endpoint.clone(),
            incarnation: own,
            starts: register.starts.clone(),
            dir_uuid: register.dir_uuid.clone(),
            boot_id: register.boot_id.clone(),
            healthy: true,
            since: self.now,
            version: self.version(),
            past,
            leaving: false,
            sdk_endpoint: String::new(),
        }
    }

    /// Binds the memberships of the tablet to its new run, or marks them; with `auto_failover` off its replicas are
    /// held until somebody takes them back (R21). A replica outside the set has its partition's version renewed: what
    /// was proposed about its former run is stale.
    fn rebind<R: Rules>(&mut self, id: TabletId, own: Incarnation, proof: &Proof<'_>) {
        let version = self.version();
        let hold = !self.state.acts_by_itself();
        for (key, partition) in &mut self.state.partitions {
            let Some(replica) = partition.replicas.iter_mut().find(|r| r.tablet == id) else {
                continue;
            };
            replica.held |= hold;
            if let Some(member) = partition.in_sync.iter_mut().find(|m| m.tablet == id) {
                // A mark of which no reason is known may have the worst one.
                let known = member.untrusted.then(|| replica.doubt.unwrap_or(Doubt::Disk));
                let doubt = known.max(proof.doubt(*key, partition.may_lose_tail));
                if doubt.is_none() || R::TRUST_ALL {
                    member.incarnation = own;
                } else {
                    member.untrusted = true;
                    replica.doubt = doubt;
                }
            }
            partition.version = version;
            self.changed.insert(Key::Partition(*key));
        }
    }
}

/// The run that registers: the last of its list.
fn own_run(register: &Register) -> Result<Incarnation, Refusal> {
    let endpoint = &register.endpoint;
    if endpoint.is_empty()
        || endpoint.len() > limits::NAME
        || endpoint.chars().any(char::is_whitespace)
    {
        return Err(Code::InvalidParameter.into());
    }
    match register.starts.as_slice() {
        [known @ .., own] if own.0 != 0 && !known.contains(own) => Ok(*own),
        _ => Err(Refusal::new(Code::InvalidParameter, "invalid list of starts")),
    }
}
