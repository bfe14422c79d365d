//! `POST /v2/{operation}`: accepts a task of its own; where requests wait, answers with the ended one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::body::{View, data, data_bytes, json_bytes};
use crate::http::extract::{By, Entity, Waits};
use crate::http::{AppState, once, plan, wait};
use crate::id::TaskId;
use crate::operations::{Entry, Feed};
use crate::store::NewTask;

/// Answers 201 as soon as the task is on stable storage. A task that waits for an upload is answered at once even
/// where requests wait: its form is in the answer.
///
/// # Errors
/// `INVALID_DATA`, `TOO_MANY_REQUESTS`, `PAYLOAD_TOO_LARGE`, `WAIT_TIMEOUT`.
pub async fn handler(
    entry: &'static Entry,
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Waits(waits): Waits,
    entity: Entity,
) -> ApiResult<Response> {
    let answer = if let Some(answer) = once::earlier(&state, caller.id(), &entity).await? {
        answer
    } else {
        let planned = plan::task(&state, caller.id(), entry, entity.object()?).await?;
        let bytes = data_bytes(&view.task(&planned.task));
        let idempotency = once::promise(&state, &entity, &bytes);
        let new = NewTask { task: planned.task, payload: planned.payload, idempotency };
        let made = state.store.create_task(new).await?;
        connectors::fail_point!("task.created");
        once::outcome(&state, made, bytes)?
    };
    let response = if waits && entry.feed != Feed::Client {
        let id: TaskId = answer.id().ok_or_else(once::no_id)?;
        let task = wait::for_task(&state, caller.id(), id).await?;
        data(StatusCode::CREATED, &view.task(&task))
    } else {
        json_bytes(StatusCode::CREATED, answer.bytes.clone())
    };
    Ok(once::mark(response, &answer))
}
