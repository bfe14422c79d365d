//! OpenStack's object store: Swift, with Keystone in front of it.
//!
//! The protocol is spoken here, over [`crate::http::Client`]: no library that is kept knows how a project is found where
//! none is named, renews a token in the middle of a body, keeps segments out of the user's container with the right media
//! type on the whole, or lets a ledger know of them before they are sent.
//!
//! `identity` logs in (`keystone` and `keystone_v2` speak its two versions, `catalogue` finds the store), `service` sends one
//! request, `upload` is the way in, `segments` that of large objects, `manifest` what they are made of, `objects` everything else, `errors` the translation of
//! refusals.

mod body;
mod catalogue;
mod errors;
mod features;
mod identity;
mod keystone;
mod keystone_v2;
mod manifest;
mod objects;
mod segments;
mod service;
mod upload;

use std::fmt;
use std::ops::Range;

use async_trait::async_trait;

use crate::Connector;
use crate::download::Described;
use crate::error::{Error, Result};
use crate::http::Client;
use crate::secret::Secret;
use crate::source::ByteStream;
use crate::transfer::{Capability, Limits, Object, OpenUpload, Put, Receipt};

/// Largest object: 900 segments of 5 GiB, less what a store may take by its own settings.
const OBJECT_BYTES_MAX: u64 = 900 * 5 * 1024 * 1024 * 1024;

// What is being done, for errors.
const LOG_IN: &str = "logging in to Keystone";
const FIND_PROJECT: &str = "looking for the project";
const STORE: &str = "storing the object";
const SEND_SEGMENT: &str = "sending a segment";
const COMPLETE: &str = "completing the large object";
const PREPARE: &str = "preparing the container for segments";
const STAT: &str = "looking at the object";
const STAT_CONTAINER: &str = "looking at the container";
const READ: &str = "reading the object";
const READ_MANIFEST: &str = "looking for segments of an earlier object";
const LIST: &str = "listing the container";
const DELETE: &str = "deleting the object";
const REMOVE_SEGMENTS: &str = "removing segments";

/// A container, and what it takes to get at it.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Keystone's URL, with or without version. Without a scheme, `https://` is meant.
    pub auth_url: String,
    /// Name of the user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// Id of an application credential, instead of user and password. It has its own project.
    pub application_credential_id: Option<String>,
    /// Secret of the application credential.
    pub application_credential_secret: Option<Secret>,
    /// Region, as the catalogue names it.
    pub region: String,
    /// Name of the container.
    pub container: String,
    /// Name of the project, in its older spelling.
    pub tenant_name: Option<String>,
    /// Name of the project. Without project, the user's default one, else the first that has an object store in the region.
    pub project_name: Option<String>,
    /// Id of the project; goes before a name.
    pub project_id: Option<String>,
    /// Domain of the user; `Default` when absent.
    pub user_domain_name: Option<String>,
    /// Domain of the project; the user's when absent.
    pub project_domain_name: Option<String>,
}

/// A container. It keeps its token and what the store showed of itself, so one is made for each task.
pub struct Swift {
    service: service::Service,
}

impl Swift {
    /// Makes a connector from complete credentials; none are ever looked for elsewhere. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::error::Kind::InvalidRequest) for a value that cannot be sent, with the name of the argument;
    /// [`Kind::InvalidCredentials`](crate::error::Kind::InvalidCredentials) when a half of the credentials is missing.
    pub fn new(config: &Config, client: Client, limits: Limits) -> Result<Self> {
        if config.container.is_empty() || config.container.contains('/') {
            return Err(Error::argument("`container` must be the name of a container, and such a name holds no slash"));
        }
        let identity = identity::Identity::new(config, client.clone(), limits.tries)?;
        Ok(Self { service: service::Service::new(identity, client, &config.container, limits) })
    }

    fn location(&self, name: &str) -> String {
        format!("swift://{}/{name}", self.service.container())
    }
}

impl fmt::Debug for Swift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Swift")
            .field("container", &self.service.container())
            .field("keystone", &self.service.keystone())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connector for Swift {
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
            verifies_by: "md5",
            name_bytes_max: 1024,
            object_bytes_max: OBJECT_BYTES_MAX,
        }
    }

    fn host(&self) -> String {
        self.service.keystone().to_owned()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        Box::pin(self.store(put)).await
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        self.head(name).await
    }

    async fn describe(&self, name: &str, _listed: Option<Object>) -> Result<Described> {
        self.with_digest(name).await
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
