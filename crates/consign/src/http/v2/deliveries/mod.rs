//! Deliveries: what webhooks are told, with every attempt.

use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{ApiError, ApiResult};
use crate::http::body::json;
use crate::http::extract::Query;
use crate::http::{AppState, page};
use crate::id::UserId;
use crate::model::{Delivery, DeliveryAttempt, DeliveryState};
use crate::store::DeliveryFilter;

pub mod redeliver;

/// A delivery on the wire. Neither the address nor what is sent there.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Delivery")]
pub struct DeliveryBody {
    /// Its id; the receiver sees it as `webhook-id`, the same at every attempt.
    id: String,
    /// The webhook; null for the job's own `webhook_url`.
    webhook_id: Option<i32>,
    /// What it tells of.
    job_id: String,
    /// What happened.
    #[schemars(extend("enum" = ["job.created", "job.finished", "job.failed"]))]
    event: &'static str,
    /// `pending`, `delivered` or `failed`.
    #[schemars(extend("enum" = ["pending", "delivered", "failed"]))]
    status: &'static str,
    /// The latest attempts, oldest first.
    attempts: Vec<AttemptBody>,
    /// When it is tried next.
    next_attempt_at: Option<String>,
    /// When it was made.
    created_at: String,
    /// When it was delivered or given up.
    ended_at: Option<String>,
}

/// An attempt on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "DeliveryAttempt")]
pub struct AttemptBody {
    /// From 1.
    number: u32,
    /// When it began.
    at: String,
    /// The status of the answer; null when none came.
    status: Option<u16>,
    /// What went wrong, and what to do.
    error: Option<String>,
    /// How long it took.
    duration_ms: u64,
}

impl From<&Delivery> for DeliveryBody {
    fn from(delivery: &Delivery) -> Self {
        let is_pending = delivery.state == DeliveryState::Pending;
        Self {
            id: delivery.id.to_string(),
            webhook_id: delivery.webhook_id.map(|id| id.0),
            job_id: delivery.job_id.to_string(),
            event: delivery.event.wire(),
            status: delivery.state.wire(),
            attempts: delivery.attempts.iter().map(AttemptBody::from).collect(),
            next_attempt_at: is_pending.then(|| delivery.due_at.wire()),
            created_at: delivery.created_at.wire(),
            ended_at: delivery.ended_at.map(crate::clock::Timestamp::wire),
        }
    }
}

impl From<&DeliveryAttempt> for AttemptBody {
    fn from(attempt: &DeliveryAttempt) -> Self {
        Self {
            number: attempt.number,
            at: attempt.at.wire(),
            status: attempt.status,
            error: attempt.error.clone(),
            duration_ms: attempt.duration_ms,
        }
    }
}

/// A page of deliveries.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn list(
    state: &AppState,
    user: UserId,
    filter: DeliveryFilter,
    path: String,
    query: &Query,
) -> ApiResult<Response> {
    let page = page::wanted(query);
    let found = state.store.deliveries(user, filter, page).await?;
    let (deliveries, has_more) = found.ok_or_else(ApiError::not_found)?;
    let bodies: Vec<DeliveryBody> = deliveries.iter().map(DeliveryBody::from).collect();
    Ok(json(StatusCode::OK, &page::envelope(path, query, page, has_more, bodies)))
}
