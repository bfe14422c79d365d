//! `GET /v2/jobs`: the user's jobs, newest first, a page at a time.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::auth;
use crate::error::{ApiError, ApiResult, Faults};
use crate::http::body::{JobBody, View, json};
use crate::http::extract::{By, Query};
use crate::http::{AppState, page};
use crate::model::WireStatus;
use crate::store::JobFilter;

/// What stands before a key's id where a link names the key instead of its token.
const KEY_REFERENCE: &str = "key:";

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
    let with_tasks = query.list("include").any(|name| name == "tasks");
    let mut filter = JobFilter {
        user_id: caller.id(),
        status,
        tag: query.get("filter[tag]").map(str::to_owned),
        key_id: None,
        with_tasks,
    };
    let mut can_match = true;
    if let Some(token) = query.get("filter[access_token]") {
        filter.key_id = if let Some(id) = token.strip_prefix(KEY_REFERENCE) {
            // From a link of ours. Whose key it is does not matter: only this user's own jobs are listed.
            id.parse().ok()
        } else {
            let found = state.store.key_by_hash(&auth::hash(token)).await?;
            found.filter(|(key, _)| key.user_id == caller.id()).map(|(key, _)| key.id)
        };
        can_match = filter.key_id.is_some();
    }
    let (jobs, has_more) = if can_match { state.store.list_jobs(&filter, page).await? } else { (Vec::new(), false) };
    let jobs: Vec<JobBody> = jobs.iter().map(|job| view.job(job, with_tasks)).collect();
    // A token must not come back in the links of the page; the name of its key does as well.
    let shown = match filter.key_id {
        Some(id) => query.with("filter[access_token]", format!("{KEY_REFERENCE}{id}")),
        None => query.without("filter[access_token]"),
    };
    let path = format!("{}/v2/jobs", view.public_url());
    Ok::<_, ApiError>(json(StatusCode::OK, &page::envelope(path, &shown, page, has_more, jobs)))
}
