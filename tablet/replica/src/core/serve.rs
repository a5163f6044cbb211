//! What a leader commits, acknowledges and lets be read.
//!
//! Invariants: the commit offset is what every member of the commit set has, and never goes back (R6). Before the barrier
//! nothing is committed, acknowledged or read (R10): every member must have confirmed the log as it was at activation, in
//! this epoch, and whoever this replica permitted to read must have lost that permit by now (R11). Alone in its commit set
//! a leader acknowledges and reads only while its meta lease holds, and without one it commits nothing behind its barrier
//! (R9). A read is answered only while every
//! other member of the commit set permits it, on the connection on which it has joined (R11). Where the leader's word is
//! enough (`ack=leader`, R34) that is its lease, for acknowledging and for reading: outside of these promises.

use stela_common::clock::Millis;
use stela_common::ids::Offset;
use stela_common::table::{Ack, Read};

use super::Admitted;
use super::base::{At, Base};
use super::drain::Drain;
use super::leader::Leader;
use crate::message::{Output, Refusal, ToFollower};
use crate::variant::Variant;

impl Leader {
    pub(super) fn serving(&self) -> bool {
        self.serving && !self.surrendered()
    }

    /// Its own part of the barrier is done: it waits for others to confirm (R10), or for the end of permits (R11).
    pub(super) fn waits_for_others<V: Variant>(&self, base: &Base) -> bool {
        self.announced && !self.serving && base.log.stable::<V>(base.me.options.sync) >= self.start
    }

    /// Does it neither wait for anything nor watch anybody? Followers in the set are watched: a leader with such is
    /// never idle. So is who may come into it.
    pub(super) fn idle(&self, base: &Base) -> bool {
        self.serving()
            && self.set.is_alone()
            && self.open.is_none()
            && self.drain == Drain::Off
            && self.acknowledged == base.log.last()
            && self.followers.iter().all(|f| f.link.is_none())
    }

    /// Whatever could move the commit offset has happened.
    pub(super) fn advance<V: Variant>(
        &mut self,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if !self.announced || self.surrendered() {
            return;
        }
        let own = base.log.stable::<V>(base.me.options.sync);
        let reached = self.reached(own);
        if !self.serving {
            let at_once = V::SERVE_LOG_END || V::SERVE_OLD_COMMIT;
            let passed = reached.is_some_and(|r| r >= self.start) && at.now >= self.wait_until;
            if !passed && !at_once {
                return;
            }
            self.serving = true;
            out.push(Output::Serving { epoch: base.log.epoch(), start: self.start });
            if !V::SERVE_OLD_COMMIT {
                self.commit(self.start, base, at.now, out);
            }
        }
        if let Some(reached) = reached
            && self.may_commit(base, at.now)
        {
            self.commit(reached, base, at.now, out);
        }
        if base.commit > self.acknowledged && self.may_acknowledge(base, at.now).is_ok() {
            self.acknowledged = base.commit;
            out.push(Output::Acknowledged(base.commit));
        }
        self.surrender::<V>(base, at.now, out);
    }

    /// The meta lease was renewed.
    pub(super) fn leased<V: Variant>(
        &mut self,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        self.failed = self.failed && !base.leased(at.now);
        self.advance::<V>(base, at, out);
    }

    /// What the whole commit set has; nothing if somebody in it has confirmed nothing in this epoch.
    fn reached(&self, own: Offset) -> Option<Offset> {
        self.set.others().iter().try_fold(own, |least, member| {
            let acked = self.follower(member.tablet)?.counted(member)?;
            Some(least.min(acked))
        })
    }

    fn commit(&mut self, to: Offset, base: &mut Base, now: Millis, out: &mut Vec<Output>) {
        if to <= base.commit {
            return;
        }
        base.committed(to, out);
        self.moved = now;
        self.failed = false;
        let (epoch, commit) = (base.log.epoch(), base.commit);
        let joined = self.followers.iter().filter_map(|f| f.link).filter(|l| l.joining.is_some());
        out.extend(
            joined.map(|l| Output::SendFollower(l.conn, ToFollower::Commit { epoch, commit })),
        );
    }

    /// R9: alone, it needs the meta lease, as somebody may have been elected against its will (R16).
    fn may_commit(&self, base: &Base, now: Millis) -> bool {
        !self.set.is_alone() || base.leased(now)
    }

    /// R9, R36: whoever waits now for what is written already may have to wait for ever. Before the barrier nobody can tell.
    pub(super) fn may_wait(&self, base: &Base, now: Millis) -> Result<(), Refusal> {
        if self.serving() && !enough_in_sync(base) {
            Err(Refusal::NotEnoughInSync)
        } else if self.serving() && self.stalled(base, now) {
            Err(Refusal::LeaseExpired)
        } else {
            Ok(())
        }
    }

    /// R36, R9.
    pub(super) fn may_acknowledge(&self, base: &Base, now: Millis) -> Result<(), Refusal> {
        if !self.serving() {
            Err(Refusal::NotServing)
        } else if !self.may_commit(base, now) {
            Err(Refusal::LeaseExpired)
        } else if !enough_in_sync(base) {
            Err(Refusal::NotEnoughInSync)
        } else {
            Ok(())
        }
    }

    /// R9, R10, R12, R36.
    pub(super) fn admit(
        &mut self,
        level: Ack,
        base: &mut Base,
        now: Millis,
    ) -> Result<Admitted, Refusal> {
        if !self.serving || self.drain != Drain::Off {
            return Err(Refusal::NotServing);
        }
        if !enough_in_sync(base) {
            return Err(Refusal::NotEnoughInSync);
        }
        if self.stalled(base, now) || (level == Ack::Leader && !base.leased(now)) {
            return Err(Refusal::LeaseExpired);
        }
        if base.commit == base.log.last() {
            self.moved = now;
        }
        let epoch = base.log.epoch();
        let write = base.log.append(epoch);
        Ok(Admitted { offset: base.log.last(), epoch, commit: base.commit, write })
    }

    /// R34: up to where a write may be acknowledged that asks for the leader alone: what is stored here as the table's
    /// `sync` asks, while it serves and its meta lease holds.
    pub(super) fn stored<V: Variant>(&self, base: &Base, now: Millis) -> Option<Offset> {
        (self.serving() && base.leased(now)).then(|| base.log.stable::<V>(base.me.options.sync))
    }

    /// R9: without a lease, and writes wait for a commit offset that has stood still too long.
    fn stalled(&self, base: &Base, now: Millis) -> bool {
        let since = now.since(self.moved.max(self.awake));
        !base.leased(now) && base.commit < base.log.last() && since >= base.me.timing.replica_lag
    }

    /// Whoever waits for too long without a lease is told so, once.
    pub(super) fn fail_waiting(&mut self, base: &Base, now: Millis, out: &mut Vec<Output>) {
        if self.serving() && !self.failed && self.stalled(base, now) {
            self.failed = true;
            out.push(Output::FailWaiting);
        }
    }

    /// R11.
    pub(super) fn may_read<V: Variant>(
        &self,
        base: &Base,
        since: Millis,
        at: At<'_>,
    ) -> Result<(), Refusal> {
        if !self.serving() {
            return Err(Refusal::NotServing);
        }
        if V::READ_WITHOUT_PERMIT {
            return Ok(());
        }
        if base.me.options.ack == Ack::Leader {
            // R34: what was acknowledged is here, whoever else has it.
            return if base.leased(at.now) { Ok(()) } else { Err(Refusal::LeaseExpired) };
        }
        let permitted = |conn| match base.me.options.read {
            Read::Permit => at.env.permits.holds(conn, at.now, base.me.timing.read_lease),
            // R38: no clock, only the order of what this replica does.
            Read::Confirm => at.env.permits.asked(conn).is_some_and(|asked| asked > since),
        };
        let all = self.set.others().iter().all(|member| {
            let follower = self.follower(member.tablet);
            follower.and_then(|f| f.follows(member.incarnation)).is_some_and(permitted)
        });
        if all && self.may_commit(base, at.now) { Ok(()) } else { Err(Refusal::LeaseExpired) }
    }
}

fn enough_in_sync(base: &Base) -> bool {
    let members = base.view.as_ref().map_or(0, |v| v.in_sync.len());
    members >= usize::try_from(base.me.options.min_insync).unwrap_or(usize::MAX)
}
