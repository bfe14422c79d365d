//! `GET /v2/tasks/{id}`: a task, with what is wanted beside it; where requests wait, once it has ended.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::body::{View, data};
use crate::http::extract::{By, Id, Query, Waits};
use crate::http::include::Includes;
use crate::http::{AppState, wait};
use crate::id::TaskId;

/// Answers with the task.
///
/// # Errors
/// `NOT_FOUND`, `WAIT_TIMEOUT`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Waits(waits): Waits,
    Id(id): Id<TaskId>,
    query: Query,
) -> ApiResult<Response> {
    let task = if waits {
        wait::for_task(&state, caller.id(), id).await?
    } else {
        state.store.task(caller.id(), id).await?.ok_or_else(ApiError::not_found)?
    };
    Ok(data(StatusCode::OK, &Includes::wanted(&query).shape(&state, &view, &task).await?))
}
