//! `POST /upload/{task}`: takes the file of an `import/upload` task from its form. Who holds the form may post once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use connectors::{ByteStream, Error, Kind, Progress};
use futures_util::{StreamExt as _, stream};
use url::Url;

use super::extract::{Id, asks_first, content_length, drain};
use super::multipart::{Head, Malformed, Parts, boundary};
use super::state::AppState;
use super::{form, include, link};
use crate::error::{ApiError, ApiResult, Code};
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File, State as TaskState, Task};
use crate::operations::{self, Feed, RawArgs};
use crate::store::Applied;

/// Fields of a form beside the file.
const FIELDS_MAX: usize = 64;
/// Longest field, in bytes.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// What the fields and the heads of the parts may add to the file's length.
const FORM_BYTES_MAX: u64 = 8 * 1024 * 1024;

type Incoming = Parts<Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, axum::Error>> + Send>>>;

/// Answers like an S3 store does to a posted form: 201 with XML, or 303 to where the client asked to be sent.
///
/// # Errors
/// `NOT_FOUND`, `LINK_INVALID`, `UPLOAD_CLOSED`, `PAYLOAD_TOO_LARGE`, `BAD_REQUEST`, `STORAGE_FULL`.
pub async fn handler(State(state): State<AppState>, Id(id): Id<TaskId>, request: Request) -> Response {
    let mut response = receive(&state, id, request).await.unwrap_or_else(ApiError::into_response);
    allow_any_origin(response.headers_mut());
    response
}

/// `OPTIONS /upload/{task}`: lets pages of any origin post the form; it needs no cookie, so nothing is given away.
pub async fn preflight(headers: HeaderMap) -> Response {
    let mut response = super::body::no_content();
    let own = response.headers_mut();
    allow_any_origin(own);
    own.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST, OPTIONS"));
    own.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    own.insert(header::ALLOW, HeaderValue::from_static("POST, OPTIONS"));
    if let Some(asked) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        own.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    response
}

pub(super) fn allow_any_origin(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag, Location"));
}

async fn receive(state: &AppState, id: TaskId, request: Request) -> ApiResult<Response> {
    let (parts, body) = request.into_parts();
    let checked = async {
        // Before a byte is read, so that a client that asks first (`Expect: 100-continue`) need not send any.
        let task = open_task(state, id).await?;
        let limit = state.config.limits.file_bytes_max.as_u64();
        if content_length(&parts.headers).is_some_and(|length| length > limit.saturating_add(FORM_BYTES_MAX)) {
            return Err(too_large(limit));
        }
        state.files.check_room(content_length(&parts.headers).unwrap_or(0)).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let boundary = content_type.and_then(boundary).ok_or_else(|| malformed(Malformed::NoBoundary))?;
        Ok((task, boundary))
    };
    match checked.await {
        Ok((task, boundary)) => take(state, &task, &boundary, body).await,
        Err(error) => {
            if !asks_first(&parts.headers) {
                drain(body).await;
            }
            Err(error)
        }
    }
}

/// The task, if it waits for its file.
async fn open_task(state: &AppState, id: TaskId) -> ApiResult<Task> {
    let task = state.store.task_of_link(id).await?.ok_or_else(ApiError::not_found)?;
    if operations::find(&task.operation).is_none_or(|entry| entry.feed != Feed::Client) {
        return Err(ApiError::not_found());
    }
    if task.state != TaskState::Uploading {
        return Err(closed());
    }
    if state.clock.now() >= form::expires_at(&task) {
        return Err(ApiError::new(Code::LinkInvalid, "The form has expired; make a new import/upload task."));
    }
    Ok(task)
}

async fn take(state: &AppState, task: &Task, boundary: &str, body: Body) -> ApiResult<Response> {
    let mut parts = Parts::new(quiet_ends(body, state.config.transfer.idle_timeout.0), boundary);
    let head = match fields(&mut parts, task, state).await {
        Ok(head) => head,
        Err(error) => {
            skip(parts).await;
            return Err(error);
        }
    };
    // Read once, and before the file is taken: a file that is taken is not answered with an error.
    let payload = include::payload(state, task.id).await?.unwrap_or_default();
    let token = Token::random();
    let file = keep(state, task, token, &payload, head, parts).await?;
    connectors::fail_point!("upload.kept");
    match state.store.finish_upload(task.id, &file, state.clock.now()).await? {
        Applied::Done => connectors::fail_point!("upload.finished"),
        Applied::Stale if is_kept(state, task, token).await? => {}
        Applied::Stale => {
            // Somebody else was first, or the task is gone: nobody will ever ask for these bytes.
            state.files.remove_attempt(task.id, token).await?;
            return Err(closed());
        }
    }
    state.metrics.upload_bytes.inc_by(file.size);
    Ok(answer(state, task, &payload, &file))
}

/// Whether the task has the file of this upload: the answer to its end was lost, and then it was told as stale.
async fn is_kept(state: &AppState, task: &Task, token: Token) -> ApiResult<bool> {
    let tasks = state.store.blobs(&[task.id]).await?;
    Ok(tasks.iter().flat_map(|(_, _, blobs)| blobs).any(|blob| blob.is_of(task.id, token)))
}

/// Reads the fields before the file and checks them.
async fn fields(parts: &mut Incoming, task: &Task, state: &AppState) -> ApiResult<Head> {
    let mut posted = BTreeMap::new();
    let mut fields = 0;
    while let Some(head) = parts.next().await.map_err(malformed)? {
        if head.name == "file" {
            if !form::is_genuine(&state.vault, task, &posted) {
                let message =
                    "The fields are not those of this task's form; post all of them, unchanged, before the file.";
                return Err(ApiError::new(Code::LinkInvalid, message));
            }
            return Ok(head);
        }
        fields += 1;
        if fields > FIELDS_MAX {
            return Err(ApiError::new(Code::BadRequest, "The form has too many fields."));
        }
        let mut value = Vec::new();
        while let Some(bytes) = parts.data().await.map_err(malformed)? {
            value.extend_from_slice(&bytes);
            if value.len() > FIELD_BYTES_MAX {
                return Err(ApiError::new(Code::BadRequest, "A field of the form is too long."));
            }
        }
        posted.insert(head.name, String::from_utf8_lossy(&value).into_owned());
    }
    Err(ApiError::new(Code::BadRequest, "The form has no part called file."))
}

async fn keep(
    state: &AppState,
    task: &Task,
    token: Token,
    payload: &RawArgs,
    head: Head,
    parts: Incoming,
) -> ApiResult<File> {
    let wanted = payload.get("filename").and_then(|name| name.as_str()).filter(|name| !name.is_empty());
    let name = crate::files::name::safe(wanted.or(head.filename.as_deref()).unwrap_or("file"));
    let content_type = crate::files::name::content_type(&name);
    let blob = BlobKey::new(task.id, token, 1);
    let limit = state.config.limits.file_bytes_max.as_u64();
    let stream: ByteStream = Box::pin(stream::try_unfold(parts, async |mut parts| {
        let broken = |error: Malformed| Error::new(Kind::Unreachable, "receive", error.to_string());
        let bytes = parts.data().await.map_err(broken)?;
        Ok(bytes.map(|bytes| (bytes, parts)))
    }));
    let received = state.files.receive(&blob, stream, None, limit, &Progress::default()).await?;
    Ok(File {
        name,
        size: received.size,
        digests: received.digests,
        content_type,
        blob: Some(blob),
        download: None,
        receipt: None,
    })
}

fn answer(state: &AppState, task: &Task, payload: &RawArgs, file: &File) -> Response {
    let etag = format!("\"{}\"", hex::encode(file.mark()));
    let place = format!("{}/upload/{}/{}", state.public_url, task.id, link::segment(&file.name));
    let redirect = payload.get("redirect").and_then(|target| target.as_str()).and_then(redirect_target);
    let mut response = if redirect.is_some() {
        let mut response = super::body::no_content();
        *response.status_mut() = StatusCode::SEE_OTHER;
        response
    } else {
        let body = xml(&form::key(task.id, &file.name), &etag, &place);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::CREATED;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        response
    };
    if let Some(target) = redirect.or_else(|| HeaderValue::try_from(place).ok()) {
        response.headers_mut().insert(header::LOCATION, target);
    }
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// Where to send the browser. The file is taken by now, so that what is no web address is ignored, not refused; what
/// may not stand in a header is percent-encoded, as browsers do.
fn redirect_target(text: &str) -> Option<HeaderValue> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    HeaderValue::try_from(String::from(url)).ok()
}

/// What an S3 store answers.
fn xml(key: &str, etag: &str, place: &str) -> String {
    let (key, etag, place) = (escaped(key), escaped(etag), escaped(place));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<PostResponse><Bucket>{}</Bucket><Key>{key}</Key>\
         <ETag>{etag}</ETag><Location>{place}</Location></PostResponse>",
        form::BUCKET,
    )
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&#34;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// The bytes of a body; it ends in an error when none came for too long.
fn quiet_ends(
    body: Body,
    idle: Duration,
) -> Pin<Box<dyn futures_util::Stream<Item = Result<Bytes, axum::Error>> + Send>> {
    Box::pin(stream::unfold(body.into_data_stream(), move |mut body| async move {
        match tokio::time::timeout(idle, body.next()).await {
            Ok(Some(item)) => Some((item, body)),
            Ok(None) => None,
            Err(elapsed) => Some((Err(axum::Error::new(elapsed)), body)),
        }
    }))
}

/// Reads a little more of a refused form, so that the client sees the answer.
async fn skip(mut parts: Incoming) {
    let reading = async {
        let mut left: usize = 4 * 1024 * 1024;
        while left > 0 {
            match parts.data().await {
                Ok(Some(bytes)) => left = left.saturating_sub(bytes.len()),
                Ok(None) => match parts.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                },
                Err(_) => break,
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
}

fn closed() -> ApiError {
    ApiError::new(Code::UploadClosed, "The task has its file already, or is no longer waiting for one.")
}

fn too_large(limit: u64) -> ApiError {
    ApiError::new(Code::PayloadTooLarge, format!("The file is larger than the {limit} bytes allowed."))
}

fn malformed(error: Malformed) -> ApiError {
    ApiError::new(Code::BadRequest, format!("The form cannot be read: {error}.")).because(error)
}
