//! Azure Blob Storage.
//!
//! The protocol is spoken here, over [`crate::http::Client`]: Microsoft's own crate knows no account keys, and the
//! storage libraries send no checksum, name blocks themselves and normalise names, where an upload that goes on after a
//! crash needs ids that it can work out again.
//!
//! `service` sends one request, `upload` is the way in, `blobs` everything else, `store` what a file store
//! needs beyond that, `errors` the translation of refusals.
//!
//! What is particular about Azure: an upload is not opened. Blocks are sent to the name itself and lie there, seen by
//! nobody, until a list of them is committed. Nothing removes them but a commit under that name or a week's time, so
//! [`Connector::abort`] has nothing to do. (Committing an empty list would clear them, and put an empty blob in the
//! place of what was there.) Their ids follow from the bytes, so that an upload of the same bytes finds them again.

mod address;
mod blobs;
mod credentials;
mod errors;
mod service;
mod store;
mod upload;
mod xml;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use http::HeaderMap;

use crate::Connector;
use crate::download::Described;
use crate::error::Result;
use crate::http::Client;
use crate::secret::Secret;
use crate::source::ByteStream;
use crate::transfer::{Capability, Limits, Object, OpenUpload, Put, Receipt};

// What is being done, for errors. `errors` tells from it which permission is missing.
const STORE: &str = "storing the blob";
const SEND_BLOCK: &str = "sending a block";
const COMMIT: &str = "committing the blocks";
const STAT: &str = "looking at the blob";
const READ: &str = "reading the blob";
const LIST: &str = "listing the container";
const LIST_BLOCKS: &str = "listing the blocks of a blob";
const DELETE: &str = "deleting the blob";
const COPY: &str = "copying the blob";

/// A container, the credentials for it, and what the blobs put there carry.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Name of the storage account.
    pub account: String,
    /// Key of the account, in base64. Either this or `sas`.
    pub key: Option<Secret>,
    /// Shared access signature, with or without its question mark. One that may write is enough to store.
    pub sas: Option<Secret>,
    /// Name of the container.
    pub container: String,
    /// Base URL of the service, with the account in its path where the service wants it there; Azure's public cloud
    /// when absent. Without a scheme, `https://` is meant.
    pub endpoint: Option<String>,
    /// Metadata, its keys with or without `x-ms-meta-`. Keys arrive in lower case.
    pub metadata: BTreeMap<String, String>,
}

/// A container of Azure Blob Storage.
pub struct AzureBlob {
    service: service::Service,
    /// Headers of every blob's metadata.
    metadata: HeaderMap,
}

impl AzureBlob {
    /// Makes a connector from complete credentials; none are ever looked for elsewhere. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::Kind::InvalidRequest) for a value that cannot be sent, with the name of the
    /// argument; [`Kind::InvalidCredentials`](crate::Kind::InvalidCredentials) unless there is exactly one of key and
    /// token, of the right form.
    pub fn new(config: &Config, client: Client, limits: Limits) -> Result<Self> {
        Ok(Self {
            metadata: upload::metadata(&config.metadata)?,
            service: service::Service::new(config, client, limits)?,
        })
    }
}

impl fmt::Debug for AzureBlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.service.address;
        f.debug_struct("AzureBlob")
            .field("container", &address.container())
            .field("host", &address.host())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for AzureBlob {
    fn capability(&self) -> Capability {
        Capability {
            resumes: true,
            aborts: false,
            names_are_keys: true,
            keeps_dot_segments: false,
            has_containers: true,
            checks_single_put: true,
            can_throttle: true,
            keeps_content_type: true,
            verifies_by: "md5",
            name_bytes_max: address::NAME_CHARS_MAX,
            object_bytes_max: upload::BLOB_BYTES_MAX,
        }
    }

    fn host(&self) -> String {
        self.service.address.host()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        Box::pin(self.store(put)).await
    }

    fn begins_early(&self, size_bytes: u64) -> bool {
        self.is_in_blocks(size_bytes)
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        Ok(self.look(name).await?.object)
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
        self.blobs(prefix, limit).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.remove(name).await
    }

    async fn abort(&self, _: &OpenUpload) -> Result<()> {
        Ok(())
    }
}
