//! SFTP: files on an SSH server.
//!
//! One session serves all calls of a connector: it is opened by the first, shared, and replaced when it breaks.
//! A file is written under a temporary name beside its target (`.NAME.consign-12345678.part`), in a pipeline of
//! packets, put on stable storage, measured, and renamed: [`publish`] tells how, and what happens where a server
//! cannot replace files in one step. Missing directories are made. Permissions are left to the server.
//!
//! **Names** are paths: relative ones begin in the login directory, absolute ones at the root.
//!
//! **Proof of arrival** is the length, as the server tells it for the open file after writing it to stable storage.
//! What travels is protected by SSH's own message authentication, packet by packet: a flipped bit ends the
//! connection, and the upload goes on over a new one. SFTP servers as a rule offer no checksum of a file.
//!
//! **The host key** is accepted as it comes and named in the receipt, unless the task insists on one.
//!
//! Known limits of the library underneath (`russh-sftp`): names and handles that are not UTF-8 cannot be used, and a
//! status code beyond those of version 3 of the protocol ends the session.

mod download;
mod errors;
mod keys;
mod login;
mod path;
mod publish;
mod session;
mod upload;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use russh::keys::PrivateKey;
use tokio::sync::{Mutex, Semaphore};

use crate::egress::Guard;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use crate::source::ByteStream;
use crate::transfer::{Capability, Limits, Object, OpenUpload, Put, Receipt};
use crate::{Connector, retry};
use keys::Pin;
use session::Session;
use upload::Upload;

/// Bytes of one session that are under way at once, all its files together: twice the window in which OpenSSH takes them, so
/// that it is always full. More would only wait on this side, in memory and out of the processor's cache.
const IN_FLIGHT_BYTES: usize = 4 * 1024 * 1024;
/// The same in packets, at the least: a file of many has several under way beside seven others.
const PACKETS_IN_FLIGHT_MIN: usize = 16;
/// Files that are written, or looked at, at once over one session. Servers bound the number of open files.
const FILES_AT_ONCE: usize = 8;
/// Entries of a directory that are looked at before the listing is refused.
const ENTRIES_MAX: usize = 100_000;
/// Longest path in bytes: what Linux takes, without the terminating zero.
const NAME_BYTES_MAX: usize = 4095;

/// An account on an SFTP server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Host name or address.
    pub host: String,
    /// TCP port, usually 22.
    pub port: u16,
    /// User to log in as.
    pub username: String,
    /// Password, also the answer to keyboard-interactive questions.
    pub password: Option<Secret>,
    /// Private key as text: OpenSSH, PKCS#1, PKCS#8 or SEC 1; Ed25519, ECDSA or RSA; not encrypted. Tried first.
    pub private_key: Option<Secret>,
    /// The host key to insist on: a fingerprint `SHA256:…`, or a public key.
    pub host_key: Option<String>,
    /// Bounds of the transfers.
    pub limits: Limits,
}

/// A [`Config`] whose keys have been read.
#[derive(Debug)]
struct Account {
    config: Config,
    key: Option<Arc<PrivateKey>>,
    pin: Option<Pin>,
}

impl Account {
    /// `host:port`, for people and for [`Receipt::location`].
    fn peer(&self) -> String {
        let Config { host, port, .. } = &self.config;
        if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

/// The connector of one account.
#[derive(Debug)]
pub struct Sftp {
    account: Account,
    guard: Guard,
    session: Mutex<Slot>,
    files: Semaphore,
}

/// The session that all calls share.
#[derive(Debug)]
enum Slot {
    Empty,
    Open(Arc<Session>),
    /// The server does not let us in and never will: not asked again, so that no account gets locked.
    Refused(Kind, &'static str, String),
}

impl Sftp {
    /// Makes a connector. Connects to nothing yet.
    ///
    /// # Errors
    /// [`Kind::InvalidCredentials`] when the private key cannot be read, [`Kind::InvalidRequest`] when the host key
    /// cannot.
    pub fn new(config: Config, guard: Guard) -> Result<Self> {
        let key = config.private_key.as_ref().map(|key| keys::private_key(key.expose())).transpose()?.map(Arc::new);
        let pin = config.host_key.as_deref().map(Pin::parse).transpose()?;
        let account = Account { config, key, pin };
        Ok(Self { account, guard, session: Mutex::new(Slot::Empty), files: Semaphore::new(FILES_AT_ONCE) })
    }

    /// The session, opened if there is none that works.
    async fn session(&self) -> Result<Arc<Session>> {
        let mut slot = self.session.lock().await;
        match &*slot {
            Slot::Open(session) if !session.is_broken() => return Ok(Arc::clone(session)),
            Slot::Refused(kind, action, detail) => return Err(Error::new(*kind, action, detail.clone())),
            Slot::Open(_) | Slot::Empty => {}
        }
        // Boxed: logging in is rare, and its future large.
        match Box::pin(login::open(&self.account, &self.guard)).await {
            Ok(session) => {
                let session = Arc::new(session);
                *slot = Slot::Open(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                *slot = if matches!(error.kind, Kind::InvalidCredentials | Kind::HostKeyMismatch) {
                    Slot::Refused(error.kind, error.action, error.detail.clone())
                } else {
                    Slot::Empty
                };
                Err(error)
            }
        }
    }

    fn tries(&self) -> u32 {
        self.account.config.limits.tries
    }
}

#[async_trait]
impl Connector for Sftp {
    fn capability(&self) -> Capability {
        Capability {
            resumes: true,
            aborts: true,
            names_are_keys: false,
            keeps_dot_segments: false,
            has_containers: false,
            checks_single_put: true,
            can_throttle: false,
            keeps_content_type: false,
            verifies_by: "size",
            name_bytes_max: NAME_BYTES_MAX,
            object_bytes_max: u64::MAX,
        }
    }

    fn host(&self) -> String {
        self.account.config.host.clone()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        path::check(&put.name)?;
        let closed = |error| Error::new(Kind::Local, "waiting for a turn", "the connector is closed").because(error);
        let _turn = self.files.acquire().await.map_err(closed)?;
        let name = put.name.clone();
        let upload = Mutex::new(Upload::new(put, self.account.config.limits.part_bytes));
        retry::request(self.tries(), |_| async {
            let session = self.session().await?;
            let note = upload.lock().await.attempt(&session).await?;
            Ok(Receipt {
                location: format!("sftp://{}{}", self.account.peer(), session.absolute(&name)),
                verified: "size".to_owned(),
                host_key: session.host_key(),
                note,
                ..Receipt::default()
            })
        })
        .await
    }

    fn begins_early(&self, size_bytes: u64) -> bool {
        size_bytes > self.account.config.limits.part_bytes
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        retry::request(self.tries(), |_| async { download::stat(&*self.session().await?, name).await }).await
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        let opened = |_| async { download::read(self.session().await?, name, range.clone()).await };
        retry::request(self.tries(), opened).await
    }

    fn reads_side_by_side(&self) -> bool {
        false
    }

    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Object>> {
        retry::request(self.tries(), |_| async { download::list(&self.session().await?, prefix, limit).await }).await
    }

    async fn delete(&self, name: &str) -> Result<()> {
        retry::request(self.tries(), |_| async { self.session().await?.remove(name).await }).await
    }

    async fn abort(&self, open: &OpenUpload) -> Result<()> {
        let cleared = |_| async {
            let session = self.session().await?;
            publish::restore(&session, open).await?;
            session.remove(&open.handle).await
        };
        retry::request(self.tries(), cleared).await
    }
}
