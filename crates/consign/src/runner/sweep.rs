//! Removes what is no longer needed here: expired jobs, files of removed tasks, files that no row names.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::Runner;
use super::ownership::{self, Ownership};
use crate::files;
use crate::id::TaskId;
use crate::model::{BlobKey, State};
use crate::store::Result;

/// Time between looks for jobs that have expired, and between sweeps that nobody asked for; less where jobs are kept for less.
const EVERY: Duration = Duration::from_secs(30);
/// Shortest time between those looks.
const EVERY_MIN: Duration = Duration::from_secs(1);
/// Time between sweeps at the least: what removes a job or a task asks for one, and a burst of them gets one together.
const PAUSE: Duration = Duration::from_millis(100);
/// Time between searches for files that no row names.
const SEARCH_EVERY: Duration = Duration::from_hours(1);
/// Rows handled in one go.
const BATCH: u32 = 500;

/// Sweeps until it is cancelled. Jobs expire by themselves, so they are looked for by the clock only.
pub(super) async fn run(runner: Runner) {
    let every = EVERY.min(runner.tools().config.retention.0).max(EVERY_MIN);
    let (mut expire_at, mut search_at) = (Instant::now(), Instant::now());
    loop {
        if Instant::now() >= expire_at {
            told(expire(&runner).await);
            expire_at = Instant::now() + every;
        }
        told(empty_trash(&runner).await);
        if Instant::now() >= search_at {
            search(&runner).await;
            search_at = Instant::now() + SEARCH_EVERY;
        }
        let hints = runner.tools().store.hints();
        // A timeout here is the safety net, not a failure.
        let _ = timeout_at(expire_at, hints.sweep()).await;
        sleep(PAUSE).await;
    }
}

fn told(swept: Result<()>) {
    if let Err(error) = swept {
        tracing::warn!(error = &error as &dyn std::error::Error, "the sweep has to wait");
    }
}

async fn expire(runner: &Runner) -> Result<()> {
    let tools = runner.tools();
    let now = tools.clock.now();
    loop {
        let removed = tools.store.expire(now.minus(tools.config.retention.0), BATCH, now).await?;
        if removed > 0 {
            connectors::fail_point!("sweep.expired");
        }
        if removed < u64::from(BATCH) {
            return Ok(());
        }
    }
}

async fn empty_trash(runner: &Runner) -> Result<()> {
    let tools = runner.tools();
    loop {
        let trash = tools.store.trash(BATCH).await?;
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
        if emptied.len() < BATCH as usize {
            return Ok(());
        }
    }
}

/// Removes files that no row names: of attempts that lost their lease, of tasks that are gone.
async fn search(runner: &Runner) {
    let tools = runner.tools();
    // Once more after the start: the file store may have been away then, or another one be there now.
    match ownership::claim(tools.store.as_ref(), &tools.files).await {
        Ok(Ownership::Ours) => {}
        Ok(Ownership::Foreign(stranger)) => {
            tracing::error!("nothing is removed: {stranger}");
            return;
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "nobody knows whose the files are: none is removed"
            );
            return;
        }
    }
    match tools.files.abort_abandoned().await {
        Ok(0) => {}
        Ok(aborted) => tracing::info!(aborted, "uploads to the file store that nobody went on with are gone"),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "abandoned uploads to the file store stay");
        }
    }
    let mut after = None;
    loop {
        let found = match tools.files.list_tasks(after, BATCH as usize).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the file store cannot be searched");
                return;
            }
        };
        let Some(&last) = found.last() else { return };
        if let Err(error) = remove_unnamed(runner, &found).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "unneeded files stay until the next search");
            return;
        }
        after = Some(last);
    }
}

async fn remove_unnamed(runner: &Runner, found: &[TaskId]) -> Result<()> {
    let tools = runner.tools();
    let known: HashMap<_, _> =
        tools.store.blobs(found).await?.into_iter().map(|(id, state, blobs)| (id, (state, blobs))).collect();
    for &id in found {
        let removed = match known.get(&id) {
            None => tools.files.remove_task(id).await,
            Some((State::Finished | State::Error, blobs)) => keep_only(runner, id, blobs).await,
            Some((State::Blocked | State::Uploading | State::Queued | State::Delayed | State::Running, _)) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(task = %id, error = &error as &dyn std::error::Error, "unneeded files are not removed");
        }
    }
    Ok(())
}

/// Removes the attempts of a task that none of its files belongs to.
pub(super) async fn keep_only(runner: &Runner, id: TaskId, blobs: &[BlobKey]) -> std::result::Result<(), files::Error> {
    let files = &runner.tools().files;
    for token in files.attempts(id).await? {
        if !blobs.iter().any(|blob| blob.is_of(id, token)) {
            files.remove_attempt(id, token).await?;
        }
    }
    Ok(())
}
