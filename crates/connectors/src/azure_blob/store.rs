//! What a file store needs beyond blobs: pages by folder and copies within the container.

use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Method};
use tokio::time::{Instant, sleep};

use super::service::Call;
use super::xml::{self, Entry, EntryPage};
use super::{AzureBlob, COPY, LIST, STAT};
use crate::error::{Error, Kind, Result};
use crate::http::Reply;
use crate::store::{Ask, ObjectStore, Page, Shown};

/// Entries in one page. The service gives 5,000 at the most; a thousand keep a page under 8 MiB.
const PAGE_ENTRIES_MAX: usize = 1000;
const COPY_SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
const COPY_STATUS: &str = "x-ms-copy-status";
/// Time between two looks at a copy that the service makes on its own time.
const COPY_PAUSE: Duration = Duration::from_millis(500);
/// The longest that such a copy is waited for. Within an account it is a matter of milliseconds.
const COPY_TIME_MAX: Duration = Duration::from_mins(10);

#[async_trait]
impl ObjectStore for AzureBlob {
    async fn page(&self, ask: &Ask) -> Result<Page> {
        let mut call = Call::new(LIST, Method::GET, None)
            .query("restype", "container")
            .query("comp", "list")
            .query("maxresults", ask.limit.clamp(1, PAGE_ENTRIES_MAX).to_string());
        let delimiter = if ask.folders { "/" } else { "" };
        let mark = ask.mark.as_deref().unwrap_or_default();
        for (name, value) in [("prefix", ask.prefix.as_str()), ("delimiter", delimiter), ("marker", mark)] {
            if !value.is_empty() {
                call = call.query(name, value);
            }
        }
        let reply = self.service.call(&call).await?;
        let read: EntryPage = xml::read(LIST, &reply.body)?;
        let mut page = Page { next: read.next_marker.filter(|next| !next.is_empty()), ..Page::default() };
        for entry in read.blobs.entries {
            match entry {
                Entry::Blob(blob) => page.names.push(blob.name.plain(LIST)?),
                Entry::BlobPrefix(folder) => page.folders.push(folder.name.plain(LIST)?),
            }
        }
        Ok(page)
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let mut call = Call::new(COPY, Method::PUT, Some(to));
        let mut source = HeaderValue::try_from(self.service.readable(from)).map_err(|_| {
            // The library's own words may hold the address with its token.
            Error::new(Kind::InvalidRequest, COPY, "the name makes no URL")
        })?;
        source.set_sensitive(true);
        call.headers.insert(COPY_SOURCE, source);
        let mut reply = self.service.call(&call).await?;
        let end = Instant::now() + COPY_TIME_MAX;
        while status(&reply) == "pending" {
            if Instant::now() >= end {
                return Err(Error::new(Kind::Timeout, COPY, "the service takes too long to copy"));
            }
            sleep(COPY_PAUSE).await;
            reply = self.service.call(&Call::new(STAT, Method::HEAD, Some(to))).await?;
        }
        match status(&reply) {
            "success" => Ok(()),
            _ => Err(Error::new(Kind::Unavailable, COPY, "the service did not complete the copy")),
        }
    }

    /// None: this server does not sign links of Azure, files come by way of it.
    fn signed_link(&self, _: &str, _: &Shown) -> Result<Option<String>> {
        Ok(None)
    }

    /// Nothing: the service forgets blocks that nobody committed after a week, and lists them nowhere.
    async fn abort_older(&self, _: &str, _: Duration) -> Result<usize> {
        Ok(0)
    }
}

fn status(reply: &Reply) -> &str {
    reply.header(COPY_STATUS).unwrap_or_default()
}
