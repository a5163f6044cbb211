//! The way to one tablet: one connection, one session stream, all calls of the process gathered into its frames.
//!
//! Invariants:
//! * At most one connection per endpoint, and it is made when there is something to say.
//! * The stream takes whatever has gathered when the transport asks for more. There is no timer: while the transport is
//!   busy, more gathers.
//! * Every call ends: with its answer, or as [`Lost`] when the connection ends or its deadline passes. `Lost::sent`
//!   is `false` only if no byte of it can have reached the tablet.
//! * A tablet that says to be of another cluster gets no call.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use futures::Stream;
use parking_lot::Mutex;
use stela_proto::tablet::{
    Answer, Call, IdentityRequest, SessionFrame, answer, call, tablet_client::TabletClient,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tonic::transport::Endpoint;

/// A message of either direction, bytes.
pub(super) const MESSAGE: usize = 64 << 20;
/// A frame takes no further call once it has so many bytes.
const FRAME: usize = 1 << 20;
const CONNECT: Duration = Duration::from_millis(500);
const GREET: Duration = Duration::from_secs(1);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(1);
/// How often overdue calls are looked for.
const SWEEP: Duration = Duration::from_millis(50);
const WINDOW: u32 = 4 << 20;

/// A call that got no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Lost {
    /// The tablet may have received it.
    pub(super) sent: bool,
    /// Why.
    pub(super) text: String,
}

type Reply = Result<answer::Kind, Lost>;

/// The way to one tablet.
pub(super) struct Link {
    endpoint: String,
    /// The address that its connections come from.
    source: Option<IpAddr>,
    ids: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connected: bool,
    /// Counts connections: the stream of an earlier one ends.
    life: u64,
    queue: VecDeque<Queued>,
    sent: HashMap<u64, Waiting>,
    waker: Option<Waker>,
}

struct Queued {
    call: Call,
    size: usize,
    waiting: Waiting,
}

struct Waiting {
    deadline: Instant,
    answer: oneshot::Sender<Reply>,
}

impl Waiting {
    fn lose(self, sent: bool, text: &str) {
        let _ = self.answer.send(Err(Lost { sent, text: text.to_owned() }));
    }
}

impl Link {
    pub(super) fn new(endpoint: String, source: Option<IpAddr>) -> Self {
        Self { endpoint, source, ids: AtomicU64::new(1), state: Mutex::default() }
    }

    /// Where it leads.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Asks the tablet. The answer is of any kind: the caller checks that it is its own.
    pub(super) async fn call(
        self: &Arc<Self>,
        runtime: &Handle,
        cluster: &str,
        kind: call::Kind,
        size: usize,
        deadline: Instant,
    ) -> Reply {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (answer, reply) = oneshot::channel();
        let queued = Queued {
            call: Call { id, kind: Some(kind) },
            size,
            waiting: Waiting { deadline, answer },
        };
        let (connect, waker) = {
            let mut state = self.state.lock();
            state.queue.push_back(queued);
            let connect = !std::mem::replace(&mut state.connected, true);
            (connect.then_some(state.life), state.waker.take())
        };
        if let Some(life) = connect {
            runtime.spawn(self.clone().live(life, cluster.to_owned()));
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        let mut forget = Forget(Some((self, id)));
        let reply = reply.await;
        forget.0 = None;
        reply.unwrap_or_else(|_| Err(Lost { sent: true, text: "the client is closed".into() }))
    }

    /// One connection, from its beginning to its end.
    async fn live(self: Arc<Self>, life: u64, cluster: String) {
        let ended = self.serve(life, &cluster).await;
        let text = match ended {
            Ok(()) => format!("{} ended the session", self.endpoint),
            Err(text) => format!("{}: {text}", self.endpoint),
        };
        tracing::debug!(endpoint = self.endpoint, reason = text, "tablet connection ended");
        let (queue, sent, waker) = {
            let mut state = self.state.lock();
            state.life += 1;
            state.connected = false;
            (std::mem::take(&mut state.queue), std::mem::take(&mut state.sent), state.waker.take())
        };
        queue.into_iter().for_each(|q| q.waiting.lose(false, &text));
        sent.into_values().for_each(|w| w.lose(true, &text));
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn serve(self: &Arc<Self>, life: u64, cluster: &str) -> Result<(), String> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.endpoint))
            .map_err(|e| describe(&e))?
            .local_address(self.source)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        let channel = endpoint.connect().await.map_err(|e| describe(&e))?;
        let mut client = TabletClient::new(channel)
            .max_decoding_message_size(MESSAGE)
            .max_encoding_message_size(MESSAGE);
        // Nothing is sent before the tablet has said who it is: to a process that hangs, or to a stranger.
        let found =
            timely("identity", client.identity(IdentityRequest {})).await?.into_inner().cluster;
        if !found.is_empty() && !cluster.is_empty() && found != cluster {
            return Err(format!("the tablet is of cluster '{found}', not '{cluster}'"));
        }
        let frames = Frames { link: self.clone(), life };
        let mut answers = timely("session", client.session(frames)).await?.into_inner();
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                message = answers.message() => match message {
                    Ok(Some(frame)) => self.dispatch(frame.answers),
                    Ok(None) => return Ok(()),
                    Err(status) => return Err(brief(&status)),
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
    }

    fn dispatch(&self, answers: Vec<Answer>) {
        let mut found = Vec::with_capacity(answers.len());
        let mut state = self.state.lock();
        for answer in answers {
            // An answer to a call that nobody waits for any more finds nobody.
            if let (Some(waiting), Some(kind)) = (state.sent.remove(&answer.id), answer.kind) {
                found.push((waiting, kind));
            }
        }
        drop(state);
        for (waiting, kind) in found {
            let _ = waiting.answer.send(Ok(kind));
        }
    }

    fn sweep(&self) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for waiting in state.sent.extract_if(|_, w| w.deadline <= now).map(|(_, w)| w) {
            waiting.lose(true, &format!("{} does not answer", self.endpoint));
        }
        if state.queue.iter().any(|q| q.waiting.deadline <= now) {
            let (late, rest) = std::mem::take(&mut state.queue)
                .into_iter()
                .partition(|q| q.waiting.deadline <= now);
            let late: VecDeque<Queued> = late;
            state.queue = rest;
            late.into_iter().for_each(|q| {
                q.waiting.lose(false, &format!("{} takes no request", self.endpoint))
            });
        }
    }
}

/// A caller that stops waiting leaves nothing behind.
struct Forget<'a>(Option<(&'a Link, u64)>);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some((link, id)) = self.0 {
            link.state.lock().sent.remove(&id);
        }
    }
}

/// What goes out on one connection.
struct Frames {
    link: Arc<Link>,
    life: u64,
}

impl Stream for Frames {
    type Item = SessionFrame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SessionFrame>> {
        let mut state = self.link.state.lock();
        if state.life != self.life {
            return Poll::Ready(None);
        }
        let mut calls = Vec::with_capacity(state.queue.len());
        let mut bytes = 0;
        while bytes < FRAME {
            let Some(queued) = state.queue.pop_front() else { break };
            if queued.waiting.answer.is_closed() {
                continue;
            }
            bytes += queued.size;
            state.sent.insert(queued.call.id, queued.waiting);
            calls.push(queued.call);
        }
        if calls.is_empty() {
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(SessionFrame { calls }))
    }
}

async fn timely<T>(
    what: &str,
    call: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, String> {
    match tokio::time::timeout(GREET, call).await {
        Ok(result) => result.map_err(|status| brief(&status)),
        Err(_) => Err(format!("no answer to {what} within {} s", GREET.as_secs())),
    }
}

/// The innermost cause of an error: what a reader can do something about.
pub(super) fn describe(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A gRPC failure in a few words.
pub(super) fn brief(status: &tonic::Status) -> String {
    if std::error::Error::source(status).is_some() {
        return describe(status);
    }
    if status.message().is_empty() {
        status.code().to_string()
    } else {
        status.message().to_owned()
    }
}
