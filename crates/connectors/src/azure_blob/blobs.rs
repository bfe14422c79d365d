//! Everything that is not an upload: looking, reading, listing, deleting.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, RANGE};
use http::{HeaderValue, Method, StatusCode};

use super::service::{Call, MD5_HEADER};
use super::xml::{self, BlobPage};
use super::{AzureBlob, DELETE, LIST, READ, STAT, errors};
use crate::download::{Described, WholeDigest, changed};
use crate::error::{Error, Kind, Result};
use crate::listing::Pages;
use crate::retry;
use crate::source::ByteStream;
use crate::transfer::Object;

/// Blobs in one page of a listing. The service gives 5,000 at the most; a thousand keep a page under 8 MiB.
const PAGE_BLOBS_MAX: usize = 1000;

impl AzureBlob {
    /// Looks at a blob, and at the MD5 that whoever stored it said it has.
    pub(super) async fn look(&self, name: &str) -> Result<Described> {
        let reply = self.service.call(&Call::new(STAT, Method::HEAD, Some(name))).await?;
        let size = reply.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
        let object = Object {
            name: name.to_owned(),
            size: size.ok_or_else(|| Error::new(Kind::Protocol, STAT, "the answer names no length"))?,
            etag: reply.header(ETAG.as_str()).map(unquoted),
            content_type: reply.header(CONTENT_TYPE.as_str()).map(str::to_owned),
        };
        let md5 = reply.header(MD5_HEADER.as_str()).and_then(|text| STANDARD.decode(text).ok()?.try_into().ok());
        Ok(Described { object, digest: md5.map(WholeDigest::Md5) })
    }

    /// Reads a range, of just the version with this mark where one is given.
    pub(super) async fn get(&self, name: &str, range: Range<u64>, etag: Option<&str>) -> Result<ByteStream> {
        if range.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let call = Call::new(READ, Method::GET, Some(name));
        let mut call = call.header(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        if let Some(mark) = etag.and_then(|etag| HeaderValue::try_from(format!("\"{etag}\"")).ok()) {
            call.headers.insert(IF_MATCH, mark);
        }
        let opened = retry::request(self.service.limits.tries, |_| self.service.open(&call)).await;
        let response = opened.map_err(|error| if errors::is_other_version(&error) { changed(name) } else { error })?;
        let is_whole = response.status() == StatusCode::OK && range.start == 0;
        let is_right = response.status() == StatusCode::PARTIAL_CONTENT || is_whole;
        if !is_right || response.body().size() != Some(range.end - range.start) {
            return Err(Error::new(Kind::Protocol, READ, "the service answered with another range than asked for"));
        }
        Ok(response.into_body().stream())
    }

    pub(super) async fn blobs(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        let mut found = Vec::new();
        let mut pages: Pages<String> = Pages::new();
        loop {
            let page_blobs = (limit - found.len()).saturating_add(1).min(PAGE_BLOBS_MAX);
            let mut call = Call::new(LIST, Method::GET, None)
                .query("restype", "container")
                .query("comp", "list")
                .query("maxresults", page_blobs.to_string());
            let marker = pages.mark().map_or("", String::as_str);
            for (name, value) in [("prefix", prefix), ("marker", marker)] {
                if !value.is_empty() {
                    call = call.query(name, value);
                }
            }
            let reply = self.service.call(&call).await?;
            let page: BlobPage = xml::read(LIST, &reply.body)?;
            let is_empty = page.blobs.blobs.is_empty();
            for blob in page.blobs.blobs {
                // Folders of accounts that have them; they are no blobs.
                if blob.properties.resource_type.as_deref() == Some("directory") {
                    continue;
                }
                found.push(Object {
                    name: blob.name.plain(LIST)?,
                    size: blob.properties.size,
                    etag: blob.properties.etag.as_deref().map(unquoted),
                    content_type: blob.properties.content_type.filter(|text| !text.is_empty()),
                });
            }
            if found.len() > limit {
                let detail = format!("there are more than {limit} blobs under `{prefix}`");
                return Err(Error::new(Kind::TooMany, LIST, detail));
            }
            if !pages.turn(LIST, is_empty, page.next_marker.filter(|next| !next.is_empty()))? {
                break;
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        match self.service.call(&Call::new(DELETE, Method::DELETE, Some(name))).await {
            Ok(_) => Ok(()),
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// An `ETag` without its quotes.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}
