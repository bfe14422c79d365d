//! `POST /v2/deliveries/{id}/redeliver`: sends the same bytes under the same id once more, now.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::DeliveryBody;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::AppState;
use crate::http::body::data;
use crate::http::extract::{By, Id};
use crate::id::DeliveryId;
use crate::store::Redelivery;

/// Answers 202 with the delivery, which is pending again.
///
/// # Errors
/// `NOT_FOUND`, `WEBHOOK_DISABLED`.
pub async fn handler(State(state): State<AppState>, By(caller): By, Id(id): Id<DeliveryId>) -> ApiResult<Response> {
    match state.store.redeliver(caller.id(), id, state.clock.now()).await? {
        Redelivery::Due(delivery) => {
            connectors::fail_point!("webhook.due_again");
            Ok(data(StatusCode::ACCEPTED, &DeliveryBody::from(&delivery)))
        }
        Redelivery::Disabled => Err(ApiError::new(
            Code::WebhookDisabled,
            "The webhook answered 410 and is told nothing more; delete it and create another one.",
        )),
        Redelivery::NotFound => Err(ApiError::not_found()),
    }
}
