//! S3 and the services that speak its protocol.
//!
//! The protocol is spoken here, over [`crate::http::Client`], with `aws-sigv4` for signatures and `quick-xml` for
//! answers, instead of through a storage library: a ledger needs the id of an upload *before* its first part, which
//! the libraries' writers keep to themselves; keys must arrive byte for byte, which they normalise; and the headers
//! of encryption must not stand on parts, where at least one of them puts them.
//!
//! `service` sends one request, `upload` is the way in, `objects` everything else, `store` what a file store needs beyond
//! that, `checksum` the proof that bytes arrived, `errors` the translation of refusals.

mod attributes;
mod checksum;
mod endpoint;
mod errors;
mod objects;
mod service;
mod sign;
mod store;
mod upload;
mod xml;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use http::HeaderMap;

pub use endpoint::Addressing;
pub use objects::OpenAtService;

use crate::Connector;
use crate::download::Described;
use crate::error::{ARGUMENTS, Error, Kind, Result};
use crate::http::Client;
use crate::secret::Secret;
use crate::source::ByteStream;
use crate::transfer::{Capability, Limits, Object, OpenUpload, Put, Receipt};

/// Largest object.
///
/// # Source
/// Amazon S3 User Guide, "Amazon S3 multipart upload limits".
pub(crate) const OBJECT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;

// What is being done, for errors. `errors` tells from it which permission is missing.
const STORE: &str = "storing the object";
const CREATE: &str = "opening the upload";
const SEND_PART: &str = "sending a part";
const COMPLETE: &str = "completing the upload";
const STAT: &str = "looking at the object";
const READ: &str = "reading the object";
const LIST: &str = "listing the bucket";
const DELETE: &str = "deleting the object";
const COPY: &str = "copying the object";
const LINK: &str = "signing a link";
const ABORT: &str = "aborting the upload";
const LIST_PARTS: &str = "listing the parts of an upload";
const LIST_UPLOADS: &str = "listing the open uploads";

/// A bucket, the credentials for it, and what the objects put there carry.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Name of the bucket.
    pub bucket: String,
    /// Region of the bucket; a service of one's own takes any, or a fixed one.
    pub region: String,
    /// Host or base URL of the service; Amazon's in the region when absent. Without a scheme, `https://` is meant.
    pub endpoint: Option<String>,
    /// Public half of the key pair.
    pub access_key_id: String,
    /// Secret half of the key pair.
    pub secret_access_key: Secret,
    /// Token of temporary credentials.
    pub session_token: Option<Secret>,
    /// Canned ACL. `private`, which is the default everywhere, is not sent: buckets without ACLs refuse it.
    pub acl: Option<String>,
    /// `Cache-Control` of the objects.
    pub cache_control: Option<String>,
    /// `Content-Disposition` of the objects.
    pub content_disposition: Option<String>,
    /// `Content-Type` of all objects, instead of each one's own.
    pub content_type: Option<String>,
    /// Metadata, its keys with or without `x-amz-meta-`.
    pub metadata: BTreeMap<String, String>,
    /// Tags.
    pub tagging: BTreeMap<String, String>,
    /// `AES256`, `aws:kms`, or another value that the service knows.
    pub server_side_encryption: Option<String>,
    /// Where the name of the bucket stands in the URL.
    pub addressing: Addressing,
}

/// A bucket. It remembers what the service showed of itself, so one is made for each task.
pub struct S3 {
    service: service::Service,
    attributes: HeaderMap,
    is_encryption_asked: bool,
}

impl S3 {
    /// Makes a connector from complete credentials; none are ever looked for elsewhere. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`] for a value that cannot be sent, with the name of the argument;
    /// [`Kind::InvalidCredentials`] when a half of the key pair is missing.
    pub fn new(config: &Config, client: Client, limits: Limits) -> Result<Self> {
        if config.access_key_id.is_empty() || config.secret_access_key.expose().is_empty() {
            return Err(Error::new(
                Kind::InvalidCredentials,
                ARGUMENTS,
                "`access_key_id` and `secret_access_key` are both needed",
            ));
        }
        Ok(Self {
            attributes: attributes::headers(config)?,
            is_encryption_asked: config.server_side_encryption.is_some(),
            service: service::Service::new(config, client, limits)?,
        })
    }

    fn location(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.service.bucket())
    }
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("bucket", &self.service.bucket())
            .field("host", &self.service.host())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for S3 {
    fn capability(&self) -> Capability {
        Capability {
            resumes: true,
            aborts: true,
            names_are_keys: true,
            keeps_dot_segments: true,
            has_containers: true,
            checks_single_put: true,
            can_throttle: true,
            keeps_content_type: true,
            verifies_by: "crc32c",
            name_bytes_max: 1024,
            object_bytes_max: OBJECT_BYTES_MAX,
        }
    }

    fn host(&self) -> String {
        self.service.host()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        Box::pin(self.store(put)).await
    }

    fn begins_early(&self, size_bytes: u64) -> bool {
        self.is_in_parts(size_bytes)
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        self.head(name).await
    }

    async fn describe(&self, name: &str, _listed: Option<Object>) -> Result<Described> {
        self.look(name).await
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        self.get(name, range, None).await
    }

    async fn read_same(&self, object: &Object, range: Range<u64>) -> Result<ByteStream> {
        self.get(&object.name, range, object.etag.as_deref()).await
    }

    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        self.objects(prefix, limit).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.remove(name).await
    }

    async fn abort(&self, open: &OpenUpload) -> Result<()> {
        self.abort_open(open).await
    }
}
