//! Waiting for a job or a task to end. Hints wake the waiter, which then reads the row again; should a hint be lost,
//! it looks again by itself ([`Pace`]). A client that goes away drops the future and all it holds.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::pace::Pace;
use super::state::AppState;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::{JobId, TaskId, UserId};
use crate::model::{Job, Task};
use crate::telemetry::metrics::Held;

/// Longest time that a request goes on waiting once the server was asked to stop; less than connections are given.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// When to ask again after that: a server that restarts is there by then.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// Waits until a job has ended.
///
/// # Errors
/// [`Code::NotFound`] when it is not there, or goes; [`Code::WaitTimeout`]; [`Code::Unavailable`] when the server stops.
pub async fn for_job(state: &AppState, user: UserId, id: JobId) -> ApiResult<Job> {
    until(state, id.0, move || async move {
        // The tasks are dear to read, and of no interest before the end.
        let row = state.store.jobs(user, &[id]).await?.pop().ok_or_else(ApiError::not_found)?;
        if !row.status.is_terminal() {
            return Ok(None);
        }
        state.store.job(user, id).await?.ok_or_else(ApiError::not_found).map(Some)
    })
    .await
}

/// Waits until a task has ended.
///
/// # Errors
/// [`Code::NotFound`] when it is not there, or goes; [`Code::WaitTimeout`]; [`Code::Unavailable`] when the server stops.
pub async fn for_task(state: &AppState, user: UserId, id: TaskId) -> ApiResult<Task> {
    until(state, id.0, move || async move {
        let task = state.store.task(user, id).await?.ok_or_else(ApiError::not_found)?;
        Ok(task.state.is_terminal().then_some(task))
    })
    .await
}

/// Reads at every turn until there is a result.
async fn until<T, F: Future<Output = ApiResult<Option<T>>>>(
    state: &AppState,
    id: Uuid,
    read: impl Fn() -> F,
) -> ApiResult<T> {
    let _held = Held::of(&state.metrics.waits);
    let deadline = Instant::now() + state.config.limits.wait_max.0;
    // Watching begins before the first reading, so that no change falls in between.
    let mut pace = Pace::new(state.store.hints(), id);
    let mut wait = std::pin::pin!(async move {
        loop {
            pace.turn().await;
            if let Some(ended) = read().await? {
                return Ok(ended);
            }
            pace.was_read(Duration::ZERO);
        }
    });
    let stops = async {
        state.stopping.cancelled().await;
        // What runs may still end in time; half of what running tasks are given leaves time for the answer.
        tokio::time::sleep(STOP_PATIENCE.min(state.config.limits.stop_grace.0 / 2)).await;
    };
    tokio::select! {
        ended = &mut wait => ended,
        () = sleep_until(deadline) => {
            Err(ApiError::new(Code::WaitTimeout, "It has not ended while this request waited; ask again."))
        }
        () = stops => {
            let message = "The server is about to stop; what was accepted goes on when it is back, so ask again.";
            Err(ApiError::new(Code::Unavailable, message).after(COME_BACK_AFTER))
        }
    }
}
