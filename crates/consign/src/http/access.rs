//! Around every request: an id, one line in the log, a count, the headers that every answer has, and the net that catches
//! panics. Lines name the template of the route, never the path or the query, which may be capabilities.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::field::Empty;
use tracing::{Instrument as _, error_span};

use super::state::AppState;
use crate::error::{ApiError, Code};
use crate::id::UserId;
use crate::telemetry::traces;

/// What a path without a route is called.
const NO_ROUTE: &str = "none";

/// Names a request in the log; clients may choose it.
const REQUEST_ID: &str = "x-request-id";
/// Longest id that is taken over.
const REQUEST_ID_BYTES_MAX: usize = 64;

/// Runs a request and tells what came of it.
pub async fn account(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
    let id = request_id(request.headers());
    // At this level every line of a request says which it belongs to, whatever level is logged.
    let span =
        error_span!("request", request = id, method, route, user = Empty, job = Empty, task = Empty, status = Empty);
    traces::begin_request(&span, request.headers(), || format!("{method} {route}"));
    let run = next.run(request).instrument(span.clone());
    let mut response = AssertUnwindSafe(run).catch_unwind().await.unwrap_or_else(|_| {
        // The panic hook has logged what happened.
        ApiError::new(Code::Internal, "Something went wrong in the server; its log says what.").into_response()
    });
    let took = begun.elapsed();
    let status = response.status().as_u16();
    state.metrics.answered(method, route, status, took);
    let user = response.extensions().get::<UserId>().map(|id| id.0);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.record("status", status);
    let entered = span.entered();
    if matches!(route, "/healthz" | "/readyz" | "/metrics" | "/socket.io") {
        tracing::debug!(method, route, status, took_ms, "answered");
    } else {
        tracing::info!(method, route, status, took_ms, user, "answered");
    }
    drop(entered);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::try_from(id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The client's id of a request, if it is one and not a text of any kind; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let is_id = |text: &&str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_id);
    given.map_or_else(|| hex::encode(rand::random::<[u8; 8]>()), str::to_owned)
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
