//! A file to an address that somebody has prepared for it: one `PUT`, and as a whole again after a transient fault.
//!
//! Redirects that keep method and body (307, 308) are followed. Headers of the caller are secrets, as for downloads:
//! they go to the origin that they were meant for and to no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use url::Url;

use super::{AGENT, REDIRECTS_MAX, Target, Web, disposition, read_url, shown};
use crate::error::{Error, Kind, ProviderAnswer, Result, Retry, covered};
use crate::http::{Answer, Body, Reply, header};
use crate::retry;
use crate::secret::Secret;
use crate::source::{self, Digests, Source};
use crate::transfer::{Progress, Receipt};
use crate::xml::{ErrorBody, read_error};

/// What an error says was being done.
const ACTION: &str = "uploading the file";
/// What is read of the source at once.
const CHUNK_BYTES: u64 = 512 * 1024;
/// Chunks that are read ahead of the connection.
const CHUNKS_AHEAD: usize = 2;

/// A file, and where it is to go.
#[derive(Debug)]
pub struct Upload<'a> {
    /// `http:` or `https:` address. User info becomes basic authentication.
    pub url: &'a str,
    /// Headers to send along. A `Content-Type` among them is sent instead of the file's own; an empty one lets none be
    /// sent. Those that belong to the connection (`Host`, `Content-Length` and such) are left out.
    pub headers: &'a HeaderMap,
    /// The file's media type.
    pub content_type: &'a str,
    /// The bytes.
    pub source: Arc<dyn Source>,
    /// Counts bytes as they are sent.
    pub progress: Progress,
}

impl Web {
    /// Sends a file with `PUT` and tells what the answer proves: `crc32c`, `sha256` or `md5` when it repeats that
    /// digest of the bytes, else `status`, which is its word for it alone.
    ///
    /// # Errors
    /// Those of [`Client::send`](crate::http::Client::send); [`Kind::InvalidRequest`] for what is no `http:` or
    /// `https:` address; [`Kind::IntegrityMismatch`] when the answer tells another digest; by the status of the answer
    /// or the code in it [`Kind::AccessDenied`], [`Kind::InvalidCredentials`], [`Kind::NotFound`],
    /// [`Kind::ContainerNotFound`], [`Kind::TooLarge`], [`Kind::NoSpace`], [`Kind::Throttled`], [`Kind::Unavailable`].
    pub async fn put(&self, upload: &Upload<'_>) -> Result<Receipt> {
        let url = read_url(upload.url).map_err(while_uploading)?;
        let asked = Target::new(url.clone(), upload.headers);
        // Those of the target have user info among them, as basic authentication.
        let secrets = secrets(&url, upload.headers.values().chain(asked.headers.values()));
        // Covered at once: each failed try is logged.
        let once =
            async |_| self.put_once(asked.clone(), upload, &secrets).await.map_err(|error| error.without(&secrets));
        retry::request(self.tries, once).await
    }

    async fn put_once(&self, mut target: Target, upload: &Upload<'_>, secrets: &[Secret]) -> Result<Receipt> {
        let mut secrets = secrets.to_vec();
        for _ in 0..=REDIRECTS_MAX {
            let counted = Arc::<AtomicU64>::default();
            let request = request(&target, upload, &counted)?;
            let answered = self.client.send(request, ACTION).await;
            let received = match answered {
                Ok(response) if response.status().is_success() => receipt(&target, &response, upload).await,
                Ok(response) if matches!(response.status().as_u16(), 307 | 308) => {
                    upload.progress.take_back(counted.swap(0, Ordering::Relaxed));
                    target = target.redirected(&response).map_err(while_uploading)?;
                    // Where it leads may be signed as well.
                    secrets.extend(self::secrets(&target.url, target.headers.values()));
                    continue;
                }
                Ok(response) => Err(refusal(&target, response, &secrets).await),
                Err(error) => Err(error),
            };
            if received.is_err() {
                upload.progress.take_back(counted.swap(0, Ordering::Relaxed));
            }
            return received.map_err(|error| error.without(&secrets));
        }
        Err(Error::new(Kind::Protocol, ACTION, format!("the URL redirects more than {REDIRECTS_MAX} times")))
    }
}

fn while_uploading(mut error: Error) -> Error {
    error.action = ACTION;
    error
}

/// What the other side is told and may repeat: whole, and word by word.
fn secrets<'a>(url: &Url, headers: impl Iterator<Item = &'a HeaderValue>) -> Vec<Secret> {
    let query = url.query().unwrap_or_default();
    let raw = query.split('&').filter_map(|pair| pair.split_once('=').map(|(_, value)| value.to_owned()));
    let plain = url.query_pairs().map(|(_, value)| value.into_owned());
    let users = [url.username(), url.password().unwrap_or_default()];
    let users = users.into_iter().flat_map(|text| [text.to_owned(), decoded(text)]);
    let headers: Vec<String> = headers.map(|value| disposition::text(value.as_bytes())).collect();
    let words = headers.iter().filter_map(|text| text.split_once(' ').map(|(_, token)| token.to_owned()));
    let texts = std::iter::once(query.to_owned()).chain(raw).chain(plain).chain(users).chain(words);
    texts.chain(headers.iter().cloned()).map(Secret::new).collect()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

fn request(target: &Target, upload: &Upload<'_>, counted: &Arc<AtomicU64>) -> Result<http::Request<Body>> {
    let size = upload.source.size();
    let mut request = http::Request::builder().method(Method::PUT).uri(target.url.as_str()).body(()).map_err(|_| {
        let detail = "the URL cannot be used: it is too long or its host is malformed";
        Error::new(Kind::InvalidRequest, ACTION, detail)
    })?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Ok(own) = HeaderValue::from_str(upload.content_type) {
        headers.insert(CONTENT_TYPE, own);
    }
    for name in target.headers.keys() {
        headers.remove(name);
    }
    for (name, value) in &target.headers {
        headers.append(name, value.clone());
    }
    if headers.get(CONTENT_TYPE).is_some_and(HeaderValue::is_empty) {
        headers.remove(CONTENT_TYPE);
    }
    // The library leaves a length of 0 out, and servers insist on it.
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    let body = if size == 0 { Body::empty() } else { Body::stream(size, bytes(upload, counted)) };
    Ok(request.map(|()| body))
}

/// All bytes of the source, counted when they are handed to the connection.
fn bytes(upload: &Upload<'_>, counted: &Arc<AtomicU64>) -> crate::ByteStream {
    let (source, size) = (Arc::clone(&upload.source), upload.source.size());
    let (progress, counted) = (upload.progress.clone(), Arc::clone(counted));
    let pieces = (0..size).step_by(usize::try_from(CHUNK_BYTES).unwrap_or(usize::MAX));
    let read = move |offset: u64| {
        let source = Arc::clone(&source);
        let length = usize::try_from(CHUNK_BYTES.min(size - offset)).unwrap_or(usize::MAX);
        async move { source.read_at(offset, length).await }
    };
    let read = stream::iter(pieces).map(read).buffered(CHUNKS_AHEAD);
    read.inspect_ok(move |chunk| {
        counted.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        progress.add(chunk.len() as u64);
    })
    .boxed()
}

async fn receipt(target: &Target, response: &http::Response<Answer>, upload: &Upload<'_>) -> Result<Receipt> {
    let headers = response.headers();
    let mut digests = upload.source.digests();
    if names_md5(headers) {
        digests.md5 = Some(source::md5(&upload.source).await?);
    }
    let text = |name: &str| header(headers, name);
    let version = ["x-amz-version-id", "x-goog-generation", "x-ms-version-id"].into_iter().find_map(text);
    Ok(Receipt {
        location: shown(&target.url),
        etag: text(ETAG.as_str()).map(|etag| etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty()),
        version: version.filter(|version| *version != "null").map(str::to_owned),
        verified: verified(headers, &digests)?.to_owned(),
        ..Receipt::default()
    })
}

/// Compares what the answer tells of the bytes with the bytes: the strongest proof first.
///
/// # Source
/// Amazon S3 API Reference, `PutObject`; Google Cloud Storage XML API, `x-goog-hash`; Azure, `Put Blob` (`Content-MD5`);
/// OpenStack Swift API, "Create or replace object" (`ETag`).
fn verified(headers: &HeaderMap, digests: &Digests) -> Result<&'static str> {
    let text = |name: &str| header(headers, name).map(str::trim);
    let google: Vec<&str> = headers
        .get_all("x-goog-hash")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .collect();
    let google = |name: &str| google.iter().find_map(|hash| hash.trim().strip_prefix(name)?.strip_prefix('='));
    let crc32c = BASE64.encode(digests.crc32c.to_be_bytes());
    let md5 = digests.md5.map(|md5| BASE64.encode(md5)).unwrap_or_default();
    for (told, expected, name) in [
        (text("x-amz-checksum-crc32c").or(google("crc32c")), crc32c, "crc32c"),
        (text("x-amz-checksum-sha256"), BASE64.encode(digests.sha256), "sha256"),
        (text("content-md5").or(google("md5")), md5, "md5"),
    ] {
        match told {
            Some(told) if told == expected => return Ok(name),
            Some(_) => return Err(mismatch()),
            None => {}
        }
    }
    // An `ETag` is whatever the server likes; where it is known to be an MD5, another one is a fault.
    let etag = text("etag").map(|etag| etag.trim_matches('"').to_ascii_lowercase()).unwrap_or_default();
    if digests.md5.is_some_and(|md5| etag == hex::encode(md5)) {
        return Ok("md5");
    }
    let is_md5_there =
        ["x-amz-request-id", "x-trans-id", "x-openstack-request-id"].into_iter().any(|it| text(it).is_some());
    let is_encrypted = text("x-amz-server-side-encryption-customer-algorithm").is_some()
        || text("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"));
    if is_md5_there && looks_like_md5(&etag) && !is_encrypted { Err(mismatch()) } else { Ok("status") }
}

/// Whether an answer may tell an MD5 that is to be compared, and nothing stronger, which would be compared before it.
fn names_md5(headers: &HeaderMap) -> bool {
    let names = |header: &str| headers.contains_key(header);
    let hashes = headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
    let is_crc32c = hashes.flat_map(|value| value.split(',')).any(|hash| hash.trim().starts_with("crc32c="));
    if is_crc32c || names("x-amz-checksum-crc32c") || names("x-amz-checksum-sha256") {
        return false;
    }
    let etag = header(headers, ETAG.as_str()).unwrap_or_default();
    names("content-md5") || names("x-goog-hash") || looks_like_md5(etag.trim().trim_matches('"'))
}

fn looks_like_md5(etag: &str) -> bool {
    etag.len() == 32 && etag.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn mismatch() -> Error {
    Error::new(Kind::IntegrityMismatch, ACTION, "the bytes did not arrive as they were sent")
}

/// Makes an error of an answer that is no success.
async fn refusal(target: &Target, response: http::Response<Answer>, secrets: &[Secret]) -> Error {
    let reply = Reply::refused(response).await;
    let fit = |text: &str| Some(covered(text, secrets)).filter(|text| !text.is_empty());
    let said = read_error(&reply.body).unwrap_or_default();
    let code = said.code.as_deref().or_else(|| reply.header("x-ms-error-code"));
    let ids = ["x-amz-request-id", "x-ms-request-id", "x-guploader-uploadid", "x-trans-id", "x-request-id"];
    let request_id = ids.into_iter().find_map(|name| reply.header(name)).or(said.request_id.as_deref()).and_then(fit);
    let place = reply.header(LOCATION.as_str()).and_then(|place| target.url.join(place).ok()).map(|url| shown(&url));
    let (kind, advice) = code
        .and_then(|code| by_code(code, &said, target))
        .unwrap_or_else(|| by_status(reply.status, place.as_deref(), target));
    let words = said.message.as_deref().and_then(fit).map(|words| format!(": {words}")).unwrap_or_default();
    let retry = match kind.retry() {
        Retry::Later(_) => Retry::Later(retry::after(&reply.headers)),
        Retry::Never => Retry::Never,
    };
    let answer = ProviderAnswer { status: Some(reply.status.as_u16()), code: code.and_then(fit), request_id };
    Error::new(kind, ACTION, format!("{advice}{words}")).answered(answer).retrying(retry)
}

/// What a code of S3, Google Cloud Storage or Azure means for a `PUT` to a signed address.
fn by_code(code: &str, said: &ErrorBody, target: &Target) -> Option<(Kind, String)> {
    let is_late = said.message.as_deref().is_some_and(|words| words.to_ascii_lowercase().contains("expired"));
    let (kind, advice) = match code {
        "AccessDenied" | "ExpiredToken" | "RequestExpired" if is_late || code != "AccessDenied" => {
            (Kind::AccessDenied, "the URL has expired; make a new one".to_owned())
        }
        "SignatureDoesNotMatch" | "AuthenticationFailed" => {
            (Kind::InvalidCredentials, format!("the URL's signature does not fit; {}", to_sign(target)))
        }
        "NoSuchBucket" | "ContainerNotFound" => {
            (Kind::ContainerNotFound, "the bucket or container in the URL does not exist".to_owned())
        }
        "EntityTooLarge" | "RequestBodyTooLarge" | "MaxMessageLengthExceeded" => {
            (Kind::TooLarge, "the file is larger than the other side takes".to_owned())
        }
        "BadDigest" | "InvalidDigest" | "Md5Mismatch" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch" => {
            let detail = "the bytes do not fit the checksum in `headers`, or were altered on their way";
            (Kind::IntegrityMismatch, detail.to_owned())
        }
        "MissingRequiredHeader" => {
            let detail = "a header is missing; add it to `headers` (Azure wants `x-ms-blob-type: BlockBlob`)";
            (Kind::InvalidRequest, detail.to_owned())
        }
        "RequestTimeout" | "OperationTimedOut" => (Kind::Timeout, "the other side waited too long".to_owned()),
        "SlowDown" | "ServerBusy" | "TooManyRequests" => {
            (Kind::Throttled, "the other side asks to slow down".to_owned())
        }
        "InternalError" | "ServiceUnavailable" => (Kind::Unavailable, "the other side failed".to_owned()),
        "QuotaExceeded" | "InsufficientStorage" => (Kind::NoSpace, "the other side has no space left".to_owned()),
        _ => return None,
    };
    Some((kind, advice))
}

/// Says what a signature must have been made for, without showing a value.
fn to_sign(target: &Target) -> String {
    let mut names: Vec<&str> = target.headers.keys().map(http::HeaderName::as_str).collect();
    if !names.contains(&CONTENT_TYPE.as_str()) {
        names.push(CONTENT_TYPE.as_str());
    }
    let names = names.join(", ");
    format!("sign it for PUT, and for the headers that are sent with it ({names})")
}

fn by_status(status: StatusCode, place: Option<&str>, target: &Target) -> (Kind, String) {
    let advice = format!("it may have expired, or its signature does not fit: {}", to_sign(target));
    let advice = advice.as_str();
    let (kind, advice) = match status.as_u16() {
        300..=399 => {
            let place = place.unwrap_or("somewhere else");
            let detail = format!("the URL answers {status} and leads to {place}; a PUT follows 307 and 308 only");
            return (Kind::Protocol, format!("{detail}, so give the final URL"));
        }
        401 => (Kind::InvalidCredentials, advice),
        403 => (Kind::AccessDenied, advice),
        404 | 410 => (Kind::NotFound, "check that the place in the URL exists"),
        405 | 501 => (Kind::Unsupported, "it does not take PUT"),
        408 => (Kind::Timeout, "it waited too long"),
        412 => (Kind::InvalidRequest, "a condition in `headers` does not hold"),
        413 => (Kind::TooLarge, "the file is larger than it takes"),
        425 | 429 => (Kind::Throttled, "it asks for fewer requests"),
        507 => (Kind::NoSpace, "it has no space left"),
        500.. => (Kind::Unavailable, "the server behind it has a problem"),
        _ => (Kind::InvalidRequest, "check the URL and `headers`"),
    };
    (kind, format!("the URL answers {status}; {advice}"))
}

#[cfg(test)]
mod tests;
