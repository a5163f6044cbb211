//! Request ids of one partition (R32): a session, and which of its sequence numbers are unanswered.
//!
//! Invariants:
//! * The numbers of a session start at 1. The first request of a session is alone until it is acknowledged: so the
//!   partition knows the session before it sees a higher number, in whatever order retries arrive.
//! * The highest number in use is less than [`WINDOW`] above the lowest unanswered one, since the partition remembers
//!   the last `WINDOW` of a session. Who finds no number waits.
//! * A number is used for one request, repeated unchanged. A session whose first request was not acknowledged, or that
//!   the partition has forgotten, is never used again.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many numbers of one session a partition remembers.
pub(super) const WINDOW: u64 = 64;

/// The request ids of one client in one partition.
pub(super) struct Session {
    state: Mutex<State>,
    freed: Notify,
}

struct State {
    id: u64,
    next: u64,
    known: bool,
    open: BTreeSet<u64>,
}

impl State {
    fn new() -> Self {
        // 0 is "no request id" on the wire.
        Self { id: rand::random_range(1..=u64::MAX), next: 1, known: false, open: BTreeSet::new() }
    }

    fn room(&self) -> u64 {
        match self.open.first() {
            _ if !self.known => u64::from(self.next == 1),
            Some(lowest) => (lowest + WINDOW).saturating_sub(self.next),
            None => WINDOW,
        }
    }
}

/// One request id. It is released when this is dropped.
pub(super) struct Slot<'a> {
    of: &'a Session,
    /// The session.
    pub(super) session: u64,
    /// The number.
    pub(super) seq: u64,
    acknowledged: bool,
}

impl Session {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State::new()), freed: Notify::new() }
    }

    /// The next request id, as soon as there is room for one.
    pub(super) async fn begin(&self) -> Slot<'_> {
        loop {
            if let Some(slot) = self.try_begin() {
                return slot;
            }
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if let Some(slot) = self.try_begin() {
                return slot;
            }
            freed.await;
        }
    }

    /// The next request id, if there is room for one.
    pub(super) fn try_begin(&self) -> Option<Slot<'_>> {
        let mut state = self.state.lock();
        if state.room() == 0 {
            return None;
        }
        let seq = state.next;
        state.next += 1;
        state.open.insert(seq);
        Some(Slot { of: self, session: state.id, seq, acknowledged: false })
    }
}

impl Slot<'_> {
    /// The partition has acknowledged it: it knows the session.
    pub(super) fn acknowledged(&mut self) {
        self.acknowledged = true;
    }

    /// The partition does not know the session any more: whoever still uses it gets the same answer, and nobody
    /// begins in it again.
    pub(super) fn forgotten(&self) {
        let mut state = self.of.state.lock();
        if state.id == self.session {
            *state = State::new();
        }
        drop(state);
        self.of.freed.notify_one();
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        let mut state = self.of.state.lock();
        let before = state.room();
        if state.id == self.session {
            state.open.remove(&self.seq);
            if self.acknowledged {
                state.known = true;
            } else if !state.known {
                *state = State::new();
            }
        }
        let freed = state.room().saturating_sub(before);
        drop(state);
        (0..freed).for_each(|_| self.of.freed.notify_one());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn known() -> Session {
        let session = Session::new();
        session.try_begin().unwrap().acknowledged();
        session
    }

    #[test]
    fn the_first_request_of_a_session_is_alone() {
        let session = Session::new();
        let mut first = session.try_begin().unwrap();
        assert_eq!(first.seq, 1);
        assert!(session.begin().now_or_never().is_none());
        first.acknowledged();
        let id = first.session;
        drop(first);
        let (a, b) = (session.try_begin().unwrap(), session.try_begin().unwrap());
        assert_eq!((a.session, a.seq, b.session, b.seq), (id, 2, id, 3));
    }

    #[test]
    fn a_session_whose_first_request_failed_is_not_used_again() {
        let session = Session::new();
        let first = session.try_begin().unwrap().session;
        let second = session.try_begin().unwrap();
        assert_ne!(second.session, first);
        assert_eq!(second.seq, 1);
    }

    #[test]
    fn the_window_is_kept_by_span_and_not_by_number() {
        let session = known();
        let mut open: Vec<Slot> = (0..WINDOW).map(|_| session.try_begin().unwrap()).collect();
        assert!(session.try_begin().is_none());
        // 63 of them are answered, but the lowest is not: the next number would push it out of the window.
        let lowest = open.remove(0);
        drop(open);
        assert!(session.try_begin().is_none());
        drop(lowest);
        assert_eq!(session.try_begin().unwrap().seq, WINDOW + 2);
    }

    #[tokio::test]
    async fn everyone_who_waits_gets_in() {
        let session = known();
        let open: Vec<Slot> = (0..WINDOW).map(|_| session.try_begin().unwrap()).collect();
        let waiting = futures::future::join_all((0..500).map(|_| async {
            let slot = session.begin().await;
            tokio::task::yield_now().await;
            slot.seq
        }));
        let (mut seqs, ()) = tokio::join!(waiting, async {
            tokio::task::yield_now().await;
            drop(open);
        });
        seqs.sort_unstable();
        seqs.dedup();
        assert_eq!(seqs.len(), 500);
    }

    #[test]
    fn a_forgotten_session_is_replaced_once() {
        let session = known();
        let (a, b) = (session.try_begin().unwrap(), session.try_begin().unwrap());
        a.forgotten();
        let new = session.try_begin().unwrap().session;
        assert_ne!(new, a.session);
        let mut first = session.try_begin().unwrap();
        let id = first.session;
        b.forgotten();
        first.acknowledged();
        drop(first);
        drop((a, b));
        assert_eq!(session.try_begin().unwrap().session, id);
    }
}
