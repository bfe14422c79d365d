//! The OpenSSH server: addresses, the user, keys in every format, and folders to deliver into.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::{Missing, place, server};

static SSHD: OnceCell<Sshd> = OnceCell::const_new();

/// The OpenSSH server of this run, started when it does not run yet.
///
/// # Errors
/// [`Missing`] when it is not installed (in CI a plain error), or the log of a start that failed.
pub async fn sshd() -> Result<Sshd> {
    let start = || async { Ok(Sshd { state: server::shared("sshd", "sshd").await? }) };
    SSHD.get_or_try_init(start).await.cloned()
}

/// A running OpenSSH server that serves SFTP to one user.
#[derive(Clone, Debug)]
pub struct Sshd {
    state: State,
}

#[derive(Clone, Debug, Deserialize)]
struct State {
    port: u16,
    port_keyboard_interactive: u16,
    port_no_posix_rename: u16,
    port_read_only: u16,
    version: String,
    user: String,
    password: String,
    uid: u32,
    gid: u32,
    home: PathBuf,
    denied: PathBuf,
    key_passphrase: String,
    fingerprints: Vec<String>,
}

/// The private keys that the server accepts, by format. All but the last may log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Key {
    /// Ed25519 in OpenSSH's own format.
    Ed25519,
    /// RSA, 2048 bits, in OpenSSH's own format.
    Rsa,
    /// ECDSA on P-256 in OpenSSH's own format.
    Ecdsa,
    /// ECDSA on P-384 in OpenSSH's own format.
    EcdsaP384,
    /// ECDSA on P-521 in OpenSSH's own format.
    EcdsaP521,
    /// RSA in PKCS#1 (`BEGIN RSA PRIVATE KEY`).
    RsaPkcs1,
    /// RSA in PKCS#8 (`BEGIN PRIVATE KEY`).
    RsaPkcs8,
    /// ECDSA in SEC 1 (`BEGIN EC PRIVATE KEY`).
    EcdsaSec1,
    /// ECDSA in PKCS#8.
    EcdsaPkcs8,
    /// Ed25519 in PKCS#8: the key of [`Key::Ed25519`], in a form that OpenSSH's own programs mostly cannot read.
    Ed25519Pkcs8,
    /// Ed25519 in OpenSSH's own format, encrypted with [`Sshd::key_passphrase`].
    Ed25519Encrypted,
    /// RSA in PKCS#1, encrypted with [`Sshd::key_passphrase`].
    RsaPkcs1Encrypted,
    /// RSA in PKCS#8, encrypted with [`Sshd::key_passphrase`].
    RsaPkcs8Encrypted,
    /// ECDSA in SEC 1, encrypted with [`Sshd::key_passphrase`].
    EcdsaSec1Encrypted,
    /// Ed25519; the server does not know it.
    Unknown,
}

impl Key {
    /// The keys that need no passphrase, may log in, and can be read by OpenSSH too.
    pub const PLAIN: [Self; 9] = [
        Self::Ed25519,
        Self::Rsa,
        Self::Ecdsa,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::RsaPkcs1,
        Self::RsaPkcs8,
        Self::EcdsaSec1,
        Self::EcdsaPkcs8,
    ];

    /// The keys that need a passphrase.
    pub const ENCRYPTED: [Self; 4] =
        [Self::Ed25519Encrypted, Self::RsaPkcs1Encrypted, Self::RsaPkcs8Encrypted, Self::EcdsaSec1Encrypted];

    fn file(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
            Self::Ecdsa => "ecdsa",
            Self::EcdsaP384 => "ecdsa_p384",
            Self::EcdsaP521 => "ecdsa_p521",
            Self::RsaPkcs1 => "rsa_pkcs1",
            Self::RsaPkcs8 => "rsa_pkcs8",
            Self::EcdsaSec1 => "ecdsa_sec1",
            Self::EcdsaPkcs8 => "ecdsa_pkcs8",
            Self::Ed25519Pkcs8 => "ed25519_pkcs8",
            Self::Ed25519Encrypted => "ed25519_encrypted",
            Self::RsaPkcs1Encrypted => "rsa_pkcs1_encrypted",
            Self::RsaPkcs8Encrypted => "rsa_pkcs8_encrypted",
            Self::EcdsaSec1Encrypted => "ecdsa_sec1_encrypted",
            Self::Unknown => "unknown",
        }
    }
}

impl Sshd {
    /// Takes passwords and keys.
    pub fn addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.state.port).into()
    }

    /// Takes keyboard-interactive only (the answer is the password).
    pub fn addr_keyboard_interactive(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.state.port_keyboard_interactive).into()
    }

    /// Takes passwords and keys, and refuses `posix-rename@openssh.com`.
    pub fn addr_no_posix_rename(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.state.port_no_posix_rename).into()
    }

    /// Takes passwords and keys, and refuses every change.
    pub fn addr_read_only(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.state.port_read_only).into()
    }

    /// The server's version: `9.2p1`.
    pub fn version(&self) -> &str {
        &self.state.version
    }

    /// The user that may log in.
    pub fn user(&self) -> &str {
        &self.state.user
    }

    /// The user's password.
    ///
    /// # Errors
    /// [`Missing`] when the tests do not run as root: then the server cannot check passwords. In CI a plain error.
    pub fn password(&self) -> Result<&str> {
        if !self.state.password.is_empty() {
            return Ok(&self.state.password);
        }
        let missing = Missing::new("a password log-in", "run the tests as root, or use a key");
        Err(if place::in_ci() { anyhow::anyhow!("{missing}") } else { missing.into() })
    }

    /// Where the text of a private key is.
    pub fn key_file(&self, key: Key) -> PathBuf {
        place::run().join("sshd/keys").join(key.file())
    }

    /// The text of a private key.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn key(&self, key: Key) -> Result<String> {
        let path = self.key_file(key);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// The passphrase of the encrypted keys.
    pub fn key_passphrase(&self) -> &str {
        &self.state.key_passphrase
    }

    /// The host keys' fingerprints, as `SHA256:…`: Ed25519, RSA, ECDSA.
    pub fn fingerprints(&self) -> &[String] {
        &self.state.fingerprints
    }

    /// The folder a session starts in; the user may write there.
    pub fn home(&self) -> &PathBuf {
        &self.state.home
    }

    /// A folder where the user may read but not write.
    pub fn denied(&self) -> &PathBuf {
        &self.state.denied
    }

    /// Makes a folder of its own for a test below [`Sshd::home`]; `name` is the start of its name.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(self.home())?.keep();
        chown(&folder, Some(self.state.uid), Some(self.state.gid))?;
        Ok(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bytes, or_skip, tool};

    /// Runs OpenSSH's own client with `batch`.
    async fn sftp(sshd: &Sshd, addr: SocketAddr, key: Key, batch: &str) -> Result<Vec<u8>> {
        let dir = tempfile::tempdir()?;
        let batch_file = dir.path().join("batch");
        fs::write(&batch_file, batch)?;
        let mut command = tool::command("sftp")?;
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command.arg("-b").arg(batch_file).arg("-i").arg(sshd.key_file(key));
        command.args(["-P", &addr.port().to_string(), &format!("{}@{}", sshd.user(), addr.ip())]);
        tool::output("sftp", command).await
    }

    #[tokio::test]
    async fn sshd_takes_a_file_and_gives_it_back() {
        let Some(sshd) = or_skip(sshd().await) else { return };
        let dir = tempfile::tempdir().unwrap();
        let (original, copy) = (dir.path().join("original"), dir.path().join("copy"));
        let digests = bytes::write_file(&original, 1, 1_000_000).unwrap();
        let remote = sshd.folder("round-trip").unwrap().join("file");
        let batch = format!("put {} {1}\nget {1} {2}\n", original.display(), remote.display(), copy.display());
        for key in Key::PLAIN {
            sftp(&sshd, sshd.addr(), key, &batch).await.unwrap();
            assert_eq!(bytes::digest_file(&copy).unwrap(), digests);
        }
    }

    #[tokio::test]
    async fn sshd_refuses_what_it_should() {
        let Some(sshd) = or_skip(sshd().await) else { return };
        let unknown = sftp(&sshd, sshd.addr(), Key::Unknown, "pwd\n").await.unwrap_err().to_string();
        assert!(unknown.contains("Permission denied"), "{unknown}");
        let kbd = sftp(&sshd, sshd.addr_keyboard_interactive(), Key::Ed25519, "pwd\n").await.unwrap_err().to_string();
        assert!(kbd.contains("Permission denied"), "{kbd}");
        let denied = format!("mkdir {}/x\n", sshd.denied().display());
        let denied = sftp(&sshd, sshd.addr(), Key::Ed25519, &denied).await.unwrap_err().to_string();
        assert!(denied.contains("Permission denied"), "{denied}");
    }

    #[tokio::test]
    async fn sshd_can_do_without_posix_rename() {
        let Some(sshd) = or_skip(sshd().await) else { return };
        let folder = sshd.folder("rename").unwrap().display().to_string();
        let replace =
            format!("put /etc/hostname {folder}/a\nput /etc/hostname {folder}/b\nrename {folder}/a {folder}/b\n");
        sftp(&sshd, sshd.addr(), Key::Ed25519, &replace).await.unwrap();
        let refused = sftp(&sshd, sshd.addr_no_posix_rename(), Key::Ed25519, &replace).await;
        assert!(refused.is_err(), "only posix-rename replaces a file");
    }
}
