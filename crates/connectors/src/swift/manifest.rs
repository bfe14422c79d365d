//! What large objects are made of, what their segments are called, and how those are removed that nobody needs.
//!
//! A segment is called `TARGET/HASH-NONCE/NUMBER`. The nonce keeps two uploads of the same file apart: what one of them
//! aborts, the other may just have published. An attempt that goes on finds the name in the journal.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Method};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::service::Call;
use super::{READ_MANIFEST, REMOVE_SEGMENTS, STAT_CONTAINER, Swift};
use crate::error::{Error, Kind, Result};
use crate::transfer::{OpenUpload, Put};

/// Longest beginning of an object's name in the names of its segments: 1,000 of them must fit into a manifest of 2 MiB.
const STEM_BYTES_MAX: usize = 512;
/// How often segments are listed and removed: some may arrive, and a listing may lag behind.
const REMOVALS_MAX: u32 = 6;
/// The pause between two of them, from the second on.
const REMOVAL_PAUSE: Duration = Duration::from_secs(1);
/// Digits of a segment's number: names sort as numbers do.
const NUMBER_DIGITS: usize = 8;
/// Hex digits of the hash of the source, and of the nonce.
const MARK_DIGITS: (usize, usize) = (16, 8);

/// Asks all replicas and takes the newest: segments of an object that was just published must not be taken for waste.
const NEWEST: HeaderName = HeaderName::from_static("x-newest");

/// What an [`OpenUpload`] is called: prefixes in the container for segments. What lies under them is waste unless the
/// object at the target is made of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    /// Of the upload's own segments; none when the object is sent in one piece.
    pub(super) segments: Option<String>,
    /// Of the segments of the object that is replaced.
    pub(super) replaces: Option<String>,
}

/// What a large object is made of, as far as it lies in our container for segments.
#[derive(Debug)]
pub(super) struct Manifest {
    names: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct ManifestEntry {
    name: Option<String>,
}

impl Handle {
    pub(super) fn of(open: &OpenUpload) -> Self {
        serde_json::from_str(&open.handle).unwrap_or_default()
    }

    /// The handle of an upload in one piece that replaces a large object.
    pub(super) fn replacing(manifest: &Manifest) -> Self {
        Self { segments: None, replaces: manifest.prefix() }
    }

    pub(super) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("two texts make JSON")
    }
}

impl Manifest {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn uses(&self, prefix: &str) -> bool {
        self.names.iter().any(|name| name.starts_with(prefix))
    }

    /// The prefix of the segments, when they are named as ours are: other clients' prefixes may hold more than one object's.
    pub(super) fn prefix(&self) -> Option<String> {
        let first = self.names.first()?;
        let prefix = &first[..=first.rfind('/')?];
        let mark = prefix.trim_end_matches('/').rsplit('/').next()?;
        let (hash, nonce) = mark.split_once('-')?;
        let is_hex = |text: &str, digits| text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_ours = is_hex(hash, MARK_DIGITS.0) && is_hex(nonce, MARK_DIGITS.1);
        (is_ours && self.names.iter().all(|name| name.starts_with(prefix))).then(|| prefix.to_owned())
    }
}

/// The prefix of the segments of an upload.
pub(super) fn prefix_of(put: &Put) -> String {
    let stem = &put.name[..put.name.floor_char_boundary(STEM_BYTES_MAX)];
    let hash = hex::encode(&put.source.digests().sha256[..MARK_DIGITS.0 / 2]);
    format!("{stem}/{hash}-{:08x}/", rand::rng().random::<u32>())
}

pub(super) fn segment(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:0NUMBER_DIGITS$}")
}

fn stays(error: &Error) -> String {
    format!("segments of the replaced object stay: {}", error.detail)
}

impl Swift {
    /// What the object of that name is made of; nothing when it is no static large object, or not there.
    pub(super) async fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        let container = self.service.container();
        let newest = HeaderValue::from_static("true");
        let look = Call::new(READ_MANIFEST, Method::HEAD, container, Some(name)).header(NEWEST, newest.clone());
        match self.service.call(&look).await {
            Ok(reply) if reply.says_true("x-static-large-object") => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let read = Call::new(READ_MANIFEST, Method::GET, container, Some(name))
            .query("multipart-manifest", "get")
            .header(NEWEST, newest);
        let reply = match self.service.call(&read).await {
            Ok(reply) if reply.says_true("x-static-large-object") => reply,
            Ok(_) => return Ok(None),
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let entries: Vec<ManifestEntry> = serde_json::from_slice(&reply.body).map_err(|error| {
            Error::new(Kind::Protocol, READ_MANIFEST, "the manifest of the large object cannot be read").because(error)
        })?;
        let ours = format!("/{}/", self.service.segment_container());
        let names = entries.iter().filter_map(|entry| entry.name.as_deref()?.strip_prefix(&ours)).map(str::to_owned);
        Ok(Some(Manifest { names: names.collect() }))
    }

    /// Removes the segments of an object that is no longer there; what stays is worth a note.
    pub(super) async fn remove_replaced(&self, manifest: &Manifest) -> Option<String> {
        let remove = async {
            // Where versions are kept, the earlier one needs its segments.
            if self.keeps_versions().await? { Ok(()) } else { self.remove_segments(manifest.names.clone()).await }
        };
        remove.await.err().map(|error| stays(&error))
    }

    /// The same for an object that an earlier attempt replaced, before it could remove them.
    pub(super) async fn remove_replaced_earlier(&self, open: &OpenUpload) -> Option<String> {
        let prefix = Handle::of(open).replaces?;
        let remove =
            async { if self.keeps_versions().await? { Ok(()) } else { self.remove_under(&prefix, open).await } };
        remove.await.err().map(|error| stays(&error))
    }

    /// Whether the container keeps what is replaced.
    async fn keeps_versions(&self) -> Result<bool> {
        let reply = self.service.call(&Call::new(STAT_CONTAINER, Method::HEAD, self.service.container(), None)).await?;
        let is_named = |name| reply.header(name).is_some_and(|value| !value.is_empty());
        Ok(reply.says_true("x-versions-enabled") || is_named("x-versions-location") || is_named("x-history-location"))
    }

    /// Clears away what the journal knows of: segments that the object at the target is not made of.
    pub(super) async fn abort_open(&self, open: &OpenUpload) -> Result<()> {
        let Handle { segments, replaces } = Handle::of(open);
        let manifest = self.manifest(&open.target).await?;
        let is_used = |prefix: &str| manifest.as_ref().is_some_and(|manifest| manifest.uses(prefix));
        if let Some(prefix) = segments.filter(|prefix| !is_used(prefix)) {
            self.remove_under(&prefix, open).await?;
        }
        if let Some(prefix) = replaces.filter(|prefix| !is_used(prefix))
            && !self.keeps_versions().await?
        {
            self.remove_under(&prefix, open).await?;
        }
        Ok(())
    }

    /// Removes all segments under a prefix. A listing may lag behind, so those are tried as well of which the journal
    /// knows, and those that may have been on their way.
    async fn remove_under(&self, prefix: &str, open: &OpenUpload) -> Result<()> {
        let on_their_way = u32::try_from(self.service.limits.parts_in_flight).unwrap_or(u32::MAX);
        let last = open.parts.last_key_value().map_or(0, |(number, _)| *number).saturating_add(on_their_way);
        let known = if Handle::of(open).segments.as_deref() == Some(prefix) { last } else { 0 };
        let mut names: BTreeSet<String> = (1..=known).map(|number| segment(prefix, number)).collect();
        for round in 1..=REMOVALS_MAX {
            let listed = match self.names_under(prefix).await {
                Ok(listed) => listed,
                Err(error) if error.kind == Kind::ContainerNotFound => return Ok(()),
                Err(error) => return Err(error),
            };
            let is_last = listed.is_empty();
            names.extend(listed);
            self.remove_segments(std::mem::take(&mut names)).await?;
            if is_last {
                return Ok(());
            }
            if round > 1 {
                tokio::time::sleep(REMOVAL_PAUSE).await;
            }
        }
        Err(Error::new(Kind::Unavailable, REMOVE_SEGMENTS, "the store keeps listing segments that were removed"))
    }

    async fn remove_segments(&self, names: impl IntoIterator<Item = String>) -> Result<()> {
        let container = self.service.segment_container();
        let remove = |name: String| async move {
            match self.service.call(&Call::new(REMOVE_SEGMENTS, Method::DELETE, container, Some(&name))).await {
                Ok(_) => Ok(()),
                Err(error) if error.kind == Kind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        };
        let names: Vec<String> = names.into_iter().collect();
        let mut removals =
            stream::iter(names.into_iter().map(remove)).buffer_unordered(self.service.limits.parts_in_flight.max(1));
        let mut outcome = Ok(());
        while let Some(removed) = removals.next().await {
            outcome = outcome.and(removed);
        }
        outcome
    }
}
