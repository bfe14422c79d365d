//! Google Cloud Storage, over its JSON API, and what speaks the same.
//!
//! The protocol is spoken here, over [`crate::http::Client`], instead of through a storage library: a ledger needs the
//! address of an upload's session *before* its first byte, names must arrive byte for byte, and one access token is to
//! serve all transfers of an account.
//!
//! One object goes out in order: a session of the service takes one chunk after the other, and nothing but another
//! object could be sent beside it. (Composing an object of several would need the rights to read and to delete.)
//! Under the name of the object nothing is visible before its last byte was taken and its checksum found right.
//!
//! `tokens` gets the right to do all that, `service` sends one request, `upload` is the way in, `objects` everything
//! else, `store` what a file store needs beyond that, `errors` the translation of refusals.

mod endpoint;
mod errors;
mod keys;
mod objects;
mod service;
mod store;
mod tokens;
mod upload;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;

pub use tokens::Tokens;

use crate::Connector;
use crate::error::{Error, Kind, Result};
use crate::http::Client;
use crate::secret::Secret;
use crate::source::ByteStream;
use crate::transfer::{Capability, Limits, Object, OpenUpload, Put, Receipt};

/// Largest object.
///
/// # Source
/// Cloud Storage documentation, "Quotas & limits".
pub(crate) const OBJECT_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;
/// Longest name of an object in bytes of UTF-8.
///
/// # Source
/// Cloud Storage documentation, "About Cloud Storage objects".
const NAME_BYTES_MAX: usize = 1024;

// What is being done, for errors. `errors` tells from it which permission is missing.
const TOKEN: &str = "getting an access token";
const STORE: &str = "storing the object";
const CREATE: &str = "opening the upload";
const SEND: &str = "sending a chunk";
const STATUS: &str = "asking how much of the upload arrived";
const STAT: &str = "looking at the object";
const READ: &str = "reading the object";
const LIST: &str = "listing the bucket";
const DELETE: &str = "deleting the object";
const COPY: &str = "copying the object";
const ABORT: &str = "cancelling the upload";

/// A bucket, and the service account that may use it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Name of the bucket.
    pub bucket: String,
    /// E-mail address of the service account.
    pub client_email: String,
    /// Its private key in PEM, PKCS#8 or PKCS#1; line ends may be spelled out or lost.
    pub private_key: Secret,
    /// Host or base URL of the API; Google's when absent. Without a scheme, `https://` is meant.
    pub endpoint: Option<String>,
    /// URL that issues access tokens; Google's when absent.
    pub token_uri: Option<String>,
}

/// A bucket of Google Cloud Storage.
pub struct Gcs {
    service: service::Service,
}

impl Gcs {
    /// Makes a connector from complete credentials; none are ever looked for elsewhere. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`] for a value that cannot be used, with the name of the argument;
    /// [`Kind::InvalidCredentials`] when the e-mail address or the key is missing, or the key cannot be read.
    pub fn new(config: &Config, client: Client, tokens: &Tokens, limits: Limits) -> Result<Self> {
        Ok(Self { service: service::Service::new(config, client, tokens, limits)? })
    }

    fn location(&self, name: &str) -> String {
        format!("gs://{}/{name}", self.service.bucket())
    }
}

/// Refuses what cannot be the name of an object.
///
/// # Source
/// Cloud Storage documentation, "About Cloud Storage objects", "Object naming guidelines".
fn checked<'a>(name: &'a str, action: &'static str) -> Result<&'a str> {
    let detail = match name {
        "" => "the name of the object is empty",
        "." | ".." => "an object cannot be named `.` or `..`",
        _ if name.len() > NAME_BYTES_MAX => "the name of the object is longer than 1,024 bytes",
        _ if name.contains(['\r', '\n']) => "the name of the object has a line break in it",
        _ => return Ok(name),
    };
    Err(Error::new(Kind::InvalidRequest, action, detail))
}

impl fmt::Debug for Gcs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gcs")
            .field("bucket", &self.service.bucket())
            .field("host", &self.service.host())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for Gcs {
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
            name_bytes_max: NAME_BYTES_MAX,
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
        self.is_in_chunks(size_bytes)
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        self.look(name).await
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        self.get(name, range).await
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
