//! From a directory to a tablet that serves, and back.
//!
//! What can be wrong is looked at first, in an order that changes nothing on disk until all of it is right: the port, the
//! directory, its identity, the nameservers' cluster.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stela_common::clock::Millis;
use stela_common::fs::{self, Disk};
use stela_common::ids::PartitionKey;
use stela_common::log::{self, Log};
use stela_proto::nameserver as ns;
use stela_proto::nameserver::nameserver_client::NameserverClient;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Endpoint, Server};

use crate::checkpoint;
use crate::chores;
use crate::config::Config;
use crate::disk::{FORMAT, Files, Identity};
use crate::heartbeat::{self, Outcast};
use crate::http;
use crate::loading::{self, Pending};
use crate::node::{Inner, Node};
use crate::replicate;
use crate::room;
use crate::scrub;
use crate::service::Service;
use crate::snapshot::files::{self as snapshots, Found};
use crate::store::load::{self, Loaded};
use crate::transfer;
use crate::write::{self, Inbox};

/// Why a tablet does not start, or has to end: the cause and the cure in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is not one, or is not this machine's.
    #[error(
        "cannot listen on {endpoint}: {source}; give --endpoint (or --listen) an address of this machine with a free port (ss -ltnp shows who has it)"
    )]
    Listen {
        /// Where.
        endpoint: String,
        /// Why.
        source: io::Error,
    },
    /// The directory cannot be used.
    #[error("cannot use directory {}: {why}", dir.display())]
    Directory {
        /// Which.
        dir: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// The directory cannot be written, or another process has it.
    #[error(transparent)]
    Lock(#[from] fs::LockError),
    /// The directory is another cluster's or tablet's.
    #[error(
        "directory {} belongs to tablet {endpoint} of cluster {cluster}; start it with that endpoint and cluster, or give another --db_root_path",
        dir.display()
    )]
    Foreign {
        /// Which.
        dir: PathBuf,
        /// Whose.
        endpoint: String,
        /// Whose.
        cluster: String,
    },
    /// The directory was written by a newer version.
    #[error("directory {} has format {found}, newer than {FORMAT}: start it with the version that wrote it", dir.display())]
    Newer {
        /// Which.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The log cannot be opened.
    #[error("{0}")]
    Log(#[from] log::OpenError),
    /// The nameservers do not want it.
    #[error("{0}")]
    Outcast(#[from] Outcast),
    /// The server ended.
    #[error("the server at {endpoint} ended: {why}")]
    Serve {
        /// Where.
        endpoint: String,
        /// Why.
        why: String,
    },
}

/// Runs a tablet until `stop` is cancelled; `ready` is called when it is registered and serves.
///
/// # Errors
/// [`StartError`].
pub async fn run(
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), StartError> {
    run_on(Disk::real(), config, stop, ready).await
}

/// The same on a disk that may record and fail.
///
/// # Errors
/// [`StartError`].
pub async fn run_on(
    disk: Disk,
    config: Config,
    stop: CancellationToken,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), StartError> {
    let listen = |source| StartError::Listen { endpoint: config.listen().to_owned(), source };
    let address: SocketAddr = config
        .listen()
        .parse()
        .map_err(|_| listen(io::Error::new(io::ErrorKind::InvalidInput, "not an ip:port")))?;
    let listener = TcpListener::bind(address).await.map_err(listen)?;

    let directory = |why: String| StartError::Directory { dir: config.dir.clone(), why };
    let files = Files::new(disk.clone(), config.dir.clone());
    let identity = files.identity().map_err(|e| directory(e.to_string()))?;
    check_identity(&config, identity.as_ref())?;
    let lock = || fs::lock_dir(&config.dir);
    // One that somebody has or had is locked at once; another one only for a cluster that has answered.
    let early = if fs::exists(config.dir.join("LOCK")) { Some(lock()?) } else { None };
    if identity.is_some() {
        answers_for_us(&config).await?;
    } else if !is_empty(&config.dir).map_err(|e| directory(e.to_string()))? {
        return Err(directory("it is not empty and not a tablet's; give an empty one".into()));
    } else {
        fs::check_writable(&config.dir)?;
        if !await_cluster(&config, &stop).await? {
            return Ok(());
        }
    }
    let _lock = match early {
        Some(lock) => lock,
        None => lock()?,
    };
    if identity.is_none() {
        let identity = Identity {
            format: FORMAT,
            cluster: config.cluster.clone(),
            endpoint: config.endpoint.clone(),
            dir_uuid: format!("{:032x}", rand::random::<u128>()),
        };
        files.create(&identity).map_err(|e| directory(e.to_string()))?;
    }

    let endpoint = config.endpoint.clone();
    // However this ends, a snapshot in the making ends too.
    let _stopped = stop.clone().drop_guard();
    let (node, pending) = open(config, disk, files, stop.clone())?;
    let loading = tokio::task::spawn_blocking({
        let node = node.clone();
        move || loading::run(&node, pending)
    });
    let outcome = serve(&node, listener, address, ready).await;
    stop.cancel();
    // It has seen that, or is done. A panic there has ended the process.
    let _ = loading.await;
    let closing = tokio::task::spawn_blocking(move || close(&node));
    let _ = closing.await;
    outcome.map_err(|e| match e {
        Ended::Outcast(why) => why.into(),
        Ended::Serve(why) => StartError::Serve { endpoint, why },
    })
}

/// Ends the log, and keeps the indexes for the next start.
pub(crate) fn close(node: &Node) {
    if let Err(e) = node.log.close() {
        tracing::error!(error = %e, "the log was not closed cleanly");
        return;
    }
    let begun = std::time::Instant::now();
    match checkpoint::save(node) {
        Ok(Some(rows)) => {
            tracing::info!(rows, ms = begun.elapsed().as_millis(), "the indexes are kept");
        }
        Ok(None) => tracing::info!("the next start reads the log"),
        Err(error) => {
            tracing::warn!(%error, "the indexes are not kept: the next start reads the log")
        }
    }
}

/// A directory that is missing, or holds nothing (a lock of an earlier try aside).
fn is_empty(dir: &Path) -> io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(found) => Ok(found.iter().all(|p| p.file_name().is_some_and(|n| n == "LOCK"))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(e),
    }
}

fn check_identity(config: &Config, identity: Option<&Identity>) -> Result<(), StartError> {
    let Some(identity) = identity else { return Ok(()) };
    if identity.format > FORMAT {
        return Err(StartError::Newer { dir: config.dir.clone(), found: identity.format });
    }
    if identity.cluster != config.cluster || identity.endpoint != config.endpoint {
        return Err(StartError::Foreign {
            dir: config.dir.clone(),
            endpoint: identity.endpoint.clone(),
            cluster: identity.cluster.clone(),
        });
    }
    Ok(())
}

/// Waits until a nameserver has told its cluster's name. `false`: stopped before.
async fn await_cluster(config: &Config, stop: &CancellationToken) -> Result<bool, StartError> {
    let mut warned = Millis::default();
    while !answers_for_us(config).await? {
        if Millis::now().since(warned) > 2000 {
            warned = Millis::now();
            tracing::warn!(nameservers = config.nameservers.join(","), "waits for a nameserver");
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    Ok(true)
}

/// Asks the nameservers for their cluster's name. `false`: none answers.
async fn answers_for_us(config: &Config) -> Result<bool, StartError> {
    let names =
        futures::future::join_all(config.nameservers.iter().map(|endpoint| cluster_of(endpoint)))
            .await;
    let answers = config
        .nameservers
        .iter()
        .zip(names)
        .filter_map(|(endpoint, name)| name.map(|name| (endpoint, name)));
    let mut answered = false;
    for (endpoint, found) in answers {
        if found != config.cluster {
            let text = format!(
                "nameserver {endpoint} is of cluster {found}, not {}; give --cluster={found} or other --nameservers",
                config.cluster
            );
            return Err(Outcast::WrongCluster(text).into());
        }
        answered = true;
    }
    Ok(answered)
}

async fn cluster_of(endpoint: &str) -> Option<String> {
    let connect = Endpoint::from_shared(format!("http://{endpoint}"))
        .ok()?
        .connect_timeout(Duration::from_millis(300));
    let mut client = NameserverClient::new(connect.connect().await.ok()?);
    let mut request = tonic::Request::new(ns::ClusterRequest {});
    request.set_timeout(Duration::from_millis(500));
    let cluster = client.cluster(request).await.ok()?.into_inner().cluster;
    (!cluster.is_empty()).then_some(cluster)
}

/// The tablet that the directory holds, and what of it is yet to be made readable.
pub(crate) fn open(
    config: Config,
    disk: Disk,
    files: Files,
    stop: CancellationToken,
) -> Result<(Arc<Node>, Vec<Pending>), StartError> {
    let directory =
        |e: io::Error| StartError::Directory { dir: config.dir.clone(), why: e.to_string() };
    let now = Millis::now();
    let options = log::Options { segment_bytes: config.segment_bytes, ..Default::default() };
    let (log, recovery) = Log::open(disk, &files.log_dir(), options, |e| {
        // What a failed sync leaves in the page cache is not what is on disk: nothing may be acknowledged any more.
        tracing::error!(error = %e, "a sync of the log failed: the tablet ends");
        std::process::exit(74);
    })?;
    for damage in &recovery.damage {
        tracing::error!(at = %damage.at, bytes = damage.bytes, reason = %damage.reason, partitions = ?damage.suspects, "the log is damaged");
    }
    let found = open_snapshots(&files).map_err(directory)?;
    let tables = files.tables().map_err(directory)?;
    let restored = checkpoint::restore(&files, &tables, &log, &recovery, &found);
    let mut loaded = restored.unwrap_or_else(|| load::replay(&log, &recovery, &found));
    let mut fences = files.fences().map_err(directory)?;
    if !recovery.clean && !fences.unclean {
        fences.unclean = true;
        files.set_fences(&fences).map_err(directory)?;
    }
    let mut inner = Inner::new(now, fences);
    inner.tables = tables;
    let node = Node::new(config.clone(), heartbeat::draw_incarnation(), files, log, stop, inner);
    let mut inner = node.look();
    let here: Vec<_> = inner
        .tables
        .values()
        .map(|held| (Arc::new(held.table.clone()), held.pids.clone()))
        .collect();
    let mut pending = Vec::new();
    for (table, pids) in here {
        for key in pids.into_iter().map(|pid| PartitionKey { tid: table.tid, pid }) {
            let found = loaded.remove(&key).unwrap_or_default();
            pending.extend(loading::host(&node, &mut inner, key, table.clone(), found));
        }
    }
    let orphans: BTreeMap<PartitionKey, Loaded> =
        loaded.into_iter().filter(|(_, l)| !l.purged).collect();
    for key in orphans.keys() {
        tracing::warn!(%key, "a copy of a partition that no table here names: kept, not served");
    }
    inner.orphans = orphans;
    drop(inner);
    Ok((node, pending))
}

/// The snapshots of all partitions, every checksum verified.
fn open_snapshots(files: &Files) -> io::Result<BTreeMap<PartitionKey, Found>> {
    let listed = snapshots::list(&files.snapshots())?.into_iter().collect();
    let open =
        |(key, paths): (PartitionKey, Vec<PathBuf>)| (key, Found::open(files.disk(), key, &paths));
    Ok(loading::in_parallel(listed, open).into_iter().collect())
}

enum Ended {
    Outcast(Outcast),
    Serve(String),
}

async fn serve(
    node: &Arc<Node>,
    listener: TcpListener,
    address: SocketAddr,
    ready: impl FnOnce(SocketAddr) + Send,
) -> Result<(), Ended> {
    let inbox = Arc::new(Inbox::default());
    let service = Service::new(node.clone(), inbox.clone());
    let mut routes = Routes::builder();
    routes.add_service(service.tablet()).add_service(service.replication());
    stela_common::http::attach(&mut routes, http::router(service));
    let server = Server::builder()
        // Operators' tools post JSON to this port; what a connection speaks is told by its first bytes.
        .accept_http1(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .max_frame_size(1 << 20)
        .http2_keepalive_interval(Some(Duration::from_secs(5)))
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(
            // The builder's own option only holds for listeners that it makes itself.
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            node.stop.clone().cancelled_owned(),
        );
    let (registered, mut is_registered) = watch::channel(false);

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(write::drain(node.clone(), inbox));
    tasks.spawn(replicate::keep_peers(node.clone()));
    tasks.spawn(tell_synced(node.clone()));
    tasks.spawn(chores::tick(node.clone()));
    tasks.spawn(chores::sweep(node.clone()));
    tasks.spawn(transfer::run(node.clone()));
    tasks.spawn(chores::keep_short(node.clone()));
    tasks.spawn(room::watch(node.clone()));
    if !node.config.scrub.is_zero() {
        tasks.spawn(scrub::scrub(node.clone()));
    }
    let mut server = std::pin::pin!(server);
    let mut heartbeat = std::pin::pin!(heartbeat::run(node.clone(), registered));
    let mut ready = Some(ready);
    loop {
        tokio::select! {
            // Streams that clients keep open are not waited for: what is acknowledged is in the log.
            () = node.stop.cancelled() => return Ok(()),
            ended = &mut server => return ended.map_err(|e| Ended::Serve(e.to_string())),
            ended = &mut heartbeat => match ended {
                Ok(()) => return Ok(()),
                Err(why) => return Err(Ended::Outcast(why)),
            },
            Ok(()) = is_registered.changed(), if ready.is_some() => {
                if let Some(ready) = ready.take() {
                    ready(address);
                }
            }
            Some(ended) = tasks.join_next() => {
                if node.stop.is_cancelled() {
                    return Ok(());
                }
                // None of them ends by itself: whatever it was, the tablet must not go on without it.
                return Err(Ended::Serve(format!("a task of the tablet ended: {ended:?}")));
            }
        }
    }
}

/// The end of a sync is handled here and not on the sync thread: no lock is fought over.
pub(crate) async fn tell_synced(node: Arc<Node>) {
    let mut synced = node.log.watch_synced();
    loop {
        let to = *synced.borrow_and_update();
        node.synced(to);
        tokio::select! {
            () = node.stop.cancelled() => return,
            changed = synced.changed() => if changed.is_err() { return },
        }
    }
}
