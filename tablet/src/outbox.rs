//! A queue between code under a lock and one stream: the stream takes all that has gathered as one message.
//!
//! There is no timer: while the transport is busy, more gathers; when it is idle, one message goes at once. Whoever
//! fills it with what grows without a bound of its own waits for [`Outbox::room`] first.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::Stream;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What can be filled bit by bit and be sent as a whole.
pub trait Gather: Default + Send + 'static {
    /// Is there nothing to send?
    fn is_empty(&self) -> bool;

    /// The bytes that it takes, about; 0 where its size is bounded by itself.
    fn weight(&self) -> usize {
        0
    }
}

struct Gathered<T> {
    gathered: T,
    waker: Option<Waker>,
    closed: bool,
    /// Nobody takes any more.
    gone: bool,
}

struct Shared<T> {
    state: Mutex<Gathered<T>>,
    /// What had gathered was taken.
    taken: Notify,
}

/// The end that is filled. Cheap to clone.
pub struct Outbox<T>(Arc<Shared<T>>);

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Gather> Default for Outbox<T> {
    fn default() -> Self {
        let state = Mutex::new(Gathered {
            gathered: T::default(),
            waker: None,
            closed: false,
            gone: false,
        });
        Self(Arc::new(Shared { state, taken: Notify::new() }))
    }
}

impl<T: Gather> Outbox<T> {
    /// Adds to what goes out next.
    pub fn fill(&self, add: impl FnOnce(&mut T)) {
        let waker = {
            let mut shared = self.0.state.lock();
            if shared.gone {
                return;
            }
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
            let mut shared = self.0.state.lock();
            shared.closed = true;
            shared.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until less than `most` bytes wait to be sent, or nobody takes any more.
    pub async fn room(&self, most: usize) {
        while !self.has_room(most) {
            let mut taken = std::pin::pin!(self.0.taken.notified());
            taken.as_mut().enable();
            if self.has_room(most) {
                return;
            }
            taken.await;
        }
    }

    fn has_room(&self, most: usize) -> bool {
        let state = self.0.state.lock();
        state.gone || state.gathered.weight() < most
    }

    /// The end that is sent.
    #[must_use]
    pub fn stream(&self) -> Taker<T> {
        Taker(self.0.clone())
    }
}

/// The end that is sent: a stream of whole gatherings.
pub struct Taker<T>(Arc<Shared<T>>);

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        self.0.state.lock().gone = true;
        self.0.taken.notify_waiters();
    }
}

impl<T: Gather> Stream for Taker<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut shared = self.0.state.lock();
        if !shared.gathered.is_empty() {
            let gathered = std::mem::take(&mut shared.gathered);
            drop(shared);
            self.0.taken.notify_waiters();
            return Poll::Ready(Some(gathered));
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

        fn weight(&self) -> usize {
            self.len()
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

    #[test]
    fn there_is_room_when_it_was_taken_or_nobody_takes_it() {
        let outbox = Outbox::<Vec<u32>>::default();
        let mut stream = outbox.stream();
        outbox.fill(|v| v.extend([1, 2]));
        assert!(outbox.room(3).now_or_never().is_some());
        assert!(outbox.room(2).now_or_never().is_none());
        let mut waiting = std::pin::pin!(outbox.room(2));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(stream.next().now_or_never().is_some());
        assert!(waiting.now_or_never().is_some());
        outbox.fill(|v| v.extend([1, 2]));
        drop(stream);
        assert!(outbox.room(1).now_or_never().is_some());
    }
}
