//! `GET /v2/webhooks/{id}/deliveries`: what a webhook was told, and how that went.

use axum::extract::State;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::AppState;
use crate::http::body::View;
use crate::http::extract::{By, Id, Query};
use crate::http::v2::deliveries;
use crate::id::WebhookId;
use crate::store::DeliveryFilter;

/// Answers with a page, newest first.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Id(id): Id<WebhookId>,
    query: Query,
) -> ApiResult<Response> {
    let path = format!("{}/v2/webhooks/{}/deliveries", view.public_url(), id.0);
    deliveries::list(&state, caller.id(), DeliveryFilter::Webhook(id), path, &query).await
}
