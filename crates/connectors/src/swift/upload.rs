//! The way in: one streaming PUT up to the size of a segment, segments and a manifest above it.
//!
//! An object that is replaced may be made of segments, which nobody needs afterwards. They are removed once the new object
//! is visible, and are in the journal before it is, so that whoever reads the journal can do it.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderValue, Method};

use super::body::{Cargo, SENDING_BYTES};
use super::manifest::{Handle, Manifest};
use super::service::Call;
use super::{COMPLETE, READ_MANIFEST, STORE, Swift};
use crate::error::{Error, Kind, Result};
use crate::http::Reply;
use crate::transfer::{OpenUpload, Put, Receipt};
use crate::{retry, source};

/// Sizes of segments are whole mebibytes, unless they are set to less.
const SEGMENT_BYTES_STEP: u64 = 1024 * 1024;

/// The size of the segments of an object of `size_bytes`, of which there may be `segments_max`.
///
/// A tenth of what the store allows stays free: the size is rounded, and other clients may append.
fn segment_bytes(size_bytes: u64, wanted_bytes: u64, segments_max: u64) -> u64 {
    let least = size_bytes.div_ceil((segments_max * 9 / 10).max(1));
    if least <= wanted_bytes { wanted_bytes } else { least.next_multiple_of(SEGMENT_BYTES_STEP) }
}

impl Swift {
    /// Stores one object.
    pub(super) async fn store(&self, put: Put) -> Result<Receipt> {
        let size = put.source.size();
        let segment_bytes = self.segment_bytes(size).await?;
        let is_single = size <= segment_bytes;
        let mut notes = Vec::new();
        let resume = match put.resume.as_ref() {
            Some(open) if !is_single && fits(open, &put, segment_bytes) => Some(open.clone()),
            Some(stale) => {
                notes.extend(self.clear(stale, &put).await?);
                None
            }
            None => None,
        };
        let receipt = if is_single {
            self.store_single(&put, &mut notes).await?
        } else {
            self.store_segments(&put, segment_bytes, resume, &mut notes).await?
        };
        Ok(Receipt { note: (!notes.is_empty()).then(|| notes.join("; ")), ..receipt })
    }

    async fn segment_bytes(&self, size: u64) -> Result<u64> {
        let wanted = self.service.limits.segment_bytes.max(1);
        if size <= wanted {
            return Ok(wanted);
        }
        let features = self.service.features().await?;
        let found = match features.segments_max {
            Some(segments_max) => segment_bytes(size, wanted.min(features.piece_bytes_max), segments_max),
            None => size,
        };
        if found > features.piece_bytes_max {
            let detail = format!("{size} bytes are more than this store takes, even in segments");
            return Err(Error::new(Kind::TooLarge, STORE, detail));
        }
        Ok(found)
    }

    /// Removes what an earlier attempt left and this one cannot use. Not being allowed to is worth a note, no more.
    async fn clear(&self, stale: &OpenUpload, put: &Put) -> Result<Option<String>> {
        match self.abort_open(stale).await {
            Ok(()) => {
                put.journal.closed(&stale.target).await?;
                Ok(None)
            }
            Err(error) if error.kind == Kind::AccessDenied => {
                Ok(Some("segments of an earlier attempt may stay, as the credentials may not remove them".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn store_single(&self, put: &Put, notes: &mut Vec<String>) -> Result<Receipt> {
        let _turn = self.service.turn(&put.name).await?;
        let replaced = self.replaced(&put.name, notes).await?;
        if let Some(manifest) = &replaced {
            let open = OpenUpload {
                target: put.name.clone(),
                handle: Handle::replacing(manifest).to_text(),
                sha256: hex::encode(put.source.digests().sha256),
                part_bytes: put.source.size(),
                parts: BTreeMap::new(),
            };
            put.journal.opened(&open).await?;
        }
        let md5 = hex::encode(source::md5(&put.source).await?);
        let source = Arc::clone(&put.source);
        let _memory = put.memory.take(SENDING_BYTES.min(source.size())).await;
        let cargo = Cargo::new(&source, 0..source.size(), false, &put.progress);
        let call = typed(Call::new(STORE, Method::PUT, self.service.container(), Some(&put.name)), &put.content_type)
            .header(ETAG, HeaderValue::try_from(&md5).expect("hexadecimal makes a header"));
        let reply = retry::request(self.service.limits.tries, |_| async {
            let reply = self.service.call_once(&call, &|| cargo.body()).await?;
            confirmed(STORE, &reply, &md5)?;
            Ok(reply)
        });
        let reply = reply.await?;
        crate::fail_point!("swift.stored");
        cargo.arrived();
        if let Some(manifest) = &replaced {
            notes.extend(self.remove_replaced(manifest).await);
            put.journal.closed(&put.name).await?;
        }
        Ok(self.receipt(&put.name, &reply))
    }

    /// What an object at that name is made of, if it is a large one. What the store does not tell is noted.
    pub(super) async fn replaced(&self, name: &str, notes: &mut Vec<String>) -> Result<Option<Manifest>> {
        match self.manifest(name).await {
            Ok(found) => Ok(found.filter(|manifest| !manifest.is_empty())),
            Err(error) if is_untold(&error) => {
                tracing::debug!(error = %error, "what is replaced cannot be looked at");
                notes.push(format!("should the replaced object have had segments, they stay: {}", error.detail));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn receipt(&self, name: &str, reply: &Reply) -> Receipt {
        Receipt {
            location: self.location(name),
            etag: reply.header(ETAG.as_str()).map(unquoted),
            version: reply.header("x-object-version-id").filter(|version| *version != "null").map(str::to_owned),
            verified: "md5".to_owned(),
            ..Receipt::default()
        }
    }
}

/// Whether the store was reached, and does not tell what an object is made of. Where it could not be reached, or nobody could
/// log in, the upload would fail as well: it must not try the same once more.
fn is_untold(error: &Error) -> bool {
    let is_answer = error.answer.is_some() && error.kind != Kind::InvalidCredentials;
    error.action == READ_MANIFEST && (is_answer || error.kind == Kind::Protocol)
}

/// Adds the media type.
pub(super) fn typed<'a>(call: Call<'a>, content_type: &str) -> Call<'a> {
    match HeaderValue::from_str(content_type) {
        Ok(value) if !value.is_empty() => call.header(CONTENT_TYPE, value),
        Ok(_) | Err(_) => call,
    }
}

/// Compares what arrived with what was sent.
pub(super) fn confirmed(action: &'static str, reply: &Reply, md5: &str) -> Result<()> {
    let answered = reply.header(ETAG.as_str()).map(unquoted);
    if answered.as_deref() == Some(md5) {
        return Ok(());
    }
    let detail = match answered {
        Some(_) => "the bytes did not arrive as they were sent",
        None => "the answer names no ETag, so that nothing proves that the bytes arrived",
    };
    Err(Error::new(Kind::IntegrityMismatch, action, detail))
}

/// An `ETag` without its quotes.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

/// Whether an open upload is one of these bytes in these segments.
fn fits(open: &OpenUpload, put: &Put, segment_bytes: u64) -> bool {
    let size = put.source.size();
    let is_part_right = |(number, part): (&u32, &crate::Part)| {
        let offset = u64::from(number.saturating_sub(1)) * segment_bytes;
        *number > 0 && offset < size && part.size == segment_bytes.min(size - offset)
    };
    open.target == put.name
        && Handle::of(open).segments.is_some()
        && open.part_bytes == segment_bytes
        && open.sha256 == hex::encode(put.source.digests().sha256)
        && open.parts.iter().all(is_part_right)
}

/// The error of a manifest that names segments which are not there, again and again.
pub(super) fn lost() -> Error {
    Error::new(Kind::Unavailable, COMPLETE, "the store lost segments, and lost them again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_large_enough_for_their_number_to_be_allowed() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(segment_bytes(100 * MIB, 256 * MIB, 1000), 256 * MIB);
        assert_eq!(segment_bytes(900 * 256 * MIB, 256 * MIB, 1000), 256 * MIB);
        assert_eq!(segment_bytes(900 * 256 * MIB + 1, 256 * MIB, 1000), 257 * MIB);
        assert_eq!(segment_bytes(10, 3, 1000), 3);
        assert_eq!(segment_bytes(10 * MIB, 1, 1), 10 * MIB);
        assert!((super::super::OBJECT_BYTES_MAX).div_ceil(5 * 1024 * MIB) <= 900);
    }
}
