//! The handshake with a tablet's port that the fast path asks for (R18).

use std::time::Duration;

use stela_common::ids::Incarnation;
use stela_proto::tablet::IdentityRequest;
use stela_proto::tablet::tablet_client::TabletClient;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::transport::Endpoint;

/// A port on the way to which nothing is wrong answers sooner.
const CONNECT: Duration = Duration::from_millis(150);
const ANSWER: Duration = Duration::from_millis(250);

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
