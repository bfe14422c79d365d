//! Puts back what dead processes held, and queues or ends what is due.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Runner;
use super::lease::{HEARTBEAT_EVERY, SESSION_DEAD_AFTER};
use crate::clock::Timestamp;
use crate::store::Result;

/// Looks until it is cancelled: at every heartbeat, and earlier when something is due earlier.
pub(super) async fn run(runner: Runner) {
    loop {
        let pause = match look(&runner).await {
            Ok(due) => due.map_or(HEARTBEAT_EVERY, |due| due.since(runner.tools().clock.now()).min(HEARTBEAT_EVERY)),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "recovery has to wait");
                HEARTBEAT_EVERY
            }
        };
        sleep(pause.max(Duration::from_millis(50))).await;
    }
}

async fn look(runner: &Runner) -> Result<Option<Timestamp>> {
    let tools = runner.tools();
    let now = tools.clock.now();
    let attempts_max = tools.config.limits.attempts_max;
    // A process that lost touch itself must not judge others.
    if runner.may_work() {
        let began = Instant::now();
        let recovered = tools.store.expire_sessions(now.minus(SESSION_DEAD_AFTER), attempts_max, now).await?;
        tools.metrics.stored("recover", began.elapsed());
        tools.metrics.recovered.inc_by(recovered);
        if recovered > 0 {
            tracing::warn!(tasks = recovered, "took back the tasks of a dead process");
        }
    }
    let delayed = tools.store.release_due(now).await?;
    let uploads = tools.store.expire_uploads(now).await?;
    Ok(delayed.into_iter().chain(uploads).min())
}
