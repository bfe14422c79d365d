//! Turns what requests say into descriptions of objects, and what is stored into answers.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{
    ChecksumMode, ChecksumType, CommonPrefix, ETagCondition, EncodingType, GetObjectInput, HeadObjectOutput, Object,
    ObjectStorageClass, ServerSideEncryption, StorageClass, Tag, Timestamp,
};
use s3s::{S3Result, s3_error};

use super::checksum::{Checksums, set_checksums};
use super::listing::Page;
use super::objects::{Description, Stored, is_match, strong};

/// Access lists that S3 has names for. They are accepted and kept, and grant nothing.
const ACLS: [&str; 8] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];
/// What stays as it is in a listing with `encoding-type=url`.
const LISTED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

/// Makes a description from the fields that `PutObject` and `CreateMultipartUpload` share.
macro_rules! describe {
    ($input:expr) => {
        $crate::s3::objects::Description {
            content_type: $input.content_type.take(),
            cache_control: $input.cache_control.take(),
            content_disposition: $input.content_disposition.take(),
            content_encoding: $input.content_encoding.take(),
            content_language: $input.content_language.take(),
            metadata: $input.metadata.take().unwrap_or_default().into_iter().collect(),
            tagging: $input.tagging.take(),
            acl: $input.acl.take().map(|acl| acl.as_str().to_owned()),
            server_side_encryption: $input.server_side_encryption.take().map(|sse| sse.as_str().to_owned()),
            storage_class: $input.storage_class.take().map(|class| class.as_str().to_owned()),
            ..Default::default()
        }
    };
}

/// Collects what a request says of its body, from the fields that `PutObject` and `UploadPart` share.
macro_rules! claims {
    ($request:expr) => {
        $crate::s3::checksum::Claims {
            md5: $request.input.content_md5.take(),
            checksums: $crate::s3::checksum::take_checksums!($request.input),
            promised: $request.headers.get("x-amz-trailer").and_then(|header| header.to_str().ok()).map(str::to_owned),
            trailing: $request.trailing_headers.take(),
            algorithm: $request.input.checksum_algorithm.take().map(|algorithm| algorithm.as_str().to_owned()),
        }
    };
}

pub(super) use {claims, describe};

/// Refuses wishes that S3 does not know or this server cannot pretend to fulfil.
pub(super) fn check_description(description: &Description, customer_key: Option<&str>) -> S3Result<()> {
    if description.acl.as_deref().is_some_and(|acl| !ACLS.contains(&acl)) {
        return Err(s3_error!(InvalidArgument, "The canned ACL is not known."));
    }
    match description.server_side_encryption.as_deref() {
        None | Some(ServerSideEncryption::AES256) => {}
        Some(ServerSideEncryption::AWS_KMS | ServerSideEncryption::AWS_KMS_DSSE) => {
            return Err(s3_error!(NotImplemented, "The practice server has no key management service; use AES256."));
        }
        Some(_) => return Err(s3_error!(InvalidArgument, "The encryption method specified is not supported.")),
    }
    if customer_key.is_some() {
        return Err(s3_error!(NotImplemented, "The practice server does not encrypt with keys of customers."));
    }
    Ok(())
}

/// Gives the encryption to confirm.
pub(super) fn encryption(description: &Description) -> Option<ServerSideEncryption> {
    description.server_side_encryption.clone().map(ServerSideEncryption::from)
}

/// Conditions of `GetObject` and `HeadObject`.
#[derive(Debug, Default)]
pub(super) struct ReadCondition {
    /// `If-Match`.
    pub matches: Option<ETagCondition>,
    /// `If-None-Match`.
    pub none_matches: Option<ETagCondition>,
    /// `If-Modified-Since`.
    pub modified_since: Option<Timestamp>,
    /// `If-Unmodified-Since`.
    pub unmodified_since: Option<Timestamp>,
}

impl ReadCondition {
    /// Refuses when a condition does not hold. An `ETag` wins over a time.
    ///
    /// # Source
    /// RFC 9110, section 13.2.2.
    pub(super) fn check(&self, stored: &Stored) -> S3Result<()> {
        let etag = &stored.description.etag;
        let modified = whole_seconds(stored.modified);
        let is_changed = match (&self.matches, &self.unmodified_since) {
            (Some(wanted), _) => !is_match(wanted, etag),
            (None, Some(since)) => modified > *since,
            (None, None) => false,
        };
        if is_changed {
            return Err(s3_error!(PreconditionFailed, "At least one of the preconditions you specified did not hold."));
        }
        let is_known = match (&self.none_matches, &self.modified_since) {
            (Some(known), _) => is_match(known, etag),
            (None, Some(since)) => modified <= *since,
            (None, None) => false,
        };
        if is_known { Err(s3_error!(NotModified)) } else { Ok(()) }
    }
}

/// Takes the conditions out of the input of `GetObject`.
pub(super) fn read_condition(input: &mut GetObjectInput) -> ReadCondition {
    ReadCondition {
        matches: input.if_match.take(),
        none_matches: input.if_none_match.take(),
        modified_since: input.if_modified_since.take(),
        unmodified_since: input.if_unmodified_since.take(),
    }
}

/// Gives the time as HTTP tells it: without fractions of a second.
fn whole_seconds(time: SystemTime) -> Timestamp {
    let time = time::OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time).into()
}

/// Says everything about an object but its bytes.
pub(super) fn head(stored: &Stored, mode: Option<&ChecksumMode>) -> HeadObjectOutput {
    let description = stored.description.clone();
    let is_plain = description.storage_class.as_deref() == Some(StorageClass::STANDARD);
    let mut output = HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        cache_control: description.cache_control,
        content_disposition: description.content_disposition,
        content_encoding: description.content_encoding,
        content_language: description.content_language,
        content_length: i64::try_from(stored.size_bytes).ok(),
        content_type: description.content_type.or_else(|| Some("binary/octet-stream".to_owned())),
        e_tag: Some(strong(&description.etag)),
        last_modified: Some(stored.modified.into()),
        metadata: Some(description.metadata.into_iter().collect()),
        server_side_encryption: description.server_side_encryption.map(ServerSideEncryption::from),
        storage_class: description.storage_class.filter(|_| !is_plain).map(StorageClass::from),
        ..HeadObjectOutput::default()
    };
    if mode.is_some_and(|mode| mode.as_str() == ChecksumMode::ENABLED) {
        set_checksums!(output, description.checksums);
        output.checksum_type = description.checksum_type.map(ChecksumType::from);
    }
    output
}

/// Gives the type to keep with the checksums of an object that came in one piece.
pub(super) fn single_checksum_type(checksums: &Checksums) -> Option<String> {
    (*checksums != Checksums::default()).then(|| ChecksumType::FULL_OBJECT.to_owned())
}

/// Splits the tagging header into tags.
pub(super) fn tags(header: &str) -> Vec<Tag> {
    let plain = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pairs = header.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| Tag { key: Some(plain(key)), value: Some(plain(value)) })
        .collect()
}

/// Writes text of a listing as the client asked: percent-encoded, since XML cannot carry every character.
pub(super) fn listed(encoding: Option<&EncodingType>, text: &str) -> String {
    if encoding.is_some_and(|encoding| encoding.as_str() == EncodingType::URL) {
        utf8_percent_encode(text, LISTED).to_string()
    } else {
        text.to_owned()
    }
}

/// Splits a page into objects and common prefixes.
pub(super) fn contents(page: Page, encoding: Option<&EncodingType>) -> (Vec<Object>, Vec<CommonPrefix>) {
    let mut objects = Vec::new();
    let mut prefixes = Vec::new();
    for (name, object) in page.entries {
        let name = listed(encoding, &name);
        let Some(object) = object else {
            prefixes.push(CommonPrefix { prefix: Some(name) });
            continue;
        };
        objects.push(Object {
            key: Some(name),
            size: i64::try_from(object.attributes.len()).ok(),
            e_tag: Some(strong(&object.etag)),
            last_modified: object.attributes.modified().ok().map(Timestamp::from),
            storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
            ..Object::default()
        });
    }
    (objects, prefixes)
}

/// Makes the token from which the next page goes on.
pub(super) fn token(last: &str) -> String {
    URL_SAFE_NO_PAD.encode(last)
}

/// Reads a token.
pub(super) fn read_token(token: &str) -> S3Result<String> {
    let name = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    name.ok_or_else(|| s3_error!(InvalidArgument, "The continuation token provided is incorrect."))
}
