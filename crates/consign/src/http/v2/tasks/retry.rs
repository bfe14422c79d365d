//! `POST /v2/tasks/{id}/retry`: makes a new task that does the same.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiError, ApiResult, Code};
use crate::http::body::{View, data_bytes, json_bytes};
use crate::http::extract::{By, Id};
use crate::http::{AppState, once, plan};
use crate::id::TaskId;
use crate::operations;
use crate::store::NewTask;

/// Answers 201 with the new task, which has no job. The original stays as it is.
///
/// # Errors
/// `NOT_FOUND`; `INVALID_DATA` when an input of it is gone; `TOO_MANY_REQUESTS`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Id(id): Id<TaskId>,
) -> ApiResult<Response> {
    let original = state.store.task(caller.id(), id).await?.ok_or_else(ApiError::not_found)?;
    let payload = state.store.payload(id).await?.ok_or_else(ApiError::not_found)?;
    let entry = operations::find(&original.operation).ok_or_else(|| {
        ApiError::new(Code::Unsupported, "This version of the server does not know the task's operation.")
    })?;
    let task = plan::again(&state, &original, entry);
    let bytes = data_bytes(&view.task(&task));
    let made = state.store.create_task(NewTask { task, payload, idempotency: None }).await?;
    connectors::fail_point!("task.retried");
    let answer = once::outcome(&state, made, bytes)?;
    Ok(json_bytes(StatusCode::CREATED, answer.bytes))
}
