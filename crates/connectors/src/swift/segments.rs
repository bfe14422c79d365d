//! The way in for large objects: segments in a container of their own, and the manifest that makes one object of them.
//!
//! Names of segments, and what becomes of them, stand in [`super::manifest`].

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{ACCEPT, ETAG};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use md5::{Digest as _, Md5};
use serde::{Deserialize, Serialize};

use super::body::{Cargo, SENDING_BYTES};
use super::manifest::{Handle, prefix_of, segment};
use super::service::Call;
use super::upload::{confirmed, lost, typed};
use super::{COMPLETE, PREPARE, SEND_SEGMENT, STAT_CONTAINER, Swift};
use crate::error::{Error, Kind, Result, Retry};
use crate::http::Reply;
use crate::retry;
use crate::transfer::{Counted, OpenUpload, Part, Put, Receipt};

/// How often a manifest is sent for segments of which the store has lost some meanwhile.
const MANIFESTS_MAX: u32 = 3;
const STORAGE_POLICY: HeaderName = HeaderName::from_static("x-storage-policy");

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
        let mut counted = Counted::new(&put.progress);
        open.parts.values().for_each(|part| counted.add(part.size));
        for _ in 0..MANIFESTS_MAX {
            self.send_missing(put, &prefix, &mut open, &mut counted).await?;
            let _turn = self.service.turn(&put.name).await?;
            let replaced = self.replaced(&put.name, notes).await?.filter(|manifest| !manifest.uses(&prefix));
            if let Some(manifest) = &replaced {
                let handle = Handle { replaces: manifest.prefix(), ..Handle::of(&open) };
                open.handle = handle.to_text();
                put.journal.opened(&open).await?;
            }
            match self.publish(put, &prefix, &open.parts).await? {
                Ok(reply) => {
                    crate::fail_point!("swift.published");
                    let left = match &replaced {
                        Some(manifest) => self.remove_replaced(manifest).await,
                        None => self.remove_replaced_earlier(&open).await,
                    };
                    notes.extend(left);
                    put.journal.closed(&put.name).await?;
                    counted.keep();
                    return Ok(self.receipt(&put.name, &reply));
                }
                Err(missing) => {
                    tracing::debug!(count = missing.len(), "the store no longer has all segments: they are sent again");
                    missing
                        .iter()
                        .filter_map(|number| open.parts.remove(number))
                        .for_each(|part| counted.take_back(part.size));
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
    async fn send_missing(
        &self,
        put: &Put,
        prefix: &str,
        open: &mut OpenUpload,
        counted: &mut Counted<'_>,
    ) -> Result<()> {
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
            counted.adopt(part.size);
            open.parts.insert(number, part);
        }
    }

    async fn send_segment(&self, put: &Put, prefix: &str, segment_bytes: u64, number: u32) -> Result<(u32, Part)> {
        let start = u64::from(number - 1) * segment_bytes;
        let end = put.source.size().min(start + segment_bytes);
        let _memory = put.memory.take(SENDING_BYTES.min(end - start)).await;
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
        crate::fail_point!("swift.segment");
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
            let refusal = self.service.error(&call, &reply);
            match problems(&reply, parts) {
                Problems::Missing(numbers) => Ok(Err(numbers)),
                Problems::Unseen => Err(self.unseen_segments(refusal)),
                Problems::Other => Err(refusal),
            }
        });
        sent.await
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
