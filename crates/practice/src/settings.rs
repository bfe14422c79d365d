//! What a person may choose about the practice servers, and the credentials that are made up for the rest.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use rand::Rng as _;
use rand::distr::Alphanumeric;

/// Length of a generated secret access key, as at the original service.
const SECRET_CHARACTERS: usize = 40;
/// Length of a generated password: over 140 bits.
const PASSWORD_CHARACTERS: usize = 24;

/// How to start the practice servers.
#[derive(Clone)]
pub struct Settings {
    /// Folder that holds everything; it is made when absent. Only one running [`crate::Practice`] may use it.
    pub folder: PathBuf,
    /// Loopback address of the S3 server; port 0 takes a free one.
    pub s3_listen: SocketAddr,
    /// Loopback address of the SFTP server; port 0 takes a free one.
    pub sftp_listen: SocketAddr,
    /// Bucket that exists from the start.
    pub bucket: String,
    /// Region to name in signatures. The server accepts any region, as many S3-compatible services do.
    pub region: String,
    /// Access key id; generated when `None`.
    pub access_key_id: Option<String>,
    /// Secret access key; generated when `None`.
    pub secret_access_key: Option<String>,
    /// Name of the one SFTP user.
    pub username: String,
    /// Password of the SFTP user; generated when `None`.
    pub password: Option<String>,
    /// Private key of the SFTP user, in OpenSSH format and without a passphrase; generated when `None`.
    pub private_key: Option<String>,
}

impl Settings {
    /// Gives settings over `folder`: free ports on 127.0.0.1, the bucket `practice` and generated credentials.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            folder: folder.into(),
            s3_listen: free_port,
            sftp_listen: free_port,
            bucket: "practice".to_owned(),
            region: "us-east-1".to_owned(),
            access_key_id: None,
            secret_access_key: None,
            username: "practice".to_owned(),
            password: None,
            private_key: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("folder", &self.folder)
            .field("s3_listen", &self.s3_listen)
            .field("sftp_listen", &self.sftp_listen)
            .field("bucket", &self.bucket)
            .field("region", &self.region)
            .field("access_key_id", &self.access_key_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// Makes up an access key id in the shape that clients expect.
pub(crate) fn generate_access_key_id() -> String {
    /// Characters of the ids of the original service (base 32).
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut random = rand::rng();
    let tail = (0..16).map(|_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]));
    "AKIA".chars().chain(tail).collect()
}

/// Makes up a secret access key.
pub(crate) fn generate_secret_access_key() -> String {
    random_text(SECRET_CHARACTERS)
}

/// Makes up a password.
pub(crate) fn generate_password() -> String {
    random_text(PASSWORD_CHARACTERS)
}

fn random_text(characters: usize) -> String {
    rand::rng().sample_iter(Alphanumeric).take(characters).map(char::from).collect()
}
