//! Removes what is no longer needed here: expired jobs, and files of removed tasks. Files that no row names are found by `search`.
//!
//! Two loops, since rows can always go: a file store that is slow, or away, must not keep jobs beyond their time.
//!
//! Every process of a fleet hears of the same trash. Each takes some of it for a while, so that they share the work.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Runner;
use crate::id::TaskId;
use crate::store::Result;

/// Time between looks for jobs that have expired, and between sweeps that nobody asked for; less where jobs are kept for less.
const EVERY: Duration = Duration::from_secs(30);
/// Shortest time between those looks.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// Time between sweeps at the least: what removes a job or a task asks for one, and a burst of them gets one together.
const PAUSE: Duration = Duration::from_millis(100);
/// Jobs, or lines of the trash, handled in one go.
const BATCH: u32 = 500;
/// Tasks removed in one transaction, and those of one job more: on SQLite everybody else who writes waits for it, and a heartbeat
/// must not do so for seconds; PostgreSQL ends what takes longer than half a minute.
const TASKS_MAX: u32 = 5_000;
/// Lines of the trash that a process takes from the others in one go. Few, for the files of some may be many.
const TAKEN_MAX: u32 = 100;
/// For how long it takes them: what one that died had, or could not remove, is left for so long. Should it take longer, two
/// remove the same files, which does no harm.
const TAKEN_FOR: Duration = Duration::from_mins(1);

/// Removes jobs that have expired until it is cancelled. They do so by themselves, so they are looked for by the clock only.
pub(super) async fn expire_jobs(runner: Runner) {
    loop {
        told(expire(&runner).await);
        sleep(every(&runner)).await;
    }
}

/// Removes files of removed tasks until it is cancelled.
pub(super) async fn run(runner: Runner) {
    loop {
        told(empty_trash(&runner).await);
        let hints = runner.tools().store.hints();
        // A timeout here is the safety net, not a failure.
        let _ = timeout(every(&runner), hints.sweep()).await;
        sleep(PAUSE).await;
    }
}

fn every(runner: &Runner) -> Duration {
    EVERY.min(runner.tools().config.retention.0).max(EVERY_MIN)
}

fn told(swept: Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(error = &error as &dyn std::error::Error, "the sweep has to wait");
    }
}

async fn expire(runner: &Runner) -> Result<()> {
    let tools = runner.tools();
    let now = runner.time().await?;
    loop {
        let removed = tools.store.expire(now.minus(tools.config.retention.0), BATCH, TASKS_MAX, now).await?;
        if removed == 0 {
            return Ok(());
        }
        connectors::fail_point!("sweep.expired");
    }
}

async fn empty_trash(runner: &Runner) -> Result<()> {
    let tools = runner.tools();
    loop {
        let trash = take_trash(runner).await?;
        let mut emptied = Vec::with_capacity(trash.len());
        for &id in &trash {
            match tools.files.remove_task(id).await {
                Ok(()) => emptied.push(id),
                Err(error) => {
                    tracing::warn!(task = %id, error = &error as &dyn std::error::Error, "files are not removed");
                }
            }
        }
        if !emptied.is_empty() {
            connectors::fail_point!("sweep.removed");
            tools.store.trash_emptied(&emptied).await?;
            connectors::fail_point!("sweep.emptied");
        }
        if trash.is_empty() || emptied.len() < trash.len() {
            return Ok(());
        }
    }
}

/// Tasks whose files this process is to remove. One that is alone has all anyway; what was taken by the one before it must not
/// wait.
async fn take_trash(runner: &Runner) -> Result<Vec<TaskId>> {
    let tools = runner.tools();
    if tools.exclusive {
        return tools.store.trash(BATCH).await;
    }
    // Taking is a transaction: not for nothing.
    if tools.store.trash(1).await?.is_empty() {
        return Ok(Vec::new());
    }
    let now = runner.time().await?;
    tools.store.take_trash(TAKEN_MAX, now, now.plus(TAKEN_FOR)).await
}
