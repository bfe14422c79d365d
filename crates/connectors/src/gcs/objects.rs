//! Everything that is not an upload: looking, reading, listing, deleting, cancelling.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};
use futures_util::StreamExt as _;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, RANGE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::endpoint::Tree;
use super::errors::is_gone;
use super::service::Service;
use super::upload::State;
use super::{ABORT, DELETE, Gcs, LIST, READ, STAT, checked};
use crate::error::{Error, Kind, Result};
use crate::http::header;
use crate::listing::Pages;
use crate::retry;
use crate::source::ByteStream;
use crate::transfer::{Object, OpenUpload};

/// Names in one page of a listing; more than 1,000 the service does not give.
const PAGE_NAMES_MAX: usize = 1000;

/// What the service tells of an object; numbers come as text.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Resource {
    pub(super) name: String,
    pub(super) size: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) md5_hash: Option<String>,
    pub(super) generation: Option<String>,
    content_type: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Page {
    items: Vec<Resource>,
    next_page_token: Option<String>,
}

impl Resource {
    fn into_object(self, action: &'static str) -> Result<Object> {
        let size = self.size.and_then(|text| text.parse().ok());
        Ok(Object {
            name: self.name,
            size: size.ok_or_else(|| Error::new(Kind::Protocol, action, "the answer names no size"))?,
            etag: self.etag,
            content_type: self.content_type,
        })
    }
}

/// Reads an answer in JSON.
pub(super) fn read<T: serde::de::DeserializeOwned>(action: &'static str, body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| {
        let detail = "the answer is not the JSON of Google Cloud Storage; check `endpoint`";
        Error::new(Kind::Protocol, action, detail).because(error)
    })
}

/// A checksum as the service writes it.
pub(super) fn crc32c_text(crc32c: u32) -> String {
    STANDARD.encode(crc32c.to_be_bytes())
}

impl Gcs {
    pub(super) async fn look(&self, name: &str) -> Result<Object> {
        let query = [("fields", "name,size,etag,contentType")];
        let call = self.service.api(STAT, Method::GET, Tree::Metadata, Some(checked(name, STAT)?), &query);
        let reply = self.service.call(&call).await?;
        read::<Resource>(STAT, &reply.body)?.into_object(STAT)
    }

    pub(super) async fn get(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let query = [("alt", "media")];
        let mut call = self.service.api(READ, Method::GET, Tree::Download, Some(checked(name, READ)?), &query);
        let value = HeaderValue::try_from(format!("bytes={}-{}", range.start, range.end - 1));
        call.headers.insert(RANGE, value.expect("digits make a header"));
        // Else an object that is stored compressed is unpacked on the way, and the range is not kept.
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        let response = retry::request(self.service.limits.tries, |_| self.service.open(&call)).await?;
        let length = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|text| text.parse::<u64>().ok());
        let is_whole = response.status() == StatusCode::OK && range.start == 0;
        let total = total_of(response.headers(), &range).filter(|_| response.status() == StatusCode::PARTIAL_CONTENT);
        let is_right = total.is_some() || is_whole;
        if !is_right || length != Some(range.end - range.start) {
            return Err(Error::new(Kind::Protocol, READ, "the service answered with another range than asked for"));
        }
        let is_all = is_whole || (range.start == 0 && total == Some(range.end));
        let expected = if is_all { crc32c(response.headers()) } else { None };
        let stream = response.into_body().stream();
        Ok(match expected {
            Some(expected) => verified(stream, expected),
            None => stream,
        })
    }

    pub(super) async fn objects(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        let mut pages: Pages<String> = Pages::new();
        loop {
            let names = (limit - found.len()).saturating_add(1).min(PAGE_NAMES_MAX).to_string();
            let mut query = vec![
                ("fields", "items(name,size,etag,contentType),nextPageToken"),
                ("maxResults", names.as_str()),
                ("prefix", prefix),
            ];
            query.extend(pages.mark().map(|token| ("pageToken", token.as_str())));
            let reply = self.service.call(&self.service.api(LIST, Method::GET, Tree::Metadata, None, &query)).await?;
            let page: Page = read(LIST, &reply.body)?;
            let is_empty = page.items.is_empty();
            for item in page.items {
                found.push(item.into_object(LIST)?);
            }
            if found.len() > limit {
                let detail = format!("there are more than {limit} objects under `{prefix}`");
                return Err(Error::new(Kind::TooMany, LIST, detail));
            }
            if !pages.turn(LIST, is_empty, page.next_page_token.filter(|next| !next.is_empty()))? {
                break;
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let call = self.service.api(DELETE, Method::DELETE, Tree::Metadata, Some(checked(name, DELETE)?), &[]);
        match self.service.call(&call).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Cancels what the journal knows of an upload. Where the answer with the session's address got lost, nobody can
    /// send to the session or find it: it holds nothing, and the service forgets it after a week.
    pub(super) async fn abort_open(&self, open: &OpenUpload) -> Result<()> {
        if open.handle.is_empty() {
            return Ok(());
        }
        let session = self.service.session(&open.handle)?;
        match self.service.call(&Service::on(&session, ABORT, Method::DELETE, &open.target)).await {
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(error),
        }
        match self.state_of(&session, &open.target, None).await? {
            State::Gone | State::Complete(_) => Ok(()),
            State::Kept(_) => {
                Err(Error::new(Kind::Unavailable, ABORT, "the service keeps an upload that was cancelled"))
            }
        }
    }
}

/// The length of the whole object, in an answer that holds exactly this range of it.
fn total_of(headers: &HeaderMap, range: &Range<u64>) -> Option<u64> {
    let text = header(headers, CONTENT_RANGE.as_str())?;
    text.strip_prefix(&format!("bytes {}-{}/", range.start, range.end - 1))?.parse().ok()
}

/// The checksum of the whole object, which stands in the head of an answer with a part of it, too.
fn crc32c(headers: &HeaderMap) -> Option<u32> {
    let values = headers.get_all("x-goog-hash").iter().filter_map(|value| value.to_str().ok());
    let text = values.flat_map(|value| value.split(',')).find_map(|hash| hash.trim().strip_prefix("crc32c="))?;
    Some(u32::from_be_bytes(STANDARD.decode(text).ok()?.try_into().ok()?))
}

/// Fails at the end of a stream that has another checksum.
fn verified(stream: ByteStream, expected: u32) -> ByteStream {
    let digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
    Box::pin(futures_util::stream::unfold((stream, Some(digest)), move |(mut stream, digest)| async move {
        let mut digest = digest?;
        match stream.next().await {
            Some(Ok(bytes)) => {
                digest.update(&bytes);
                Some((Ok(bytes), (stream, Some(digest))))
            }
            Some(Err(error)) => Some((Err(error), (stream, None))),
            None if digest.finalize() == u64::from(expected) => None,
            None => {
                let detail = "the bytes that arrived are not those that the service stores";
                Some((Err::<Bytes, _>(Error::new(Kind::IntegrityMismatch, READ, detail)), (stream, None)))
            }
        }
    }))
}
