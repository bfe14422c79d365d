//! `GET /v2/jobs/{id}`: a job with its tasks; where requests wait, once it has ended.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::body::View;
use crate::http::extract::{By, Id, Query, Waits};
use crate::http::{AppState, wait};
use crate::id::JobId;

/// Answers with the job, or with `redirect=true` sends the client to its first file.
///
/// # Errors
/// `NOT_FOUND`, `WAIT_TIMEOUT`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Waits(waits): Waits,
    Id(id): Id<JobId>,
    query: Query,
) -> ApiResult<Response> {
    let job = if waits {
        wait::for_job(&state, caller.id(), id).await?
    } else {
        state.store.job(caller.id(), id).await?.ok_or_else(ApiError::not_found)?
    };
    Ok(super::answer(&view, StatusCode::OK, &job, query.is_on("redirect")))
}
