//! `GET /s/{id}?job=…&cache_key=…&s=…`: runs the job that a signed address carries and sends the client to its file.
//!
//! The address was signed by somebody who has the secret; whoever holds the address may have the job run, and can change
//! nothing in it. The signature covers everything before `&s=` as the client wrote it, scheme and host included.

use aws_lc_rs::hmac;
use axum::Extension;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::body::View;
use super::error::sealed_with_another_key;
use super::extract::Id;
use super::limits::Allowance;
use super::rewrite::Arrived;
use super::state::AppState;
use super::v2::jobs;
use super::{plan, upload, wait};
use crate::error::{ApiError, ApiResult, Code, Faults};
use crate::id::{JobId, KeyId, SignedUrlId};
use crate::model::{Job, Origin, SignedUrl, WireStatus};
use crate::store::{Creation, NewJob};

/// Longest cache key, in characters.
const CACHE_KEY_MAX: usize = 255;
/// Clients differ in whether they leave the padding.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// Answers 302 to the first file of the job, once it has ended.
///
/// # Errors
/// `NOT_FOUND`, `LINK_INVALID`, `INVALID_DATA`, `TOO_MANY_REQUESTS`, `JOB_FAILED`, `WAIT_TIMEOUT`.
pub(super) async fn handler(
    State(state): State<AppState>,
    view: View,
    Id(id): Id<SignedUrlId>,
    arrived: Option<Extension<Arrived>>,
    uri: Uri,
) -> Response {
    let arrived = arrived.map(|Extension(arrived)| arrived);
    let answer = run(&state, &view, id, arrived.as_ref(), uri.query().unwrap_or_default());
    let mut response = answer.await.unwrap_or_else(ApiError::into_response);
    upload::allow_any_origin(response.headers_mut());
    response
}

async fn run(
    state: &AppState,
    view: &View,
    id: SignedUrlId,
    arrived: Option<&Arrived>,
    query: &str,
) -> ApiResult<Response> {
    let invalid = || ApiError::new(Code::LinkInvalid, "The signature of this URL is not right; sign it anew.");
    let url = state.store.signed_url(id).await?.ok_or_else(ApiError::not_found)?;
    if url.revoked_at.is_some() {
        return Err(ApiError::new(Code::LinkInvalid, "This signed URL was revoked; ask for a new one."));
    }
    let (signed, signature) = query.split_once("&s=").ok_or_else(invalid)?;
    let signature = signature.split('&').next().unwrap_or_default();
    let secret = state.vault.open(&url.secret).map_err(sealed_with_another_key)?;
    let own = format!("{}/s/{id}", state.public_url);
    let bases = std::iter::once(own).chain(arrived.into_iter().flat_map(Arrived::addresses));
    if !bases.into_iter().any(|base| is_genuine(&secret, &format!("{base}?{signed}"), signature)) {
        return Err(invalid());
    }
    let job = job(state, &url, signed).await?;
    let job = wait::for_job(state, url.user_id, job).await?;
    if job.status == WireStatus::Error {
        return Err(ApiError::new(Code::JobFailed, failure(&job)));
    }
    Ok(jobs::answer(view, StatusCode::OK, &job, true))
}

/// Checks a signature, lower-case hex of HMAC-SHA256, in constant time.
fn is_genuine(secret: &[u8], text: &str, signature: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hex::decode(signature).is_ok_and(|tag| hmac::verify(&key, text.as_bytes(), &tag).is_ok())
}

/// The job to wait for: one that is kept for the cache key, or a new one.
async fn job(state: &AppState, url: &SignedUrl, signed: &str) -> ApiResult<JobId> {
    let mut faults = Faults::default();
    let cache_key = value(signed, "cache_key").filter(|key| !key.is_empty());
    let is_word = |key: &String| {
        key.len() <= CACHE_KEY_MAX && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if !cache_key.as_ref().is_none_or(is_word) {
        faults.add("cache_key", "The cache_key may have letters, digits, `-` and `_`, and 255 of them at the most.");
    }
    faults.into_result()?;
    if let Some(key) = &cache_key
        && let Some(job) = state.store.signed_result(url.id, key, state.clock.now()).await?
    {
        return Ok(job);
    }
    if let Allowance::Wait(pause) = state.limiter.take(KeyId(url.id.0), state.clock.now()) {
        let message = "Too many jobs were created with this signed URL; wait as long as Retry-After says.";
        return Err(ApiError::new(Code::TooManyRequests, message).after(pause));
    }
    let planned = plan::job(state, url.user_id, Origin::NoKey, read(value(signed, "job").as_deref())?).await?;
    let has = |name: &str| planned.job.tasks.iter().any(|task| task.operation == name);
    let mut faults = Faults::default();
    if !has("export/url") {
        faults.add("tasks", "The job of a signed URL needs an export/url task: its file is the answer.");
    }
    if has("import/upload") {
        faults.add("tasks", "The job of a signed URL cannot wait for an upload; use import/url.");
    }
    faults.into_result()?;
    let (id, new) = (planned.job.id, NewJob { job: planned.job, payloads: planned.payloads, idempotency: None });
    let made = match &cache_key {
        Some(key) => state.store.create_signed_job(new, url.id, key).await?,
        None => (state.store.create_job(new).await? == Creation::Created).then_some(id),
    };
    connectors::fail_point!("signed.created");
    made.ok_or_else(|| {
        let mut faults = Faults::default();
        faults.add("tasks", "A task that is named as input is not there any more.");
        ApiError::invalid(faults)
    })
}

/// A value of the query; a plus sign stays one, for base64 has them.
fn value(query: &str, name: &str) -> Option<String> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    percent_decode_str(raw).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Reads the job. Clients use either alphabet of base64, or both in one text, with padding or without.
fn read(text: Option<&str>) -> ApiResult<Map<String, Value>> {
    let text = text.unwrap_or_default().replace('+', "-").replace('/', "_");
    let bytes = GeneralPurpose::new(&URL_SAFE, LENIENT).decode(text).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(|| {
        let mut faults = Faults::default();
        faults.add("job", "The job must be a JSON object in base64.");
        ApiError::invalid(faults)
    })
}

/// What is told of a failed job: the first error that is not a consequence of another.
fn failure(job: &Job) -> String {
    let failed = || job.tasks.iter().filter(|task| task.code.is_some());
    let consequence = Some(Code::InputTaskFailed.wire());
    let root = failed().find(|task| task.code.as_deref() != consequence).or_else(|| failed().next());
    let Some(task) = root else { return "The job failed.".to_owned() };
    let (code, message) = (task.code.as_deref().unwrap_or_default(), task.message.as_deref().unwrap_or_default());
    format!("The job failed in {} with {code}: {message}", task.operation)
}
