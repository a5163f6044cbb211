//! Read permits, as a tablet holds them and as it gives them (R11). Both are kept once for all partitions of a tablet,
//! because one question and one answer for each pair of tablets cover all of them.
//!
//! Invariants: a permit counts from when it was *asked* for, a grant from when it was *given*, so that the holder's
//! time is over before the grantor's, whatever the way took. Neither ever goes back. A connection that is gone takes
//! its permit with it; what was granted is remembered, because its holder may not have noticed.
//!
//! A permit says nothing about a partition by itself: whether the follower has joined that partition on that
//! connection, in the leader's epoch, is known to the [`Replica`](crate::core::Replica).

use std::collections::BTreeMap;

use stela_common::clock::Millis;
use stela_common::ids::TabletId;

use crate::message::Conn;

/// What the followers of this tablet have granted.
#[derive(Clone, Debug, Default)]
pub struct Permits {
    asked: BTreeMap<Conn, Millis>,
}

impl Permits {
    /// The follower at the other end has granted what was asked at that time, on this tablet's clock.
    pub fn granted(&mut self, conn: Conn, asked_at: Millis) {
        let known = self.asked.entry(conn).or_default();
        *known = asked_at.max(*known);
    }

    /// The connection is gone.
    pub fn dropped(&mut self, conn: Conn) {
        self.asked.remove(&conn);
    }

    /// When the latest permit of that connection was asked for.
    #[must_use]
    pub fn asked(&self, conn: Conn) -> Option<Millis> {
        self.asked.get(&conn).copied()
    }

    /// Does it hold now, if it holds for `length` ms?
    #[must_use]
    pub fn holds(&self, conn: Conn, now: Millis, length: u64) -> bool {
        self.asked(conn).is_some_and(|asked| now < asked.plus(length))
    }
}

/// What this tablet has granted to leaders.
#[derive(Clone, Debug)]
pub struct Grants {
    start: Millis,
    given: BTreeMap<TabletId, Millis>,
}

impl Grants {
    /// Of a process that starts now: what its predecessor granted was granted before.
    #[must_use]
    pub fn new(start: Millis) -> Self {
        Self { start, given: BTreeMap::new() }
    }

    /// Grants a permit for all that `peer` leads and that has joined it.
    pub fn grant(&mut self, peer: TabletId, now: Millis) {
        let known = self.given.entry(peer).or_default();
        *known = now.max(*known);
    }

    /// When `peer` got its last grant; the start of the process if it got none since.
    #[must_use]
    pub fn last(&self, peer: TabletId) -> Millis {
        self.given.get(&peer).copied().unwrap_or_default().max(self.start)
    }

    /// When the process started.
    #[must_use]
    pub fn start(&self) -> Millis {
        self.start
    }
}

/// What one replica has granted to those that led its partition: what it must wait out before it leads itself (R11).
///
/// A grant is given to a tablet and covers whatever has joined it, so the time that counts for this partition is that of
/// the last grant *before this replica stopped following*: it says so before it grants again. That time is noted then;
/// tablets that lead different partitions grant each other all the time, and the latest grant would never be old.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// To anybody, before this was kept.
    before: Millis,
    to: Vec<(TabletId, Millis)>,
}

impl Given {
    /// Nothing is known of what was granted before then.
    pub(crate) fn since(before: Millis) -> Self {
        Self { before, to: Vec::new() }
    }

    /// The replica follows that leader no more; it had its last grant then.
    pub(crate) fn left(&mut self, leader: TabletId, last_grant: Millis) {
        match self.to.iter_mut().find(|(tablet, _)| *tablet == leader) {
            Some((_, known)) => *known = last_grant.max(*known),
            None => self.to.push((leader, last_grant)),
        }
    }

    /// The last grant to anybody but the one that has surrendered (R12).
    pub(crate) fn last(&self, surrendered: Option<TabletId>) -> Millis {
        let to = self.to.iter().filter(|(tablet, _)| Some(*tablet) != surrendered);
        to.map(|(_, at)| *at).fold(self.before, Millis::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_surrender_frees_from_the_wait_for_one_leader_only() {
        let mut given = Given::since(Millis(10));
        given.left(TabletId(2), Millis(50));
        given.left(TabletId(3), Millis(40));
        given.left(TabletId(2), Millis(45));
        assert_eq!(given.last(None), Millis(50));
        assert_eq!(given.last(Some(TabletId(2))), Millis(40));
        assert_eq!(Given::since(Millis(10)).last(Some(TabletId(2))), Millis(10));
    }

    #[test]
    fn a_permit_counts_from_when_it_was_asked_for_and_ends_with_its_connection() {
        let mut permits = Permits::default();
        assert!(!permits.holds(Conn(1), Millis(0), 300));
        permits.granted(Conn(1), Millis(1000));
        permits.granted(Conn(1), Millis(900));
        assert!(permits.holds(Conn(1), Millis(1299), 300));
        assert!(!permits.holds(Conn(1), Millis(1300), 300));
        assert!(!permits.holds(Conn(2), Millis(1000), 300));
        permits.dropped(Conn(1));
        assert!(!permits.holds(Conn(1), Millis(1000), 300));
    }

    #[test]
    fn after_a_start_everybody_may_hold_a_grant_of_the_run_before() {
        let mut grants = Grants::new(Millis(5000));
        assert_eq!(grants.last(TabletId(2)), Millis(5000));
        grants.grant(TabletId(2), Millis(5100));
        grants.grant(TabletId(2), Millis(5050));
        assert_eq!(grants.last(TabletId(2)), Millis(5100));
        assert_eq!(grants.last(TabletId(3)), Millis(5000));
    }
}
