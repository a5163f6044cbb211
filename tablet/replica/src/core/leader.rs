//! The leader's role: what it keeps, and its side of the streams.
//!
//! Invariants: nothing is sent before the epoch is on disk (R2). A follower's word counts when it comes on the connection
//! that was opened last, in this epoch, and names the joining that was answered last (R3). A follower that has said that
//! it left is not heard again on that connection (R11): whatever it says was said before.

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, TabletId};

use super::base::{At, Base};
use super::drain::Drain;
use super::members::{Open, has_copy};
use crate::commit::CommitSet;
use crate::epochs::Epochs;
use crate::message::{Conn, Output, ToFollower, ToLeader};
use crate::progress::{Joining, Link, Progress};
use crate::variant::Variant;

/// A leader, from the decision that made it one.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// Its log end then (R10).
    pub(super) start: Offset,
    /// Neither reads nor acknowledgements before (R11).
    pub(super) wait_until: Millis,
    /// The epoch is on disk: it may speak.
    pub(super) announced: bool,
    /// The barrier is passed.
    pub(super) serving: bool,
    /// The other replicas, by tablet.
    pub(super) followers: Vec<Progress>,
    /// Whose acknowledgements count.
    pub(super) set: CommitSet,
    /// The proposal whose fate is not known.
    pub(super) open: Option<Open>,
    /// A proposal that was rejected: not again before that time.
    pub(super) rejected: Option<(Open, Millis)>,
    /// A follower knows of a higher epoch: nothing that is proposed in this one can succeed.
    pub(super) superseded: bool,
    /// R12.
    pub(super) drain: Drain,
    /// Up to where writes were acknowledged to their callers.
    pub(super) acknowledged: Offset,
    /// When the commit offset moved, or began to be waited for.
    pub(super) moved: Millis,
    /// R9: whoever waited was told that the outcome is unknown, and nothing has moved since.
    pub(super) failed: bool,
    /// The last tick.
    pub(super) ticked: Millis,
    /// Since when this process has had its ticks: before, it could not hear anybody.
    pub(super) awake: Millis,
}

impl Leader {
    /// A leader that was just decided; its view is known, and its epoch is about to be stored.
    pub(super) fn new<V: Variant>(base: &Base, at: At<'_>) -> Self {
        let start = base.log.last();
        let surrendered = base.view.as_ref().and_then(|v| v.surrendered);
        let granted = base.given.last(surrendered).max(at.env.grants.start());
        let wait = if V::SKIP_GRANT_WAIT { 0 } else { base.me.timing.read_lease_grantor };
        let mut leader = Self {
            start,
            wait_until: granted.plus(wait),
            announced: false,
            serving: false,
            followers: Vec::new(),
            set: CommitSet::default(),
            open: None,
            rejected: None,
            superseded: false,
            drain: Drain::Off,
            acknowledged: Offset(0),
            moved: at.now,
            failed: false,
            ticked: at.now,
            awake: at.now,
        };
        leader.arrange::<V>(base, at.now);
        leader
    }

    /// Brings followers and commit set in line with what was decided and what is proposed.
    pub(super) fn arrange<V: Variant>(&mut self, base: &Base, now: Millis) {
        let Some(view) = &base.view else { return };
        let me = base.me.tablet;
        self.followers.retain(|f| has_copy(f.tablet, view));
        for tablet in view.replicas.iter().copied().chain(view.in_sync.iter().map(|m| m.tablet)) {
            if tablet != me && self.follower(tablet).is_none() {
                self.followers.push(Progress::new(tablet, base.log.last(), now));
            }
        }
        self.followers.sort_by_key(|f| f.tablet);
        let former = std::mem::take(&mut self.set);
        self.set = CommitSet::new::<V>(me, &view.in_sync, self.open.as_ref().map(|o| &o.proposed));
        for follower in &mut self.followers {
            if self.set.member(follower.tablet).is_none() {
                follower.outside();
                if former.member(follower.tablet).is_some() {
                    follower.removed = Some(now);
                }
            }
        }
    }

    pub(super) fn follower(&self, tablet: TabletId) -> Option<&Progress> {
        self.followers.iter().find(|f| f.tablet == tablet)
    }

    /// Followers, what each has acknowledged, and whether it counts.
    pub(super) fn followers(&self) -> impl Iterator<Item = (TabletId, Offset, bool)> + '_ {
        self.followers
            .iter()
            .map(|f| (f.tablet, f.acked().unwrap_or_default(), self.set.member(f.tablet).is_some()))
    }

    /// Its connections.
    pub(super) fn links(&self) -> Vec<(TabletId, Link)> {
        self.followers.iter().filter_map(|f| Some((f.tablet, f.link?))).collect()
    }

    /// The connections of the same tablet's leadership before: whoever is there joins anew.
    pub(super) fn take_over(&mut self, links: Vec<(TabletId, Link)>) {
        for (tablet, link) in links {
            if let Some(follower) = self.followers.iter_mut().find(|f| f.tablet == tablet) {
                follower.connected(link.conn, link.incarnation, link.since);
            }
        }
    }

    /// A follower can be reached.
    pub(super) fn connected(
        &mut self,
        conn: Conn,
        peer: TabletId,
        incarnation: Incarnation,
        base: &Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if let Some(follower) = self.followers.iter_mut().find(|f| f.tablet == peer) {
            follower.connected(conn, incarnation, at.now);
            if self.announced {
                tell(follower, base.log.epoch(), at.now, out);
            }
        }
    }

    /// A connection is gone; a member behind it is proposed for removal (H39).
    pub(super) fn disconnected<V: Variant>(
        &mut self,
        conn: Conn,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        let last = base.log.last();
        if let Some(follower) = self.followers.iter_mut().find(|f| f.is_on(conn)) {
            follower.disconnected(last, at.now);
            self.consider::<V>(base, at, out);
        }
    }

    /// Writes are on disk. The first time it is the epoch: now it may speak (R2).
    pub(super) fn synced<V: Variant>(
        &mut self,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if !self.announced && base.log.settled() {
            self.announced = true;
            for follower in &mut self.followers {
                tell(follower, base.log.epoch(), at.now, out);
            }
            self.consider::<V>(base, at, out);
        }
        self.advance::<V>(base, at, out);
    }

    /// A follower speaks.
    pub(super) fn hear<V: Variant>(
        &mut self,
        conn: Conn,
        message: ToLeader,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        let mine = base.log.epoch();
        let Some(index) = self.followers.iter_mut().position(|f| f.is_on(conn)) else { return };
        if !self.announced {
            return;
        }
        match message {
            ToLeader::Hello { epoch, nonce, history, last, rebuild } if epoch == mine => {
                self.join(index, nonce, (&history, last), rebuild, base, out);
                self.consider::<V>(base, at, out);
            }
            ToLeader::Ack { epoch, nonce, offset }
                if epoch == mine || (V::OLD_ACKS && epoch < mine) =>
            {
                if self.acked(index, (epoch < mine, nonce), offset, base, at.now) {
                    self.advance::<V>(base, at, out);
                    if self.has_candidates(base) {
                        self.consider::<V>(base, at, out);
                    }
                }
            }
            ToLeader::Left { epoch } if epoch > mine => {
                if let Some(link) = &mut self.followers[index].link {
                    link.left = true;
                    link.joining = None;
                    self.superseded = true;
                    out.push(Output::StopShip(conn));
                }
            }
            // Of an epoch that is over, or of one that this leader is yet to hear of.
            ToLeader::Hello { .. } | ToLeader::Ack { .. } | ToLeader::Left { .. } => {}
        }
    }

    /// A follower has said what its log is: it is told where that parts from this one, and gets what follows (R4).
    fn join(
        &mut self,
        index: usize,
        nonce: u64,
        (history, last): (&Epochs, Offset),
        rebuild: bool,
        base: &Base,
        out: &mut Vec<Output>,
    ) {
        let follower = &mut self.followers[index];
        let counted_on = self.set.member(follower.tablet).is_some();
        if !counted_on {
            follower.outside();
        }
        let Some(link) = follower.link.as_mut().filter(|l| !l.left) else { return };
        let offset = base.log.epochs().common_point(base.log.last(), history, last);
        // R6: what was acknowledged and is not there has been lost; nothing of this copy counts.
        follower.untrusted |= offset < follower.floor;
        let (conn, epoch) = (link.conn, base.log.epoch());
        // R16: an unclean epoch since its last entry may take back what it knows as committed.
        let known = history.last().map_or(Epoch(0), |(epoch, _)| epoch);
        let unclean = base.view.as_ref().is_some_and(|v| v.last_unclean > known);
        if rebuild || offset < base.floor {
            link.joining = None;
            out.push(Output::StopShip(conn));
            if counted_on {
                // Whoever may be in the set may be elected: it gives up nothing before it is out. It is told again.
                follower.untrusted = true;
            } else {
                let (common, offset) = (offset, base.floor);
                let need = ToFollower::NeedSnapshot { epoch, nonce, common, offset, unclean };
                out.push(Output::SendFollower(conn, need));
            }
            return;
        }
        link.joining = Some(Joining { nonce, acked: None });
        out.push(Output::SendFollower(
            conn,
            ToFollower::CommonPoint { epoch, nonce, offset, unclean },
        ));
        out.push(Output::Ship {
            conn,
            from: offset.next(),
            prev: (offset, base.log.epochs().epoch_at(offset)),
        });
        out.push(Output::SendFollower(conn, ToFollower::Commit { epoch, commit: base.commit }));
    }

    /// A follower's log equals this one up to `offset`. Tells whether that is news.
    fn acked(
        &mut self,
        index: usize,
        (old, nonce): (bool, u64),
        offset: Offset,
        base: &Base,
        now: Millis,
    ) -> bool {
        let last = base.log.last();
        let follower = &mut self.followers[index];
        let Some(link) = follower.link.as_mut().filter(|l| !l.left) else { return false };
        let joining = match &mut link.joining {
            // B9.
            joining if old => joining.get_or_insert(Joining { nonce: 0, acked: None }),
            Some(joining) if joining.nonce == nonce => joining,
            _ => return false,
        };
        // What this log does not have, nobody has of it.
        if offset > last || joining.acked.is_some_and(|known| known >= offset) {
            return false;
        }
        joining.acked = Some(offset);
        follower.floor = follower.floor.max(offset);
        let counted = match self.set.member(follower.tablet) {
            Some(member) => follower.counted(member),
            None => Some(offset),
        };
        follower.observe(counted, last, now);
        true
    }

    /// The log reaches less far back: whoever is shipped something older joins anew, and hears what it needs (H37).
    pub(super) fn floor_moved(&mut self, base: &Base, at: At<'_>, out: &mut Vec<Output>) {
        for follower in &mut self.followers {
            let Some(link) = follower.link.as_mut() else { continue };
            if link.joining.is_some_and(|j| j.acked.is_none_or(|acked| acked < base.floor)) {
                link.joining = None;
                out.push(Output::StopShip(link.conn));
                tell(follower, base.log.epoch(), at.now, out);
            }
        }
    }

    /// Tells followers again who leads, if what they were told had no effect: on a connection that was taken for
    /// another, or by a core that was made anew.
    pub(super) fn tell_again(&mut self, base: &Base, now: Millis, out: &mut Vec<Output>) {
        let pause = base.me.timing.propose_again;
        for follower in &mut self.followers {
            let silent = follower.link.is_some_and(|l| {
                !l.left
                    && l.joining.is_none_or(|j| j.acked.is_none())
                    && l.told.is_some_and(|told| now.since(told) >= pause)
            });
            if silent {
                tell(follower, base.log.epoch(), now, out);
            }
        }
    }
}

/// "I lead."
fn tell(follower: &mut Progress, epoch: Epoch, now: Millis, out: &mut Vec<Output>) {
    if let Some(link) = &mut follower.link {
        link.told = Some(now);
        out.push(Output::SendFollower(link.conn, ToFollower::Lead { epoch }));
    }
}
