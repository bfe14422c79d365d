//! Everything that is not an upload: looking, reading, listing, deleting, aborting.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, ETAG, IF_MATCH, RANGE};
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::service::Call;
use super::xml::{self, Listed, ListedUpload, ObjectPage, UploadPage};
use super::{ABORT, DELETE, LIST, LIST_PARTS, LIST_UPLOADS, READ, S3, STAT, checksum, errors};
use crate::clock;
use crate::download::{Described, changed};
use crate::error::{Error, Kind, Result};
use crate::listing::Pages;
use crate::retry;
use crate::source::ByteStream;
use crate::transfer::{Object, OpenUpload};

/// Keys in one page of a listing; more than 1,000 no service gives.
const PAGE_KEYS_MAX: usize = 1000;
/// Open uploads that are listed.
const UPLOADS_MAX: usize = 10_000;
/// How often an abort is repeated for parts that were still arriving when it ran.
const ABORTS_MAX: u32 = 5;
/// The pause between two of them.
const ABORT_PAUSE: Duration = Duration::from_secs(1);
/// How often uploads whose ids nobody heard are searched for: the request that opens one may still be at work.
const SEARCHES: u32 = 2;

/// An upload that is open at the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenAtService {
    /// Key that the object will have.
    pub key: String,
    /// The service's id of it.
    pub upload_id: String,
    /// How long ago it was opened, by the service's own clock, where it tells.
    pub age: Option<Duration>,
}

impl S3 {
    pub(super) async fn head(&self, key: &str) -> Result<Object> {
        Ok(self.look(key).await?.object)
    }

    /// Looks at an object; the listing knows neither its media type nor how it is encrypted.
    pub(super) async fn look(&self, key: &str) -> Result<Described> {
        let mut call = Call::new(STAT, Method::HEAD, Some(key));
        call.headers.insert("x-amz-checksum-mode", HeaderValue::from_static("ENABLED"));
        let reply = match self.service.call(&call).await {
            Ok(reply) => reply,
            Err(error) => return Err(self.in_words(key, error).await),
        };
        let size = reply.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let object = Object {
            name: key.to_owned(),
            size: size.ok_or_else(|| Error::new(Kind::Protocol, STAT, "the answer names no length"))?,
            etag: reply.header(ETAG.as_str()).map(unquoted),
            content_type: reply.header(CONTENT_TYPE.as_str()).map(str::to_owned),
        };
        Ok(Described { object, digest: checksum::of_whole(&reply.headers, self.service.bucket()) })
    }

    /// Lets the service say in words why it refused: the answer to `HEAD` has no body, and `404` alone does not tell a
    /// missing bucket from a missing object.
    async fn in_words(&self, key: &str, error: Error) -> Error {
        if error.is_transient() || !errors::code(&error).is_empty() || errors::status(&error) == 0 {
            return error;
        }
        let mut call = Call::new(STAT, Method::GET, Some(key));
        call.headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        match self.service.open(&call).await {
            Err(told) if !told.is_transient() => told,
            Ok(_) | Err(_) => error,
        }
    }

    /// Reads a range, of just the version with this mark where one is given.
    pub(super) async fn get(&self, key: &str, range: Range<u64>, etag: Option<&str>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let mut call = Call::new(READ, Method::GET, Some(key));
        let value = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
        call.headers.insert(RANGE, value.expect("digits make a header"));
        // A weak mark never matches.
        let mark = etag.filter(|etag| !etag.starts_with("W/"));
        if let Some(mark) = mark.and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok()) {
            call.headers.insert(IF_MATCH, mark);
        }
        let opened = retry::request(self.service.limits.tries, |_| self.service.open(&call)).await;
        let response = opened.map_err(|error| if errors::status(&error) == 412 { changed(key) } else { error })?;
        let length = response.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
        let is_whole = response.status() == StatusCode::OK && range.start == 0;
        let is_right = response.status() == StatusCode::PARTIAL_CONTENT || is_whole;
        if !is_right || length != Some(range.end - range.start) {
            return Err(Error::new(Kind::Protocol, READ, "the service answered with another range than asked for"));
        }
        Ok(response.into_body().stream())
    }

    pub(super) async fn objects(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        let mut pages: Pages<String> = Pages::new();
        loop {
            let page_keys = (limit - found.len()).saturating_add(1).min(PAGE_KEYS_MAX);
            let mut call = Call::new(LIST, Method::GET, None)
                .query("encoding-type", "url")
                .query("list-type", "2")
                .query("max-keys", page_keys.to_string())
                .query("prefix", prefix);
            if let Some(token) = pages.mark() {
                call = call.query("continuation-token", token);
            }
            let reply = self.service.call(&call).await?;
            let page: ObjectPage = xml::read(LIST, &reply.body)?;
            let is_encoded = page.encoding_type.as_deref() == Some("url");
            let is_empty = page.contents.is_empty();
            for Listed { key, size, etag } in page.contents {
                let name = decoded(key, is_encoded)?;
                found.push(Object { name, size, etag: etag.as_deref().map(unquoted), content_type: None });
            }
            if found.len() > limit {
                let detail = format!("there are more than {limit} objects under `{prefix}`");
                return Err(Error::new(Kind::TooMany, LIST, detail));
            }
            if !page.is_truncated {
                break;
            }
            let next = page.next_continuation_token;
            if !pages.turn(LIST, is_empty, next)? {
                return Err(Error::new(Kind::Protocol, LIST, "the listing does not say how to go on"));
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn remove(&self, key: &str) -> Result<()> {
        match self.service.call(&Call::new(DELETE, Method::DELETE, Some(key))).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Aborts what the journal knows of an upload.
    pub(super) async fn abort_open(&self, open: &OpenUpload) -> Result<()> {
        if !open.handle.is_empty() {
            return self.abort_upload(&open.target, &open.handle).await;
        }
        for search in 1..=SEARCHES {
            self.abort_unheard(&open.target, None).await?;
            if search < SEARCHES {
                tokio::time::sleep(ABORT_PAUSE).await;
            }
        }
        Ok(())
    }

    /// Aborts the uploads of exactly this key that have no part, but for `kept`: one of them was opened by a request
    /// whose answer got lost, and nobody can send parts to an upload whose id nobody heard. Somebody else's upload of the
    /// same key is hit only in the moment between its opening and its first part. Where the credentials may not look,
    /// nothing can be done.
    pub(super) async fn abort_unheard(&self, key: &str, kept: Option<&str>) -> Result<()> {
        let found = match self.open_uploads(key).await {
            Ok(found) => found,
            Err(error)
                if matches!(error.kind, Kind::AccessDenied | Kind::Unsupported | Kind::InvalidRequest)
                    || is_gone(&error) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for upload in found.iter().filter(|upload| upload.key == key && Some(upload.upload_id.as_str()) != kept) {
            match self.has_parts(key, &upload.upload_id).await {
                Ok(false) => self.abort_upload(key, &upload.upload_id).await?,
                Ok(true) => {}
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => tracing::debug!(error = %error, "an upload cannot be looked at and stays"),
            }
        }
        Ok(())
    }

    /// Aborts until nothing is left: parts that were on their way may arrive after the first time.
    pub(super) async fn abort_upload(&self, key: &str, upload_id: &str) -> Result<()> {
        let abort = Call::new(ABORT, Method::DELETE, Some(key)).query("uploadId", upload_id);
        for round in 1..=ABORTS_MAX {
            match self.service.call(&abort).await {
                Ok(_) => {}
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
            match self.has_parts(key, upload_id).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Where one may not look, or the service has no such listing, the abort's own answer must do.
                Err(error) if !error.is_transient() => return Ok(()),
                Err(error) => return Err(error),
            }
            if round < ABORTS_MAX {
                tokio::time::sleep(ABORT_PAUSE).await;
            }
        }
        Err(Error::new(Kind::Unavailable, ABORT, "the service keeps parts of an upload that was aborted"))
    }

    /// Whether an upload is open and holds a part.
    pub(super) async fn has_parts(&self, key: &str, upload_id: &str) -> Result<bool> {
        let call = Call::new(LIST_PARTS, Method::GET, Some(key)).query("max-parts", "1").query("uploadId", upload_id);
        match self.service.call(&call).await {
            Ok(reply) => Ok(!xml::read::<xml::PartPage>(LIST_PARTS, &reply.body)?.parts.is_empty()),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the uploads that are open under `prefix`.
    ///
    /// # Errors
    /// [`Kind::AccessDenied`] without `s3:ListBucketMultipartUploads`, [`Kind::TooMany`] when there are more than
    /// 10,000, and the transport's.
    pub async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenAtService>> {
        match self.some_open_uploads(prefix).await? {
            (found, true) => Ok(found),
            (_, false) => Err(Error::new(Kind::TooMany, LIST_UPLOADS, "there are more than 10,000 open uploads")),
        }
    }

    /// Lists the first uploads that are open under `prefix`, and tells whether they are all.
    pub(super) async fn some_open_uploads(&self, prefix: &str) -> Result<(Vec<OpenAtService>, bool)> {
        let mut found = Vec::new();
        let mut pages: Pages<(String, String)> = Pages::new();
        loop {
            let mut call = Call::new(LIST_UPLOADS, Method::GET, None)
                .query("encoding-type", "url")
                .query("prefix", prefix)
                .query("uploads", "");
            if let Some((key, upload_id)) = pages.mark() {
                call = call.query("key-marker", key).query("upload-id-marker", upload_id);
            }
            let reply = self.service.call(&call).await?;
            let now = retry::date(&reply.headers, &DATE).unwrap_or_else(clock::now);
            let page: UploadPage = xml::read(LIST_UPLOADS, &reply.body)?;
            let is_encoded = page.encoding_type.as_deref() == Some("url");
            let is_empty = page.uploads.is_empty();
            for ListedUpload { key, upload_id, initiated } in page.uploads {
                let age = initiated.and_then(|text| age(&text, now));
                // Ceph encodes the keys, as it was asked to, and does not say so.
                let key = decoded(key.clone(), is_encoded || !key.starts_with(prefix))?;
                found.push(OpenAtService { key, upload_id, age });
            }
            if !page.is_truncated {
                return Ok((found, true));
            }
            if found.len() >= UPLOADS_MAX {
                return Ok((found, false));
            }
            let key = decoded(page.next_key_marker.unwrap_or_default(), is_encoded)?;
            let next = (key, page.next_upload_id_marker.unwrap_or_default());
            pages.turn(LIST_UPLOADS, is_empty, Some(next))?;
        }
    }
}

/// How long ago a moment of a listing was.
fn age(text: &str, now: SystemTime) -> Option<Duration> {
    let then = SystemTime::from(OffsetDateTime::parse(text.trim(), &Rfc3339).ok()?);
    Some(now.duration_since(then).unwrap_or_default())
}

/// Whether an upload is no longer open, or never was.
pub(super) fn is_gone(error: &Error) -> bool {
    match errors::code(error) {
        "NoSuchUpload" | "NoSuchBucket" => true,
        "" | "NoSuchKey" | "NotFound" => error.kind == Kind::NotFound,
        _ => false,
    }
}

/// An `ETag` without its quotes.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// A key out of a listing. With `encoding-type=url`, a blank is `+` or `%20`, and a plus always `%2B`.
pub(super) fn decoded(key: String, is_encoded: bool) -> Result<String> {
    if !is_encoded {
        return Ok(key);
    }
    let blanks = key.replace('+', " ");
    let text = percent_decode_str(&blanks).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|error| Error::new(Kind::Protocol, LIST, "a key of the listing is not UTF-8").because(error))
}
