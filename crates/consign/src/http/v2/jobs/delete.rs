//! `DELETE /v2/jobs/{id}`: cancels a job if need be and removes it with its tasks and files.

use axum::extract::State;
use axum::response::Response;

use crate::error::{ApiError, ApiResult, Code};
use crate::http::AppState;
use crate::http::body::no_content;
use crate::http::extract::{By, Id};
use crate::id::JobId;
use crate::store::Deletion;

/// How often a job is told of and tried again. Once is enough: nothing happens to a job that has ended.
const ROUNDS_MAX: u32 = 3;

/// Answers 204; its download links are dead from then on.
///
/// # Errors
/// `NOT_FOUND`.
pub async fn handler(State(state): State<AppState>, By(caller): By, Id(id): Id<JobId>) -> ApiResult<Response> {
    for _ in 0..ROUNDS_MAX {
        match state.store.delete_job(caller.id(), id, state.clock.now()).await? {
            Deletion::Done => {
                connectors::fail_point!("job.deleted");
                return Ok(no_content());
            }
            Deletion::NotFound => return Err(ApiError::not_found()),
            // Its end must be told with all that is in it, and that is about to go.
            Deletion::Untold => state.teller().tell_of(id).await?,
        }
    }
    Err(ApiError::new(Code::Unavailable, "The job's webhooks could not be told of its end yet; delete it again."))
}
