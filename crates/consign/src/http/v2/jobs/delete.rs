//! `DELETE /v2/jobs/{id}`: cancels a job if need be and removes it with its tasks and files.

use axum::extract::State;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::AppState;
use crate::http::body::no_content;
use crate::http::extract::{By, Id};
use crate::id::JobId;

/// Answers 204; its download links are dead from then on.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(State(state): State<AppState>, By(caller): By, Id(id): Id<JobId>) -> ApiResult<Response> {
    if state.store.delete_job(caller.id(), id, state.clock.now()).await? {
        Ok(no_content())
    } else {
        Err(ApiError::not_found())
    }
}
