//! The loops of a part of the server: they run until they are stopped, and whoever looks hears of one that was lost.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Loops that end together.
#[derive(Debug, Default)]
pub struct Loops {
    stop: CancellationToken,
    tasks: TaskTracker,
    is_broken: Arc<AtomicBool>,
}

impl Loops {
    /// Runs one until [`Self::stop`].
    pub fn start(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (stop, is_broken) = (self.stop.clone(), Arc::clone(&self.is_broken));
        self.tasks.spawn(async move {
            // What it shares with others is behind locks that do not mind, and nobody goes on with what it held.
            let ended = AssertUnwindSafe(stop.run_until_cancelled(work)).catch_unwind().await;
            if ended.is_err() {
                tracing::error!("a loop of the server has ended by a fault of the program; restart this process");
                is_broken.store(true, Ordering::Relaxed);
            }
        });
    }

    /// Ends all of them, and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether one has ended that was not stopped: what it did nobody does any more.
    pub fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn one_that_panics_is_noticed_and_the_others_go_on() {
        let loops = Loops::default();
        let (sender, mut others) = tokio::sync::mpsc::unbounded_channel();
        loops.start(async move {
            loop {
                sender.send(()).unwrap();
                tokio::task::yield_now().await;
            }
        });
        loops.start(pending());
        others.recv().await.unwrap();
        assert!(!loops.is_broken());
        loops.start(async { panic!("a fault, for the test") });
        while !loops.is_broken() {
            others.recv().await.unwrap();
        }
        others.recv().await.unwrap();
        loops.stop().await;
    }

    #[tokio::test]
    async fn what_is_stopped_is_not_broken() {
        let loops = Loops::default();
        loops.start(pending());
        loops.stop().await;
        assert!(!loops.is_broken());
    }
}
