//! Asking the nameservers: any of them answers, the next one is asked when one does not.
//!
//! Invariants:
//! * A nameserver of another cluster is not asked.
//! * A request is repeated, at another nameserver where there is one, until it has a definite answer or its deadline
//!   is over. What is repeated is the same message: writes carry their request id.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::RwLock;
use stela_proto::nameserver as pb;
use stela_proto::nameserver::nameserver_client::NameserverClient;
use tonic::transport::{Channel, Endpoint};

use super::attempts::backoff;
use super::driver::Driver;
use super::error::ConnectError;
use super::link::{MESSAGE, brief, describe};
use crate::code::{Code, Refusal};
use crate::wire;

/// The first answer must be there by then, so that a wrong list is told within two seconds.
const CONNECT: Duration = Duration::from_millis(1500);
/// The first attempt's time; each further one has twice as much, so that a slow answer is waited for in the end.
const ATTEMPT: Duration = Duration::from_secs(1);
const ATTEMPT_MOST: Duration = Duration::from_secs(8);

/// A reply that may say no.
pub(super) trait Reply {
    /// What it says.
    fn outcome(&self) -> Result<(), Refusal>;
}

macro_rules! reply {
    ($($name:ident),*) => {
        $(impl Reply for pb::$name {
            fn outcome(&self) -> Result<(), Refusal> {
                wire::outcome(self.status.as_ref())
            }
        })*
    };
}

reply!(
    ShowTabletReply,
    ShowTableReply,
    ShowOpStatusReply,
    ConfGetReply,
    ShowDbReply,
    CandidatesReply,
    ShowJobsReply,
    WriteReply
);

impl Reply for pb::ClusterReply {
    fn outcome(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

struct Peer {
    endpoint: String,
    client: NameserverClient<Channel>,
    /// It has said that it is of this cluster.
    ours: AtomicBool,
}

/// The nameservers of a cluster, as far as they are known.
pub(super) struct Nameservers {
    driver: Arc<Driver>,
    peers: RwLock<Vec<Arc<Peer>>>,
    /// The one that answered last.
    current: AtomicUsize,
}

impl Nameservers {
    /// Finds one that answers, and settles the driver's cluster.
    pub(super) async fn connect(
        driver: Arc<Driver>,
        list: &[String],
        asked: Option<&str>,
    ) -> Result<Self, ConnectError> {
        let no_answer = |last: String| ConnectError::NoAnswer { tried: list.to_vec(), last };
        let peers = list
            .iter()
            .map(|e| peer(&driver, e))
            .collect::<Result<Vec<_>, _>>()
            .map_err(no_answer)?;
        let deadline = Instant::now() + CONNECT;
        let mut last = String::from("nothing within 1.5 s");
        let mut stranger = None;
        for tries in 0.. {
            let mut asking: FuturesUnordered<_> =
                peers.iter().enumerate().map(|(at, p)| greet(&driver, at, p, deadline)).collect();
            while let Some((at, answer)) = asking.next().await {
                match answer {
                    Err(text) => last = text,
                    Ok(reply) => match asked {
                        Some(asked) if asked != reply.cluster => {
                            let endpoint = peers[at].endpoint.clone();
                            stranger = Some(ConnectError::WrongCluster {
                                asked: asked.into(),
                                found: reply.cluster,
                                endpoint,
                            });
                        }
                        _ => {
                            drop(asking);
                            peers[at].ours.store(true, Ordering::Relaxed);
                            driver.set_cluster(reply.cluster.clone());
                            let this = Self {
                                driver,
                                peers: RwLock::new(peers),
                                current: AtomicUsize::new(at),
                            };
                            this.learn(&reply);
                            return Ok(this);
                        }
                    },
                }
            }
            if let Some(stranger) = stranger {
                return Err(stranger);
            }
            let pause = backoff(tries);
            if peers.is_empty() || Instant::now() + pause >= deadline {
                break;
            }
            driver.sleep(pause).await;
        }
        Err(no_answer(last))
    }

    /// Asks until there is a definite answer. What is not known at the deadline is a refusal with a code of its own:
    /// [`Code::SetFailed`] if a write may have been applied, [`Code::RpcFailed`] else.
    pub(super) async fn ask<R, F, A>(
        &self,
        write: bool,
        deadline: Instant,
        request: F,
    ) -> Result<R, Refusal>
    where
        R: Reply,
        F: Fn(NameserverClient<Channel>) -> A,
        A: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        let mut last = Refusal::new(Code::RpcFailed, "no nameserver was asked");
        let mut exposed = false;
        let mut leaderless = false;
        let mut patience = ATTEMPT;
        for tries in 0.. {
            let (at, peer, count) = self.pick();
            let until = (Instant::now() + patience).min(deadline);
            last = match self.attempt(&peer, until, &request).await {
                Ok(reply) => match reply.outcome() {
                    Ok(()) => return Ok(reply),
                    // The one that answers stays the one to ask: it is the group that is not ready.
                    Err(refusal) if refusal.code == Code::Busy => refusal,
                    Err(refusal)
                        if refusal.code == Code::NotLeader || refusal.code == Code::SetFailed =>
                    {
                        exposed |= refusal.code == Code::SetFailed;
                        leaderless |= refusal.code == Code::NotLeader;
                        self.leave(at);
                        refusal
                    }
                    Err(refusal) => return Err(refusal),
                },
                Err(Failed::Broken(text)) => return Err(Refusal::new(Code::Malformed, text)),
                Err(Failed::NoAnswer { sent, text }) => {
                    exposed |= sent;
                    self.leave(at);
                    patience = if sent { (patience * 2).min(ATTEMPT_MOST) } else { patience };
                    Refusal::new(Code::RpcFailed, text)
                }
            };
            // A first round through all of them without a pause: one of three may be the only one that is down.
            let pause = if tries + 1 < count { Duration::ZERO } else { backoff(tries + 1 - count) };
            if Instant::now() + pause >= deadline {
                break;
            }
            if !pause.is_zero() {
                self.driver.sleep(pause).await;
            }
        }
        let text = if leaderless {
            format!(
                "no nameserver leads: a majority of them must be up; the last one asked: {last}"
            )
        } else {
            format!("no definite answer from the nameservers in time: {last}")
        };
        Err(match last.code {
            _ if write && exposed => {
                Refusal::new(Code::SetFailed, format!("{text}; the outcome is unknown"))
            }
            code => Refusal::new(code, text),
        })
    }

    async fn attempt<R, F, A>(&self, peer: &Peer, until: Instant, request: &F) -> Result<R, Failed>
    where
        F: Fn(NameserverClient<Channel>) -> A,
        A: Future<Output = Result<tonic::Response<R>, tonic::Status>>,
    {
        if !peer.ours.load(Ordering::Relaxed) {
            let greeted =
                self.driver.within(until, peer.client.clone().cluster(pb::ClusterRequest {})).await;
            let found = match greeted {
                Some(Ok(reply)) => reply.into_inner().cluster,
                Some(Err(status)) => return Err(Failed::unsent(peer, &brief(&status))),
                None => return Err(Failed::unsent(peer, "no answer")),
            };
            if found != self.driver.cluster() {
                return Err(Failed::unsent(peer, &format!("it is of cluster '{found}'")));
            }
            peer.ours.store(true, Ordering::Relaxed);
        }
        match self.driver.within(until, request(peer.client.clone())).await {
            Some(Ok(reply)) => Ok(reply.into_inner()),
            Some(Err(status)) => Err(Failed::from_status(peer, &status)),
            None => {
                Err(Failed::NoAnswer { sent: true, text: format!("{}: no answer", peer.endpoint) })
            }
        }
    }

    fn pick(&self) -> (usize, Arc<Peer>, u32) {
        let peers = self.peers.read();
        let at = self.current.load(Ordering::Relaxed) % peers.len();
        (at, peers[at].clone(), u32::try_from(peers.len()).unwrap_or(u32::MAX))
    }

    /// Asks another one next; not if somebody else has turned away already.
    fn leave(&self, at: usize) {
        let next = (at + 1) % self.peers.read().len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes over the endpoints that a nameserver names.
    pub(super) fn learn(&self, reply: &pb::ClusterReply) {
        let mut peers = self.peers.write();
        for row in &reply.nameservers {
            if !row.endpoint.is_empty() && !peers.iter().any(|p| p.endpoint == row.endpoint) {
                peers.extend(peer(&self.driver, &row.endpoint));
            }
        }
    }
}

enum Failed {
    /// Nothing to wait for: the message itself is refused.
    Broken(String),
    NoAnswer {
        sent: bool,
        text: String,
    },
}

impl Failed {
    fn unsent(peer: &Peer, text: &str) -> Self {
        Self::NoAnswer { sent: false, text: format!("{}: {text}", peer.endpoint) }
    }

    fn from_status(peer: &Peer, status: &tonic::Status) -> Self {
        let text = format!("{}: {}", peer.endpoint, brief(status));
        match status.code() {
            tonic::Code::InvalidArgument | tonic::Code::Unimplemented | tonic::Code::OutOfRange => {
                Self::Broken(text)
            }
            // The connection was refused: nothing was sent.
            _ => Self::NoAnswer { sent: !wire::connection_refused(status), text },
        }
    }
}

fn peer(driver: &Driver, endpoint: &str) -> Result<Arc<Peer>, String> {
    let address = Endpoint::from_shared(format!("http://{endpoint}"))
        .map_err(|e| format!("'{endpoint}' is not host:port: {}", describe(&e)))?
        .local_address(driver.source())
        .connect_timeout(Duration::from_millis(500))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(1));
    let _inside = driver.handle().enter();
    let client = NameserverClient::new(address.connect_lazy()).max_decoding_message_size(MESSAGE);
    Ok(Arc::new(Peer { endpoint: endpoint.to_owned(), client, ours: AtomicBool::new(false) }))
}

async fn greet(
    driver: &Driver,
    at: usize,
    peer: &Peer,
    deadline: Instant,
) -> (usize, Result<pb::ClusterReply, String>) {
    let answer =
        match driver.within(deadline, peer.client.clone().cluster(pb::ClusterRequest {})).await {
            Some(Ok(reply)) => Ok(reply.into_inner()),
            Some(Err(status)) => Err(format!("{}: {}", peer.endpoint, brief(&status))),
            None => Err(format!("{}: no answer", peer.endpoint)),
        };
    (at, answer)
}
