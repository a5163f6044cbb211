//! The session stream: the concurrent calls of one program come in frames and are answered in whatever order they are
//! done, again in frames.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use stela_common::clock::Millis;
use stela_common::code::Code;
use stela_common::ids::Epoch;
use stela_proto::tablet::{self as pb, answer, call};
use tokio::sync::{Semaphore, oneshot};
use tonic::{Status, Streaming};

use super::read::{self, About, Read};
use crate::node::Node;
use crate::outbox::Outbox;
use crate::partition::{Answers, Caller, refusal_of_write};
use crate::write::{Inbox, Request};

/// Bytes of answers that a client has not taken, at most, before it is served no more.
const UNTAKEN: usize = 16 << 20;
/// Reads of one session that wait for a permit, at most.
const PARKED: usize = 1024;

/// Serves one session until the client or the node ends it.
pub(super) fn serve(
    node: Arc<Node>,
    inbox: Arc<Inbox>,
    mut frames: Streaming<pb::SessionFrame>,
) -> BoxStream<'static, Result<pb::SessionAnswer, Status>> {
    let outbox = Outbox::<Answers>::default();
    let (end, ended) = oneshot::channel();
    // The last word to a sender that is not understood.
    let last = futures::stream::once(ended).filter_map(async |why| why.ok().map(Err));
    let answers = outbox.stream().map(|a| Ok(pb::SessionAnswer { answers: a.0 })).chain(last);
    tokio::spawn(async move {
        let parked = Arc::new(Semaphore::new(PARKED));
        loop {
            let frame = tokio::select! {
                () = node.stop.cancelled() => break,
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(frame)) => {
                    for call in frame.calls {
                        // Who does not take answers gets no more served.
                        outbox.room(UNTAKEN).await;
                        serve_call(&node, &inbox, &outbox, &parked, call);
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    tracing::debug!(error = %e, "a session ended");
                    // Nobody may be there to hear it.
                    let _ = end.send(e);
                    break;
                }
            }
        }
        outbox.close();
    });
    Box::pin(answers)
}

fn serve_call(
    node: &Arc<Node>,
    inbox: &Inbox,
    outbox: &Outbox<Answers>,
    parked: &Arc<Semaphore>,
    call: pb::Call,
) {
    let id = call.id;
    let reads = Reads { node, outbox, parked, id };
    match call.kind {
        Some(call::Kind::Put(r)) => {
            inbox.offer(Request::Put(r), Caller::Session(outbox.clone(), id))
        }
        Some(call::Kind::Delete(r)) => {
            inbox.offer(Request::Delete(r), Caller::Session(outbox.clone(), id))
        }
        Some(call::Kind::Get(r)) => reads.serve(r, answer::Kind::Get),
        Some(call::Kind::Scan(r)) => reads.serve(r, answer::Kind::Scan),
        Some(call::Kind::Count(r)) => reads.serve(r, answer::Kind::Count),
        Some(call::Kind::Traverse(r)) => reads.serve(r, answer::Kind::Traverse),
        None => Caller::Session(outbox.clone(), id).answer(refusal_of_write(
            &Code::Malformed.into(),
            "",
            Epoch(0),
        )),
    }
}

/// The reads of a session.
struct Reads<'a> {
    node: &'a Arc<Node>,
    outbox: &'a Outbox<Answers>,
    parked: &'a Arc<Semaphore>,
    id: u64,
}

impl Reads<'_> {
    /// At once, or by a task of its own when it has to wait for a permit.
    fn serve<R>(self, request: R, kind: fn(R::Reply) -> answer::Kind)
    where
        R: Read + Send + Sync + 'static,
        R::Reply: Send,
    {
        let (id, since) = (self.id, Millis::now());
        if let Some(reply) = read::at_once(self.node, &request, since) {
            return answer_read::<R>(self.outbox, id, reply, kind);
        }
        let Ok(permit) = self.parked.clone().try_acquire_owned() else {
            return answer_read::<R>(
                self.outbox,
                id,
                R::reply(Err(Code::Busy.into()), About::default()),
                kind,
            );
        };
        let (node, outbox) = (self.node.clone(), self.outbox.clone());
        tokio::spawn(async move {
            let reply = read::served(&node, &request, since).await;
            outbox.room(UNTAKEN).await;
            answer_read::<R>(&outbox, id, reply, kind);
            drop(permit);
        });
    }
}

fn answer_read<R: Read>(
    outbox: &Outbox<Answers>,
    id: u64,
    reply: R::Reply,
    kind: fn(R::Reply) -> answer::Kind,
) {
    let bytes = R::weight(&reply);
    outbox.fill(|a| a.push(pb::Answer { id, kind: Some(kind(reply)) }, bytes));
}
