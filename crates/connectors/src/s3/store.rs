//! What a file store needs beyond objects: pages by folder, copies within the bucket, signed links, an end for old uploads.

use std::time::Duration;

use async_trait::async_trait;
use http::header::CONTENT_LENGTH;
use http::{HeaderName, HeaderValue, Method};
use percent_encoding::utf8_percent_encode;

use super::objects::decoded;
use super::service::Call;
use super::xml::{self, ObjectPage};
use super::{COPY, LINK, LIST, S3};
use crate::address::ESCAPED_IN_PATH;
use crate::error::{Error, Kind, Result};
use crate::retry;
use crate::store::{Ask, ObjectStore, Page, Shown};
use crate::xml::read_error;

/// Keys in one page; more than 1,000 no service gives.
const PAGE_KEYS_MAX: usize = 1000;
/// Largest object that `CopyObject` copies.
///
/// # Source
/// Amazon S3 API Reference, "`CopyObject`".
const COPY_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024;
/// Old uploads in a row that could not be aborted, after which the service counts as away: each takes all its tries.
const ABORTS_IN_VAIN_MAX: u32 = 20;
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
/// The longest life of a signed link that the signature's version knows.
const LINK_LIFE_MAX: Duration = Duration::from_hours(7 * 24);

#[async_trait]
impl ObjectStore for S3 {
    async fn page(&self, ask: &Ask) -> Result<Page> {
        let mut call = Call::new(LIST, Method::GET, None)
            .query("encoding-type", "url")
            .query("list-type", "2")
            .query("max-keys", ask.limit.clamp(1, PAGE_KEYS_MAX).to_string())
            .query("prefix", ask.prefix.as_str());
        if ask.folders {
            call = call.query("delimiter", "/");
        }
        match (&ask.mark, &ask.after) {
            (Some(mark), _) => call = call.query("continuation-token", mark),
            (None, Some(after)) => call = call.query("start-after", after),
            (None, None) => {}
        }
        let reply = self.service.call(&call).await?;
        let page: ObjectPage = xml::read(LIST, &reply.body)?;
        let is_encoded = page.encoding_type.as_deref() == Some("url");
        let plain = |key| decoded(key, is_encoded);
        if page.is_truncated && page.next_continuation_token.is_none() {
            return Err(Error::new(Kind::Protocol, LIST, "the listing does not say how to go on"));
        }
        Ok(Page {
            names: page.contents.into_iter().map(|listed| plain(listed.key)).collect::<Result<_>>()?,
            folders: page.common_prefixes.into_iter().map(|folder| plain(folder.prefix)).collect::<Result<_>>()?,
            next: page.next_continuation_token.filter(|_| page.is_truncated),
        })
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let size = self.head(from).await?.size;
        if size > COPY_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, COPY, "the object is larger than the 5 GiB that S3 copies at once"));
        }
        let path = format!("/{}/{from}", self.service.bucket());
        let source = HeaderValue::try_from(utf8_percent_encode(&path, ESCAPED_IN_PATH).to_string());
        let mut call = Call::new(COPY, Method::PUT, Some(to));
        call.headers.insert(COPY_SOURCE, source.expect("percent-encoded text makes a header"));
        // Some gateways insist on it, and the signature covers it.
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
        retry::request(self.service.limits.tries, |_| async {
            let reply = self.service.call_once(&call).await?;
            // The answer begins before the work ends, so a 200 may carry an error.
            if read_error(&reply.body).is_some() { Err(self.service.error(&call, &reply)) } else { Ok(()) }
        })
        .await
    }

    fn signed_link(&self, name: &str, shown: &Shown) -> Result<Option<String>> {
        let query = [
            ("response-cache-control", shown.cache_control.clone()),
            ("response-content-disposition", shown.content_disposition.clone()),
            ("response-content-type", shown.content_type.clone()),
        ];
        let life = shown.life.min(LINK_LIFE_MAX);
        if life.is_zero() {
            return Err(Error::new(Kind::InvalidRequest, LINK, "a link must hold for a while"));
        }
        self.service.link(name, &query, life).map(Some)
    }

    async fn abort_older(&self, prefix: &str, age: Duration) -> Result<usize> {
        let (found, _) = match self.some_open_uploads(prefix).await {
            // A bucket's own lifecycle rule must do then.
            Err(error) if error.kind == Kind::Unsupported => return Ok(0),
            other => other?,
        };
        let (mut aborted, mut in_vain, mut last) = (0, 0, None);
        for upload in found.iter().filter(|upload| upload.age.is_some_and(|found| found > age)) {
            match self.abort_upload(&upload.key, &upload.upload_id).await {
                Ok(()) => (aborted, in_vain) = (aborted + 1, 0),
                // One that cannot be aborted must not shield all that are behind it.
                Err(error) => {
                    tracing::debug!(%error, "an upload cannot be aborted and stays");
                    (in_vain, last) = (in_vain + 1, Some(error));
                }
            }
            if in_vain >= ABORTS_IN_VAIN_MAX {
                break;
            }
        }
        last.map_or(Ok(aborted), Err)
    }
}
