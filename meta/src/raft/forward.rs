//! Commands and reads from any nameserver: done here where it leads, else asked of the leader.
//!
//! **Invariants**
//! * A command is tried again only if it is certain that the try before did nothing, or if it carries a request id: then
//!   applying knows it. Once a try may have taken effect, the answer at the end is `Unknown` unless a later try tells.
//! * Every try has a share of the time only, so that a leader that hangs does not use all of it.

use std::time::Duration;

use bytes::Bytes;
use stela_common::clock::wall_ms;
use stela_common::wire;
use stela_meta_state::command::{Command, Proposal, Reply, RequestId};
use stela_proto::raft as pb;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Status};

use super::channels::Lane;
use super::seat::Seat;
use crate::group::{DEADLINE, NotLeading, ProposeError};

/// Between tries when nothing is known to have changed.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest that a try of what can be repeated takes.
const TRY: Duration = Duration::from_millis(1500);

impl Seat {
    /// See [`Group::propose`](crate::Group::propose).
    pub(crate) async fn propose(
        &self,
        command: Command,
        request: Option<RequestId>,
    ) -> Result<(Reply, u64), ProposeError> {
        let proposal = Proposal { request, now: wall_ms(), command };
        let deadline = Instant::now() + DEADLINE;
        let mut leadership = self.leadership();
        let mut exposed = false;
        let mut last = ProposeError::NotLeading { hint: None };
        loop {
            let known = leadership.borrow_and_update().clone();
            let until =
                if request.is_some() { deadline.min(Instant::now() + TRY) } else { deadline };
            let tried = if known.here {
                self.propose_one(proposal.clone(), until).await
            } else {
                self.forward(&proposal, until).await
            };
            match tried {
                Err(ProposeError::Unknown) if request.is_none() => {
                    return Err(ProposeError::Unknown);
                }
                Err(ProposeError::Unknown) => exposed = true,
                Err(e @ (ProposeError::NotLeading { .. } | ProposeError::Unsent(_))) => last = e,
                done => return done,
            }
            if Instant::now() + PAUSE >= deadline || self.is_stopping() {
                return Err(match last {
                    _ if exposed => ProposeError::Unknown,
                    ProposeError::NotLeading { .. } => {
                        ProposeError::Unsent("no leader is known".into())
                    }
                    last => last,
                });
            }
            let _ = tokio::time::timeout(PAUSE, leadership.changed()).await; // either way: once more
        }
    }

    /// A command proposed here, for whoever asked.
    pub(crate) async fn propose_one(
        &self,
        proposal: Proposal,
        deadline: Instant,
    ) -> Result<(Reply, u64), ProposeError> {
        let (mut replies, index) = self.propose_here_until(vec![proposal], deadline).await?;
        // The machine answers each command; an entry that it had applied before the answer was asked for has none.
        replies.pop().map(|reply| (reply, index)).ok_or(ProposeError::Unknown)
    }

    /// See [`Group::propose_batch`](crate::Group::propose_batch).
    pub(crate) async fn propose_here(
        &self,
        commands: Vec<Command>,
    ) -> Result<(Vec<Reply>, u64), ProposeError> {
        let now = wall_ms();
        let proposals =
            commands.into_iter().map(|command| Proposal { request: None, now, command }).collect();
        self.propose_here_until(proposals, Instant::now() + DEADLINE).await
    }

    async fn forward(
        &self,
        proposal: &Proposal,
        until: Instant,
    ) -> Result<(Reply, u64), ProposeError> {
        let Some((leader, from)) = self.leader() else {
            return Err(ProposeError::NotLeading { hint: None });
        };
        let unsent = |text: String| ProposeError::Unsent(text);
        let command = rmp_serde::to_vec_named(proposal).map_err(|e| unsent(e.to_string()))?;
        let mut client =
            self.channels().client(&leader, Lane::Talk).map_err(|e| unsent(e.to_string()))?;
        let mut request =
            Request::new(pb::ForwardRequest { from: Some(from), command: Bytes::from(command) });
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        let sent = timeout_at(until, client.forward(request));
        let repeatable = proposal.request.is_some();
        let reply = tokio::select! {
            reply = sent => reply,
            // A leader that was replaced may never answer; the new one does.
            () = self.replaced(&leader), if repeatable => return Err(ProposeError::Unknown),
        };
        let reply = match reply {
            Err(_) => return Err(ProposeError::Unknown),
            Ok(Err(status)) if is_definite(&status) => {
                return Err(unsent(format!("{leader}: {}", status.message())));
            }
            Ok(Err(_)) => return Err(ProposeError::Unknown),
            Ok(Ok(reply)) => reply.into_inner(),
        };
        if reply.not_leader {
            return Err(ProposeError::NotLeading {
                hint: Some(reply.hint).filter(|h| !h.is_empty()),
            });
        }
        match wire::outcome(reply.status.as_ref()) {
            Ok(()) => {
                let answer =
                    rmp_serde::from_slice(&reply.reply).map_err(|_| ProposeError::Unknown)?;
                Ok((answer, reply.index))
            }
            Err(refusal) if refusal.code == stela_common::code::Code::TooLarge => {
                Err(ProposeError::TooLarge { bytes: proposal_bytes(proposal) })
            }
            Err(_) => Err(ProposeError::Unknown),
        }
    }

    /// See [`Group::linearizable`](crate::Group::linearizable).
    pub(crate) async fn linearizable(&self) -> Result<u64, NotLeading> {
        let deadline = Instant::now() + DEADLINE;
        let mut leadership = self.leadership();
        loop {
            let known = leadership.borrow_and_update().clone();
            let found = if known.here {
                self.confirm().await.ok()
            } else if known.leader.is_some() {
                self.index_from_leader().await
            } else {
                None
            };
            if let Some(index) = found {
                let mut applied = self.store().watch();
                if let Ok(Ok(at)) = timeout_at(deadline, applied.wait_for(|at| *at >= index)).await
                {
                    return Ok(*at);
                }
            }
            if Instant::now() + PAUSE >= deadline || self.is_stopping() {
                return Err(NotLeading { hint: known.leader });
            }
            let _ = tokio::time::timeout(PAUSE, leadership.changed()).await; // either way: once more
        }
    }

    /// Asks the leader, once, up to which index a read that begins now has to wait.
    pub(crate) async fn ask_index(&self) -> Option<u64> {
        let (leader, from) = self.leader()?;
        let mut client = self.channels().client(&leader, Lane::Talk).ok()?;
        let mut request = Request::new(pb::ReadIndexRequest { from: Some(from) });
        request.set_timeout(TRY);
        tokio::select! {
            reply = tokio::time::timeout(TRY, client.read_index(request)) => match reply {
                Ok(Ok(reply)) if !reply.get_ref().not_leader => Some(reply.get_ref().index),
                _ => None,
            },
            () = self.replaced(&leader) => None,
        }
    }

    /// Waits until another one leads than the nameserver at that endpoint.
    async fn replaced(&self, leader: &str) {
        let mut leadership = self.leadership();
        let _ = leadership
            .wait_for(|now| now.here || now.leader.as_ref().is_some_and(|l| l != leader))
            .await;
    }
}

/// Is it certain that the other side did not act? The connection was refused, or it said so before it looked at the
/// command.
fn is_definite(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::PermissionDenied | Code::InvalidArgument | Code::FailedPrecondition
    ) || wire::connection_refused(status)
}

fn proposal_bytes(proposal: &Proposal) -> usize {
    rmp_serde::to_vec_named(proposal).map_or(0, |bytes| bytes.len())
}
