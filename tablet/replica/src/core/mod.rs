//! One partition's replica: a state machine that starts as a follower of everything (R1) and leads when, and as long as,
//! the meta group says so.
//!
//! Invariants, each kept in the part that is named:
//! * nothing is said in an epoch before that epoch is stored, synced (R2): `base`, `journal`;
//! * a follower's log equals its leader's up to what it acknowledges (R3-R5): `follower`;
//! * a leader commits what its whole commit set has, and nothing before its barrier (R6, R9, R10): `serve`;
//! * it reads while its whole commit set permits, and a new one waits for what it permitted itself (R11): `serve`;
//! * it proposes one change of its set at a time, and counts whoever may be in it (R7, R8): `members`.
//!
//! The shell carries the outputs of a step out in order, except that what is written comes first, as one batch. If a
//! write fails, nothing else of that step is carried out and the replica is made anew from what the log has. There is no
//! clock and no other input than those of [`message`](crate::message); time is compared, never awaited: whoever is not
//! [`idle`](Replica::idle) needs ticks.

mod base;
mod drain;
mod follower;
mod leader;
mod members;
mod serve;
#[cfg(test)]
mod tests;

use std::marker::PhantomData;

pub use base::Env;
use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, TabletId};
use stela_common::table::Ack;
use stela_common::wire::View;

use self::base::{At, Base};
use self::follower::{Follower, Sender};
use self::leader::Leader;
use crate::message::{Identity, Input, Output, Refusal, Stored, ToFollower, ToLeader, Write};
use crate::variant::{Sound, Variant};

/// A client's write that has its place in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Its offset.
    pub offset: Offset,
    /// Its epoch.
    pub epoch: Epoch,
    /// The commit offset now.
    pub commit: Offset,
    /// Its number.
    pub write: Write,
}

#[derive(Clone, Debug)]
enum Role {
    Follower(Follower),
    Leader(Box<Leader>),
}

/// One partition's replica.
#[derive(Clone, Debug)]
pub struct Replica<V: Variant = Sound> {
    base: Base,
    role: Role,
    variant: PhantomData<V>,
}

impl<V: Variant> Replica<V> {
    /// A follower of everything (R1).
    #[must_use]
    pub fn new(me: Identity, stored: Stored, now: Millis) -> Self {
        Self {
            base: Base::new(me, stored, now),
            role: Role::Follower(Follower::default()),
            variant: PhantomData,
        }
    }

    /// Something happens; what is to be done about it is added to `out`.
    pub fn step(&mut self, now: Millis, env: &Env<'_>, input: Input, out: &mut Vec<Output>) {
        let at = At { now, env };
        match input {
            Input::View(view) => self.view_changed(view, at, out),
            Input::Options(options) => {
                self.base.me.options = options;
                match &mut self.role {
                    Role::Follower(follower) => follower.synced::<V>(&mut self.base, out),
                    Role::Leader(leader) => leader.advance::<V>(&mut self.base, at, out),
                }
            }
            Input::MetaLease(until) => {
                self.base.lease_until = self.base.lease_until.max(until);
                if let Role::Leader(leader) = &mut self.role {
                    leader.leased::<V>(&mut self.base, at, out);
                }
            }
            Input::Connected { conn, peer, incarnation } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.connected(conn, peer, incarnation, &self.base, at, out);
                }
            }
            Input::Disconnected(conn) => match &mut self.role {
                Role::Follower(follower) => follower.disconnected(conn, &mut self.base, at, out),
                Role::Leader(leader) => leader.disconnected::<V>(conn, &mut self.base, at, out),
            },
            Input::FromLeader { conn, peer, incarnation, message } => {
                self.hear_leader(Sender { conn, peer, incarnation }, message, at, out);
            }
            Input::FromFollower { conn, message } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.hear::<V>(conn, message, &mut self.base, at, out);
                }
            }
            Input::Synced(write) => {
                self.base.log.synced(write);
                match &mut self.role {
                    Role::Follower(follower) => follower.synced::<V>(&mut self.base, out),
                    Role::Leader(leader) => leader.synced::<V>(&mut self.base, at, out),
                }
            }
            Input::Snapshot(to) => self.base.snapshot = self.base.snapshot.max(to),
            Input::Floor(to) => {
                self.base.floor = self.base.floor.max(to);
                self.base.snapshot = self.base.snapshot.max(to);
                if let Role::Leader(leader) = &mut self.role {
                    leader.floor_moved(&self.base, at, out);
                }
            }
            Input::Verdict { expected, in_sync, applied } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.verdict::<V>(expected, &in_sync, applied, &mut self.base, at, out);
                }
            }
            Input::Drain { epoch, deadline } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.drain::<V>(epoch, deadline, &mut self.base, at, out);
                }
            }
            Input::Tick => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.tick::<V>(&mut self.base, at, out);
                }
            }
        }
    }

    /// What the meta group has decided. A lagging nameserver's older word is ignored (R7).
    fn view_changed(&mut self, view: View, at: At<'_>, out: &mut Vec<Output>) {
        let base = &mut self.base;
        if base.view.as_ref().is_some_and(|known| view.version <= known.version) {
            return;
        }
        let epoch = view.epoch;
        let elected =
            Base::is_elected(&view, &base.me) || (V::RESUME_EPOCH && view.leader == base.me.tablet);
        let known = base.known_epoch();
        base.view = Some(view);
        let stored = base.log.epoch();
        if let Role::Leader(leader) = &mut self.role
            && epoch <= stored
        {
            return leader.decided::<V>(base, at, out);
        }
        let fresh = epoch > stored || (V::RESUME_EPOCH && epoch == stored);
        if elected && fresh && !base.quarantined() {
            self.activate(epoch, at, out);
        } else if epoch > known {
            self.leave(epoch, at, out);
        }
    }

    /// R1, R2, R10: this run leads in that epoch. It serves later.
    fn activate(&mut self, epoch: Epoch, at: At<'_>, out: &mut Vec<Output>) {
        let former = match &mut self.role {
            Role::Follower(_) => None,
            Role::Leader(leader) => Some(leader.links()),
        };
        self.leave(epoch, at, out);
        self.base.store_epoch(epoch, true, out);
        let mut leader = Leader::new::<V>(&self.base, at);
        leader.take_over(former.unwrap_or_default());
        self.role = Role::Leader(Box::new(leader));
    }

    /// Whatever it is, it is no more: that higher epoch is known.
    fn leave(&mut self, epoch: Epoch, at: At<'_>, out: &mut Vec<Output>) {
        match &mut self.role {
            Role::Follower(follower) => follower.leave(epoch, &mut self.base, at, out),
            Role::Leader(_) => {
                out.push(Output::SteppedDown);
                self.role = Role::Follower(Follower::default());
            }
        }
    }

    fn hear_leader(
        &mut self,
        sender: Sender,
        message: ToFollower,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        let (stored, known) = (self.base.log.epoch(), self.base.known_epoch());
        let epoch = match &message {
            ToFollower::Lead { epoch }
            | ToFollower::CommonPoint { epoch, .. }
            | ToFollower::NeedSnapshot { epoch, .. }
            | ToFollower::Records { epoch, .. }
            | ToFollower::Commit { epoch, .. } => *epoch,
        };
        if let ToFollower::Lead { .. } = message {
            if epoch < known {
                // R3, R11: whoever leads there is to know that it gets nothing from here.
                return out.push(Output::SendLeader(sender.conn, ToLeader::Left { epoch: known }));
            }
            if !self.may_follow(sender, epoch) {
                return;
            }
            if epoch > stored && matches!(self.role, Role::Leader(_)) {
                self.leave(epoch, at, out);
            }
            if let Role::Follower(follower) = &mut self.role {
                follower.lead::<V>(sender, epoch, &mut self.base, at, out);
            }
        } else if let Role::Follower(follower) = &mut self.role {
            // R3: one of an epoch that was left, or was never joined, says nothing.
            let current = epoch == stored && epoch == known;
            let unchecked = V::NO_EPOCH_CHECK && matches!(message, ToFollower::Records { .. });
            if current || unchecked {
                follower.hear::<V>(sender, message, &mut self.base, out);
            }
        }
    }

    /// Is it that run which leads in the epoch, as far as is known here?
    fn may_follow(&self, sender: Sender, epoch: Epoch) -> bool {
        let named = self.base.view.as_ref().filter(|v| v.epoch == epoch);
        V::RESUME_EPOCH
            || named.is_none_or(|v| {
                (v.leader, v.leader_incarnation) == (sender.peer, sender.incarnation)
            })
    }

    /// Gives a client's write its place; `level`: who must have it before it is acknowledged. A leader that does not serve yet refuses: what it refuses was certainly not
    /// done, and the client comes again. The write is to be in the log before the next step.
    ///
    /// # Errors
    /// Why it is not admitted; nothing has changed.
    pub fn admit(&mut self, level: Ack, now: Millis) -> Result<Admitted, Refusal> {
        match &mut self.role {
            _ if self.base.quarantined() => Err(Refusal::Quarantined),
            Role::Follower(_) => Err(Refusal::NotLeader),
            Role::Leader(leader) => leader.admit(level, &mut self.base, now),
        }
    }

    /// Up to where writes may be acknowledged that ask for the leader alone (R34); `None`: none at the moment.
    #[must_use]
    pub fn stored(&self, now: Millis) -> Option<Offset> {
        match &self.role {
            Role::Leader(leader) if !self.base.quarantined() => leader.stored::<V>(&self.base, now),
            _ => None,
        }
    }

    /// The log did not take an admitted write. Of several, the last one first, and before the next step.
    pub fn revoke(&mut self, admitted: Admitted) {
        self.base.log.revoke(admitted.write, admitted.offset);
    }

    /// May a read be answered that was just done, and showed all that was committed then? (R11: the permit is checked
    /// after the work.) `since`: when it came; a table with [`Read::Confirm`](stela_common::table::Read::Confirm) needs
    /// permits that were asked for later.
    ///
    /// # Errors
    /// Why not. [`Refusal::LeaseExpired`] and [`Refusal::NotServing`] may be over soon.
    pub fn may_read(&self, since: Millis, now: Millis, env: &Env<'_>) -> Result<(), Refusal> {
        match &self.role {
            _ if self.base.quarantined() => Err(Refusal::Quarantined),
            Role::Follower(_) => Err(Refusal::NotLeader),
            Role::Leader(leader) => leader.may_read::<V>(&self.base, since, At { now, env }),
        }
    }

    /// May the repetition of a write that is not committed yet wait for it?
    ///
    /// # Errors
    /// Why not.
    pub fn may_wait(&self, now: Millis) -> Result<(), Refusal> {
        match &self.role {
            _ if self.base.quarantined() => Err(Refusal::Quarantined),
            Role::Follower(_) => Err(Refusal::NotLeader),
            Role::Leader(leader) => leader.may_wait(&self.base, now),
        }
    }

    /// May a write be acknowledged that is known to be committed: the repetition of an earlier one (R9, R36)?
    ///
    /// # Errors
    /// Why not.
    pub fn may_acknowledge(&self, now: Millis) -> Result<(), Refusal> {
        match &self.role {
            _ if self.base.quarantined() => Err(Refusal::Quarantined),
            Role::Follower(_) => Err(Refusal::NotLeader),
            Role::Leader(leader) => leader.may_acknowledge(&self.base, now),
        }
    }

    /// Does it lead, serving or not yet?
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Does it lead, is its barrier passed (R10), and has it not surrendered (R12)?
    #[must_use]
    pub fn serving(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.serving())
    }

    /// Does it lead, not serve yet, and wait for nothing of its own any more (R23)?
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if leader.waits_for_others::<V>(&self.base))
    }

    /// The epoch in which it has surrendered (R12), as long as it acts in none above.
    #[must_use]
    pub fn surrendered(&self) -> Option<Epoch> {
        matches!(&self.role, Role::Leader(leader) if leader.surrendered())
            .then(|| self.base.log.epoch())
    }

    /// Does it need no ticks until something else happens?
    #[must_use]
    pub fn idle(&self) -> bool {
        match &self.role {
            Role::Follower(_) => true,
            Role::Leader(leader) => leader.idle(&self.base),
        }
    }

    /// Does it wait for a snapshot, and may what it has be replaced by one? No longer when a later epoch is known, or
    /// while the leader is being asked anew.
    #[must_use]
    pub fn awaits_snapshot(&self) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.awaits_snapshot())
    }

    /// The highest epoch that it acts in.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.base.log.epoch()
    }

    /// The commit offset, as far as it is known here.
    #[must_use]
    pub fn commit(&self) -> Offset {
        self.base.commit
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> Offset {
        self.base.log.last()
    }

    /// What the meta group has decided, as far as it is known here.
    #[must_use]
    pub fn view(&self) -> Option<&View> {
        self.base.view.as_ref()
    }

    /// Who leads, as far as it is known here.
    #[must_use]
    pub fn leader(&self) -> Option<(TabletId, Incarnation)> {
        let (base, me) = (&self.base, &self.base.me);
        let follower = match &self.role {
            Role::Leader(_) => return Some((me.tablet, me.incarnation)),
            Role::Follower(follower) => follower,
        };
        let viewed = base.view.as_ref();
        let heard =
            follower.leader().filter(|_| viewed.is_none_or(|v| v.epoch <= base.log.epoch()));
        heard
            .or_else(|| viewed.map(|v| (v.leader, v.leader_incarnation)))
            // It would be this tablet, and it does not: a former run of it did, or it is about to be told.
            .filter(|(tablet, _)| *tablet != me.tablet)
    }

    /// The followers of a leader: what each has acknowledged in this epoch, and whether it counts for the commit offset.
    pub fn followers(&self) -> impl Iterator<Item = (TabletId, Offset, bool)> + '_ {
        let leader = match &self.role {
            Role::Follower(_) => None,
            Role::Leader(leader) => Some(leader),
        };
        leader.into_iter().flat_map(|l| l.followers())
    }
}
