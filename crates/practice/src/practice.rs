//! Starts both servers, tells where they are and what they accept, and stops them.

use std::fmt;
use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{HashAlg, PrivateKey};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::settings::{generate_access_key_id, generate_password, generate_secret_access_key};
use crate::{Settings, s3, sftp};

/// Why the practice servers cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address is not a loopback address.
    #[error("{0} is not a loopback address; practice servers listen on 127.0.0.1 or [::1] only")]
    NotLoopback(SocketAddr),
    /// An address cannot be listened on, mostly because another program has the port.
    #[error("cannot listen on {address}; choose another port, or 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The folder cannot be made or written.
    #[error("cannot use the folder {folder}; choose one that can be written")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process runs practice servers over the same folder.
    #[error("another practice server is using the folder {0}; stop it or choose another folder")]
    FolderInUse(PathBuf),
    /// The name of the bucket breaks the naming rules of S3.
    #[error("{0:?} cannot be the name of a bucket; use 3 to 63 lower-case letters, digits, dots and hyphens")]
    BucketName(String),
    /// The private key cannot be read.
    #[error("the private key is not an OpenSSH key without a passphrase")]
    PrivateKey(#[source] russh::keys::ssh_key::Error),
}

/// Both servers, running. Dropping it stops them at once; [`Practice::stop`] lets requests end first.
pub struct Practice {
    settings: Settings,
    access_key_id: String,
    secret_access_key: String,
    password: String,
    private_key: String,
    host_key_fingerprint: String,
    s3_addr: SocketAddr,
    sftp_addr: SocketAddr,
    sftp_root: PathBuf,
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    /// Held for its lock only.
    _lock: File,
}

impl Practice {
    /// Starts both servers; when it returns they accept connections.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let folder_error = |source| Error::Folder { folder: settings.folder.clone(), source };
        for address in [settings.s3_listen, settings.sftp_listen] {
            if !address.ip().is_loopback() {
                return Err(Error::NotLoopback(address));
            }
        }
        if !s3s::path::check_bucket_name(&settings.bucket) {
            return Err(Error::BucketName(settings.bucket));
        }
        let user_key = match &settings.private_key {
            Some(text) => PrivateKey::from_openssh(text).map_err(Error::PrivateKey)?,
            None => generate_key(),
        };
        let private_key = user_key.to_openssh(LineEnding::LF).map_err(Error::PrivateKey)?.to_string();

        let lock = lock_folder(&settings)?;
        let s3_root = settings.folder.join("s3");
        let objects = s3::Objects::open(s3_root, &settings.bucket).map_err(folder_error)?;
        let sftp_root = settings.folder.join("sftp");
        std::fs::create_dir_all(&sftp_root).map_err(folder_error)?;
        let sftp_root = sftp_root.canonicalize().map_err(folder_error)?;

        let access_key_id = settings.access_key_id.clone().unwrap_or_else(generate_access_key_id);
        let secret_access_key = settings.secret_access_key.clone().unwrap_or_else(generate_secret_access_key);
        let password = settings.password.clone().unwrap_or_else(generate_password);
        let host_key = generate_key();
        let host_key_fingerprint = host_key.fingerprint(HashAlg::Sha256).to_string();
        let account = sftp::Account {
            username: settings.username.clone(),
            password: password.clone(),
            public_key: user_key.public_key().clone(),
        };

        let (s3_listener, s3_addr) = listen(settings.s3_listen).await?;
        let (sftp_listener, sftp_addr) = listen(settings.sftp_listen).await?;
        let stop = CancellationToken::new();
        let s3 = s3::service(objects, &settings.region, &access_key_id, &secret_access_key);
        let servers = vec![
            tokio::spawn(s3::serve(s3_listener, s3, stop.clone())),
            tokio::spawn(sftp::serve(sftp_listener, host_key, Arc::new(account), sftp_root.clone(), stop.clone())),
        ];
        tracing::debug!(%s3_addr, %sftp_addr, "practice servers started");
        Ok(Self {
            settings,
            access_key_id,
            secret_access_key,
            password,
            private_key,
            host_key_fingerprint,
            s3_addr,
            sftp_addr,
            sftp_root,
            stop,
            servers,
            _lock: lock,
        })
    }

    /// Gives the address of the S3 server. Its endpoint is `http://` and this; buckets are named in the path.
    pub fn s3_addr(&self) -> SocketAddr {
        self.s3_addr
    }

    /// Gives the endpoint of the S3 server as a URL.
    pub fn s3_endpoint(&self) -> String {
        format!("http://{}", self.s3_addr)
    }

    /// Gives the address of the SFTP server.
    pub fn sftp_addr(&self) -> SocketAddr {
        self.sftp_addr
    }

    /// Gives the access key id that the S3 server knows.
    pub fn access_key_id(&self) -> &str {
        &self.access_key_id
    }

    /// Gives the secret half of the access key.
    pub fn secret_access_key(&self) -> &str {
        &self.secret_access_key
    }

    /// Gives the bucket that exists.
    pub fn bucket(&self) -> &str {
        &self.settings.bucket
    }

    /// Gives the region to name in signatures.
    pub fn region(&self) -> &str {
        &self.settings.region
    }

    /// Gives the name of the SFTP user.
    pub fn username(&self) -> &str {
        &self.settings.username
    }

    /// Gives the password of the SFTP user.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Gives the private key of the SFTP user, in OpenSSH format.
    pub fn private_key(&self) -> &str {
        &self.private_key
    }

    /// Gives the fingerprint of the SFTP server's host key as `ssh-keygen -l` prints it (`SHA256:…`).
    pub fn host_key_fingerprint(&self) -> String {
        self.host_key_fingerprint.clone()
    }

    /// Gives the folder that SFTP clients see as `/`.
    pub fn sftp_root(&self) -> PathBuf {
        self.sftp_root.clone()
    }

    /// Gives the folder that holds the objects of [`Practice::bucket`] under their percent-encoded keys.
    pub fn bucket_folder(&self) -> PathBuf {
        self.settings.folder.join("s3").join(&self.settings.bucket)
    }

    /// Stops both servers: no new connections, a few seconds for open requests, then all is closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for server in std::mem::take(&mut self.servers) {
            if let Err(error) = server.await {
                tracing::warn!(%error, "a practice server did not end in order");
            }
        }
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        for server in &self.servers {
            server.abort();
        }
    }
}

impl fmt::Debug for Practice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Practice")
            .field("settings", &self.settings)
            .field("s3_addr", &self.s3_addr)
            .field("sftp_addr", &self.sftp_addr)
            .field("access_key_id", &self.access_key_id)
            .field("host_key_fingerprint", &self.host_key_fingerprint)
            .finish_non_exhaustive()
    }
}

/// Makes the folder and locks it against a second process. The lock ends with the process, so none is ever stale.
fn lock_folder(settings: &Settings) -> Result<File, Error> {
    let folder_error = |source| Error::Folder { folder: settings.folder.clone(), source };
    std::fs::create_dir_all(&settings.folder).map_err(folder_error)?;
    let lock = File::create(settings.folder.join(".lock")).map_err(folder_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::FolderInUse(settings.folder.clone())),
        Err(TryLockError::Error(source)) => Err(folder_error(source)),
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let listen_error = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen_error)?;
    let bound = listener.local_addr().map_err(listen_error)?;
    Ok((listener, bound))
}

fn generate_key() -> PrivateKey {
    let pair = Ed25519Keypair::from_seed(&rand::random());
    PrivateKey::new(KeypairData::Ed25519(pair), "consign practice").expect("an Ed25519 pair always makes a key")
}
