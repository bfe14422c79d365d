//! `DELETE /v2/webhooks/{id}`: removes a webhook with what is still on its way there.

use axum::extract::State;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::AppState;
use crate::http::body::no_content;
use crate::http::extract::{By, Id};
use crate::id::WebhookId;

/// Answers 204.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(State(state): State<AppState>, By(caller): By, Id(id): Id<WebhookId>) -> ApiResult<Response> {
    if state.store.delete_webhook(caller.id(), id).await? { Ok(no_content()) } else { Err(ApiError::not_found()) }
}
