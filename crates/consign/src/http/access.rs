//! Around every request: one line in the log, a count, the headers that every answer has, and the net that catches
//! panics. Lines name the template of the route, never the path or the query, which may be capabilities.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;

use super::state::AppState;
use crate::error::{ApiError, Code};
use crate::id::UserId;

/// What a path without a route is called.
const NO_ROUTE: &str = "none";

/// Runs a request and tells what came of it.
pub async fn account(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let mut response = AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
        // The panic hook has logged what happened.
        ApiError::new(Code::Internal, "Something went wrong in the server; its log says what.").into_response()
    });
    let took = begun.elapsed();
    let status = response.status().as_u16();
    state.metrics.answered(method, route, status, took);
    let user = response.extensions().get::<UserId>().map(|id| id.0);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if matches!(route, "/healthz" | "/readyz" | "/metrics" | "/socket.io") {
        tracing::debug!(method, route, status, took_ms, "answered");
    } else {
        tracing::info!(method, route, status, took_ms, user, "answered");
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The name of a method, from a closed list: clients may make up methods, and labels must be bounded.
fn method_name(method: &Method) -> &'static str {
    [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
    ]
    .into_iter()
    .find(|(known, _)| known == method)
    .map_or("OTHER", |(_, name)| name)
}
