//! What operators and their machines look at: `healthz`, `readyz`, `metrics`.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::body::json;
use crate::error::ApiError;
use crate::telemetry::health::Health;

/// `GET /healthz`: 200 while the process lives.
pub async fn alive() -> Response {
    json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// `GET /readyz`: 200 when this process can work, or 503 with what is wrong.
pub async fn ready(State(health): State<Health>) -> Response {
    let readiness = health.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &readiness)
}

/// `GET /metrics`: the counters of this process and the counts of the store, in the text format of Prometheus.
pub async fn metrics(State(health): State<Health>) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], health.metrics().await).into_response()
}

/// These three alone, for an address that only operators reach.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || ApiError::not_found())
        .with_state(health)
}
