//! `GET /v2/users/me/webhooks`: the user's webhooks, newest first, a page at a time.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use crate::error::ApiResult;
use crate::http::body::{View, json};
use crate::http::extract::{By, Query};
use crate::http::{AppState, page};

/// Answers with a page. Addresses are sealed in the database, and there are few of them: they are filtered here.
///
/// # Errors
/// The store's.
pub async fn handler(State(state): State<AppState>, By(caller): By, view: View, query: Query) -> ApiResult<Response> {
    let page = page::wanted(&query);
    let mut found = Vec::new();
    for webhook in state.store.webhooks(caller.id()).await? {
        let body = super::body(&state, &view, &webhook)?;
        if query.get("filter[url]").is_none_or(|url| url == body.url) {
            found.push(body);
        }
    }
    let first = usize::try_from(page.offset()).unwrap_or(usize::MAX).min(found.len());
    let mut wanted = found.split_off(first);
    let has_more = wanted.len() > page.size as usize;
    wanted.truncate(page.size as usize);
    let path = format!("{}/v2/users/me/webhooks", view.public_url());
    Ok(json(StatusCode::OK, &page::envelope(path, &query, page, has_more, wanted)))
}
