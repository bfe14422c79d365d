//! Static large objects: segments in a container of their own, and the manifest that makes one object of them.
//!
//! A segment is called `TARGET/HASH-NONCE/NUMBER`. The nonce keeps two uploads of the same file apart: what one of them
//! aborts, the other may just have published. An attempt that goes on finds the name in the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered};
use http::header::{ACCEPT, ETAG};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use md5::{Digest as _, Md5};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::body::{Cargo, Tally};
use super::service::{Call, Reply};
use super::upload::{confirmed, lost, typed};
use super::{COMPLETE, PREPARE, READ_MANIFEST, REMOVE_SEGMENTS, SEND_SEGMENT, STAT_CONTAINER, Swift};
use crate::error::{Error, Kind, Result, Retry};
use crate::retry;
use crate::transfer::{OpenUpload, Part, Put, Receipt};

/// How often a manifest is sent for segments of which the store has lost some meanwhile.
const MANIFESTS_MAX: u32 = 3;
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

const STORAGE_POLICY: HeaderName = HeaderName::from_static("x-storage-policy");

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

#[derive(Debug, Serialize)]
struct Entry<'a> {
    path: String,
    etag: &'a str,
    size_bytes: u64,
}

/// What the store says of a manifest that it does not take.
#[derive(Debug, Default, Deserialize)]
struct Refused {
    #[serde(rename = "Errors", default)]
    errors: Vec<(String, String)>,
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
    fn prefix(&self) -> Option<String> {
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
fn prefix_of(put: &Put) -> String {
    let stem = &put.name[..put.name.floor_char_boundary(STEM_BYTES_MAX)];
    let hash = hex::encode(&put.source.digests().sha256[..MARK_DIGITS.0 / 2]);
    format!("{stem}/{hash}-{:08x}/", rand::rng().random::<u32>())
}

fn segment(prefix: &str, number: u32) -> String {
    format!("{prefix}{number:0NUMBER_DIGITS$}")
}

impl Swift {
    pub(super) async fn store_segments(
        &self,
        put: &Put,
        segment_bytes: u64,
        resume: Option<OpenUpload>,
        notes: &mut Vec<String>,
    ) -> Result<Receipt> {
        let mut open = match resume {
            Some(open) => open,
            None => self.begin(put, segment_bytes).await?,
        };
        let prefix = Handle::of(&open).segments.unwrap_or_default();
        let mut tally = Tally::new(&put.progress);
        open.parts.values().for_each(|part| tally.add(part.size));
        for _ in 0..MANIFESTS_MAX {
            self.send_missing(put, &prefix, &mut open, &mut tally).await?;
            let _turn = self.service.turn(&put.name).await?;
            let replaced = self.replaced(&put.name, notes).await?.filter(|manifest| !manifest.uses(&prefix));
            if let Some(manifest) = &replaced {
                let handle = Handle { replaces: manifest.prefix(), ..Handle::of(&open) };
                open.handle = handle.to_text();
                put.journal.opened(&open).await?;
            }
            match self.publish(put, &prefix, &open.parts).await? {
                Ok(reply) => {
                    let left = match &replaced {
                        Some(manifest) => self.remove_replaced(manifest).await,
                        None => self.remove_replaced_earlier(&open).await,
                    };
                    notes.extend(left);
                    put.journal.closed(&put.name).await?;
                    tally.keep();
                    return Ok(self.receipt(&put.name, &reply));
                }
                Err(missing) => {
                    tracing::debug!(count = missing.len(), "the store no longer has all segments: they are sent again");
                    missing
                        .iter()
                        .filter_map(|number| open.parts.remove(number))
                        .for_each(|part| tally.take_back(part.size));
                }
            }
        }
        Err(lost())
    }

    /// Makes sure that there is a container for segments, chooses a name for them and writes it down.
    async fn begin(&self, put: &Put, segment_bytes: u64) -> Result<OpenUpload> {
        self.prepare().await?;
        let handle = Handle { segments: Some(prefix_of(put)), replaces: None };
        let open = OpenUpload {
            target: put.name.clone(),
            handle: handle.to_text(),
            sha256: hex::encode(put.source.digests().sha256),
            part_bytes: segment_bytes,
            parts: BTreeMap::new(),
        };
        put.journal.opened(&open).await?;
        Ok(open)
    }

    /// Makes the container for segments, with the storage policy of the user's. Where that may not be, an existing one
    /// does as well.
    async fn prepare(&self) -> Result<()> {
        let stat = |container| Call::new(STAT_CONTAINER, Method::HEAD, container, None);
        let policy = match self.service.call(&stat(self.service.container())).await {
            Ok(reply) => reply.headers.get(STORAGE_POLICY).cloned(),
            Err(error) if error.kind == Kind::AccessDenied => None,
            Err(error) => return Err(error),
        };
        let container = self.service.segment_container();
        let is_known_missing = match self.service.call(&stat(container)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind == Kind::ContainerNotFound => true,
            Err(error) if error.kind == Kind::AccessDenied => false,
            Err(error) => return Err(error),
        };
        let mut make = Call::new(PREPARE, Method::PUT, container, None);
        if let Some(policy) = policy {
            make = make.header(STORAGE_POLICY, policy);
        }
        match self.service.call(&make).await {
            Ok(_) => Ok(()),
            // It may be there and take segments all the same.
            Err(error) if error.kind == Kind::AccessDenied && !is_known_missing => Ok(()),
            Err(error) if error.kind == Kind::AccessDenied => Err(self.no_segment_container(error)),
            Err(error) => Err(error),
        }
    }

    fn no_segment_container(&self, mut error: Error) -> Error {
        let (segments, container) = (self.service.segment_container(), self.service.container());
        let detail = format!(
            "large objects need the container `{segments}` beside `{container}`, and these credentials may not make it or write \
             to it; make it and let them write to it"
        );
        (error.kind, error.detail) = (Kind::AccessDenied, detail);
        error
    }

    /// The store looks at the segments with the rights of whoever sends the manifest.
    fn unseen_segments(&self, mut error: Error) -> Error {
        let segments = self.service.segment_container();
        let detail = format!(
            "these credentials may write to the container `{segments}` and not read from it, which large objects need; \
             let them read from `{segments}`"
        );
        (error.kind, error.retry, error.detail) = (Kind::AccessDenied, Retry::Never, detail);
        error
    }

    /// Sends the segments that `open` does not have yet, some at once.
    async fn send_missing(&self, put: &Put, prefix: &str, open: &mut OpenUpload, tally: &mut Tally<'_>) -> Result<()> {
        let count = u32::try_from(put.source.size().div_ceil(open.part_bytes)).unwrap_or(u32::MAX);
        let missing: Vec<u32> = (1..=count).filter(|number| !open.parts.contains_key(number)).collect();
        let mut missing = missing.into_iter();
        let in_flight = self.service.limits.parts_in_flight.max(1);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < in_flight
                && let Some(number) = missing.next()
            {
                running.push(self.send_segment(put, prefix, open.part_bytes, number));
            }
            let Some(sent) = running.next().await else { return Ok(()) };
            let (number, part) = sent?;
            tally.adopt(part.size);
            open.parts.insert(number, part);
        }
    }

    async fn send_segment(&self, put: &Put, prefix: &str, segment_bytes: u64, number: u32) -> Result<(u32, Part)> {
        let start = u64::from(number - 1) * segment_bytes;
        let end = put.source.size().min(start + segment_bytes);
        let cargo = Cargo::new(&put.source, start..end, true, &put.progress);
        let name = segment(prefix, number);
        // Its MD5 is known when it has been sent, and compared then: nobody can see a segment before the manifest.
        let call = typed(
            Call::new(SEND_SEGMENT, Method::PUT, self.service.segment_container(), Some(&name)),
            "application/octet-stream",
        );
        let sent = retry::request(self.service.limits.tries, |_| async {
            let reply = self.service.call_once(&call, &|| cargo.body()).await?;
            confirmed(SEND_SEGMENT, &reply, &cargo.md5())
        });
        sent.await.map_err(|error| {
            if matches!(error.kind, Kind::ContainerNotFound | Kind::AccessDenied) {
                self.no_segment_container(error)
            } else {
                error
            }
        })?;
        let part = Part { size: cargo.size(), etag: cargo.md5(), checksum: None };
        put.journal.part(&put.name, number, &part).await?;
        cargo.arrived();
        Ok((number, part))
    }

    /// Makes the object visible, or tells the numbers of the segments that the store does not have (any more).
    async fn publish(
        &self,
        put: &Put,
        prefix: &str,
        parts: &BTreeMap<u32, Part>,
    ) -> Result<std::result::Result<Reply, BTreeSet<u32>>> {
        let mut whole = Md5::new();
        for part in parts.values() {
            whole.update(&part.etag);
        }
        let etag = hex::encode(whole.finalize());
        let entries: Vec<Entry<'_>> = parts
            .iter()
            .map(|(number, part)| Entry {
                path: format!("/{}/{}", self.service.segment_container(), segment(prefix, *number)),
                etag: &part.etag,
                size_bytes: part.size,
            })
            .collect();
        let body = bytes::Bytes::from(serde_json::to_vec(&entries).expect("texts and numbers make JSON"));
        let call =
            typed(Call::new(COMPLETE, Method::PUT, self.service.container(), Some(&put.name)), &put.content_type)
                .query("multipart-manifest", "put")
                .header(ACCEPT, HeaderValue::from_static("application/json"))
                .header(ETAG, HeaderValue::try_from(&etag).expect("hexadecimal makes a header"));
        let sent = retry::request(self.service.limits.tries, |_| async {
            let reply = self.service.call_any(&call, &|| body.clone().into()).await?;
            if reply.status.is_success() {
                return confirmed(COMPLETE, &reply, &etag).map(|()| Ok(reply));
            }
            let refusal = self.service.error(&call, reply.status, &reply.headers, &reply.body);
            match problems(&reply, parts) {
                Problems::Missing(numbers) => Ok(Err(numbers)),
                Problems::Unseen => Err(self.unseen_segments(refusal)),
                Problems::Other => Err(refusal),
            }
        });
        sent.await
    }

    /// What the object of that name is made of; nothing when it is no static large object, or not there.
    pub(super) async fn manifest(&self, name: &str) -> Result<Option<Manifest>> {
        let container = self.service.container();
        let look = Call::new(READ_MANIFEST, Method::HEAD, container, Some(name));
        match self.service.call(&look).await {
            Ok(reply) if reply.says_true("x-static-large-object") => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let read = Call::new(READ_MANIFEST, Method::GET, container, Some(name)).query("multipart-manifest", "get");
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
        let removed = match self.keeps_versions().await {
            Ok(false) => self.remove_segments(manifest.names.clone()).await,
            // The earlier version needs them.
            Ok(true) => return None,
            Err(error) => Err(error),
        };
        removed.err().map(|error| format!("segments of the replaced object stay: {}", error.detail))
    }

    /// The same for an object that an earlier attempt replaced, before it could remove them.
    async fn remove_replaced_earlier(&self, open: &OpenUpload) -> Option<String> {
        let prefix = Handle::of(open).replaces?;
        let removed = self.remove_under(&prefix, open).await;
        removed.err().map(|error| format!("segments of the replaced object stay: {}", error.detail))
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

/// Why a manifest was refused.
enum Problems {
    /// The store does not have these segments, or has others in their place.
    Missing(BTreeSet<u32>),
    /// The credentials may not look at the segments.
    Unseen,
    /// For another reason.
    Other,
}

fn problems(reply: &Reply, parts: &BTreeMap<u32, Part>) -> Problems {
    if reply.status != StatusCode::BAD_REQUEST {
        return Problems::Other;
    }
    let Refused { errors } = serde_json::from_slice(&reply.body).unwrap_or_default();
    if errors.iter().any(|(_, why)| why.starts_with("403") || why.starts_with("401")) {
        return Problems::Unseen;
    }
    let numbers = errors.iter().filter_map(|(path, _)| path.rsplit('/').next()?.parse().ok());
    let missing: BTreeSet<u32> = numbers.filter(|number| parts.contains_key(number)).collect();
    if missing.is_empty() { Problems::Other } else { Problems::Missing(missing) }
}
