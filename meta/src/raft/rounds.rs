//! Many callers, one round at a time.
//!
//! **Invariant**: a caller gets the result of a round that began after it came. All that come while a round runs share
//! the next one (R17).

use std::future::Future;

use tokio::sync::{mpsc, oneshot};

/// The callers of one kind of round. When it is dropped the rounds end.
pub struct Rounds<T> {
    callers: mpsc::UnboundedSender<oneshot::Sender<T>>,
}

impl<T: Clone + Send + 'static> Rounds<T> {
    /// Starts to hold rounds.
    pub fn start<F>(mut round: impl FnMut() -> F + Send + 'static) -> Self
    where
        F: Future<Output = T> + Send,
    {
        // Unbounded: each element is a caller that waits, and callers are bounded by whoever lets them in.
        let (callers, mut waiting) = mpsc::unbounded_channel::<oneshot::Sender<T>>();
        tokio::spawn(async move {
            while let Some(first) = waiting.recv().await {
                let mut present = vec![first];
                while let Ok(next) = waiting.try_recv() {
                    present.push(next);
                }
                let result = round().await;
                for caller in present {
                    let _ = caller.send(result.clone()); // one that has gone does not matter
                }
            }
        });
        Self { callers }
    }

    /// Takes part in the next round; `None`: there are none any more.
    pub async fn join(&self) -> Option<T> {
        let (caller, result) = oneshot::channel();
        self.callers.send(caller).ok()?;
        result.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    /// Round n ends when the gate is opened for the n-th time.
    #[tokio::test]
    async fn who_comes_during_a_round_waits_for_the_next_one() {
        let (begun, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let rounds = {
            let (begun, gate) = (begun.clone(), gate.clone());
            Arc::new(Rounds::start(move || {
                let (n, gate) = (begun.fetch_add(1, Ordering::SeqCst) + 1, gate.clone());
                async move {
                    gate.acquire().await.map(|permit| permit.forget()).ok();
                    n
                }
            }))
        };
        let first = {
            let rounds = rounds.clone();
            tokio::spawn(async move { rounds.join().await })
        };
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let mut late: Vec<_> = (0..50).map(|_| Box::pin(rounds.join())).collect();
        for caller in &mut late {
            assert!(futures::poll!(caller.as_mut()).is_pending());
        }
        gate.add_permits(1);
        assert_eq!(first.await.unwrap(), Some(1));
        gate.add_permits(1);
        for caller in late {
            assert_eq!(caller.await, Some(2));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }
}
