//! The handshake with a tablet's port that the fast path asks for (R18), and other nameservers (R19).

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use stela_common::clock::Millis;
use stela_common::ids::Incarnation;
use stela_proto::tablet::IdentityRequest;
use stela_proto::tablet::tablet_client::TabletClient;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// A port on the way to which nothing is wrong answers sooner.
const CONNECT: Duration = Duration::from_millis(150);
const ANSWER: Duration = Duration::from_millis(250);
/// For so long what a handshake found is told to others, ms.
const FRESH: u64 = 400;

/// What a handshake found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The port refuses, or another run answers: the run that was meant is gone, as far as can be seen from here.
    Gone,
    /// The run that was meant answers.
    There,
    /// Neither can be said.
    Unclear,
}

/// Looks whether that run of a tablet is behind its port.
pub async fn probe(endpoint: &str, incarnation: Incarnation) -> Found {
    match timeout(CONNECT, TcpStream::connect(endpoint)).await {
        Ok(Ok(_)) => {}
        Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Found::Gone,
        Ok(Err(_)) | Err(_) => return Found::Unclear,
    }
    match timeout(ANSWER, identity(endpoint)).await {
        Ok(Some(answers)) if answers == incarnation => Found::There,
        Ok(Some(_)) => Found::Gone,
        Ok(None) | Err(_) => Found::Unclear,
    }
}

/// Handshakes for which many wait: when a tablet is lost, every partition asks about it.
#[derive(Default)]
pub struct Probes(Mutex<BTreeMap<Incarnation, (Millis, Look)>>);

/// One handshake, whose result all who wait for it get.
type Look = Shared<BoxFuture<'static, Found>>;

impl Probes {
    /// What a handshake with that run found that was begun at most 400 ms ago.
    pub async fn look(&self, endpoint: String, run: Incarnation) -> Found {
        let now = Millis::now();
        let shared = {
            let mut begun = self.0.lock();
            begun.retain(|_, (at, _)| now.since(*at) < FRESH);
            let fresh = || (now, async move { probe(&endpoint, run).await }.boxed().shared());
            begun.entry(run).or_insert_with(fresh).1.clone()
        };
        shared.await
    }
}

async fn identity(endpoint: &str) -> Option<Incarnation> {
    let channel = Endpoint::from_shared(format!("http://{endpoint}"))
        .ok()?
        .connect_timeout(CONNECT)
        .connect()
        .await
        .ok()?;
    let reply = TabletClient::new(channel).identity(IdentityRequest {}).await.ok()?;
    Some(Incarnation(reply.into_inner().incarnation))
}
