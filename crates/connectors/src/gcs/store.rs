//! What a file store needs beyond objects: pages by folder and copies within the bucket.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use serde::Deserialize;

use super::endpoint::Tree;
use super::objects::{Resource, read};
use super::{COPY, Gcs, LIST, checked};
use crate::error::{Error, Kind, Result};
use crate::store::{Ask, ObjectStore, Page, Shown};

/// Names in one page; more than 1,000 the service does not give.
const PAGE_NAMES_MAX: usize = 1000;
/// Requests that one copy may take: each goes on where the one before ended, after a gibibyte at the least.
const REWRITES_MAX: u32 = 10_000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Listed {
    items: Vec<Resource>,
    prefixes: Vec<String>,
    next_page_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rewrite {
    done: bool,
    rewrite_token: Option<String>,
}

#[async_trait]
impl ObjectStore for Gcs {
    async fn page(&self, ask: &Ask) -> Result<Page> {
        let limit = ask.limit.clamp(1, PAGE_NAMES_MAX).to_string();
        let mut query = vec![
            ("fields", "items(name),prefixes,nextPageToken"),
            ("maxResults", limit.as_str()),
            ("prefix", ask.prefix.as_str()),
        ];
        query.extend(ask.folders.then_some(("delimiter", "/")));
        query.extend(ask.after.as_deref().map(|after| ("startOffset", after)));
        query.extend(ask.mark.as_deref().map(|mark| ("pageToken", mark)));
        let reply = self.service.call(&self.service.api(LIST, Method::GET, Tree::Metadata, None, &query)).await?;
        let page: Listed = read(LIST, &reply.body)?;
        Ok(Page {
            names: page.items.into_iter().map(|item| item.name).collect(),
            folders: page.prefixes,
            next: page.next_page_token.filter(|next| !next.is_empty()),
        })
    }

    /// # Source
    /// Cloud Storage JSON API, "Objects: rewrite".
    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (checked(from, COPY)?, checked(to, COPY)?);
        let mut token: Option<String> = None;
        for _ in 0..REWRITES_MAX {
            let mut query = vec![("fields", "done,rewriteToken")];
            query.extend(token.as_deref().map(|token| ("rewriteToken", token)));
            let reply = self.service.call(&self.service.rewrite(COPY, from, to, &query)).await?;
            let rewrite: Rewrite = read(COPY, &reply.body)?;
            if rewrite.done {
                return Ok(());
            }
            token = rewrite.rewrite_token;
            if token.is_none() {
                break;
            }
        }
        Err(Error::new(Kind::Protocol, COPY, "the service does not say how the copy goes on"))
    }

    /// None: this server does not sign links of Google, files come by way of it.
    fn signed_link(&self, _: &str, _: &Shown) -> Result<Option<String>> {
        Ok(None)
    }

    /// Nothing: the service forgets sessions that nobody goes on with after a week, and lists them nowhere.
    async fn abort_older(&self, _: &str, _: Duration) -> Result<usize> {
        Ok(0)
    }
}
