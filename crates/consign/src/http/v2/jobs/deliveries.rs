//! `GET /v2/jobs/{id}/deliveries`: who was told of a job, and how that went.

use axum::extract::State;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::AppState;
use crate::http::body::View;
use crate::http::extract::{By, Id, Query};
use crate::http::v2::deliveries;
use crate::id::JobId;
use crate::store::DeliveryFilter;

/// Answers with a page, newest first; also when the job itself was deleted meanwhile.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Id(id): Id<JobId>,
    query: Query,
) -> ApiResult<Response> {
    let path = format!("{}/v2/jobs/{id}/deliveries", view.public_url());
    deliveries::list(&state, caller.id(), DeliveryFilter::Job(id), path, &query).await
}
