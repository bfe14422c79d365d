//! `POST /v2/jobs`: accepts a job; where requests wait, answers with the ended one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiResult, Faults};
use crate::http::body::{View, data_bytes, json_bytes};
use crate::http::extract::{By, Entity, Waits};
use crate::http::{AppState, members, once, plan, wait};
use crate::id::JobId;
use crate::model::{Origin, State as TaskState, Task};
use crate::store::NewJob;
use crate::telemetry::traces;

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
    let (answer, needs_upload, redirect) = if let Some(answer) = once::earlier(&state, caller.id(), &entity).await? {
        // The first request had no faults.
        let redirect = members::switch(entity.object()?.remove("redirect"), "redirect", &mut Faults::default());
        let job = state.store.job(caller.id(), job_id(&answer)?).await?;
        (answer, job.is_some_and(|job| needs_upload(&job.tasks)), redirect)
    } else {
        let planned = plan::job(&state, caller.id(), Origin::Key(caller.key.id), entity.object()?).await?;
        let needs_upload = needs_upload(&planned.job.tasks);
        let bytes = data_bytes(&view.job(&planned.job, true));
        let idempotency = once::promise(&state, &entity, &bytes);
        let new = NewJob { job: planned.job, payloads: planned.payloads, idempotency };
        let id = new.job.id;
        let made = state.store.create_job(new).await?;
        connectors::fail_point!("job.created");
        traces::made("job", id.0);
        (once::outcome(&state, made, bytes)?, needs_upload, planned.redirect)
    };
    if waits && !needs_upload {
        let job = wait::for_job(&state, caller.id(), job_id(&answer)?).await?;
        return Ok(once::mark(super::answer(&view, StatusCode::CREATED, &job, redirect), &answer));
    }
    let response = json_bytes(StatusCode::CREATED, answer.bytes.clone());
    Ok(once::mark(response, &answer))
}

fn needs_upload(tasks: &[Task]) -> bool {
    tasks.iter().any(|task| task.state == TaskState::Uploading)
}

fn job_id(answer: &once::Answer) -> ApiResult<JobId> {
    answer.id().ok_or_else(once::no_id)
}
