//! `export/s3`: puts files into an S3 bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::s3::{Config, S3};
use connectors::{Connector as _, Network, OpenUpload};
use garde::Validate;
use http::{HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::{Faults, TaskError};
use crate::operations::{Context, Feed, Operation, Outcome};
use crate::secret::Secret;

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

/// The operation `export/s3`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ExportS3;

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
pub(super) struct Args {
    /// Name of the bucket.
    #[garde(length(min = 1, max = 255))]
    bucket: String,
    /// Region of the bucket, such as `eu-west-1`. Services of one's own mostly take any.
    #[garde(length(min = 1, max = 64))]
    region: String,
    /// Host or base URL of a service other than Amazon's, such as `https://s3.example.com`. Without a scheme, `https://`
    /// is meant.
    #[garde(length(max = 2048))]
    endpoint: Option<String>,
    /// Key of the object, byte for byte. With several files, put `%d` into it or use `key_prefix`.
    #[garde(length(max = 1024))]
    key: Option<String>,
    /// Text in front of the files' own names; nothing is put between, so a folder ends with `/`.
    #[garde(length(max = 1024))]
    key_prefix: Option<String>,
    /// Public half of the key pair.
    #[garde(length(min = 1, max = 512))]
    access_key_id: String,
    /// Secret half of the key pair. Write only.
    #[garde(skip)]
    #[schemars(with = "String", extend("writeOnly" = true))]
    secret_access_key: Secret,
    /// Token of temporary credentials. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    session_token: Option<Secret>,
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

impl Args {
    fn connector(&self, network: &Network) -> connectors::Result<S3> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let config = Config {
            bucket: self.bucket.clone(),
            region: self.region.clone(),
            endpoint: given(&self.endpoint),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: self.session_token.clone().filter(|token| !token.expose().is_empty()),
            acl: given(&self.acl).map(|acl| spelled(&acl, &ACLS)),
            cache_control: given(&self.cache_control),
            content_disposition: given(&self.content_disposition),
            content_type: given(&self.content_type),
            metadata: self.metadata.clone(),
            tagging: self.tagging.clone(),
            server_side_encryption: given(&self.server_side_encryption).map(|how| spelled(&how, &ENCRYPTIONS)),
            ..Config::default()
        };
        S3::new(&config, network.http.clone(), network.limits)
    }
}

/// A known value however a client spells it (`PublicRead`, `public_read`), any other as it is: the service may know it.
fn spelled(text: &str, known: &[&str]) -> String {
    let bare = |text: &str| text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    let meant = known.iter().find(|known| bare(known) == bare(text));
    meant.map_or_else(|| text.to_owned(), |known| (*known).to_owned())
}

impl Operation for ExportS3 {
    const NAME: &'static str = "export/s3";
    const FEED: Feed = Feed::Inputs;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        naming::check_either(faults, ("key", args.key.as_deref()), ("key_prefix", args.key_prefix.as_deref()));
        if args.secret_access_key.expose().is_empty() {
            faults.add("secret_access_key", "The secret_access_key field is required.");
        }
        for (field, text) in [
            ("acl", &args.acl),
            ("cache_control", &args.cache_control),
            ("content_disposition", &args.content_disposition),
            ("content_type", &args.content_type),
            ("server_side_encryption", &args.server_side_encryption),
        ] {
            if !text.as_deref().is_none_or(|text| text.is_ascii() && HeaderValue::from_str(text).is_ok()) {
                faults.add(field, "This becomes a header: it may hold printable ASCII characters only.");
            }
        }
        for (key, text) in &args.metadata {
            let is_key = !key.is_empty() && HeaderName::from_bytes(key.as_bytes()).is_ok();
            if !is_key || text.chars().any(|letter| letter.is_ascii_control()) {
                faults.add(
                    format!("metadata.{key}"),
                    "This becomes a header: its name may hold letters, digits and hyphens, its value no line break.",
                );
            }
        }
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let connector = args.connector(&task.network)?;
        task.deliver(Arc::new(connector), &Naming::object(args.key, args.key_prefix)).await
    }

    async fn abort(args: Args, open: OpenUpload, network: Network) -> connectors::Result<()> {
        args.connector(&network)?.abort(&open).await
    }
}

#[cfg(test)]
mod tests;
