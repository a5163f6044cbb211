//! The bytes of one connection, in both directions.
//!
//! Invariant: bytes arrive in order, each at most once; what a link holds is neither read nor forgotten.

use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

use super::{Carried, Flow, Links, Party, flow, reset};

/// Pieces under way on a link that is late.
const UNDER_WAY: usize = 256;
/// The longest piece.
const PIECE: usize = 64 << 10;

/// What a link does now.
#[derive(Clone)]
struct Way {
    from: Party,
    to: Party,
    links: watch::Receiver<Arc<Links>>,
    carried: Arc<Carried>,
}

/// The link was cut.
struct Cut;

impl Way {
    fn now(&self) -> Flow {
        flow(&self.links.borrow(), self.from, self.to)
    }

    /// Waits until bytes may pass.
    async fn passes(&mut self) -> Result<(), Cut> {
        let (from, to) = (self.from, self.to);
        let open = self.links.wait_for(|l| flow(l, from, to) != Flow::Hold).await;
        match open.map(|l| flow(&l, from, to)) {
            Ok(Flow::Cut) | Err(_) => Err(Cut),
            Ok(_) => Ok(()),
        }
    }

    /// Ends when the link is cut.
    async fn cut(mut self) {
        let (from, to) = (self.from, self.to);
        let _ = self.links.wait_for(|l| flow(l, from, to) == Flow::Cut).await;
    }
}

/// Passes bytes on until both directions have ended, or the link is cut.
pub(super) async fn both(
    near: TcpStream,
    far: TcpStream,
    (from, to): (Party, Party),
    links: watch::Receiver<Arc<Links>>,
    carried: Arc<Carried>,
) {
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let way = |from, to| Way { from, to, links: links.clone(), carried: carried.clone() };
    let (up, down) = (way(from, to), way(to, from));
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::join!(one(near_in, far_out, up), one(far_in, near_out, down));
}

/// One direction, until its reader ends.
async fn one(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: Way) {
    let (send, mut late) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    let mut reading = way.clone();
    let read = async move {
        let mut piece = vec![0; PIECE];
        loop {
            if reading.passes().await.is_err() {
                return;
            }
            let read = tokio::select! {
                read = from.read(&mut piece) => read,
                () = reading.clone().cut() => return,
            };
            let Ok(length @ 1..) = read else { return };
            if send.send((Instant::now(), piece[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        loop {
            let next = tokio::select! {
                next = late.recv() => next,
                () = way.clone().cut() => return reset(to.as_ref()),
            };
            let Some((at, piece)) = next else { break };
            if let Flow::Late(by) = way.now() {
                tokio::time::sleep_until((at + by).into()).await;
            }
            if way.passes().await.is_err() || to.write_all(&piece).await.is_err() {
                return reset(to.as_ref());
            }
            *way.carried.lock().entry((way.from, way.to)).or_default() += piece.len() as u64;
        }
        // The end arrives like any byte.
        if way.passes().await.is_ok() {
            let _ = to.shutdown().await;
        }
    };
    tokio::join!(read, write);
}
