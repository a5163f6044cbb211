//! What a leader knows of one follower.
//!
//! Invariants: what counts is what the joining that lives has acknowledged, in this epoch, by the run that the set names
//! (R3, R8): a new connection starts from nothing. The highest offset that a member ever acknowledged in this epoch is
//! remembered beside it, as the measure for its next joining (R6). A joining says nothing any more once the follower has
//! said that it left (R11).

use stela_common::clock::Millis;
use stela_common::ids::{Incarnation, Offset, TabletId};
use stela_common::wire::Member;

use crate::message::Conn;

/// A joining (R4): the follower has said what its log is, and was told where it parts from the leader's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Joining {
    /// Its name.
    pub(crate) nonce: u64,
    /// What it has acknowledged.
    pub(crate) acked: Option<Offset>,
}

/// A connection to a follower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    /// Its name.
    pub(crate) conn: Conn,
    /// Which run is there.
    pub(crate) incarnation: Incarnation,
    /// Since when.
    pub(crate) since: Millis,
    /// When it was last told who leads.
    pub(crate) told: Option<Millis>,
    /// Its joining.
    pub(crate) joining: Option<Joining>,
    /// It knows of a higher epoch: nothing that it says in this one counts.
    pub(crate) left: bool,
}

/// A follower.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    /// Who.
    pub(crate) tablet: TabletId,
    /// The connection to it.
    pub(crate) link: Option<Link>,
    /// Since when a connection that there was is gone.
    pub(crate) broken: Option<Millis>,
    /// The most that it acknowledged in this epoch, as a member or as a candidate.
    pub(crate) floor: Offset,
    /// It has joined with less than that (R6).
    pub(crate) untrusted: bool,
    /// When it last went out of the set.
    pub(crate) removed: Option<Millis>,
    /// It lacks that entry, and did so at that time already.
    behind: Option<(Offset, Millis)>,
}

impl Progress {
    /// A follower that is to come.
    pub(crate) fn new(tablet: TabletId, last: Offset, now: Millis) -> Self {
        Self {
            tablet,
            link: None,
            broken: None,
            floor: Offset(0),
            untrusted: false,
            removed: None,
            behind: Some((last, now)),
        }
    }

    /// Is it reached by that connection?
    pub(crate) fn is_on(&self, conn: Conn) -> bool {
        self.link.is_some_and(|l| l.conn == conn)
    }

    /// A connection is there: it joins anew.
    pub(crate) fn connected(&mut self, conn: Conn, incarnation: Incarnation, now: Millis) {
        self.link =
            Some(Link { conn, incarnation, since: now, told: None, joining: None, left: false });
        self.broken = None;
    }

    /// The connection is gone.
    pub(crate) fn disconnected(&mut self, last: Offset, now: Millis) {
        self.link = None;
        self.broken = Some(now);
        self.behind.get_or_insert((last, now));
    }

    /// What the joining has acknowledged.
    pub(crate) fn acked(&self) -> Option<Offset> {
        self.link.filter(|l| !l.left)?.joining?.acked
    }

    /// What counts of it for the commit offset when the set names it as `member`.
    pub(crate) fn counted(&self, member: &Member) -> Option<Offset> {
        let same_run = self.link.is_some_and(|l| l.incarnation == member.incarnation);
        self.acked().filter(|_| same_run && !self.untrusted)
    }

    /// The connection on which it follows in this epoch, as that run.
    pub(crate) fn follows(&self, incarnation: Incarnation) -> Option<Conn> {
        let link = self.link.filter(|l| !l.left && l.incarnation == incarnation)?;
        link.joining.map(|_| link.conn)
    }

    /// Notes whether it is behind: `counted` of what is up to `last` now.
    pub(crate) fn observe(&mut self, counted: Option<Offset>, last: Offset, now: Millis) {
        match (counted, self.behind) {
            (Some(acked), _) if acked >= last => self.behind = None,
            (Some(acked), Some((mark, _))) if acked >= mark => self.behind = Some((last, now)),
            (_, None) => self.behind = Some((last, now)),
            _ => {}
        }
    }

    /// Since when it has been behind.
    pub(crate) fn behind_since(&self) -> Option<Millis> {
        self.behind.map(|(_, since)| since)
    }

    /// It is in the set no more, or not yet: what was noted of it as a member is void.
    pub(crate) fn outside(&mut self) {
        self.floor = Offset(0);
        self.untrusted = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(acked: u64) -> Progress {
        let mut p = Progress::new(TabletId(2), Offset(0), Millis(0));
        p.connected(Conn(1), Incarnation(7), Millis(0));
        p.link.as_mut().unwrap().joining = Some(Joining { nonce: 1, acked: Some(Offset(acked)) });
        p
    }

    fn member(incarnation: u64) -> Member {
        Member { tablet: TabletId(2), incarnation: Incarnation(incarnation), untrusted: false }
    }

    #[test]
    fn counts_as_the_run_that_the_set_names_and_no_longer_when_it_left() {
        let mut p = joined(5);
        assert_eq!(p.counted(&member(7)), Some(Offset(5)));
        assert_eq!(p.counted(&member(8)), None);
        assert_eq!(p.follows(Incarnation(7)), Some(Conn(1)));
        p.link.as_mut().unwrap().left = true;
        assert_eq!(p.counted(&member(7)), None);
        assert_eq!(p.follows(Incarnation(7)), None);
    }

    #[test]
    fn a_new_connection_starts_from_nothing() {
        let mut p = joined(5);
        p.disconnected(Offset(5), Millis(10));
        assert_eq!((p.acked(), p.broken), (None, Some(Millis(10))));
        p.connected(Conn(2), Incarnation(7), Millis(20));
        assert_eq!((p.acked(), p.broken), (None, None));
        assert_eq!(p.behind_since(), Some(Millis(0)));
    }

    #[test]
    fn is_behind_since_it_lacks_what_was_there_then() {
        let mut p = joined(0);
        p.observe(Some(Offset(5)), Offset(5), Millis(10));
        assert_eq!(p.behind_since(), None);
        p.observe(Some(Offset(5)), Offset(8), Millis(20));
        p.observe(Some(Offset(7)), Offset(9), Millis(30));
        assert_eq!(p.behind_since(), Some(Millis(20)), "it still lacks 8");
        p.observe(Some(Offset(8)), Offset(9), Millis(40));
        assert_eq!(p.behind_since(), Some(Millis(40)), "it has 8 and lacks 9");
        p.observe(None, Offset(9), Millis(50));
        assert_eq!(p.behind_since(), Some(Millis(40)));
        p.observe(Some(Offset(9)), Offset(9), Millis(60));
        assert_eq!(p.behind_since(), None);
    }
}
