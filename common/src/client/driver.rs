//! The thread on which the client's connections live.
//!
//! Invariants:
//! * One thread with a current-thread runtime owns every connection of a [`Client`](super::Client), so that the calls
//!   of all its callers are gathered into frames, and encoded and decoded, in one place.
//! * Timers and connections belong to this runtime: callers may use any executor.
//! * The thread ends when the last clone of the client is gone.

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::future::{Either, select};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::link::Link;

/// Requests in flight to all tablets together, in KiB; a request counts as one at least.
const IN_FLIGHT_KIB: usize = 64 << 10;

/// The thread, and what it knows.
pub(super) struct Driver {
    handle: Handle,
    stop: CancellationToken,
    links: Mutex<HashMap<String, Arc<Link>>>,
    cluster: OnceLock<String>,
    source: Option<IpAddr>,
    in_flight: Semaphore,
}

impl Driver {
    /// Starts the thread; its connections come from `source`.
    pub(super) fn start(source: Option<IpAddr>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        std::thread::Builder::new().name("stela-client".into()).spawn(move || {
            runtime.block_on(stopped.cancelled());
            runtime.shutdown_background();
        })?;
        let links = Mutex::default();
        Ok(Self {
            handle,
            stop,
            links,
            cluster: OnceLock::new(),
            source,
            in_flight: Semaphore::new(IN_FLIGHT_KIB),
        })
    }

    /// Its runtime.
    pub(super) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The address that connections come from.
    pub(super) fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// The cluster that answered; tablets of another one are not spoken to.
    pub(super) fn cluster(&self) -> &str {
        self.cluster.get().map_or("", String::as_str)
    }

    /// Settles which cluster this is.
    pub(super) fn set_cluster(&self, name: String) {
        let _ = self.cluster.set(name);
    }

    /// The way to a tablet; it connects when there is something to say.
    pub(super) fn link(&self, endpoint: &str) -> Arc<Link> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(endpoint) {
            return link.clone();
        }
        let link = Arc::new(Link::new(endpoint.to_owned(), self.source));
        links.insert(endpoint.to_owned(), link.clone());
        link
    }

    /// Room for a request of `size` bytes; `None` when there is none by then.
    pub(super) async fn room(&self, size: usize, deadline: Instant) -> Option<SemaphorePermit<'_>> {
        let kib = u32::try_from((size >> 10).clamp(1, IN_FLIGHT_KIB)).unwrap_or(1);
        if let Ok(permit) = self.in_flight.try_acquire_many(kib) {
            return Some(permit);
        }
        self.within(deadline, self.in_flight.acquire_many(kib)).await?.ok()
    }

    /// Waits until then, by this runtime's timers.
    pub(super) fn sleep_until(&self, at: Instant) -> Sleep {
        let _inside = self.handle.enter();
        tokio::time::sleep_until(at.into())
    }

    /// Waits so long, by this runtime's timers.
    pub(super) fn sleep(&self, time: Duration) -> Sleep {
        self.sleep_until(Instant::now() + time)
    }

    /// The output of `future`, or `None` when it is not there by then.
    pub(super) async fn within<F: Future>(
        &self,
        deadline: Instant,
        future: F,
    ) -> Option<F::Output> {
        match select(pin!(future), pin!(self.sleep_until(deadline))).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
