//! What a client may ask to have beside a task: `include=payload,retries,depends_on_tasks,job`. Anything else there
//! is ignored, for one SDK sends the name of a type.

use serde_json::{Map, Value};

use super::body::{TaskBody, View};
use super::error::sealed_with_another_key;
use super::extract::Query;
use super::state::AppState;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::TaskId;
use crate::model::Task;
use crate::operations;

/// What is wanted beside a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Includes {
    payload: bool,
    retries: bool,
    depends_on_tasks: bool,
    job: bool,
}

impl Includes {
    /// Reads what a query asks for.
    pub fn wanted(query: &Query) -> Self {
        let mut wanted = Self::default();
        for name in query.list("include") {
            match name {
                "payload" => wanted.payload = true,
                "retries" => wanted.retries = true,
                "depends_on_tasks" => wanted.depends_on_tasks = true,
                "job" => wanted.job = true,
                _ => {}
            }
        }
        wanted
    }

    /// Shapes a task with what is wanted beside it.
    ///
    /// # Errors
    /// The store's.
    pub async fn shape(self, state: &AppState, view: &View, task: &Task) -> ApiResult<TaskBody> {
        let mut body = view.task(task);
        if self.payload {
            body.payload = shown_payload(state, view, task).await?;
        }
        if self.retries {
            let retries = state.store.retries(task.user_id, task.id).await?;
            body.retries = Some(retries.iter().map(|retry| view.task(retry)).collect());
        }
        if self.depends_on_tasks {
            let inputs = state.store.tasks(task.user_id, &task.depends_on).await?;
            body.depends_on_tasks = Some(inputs.iter().map(|input| view.task(input)).collect());
        }
        if self.job
            && let Some(id) = task.job_id
            && let Some(job) = state.store.job(task.user_id, id).await?
        {
            body.job = Some(Box::new(view.job(&job, false)));
        }
        Ok(body)
    }
}

/// A task's arguments without its credentials.
async fn shown_payload(state: &AppState, view: &View, task: &Task) -> ApiResult<Option<Map<String, Value>>> {
    let Some(mut args) = payload(state, task.id).await? else { return Ok(None) };
    let mut shown = Map::new();
    for name in operations::prepare::OWN_MEMBERS {
        if let Some(value) = args.shift_remove(name) {
            shown.insert(name.to_owned(), value);
        }
    }
    shown.insert("operation".to_owned(), Value::from(view.operation(&task.operation)));
    // What no operation of this version can describe, it cannot redact either.
    if let Some(entry) = operations::find(&task.operation) {
        shown.extend(entry.redact(&args));
    }
    Ok(Some(shown))
}

/// A task's arguments as they were stored: secret.
///
/// # Errors
/// The store's, or [`Code::Internal`] when they cannot be opened.
pub(super) async fn payload(state: &AppState, id: TaskId) -> ApiResult<Option<Map<String, Value>>> {
    let Some(sealed) = state.store.payload(id).await? else { return Ok(None) };
    let plain = state.vault.open(&sealed).map_err(sealed_with_another_key)?;
    // The cause would quote what is secret.
    let unreadable = |_| ApiError::new(Code::Internal, "The task's arguments cannot be read.");
    serde_json::from_slice(&plain).map(Some).map_err(unreadable)
}
