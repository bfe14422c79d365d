//! `GET /v2/tasks`: the user's tasks, newest first, a page at a time.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::{ApiResult, Faults};
use crate::http::body::{View, json};
use crate::http::extract::{By, Query};
use crate::http::include::Includes;
use crate::http::{AppState, page};
use crate::id::JobId;
use crate::model::WireStatus;
use crate::operations;
use crate::store::TaskFilter;

/// Answers with a page.
///
/// # Errors
/// `INVALID_DATA` for a status that does not exist.
pub async fn handler(State(state): State<AppState>, By(caller): By, view: View, query: Query) -> ApiResult<Response> {
    let mut faults = Faults::default();
    let status = query.get("filter[status]").and_then(|text| {
        let status = WireStatus::from_wire(text);
        if status.is_none() {
            faults.add("filter.status", "The selected filter.status is invalid.");
        }
        status
    });
    faults.into_result()?;
    let page = page::wanted(&query);
    let job_id = query.get("filter[job_id]").map(str::parse::<JobId>);
    let operation = query.get("filter[operation]").map(|name| operations::without_alias(name).to_owned());
    let (tasks, has_more) = if let Some(Err(_)) = job_id {
        // What is no id names no job, and so no task.
        (Vec::new(), false)
    } else {
        let job_id = job_id.and_then(Result::ok);
        state.store.list_tasks(&TaskFilter { user_id: caller.id(), job_id, status, operation }, page).await?
    };
    let includes = Includes::wanted(&query);
    let mut bodies = Vec::with_capacity(tasks.len());
    for task in &tasks {
        bodies.push(includes.shape(&state, &view, task).await?);
    }
    let path = format!("{}/v2/tasks", view.public_url());
    Ok(json(StatusCode::OK, &page::envelope(path, &query, page, has_more, bodies)))
}
