//! When to read a row again: soon after a hint, but not at every hint of a burst; and by itself after a while, should a
//! hint have been lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::store::Hints;
use crate::store::hints::Watcher;

/// How long a lost hint can delay news: between three and five quarters of this, so that those who began to wait at the
/// same time do not read at the same time.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// Shortest pause between two readings: what changes in a burst is read once.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Many who wait for the same row pause this long for each of them, so that together they do not read all the time.
const PAUSE_PER_WAITER: Duration = Duration::from_micros(100);

/// Says when to read a job or task.
#[derive(Debug)]
pub(super) struct Pace {
    watcher: Watcher,
    is_due: bool,
    not_before: Instant,
}

impl Pace {
    /// Watches from now on; the first reading is due at once.
    pub(super) fn new(hints: &Arc<Hints>, id: Uuid) -> Self {
        Self { watcher: hints.watch(id), is_due: true, not_before: Instant::now() }
    }

    /// Waits until there may be something new to read.
    ///
    /// # Cancel safety
    /// A hint that came is not forgotten: reading stays due until [`Self::was_read`].
    pub(super) async fn turn(&mut self) {
        if !self.is_due {
            let patience = LOOK_AGAIN.mul_f64(rand::random_range(0.75..1.25));
            // Whether a hint came or the patience ended: it is time to look.
            let _ = timeout(patience, self.watcher.changed()).await;
            self.is_due = true;
        }
        sleep_until(self.not_before).await;
    }

    /// The row was read; the next reading is due after `pause` at the earliest, and only once there is another hint.
    pub(super) fn was_read(&mut self, pause: Duration) {
        let crowd = u32::try_from(self.watcher.crowd()).unwrap_or(u32::MAX);
        self.is_due = false;
        self.not_before = Instant::now() + PAUSE_MIN.max(pause).max(PAUSE_PER_WAITER * crowd);
    }
}
