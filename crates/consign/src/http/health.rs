//! What operators and their machines look at: `healthz`, `readyz`, `metrics`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::json;
use super::state::AppState;

/// How long a part of the server may take to say that it works.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the server can work.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Readiness {
    /// Whether it can.
    ready: bool,
    /// Why not.
    reasons: Vec<String>,
}

/// `GET /healthz`: 200 while the process lives.
pub async fn alive() -> Response {
    json(StatusCode::OK, &serde_json::json!({"status": "ok"}))
}

/// `GET /readyz`: 200 when database and file store answer, or 503 with reasons.
pub async fn ready(State(state): State<AppState>) -> Response {
    let mut reasons = Vec::new();
    match tokio::time::timeout(PATIENCE, state.store.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the database is not ready");
            reasons.push("The database does not answer or cannot be written to.".to_owned());
        }
        Err(_) => reasons.push("The database takes too long to answer.".to_owned()),
    }
    match tokio::time::timeout(PATIENCE, state.files.ping()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the file store is not ready");
            reasons.push("The file store cannot be written to, or its disk is full.".to_owned());
        }
        Err(_) => reasons.push("The file store takes too long to answer.".to_owned()),
    }
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &Readiness { ready: reasons.is_empty(), reasons })
}

/// `GET /metrics`: the counters of this process and the counts of the store, in the text format of Prometheus.
pub async fn metrics(State(state): State<AppState>) -> Response {
    match tokio::time::timeout(PATIENCE, state.store.counts(state.clock.now())).await {
        Ok(Ok(counts)) => state.metrics.set_counts(&counts),
        Ok(Err(error)) => tracing::warn!(error = %error, "the store cannot be counted"),
        Err(_) => tracing::warn!("the store takes too long to be counted"),
    }
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], state.metrics.text()).into_response()
}
