//! Requests that clients repeat: the answer of the first is the answer of all (exactly once).
//!
//! Invariants: per client only the last request is remembered; sessions are evicted in the order of their last use,
//! counted in requests and never in time, so that every nameserver evicts the same ones.

use stela_common::code::{Code, Refusal};

use super::Step;
use crate::command::{Reply, RequestId};
use crate::object::Key;
use crate::state::{SESSIONS, Session};

/// How many sessions go at once when there are too many, so that the search for the oldest is rare.
const EVICTED_AT_ONCE: usize = 256;

impl Step<'_> {
    /// The answer to a request that was seen before; `None`: it is new.
    pub(super) fn recall(&self, request: RequestId) -> Option<Reply> {
        let session = self.state.sessions.get(&request.client)?;
        match request.seq.cmp(&session.seq) {
            std::cmp::Ordering::Equal => Some(session.reply.clone()),
            std::cmp::Ordering::Less => Some(Refusal::from(Code::UnknownOutcome).into()),
            std::cmp::Ordering::Greater => None,
        }
    }

    /// Remembers the answer to a new request.
    pub(super) fn remember(&mut self, request: RequestId, reply: &Reply) {
        self.state.counters.session += 1;
        let session =
            Session { seq: request.seq, reply: reply.clone(), used: self.state.counters.session };
        self.state.sessions.insert(request.client, session);
        self.changed.insert(Key::Session(request.client));
        if self.state.sessions.len() > SESSIONS {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let mut oldest: Vec<(u64, u64)> =
            self.state.sessions.iter().map(|(client, session)| (session.used, *client)).collect();
        oldest.sort_unstable();
        for (_, client) in oldest.into_iter().take(EVICTED_AT_ONCE) {
            self.state.sessions.remove(&client);
            self.changed.insert(Key::Session(client));
        }
    }
}
