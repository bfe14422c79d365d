//! `POST /v2/tasks/{id}/cancel`: ends a task and what depends on it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiError, ApiResult, Faults};
use crate::http::AppState;
use crate::http::body::{View, data};
use crate::http::extract::{By, Id};
use crate::id::TaskId;
use crate::store::Cancellation;

/// Answers with the task, which has ended with `CANCELLED`; what it was doing stops in the next moment.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_DATA` when it had ended before.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Id(id): Id<TaskId>,
) -> ApiResult<Response> {
    match state.store.cancel(caller.id(), id, state.clock.now()).await? {
        Cancellation::Done => {
            connectors::fail_point!("task.cancelled");
            let task = state.store.task(caller.id(), id).await?.ok_or_else(ApiError::not_found)?;
            Ok(data(StatusCode::OK, &view.task(&task)))
        }
        Cancellation::AlreadyEnded => {
            let mut faults = Faults::default();
            faults.add("status", "Cannot change status: task already completed.");
            Err(ApiError::invalid(faults))
        }
        Cancellation::NotFound => Err(ApiError::not_found()),
    }
}
