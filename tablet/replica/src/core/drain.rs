//! A planned switch, seen by the leader that goes (R12): it admits nothing more, lets its tail commit, and surrenders.
//!
//! Invariants: after the surrender it neither reads nor acknowledges in this epoch, whatever happens; before, a drain
//! that has missed its deadline is off, and the leader goes on.

use stela_common::clock::Millis;
use stela_common::ids::Epoch;

use super::base::{At, Base};
use super::leader::Leader;
use crate::message::Output;
use crate::variant::Variant;

/// How far a planned switch is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Drain {
    /// None is on.
    Off,
    /// The tail is to commit until then.
    Until(Millis),
    /// It is over with this epoch.
    Surrendered,
}

impl Leader {
    pub(super) fn drain<V: Variant>(
        &mut self,
        epoch: Epoch,
        deadline: Millis,
        base: &mut Base,
        at: At<'_>,
        out: &mut Vec<Output>,
    ) {
        if epoch == base.log.epoch() && at.now < deadline && !self.surrendered() {
            self.drain = Drain::Until(deadline);
            self.advance::<V>(base, at, out);
        }
    }

    /// Surrenders if a drain is on and the tail is committed; after the deadline the drain is off.
    pub(super) fn surrender<V: Variant>(
        &mut self,
        base: &Base,
        now: Millis,
        out: &mut Vec<Output>,
    ) {
        let Drain::Until(deadline) = self.drain else { return };
        if now >= deadline {
            self.drain = Drain::Off;
        } else if self.serving && base.commit == base.log.last() {
            self.drain = if V::RESUME_AFTER_SURRENDER { Drain::Off } else { Drain::Surrendered };
            out.push(Output::Surrendered(base.log.epoch()));
        }
    }

    pub(super) fn surrendered(&self) -> bool {
        self.drain == Drain::Surrendered
    }
}
