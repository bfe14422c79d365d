//! `export/s3`: puts files into an S3 bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::Network;
use connectors::s3::{Config, S3};
use garde::Validate;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::Faults;
use crate::operations::account::given;
use crate::operations::account::s3::Account;
use crate::operations::arguments::With;
use crate::operations::permissions::Permissions;
use crate::operations::storage::{Destination, ToStorage};

mod permissions;

/// The canned ACLs of the contract.
const ACLS: [&str; 6] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
];

/// The ways of encryption of the contract.
const ENCRYPTIONS: [&str; 2] = ["AES256", "aws:kms"];

/// The operation `export/s3`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ExportS3;

type Args = With<Account, Own>;

/// Puts the input files into a bucket of Amazon S3, or of a service that speaks its protocol.
///
/// Small files go in one request, larger ones in parts, several at a time. Under its key there is either what was there
/// before, or the whole new object. The credentials need no more than `s3:PutObject` (with `s3:PutObjectAcl` and
/// `s3:PutObjectTagging` where `acl` and `tagging` are given); with `s3:AbortMultipartUpload` as well, an upload that
/// failed leaves nothing behind. Only the credentials given here are ever used.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location` (`s3://bucket/key`), `etag`, `version` in a
/// bucket with versions, and how it was `verified`: `crc32c` where the service checks that of every part, else `md5`.
///
/// ## Retries
/// A broken upload goes on behind its last acknowledged part. An object is replaced whole, so running again leaves the
/// same objects.
///
/// ## Errors
/// `INVALID_CREDENTIALS`, `ACCESS_DENIED`, `CONTAINER_NOT_FOUND` (no such bucket), `REMOTE_REFUSED` (an argument, or
/// another region, which the message names), `HOST_NOT_ALLOWED`, `NAME_CONFLICT`, `FILE_TOO_LARGE`; tried again:
/// `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export to S3".
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportS3Args")]
pub(super) struct Own {
    /// Key of the object, byte for byte. With several files, put `%d` into it or use `key_prefix`.
    #[garde(length(max = 1024))]
    key: Option<String>,
    /// Text in front of the files' own names; nothing is put between, so a folder ends with `/`.
    #[garde(length(max = 1024))]
    key_prefix: Option<String>,
    /// Canned ACL of the objects: `private` (the default), `public-read`, `public-read-write`, `authenticated-read`,
    /// `bucket-owner-read`, `bucket-owner-full-control`, or another that the service knows.
    #[garde(length(max = 64))]
    #[schemars(extend("examples" = ACLS))]
    acl: Option<String>,
    /// `Cache-Control` header that the objects are served with.
    #[garde(length(max = 1024))]
    cache_control: Option<String>,
    /// `Content-Disposition` header that the objects are served with.
    #[garde(length(max = 1024))]
    content_disposition: Option<String>,
    /// `Content-Type` of all objects. By default each has its own.
    #[garde(length(max = 255))]
    content_type: Option<String>,
    /// Metadata of the objects, its keys with or without `x-amz-meta-`.
    #[garde(length(max = 100))]
    #[serde(default)]
    metadata: BTreeMap<String, String>,
    /// Encryption by the service: `AES256`, `aws:kms`, or another that it knows.
    #[garde(length(max = 64))]
    #[schemars(extend("examples" = ENCRYPTIONS))]
    server_side_encryption: Option<String>,
    /// Tags of the objects.
    #[garde(length(max = 50))]
    #[serde(default)]
    tagging: BTreeMap<String, String>,
}

/// A known value however a client spells it (`PublicRead`, `public_read`), any other as it is: the service may know it.
fn spelled(text: &str, known: &[&str]) -> String {
    let bare = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let meant = known.iter().find(|known| bare(known) == bare(text));
    meant.map_or_else(|| text.to_owned(), |known| (*known).to_owned())
}

impl ToStorage for ExportS3 {
    const NAME: &'static str = "export/s3";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        naming::check_either(faults, ("key", own.key.as_deref()), ("key_prefix", own.key_prefix.as_deref()));
        for (field, text) in [
            ("acl", &own.acl),
            ("cache_control", &own.cache_control),
            ("content_disposition", &own.content_disposition),
            ("content_type", &own.content_type),
            ("server_side_encryption", &own.server_side_encryption),
        ] {
            if !text.as_deref().is_none_or(|text| text.is_ascii() && HeaderValue::from_str(text).is_ok()) {
                faults.add(field, "This becomes a header: it may hold printable ASCII characters only.");
            }
        }
        for (key, text) in &own.metadata {
            let is_key = !key.is_empty() && HeaderName::from_bytes(key.as_bytes()).is_ok();
            if !is_key || text.chars().any(|letter| letter.is_ascii_control()) {
                faults.add(
                    format!("metadata.{key}"),
                    "This becomes a header: its name may hold letters, digits and hyphens, its value no line break.",
                );
            }
        }
    }

    fn destination(Args { account, own }: &Args, network: &Network) -> connectors::Result<Destination> {
        let config = Config {
            acl: given(own.acl.as_ref()).map(|acl| spelled(&acl, &ACLS)),
            cache_control: given(own.cache_control.as_ref()),
            content_disposition: given(own.content_disposition.as_ref()),
            content_type: given(own.content_type.as_ref()),
            metadata: own.metadata.clone(),
            tagging: own.tagging.clone(),
            server_side_encryption: given(own.server_side_encryption.as_ref()).map(|how| spelled(&how, &ENCRYPTIONS)),
            ..account.config()
        };
        Ok(Destination {
            connector: Arc::new(S3::new(&config, network.http.clone(), network.limits)?),
            naming: own.naming(),
        })
    }

    fn permissions(Args { account, own }: &Args) -> Option<Permissions> {
        let config = account.config();
        let acl = given(own.acl.as_ref()).map(|acl| spelled(&acl, &ACLS));
        let encryption = given(own.server_side_encryption.as_ref()).map(|how| spelled(&how, &ENCRYPTIONS));
        Some(permissions::permissions(&permissions::Asked {
            bucket: &config.bucket,
            region: &config.region,
            naming: &own.naming(),
            // The connector does not send the default.
            has_acl: acl.is_some_and(|acl| acl != "private"),
            has_tags: !own.tagging.is_empty(),
            has_kms: encryption.is_some_and(|how| how.starts_with("aws:kms")),
        }))
    }
}

impl Own {
    fn naming(&self) -> Naming {
        Naming::object(self.key.clone(), self.key_prefix.clone())
    }
}

#[cfg(test)]
mod tests;
