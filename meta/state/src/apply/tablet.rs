//! Tablets going offline and coming back: transitions of one run, judged by the nameserver that leads.
//!
//! Invariants: a transition names the run that it is about, so that one that registered since is not hit; it changes no
//! in-sync set and elects nobody. It is a finding and not an action: it is recorded with `auto_failover` off, too.

use stela_common::code::{Code, Refusal};
use stela_common::ids::{Incarnation, TabletId};

use super::{Outcome, Step, stale};
use crate::command::Reply;
use crate::object::Key;
use crate::state::Tablet;

impl Step<'_> {
    pub(super) fn offline(&mut self, id: TabletId, incarnation: Incarnation) -> Outcome {
        if !self.run(id, incarnation)?.healthy {
            return Err(Code::TabletNotHealthy.into());
        }
        self.set_health(id, false);
        Ok(Reply::Done)
    }

    pub(super) fn online(&mut self, id: TabletId, incarnation: Incarnation) -> Outcome {
        if self.run(id, incarnation)?.healthy {
            return Err(Refusal::new(Code::InvalidParameter, "tablet is healthy already"));
        }
        self.set_health(id, true);
        self.renew_outsiders(id);
        Ok(Reply::Done)
    }

    /// The tablet, if that run of it is the one that is registered.
    fn run(&self, id: TabletId, incarnation: Incarnation) -> Result<&Tablet, Refusal> {
        let tablet = self.tablet_of(id)?;
        if tablet.incarnation == incarnation {
            Ok(tablet)
        } else {
            Err(stale("another run of the tablet is registered"))
        }
    }

    pub(super) fn set_health(&mut self, id: TabletId, healthy: bool) {
        let version = self.version();
        if let Some(tablet) = self.state.tablets.get_mut(&id) {
            tablet.healthy = healthy;
            tablet.since = self.now;
            tablet.version = version;
            self.changed.insert(Key::Tablet(id));
        }
    }
}
