//! Everything that is not an upload: looking, reading, listing, deleting.

use std::ops::Range;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RANGE};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::service::Call;
use super::upload::unquoted;
use super::{DELETE, LIST, READ, REMOVE_SEGMENTS, STAT, STAT_CONTAINER, Swift};
use crate::download::{Described, WholeDigest};
use crate::error::{Error, Kind, Result};
use crate::http::{Body, Reply};
use crate::retry;
use crate::source::ByteStream;
use crate::transfer::Object;

/// Names in one page of a listing; Swift gives 10,000, but may be told to give less, and refuses to be asked for more.
const PAGE_NAMES_MAX: usize = 1000;
/// Segments that are listed for one object; a manifest has 1,000.
const SEGMENTS_MAX: usize = 10_000;

/// An object in a listing.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    bytes: u64,
    hash: Option<String>,
    /// The `ETag` of a static large object; `hash` is then that of its manifest.
    slo_etag: Option<String>,
    content_type: Option<String>,
}

/// What the store says of a deletion of many.
#[derive(Debug, Deserialize)]
struct Deleted {
    #[serde(rename = "Response Status")]
    status: String,
    #[serde(rename = "Errors", default)]
    errors: Vec<(String, String)>,
}

impl Swift {
    pub(super) async fn head(&self, name: &str) -> Result<Object> {
        object(name, &self.look(name).await?)
    }

    /// The object with its MD5, which its `ETag` is unless it is made of segments.
    ///
    /// # Source
    /// OpenStack Object Storage API, "Show object metadata": `ETag`, `X-Static-Large-Object`, `X-Object-Manifest`.
    pub(super) async fn with_digest(&self, name: &str) -> Result<Described> {
        let reply = self.look(name).await?;
        let object = object(name, &reply)?;
        let is_segmented = reply.says_true("x-static-large-object") || reply.header("x-object-manifest").is_some();
        let md5 = object.etag.as_deref().filter(|_| !is_segmented).and_then(as_md5);
        Ok(Described { object, digest: md5.map(WholeDigest::Md5) })
    }

    async fn look(&self, name: &str) -> Result<Reply> {
        let call = Call::new(STAT, Method::HEAD, self.service.container(), Some(name));
        match self.service.call(&call).await {
            Err(error) if error.kind == Kind::NotFound => Err(self.what_is_missing(error).await),
            answer => answer,
        }
    }

    /// Swift says the same of a missing object and of one in a missing container.
    async fn what_is_missing(&self, error: Error) -> Error {
        let call = Call::new(STAT_CONTAINER, Method::HEAD, self.service.container(), None);
        match self.service.call(&call).await {
            Err(container) if container.kind == Kind::ContainerNotFound => container,
            Ok(_) | Err(_) => error,
        }
    }

    pub(super) async fn get(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let value = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
        let call = Call::new(READ, Method::GET, self.service.container(), Some(name))
            .header(RANGE, value.expect("digits make a header"));
        let opened = retry::request(self.service.limits.tries, |_| self.service.open(&call, &Body::empty)).await;
        let response = match opened {
            Err(error) if error.kind == Kind::NotFound => return Err(self.what_is_missing(error).await),
            opened => opened?,
        };
        let length = response.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
        let is_whole = response.status() == StatusCode::OK && range.start == 0;
        let is_right = response.status() == StatusCode::PARTIAL_CONTENT || is_whole;
        if !is_right || length != Some(range.end - range.start) {
            return Err(Error::new(Kind::Protocol, READ, "the store answered with another range than asked for"));
        }
        Ok(response.into_body().stream())
    }

    pub(super) async fn objects(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        self.listed(LIST, self.service.container(), prefix, limit).await
    }

    /// Names of the segments under a prefix.
    pub(super) async fn names_under(&self, prefix: &str) -> Result<Vec<String>> {
        let found = self.listed(REMOVE_SEGMENTS, self.service.segment_container(), prefix, SEGMENTS_MAX).await?;
        Ok(found.into_iter().map(|object| object.name).collect())
    }

    async fn listed(&self, action: &'static str, container: &str, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        let mut found: Vec<Object> = Vec::new();
        loop {
            let page_names = (limit - found.len()).saturating_add(1).min(PAGE_NAMES_MAX);
            let mut call = Call::new(action, Method::GET, container, None)
                .query("format", "json")
                .query("limit", &page_names.to_string())
                .query("prefix", prefix)
                .header(ACCEPT, HeaderValue::from_static("application/json"));
            if let Some(last) = found.last() {
                call = call.query("marker", &last.name);
            }
            let reply = self.service.call(&call).await?;
            // An empty page may be an answer without a body.
            let page: Vec<Listed> = if reply.body.is_empty() { Vec::new() } else { read(action, &reply.body)? };
            if page.is_empty() {
                break;
            }
            if found.last().is_some_and(|last| page.iter().any(|object| object.name <= last.name)) {
                return Err(Error::new(Kind::Protocol, action, "the listing does not go on where it ended"));
            }
            found.extend(page.into_iter().map(|Listed { name, bytes, hash, slo_etag, content_type }| Object {
                name,
                size: bytes,
                etag: slo_etag.or(hash).as_deref().map(unquoted),
                content_type,
            }));
            if found.len() > limit {
                let detail = format!("there are more than {limit} objects under `{prefix}`");
                return Err(Error::new(Kind::TooMany, action, detail));
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Deletes an object, with its segments where it has some.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let is_large = match self.look(name).await {
            Ok(reply) => reply.says_true("x-static-large-object"),
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::ContainerNotFound) => return Ok(()),
            // Who may not look may still delete.
            Err(error) if error.kind == Kind::AccessDenied => false,
            Err(error) => return Err(error),
        };
        let mut call = Call::new(DELETE, Method::DELETE, self.service.container(), Some(name));
        if is_large {
            call =
                call.query("multipart-manifest", "delete").header(ACCEPT, HeaderValue::from_static("application/json"));
        }
        match retry::request(self.service.limits.tries, |_| self.remove_once(&call, is_large)).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            answer => answer,
        }
    }

    async fn remove_once(&self, call: &Call<'_>, is_large: bool) -> Result<()> {
        let reply = self.service.call_once(call, &Body::empty).await?;
        if !is_large {
            return Ok(());
        }
        // The answer begins before the work ends, so a 200 may carry an error, and the reason is that of the first segment.
        let deleted: Deleted = read(DELETE, &reply.body)?;
        let status = |text: &str| text.split(' ').next().and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok());
        let outcome = status(&deleted.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if outcome.is_success() {
            return Ok(());
        }
        let first = deleted.errors.first().and_then(|(_, text)| status(text)).unwrap_or(outcome);
        Err(self.service.error(call, &Reply { status: first, body: Bytes::new(), ..reply }))
    }
}

fn object(name: &str, reply: &Reply) -> Result<Object> {
    let size = reply.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    Ok(Object {
        name: name.to_owned(),
        size: size.ok_or_else(|| Error::new(Kind::Protocol, STAT, "the answer names no length"))?,
        etag: reply.header(ETAG.as_str()).map(unquoted),
        content_type: reply.header(CONTENT_TYPE.as_str()).map(str::to_owned),
    })
}

/// A text that has the form of an MD5.
fn as_md5(etag: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(etag, &mut md5).ok().map(|()| md5)
}

fn read<T: serde::de::DeserializeOwned>(action: &'static str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body)
        .map_err(|error| Error::new(Kind::Protocol, action, "the store's answer cannot be read").because(error))
}
