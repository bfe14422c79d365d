//! Jobs.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::super::body::{View, data, no_content};
use crate::model::{Job, WireStatus};

pub mod create;
pub mod delete;
pub mod deliveries;
pub mod events;
pub mod list;
pub mod show;
pub mod wait;

/// A job as an answer; or, if the client wants that and there is one, the way to its first file.
pub(in crate::http) fn answer(view: &View, status: StatusCode, job: &Job, redirect: bool) -> Response {
    if redirect
        && job.status == WireStatus::Finished
        && let Some(location) = view.first_download(job).and_then(|url| HeaderValue::try_from(url).ok())
    {
        let mut response = no_content();
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(header::LOCATION, location);
        return response;
    }
    data(status, &view.job(job, true))
}
