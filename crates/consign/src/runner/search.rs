//! Searches the file store for files that no row names: what killed processes left.
//!
//! A loop of its own: it asks for every task that has files, and for the attempts of each that has ended, one after the other.
//! With millions of them, or a store that is slow, that takes hours, and nothing else must wait for it.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::sleep;

use super::Runner;
use super::ownership::{self, Ownership};
use crate::files;
use crate::id::TaskId;
use crate::model::{BlobKey, State};
use crate::store::Result;

/// Time between searches, of all processes together; each also searches when it starts.
const EVERY: Duration = Duration::from_hours(1);
/// Time between looks whether the next one is due: by so much it is late at the most when the process that made the last one is
/// gone.
const LOOK_EVERY: Duration = Duration::from_mins(5);
/// What processes take turns at.
const TURN: &str = "search";
/// Tasks looked up in one go.
const BATCH: u32 = 500;

/// Searches until it is cancelled: at once, since the process before this one may have been killed, and then whenever it is this
/// one's turn.
pub(super) async fn run(runner: Runner) {
    takes_its_turn(&runner).await;
    loop {
        search(&runner).await;
        loop {
            sleep(LOOK_EVERY).await;
            if takes_its_turn(&runner).await {
                break;
            }
        }
    }
}

/// Takes the next search from the others, if one is due.
async fn takes_its_turn(runner: &Runner) -> bool {
    take_turn(runner).await.unwrap_or_else(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the next search has to wait");
        false
    })
}

async fn take_turn(runner: &Runner) -> Result<bool> {
    let now = runner.time().await?;
    runner.tools().store.take_turn(TURN, now, now.plus(EVERY)).await
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
