//! How full the disk is on which the data directory lies.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Bytes of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Space {
    pub(super) free_bytes: u64,
    pub(super) bytes: u64,
}

type Ask = dyn Fn() -> io::Result<Space> + Send + Sync;

/// A disk that can be asked.
pub(super) struct Disk {
    ask: Arc<Ask>,
    /// Held while it is being asked.
    turn: Arc<Semaphore>,
}

impl Disk {
    /// The disk that a folder is on.
    pub(super) fn of(folder: PathBuf) -> Self {
        Self::told(move || {
            let disk = rustix::fs::statvfs(&folder)?;
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
            Ok(Space { free_bytes: bytes(disk.f_bavail), bytes: bytes(disk.f_blocks) })
        })
    }

    fn told(ask: impl Fn() -> io::Result<Space> + Send + Sync + 'static) -> Self {
        Self { ask: Arc::new(ask), turn: Arc::new(Semaphore::new(1)) }
    }

    /// Asks it; nothing if it does not say so in time. One behind a network may never answer: then one thread waits for it, no
    /// matter how often it is asked.
    pub(super) async fn space(&self, patience: Duration) -> Option<Space> {
        let turn = Arc::clone(&self.turn).try_acquire_owned().ok()?;
        let ask = Arc::clone(&self.ask);
        let asked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            ask()
        });
        if let Ok(told) = timeout(patience, asked).await {
            return told.ok()?.ok();
        }
        tracing::warn!("the disk of the data directory takes too long to say how full it is");
        None
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Mutex, mpsc};

    use super::*;

    /// On the thread that serves, nothing would go on here.
    #[tokio::test]
    async fn a_disk_that_hangs_costs_one_thread_and_nobody_waits_long() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let (answer, answers) = mpsc::channel::<()>();
        let answers = Mutex::new(answers);
        let disk = Disk::told(move || {
            ASKED.fetch_add(1, Ordering::SeqCst);
            // An error when whoever answers is gone.
            let _ = answers.lock().unwrap().recv();
            Ok(Space { free_bytes: 1, bytes: 2 })
        });
        for _ in 0..10 {
            assert_eq!(disk.space(Duration::from_millis(50)).await, None);
        }
        assert_eq!(ASKED.load(Ordering::SeqCst), 1);
        drop(answer);
        let space = loop {
            if let Some(space) = disk.space(Duration::from_secs(10)).await {
                break space;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        assert_eq!(space, Space { free_bytes: 1, bytes: 2 });
    }
}
