//! The cores of replicas, whichever mistakes are planted in them: one type for all of them, so that the simulation is
//! compiled once.

use stela_common::clock::Millis;
use stela_common::ids::{Epoch, Incarnation, Offset, TabletId};
use stela_common::table::Ack;
use stela_common::wire::View;
use stela_replica::core::{Admitted, Env, Replica};
use stela_replica::message::{Identity, Input, Output, Refusal, Stored};
use stela_replica::variant::Variant;

/// A replica's decisions, whichever mistakes are planted in them.
pub trait Core {
    /// See [`Replica::step`].
    fn step(&mut self, now: Millis, env: &Env<'_>, input: Input, outputs: &mut Vec<Output>);
    /// See [`Replica::admit`].
    fn admit(&mut self, level: Ack, now: Millis) -> Result<Admitted, Refusal>;
    /// See [`Replica::stored`].
    fn stored(&self, now: Millis) -> Option<Offset>;
    /// See [`Replica::revoke`].
    fn revoke(&mut self, admitted: Admitted);
    /// See [`Replica::may_read`].
    fn may_read(&self, since: Millis, now: Millis, env: &Env<'_>) -> Result<(), Refusal>;
    /// See [`Replica::may_acknowledge`].
    fn may_acknowledge(&self, now: Millis) -> Result<(), Refusal>;
    /// See [`Replica::leads`].
    fn leads(&self) -> bool;
    /// See [`Replica::serving`].
    fn serving(&self) -> bool;
    /// See [`Replica::idle`].
    fn idle(&self) -> bool;
    /// See [`Replica::epoch`].
    fn epoch(&self) -> Epoch;
    /// See [`Replica::commit`].
    fn commit(&self) -> Offset;
    /// See [`Replica::last`].
    fn last(&self) -> Offset;
    /// See [`Replica::view`].
    fn view(&self) -> Option<&View>;
    /// See [`Replica::leader`].
    fn leader(&self) -> Option<(TabletId, Incarnation)>;
}

impl<V: Variant> Core for Replica<V> {
    fn step(&mut self, now: Millis, env: &Env<'_>, input: Input, outputs: &mut Vec<Output>) {
        Self::step(self, now, env, input, outputs);
    }
    fn admit(&mut self, level: Ack, now: Millis) -> Result<Admitted, Refusal> {
        Self::admit(self, level, now)
    }
    fn stored(&self, now: Millis) -> Option<Offset> {
        Self::stored(self, now)
    }
    fn revoke(&mut self, admitted: Admitted) {
        Self::revoke(self, admitted);
    }
    fn may_read(&self, since: Millis, now: Millis, env: &Env<'_>) -> Result<(), Refusal> {
        Self::may_read(self, since, now, env)
    }
    fn may_acknowledge(&self, now: Millis) -> Result<(), Refusal> {
        Self::may_acknowledge(self, now)
    }
    fn leads(&self) -> bool {
        Self::leads(self)
    }
    fn serving(&self) -> bool {
        Self::serving(self)
    }
    fn idle(&self) -> bool {
        Self::idle(self)
    }
    fn epoch(&self) -> Epoch {
        Self::epoch(self)
    }
    fn commit(&self) -> Offset {
        Self::commit(self)
    }
    fn last(&self) -> Offset {
        Self::last(self)
    }
    fn view(&self) -> Option<&View> {
        Self::view(self)
    }
    fn leader(&self) -> Option<(TabletId, Incarnation)> {
        Self::leader(self)
    }
}

/// Makes a replica from what a log holds.
pub type MakeCore = fn(Identity, Stored, Millis) -> Box<dyn Core>;

/// [`MakeCore`] for a variant.
pub fn make_core<V: Variant + 'static>(
    identity: Identity,
    stored: Stored,
    now: Millis,
) -> Box<dyn Core> {
    Box::new(Replica::<V>::new(identity, stored, now))
}
