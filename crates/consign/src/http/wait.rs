//! Waiting for a job or a task to end. Hints wake the waiter, which then reads the row again; should a hint be lost,
//! it looks again by itself. A client that goes away drops the future and all it holds.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::state::AppState;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::{JobId, TaskId, UserId};
use crate::model::{Job, Task};

/// How long a lost hint can delay an answer.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A job with many tasks changes often and is dear to read: so long per task until it is read again.
const PAUSE_PER_TASK: Duration = Duration::from_micros(50);

/// Waits until a job has ended.
///
/// # Errors
/// [`Code::NotFound`] when it is not there, or goes; [`Code::WaitTimeout`].
pub async fn for_job(state: &AppState, user: UserId, id: JobId) -> ApiResult<Job> {
    until(state, id.0, move || async move {
        let job = state.store.job(user, id).await?.ok_or_else(ApiError::not_found)?;
        if job.status.is_terminal() {
            return Ok(Ok(job));
        }
        Ok(Err(PAUSE_PER_TASK * u32::try_from(job.tasks.len()).unwrap_or(u32::MAX)))
    })
    .await
}

/// Waits until a task has ended.
///
/// # Errors
/// [`Code::NotFound`] when it is not there, or goes; [`Code::WaitTimeout`].
pub async fn for_task(state: &AppState, user: UserId, id: TaskId) -> ApiResult<Task> {
    until(state, id.0, move || async move {
        let task = state.store.task(user, id).await?.ok_or_else(ApiError::not_found)?;
        Ok(if task.state.is_terminal() { Ok(task) } else { Err(Duration::ZERO) })
    })
    .await
}

/// Reads until there is a result; otherwise `read` says how long to pause at least before the next reading.
async fn until<T, F: Future<Output = ApiResult<Result<T, Duration>>>>(
    state: &AppState,
    id: Uuid,
    read: impl Fn() -> F,
) -> ApiResult<T> {
    let deadline = Instant::now() + state.config.limits.wait_max.0;
    // Watching begins before the first reading, so that no change falls in between.
    let mut watcher = state.store.hints().watch(id);
    loop {
        let pause = match read().await? {
            Ok(ended) => return Ok(ended),
            Err(pause) => pause,
        };
        let next = async {
            let _ = tokio::time::timeout(LOOK_AGAIN, watcher.changed()).await;
            if pause >= Duration::from_millis(1) {
                sleep(pause.min(LOOK_AGAIN)).await;
            }
        };
        timeout_at(deadline, next)
            .await
            .map_err(|_| ApiError::new(Code::WaitTimeout, "It has not ended while this request waited; ask again."))?;
    }
}
