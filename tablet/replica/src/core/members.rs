//! Who should be in the in-sync set, and the proposals that make it so (R7, R8).
//!
//! Invariants: one proposal at a time, repeated unchanged until the partition's version moves or a rejection of this very
//! set at this very version comes; whoever may be in the set by then counts (`commit`). A leader adds only after its
//! barrier, by an acknowledgement of this epoch that has reached the commit offset, and names the run that gave it.
//!
//! A member that joins with less than it has acknowledged is marked first (R6), so that nobody elects it whatever becomes of
//! its removal. A member goes
//! * at once when it is untrusted, or when its connection is gone (H39); but the last other member only when the
//!   connection has stayed away for two attempts to open it, as a leader that is alone is one copy, and the meta group
//!   would rather elect the other one while it believes that it is well (R20b);
//! * when it has been behind, not joined, or silent for `replica_lag`.
//!
//! It comes back when it has caught up, is heard, and has been out for `replica_lag`: a connection that breaks again and
//! again costs the meta group two commands in that time, not hundreds. Time in which this process itself had no ticks
//! counts against nobody.

use stela_common::clock::Millis;
use stela_common::ids::{TabletId, Version};
use stela_common::wire::{Member, View};

use super::base::{At, Base};
use super::leader::Leader;
use crate::commit::Proposed;
use crate::message::Output;
use crate::progress::Progress;
use crate::variant::Variant;

/// A proposal whose fate is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Open {
    expected: Version,
    /// What it proposes.
    pub(super) proposed: Proposed,
    sent: Millis,
}

impl Open {
    fn is(&self, expected: Version, in_sync: &[Member]) -> bool {
        self.expected == expected && self.proposed.in_sync() == in_sync
    }

    fn send(&self, base: &Base, out: &mut Vec<Output>) {
        let (epoch, in_sync) = (base.log.epoch(), self.proposed.in_sync().to_vec());
        out.push(Output::Propose { epoch, expected: self.expected, in_sync });
    }
}

impl Leader {
    /// Time passes.
    pub(super) fn tick<V: Variant>(&mut self, base: &mut Base, at: At<'_>, out: &mut Vec<Output>) {
        let now = at.now;
        if now.since(self.ticked) > base.me.timing.replica_lag / 2 {
            self.awake = now;
        }
        self.ticked = now;
        let last = base.log.last();
        for follower in &mut self.followers {
            let counted = match self.set.member(follower.tablet) {
                Some(member) => follower.counted(member),
                None => follower.acked(),
            };
            follower.observe(counted, last, now);
        }
        self.advance::<V>(base, at, out);
        if self.announced && !self.superseded {
            self.tell_again(base, now, out);
            self.repeat(base, now, out);
        }
        self.consider::<V>(base, at, out);
        self.fail_waiting(base, now, out);
    }

    /// A later decision in this epoch: the fate of what is open at an earlier version is known.
    pub(super) fn decided<V: Variant>(
        &mut self,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        self.open = None;
        self.rejected = None;
        if let Some(view) = &base.view {
            let gone =
                self.followers.iter().filter(|f| !has_copy(f.tablet, view)).filter_map(|f| f.link);
            out.extend(gone.map(|link| Output::StopShip(link.conn)));
        }
        self.rearranged::<V>(base, at, out);
    }

    /// An answer to a proposal. That it was applied is believed when its view is there.
    pub(super) fn verdict<V: Variant>(
        &mut self,
        expected: Version,
        in_sync: &[Member],
        applied: bool,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if applied || !self.open.as_ref().is_some_and(|o| o.is(expected, in_sync)) {
            return;
        }
        let until = at.now.plus(base.me.timing.propose_again);
        self.rejected = self.open.take().map(|open| (open, until));
        self.rearranged::<V>(base, at, out);
    }

    fn rearranged<V: Variant>(&mut self, base: &mut Base, at: At<'_>, out: &mut Vec<Output>) {
        self.arrange::<V>(base, at.now);
        self.advance::<V>(base, at, out);
        self.consider::<V>(base, at, out);
    }

    fn repeat(&mut self, base: &Base, now: Millis, out: &mut Vec<Output>) {
        if let Some(open) = &mut self.open
            && now.since(open.sent) >= base.me.timing.propose_again
        {
            open.sent = now;
            open.send(base, out);
        }
    }

    /// Proposes what the set lacks or has too many, unless something is open.
    pub(super) fn consider<V: Variant>(
        &mut self,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if !self.announced || self.superseded || self.surrendered() || self.open.is_some() {
            return;
        }
        let Some(view) = &base.view else { return };
        let proposed = self
            .distrust(view, at)
            .or_else(|| self.removal(view, base, at))
            .or_else(|| self.addition::<V>(view, base, at));
        let Some(proposed) = proposed else { return };
        let open = Open { expected: view.version, proposed, sent: at.now };
        open.send(base, out);
        self.open = Some(open);
        self.arrange::<V>(base, at.now);
        // B1: without whoever is to go it may be enough already. In a sound leader the set has not shrunk.
        self.advance::<V>(base, at, out);
    }

    /// R6: the set with a mark on those that lost what they had acknowledged.
    fn distrust(&self, view: &View, at: At<'_>) -> Option<Proposed> {
        let lost = |m: &Member| self.follower(m.tablet).is_some_and(|f| f.untrusted);
        if view.in_sync.iter().all(|m| m.untrusted || !lost(m)) {
            return None;
        }
        let marked = |m: &Member| Member { untrusted: m.untrusted || lost(m), ..*m };
        let set = Proposed::Removal(view.in_sync.iter().map(marked).collect());
        Some(set).filter(|p| !self.was_rejected(view.version, p, at.now))
    }

    /// R7: the set without those that should not be in it.
    fn removal(&self, view: &View, base: &Base, at: At<'_>) -> Option<Proposed> {
        let me = base.me.tablet;
        let stays =
            |m: &Member, broken_for| m.tablet == me || !self.should_go(m, broken_for, base, at);
        let others_stay = view.in_sync.iter().any(|m| m.tablet != me && stays(m, 0));
        let broken_for = if others_stay { 0 } else { base.me.timing.read_lease / 3 };
        // Nearly always everybody stays.
        if view.in_sync.iter().all(|m| stays(m, broken_for)) {
            return None;
        }
        let in_sync = view.in_sync.iter().filter(|m| stays(m, broken_for)).copied().collect();
        Some(Proposed::Removal(in_sync)).filter(|p| !self.was_rejected(view.version, p, at.now))
    }

    fn should_go(&self, member: &Member, broken_for: u64, base: &Base, at: At<'_>) -> bool {
        let Some(follower) = self.follower(member.tablet) else { return false };
        let lag = base.me.timing.replica_lag;
        let broken = follower.broken.is_some_and(|since| at.now.since(since) >= broken_for);
        let behind = follower.behind_since().is_some_and(|since| self.over(since, lag, at.now));
        member.untrusted
            || follower.untrusted
            || broken
            || behind
            || self.is_silent(follower, lag, at)
    }

    /// No permit that was asked for in that time was given. (A follower that hangs stalls reads until it is removed.)
    fn is_silent(&self, follower: &Progress, lag: u64, at: At<'_>) -> bool {
        follower.link.is_some_and(|link| {
            let heard = at.env.permits.asked(link.conn).unwrap_or_default();
            self.over(heard.max(link.since), lag, at.now)
        })
    }

    fn over(&self, since: Millis, lag: u64, now: Millis) -> bool {
        now.since(since.max(self.awake)) >= lag
    }

    /// R8: the set with one that has caught up.
    fn addition<V: Variant>(&self, view: &View, base: &Base, at: At<'_>) -> Option<Proposed> {
        if !self.serving && !V::ADD_BEFORE_BARRIER {
            return None;
        }
        let candidates = self.followers.iter().filter_map(|f| self.candidate(f, view, base, at));
        let sets = candidates.map(|member| {
            let set = view.in_sync.iter().copied().chain([member]).collect();
            Proposed::Addition(set)
        });
        let mut sets = sets.filter(|p| !self.was_rejected(view.version, p, at.now));
        sets.next()
    }

    fn candidate(
        &self,
        follower: &Progress,
        view: &View,
        base: &Base,
        at: At<'_>,
    ) -> Option<Member> {
        let (tablet, link, timing) = (follower.tablet, follower.link?, &base.me.timing);
        let caught_up = follower.acked()? >= base.commit;
        let settled = follower.removed.is_none_or(|t| at.now.since(t) >= timing.replica_lag);
        let heard = at.env.permits.holds(link.conn, at.now, timing.read_lease);
        let behind = follower
            .behind_since()
            .is_some_and(|since| self.over(since, timing.replica_lag, at.now));
        let may = may_come(tablet, view) && caught_up && settled && heard && !behind;
        may.then_some(Member { tablet, incarnation: link.incarnation, untrusted: false })
    }

    /// Is anybody there who may come into the set?
    pub(super) fn has_candidates(&self, base: &Base) -> bool {
        base.view.as_ref().is_some_and(|view| {
            self.followers.iter().any(|f| f.acked().is_some() && may_come(f.tablet, view))
        })
    }

    fn was_rejected(&self, version: Version, proposed: &Proposed, now: Millis) -> bool {
        let rejected = self.rejected.as_ref().filter(|(_, until)| now < *until);
        rejected.is_some_and(|(open, _)| open.is(version, proposed.in_sync()))
    }
}

/// Is there a copy of the partition, or was one counted on until now?
pub(super) fn has_copy(tablet: TabletId, view: &View) -> bool {
    view.replicas.contains(&tablet) || view.in_sync.iter().any(|m| m.tablet == tablet)
}

/// A replica that is neither in the set nor held back.
fn may_come(tablet: TabletId, view: &View) -> bool {
    view.replicas.contains(&tablet)
        && !view.held.contains(&tablet)
        && view.in_sync.iter().all(|m| m.tablet != tablet)
}
