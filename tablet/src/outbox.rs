//! A queue between code under a lock and one stream: the stream takes all that has gathered as one message.
//!
//! There is no timer: while the transport is busy, more gathers; when it is idle, one message goes at once. The bound
//! is kept by who fills it (requests in flight), not here.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;

/// What can be filled bit by bit and be sent as a whole.
pub trait Gather: Default + Send + 'static {
    /// Is there nothing to send?
    fn is_empty(&self) -> bool;
}

struct Shared<T> {
    gathered: T,
    waker: Option<Waker>,
    closed: bool,
}

/// The end that is filled. Cheap to clone.
pub struct Outbox<T>(Arc<Mutex<Shared<T>>>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Gather> Default for Outbox<T> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Shared { gathered: T::default(), waker: None, closed: false })))
    }
}

impl<T: Gather> Outbox<T> {
    /// Adds to what goes out next.
    pub fn fill(&self, add: impl FnOnce(&mut T)) {
        let waker = {
            let mut shared = self.0.lock();
            add(&mut shared.gathered);
            if shared.gathered.is_empty() { None } else { shared.waker.take() }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends the stream when what has gathered is taken.
    pub fn close(&self) {
        let waker = {
            let mut shared = self.0.lock();
            shared.closed = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The end that is sent.
    #[must_use]
    pub fn stream(&self) -> Taker<T> {
        Taker(self.0.clone())
    }
}

/// The end that is sent: a stream of whole gatherings.
pub struct Taker<T>(Arc<Mutex<Shared<T>>>);

impl<T: Gather> Stream for Taker<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shared = self.0.lock();
        if !shared.gathered.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut shared.gathered)));
        }
        if shared.closed {
            return Poll::Ready(None);
        }
        shared.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    impl Gather for Vec<u32> {
        fn is_empty(&self) -> bool {
            Vec::is_empty(self)
        }
    }

    #[test]
    fn takes_all_that_gathered_and_ends_when_closed() {
        let outbox = Outbox::<Vec<u32>>::default();
        let mut stream = outbox.stream();
        assert!(stream.next().now_or_never().is_none());
        outbox.fill(|v| v.push(1));
        outbox.fill(|v| v.push(2));
        assert_eq!(stream.next().now_or_never(), Some(Some(vec![1, 2])));
        outbox.fill(|v| v.push(3));
        outbox.close();
        assert_eq!(stream.next().now_or_never(), Some(Some(vec![3])));
        assert_eq!(stream.next().now_or_never(), Some(None));
    }
}
