//! From a directory to a nameserver that serves, and back.
//!
//! What can be wrong is looked at first, in an order that changes nothing on disk until all of it is right: the
//! settings, whose directory it is and its formats, the cluster of the others, the port, the lock of the directory.
//!
//! **Invariants**
//! * One listener carries everything: the group's own messages and what clients, tablets and HTTP tools ask.
//! * Whatever ends by itself that must not (the library, a sync, the server) ends the process with an error.
//! * It says that it is ready when it is a member and has shown once that it sees all that the group has acknowledged.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stela_common::fs::{self, DirLock};
use stela_meta_state::command::Command;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::config::Config;
use crate::control::Control;
use crate::error::StartError;
use crate::founding;
use crate::group::Group;
use crate::http;
use crate::identity::{self, Identity};
use crate::raft::seat::{LOG, Seat};
use crate::raft::{self, snapshot};
use crate::service;

/// How long a clean stop waits for calls that are under way.
const DRAIN: Duration = Duration::from_millis(500);

/// Tells of a sync of the log that failed.
type Failed = watch::Receiver<Option<Arc<io::Error>>>;

/// Runs a nameserver until `stop` is cancelled; `ready` is called when it is a member of its group and serves.
///
/// # Errors
/// Why it does not start, or had to end; see [`StartError`].
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), StartError> {
    let own = config.clone();
    run_with(config, stop, ready, move |group, routes| {
        let control = Control::start(group.clone(), &own);
        let answers = service::answers(group.clone(), control.clone());
        routes.add_service(service::nameserver(answers.clone()));
        routes.add_service(service::registry(group.clone(), control));
        stela_common::http::attach(routes, http::router(answers, own.endpoint.clone()));
    })
    .await
}

/// The same with other services in place of the nameserver's own; `attach` is given the group before anything is served.
///
/// # Errors
/// See [`run`].
pub async fn run_with(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
    attach: impl FnOnce(&Group, &mut RoutesBuilder) + Send,
) -> Result<(), StartError> {
    config.check()?;
    check_directory(&config)?;
    founding::check_cluster(&config).await?;
    let listen = |source| StartError::Listen { endpoint: config.listen().to_owned(), source };
    let listener = TcpListener::bind(config.listen()).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let lock = Arc::new(fs::lock_dir(&config.dir)?);

    // Nobody else changes the directory from here on, but somebody may have between the first look and the lock.
    check_directory(&config)?;
    let stopping = stop.child_token();
    let (seat, identity, failed) = open(&config, lock, stopping.clone())?;
    let group = Group::new(seat.clone());
    let mut routes = Routes::builder();
    routes.add_service(raft::service::server(seat.clone()));
    attach(&group, &mut routes);

    let ended = serve(
        &seat,
        &group,
        &config,
        identity,
        Listening { listener, address, routes },
        failed,
        ready,
    )
    .await;
    stopping.cancel();
    seat.close().await;
    ended
}

/// What can be wrong with a directory without changing anything in it.
fn check_directory(config: &Config) -> Result<(), StartError> {
    identity::check_kind(config)?;
    let Some(found) = Identity::read(&config.dir)? else { return Ok(()) };
    found.check(config)?;
    snapshot::refuse_newer(&config.dir)?;
    if found.node != 0 && !fs::exists(config.dir.join(LOG)) {
        let what = "its log is missing: votes that it gave may be forgotten".into();
        return Err(StartError::Damaged { dir: config.dir.clone(), what });
    }
    Ok(())
}

/// Opens the directory, making it one if it is new.
fn open(
    config: &Config,
    lock: Arc<DirLock>,
    stop: CancellationToken,
) -> Result<(Arc<Seat>, Identity, Failed), StartError> {
    let mut identity = match Identity::read(&config.dir)? {
        Some(identity) => identity,
        None => {
            let identity = Identity::draw(config);
            identity.write(&config.dir)?;
            identity
        }
    };
    let (fail, failed) = watch::channel(None);
    let on_fatal = move |error: io::Error| {
        tracing::error!(%error, "a sync of the log failed: the nameserver ends");
        fail.send_replace(Some(Arc::new(error)));
    };
    let seat = Seat::open(config, &identity, lock, stop, on_fatal)?;
    if !seat.is_empty() {
        if identity.node == 0 {
            let what = "it has a log, but no number in the group".into();
            return Err(StartError::Damaged { dir: config.dir.clone(), what });
        }
        return Ok((Arc::new(seat), identity, failed));
    }
    let list: Vec<String> = config.list().into_iter().collect();
    if identity.nameservers == list {
        return Ok((Arc::new(seat), identity, failed));
    }
    // What others were told under the old list is void: they know another directory.
    identity = Identity::draw(config);
    identity.write(&config.dir)?;
    Ok((Arc::new(seat.renamed(&identity)), identity, failed))
}

struct Listening {
    listener: TcpListener,
    address: SocketAddr,
    routes: RoutesBuilder,
}

async fn serve(
    seat: &Arc<Seat>,
    group: &Group,
    config: &Config,
    mut identity: Identity,
    listening: Listening,
    mut failed: Failed,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), StartError> {
    let Listening { listener, address, routes } = listening;
    let (drain, draining) = oneshot::channel::<()>();
    let server = Server::builder()
        // Operators' tools post JSON to this port; what a connection speaks is told by its first bytes.
        .accept_http1(true)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .http2_keepalive_timeout(Some(Duration::from_secs(5)))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async {
                let _ = draining.await; // either way: it ends
            },
        );
    let mut server = std::pin::pin!(server);
    let stop = group.stop();
    let life = async {
        if seat.is_empty() {
            founding::become_member(seat, config, &mut identity).await?;
        } else {
            seat.start(identity.node).await?;
        }
        tokio::spawn(name_cluster(group.clone()));
        while group.linearizable().await.is_err() {
            if group.stop().is_cancelled() {
                return std::future::pending().await; // whoever waits for this looks at the stop as well
            }
            tracing::warn!(
                endpoint = config.endpoint,
                "waits for a leader of the group of nameservers"
            );
        }
        if !seat.is_voter() {
            tracing::warn!("follows the group as a learner: it does not vote until it is admitted");
        }
        ready(address);
        std::future::pending::<Result<(), StartError>>().await
    };
    let outcome = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = &mut server => Err(listen_error(config, ended)),
        error = sync_failed(&mut failed) => Err(StartError::io(config.dir.join(LOG))(error)),
        error = seat.died() => Err(error),
        ended = life => ended,
    };
    stop.cancel();
    drop(drain);
    // Streams that clients keep open are not waited for beyond this.
    let _ = tokio::time::timeout(DRAIN, server).await;
    outcome
}

fn listen_error(config: &Config, ended: Result<(), tonic::transport::Error>) -> StartError {
    let source = match ended {
        Ok(()) => io::Error::other("the server has ended"),
        Err(e) => io::Error::other(e),
    };
    StartError::Listen { endpoint: config.listen().to_owned(), source }
}

async fn sync_failed(failed: &mut Failed) -> io::Error {
    match failed.wait_for(Option::is_some).await.ok().and_then(|e| e.clone()) {
        Some(error) => io::Error::new(error.kind(), error.to_string()),
        None => std::future::pending().await, // the log was closed
    }
}

/// The group has a name, given here or by somebody else.
async fn named(group: &Group) -> bool {
    if group.confirm().await.is_err() {
        return false;
    }
    if !group.store().read(|state| state.cluster.is_empty()) {
        return true;
    }
    let found = Command::Found { cluster: group.cluster().to_owned() };
    let proposed = group.propose_batch(vec![found]).await;
    if let Err(error) = &proposed {
        tracing::debug!(%error, "the group was not named");
    }
    proposed.is_ok()
}

/// Whoever leads a group that has no name yet gives it one: its first command.
async fn name_cluster(group: Group) {
    let (mut leadership, stop) = (group.leadership(), group.stop());
    loop {
        let unnamed = leadership.borrow_and_update().here
            && group.store().read(|state| state.cluster.is_empty());
        if unnamed && !named(&group).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = leadership.changed() => if changed.is_err() { return },
        }
    }
}
