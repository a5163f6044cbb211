//! What a replica knows and has in either role.

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Offset};
use stela_common::wire::View;

use crate::journal::Journal;
use crate::lease::{Given, Grants, Permits};
use crate::message::{Identity, Output, Stored};

/// What all replicas of a tablet share.
#[derive(Clone, Copy, Debug)]
pub struct Env<'a> {
    /// R11, as leader.
    pub permits: &'a Permits,
    /// R11, as follower.
    pub grants: &'a Grants,
}

/// The moment of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) now: Millis,
    pub(super) env: &'a Env<'a>,
}

/// What a replica knows and has in either role.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) me: Identity,
    pub(super) log: Journal,
    /// The meta group's last decision that is known here; its version never goes back (R7).
    pub(super) view: Option<View>,
    /// Entries up to there are committed; never goes back.
    pub(super) commit: Offset,
    /// The meta lease (R17).
    pub(super) lease_until: Millis,
    /// R11.
    pub(super) given: Given,
    /// Entries up to there are in the snapshot only.
    pub(super) floor: Offset,
    /// Entries up to there are in the snapshot, which cannot be cut.
    pub(super) snapshot: Offset,
    /// The copy is not whole (R30): it neither leads nor acknowledges, and is rebuilt from whoever leads.
    pub(super) damaged: bool,
    /// A leader lacked what is committed here: it takes no part any more.
    pub(super) contradicted: bool,
    nonce: u64,
}

impl Base {
    pub(super) fn new(me: Identity, stored: Stored, now: Millis) -> Self {
        // Who has stored no epoch has joined no leader, so nobody has a permit of this copy.
        let given = if stored.epoch == Epoch(0) { Given::default() } else { Given::since(now) };
        Self {
            me,
            view: None,
            commit: stored.commit.max(stored.snapshot).min(stored.last),
            lease_until: Millis::default(),
            given,
            floor: stored.floor,
            snapshot: stored.snapshot.max(stored.floor),
            damaged: stored.damaged,
            contradicted: stored.contradicted,
            // Connections end with a core that is made anew; still, its joinings are not to be named as the former's.
            nonce: now.0,
            log: Journal::new(stored),
        }
    }

    /// The highest epoch that it has heard of.
    pub(super) fn known_epoch(&self) -> Epoch {
        let viewed = self.view.as_ref().map_or(Epoch(0), |v| v.epoch);
        self.log.epoch().max(viewed)
    }

    /// Is this run to lead, by what is decided?
    pub(super) fn is_elected(view: &View, me: &Identity) -> bool {
        (view.leader, view.leader_incarnation) == (me.tablet, me.incarnation)
    }

    /// Does the meta lease hold?
    pub(super) fn leased(&self, now: Millis) -> bool {
        now < self.lease_until
    }

    /// A name for a joining (R4).
    pub(super) fn nonce(&mut self) -> u64 {
        self.nonce += 1;
        self.nonce
    }

    /// An epoch begins here: its record is to be written, and synced before anything is said in it (R2).
    pub(super) fn store_epoch(&mut self, epoch: Epoch, leads: bool, out: &mut Vec<Output>) {
        let first = self.log.last().next();
        let write = self.log.store_epoch(epoch);
        out.push(Output::StoreEpoch { write, epoch, first, leads });
    }

    /// Entries up to `to` are committed, as far as they are here.
    pub(super) fn committed(&mut self, to: Offset, out: &mut Vec<Output>) {
        let to = to.min(self.log.last());
        if to > self.commit {
            self.commit = to;
            out.push(Output::Committed(to));
        }
    }

    /// It cannot prove its copy: it neither shows it nor leads.
    pub(super) fn quarantined(&self) -> bool {
        self.damaged || self.contradicted
    }

    /// A leader's log is not what this copy knows to be committed: one of the two has lost something.
    pub(super) fn contradict(&mut self, why: String, out: &mut Vec<Output>) {
        self.contradicted = true;
        out.push(Output::Quarantined(why));
    }
}
