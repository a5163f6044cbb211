//! Every link between two parties of a cluster, in the hands of a drill.
//!
//! Each server is known by the address of a proxy and listens elsewhere. The proxy finds out who connects (`who`), and
//! passes bytes on as the link from the one to the other allows (`pump`): freely, late, not now, or never.
//!
//! **Invariants**
//! * A link has a direction, for bytes, whoever opened the connection. What is held back is kept and flows when the link
//!   heals, as lost packets are sent again; a connection that is opened meanwhile hangs. A cut connection ends with a
//!   reset, and new ones do.
//! * A change of several links takes effect at one moment.
//! * The port of a server that is down refuses connections, as without a proxy.

mod pump;
mod who;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Who is at the end of a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Party {
    /// The server at that place of the cluster's list.
    Server(usize),
    /// Clients of that group.
    Clients(u8),
}

/// What becomes of bytes on a link in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flow {
    /// They arrive.
    #[default]
    Pass,
    /// They arrive so much later.
    Late(Duration),
    /// They arrive when the link heals.
    Hold,
    /// The connection is reset.
    Cut,
}

/// How often a proxy looks whether its server listens.
const LOOK: Duration = Duration::from_millis(5);

/// How many bytes have arrived on each link.
type Carried = Mutex<BTreeMap<(Party, Party), u64>>;

/// The state of all links: those that are not in it pass.
type Links = BTreeMap<(Party, Party), Flow>;

/// The network of one cluster. Its proxies end when it is dropped.
pub struct Net {
    shared: Arc<Shared>,
    runtime: Handle,
    stop: CancellationToken,
}

struct Shared {
    links: watch::Sender<Arc<Links>>,
    carried: Arc<Carried>,
    /// Processes of servers.
    pids: Mutex<BTreeMap<usize, u32>>,
    /// Where clients of a group come from.
    sources: Mutex<BTreeMap<IpAddr, u8>>,
    doors: Mutex<BTreeMap<usize, Door>>,
}

/// A proxy's listener.
struct Door {
    public: SocketAddr,
    real: SocketAddr,
    open: Option<JoinHandle<()>>,
}

impl Net {
    /// A network in which everything passes, on a thread of its own.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        std::thread::Builder::new().name("links".into()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?;
        let shared = Shared {
            links: watch::Sender::new(Arc::default()),
            carried: Arc::default(),
            pids: Mutex::default(),
            sources: Mutex::default(),
            doors: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), runtime: handle, stop })
    }

    /// A server is known by one address and listens at another. Its door is closed until it is [up](Self::up).
    pub fn place(&self, server: usize, public: SocketAddr, real: SocketAddr) {
        self.shared.doors.lock().insert(server, Door { public, real, open: None });
    }

    /// Clients that connect from there are of that group.
    pub fn clients(&self, source: IpAddr, group: u8) {
        self.shared.sources.lock().insert(source, group);
    }

    /// A server's process has been started: its door opens when it listens.
    pub fn up(&self, server: usize, pid: u32) {
        self.shared.pids.lock().insert(server, pid);
        if let Some(door) = self.shared.doors.lock().get_mut(&server) {
            let (public, real) = (door.public, door.real);
            door.open = Some(self.runtime.spawn(open(self.shared.clone(), server, public, real)));
        }
    }

    /// A server's process ends now: its door closes first, so that its port refuses at once.
    pub fn down(&self, server: usize) {
        self.shared.pids.lock().remove(&server);
        let open = self.shared.doors.lock().get_mut(&server).and_then(|d| d.open.take());
        if let Some(open) = open {
            open.abort();
            // The listener is closed when its task is gone, which is on another thread.
            while !open.is_finished() {
                std::thread::yield_now();
            }
        }
    }

    /// Changes links, all at one moment; the others stay as they are.
    pub fn set(&self, changes: impl IntoIterator<Item = ((Party, Party), Flow)>) {
        self.shared.links.send_modify(|links| {
            let mut changed = Links::clone(links);
            changed.extend(changes);
            *links = Arc::new(changed);
        });
    }

    /// Every link passes again.
    pub fn heal(&self) {
        self.shared.links.send_replace(Arc::default());
    }

    /// How many bytes have arrived at that server from other servers.
    pub fn received(&self, server: usize) -> u64 {
        let carried = self.shared.carried.lock();
        let to = |(from, to): &(Party, Party)| {
            matches!(from, Party::Server(_)) && *to == Party::Server(server)
        };
        carried.iter().filter(|(link, _)| to(link)).map(|(_, bytes)| bytes).sum()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Both directions between some parties and some others.
#[must_use]
pub fn between(some: &[Party], others: &[Party], flow: Flow) -> Vec<((Party, Party), Flow)> {
    let pairs = some.iter().flat_map(|a| others.iter().map(move |b| (*a, *b)));
    pairs.filter(|(a, b)| a != b).flat_map(|(a, b)| [((a, b), flow), ((b, a), flow)]).collect()
}

fn flow(links: &Links, from: Party, to: Party) -> Flow {
    links.get(&(from, to)).copied().unwrap_or_default()
}

async fn open(shared: Arc<Shared>, server: usize, public: SocketAddr, real: SocketAddr) {
    let listener = loop {
        // Until the server listens its port refuses, as it would without a proxy.
        if TcpStream::connect(real).await.is_ok()
            && let Ok(listener) = TcpListener::bind(public).await
        {
            break listener;
        }
        tokio::time::sleep(LOOK).await;
    };
    // The connections end with the door's other side, not with the door.
    while let Ok((near, from)) = listener.accept().await {
        tokio::spawn(connect(shared.clone(), server, near, from, real));
    }
}

async fn connect(
    shared: Arc<Shared>,
    server: usize,
    near: TcpStream,
    from: SocketAddr,
    real: SocketAddr,
) {
    let Some(party) = shared.who(from) else { return reset(&near) };
    let (from, to) = (party, Party::Server(server));
    let mut links = shared.links.subscribe();
    // A connection needs both directions to come about.
    let open = |l: &Arc<Links>| {
        [flow(l, from, to), flow(l, to, from)].into_iter().all(|f| f != Flow::Hold)
    };
    let Ok(now) = links.wait_for(open).await.map(|l| l.clone()) else { return };
    if [flow(&now, from, to), flow(&now, to, from)].contains(&Flow::Cut) {
        return reset(&near);
    }
    match TcpStream::connect(real).await {
        Ok(far) => pump::both(near, far, (from, to), links, shared.carried.clone()).await,
        Err(_) => reset(&near),
    }
}

/// The connection ends without a farewell.
fn reset(stream: &TcpStream) {
    // One that is gone already needs none.
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

#[cfg(test)]
mod tests;
