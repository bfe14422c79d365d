//! `POST /v2/jobs`: accepts a job; where requests wait, answers with the ended one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::body::{View, data_bytes, json_bytes};
use crate::http::extract::{By, Entity, Waits};
use crate::http::{AppState, once, plan, wait};
use crate::id::JobId;
use crate::model::{Origin, State as TaskState};
use crate::store::NewJob;

/// Answers 201 as soon as the job is on stable storage.
///
/// A job that waits for uploads is answered at once even where requests wait: its form is in the answer.
///
/// # Errors
/// `INVALID_DATA`, `TOO_MANY_REQUESTS`, `PAYLOAD_TOO_LARGE`, `WAIT_TIMEOUT`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Waits(waits): Waits,
    entity: Entity,
) -> ApiResult<Response> {
    let (answer, may_wait, redirect) = if let Some(answer) = once::earlier(&state, caller.id(), &entity).await? {
        let redirect = entity.object()?.get("redirect") == Some(&true.into());
        (answer, true, redirect)
    } else {
        let planned = plan::job(&state, caller.id(), Origin::Key(caller.key.id), entity.object()?).await?;
        let may_wait = planned.job.tasks.iter().all(|task| task.state != TaskState::Uploading);
        let bytes = data_bytes(&view.job(&planned.job, true));
        let idempotency = once::promise(&state, &entity, &bytes);
        let new = NewJob { job: planned.job, payloads: planned.payloads, idempotency };
        let made = state.store.create_job(new).await?;
        (once::outcome(&state, made, bytes)?, may_wait, planned.redirect)
    };
    if waits && may_wait {
        let id: JobId = answer.id().ok_or_else(once::no_id)?;
        let job = wait::for_job(&state, caller.id(), id).await?;
        return Ok(once::mark(super::answer(&view, StatusCode::CREATED, &job, redirect), &answer));
    }
    let response = json_bytes(StatusCode::CREATED, answer.bytes.clone());
    Ok(once::mark(response, &answer))
}
