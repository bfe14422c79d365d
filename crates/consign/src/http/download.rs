//! `GET /files/{task}/{name}`: a file of a finished `export/url` task, for whoever holds its signed link.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use connectors::Source;
use connectors::store::Shown;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::conditional::{Verdict, Version, decide};
use super::extract::Query;
use super::state::AppState;
use super::{disposition, link, upload};
use crate::error::{ApiError, ApiResult, Code};
use crate::files::Steps;
use crate::id::TaskId;
use crate::model::{BlobKey, File, State as TaskState};
use crate::telemetry::metrics::Held;

/// How long a link to the object store itself holds: long enough to begin, and to go on for a while where it broke.
const REDIRECT_LIFE: Duration = Duration::from_mins(15);
/// Bytes that all downloads together hold ready for their clients, as long as that leaves each the least of its place.
const READY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What they hold for the sake of that least: of an object store, it is enough for a thousand downloads.
const READY_BYTES_LIMIT: u64 = 512 * 1024 * 1024;
/// Bytes that a download reads at once, however many there are.
const STEP_BYTES_MIN: u64 = 16 * 1024;
/// Media types that a browser may show in place: none of them runs scripts in our origin.
const HARMLESS: [&str; 6] = ["image/", "audio/", "video/", "text/plain", "application/pdf", "application/json"];
/// Keeps a document that a browser shows from running scripts or reaching anything.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:";

/// A file that a link gives access to.
struct Found {
    file: File,
    blob: BlobKey,
    inline: bool,
    version: Version,
    /// The link dies then, in seconds of Unix time.
    expires: i64,
}

/// Answers with the file, a part of it, or why not.
///
/// # Errors
/// `NOT_FOUND`, `LINK_INVALID`, `PRECONDITION_FAILED`, `RANGE_NOT_SATISFIABLE`.
pub async fn handler(
    State(state): State<AppState>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    query: Query,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let sent = async {
        let Path((id, name)) = path.map_err(|_| ApiError::not_found())?;
        let id = id.parse().map_err(|_| ApiError::not_found())?;
        let found = find(&state, id, &name, &query).await?;
        if let Some(place) = elsewhere(&state, &found, &method, &headers)? {
            return Ok(redirect(&place));
        }
        send(&state, &found, &headers, method == Method::HEAD).await
    };
    let mut response = sent.await.unwrap_or_else(ApiError::into_response);
    upload::allow_any_origin(response.headers_mut());
    response
}

async fn find(state: &AppState, id: TaskId, name: &str, query: &Query) -> ApiResult<Found> {
    let invalid = || ApiError::new(Code::LinkInvalid, "The link has expired or was changed; ask for a new one.");
    let signature = query.get("temp_url_sig").ok_or_else(invalid)?;
    let expires: i64 = query.get("temp_url_expires").and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
    let number = query.get(link::NUMBER).map_or(Ok(1), str::parse).map_err(|_| invalid())?;
    let (task, file) = state.store.linked_file(id, number).await?.ok_or_else(ApiError::not_found)?;
    if task.state != TaskState::Finished {
        return Err(ApiError::not_found());
    }
    let ended_at = task.ended_at.unwrap_or(task.created_at);
    // Two files of a task may have the same name: the signature covers which one is meant.
    let (file, download) = file
        .filter(|file| file.name == name && link::is_genuine(&state.vault, signature, id, number, name, expires))
        .and_then(|file| file.download.map(|download| (file, download)))
        .ok_or_else(invalid)?;
    if state.clock.now().unix_seconds() >= expires {
        return Err(invalid());
    }
    let blob = file.blob.clone().ok_or_else(ApiError::not_found)?;
    let version = Version::new(file.mark(), ended_at, file.size);
    Ok(Found { file, blob, inline: download.inline, version, expires })
}

/// Where the object store itself gives the file to this client, if the operator wants that. Not where this server says
/// more than the object store can: to `HEAD`, to conditions, of documents that a browser must not run.
fn elsewhere(state: &AppState, found: &Found, method: &Method, headers: &HeaderMap) -> ApiResult<Option<String>> {
    let is_conditional = headers.keys().any(|name| name.as_str().starts_with("if-"));
    if *method != Method::GET || is_conditional || (found.inline && !is_harmless(&found.file.content_type)) {
        return Ok(None);
    }
    let left = u64::try_from(found.expires.saturating_sub(state.clock.now().unix_seconds())).unwrap_or_default();
    let disposition = disposition::header(found.inline, &found.file.name);
    let shown = Shown {
        life: REDIRECT_LIFE.min(Duration::from_secs(left.max(1))),
        content_type: content_type(&found.file.content_type),
        content_disposition: disposition.to_str().unwrap_or("attachment").to_owned(),
        cache_control: "private, no-cache".to_owned(),
    };
    Ok(state.files.signed_link(&found.blob, &shown)?)
}

fn redirect(place: &str) -> Response {
    let mut response = super::body::no_content();
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    insert(response.headers_mut(), header::LOCATION, place.to_owned());
    // The next one must be signed anew.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn send(state: &AppState, found: &Found, headers: &HeaderMap, head_only: bool) -> ApiResult<Response> {
    let version = &found.version;
    let (status, range) = match decide(headers, version) {
        Verdict::Whole => (StatusCode::OK, 0..version.size),
        Verdict::Part(range) => (StatusCode::PARTIAL_CONTENT, range),
        Verdict::NotModified => {
            let mut response = super::body::no_content();
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            marks(response.headers_mut(), version);
            return Ok(response);
        }
        Verdict::PreconditionFailed => {
            return Err(ApiError::new(Code::PreconditionFailed, "The file is not the version you asked for."));
        }
        Verdict::RangeNotSatisfiable => {
            let error = ApiError::new(Code::RangeNotSatisfiable, "The range lies outside the file.");
            let mut response = error.into_response();
            insert(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{}", version.size));
            return Ok(response);
        }
    };
    let length = range.end - range.start;
    let source = state.files.source(&found.blob, &found.file).await?;
    let mut response = Response::new(if head_only { Body::empty() } else { bytes(state, source, range.clone()) });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    marks(headers, version);
    insert(headers, header::CONTENT_LENGTH, length.to_string());
    if status == StatusCode::PARTIAL_CONTENT {
        let place = format!("bytes {}-{}/{}", range.start, range.end - 1, version.size);
        insert(headers, header::CONTENT_RANGE, place);
    }
    insert(headers, header::CONTENT_TYPE, content_type(&found.file.content_type));
    headers.insert(header::CONTENT_DISPOSITION, disposition::header(found.inline, &found.file.name));
    if found.inline && !is_harmless(&found.file.content_type) {
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    }
    Ok(response)
}

fn marks(headers: &mut HeaderMap, version: &Version) {
    insert(headers, header::ETAG, version.etag.clone());
    insert(headers, header::LAST_MODIFIED, version.modified());
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    // Of the client alone, and to be asked again: the link may have died.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn content_type(text: &str) -> String {
    // Browsers take the last of several types, so that a comma could smuggle one in behind a harmless one.
    let is_plain = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b',';
    let is_valid = text.bytes().all(is_plain) && text.contains('/');
    if is_valid { text.to_owned() } else { "application/octet-stream".to_owned() }
}

fn is_harmless(content_type: &str) -> bool {
    let kind = content_type.to_ascii_lowercase();
    HARMLESS.iter().any(|harmless| kind.starts_with(harmless)) && !kind.starts_with("image/svg")
}

/// The bytes of a range, read as fast as the client takes them and a little ahead. The source is open, so that an
/// expiry in the meantime does not end it.
fn bytes(state: &AppState, source: Arc<dyn Source>, range: Range<u64>) -> Body {
    let (metrics, best) = (Arc::clone(&state.metrics), state.files.steps());
    let held = Held::of(&metrics.downloads);
    let open = metrics.downloads.clone();
    let ahead = pace(best, open.get()).ahead;
    let steps = stream::unfold(range.start, move |from| {
        let to = from.saturating_add(pace(best, open.get()).bytes).min(range.end);
        std::future::ready((from < to).then_some((from..to, to)))
    });
    let read = steps
        .map(move |step| {
            let source = Arc::clone(&source);
            async move {
                let length = usize::try_from(step.end - step.start).unwrap_or(0);
                source.read_at(step.start, length).await
            }
        })
        .buffered(ahead)
        .inspect_ok(move |chunk| {
            let _ = &held;
            metrics.download_bytes.inc_by(chunk.len() as u64);
        });
    Body::from_stream(read)
}

/// How to read while so many downloads are open, so that all stay within their budget: each holds as many pieces as are
/// read ahead, and one that is being sent. First the pieces become smaller, down to the least; then they become fewer.
fn pace(best: Steps, open: i64) -> Steps {
    let open = u64::try_from(open).unwrap_or(0).max(1);
    let pieces = |ahead: usize| open.saturating_mul(ahead as u64 + 1);
    let is_crowded = pieces(best.ahead).saturating_mul(best.least) > READY_BYTES_MAX;
    let ahead = if is_crowded { 1 } else { best.ahead };
    let least = best.least.min(READY_BYTES_LIMIT / pieces(ahead)).max(STEP_BYTES_MIN);
    Steps { bytes: best.bytes.min((READY_BYTES_MAX / pieces(ahead)).max(least)), ahead, ..best }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What all hold at the most.
    fn held(pace: Steps, open: i64) -> u64 {
        u64::try_from(open).unwrap() * (pace.ahead as u64 + 1) * pace.bytes
    }

    #[test]
    fn few_downloads_read_in_large_steps_and_many_stay_within_their_budget() {
        let disk = Steps { bytes: 256 * 1024, ahead: 2, least: 16 * 1024 };
        assert_eq!((pace(disk, 1), pace(disk, 0)), (disk, disk));
        let many = pace(disk, 1000);
        assert!(many.bytes < disk.bytes && held(many, 1000) <= READY_BYTES_MAX, "{many:?}");
        assert_eq!(pace(disk, 1_000_000).bytes, STEP_BYTES_MIN);
    }

    /// Each step is a request there.
    #[test]
    fn of_an_object_store_even_many_downloads_read_in_steps_that_are_worth_a_request() {
        let bucket = Steps { bytes: 1024 * 1024, ahead: 4, least: 256 * 1024 };
        assert_eq!(pace(bucket, 10), bucket);
        for open in [20, 51, 52, 128, 820, 1024] {
            let pace = pace(bucket, open);
            assert!(pace.bytes >= bucket.least, "{open}: {pace:?}");
            assert!(held(pace, open) <= READY_BYTES_LIMIT, "{open}: {pace:?}");
            assert!(open > 128 || held(pace, open) <= READY_BYTES_MAX, "{open}: {pace:?}");
        }
        for open in [1025, 5000, 8192] {
            assert!(held(pace(bucket, open), open) <= READY_BYTES_LIMIT, "{open}");
        }
    }
}
