//! The way in: one request for what fits into a chunk, a session that takes chunk after chunk for the rest.
//!
//! A session is in the journal before the service is asked for it, its address before its first byte is sent. An
//! interrupted upload goes on, or is cancelled, by whoever reads the journal. Where it goes on only the service knows, and
//! says when asked; the one part that the journal has of it grows with what was acknowledged, and tells people.
//!
//! The checksum of the whole goes out with the metadata, before the bytes: the service refuses others.
//!
//! # Source
//! Cloud Storage documentation, "Uploads and downloads", "Perform resumable uploads", "Data validation".

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use rand::RngCore as _;
use serde_json::json;

use super::endpoint::Tree;
use super::errors::is_gone;
use super::objects::{Resource, crc32c_text, read};
use super::service::{Service, Session};
use super::{CREATE, Gcs, OBJECT_BYTES_MAX, SEND, STATUS, STORE, checked};
use crate::error::{Error, Kind, Result, Retry};
use crate::http::Reply;
use crate::source::Digests;
use crate::transfer::{Counted, OpenUpload, Part, Put, Receipt};
use crate::{retry, source};

/// A chunk is a multiple of this, apart from the last.
const CHUNK_BYTES_STEP: u64 = 256 * 1024;
/// How often a session is opened for one object: again when the service lost it, or when what arrived was not what was
/// sent.
const SESSIONS_MAX: u32 = 3;

const UPLOAD_TYPE: HeaderName = HeaderName::from_static("x-upload-content-type");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("x-upload-content-length");

/// How far a session has come.
#[derive(Debug)]
pub(super) enum State {
    /// The service has that many bytes.
    Kept(u64),
    /// The object is there.
    Complete(Box<Resource>),
    /// The service no longer knows the session.
    Gone,
}

/// The size of a chunk.
fn chunk_bytes(wanted_bytes: u64) -> u64 {
    wanted_bytes.max(1).next_multiple_of(CHUNK_BYTES_STEP)
}

impl Gcs {
    /// Whether an object of this size goes in chunks.
    pub(super) fn is_in_chunks(&self, size_bytes: u64) -> bool {
        size_bytes > chunk_bytes(self.service.limits.part_bytes) && size_bytes <= OBJECT_BYTES_MAX
    }

    /// Stores one object.
    pub(super) async fn store(&self, put: Put) -> Result<Receipt> {
        checked(&put.name, STORE)?;
        let size = put.source.size();
        if size > OBJECT_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, STORE, "the object is larger than the 5 TiB that Google takes"));
        }
        // The metadata and the request must name the same type, letter by letter.
        let content_type = HeaderValue::try_from(put.content_type.as_str()).map_err(|error| {
            Error::new(Kind::InvalidRequest, STORE, "the content type has characters that cannot be sent")
                .because(error)
        })?;
        let chunk_bytes = chunk_bytes(self.service.limits.part_bytes);
        let is_single = !self.is_in_chunks(size);
        let resume = match put.resume.as_ref() {
            Some(open) if !is_single && fits(open, &put) => Some(open.clone()),
            Some(stale) => {
                self.abort_open(stale).await?;
                put.journal.closed(&stale.target).await?;
                None
            }
            None => None,
        };
        if is_single {
            self.store_single(&put, &content_type).await
        } else {
            self.store_chunks(&put, &content_type, chunk_bytes, resume).await
        }
    }

    fn metadata(put: &Put) -> Bytes {
        let mut metadata = json!({"name": put.name, "contentType": put.content_type});
        let digests = put.source.digests();
        // Of a file that is still arriving it is not known: the answer to the last chunk tells it.
        if digests != Digests::UNKNOWN {
            metadata["crc32c"] = crc32c_text(digests.crc32c).into();
        }
        metadata.to_string().into()
    }

    async fn store_single(&self, put: &Put, content_type: &HeaderValue) -> Result<Receipt> {
        let length = in_memory(put.source.size())?;
        // Chosen at random among 2^128: it does not stand in the bytes.
        let mut random = [0; 16];
        rand::rng().fill_bytes(&mut random);
        let boundary = hex::encode(random);
        let related = HeaderValue::try_from(format!("multipart/related; boundary={boundary}"));
        let related = related.expect("hex digits make a header");
        let json_head = format!("--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n");
        let media_head = [b"\r\n--", boundary.as_bytes(), b"\r\nContent-Type: ", content_type.as_bytes(), b"\r\n\r\n"];
        let head = [json_head.as_bytes(), &Self::metadata(put), &media_head.concat()].concat();
        let (head, end) = (Bytes::from(head), Bytes::from(format!("\r\n--{boundary}--\r\n")));
        let receipt = retry::request(self.service.limits.tries, |_| async {
            // Memory for one try: nobody keeps it through a pause.
            let memory = put.memory.take(put.source.size()).await;
            let bytes = if length == 0 { Bytes::new() } else { put.source.read_at(0, length).await? };
            let query = [("uploadType", "multipart")];
            let mut call = self.service.api(STORE, Method::POST, Tree::Upload, None, &query);
            call.object = Some(&put.name);
            call.headers.insert(CONTENT_TYPE, related.clone());
            call.body = vec![head.clone(), bytes, end.clone()];
            let reply = self.service.call_once(&call).await?;
            drop((call, memory));
            self.receipt(put, STORE, &read(STORE, &reply.body)?).await
        });
        let receipt = receipt.await?;
        crate::fail_point!("gcs.stored");
        put.progress.add(put.source.size());
        Ok(receipt)
    }

    async fn store_chunks(
        &self,
        put: &Put,
        content_type: &HeaderValue,
        chunk_bytes: u64,
        mut resume: Option<OpenUpload>,
    ) -> Result<Receipt> {
        for round in 1..=SESSIONS_MAX {
            let (open, is_new) = match resume.take() {
                Some(open) => (open, false),
                None => (self.create(put, content_type, chunk_bytes).await?, true),
            };
            let session = self.service.session(&open.handle)?;
            match self.transfer(put, &session, chunk_bytes, is_new).await {
                Ok(Some(receipt)) => return Ok(receipt),
                Ok(None) => tracing::debug!("the service no longer knows the upload: it starts anew"),
                Err(error) if error.kind == Kind::IntegrityMismatch && round < SESSIONS_MAX => {
                    tracing::debug!(error = %error, "the upload starts anew");
                    self.abort_open(&open).await?;
                }
                Err(error) => return Err(error),
            }
            put.journal.closed(&put.name).await?;
        }
        Err(Error::new(Kind::Unavailable, SEND, "the service lost the upload, and lost it again"))
    }

    /// Opens a session and writes it down: that it was asked for, then its address.
    async fn create(&self, put: &Put, content_type: &HeaderValue, chunk_bytes: u64) -> Result<OpenUpload> {
        let query = [("uploadType", "resumable")];
        let mut call = self.service.api(CREATE, Method::POST, Tree::Upload, None, &query);
        call.object = Some(&put.name);
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=UTF-8"));
        call.headers.insert(UPLOAD_TYPE, content_type.clone());
        call.headers.insert(UPLOAD_LENGTH, HeaderValue::from(put.source.size()));
        call.body = vec![Self::metadata(put)];
        let mut open = OpenUpload {
            target: put.name.clone(),
            handle: String::new(),
            sha256: hex::encode(put.source.digests().sha256),
            part_bytes: chunk_bytes,
            parts: BTreeMap::new(),
        };
        put.journal.opened(&open).await?;
        let reply = self.service.call(&call).await?;
        let address = reply.header(LOCATION.as_str()).unwrap_or_default();
        self.service.session(address)?;
        address.clone_into(&mut open.handle);
        crate::fail_point!("gcs.created");
        put.journal.opened(&open).await?;
        Ok(open)
    }

    /// Sends what is missing; nothing when the service no longer knows the session.
    async fn transfer(&self, put: &Put, session: &Session, chunk_bytes: u64, is_new: bool) -> Result<Option<Receipt>> {
        let size = put.source.size();
        let mut counted = Counted::new(&put.progress);
        let mut state = if is_new { State::Kept(0) } else { self.state_of(session, &put.name, Some(size)).await? };
        let mut tries = 0;
        let resource = loop {
            let kept = match state {
                State::Kept(kept) => kept,
                State::Complete(resource) => break resource,
                State::Gone => return Ok(None),
            };
            if kept > counted.bytes() {
                crate::fail_point!("gcs.chunk");
                put.journal.part(&put.name, 1, &Part { size: kept, etag: String::new(), checksum: None }).await?;
            }
            counted.set(kept);
            let sent = self.send_chunk(put, session, kept, chunk_bytes).await;
            let error = match sent {
                Ok(State::Kept(now)) if now <= kept => {
                    let detail = "the service did not keep what was sent";
                    Error::new(Kind::Unavailable, SEND, detail)
                }
                Ok(next) => {
                    tries = 0;
                    state = next;
                    continue;
                }
                Err(error) if error.kind == Kind::IntegrityMismatch => return Err(error),
                Err(error) => error,
            };
            let Retry::Later(asked) = error.retry else { return Err(error) };
            tries += 1;
            if tries >= self.service.limits.tries {
                return Err(error);
            }
            tracing::debug!(error = %error, "the upload goes on from where the service says");
            retry::note(error.kind);
            tokio::time::sleep(retry::pause(tries + 1, asked)).await;
            state = self.state_of(session, &put.name, Some(size)).await?;
            if matches!(state, State::Kept(now) if now > kept) {
                tries = 0;
            }
        };
        let receipt = self.receipt(put, SEND, &resource).await?;
        crate::fail_point!("gcs.completed");
        put.journal.closed(&put.name).await?;
        counted.set(size);
        counted.keep();
        Ok(Some(receipt))
    }

    /// Sends the chunk that begins at `from`.
    async fn send_chunk(&self, put: &Put, session: &Session, from: u64, chunk_bytes: u64) -> Result<State> {
        let size = put.source.size();
        let end = size.min(from.saturating_add(chunk_bytes));
        if from >= end {
            return self.state_of(session, &put.name, Some(size)).await;
        }
        put.source.arrived(end).await?;
        if end == size {
            // With the last chunk the object is there.
            put.source.whole().await?;
        }
        let _memory = put.memory.take(end - from).await;
        let mut call = Service::on(session, SEND, Method::PUT, &put.name);
        let range = HeaderValue::try_from(format!("bytes {from}-{}/{size}", end - 1));
        call.headers.insert(CONTENT_RANGE, range.expect("digits make a header"));
        call.body = vec![put.source.read_at(from, in_memory(end - from)?).await?];
        let answer = self.service.call_once(&call).await;
        Self::understood(SEND, answer, end)
    }

    /// Asks how far a session has come; `size` is that of the object, where it is known.
    pub(super) async fn state_of(&self, session: &Session, name: &str, size: Option<u64>) -> Result<State> {
        let mut call = Service::on(session, STATUS, Method::PUT, name);
        let total = size.map_or_else(|| "*".to_owned(), |size| size.to_string());
        let range = HeaderValue::try_from(format!("bytes */{total}"));
        call.headers.insert(CONTENT_RANGE, range.expect("digits make a header"));
        Self::understood(STATUS, self.service.call(&call).await, size.unwrap_or(u64::MAX))
    }

    /// What a session's answer says; `sent` is the end of what it can have.
    fn understood(action: &'static str, answer: Result<Reply>, sent: u64) -> Result<State> {
        let reply = match answer {
            Ok(reply) => reply,
            Err(error) if is_gone(&error) => return Ok(State::Gone),
            Err(error) => return Err(error),
        };
        if reply.status != StatusCode::PERMANENT_REDIRECT {
            return Ok(State::Complete(Box::new(read(action, &reply.body)?)));
        }
        let kept = match reply.header(RANGE.as_str()) {
            None => Some(0),
            Some(text) => kept_bytes(text),
        };
        match kept.filter(|kept| *kept <= sent) {
            Some(kept) => Ok(State::Kept(kept)),
            None => Err(Error::new(Kind::Protocol, action, "the service names a range that was never sent")),
        }
    }

    /// Compares what the service says it stores with what was sent.
    async fn receipt(&self, put: &Put, action: &'static str, stored: &Resource) -> Result<Receipt> {
        let digests = put.source.digests();
        let same = |found: &Option<String>, expected: String| found.as_ref().map(|found| *found == expected);
        let crc32c = same(&stored.crc32c, crc32c_text(digests.crc32c));
        // Where nobody computed it, it is only needed if there is nothing else to compare.
        let known = match (digests.md5, &crc32c, &stored.md5_hash) {
            (None, None, Some(_)) => Some(source::md5(&put.source).await?),
            (known, _, _) => known,
        };
        let md5 = known.and_then(|md5| same(&stored.md5_hash, STANDARD.encode(md5)));
        let size = same(&stored.size, put.source.size().to_string());
        if [crc32c, md5, size].contains(&Some(false)) {
            let detail = "the object that the service stores is not what was sent";
            return Err(Error::new(Kind::IntegrityMismatch, action, detail));
        }
        let verified = match (crc32c, md5, size) {
            (Some(_), _, _) => "crc32c",
            (None, Some(_), _) => "md5",
            (None, None, Some(_)) => "size",
            (None, None, None) => {
                return Err(Error::new(
                    Kind::Protocol,
                    action,
                    "the answer says nothing of the object; check `endpoint`",
                ));
            }
        };
        Ok(Receipt {
            location: self.location(&put.name),
            etag: stored.etag.clone(),
            version: stored.generation.clone(),
            verified: verified.to_owned(),
            ..Receipt::default()
        })
    }
}

/// Whether an open upload is one of these bytes. Chunks of another size do no harm.
fn fits(open: &OpenUpload, put: &Put) -> bool {
    open.target == put.name && !open.handle.is_empty() && open.sha256 == hex::encode(put.source.digests().sha256)
}

/// The end of `bytes=0-41` or `0-41`.
fn kept_bytes(range: &str) -> Option<u64> {
    let last: u64 = range.trim().trim_start_matches("bytes=").strip_prefix("0-")?.parse().ok()?;
    last.checked_add(1)
}

fn in_memory(size_bytes: u64) -> Result<usize> {
    usize::try_from(size_bytes)
        .map_err(|error| Error::new(Kind::TooLarge, STORE, "a chunk does not fit into memory").because(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_whole_steps() {
        for (wanted, expected) in [(0, 262_144), (1, 262_144), (262_144, 262_144), (262_145, 524_288)] {
            assert_eq!(chunk_bytes(wanted), expected);
        }
    }

    #[test]
    fn what_was_kept_is_read() {
        assert_eq!(kept_bytes("bytes=0-262143"), Some(262_144));
        assert_eq!(kept_bytes("0-0"), Some(1));
        for odd in ["", "bytes=5-9", "bytes=0-", "bytes=0-x", "bytes=0-18446744073709551615"] {
            assert_eq!(kept_bytes(odd), None, "{odd}");
        }
    }
}
