//! The session stream: the concurrent calls of one program come in frames and are answered in whatever order they are
//! done, again in frames.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use stela_common::code::Code;
use stela_common::ids::Epoch;
use stela_proto::tablet::{self as pb, answer, call};
use tonic::{Status, Streaming};

use super::read;
use crate::node::Node;
use crate::outbox::Outbox;
use crate::partition::{Answers, Caller, refusal_of_write};
use crate::write::{Inbox, Request};

/// Serves one session until the client or the node ends it.
pub(super) fn serve(
    node: Arc<Node>,
    inbox: Arc<Inbox>,
    mut frames: Streaming<pb::SessionFrame>,
) -> BoxStream<'static, Result<pb::SessionAnswer, Status>> {
    let outbox = Outbox::<Answers>::default();
    let answers = outbox.stream().map(|a| Ok(pb::SessionAnswer { answers: a.0 }));
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                () = node.stop.cancelled() => break,
                frame = frames.message() => frame,
            };
            match frame {
                Ok(Some(frame)) => {
                    for call in frame.calls {
                        serve_call(&node, &inbox, &outbox, call);
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    tracing::debug!(error = %e, "a session ended");
                    break;
                }
            }
        }
        outbox.close();
    });
    Box::pin(answers)
}

fn serve_call(node: &Arc<Node>, inbox: &Inbox, outbox: &Outbox<Answers>, call: pb::Call) {
    let id = call.id;
    match call.kind {
        Some(call::Kind::Put(r)) => inbox.offer(Request::Put(r), Caller::Session(outbox.clone(), id)),
        Some(call::Kind::Delete(r)) => inbox.offer(Request::Delete(r), Caller::Session(outbox.clone(), id)),
        Some(call::Kind::Get(r)) => serve_read(node, outbox, id, r, answer::Kind::Get),
        Some(call::Kind::Scan(r)) => serve_read(node, outbox, id, r, answer::Kind::Scan),
        Some(call::Kind::Count(r)) => serve_read(node, outbox, id, r, answer::Kind::Count),
        None => Caller::Session(outbox.clone(), id).answer(refusal_of_write(&Code::Malformed.into(), "", Epoch(0))),
    }
}

fn serve_read<R>(node: &Arc<Node>, outbox: &Outbox<Answers>, id: u64, request: R, kind: fn(R::Reply) -> answer::Kind)
where
    R: read::Read + Send + Sync + 'static,
    R::Reply: Send,
{
    if let Some(reply) = read::at_once(node, &request) {
        outbox.fill(|a| a.0.push(pb::Answer { id, kind: Some(kind(reply)) }));
        return;
    }
    let (node, outbox) = (node.clone(), outbox.clone());
    tokio::spawn(async move {
        let reply = read::served(&node, &request).await;
        outbox.fill(|a| a.0.push(pb::Answer { id, kind: Some(kind(reply)) }));
    });
}
