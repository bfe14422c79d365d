//! How the bytes of a part are proved to have arrived, and what a service has shown of itself in that.
//!
//! CRC32C is sent with every part. A service that echoes it has checked it. One that stays silent (older gateways)
//! has not: its parts are then sent with `Content-MD5`, and those that went out before that was known are proved by
//! an `ETag` that is the MD5 of the part, or sent again. One that refuses the header gets none.

use std::sync::atomic::{AtomicU8, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName};
use md5::{Digest as _, Md5};

use crate::download::WholeDigest;
use crate::error::{Error, Kind, Result};
use crate::http::header;
use crate::transfer::Part;

/// The checksum of a part or of a single object.
pub(super) const CRC32C_HEADER: HeaderName = HeaderName::from_static("x-amz-checksum-crc32c");
/// The algorithm that the parts of an upload will use.
pub(super) const ALGORITHM_HEADER: HeaderName = HeaderName::from_static("x-amz-checksum-algorithm");
/// MD5 of a body.
pub(super) const MD5_HEADER: HeaderName = HeaderName::from_static("content-md5");

/// What a service does with CRC32C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Support {
    /// Not known yet.
    Unknown = 0,
    /// It checks and echoes.
    Checks = 1,
    /// It takes the header and ignores it.
    Ignores = 2,
    /// It answers with an error.
    Refuses = 3,
}

/// What the service has shown so far.
#[derive(Debug, Default)]
pub(super) struct Learned(AtomicU8);

impl Learned {
    pub(super) fn get(&self) -> Support {
        match self.0.load(Ordering::Relaxed) {
            0 => Support::Unknown,
            1 => Support::Checks,
            2 => Support::Ignores,
            _ => Support::Refuses,
        }
    }

    pub(super) fn set(&self, support: Support) {
        self.0.store(support as u8, Ordering::Relaxed);
    }
}

/// How a body was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// The service echoed the CRC32C.
    Crc32c,
    /// The service took `Content-MD5`, or answered with an `ETag` that is the MD5.
    Md5,
}

/// Computes CRC32C, and MD5 where `with_md5`, off the threads that move bytes.
pub(super) async fn digests(bytes: &Bytes, with_md5: bool) -> Result<(u32, Option<[u8; 16]>)> {
    computed(bytes, move |bytes| (crc_fast::crc32_iscsi(bytes), with_md5.then(|| Md5::digest(bytes).into()))).await
}

/// Computes MD5 off the threads that move bytes.
pub(super) async fn md5(bytes: &Bytes) -> Result<[u8; 16]> {
    computed(bytes, |bytes| Md5::digest(bytes).into()).await
}

async fn computed<T: Send + 'static>(bytes: &Bytes, compute: impl FnOnce(&[u8]) -> T + Send + 'static) -> Result<T> {
    let bytes = bytes.clone();
    tokio::task::spawn_blocking(move || compute(&bytes)).await.map_err(|error| {
        Error::new(Kind::Local, "computing the checksum", "the computation was stopped").because(error)
    })
}

/// A CRC32C as the protocol writes it.
pub(super) fn crc32c_text(crc: u32) -> String {
    STANDARD.encode(crc.to_be_bytes())
}

/// An MD5 as `Content-MD5` writes it.
pub(super) fn md5_text(md5: [u8; 16]) -> String {
    STANDARD.encode(md5)
}

/// Judges the echo of a CRC32C: true for the right one, false for none.
pub(super) fn is_echoed(headers: &HeaderMap, crc: u32, action: &'static str) -> Result<bool> {
    match headers.get(CRC32C_HEADER) {
        None => Ok(false),
        Some(echo) if echo.as_bytes() == crc32c_text(crc).as_bytes() => Ok(true),
        Some(_) => Err(mismatch(action)),
    }
}

/// The error of bytes that arrived otherwise than they were sent.
pub(super) fn mismatch(action: &'static str) -> Error {
    Error::new(Kind::IntegrityMismatch, action, "the bytes did not arrive as they were sent")
}

/// The digest of a whole object, where the head of an answer tells one: a checksum that is not composed of those of
/// parts, else an `ETag` that is an MD5.
///
/// # Source
/// Amazon S3 API Reference, "Object": an `ETag` is no MD5 after `SSE-C` or `SSE-KMS`, nor in a directory bucket.
pub(super) fn of_whole(headers: &HeaderMap, bucket: &str) -> Option<WholeDigest> {
    let text = |name: &str| header(headers, name);
    let checksum = |name: &str| STANDARD.decode(text(name).filter(|text| !text.contains('-'))?).ok();
    if text("x-amz-checksum-type") != Some("COMPOSITE") {
        if let Some(sha256) = checksum("x-amz-checksum-sha256").and_then(|bytes| bytes.try_into().ok()) {
            return Some(WholeDigest::Sha256(sha256));
        }
        if let Some(crc) = checksum(CRC32C_HEADER.as_str()).and_then(|bytes| bytes.try_into().ok()) {
            return Some(WholeDigest::Crc32c(u32::from_be_bytes(crc)));
        }
    }
    let is_encrypted = text("x-amz-server-side-encryption-customer-algorithm").is_some()
        || text("x-amz-server-side-encryption").is_some_and(|how| how.starts_with("aws:kms"));
    let etag = text("etag").filter(|_| !is_encrypted && !bucket.ends_with("--x-s3"))?;
    as_md5(etag.trim_matches('"')).map(WholeDigest::Md5)
}

/// An `ETag` that has the form of an MD5; with encryption it may have it and be none.
pub(super) fn as_md5(etag: &str) -> Option<[u8; 16]> {
    let mut md5 = [0; 16];
    hex::decode_to_slice(etag, &mut md5).ok().map(|()| md5)
}

/// The `ETag` that an object of `parts` has, where those of the parts are MD5s.
pub(super) fn composed_etag<'a>(parts: impl ExactSizeIterator<Item = &'a Part>) -> Option<String> {
    let count = parts.len();
    let mut hash = Md5::new();
    for part in parts {
        hash.update(as_md5(&part.etag)?);
    }
    Some(format!("{}-{count}", hex::encode(hash.finalize())))
}

/// Compares the checksum of a complete object with ours; it is composed of those of the parts, or of all bytes.
pub(super) fn is_checksum_right<'a>(
    found: &str,
    parts: impl ExactSizeIterator<Item = &'a Part>,
    whole_crc32c: u32,
) -> bool {
    let Some((composed, count)) = found.split_once('-') else { return found == crc32c_text(whole_crc32c) };
    let expected_count = parts.len();
    let mut joined = Vec::with_capacity(4 * expected_count);
    for part in parts {
        match part.checksum.as_deref().and_then(|text| STANDARD.decode(text).ok()) {
            Some(crc) => joined.extend(crc),
            None => return false,
        }
    }
    count == expected_count.to_string() && composed == crc32c_text(crc_fast::crc32_iscsi(&joined))
}

/// Whether the checksums of the parts make up that of the whole; what has no checksum cannot say that it does not.
pub(super) fn is_of_parts<'a>(whole_crc32c: u32, parts: impl Iterator<Item = &'a Part>) -> bool {
    let mut joined = 0;
    for part in parts {
        let crc = part.checksum.as_deref().and_then(|text| STANDARD.decode(text).ok());
        let Some(crc) = crc.and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()) else { return true };
        let crc = u64::from(u32::from_be_bytes(crc));
        joined = crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc32Iscsi, joined, crc, part.size);
    }
    joined == u64::from(whole_crc32c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(bytes: &[u8]) -> Part {
        let checksum = Some(crc32c_text(crc_fast::crc32_iscsi(bytes)));
        Part { size: bytes.len() as u64, etag: hex::encode(Md5::digest(bytes)), checksum }
    }

    #[test]
    fn known_answers() {
        // RFC 3720, B.4: 32 bytes of zeroes.
        assert_eq!(crc32c_text(crc_fast::crc32_iscsi(&[0; 32])), "ipE2qg==");
        assert_eq!(md5_text(Md5::digest(b"").into()), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }

    #[test]
    fn only_what_covers_all_bytes_unencrypted_is_a_digest_of_the_whole() {
        let told = |fields: &[(&'static str, &str)]| {
            let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
            of_whole(&fields.collect(), "bucket")
        };
        let (crc, md5) = (("x-amz-checksum-crc32c", "ipE2qg=="), ("etag", "\"d41d8cd98f00b204e9800998ecf8427e\""));
        let of_nothing = WholeDigest::Md5(Md5::digest(b"").into());
        assert_eq!(told(&[crc, md5]), Some(WholeDigest::Crc32c(0x8a91_36aa)));
        assert_eq!(told(&[crc, md5, ("x-amz-checksum-type", "COMPOSITE")]), Some(of_nothing));
        assert_eq!(
            told(&[("x-amz-checksum-crc32c", "ipE2qg==-2"), ("etag", "\"d41d8cd98f00b204e9800998ecf8427e-2\"")]),
            None
        );
        assert_eq!(told(&[md5, ("x-amz-server-side-encryption", "AES256")]), Some(of_nothing));
        assert_eq!(told(&[md5, ("x-amz-server-side-encryption", "aws:kms:dsse")]), None);
        assert_eq!(told(&[md5, ("x-amz-server-side-encryption-customer-algorithm", "AES256")]), None);
        assert_eq!(told(&[("etag", "\"opaque\"")]), None);
        let sha256 = ("x-amz-checksum-sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        assert!(matches!(told(&[crc, sha256]), Some(WholeDigest::Sha256(_))));
    }

    #[test]
    fn composed_marks_are_checked_in_both_forms() {
        let parts = [part(b"hello "), part(b"world")];
        let whole = crc_fast::crc32_iscsi(b"hello world");
        let both: Vec<u8> = [b"hello ".as_slice(), b"world"]
            .iter()
            .flat_map(|bytes| crc_fast::crc32_iscsi(bytes).to_be_bytes())
            .collect();
        let composed = format!("{}-2", crc32c_text(crc_fast::crc32_iscsi(&both)));
        assert!(is_checksum_right(&composed, parts.iter(), whole));
        assert!(is_checksum_right(&crc32c_text(whole), parts.iter(), whole));
        assert!(!is_checksum_right(&composed.replace("-2", "-3"), parts.iter(), whole));
        assert!(!is_checksum_right(&crc32c_text(whole ^ 1), parts.iter(), whole));
        let swapped = [parts[1].clone(), parts[0].clone()];
        assert!(!is_checksum_right(&composed, swapped.iter(), whole));
        assert!(is_of_parts(whole, parts.iter()));
        assert!(!is_of_parts(whole, swapped.iter()));
        let unproved = [Part { checksum: None, ..parts[0].clone() }];
        assert!(is_of_parts(whole, unproved.iter()), "nothing is known of it");
    }

    #[test]
    fn an_etag_is_composed_of_md5s_only() {
        let mut parts = [part(b"a"), part(b"b")];
        let joined = [Md5::digest(b"a"), Md5::digest(b"b")].concat();
        assert_eq!(composed_etag(parts.iter()), Some(format!("{}-2", hex::encode(Md5::digest(joined)))));
        parts[0].etag = "not-md5".to_owned();
        assert_eq!(composed_etag(parts.iter()), None);
    }
}
