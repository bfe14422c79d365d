//! `DELETE /v2/tasks/{id}`: cancels a task if need be and removes it with its files.

use axum::extract::State;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::AppState;
use crate::http::body::no_content;
use crate::http::extract::{By, Id};
use crate::id::TaskId;

/// Answers 204; its download links are dead from then on.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(State(state): State<AppState>, By(caller): By, Id(id): Id<TaskId>) -> ApiResult<Response> {
    if state.store.delete_task(caller.id(), id, state.clock.now()).await? {
        connectors::fail_point!("task.deleted");
        Ok(no_content())
    } else {
        Err(ApiError::not_found())
    }
}
