//! The way in: one `PutObject` for what fits into a part, parts in parallel for the rest.
//!
//! An upload is in the journal before the service is asked to open it, its id before its first part is sent, every
//! part when it is acknowledged. So an interrupted upload goes on, or is aborted, by whoever reads the journal.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderValue, Method};
use tokio::sync::OnceCell;

use super::checksum::{self, ALGORITHM_HEADER, CRC32C_HEADER, MD5_HEADER, Proof, Support};
use super::objects::{is_gone, unquoted};
use super::service::Call;
use super::xml::{self, Complete, CompletePart, Completed, Created};
use super::{COMPLETE, CREATE, OBJECT_BYTES_MAX, S3, SEND_PART, STORE, attributes, errors};
use crate::error::{Error, Kind, Result, Retry};
use crate::http::Reply;
use crate::retry;
use crate::transfer::{Counted, OpenUpload, Part, Put, Receipt};
use crate::xml::{read_error, write};

/// S3's smallest part, apart from the last.
const PART_BYTES_MIN: u64 = 5 * 1024 * 1024;
/// Parts of one object at the most. 9,000 of the 10,000 that S3 takes: room for a size that was rounded.
const PARTS_MAX: u64 = 9000;
/// Part sizes are whole mebibytes.
const PART_BYTES_STEP: u64 = 1024 * 1024;
/// How often an upload is opened for one object: once more when the service lost it.
const UPLOADS_MAX: u32 = 2;

/// The size of the parts of an object of `size_bytes`.
fn part_bytes(size_bytes: u64, wanted_bytes: u64) -> u64 {
    let least = size_bytes.div_ceil(PARTS_MAX).next_multiple_of(PART_BYTES_STEP);
    wanted_bytes.max(PART_BYTES_MIN).max(least)
}

/// Bytes that are on their way, with their checksums.
struct Cargo {
    bytes: Bytes,
    crc32c: u32,
    md5: OnceCell<[u8; 16]>,
}

impl Cargo {
    async fn of(bytes: Bytes, with_md5: bool) -> Result<Self> {
        let (crc32c, md5) = checksum::digests(&bytes, with_md5).await?;
        Ok(Self { bytes, crc32c, md5: OnceCell::new_with(md5) })
    }

    async fn md5(&self) -> Result<[u8; 16]> {
        self.md5.get_or_try_init(|| checksum::md5(&self.bytes)).await.copied()
    }
}

impl S3 {
    /// Whether an object of this size goes in parts.
    pub(super) fn is_in_parts(&self, size_bytes: u64) -> bool {
        size_bytes > part_bytes(size_bytes, self.service.limits.part_bytes) && size_bytes <= OBJECT_BYTES_MAX
    }

    /// Stores one object.
    pub(super) async fn store(&self, put: Put) -> Result<Receipt> {
        let size = put.source.size();
        if size > OBJECT_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, STORE, "the object is larger than the 5 TiB that S3 takes"));
        }
        let part_bytes = part_bytes(size, self.service.limits.part_bytes);
        let is_single = !self.is_in_parts(size);
        let mut note = None;
        let resume = match put.resume.as_ref() {
            Some(open) if !is_single && fits(open, &put, part_bytes) => Some(open.clone()),
            Some(stale) => {
                note = self.clear(stale, &put).await?;
                None
            }
            None => None,
        };
        let headers = attributes::of_object(&self.attributes, &put.content_type);
        let receipt = if is_single {
            self.store_single(&put, headers).await?
        } else {
            self.store_parts(&put, headers, part_bytes, resume).await?
        };
        Ok(Receipt { note, ..receipt })
    }

    /// Removes what an earlier attempt left and this one cannot use. Not being allowed to is worth a note, no more.
    async fn clear(&self, stale: &OpenUpload, put: &Put) -> Result<Option<String>> {
        match self.abort_open(stale).await {
            Ok(()) => {
                put.journal.closed(&stale.target).await?;
                Ok(None)
            }
            Err(error) if error.kind == Kind::AccessDenied => Ok(Some(
                "an unfinished upload of an earlier attempt stays at the service, as the credentials may not abort it \
                 (s3:AbortMultipartUpload)"
                    .to_owned(),
            )),
            Err(error) => Err(error),
        }
    }

    async fn store_single(&self, put: &Put, headers: HeaderMap) -> Result<Receipt> {
        let digests = put.source.digests();
        let length = in_memory(put.source.size())?;
        let call = Call { headers, ..Call::new(STORE, Method::PUT, Some(&put.name)) };
        // Memory for one try: nobody keeps it through a pause.
        let (reply, proof) = retry::request(self.service.limits.tries, |_| async {
            let _memory = put.memory.take(put.source.size()).await;
            let bytes = if length == 0 { Bytes::new() } else { put.source.read_at(0, length).await? };
            let cargo = Cargo { bytes, crc32c: digests.crc32c, md5: OnceCell::new_with(digests.md5) };
            // Small enough to be sent with both at once, as long as it is not known which of them is checked.
            let with_md5 = self.service.checksums.get() != Support::Checks;
            self.send_proved(&call, &cargo, with_md5).await
        })
        .await?;
        crate::fail_point!("s3.stored");
        put.progress.add(put.source.size());
        Ok(Receipt {
            location: self.location(&put.name),
            etag: reply.header(ETAG.as_str()).map(unquoted),
            version: version(&reply),
            verified: name_of(proof).to_owned(),
            ..Receipt::default()
        })
    }

    async fn store_parts(
        &self,
        put: &Put,
        headers: HeaderMap,
        part_bytes: u64,
        mut resume: Option<OpenUpload>,
    ) -> Result<Receipt> {
        for _ in 0..UPLOADS_MAX {
            let open = match resume.take() {
                Some(open) => open,
                None => self.create(put, headers.clone(), part_bytes).await?,
            };
            if let Some(receipt) = self.transfer(put, open).await? {
                return Ok(receipt);
            }
            put.journal.closed(&put.name).await?;
            tracing::debug!("the service no longer knows the upload: it starts anew");
        }
        Err(Error::new(Kind::Unavailable, COMPLETE, "the service lost the upload, and lost it again"))
    }

    /// Opens an upload and writes it down: that it was asked for, then what it is called.
    async fn create(&self, put: &Put, headers: HeaderMap, part_bytes: u64) -> Result<OpenUpload> {
        let call = Call {
            headers,
            checksum: Some((ALGORITHM_HEADER, HeaderValue::from_static("CRC32C"))),
            ..Call::new(CREATE, Method::POST, Some(&put.name)).query("uploads", "")
        };
        let mut open = OpenUpload {
            target: put.name.clone(),
            handle: String::new(),
            sha256: hex::encode(put.source.digests().sha256),
            part_bytes,
            parts: BTreeMap::new(),
        };
        put.journal.opened(&open).await?;
        let is_unheard = AtomicBool::new(false);
        let opened = retry::request(self.service.limits.tries, |_| async {
            let answer = self.service.call_once(&call).await;
            if answer.as_ref().is_err_and(|error| error.is_transient() && error.kind != Kind::Throttled) {
                is_unheard.store(true, Ordering::Relaxed);
            }
            answer
        });
        let reply = opened.await?;
        let is_promised = reply.header(ALGORITHM_HEADER.as_str()) == Some("CRC32C");
        if is_promised && self.service.checksums.get() == Support::Unknown {
            self.service.checksums.set(Support::Checks);
        }
        let Created { upload_id } = xml::read(CREATE, &reply.body)?;
        open.handle = upload_id;
        crate::fail_point!("s3.created");
        put.journal.opened(&open).await?;
        if is_unheard.into_inner()
            && let Err(error) = self.abort_unheard(&open.target, Some(&open.handle)).await
        {
            tracing::warn!(error = %error, "an upload that was opened without an answer may stay at the service");
        }
        Ok(open)
    }

    /// Sends what is missing and completes; nothing when the service no longer knows the upload.
    async fn transfer(&self, put: &Put, mut open: OpenUpload) -> Result<Option<Receipt>> {
        let mut counted = Counted::new(&put.progress);
        let mut parts = std::mem::take(&mut open.parts);
        for part in parts.values() {
            counted.add(part.size);
        }
        let count = u32::try_from(put.source.size().div_ceil(open.part_bytes)).unwrap_or(u32::MAX);
        let mut missing = (1..=count).filter(|number| !parts.contains_key(number)).collect::<Vec<_>>().into_iter();
        let in_flight = self.parts_in_flight(open.part_bytes);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < in_flight
                && let Some(number) = missing.next()
            {
                running.push(self.send_part(put, &open.handle, open.part_bytes, number));
            }
            match running.next().await {
                None => break,
                Some(Ok((number, part))) => {
                    counted.add(part.size);
                    parts.insert(number, part);
                }
                Some(Err(error)) if is_gone(&error) && errors::code(&error) != "NoSuchBucket" => return Ok(None),
                Some(Err(error)) => return Err(error),
            }
        }
        drop(running);
        put.source.whole().await?;
        if !checksum::is_of_parts(put.source.digests().crc32c, parts.values()) {
            self.clear(&open, put).await?;
            return Err(checksum::mismatch(SEND_PART));
        }
        let receipt = self.complete(put, &open.handle, &parts).await?;
        if receipt.is_some() {
            crate::fail_point!("s3.completed");
            put.journal.closed(&put.name).await?;
            counted.keep();
        }
        Ok(receipt)
    }

    /// Parts at once: as many as the limits say, fewer when parts are larger than the limits say.
    fn parts_in_flight(&self, part_bytes: u64) -> usize {
        let limits = &self.service.limits;
        let budget_bytes = limits.part_bytes.max(PART_BYTES_MIN).saturating_mul(limits.parts_in_flight as u64);
        usize::try_from(budget_bytes / part_bytes).unwrap_or(usize::MAX).clamp(1, limits.parts_in_flight.max(1))
    }

    async fn send_part(&self, put: &Put, upload_id: &str, part_bytes: u64, number: u32) -> Result<(u32, Part)> {
        let offset = u64::from(number - 1) * part_bytes;
        let size = part_bytes.min(put.source.size() - offset);
        put.source.arrived(offset + size).await?;
        let call = Call::new(SEND_PART, Method::PUT, Some(&put.name))
            .query("partNumber", number.to_string())
            .query("uploadId", upload_id);
        // Memory for one try: nobody keeps it through a pause, or while the journal is written.
        let (reply, proof, crc32c) = retry::request(self.service.limits.tries, |_| async {
            let _memory = put.memory.take(size).await;
            let bytes = put.source.read_at(offset, in_memory(size)?).await?;
            let cargo = Cargo::of(bytes, self.wants_md5()).await?;
            let (reply, proof) = self.send_proved(&call, &cargo, false).await?;
            Ok((reply, proof, cargo.crc32c))
        })
        .await?;
        let etag = reply.header(ETAG.as_str()).map(unquoted);
        let part = Part {
            size,
            etag: etag.ok_or_else(|| Error::new(Kind::Protocol, SEND_PART, "the answer to a part names no ETag"))?,
            checksum: (proof == Proof::Crc32c).then(|| checksum::crc32c_text(crc32c)),
        };
        crate::fail_point!("s3.part");
        put.journal.part(&put.name, number, &part).await?;
        Ok((number, part))
    }

    fn wants_md5(&self) -> bool {
        matches!(self.service.checksums.get(), Support::Ignores | Support::Refuses)
    }

    /// Sends `cargo` and has its arrival proved; where the first answer proves nothing, sends it again with
    /// `Content-MD5`.
    async fn send_proved(&self, call: &Call<'_>, cargo: &Cargo, also_md5: bool) -> Result<(Reply, Proof)> {
        let mut with_md5 = also_md5 || self.wants_md5();
        loop {
            let mut headers = call.headers.clone();
            if with_md5 {
                let text = checksum::md5_text(cargo.md5().await?);
                headers.insert(MD5_HEADER, HeaderValue::try_from(text).expect("base64 makes a header"));
            }
            let crc32c = HeaderValue::try_from(checksum::crc32c_text(cargo.crc32c)).expect("base64 makes a header");
            let attempt = Call {
                headers,
                checksum: Some((CRC32C_HEADER, crc32c)),
                body: cargo.bytes.clone(),
                query: call.query.clone(),
                method: call.method.clone(),
                ..*call
            };
            let reply = self.service.call_once(&attempt).await?;
            if let Some(proof) = self.prove(&attempt, &reply, cargo, with_md5).await? {
                return Ok((reply, proof));
            }
            with_md5 = true;
        }
    }

    /// Finds the proof in an answer; none when the answer leaves it open.
    async fn prove(&self, call: &Call<'_>, reply: &Reply, cargo: &Cargo, with_md5: bool) -> Result<Option<Proof>> {
        if checksum::is_echoed(&reply.headers, cargo.crc32c, call.action)? {
            self.service.checksums.set(Support::Checks);
            return Ok(Some(Proof::Crc32c));
        }
        if self.service.checksums.get() != Support::Refuses {
            self.service.checksums.set(Support::Ignores);
        }
        let etag = reply.header(ETAG.as_str()).map(unquoted).unwrap_or_default();
        match checksum::as_md5(&etag) {
            Some(md5) if md5 == cargo.md5().await? => Ok(Some(Proof::Md5)),
            Some(_) if with_md5 && !self.is_encrypted(reply) => Err(checksum::mismatch(call.action)),
            Some(_) | None if with_md5 => Ok(Some(Proof::Md5)),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether an `ETag` need not be an MD5, although it looks like one.
    fn is_encrypted(&self, reply: &Reply) -> bool {
        self.is_encryption_asked || reply.header("x-amz-server-side-encryption").is_some_and(|how| how != "AES256")
    }

    /// Completes an upload; nothing when the service no longer knows it and the object is not there either.
    async fn complete(&self, put: &Put, upload_id: &str, parts: &BTreeMap<u32, Part>) -> Result<Option<Receipt>> {
        let listed = parts.iter().map(|(number, part)| CompletePart {
            number: *number,
            etag: format!("\"{}\"", part.etag),
            checksum: part.checksum.clone(),
        });
        let body = write(COMPLETE, &Complete { namespace: xml::NAMESPACE, parts: listed.collect() })?;
        let mut call = Call {
            body: body.into(),
            ..Call::new(COMPLETE, Method::POST, Some(&put.name)).query("uploadId", upload_id)
        };
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        match retry::request(self.service.limits.tries, |_| self.complete_once(&call)).await {
            Ok((reply, completed)) => self.receipt_of(put, parts, &reply, completed).await.map(Some),
            Err(error) if is_lost(&error) => self.find_completed(put, parts).await,
            Err(error) => Err(error),
        }
    }

    /// Asks once for completion. The answer begins before the work ends, so a 200 may carry an error.
    async fn complete_once(&self, call: &Call<'_>) -> Result<(Reply, Completed)> {
        let reply = self.service.call_once(call).await?;
        if read_error(&reply.body).is_some() {
            return Err(self.service.error(call, &reply));
        }
        let completed = xml::read(COMPLETE, &reply.body).map_err(|error| error.retrying(Retry::Later(None)))?;
        Ok((reply, completed))
    }

    /// Checks the completed object's marks against those of the parts.
    async fn receipt_of(
        &self,
        put: &Put,
        parts: &BTreeMap<u32, Part>,
        reply: &Reply,
        completed: Completed,
    ) -> Result<Receipt> {
        let is_checked = parts.values().all(|part| part.checksum.is_some());
        let whole = put.source.digests().crc32c;
        let is_checksum_wrong = is_checked
            && completed
                .checksum
                .as_deref()
                .is_some_and(|found| !checksum::is_checksum_right(found, parts.values(), whole));
        let etag = completed.etag.as_deref().map(unquoted);
        let is_comparable = !is_checked
            && !self.is_encrypted(reply)
            && etag.as_deref().is_some_and(|etag| etag.ends_with(&format!("-{}", parts.len())));
        let is_etag_wrong = is_comparable
            && checksum::composed_etag(parts.values()).is_some_and(|expected| etag.as_deref() != Some(&expected));
        if is_checksum_wrong || is_etag_wrong {
            put.journal.closed(&put.name).await?;
            return Err(checksum::mismatch(COMPLETE));
        }
        Ok(Receipt {
            location: self.location(&put.name),
            etag,
            version: version(reply),
            verified: verified(parts).to_owned(),
            ..Receipt::default()
        })
    }

    /// After the answer to a completion was lost: is the object there, and is it this one? Where that cannot be told,
    /// the upload starts anew, which leaves the same object.
    async fn find_completed(&self, put: &Put, parts: &BTreeMap<u32, Part>) -> Result<Option<Receipt>> {
        let object = match self.head(&put.name).await {
            Ok(object) => object,
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => return Ok(None),
        };
        let expected = checksum::composed_etag(parts.values());
        let is_this_one = object.size == put.source.size() && expected.is_some() && object.etag == expected;
        Ok(is_this_one.then(|| Receipt {
            location: self.location(&put.name),
            etag: object.etag,
            verified: verified(parts).to_owned(),
            ..Receipt::default()
        }))
    }
}

/// Whether an open upload is one of these bytes in these parts.
fn fits(open: &OpenUpload, put: &Put, part_bytes: u64) -> bool {
    let size = put.source.size();
    let is_part_right = |(number, part): (&u32, &Part)| {
        let offset = u64::from(number.saturating_sub(1)) * part_bytes;
        *number > 0 && offset < size && part.size == part_bytes.min(size - offset)
    };
    open.target == put.name
        && !open.handle.is_empty()
        && open.part_bytes == part_bytes
        && open.sha256 == hex::encode(put.source.digests().sha256)
        && open.parts.iter().all(is_part_right)
}

fn is_lost(error: &Error) -> bool {
    errors::code(error) == "InvalidPart" || (is_gone(error) && errors::code(error) != "NoSuchBucket")
}

fn in_memory(size_bytes: u64) -> Result<usize> {
    usize::try_from(size_bytes)
        .map_err(|error| Error::new(Kind::TooLarge, STORE, "a part does not fit into memory").because(error))
}

fn version(reply: &Reply) -> Option<String> {
    reply.header("x-amz-version-id").filter(|version| *version != "null").map(str::to_owned)
}

fn name_of(proof: Proof) -> &'static str {
    match proof {
        Proof::Crc32c => "crc32c",
        Proof::Md5 => "md5",
    }
}

fn verified(parts: &BTreeMap<u32, Part>) -> &'static str {
    let is_checked = parts.values().all(|part| part.checksum.is_some());
    name_of(if is_checked { Proof::Crc32c } else { Proof::Md5 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_large_enough_for_their_number_to_be_allowed() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(part_bytes(0, 8 * MIB), 8 * MIB);
        assert_eq!(part_bytes(100 * MIB, 8 * MIB), 8 * MIB);
        assert_eq!(part_bytes(100 * MIB, MIB), 5 * MIB);
        assert_eq!(part_bytes(72_001 * MIB, 8 * MIB), 9 * MIB);
        let largest = part_bytes(OBJECT_BYTES_MAX, 8 * MIB);
        assert!(OBJECT_BYTES_MAX.div_ceil(largest) <= PARTS_MAX && largest < 5 * 1024 * MIB);
    }
}
