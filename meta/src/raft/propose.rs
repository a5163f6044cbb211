//! Proposing where this nameserver leads: concurrent commands share one entry.
//!
//! The library syncs once per entry and never answers without a quorum (O1, O6). So what waits is gathered into one
//! entry whenever one of the two slots is free, and every command has a deadline.
//!
//! **Invariants**
//! * At most two entries are under way; a slot is free again when its entry is answered or all of its deadlines
//!   are over.
//! * The commands of one call stay together and in order, in one entry.
//! * [`ProposeError::Unknown`] is answered exactly when the command may have come into the log: a call that gives up
//!   takes its commands back if nobody has taken them, and an entry that the library refused is unknown if it was
//!   logged ([`Logged`](super::types::Logged)).

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use openraft::error::{ClientWriteError, RaftError};
use stela_meta_state::command::{Batch, Proposal, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::types::{Payload, Raft};
use crate::group::{COMMAND, ProposeError};

/// Entries under way.
const SLOTS: usize = 2;
/// Calls that may wait.
const QUEUE: usize = 4096;

type Outcome = Result<(Vec<Reply>, u64), ProposeError>;

/// The limits on what is proposed, in bytes of its encoding.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of the commands of one call.
    pub call: usize,
    /// Beyond this an entry takes no further call.
    pub entry: usize,
}

impl Limits {
    /// What fits into segments of that length.
    #[must_use]
    pub fn for_segments(bytes: u64) -> Self {
        let segment = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { call: (4 * COMMAND).min(segment / 4), entry: COMMAND.min(segment / 4) }
    }
}

/// Where commands wait to be proposed. When it is dropped, nothing is proposed any more.
pub struct Proposer {
    queue: mpsc::Sender<Call>,
    limits: Limits,
}

struct Call {
    proposals: Vec<Proposal>,
    bytes: usize,
    deadline: Instant,
    ticket: Arc<Ticket>,
    answer: oneshot::Sender<Outcome>,
}

/// Who has the commands of a call: exactly one of the caller that gives up and the entry that takes them.
#[derive(Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const TAKEN: u8 = 1;
    const LEFT: u8 = 2;

    fn take(&self) -> bool {
        self.set(Self::TAKEN)
    }

    fn leave(&self) -> bool {
        self.set(Self::LEFT)
    }

    fn set(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Proposer {
    /// Starts to propose.
    #[must_use]
    pub fn start(raft: Raft, limits: Limits) -> Self {
        let (queue, calls) = mpsc::channel(QUEUE);
        tokio::spawn(run(raft, calls, limits));
        Self { queue, limits }
    }

    /// Proposes commands, all in one entry; answers with one reply for each, and the index.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, proposals: Vec<Proposal>, deadline: Instant) -> Outcome {
        let mut bytes = 0;
        for proposal in &proposals {
            let size = rmp_serde::to_vec_named(proposal)
                .map_err(|e| ProposeError::Unsent(e.to_string()))?
                .len();
            if size > COMMAND.min(self.limits.call) {
                return Err(ProposeError::TooLarge { bytes: size });
            }
            bytes += size;
        }
        if bytes > self.limits.call {
            return Err(ProposeError::TooLarge { bytes });
        }
        let (answer, outcome) = oneshot::channel();
        let ticket = Arc::new(Ticket::default());
        let call = Call { proposals, bytes, deadline, ticket: ticket.clone(), answer };
        match timeout_at(deadline, self.queue.send(call)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Err(ProposeError::Unsent("too many commands wait".into())),
        }
        match timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if ticket.leave() => Err(stopping()),
            Err(_) if ticket.leave() => {
                Err(ProposeError::Unsent("earlier commands are not answered".into()))
            }
            _ => Err(ProposeError::Unknown),
        }
    }
}

fn stopping() -> ProposeError {
    ProposeError::Unsent("this nameserver is stopping".into())
}

async fn run(raft: Raft, mut calls: mpsc::Receiver<Call>, limits: Limits) {
    let slots = Arc::new(Semaphore::new(SLOTS));
    let mut held = None;
    loop {
        let first = match held.take() {
            Some(call) => call,
            None => match calls.recv().await {
                Some(call) => call,
                None => return,
            },
        };
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        // Gathered only now: what came while the slots were full goes along.
        let mut entry = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(call) = next.take().or_else(|| calls.try_recv().ok()) {
            if !entry.is_empty() && bytes + call.bytes > limits.entry {
                held = Some(call);
                break;
            }
            if call.ticket.take() {
                bytes += call.bytes;
                entry.push(call);
            }
        }
        if !entry.is_empty() {
            tokio::spawn(write(raft.clone(), entry, slot));
        }
    }
}

/// One entry, from its making to the answers.
async fn write(raft: Raft, mut calls: Vec<Call>, slot: OwnedSemaphorePermit) {
    let counts: Vec<usize> = calls.iter().map(|c| c.proposals.len()).collect();
    let commands = calls.iter_mut().flat_map(|c| std::mem::take(&mut c.proposals)).collect();
    let outcome = match Payload::encode(Batch { commands }) {
        Err(e) => Err(ProposeError::Unsent(e)),
        Ok(mut payload) => {
            let logged = payload.mark();
            let deadline = calls.iter().map(|c| c.deadline).max().unwrap_or_else(Instant::now);
            match timeout_at(deadline, raft.client_write(payload)).await {
                Ok(Ok(done)) => Ok((done.data, done.log_id.index)),
                Err(_) => Err(ProposeError::Unknown),
                Ok(Err(_)) if logged.is() => Err(ProposeError::Unknown),
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                    Err(ProposeError::NotLeading { hint: to.leader_node.map(|peer| peer.endpoint) })
                }
                Ok(Err(e)) => Err(ProposeError::Unsent(e.to_string())),
            }
        }
    };
    drop(slot);
    match outcome {
        Ok((replies, index)) => {
            let mut replies = replies.into_iter();
            for (call, count) in calls.into_iter().zip(counts) {
                let _ = call.answer.send(Ok((replies.by_ref().take(count).collect(), index)));
            }
        }
        Err(e) => {
            for call in calls {
                let _ = call.answer.send(Err(e.clone())); // a caller that has gone does not matter
            }
        }
    }
}
