//! Keeps leases alive by heartbeats, and gives up in time what may have been lost.
//!
//! The lease belongs to the process session. Others declare a session dead [`SESSION_DEAD_AFTER`] its last heartbeat;
//! this process stops working earlier, counted from when that heartbeat was *sent*, so that nobody works on a task that another
//! has taken over. When a session was seen, and how long that is ago, is told by one clock for all processes
//! (`session_time`); only this one's own patience is measured here, and clocks run equally fast for seconds. Where one stood still
//! (a stopped process), the token decides.

use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Runner, Tools};
use crate::id::SessionId;
use crate::store::{Heartbeat, Result, TaskProgress};
use crate::telemetry::metrics::LeaseLoss;

/// Time between heartbeats.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(3);
/// Time between looks at the progress of tasks: what moved is written at once, with the heartbeat that is due anyway.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// A session that was not seen for so long is dead.
pub const SESSION_DEAD_AFTER: Duration = Duration::from_secs(10);
/// A process that was not answered for so long stops its own work: [`SESSION_DEAD_AFTER`] less the time to stop.
const FENCE_AFTER: Duration = Duration::from_secs(8);
/// Time to stop: until the next look, and for what is on its way to the store.
const TIME_TO_STOP: Duration = Duration::from_millis(1500);

const _: () = assert!(FENCE_AFTER.as_millis() + TIME_TO_STOP.as_millis() <= SESSION_DEAD_AFTER.as_millis());
const _: () = assert!(PROGRESS_EVERY.as_millis() < TIME_TO_STOP.as_millis());

/// Sends heartbeats until it is cancelled.
pub(super) async fn run(runner: Runner) {
    let mut ticks = interval(PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_beat: Option<Instant> = None;
    let mut told = Vec::new();
    let mut is_fenced = false;
    loop {
        ticks.tick().await;
        let sent = Instant::now();
        let progress = runner.progress();
        let is_due = last_beat.is_none_or(|last| sent.duration_since(last) >= HEARTBEAT_EVERY);
        if !is_due && !progress.iter().any(|task| task.percent > 0 && !told.contains(task)) {
            continue;
        }
        last_beat = Some(sent);
        told.clone_from(&progress);
        let metrics = &runner.tools().metrics;
        let beat = beat(&runner, &progress);
        // Not beyond the time to stop, or a store that is silent would put it off by as much as a heartbeat waits.
        match timeout(runner.patience(), beat).await {
            Ok(Ok(Heartbeat::Alive)) => {
                metrics.stored("heartbeat", sent.elapsed());
                metrics.heartbeats.inc();
                runner.note_beat(sent);
            }
            Ok(Ok(Heartbeat::Expired)) => renew(&runner).await,
            Ok(Err(error)) => {
                metrics.heartbeat_missed("error");
                tracing::warn!(error = &error as &dyn std::error::Error, "no heartbeat");
            }
            Err(_) => {
                metrics.heartbeat_missed("timeout");
                tracing::warn!("the heartbeat was not answered in time");
            }
        }
        let was_fenced = std::mem::replace(&mut is_fenced, !runner.may_work());
        if is_fenced {
            if !was_fenced {
                metrics.lease_lost(LeaseLoss::Fenced);
                tracing::error!(tasks = runner.running_count(), "leases may be lost: all work is stopped");
            }
            runner.cancel_all();
        }
    }
}

/// Says that this process lives. The moment it is seen at is later than the one from which it counts itself.
async fn beat(runner: &Runner, progress: &[TaskProgress]) -> Result<Heartbeat> {
    let tools = runner.tools();
    let now = tools.store.session_time(tools.clock.now()).await?;
    let answer = tools.store.heartbeat(runner.session(), progress, now).await?;
    if answer == Heartbeat::Alive {
        connectors::fail_point!("session.beat");
    }
    Ok(answer)
}

/// Gives up everything and begins a new session.
async fn renew(runner: &Runner) {
    tracing::error!(tasks = runner.running_count(), "the session was declared dead: its work is stopped");
    runner.cancel_all();
    let tools = runner.tools();
    tools.metrics.lease_lost(LeaseLoss::SessionExpired);
    let session = SessionId::new(tools.clock.now());
    let sent = Instant::now();
    match open(tools, session, false).await {
        Ok(()) => {
            connectors::fail_point!("session.renewed");
            runner.shared.session.send_replace(session);
            runner.note_beat(sent);
        }
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no new session"),
    }
}

/// Opens a session that is seen now.
pub(super) async fn open(tools: &Tools, session: SessionId, exclusive: bool) -> Result<()> {
    let now = tools.store.session_time(tools.clock.now()).await?;
    tools.store.open_session(session, &tools.host_name, exclusive, now).await?;
    connectors::fail_point!("session.opened");
    Ok(())
}

impl Runner {
    /// Whether the leases of this process surely hold.
    pub(super) fn may_work(&self) -> bool {
        self.shared.last_beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < FENCE_AFTER
    }

    /// How long a heartbeat may wait for its answer.
    fn patience(&self) -> Duration {
        let since = self.shared.last_beat.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        let left = FENCE_AFTER.saturating_sub(since);
        if left.is_zero() { HEARTBEAT_EVERY } else { left.min(HEARTBEAT_EVERY) }
    }

    fn note_beat(&self, sent: Instant) {
        *self.shared.last_beat.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }
}
