//! The meta group as everybody in this process sees it: propose, read, and who leads.
//!
//! **Invariants**
//! * An outcome is [`ProposeError::Unknown`] unless it is known: a command that was handed to the group and not answered
//!   in time may still take effect. Every other error means that it did not and will not.
//! * A command with a request id is repeated until its deadline, at whoever leads then; it takes effect once, because
//!   applying knows the request. One without is repeated only as long as it is certain that nobody took it.
//! * [`Group::confirm`] and [`Group::linearizable`] answer with what a round found that began after they were called.
//!
//! Used by the control loops and the services. It exists from the start of the process on: before this nameserver is a
//! member, nobody leads.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use stela_common::code::{Code, Refusal};
use stela_common::ids::{NodeId, TabletId};
use stela_meta_state::command::{Command, Reply, RequestId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::raft::machine::Store;
use crate::raft::seat::Seat;

/// How long a command may take before its outcome is unknown, and a read before it is given up.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The longest command, encoded (O19).
pub const COMMAND: usize = 1 << 20;

/// Who leads the group, as far as known here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Leadership {
    /// The endpoint of the leader; `None`: there is none, or none is known.
    pub leader: Option<String>,
    /// This nameserver leads. It may have been deposed without knowing: [`Group::confirm`] tells (O5).
    pub here: bool,
    /// The Raft term; for display only, it fences nothing (O8).
    pub term: u64,
}

/// Why a command was not answered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProposeError {
    /// It was not proposed: this nameserver does not lead.
    #[error("nameserver is not leader")]
    NotLeading {
        /// The endpoint of the leader, if known.
        hint: Option<String>,
    },
    /// It was not proposed: there was no leader to propose it to, or no room, until its deadline.
    #[error("not proposed: {0}")]
    Unsent(String),
    /// It was not proposed: it is too long.
    #[error("a command of {bytes} bytes is too large, the limit is {COMMAND}")]
    TooLarge {
        /// Its length, encoded.
        bytes: usize,
    },
    /// It may or may not take effect, now or later.
    #[error("no quorum of nameservers within the deadline; the outcome is unknown")]
    Unknown,
}

impl From<ProposeError> for Refusal {
    fn from(e: ProposeError) -> Self {
        match &e {
            ProposeError::NotLeading { .. } => Code::NotLeader.into(),
            ProposeError::Unsent(_) => {
                Self::new(Code::NotLeader, format!("{}: {e}", Code::NotLeader.text()))
            }
            ProposeError::TooLarge { .. } => Self::new(Code::TooLarge, e.to_string()),
            ProposeError::Unknown => Code::SetFailed.into(),
        }
    }
}

/// This nameserver does not lead, or no quorum says that it does.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nameserver is not leader, or has no quorum")]
pub struct NotLeading {
    /// The endpoint of the leader, if another one is known.
    pub hint: Option<String>,
}

impl From<NotLeading> for Refusal {
    fn from(_: NotLeading) -> Self {
        Code::NotLeader.into()
    }
}

/// The meta group. A clone is the same.
#[derive(Clone)]
pub struct Group {
    seat: Arc<Seat>,
}

impl Group {
    /// The group in which this process has that seat.
    #[must_use]
    pub(crate) fn new(seat: Arc<Seat>) -> Self {
        Self { seat }
    }

    #[cfg(test)]
    pub(crate) fn seat(&self) -> &Arc<Seat> {
        &self.seat
    }

    /// Proposes a command from any nameserver; answers with what applying it came to and at which index.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(
        &self,
        command: Command,
        request: Option<RequestId>,
    ) -> Result<(Reply, u64), ProposeError> {
        self.seat.propose(command, request).await
    }

    /// Proposes commands where this nameserver leads, all in one entry, in order.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_batch(
        &self,
        commands: Vec<Command>,
    ) -> Result<(Vec<Reply>, u64), ProposeError> {
        self.seat.propose_here(commands).await
    }

    /// R17: a quorum has said, after this call, that this nameserver leads. Answers with an index up to which
    /// everything acknowledged before the call is applied here. All calls that wait share one round.
    ///
    /// # Errors
    /// It does not lead, or no quorum has answered, not even the second time.
    pub async fn confirm(&self) -> Result<u64, NotLeading> {
        self.seat.confirm().await
    }

    /// On any nameserver: after it, [`Group::store`] shows everything that was acknowledged before the call. Answers
    /// with the index that is applied.
    ///
    /// # Errors
    /// No leader with a quorum was found, or this nameserver did not catch up, until the deadline.
    pub async fn linearizable(&self) -> Result<u64, NotLeading> {
        self.seat.linearizable().await
    }

    /// R19: whether the first other nameserver that answers reaches any of these tablets; `None`: none answers.
    pub async fn reached_by_another(&self, tablets: &BTreeSet<TabletId>) -> Option<bool> {
        self.seat.reached_by_another(tablets).await
    }

    /// The state as it is applied here.
    #[must_use]
    pub fn store(&self) -> Arc<Store> {
        self.seat.store()
    }

    /// Who leads; changes are told at once.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.seat.leadership()
    }

    /// The nameservers, voters and learners, as the group knows them here: each endpoint once, in the order of their
    /// numbers. Before this one is a member: none.
    #[must_use]
    pub fn members(&self) -> Vec<(NodeId, String)> {
        self.seat.members()
    }

    /// The numbers of those members that vote.
    #[must_use]
    pub fn voters(&self) -> BTreeSet<u64> {
        self.seat.voters()
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.seat.cluster()
    }

    /// The own endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.seat.endpoint()
    }

    /// The own number in the group; `None`: not a member yet.
    #[must_use]
    pub fn node(&self) -> Option<NodeId> {
        self.seat.node()
    }

    /// What an empty directory waits for before it is a member; `None`: it is one, or has not asked yet.
    #[must_use]
    pub fn waiting(&self) -> watch::Receiver<Option<String>> {
        self.seat.waiting()
    }

    /// Cancelled when this process is to stop: whoever was started with the group ends then.
    #[must_use]
    pub fn stop(&self) -> CancellationToken {
        self.seat.stop()
    }
}
