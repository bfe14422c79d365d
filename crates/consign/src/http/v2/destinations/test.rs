//! `POST /v2/destinations/test`: tries the destination of an export while the client waits.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiError, ApiResult};
use crate::http::AppState;
use crate::http::body::data;
use crate::http::extract::{By, Entity};
use crate::operations::trial::Subject;

/// Answers 200 with what was found, also when the destination refuses everything: the test itself has worked. A client
/// that goes away ends it.
///
/// # Errors
/// `INVALID_DATA`, `TOO_MANY_REQUESTS`, `PAYLOAD_TOO_LARGE`.
pub async fn handler(State(state): State<AppState>, By(caller): By, entity: Entity) -> ApiResult<Response> {
    let subject = Subject::read(entity.object()?).map_err(ApiError::invalid)?;
    let _turn = state.trials.admit(caller.id())?;
    Ok(data(StatusCode::OK, &state.trials.run(subject).await))
}
