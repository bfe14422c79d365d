//! Hints: "something changed, read the row again". They carry no state, may be lost, and are never needed for
//! correctness; whoever waits on one also looks again after a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast, watch};
use uuid::Uuid;

/// Commits that a follower may lag behind; one that lags further misses some and has to look around by itself.
const COMMITS_KEPT: usize = 1024;

/// Announces changes to whoever waits in this process. Cost is per waiter of the changed id, not per waiter.
#[derive(Debug)]
pub struct Hints {
    ready: Notify,
    left_out: AtomicBool,
    sweep: Notify,
    aborts: Notify,
    outbox: Notify,
    deliveries: Notify,
    watched: Mutex<HashMap<Uuid, watch::Sender<()>>>,
    commits: broadcast::Sender<Arc<[Uuid]>>,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            ready: Notify::new(),
            left_out: AtomicBool::new(false),
            sweep: Notify::new(),
            aborts: Notify::new(),
            outbox: Notify::new(),
            deliveries: Notify::new(),
            watched: Mutex::default(),
            commits: broadcast::Sender::new(COMMITS_KEPT),
        }
    }
}

impl Hints {
    /// Says that tasks can be claimed.
    pub fn announce_ready(&self) {
        self.ready.notify_one();
    }

    /// Waits until tasks can be claimed. A hint given before is not missed.
    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    /// Says that a claim of this process left out tasks that others were changing at that moment.
    pub fn announce_left_out(&self) {
        self.left_out.store(true, Ordering::Relaxed);
    }

    /// Whether a claim of this process has left out tasks since this was last asked: they can be claimed a moment later.
    pub fn take_left_out(&self) -> bool {
        self.left_out.swap(false, Ordering::Relaxed)
    }

    /// Says that there is something to clean up: files, or uploads at destinations.
    pub fn announce_sweep(&self) {
        self.sweep.notify_one();
        self.aborts.notify_one();
    }

    /// Waits until there is something to clean up. A hint given before is not missed.
    pub async fn sweep(&self) {
        self.sweep.notified().await;
    }

    /// Waits until there may be uploads to abort. A hint given before is not missed.
    pub async fn aborts(&self) {
        self.aborts.notified().await;
    }

    /// Says that the outbox has something to tell.
    pub fn announce_outbox(&self) {
        self.outbox.notify_one();
    }

    /// Waits until the outbox has something to tell. A hint given before is not missed.
    pub async fn outbox(&self) {
        self.outbox.notified().await;
    }

    /// Says that deliveries are due.
    pub fn announce_deliveries(&self) {
        self.deliveries.notify_one();
    }

    /// Waits until deliveries are due. A hint given before is not missed.
    pub async fn deliveries(&self) {
        self.deliveries.notified().await;
    }

    /// Says that these jobs and tasks changed.
    pub fn announce(&self, ids: impl IntoIterator<Item = Uuid>) {
        let ids: Arc<[Uuid]> = ids.into_iter().collect();
        self.announce_watched(&ids);
        if self.commits.receiver_count() > 0 && !ids.is_empty() {
            // Whoever stopped listening in this very moment does not need it.
            let _ = self.commits.send(ids);
        }
    }

    fn announce_watched(&self, ids: &[Uuid]) {
        let watched = self.watched();
        for id in ids {
            if let Some(sender) = watched.get(id) {
                sender.send_replace(());
            }
        }
    }

    /// Says that anything may have changed: news were lost, or nobody tells them. All who wait look again.
    pub fn announce_everything(&self) {
        let ids: Vec<Uuid> = self.watched().keys().copied().collect();
        self.announce_watched(&ids);
        if self.commits.receiver_count() > 0 {
            // Whoever stopped listening in this very moment does not need it.
            let _ = self.commits.send(Arc::from([]));
        }
        self.announce_ready();
        self.announce_outbox();
        self.announce_deliveries();
        self.announce_sweep();
    }

    /// Hears of every job and task that changes from now on, whoever owns it; of none when any may have changed.
    pub fn commits(&self) -> broadcast::Receiver<Arc<[Uuid]>> {
        self.commits.subscribe()
    }

    /// How many waiters there are, of whatever job or task.
    pub fn waiters(&self) -> usize {
        self.watched().values().map(watch::Sender::receiver_count).sum()
    }

    /// Watches a job or task from now on.
    pub fn watch(self: &Arc<Self>, id: Uuid) -> Watcher {
        let receiver = self.watched().entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
        Watcher { id, receiver, hints: Arc::clone(self) }
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, watch::Sender<()>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for changes of one job or task.
#[derive(Debug)]
pub struct Watcher {
    id: Uuid,
    receiver: watch::Receiver<()>,
    hints: Arc<Hints>,
}

impl Watcher {
    /// Waits for the next change since the last call, or since watching began.
    pub async fn changed(&mut self) {
        if self.receiver.changed().await.is_err() {
            // The sender lives as long as any receiver, so this does not happen; waiting for ever is safe, because
            // whoever waits on a hint also looks again after a while.
            std::future::pending::<()>().await;
        }
    }

    /// How many wait for changes of the same job or task, this one included.
    pub fn crowd(&self) -> usize {
        self.hints.watched().get(&self.id).map_or(1, watch::Sender::receiver_count)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut watched = self.hints.watched();
        if watched.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            watched.remove(&self.id);
        }
    }
}
