//! `GET /v2/tasks/{id}/wait`: a task, once it has ended.

use axum::extract::State;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::AppState;
use crate::http::body::View;
use crate::http::extract::{By, Id, Query, Waits};
use crate::id::TaskId;

/// The same as showing it where requests wait.
///
/// # Errors
/// `NOT_FOUND`, `WAIT_TIMEOUT`.
pub async fn handler(state: State<AppState>, by: By, view: View, id: Id<TaskId>, query: Query) -> ApiResult<Response> {
    super::show::handler(state, by, view, Waits(true), id, query).await
}
