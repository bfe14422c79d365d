//! The runner: claims tasks that are ready, drives their operations, and cleans up.
//!
//! Seven loops share one [`Runner`]: `claim` takes tasks on, `lease` keeps them (and gives up work that it may have
//! lost), `recover` puts back what others lost and what is due, the two of `sweep` remove what is no longer needed,
//! `search` finds files that no row names, `abort` clears up at destinations. What happens to one task is in `step`,
//! how its files are opened in `inputs`, what is sent of a file before its export's turn in `ahead`. The runner meets
//! HTTP only in the store.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectors::Network;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::files::Files;
use crate::id::{SessionId, TaskId, Token};
use crate::secret::Vault;
use crate::store::{self, Store, TaskProgress};
use crate::telemetry::loops::Loops;
use crate::telemetry::metrics::Metrics;

mod abort;
mod ahead;
mod claim;
mod inputs;
mod journal;
mod lease;
mod meter;
pub mod ownership;
mod recover;
mod retry;
mod search;
mod step;
mod sweep;

use ahead::Begun;
pub use lease::{HEARTBEAT_EVERY, SESSION_DEAD_AFTER};

/// Time that attempts which a stop has cancelled may still take to give their leases back and to remove their files. What is left
/// then is found by a search.
const CLEAR_UP_GRACE: Duration = Duration::from_secs(5);

/// What a runner works with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where tasks are.
    pub store: Arc<dyn Store>,
    /// Where files are.
    pub files: Files,
    /// The guarded way out.
    pub network: Network,
    /// Opens sealed arguments.
    pub vault: Arc<Vault>,
    /// The time.
    pub clock: Clock,
    /// The settings.
    pub config: Arc<Config>,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
    /// The name of this process in tasks.
    pub host_name: String,
    /// No other process can be alive on this database, so that what older sessions held is free at once.
    pub exclusive: bool,
}

/// A running runner. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

struct Shared {
    tools: Tools,
    running: Mutex<BTreeMap<TaskId, Running>>,
    /// Uploads that began early and wait for these tasks to be claimed.
    head_starts: Mutex<BTreeMap<TaskId, Arc<Begun>>>,
    session: watch::Sender<SessionId>,
    /// When the last heartbeat that was answered was sent.
    last_beat: Mutex<Instant>,
    slot_freed: Notify,
    is_claiming: AtomicBool,
    attempts: TaskTracker,
    /// What waits for head starts to be gone on with; the runner can do without any of it, unlike a loop.
    hand_overs: TaskTracker,
    /// Ends that, and the removal of files of attempts.
    stopping: CancellationToken,
    loops: Loops,
}

/// A task that this process works on.
struct Running {
    token: Token,
    percent: Arc<AtomicU8>,
    cancel: CancellationToken,
}

impl Runner {
    /// Opens a session and starts working.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(tools: Tools) -> store::Result<Self> {
        let session = SessionId::new(tools.clock.now());
        tools.metrics.slots.set(i64::from(tools.config.limits.tasks_running_max));
        let began = Instant::now();
        if tools.exclusive {
            // All older sessions are dead. A task that took each of them down is not to take this one down as well.
            let attempts_max = tools.config.limits.attempts_max;
            tools.store.expire_sessions(Timestamp(i64::MAX), attempts_max, tools.clock.now()).await?;
            connectors::fail_point!("sessions.ended");
        }
        lease::open(&tools, session, tools.exclusive).await?;
        let runner = Self {
            shared: Arc::new(Shared {
                tools,
                running: Mutex::default(),
                head_starts: Mutex::default(),
                session: watch::Sender::new(session),
                last_beat: Mutex::new(began),
                slot_freed: Notify::new(),
                is_claiming: AtomicBool::new(true),
                attempts: TaskTracker::new(),
                hand_overs: TaskTracker::new(),
                stopping: CancellationToken::new(),
                loops: Loops::default(),
            }),
        };
        let loops = &runner.shared.loops;
        loops.start(claim::run(runner.clone()));
        loops.start(lease::run(runner.clone()));
        loops.start(recover::run(runner.clone()));
        loops.start(sweep::expire_jobs(runner.clone()));
        loops.start(sweep::run(runner.clone()));
        loops.start(search::run(runner.clone()));
        loops.start(abort::run(runner.clone()));
        Ok(runner)
    }

    /// Stops: claims nothing more, lets running tasks go on for `grace`, then gives their leases back.
    pub async fn stop(&self, grace: Duration) {
        let shared = &self.shared;
        shared.is_claiming.store(false, Ordering::Relaxed);
        shared.attempts.close();
        if tokio::time::timeout(grace, shared.attempts.wait()).await.is_err() {
            tracing::info!(tasks = self.running_count(), "giving running tasks back");
            self.cancel_all();
            if tokio::time::timeout(CLEAR_UP_GRACE, shared.attempts.wait()).await.is_err() {
                tracing::warn!(
                    "some attempts are not cleared up yet; files that they leave stay until the next search"
                );
            }
        }
        self.head_starts().clear();
        shared.stopping.cancel();
        shared.attempts.wait().await;
        shared.hand_overs.close();
        shared.hand_overs.wait().await;
        shared.loops.stop().await;
        let session = *shared.session.borrow();
        if let Err(error) = shared.tools.store.close_session(session, shared.tools.clock.now()).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the session was not closed; it will expire");
        }
        connectors::fail_point!("session.closed");
    }

    /// What keeps this runner from its work, if anything does, and what to do.
    pub fn trouble(&self) -> Option<&'static str> {
        if self.shared.loops.is_broken() {
            return Some(
                "A part of the runner has ended by a fault of the program: restart this process; its log says more.",
            );
        }
        let fenced = "The runner cannot renew its lease and has stopped its work: see to the database and the way to \
                      it; it goes on by itself.";
        (!self.may_work()).then_some(fenced)
    }

    /// Tasks that this process works on.
    pub fn running_count(&self) -> usize {
        self.running().len()
    }

    fn tools(&self) -> &Tools {
        &self.shared.tools
    }

    /// The time by which is judged what is due and what is over: the database's where processes share one. What one of them removes
    /// or ends is gone for all, and a clock that was right at the start may go wrong later.
    async fn time(&self) -> store::Result<Timestamp> {
        self.tools().store.session_time(self.tools().clock.now()).await
    }

    fn session(&self) -> SessionId {
        *self.shared.session.borrow()
    }

    fn is_stopping(&self) -> bool {
        !self.shared.is_claiming.load(Ordering::Relaxed)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Running>> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn head_starts(&self) -> std::sync::MutexGuard<'_, BTreeMap<TaskId, Arc<Begun>>> {
        self.shared.head_starts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the work on all tasks; what they hold is given back or was lost already.
    fn cancel_all(&self) {
        self.head_starts().clear();
        for running in self.running().values() {
            running.cancel.cancel();
        }
    }

    fn progress(&self) -> Vec<TaskProgress> {
        let running = self.running();
        running
            .iter()
            .map(|(&id, task)| TaskProgress { id, token: task.token, percent: task.percent.load(Ordering::Relaxed) })
            .collect()
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner").field("running", &self.running_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
