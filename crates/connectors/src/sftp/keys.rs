//! The private key that a client sends, and the host key that it insists on.

use std::str::FromStr as _;

use russh::keys::ssh_key::Fingerprint;
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PrivateKey, PublicKey};

use crate::error::{Error, Kind, Result};

const READING_KEY: &str = "reading the private key";
const READING_HOST_KEY: &str = "reading host_key";

/// Reads a private key in OpenSSH's own format, PKCS#1, PKCS#8 or SEC 1.
///
/// Keys travel through JSON, environment variables and forms on their way here, so line ends of any kind, `\n` spelled
/// out, and lost line ends are all put right first.
///
/// # Errors
/// [`Kind::InvalidCredentials`] with a sentence that says what is wrong with the key, never what is in it.
pub(super) fn private_key(text: &str) -> Result<PrivateKey> {
    let refused = |detail: &str| Error::new(Kind::InvalidCredentials, READING_KEY, detail);
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let text = text.trim();
    if text.starts_with("PuTTY-User-Key-File-") {
        return Err(refused("the private_key is a PuTTY key; export it in OpenSSH format"));
    }
    if public_key(text).is_some() || text.contains("BEGIN PUBLIC KEY") || text.contains("BEGIN SSH2 PUBLIC KEY") {
        return Err(refused("the private_key is a public key; give its private half"));
    }
    let (label, body) = pem_block(text).ok_or_else(|| {
        refused("the private_key is not a private key; give the whole text of a key file, with its BEGIN and END lines")
    })?;
    let encrypted = || refused("the private_key is encrypted; give a key without a passphrase");
    if label.contains("ENCRYPTED") || body.contains("ENCRYPTED") {
        return Err(encrypted());
    }
    let body: String = body.split_whitespace().collect();
    let clean = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
    russh::keys::decode_secret_key(&clean, None).map_err(|error| {
        if matches!(error, russh::keys::Error::KeyIsEncrypted) {
            return encrypted();
        }
        // The cause is left out: a parser's message may quote what it read.
        refused("the private_key cannot be read: it is damaged, or not an Ed25519, ECDSA or RSA key")
    })
}

/// Finds the first PEM block that holds a private key, and returns its label and what stands between its marks.
fn pem_block(text: &str) -> Option<(&str, &str)> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let (label, after) = after.split_once("-----")?;
        let (body, after) = after.split_once("-----END ")?;
        if label.ends_with("PRIVATE KEY") {
            return Some((label, body));
        }
        rest = after;
    }
    None
}

/// The host key that a task insists on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    Fingerprint(Fingerprint),
    /// A whole public key.
    Key(Box<PublicKey>),
}

impl Pin {
    /// Reads a fingerprint, a public key, or a line of a `known_hosts` file.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`] when it is none of these.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bare = text.trim_end_matches('=');
        if let Ok(fingerprint) = Fingerprint::from_str(bare) {
            return Ok(Self::Fingerprint(fingerprint));
        }
        public_key(text).map(|key| Self::Key(Box::new(key))).ok_or_else(|| {
            let detail = "the host_key is neither a fingerprint like SHA256:… nor a public key like ssh-ed25519 AAAA…";
            Error::new(Kind::InvalidRequest, READING_HOST_KEY, detail)
        })
    }

    /// Whether `key` is the one that is insisted on.
    pub(super) fn accepts(&self, key: &PublicKey) -> bool {
        match self {
            Self::Fingerprint(fingerprint) => key.fingerprint(fingerprint.algorithm()) == *fingerprint,
            Self::Key(pinned) => pinned.key_data() == key.key_data(),
        }
    }

    /// The kinds of host key to ask the server for, one connection each until one is the pinned one.
    ///
    /// A server has several host keys and shows the kind that the client asks for first. A fingerprint does not tell
    /// its kind, so all are asked for in turn.
    pub(super) fn algorithms(&self) -> Vec<Vec<Algorithm>> {
        match self {
            Self::Fingerprint(_) => vec![vec![Algorithm::Ed25519], ecdsa(), rsa()],
            Self::Key(key) if key.algorithm().is_rsa() => vec![rsa()],
            Self::Key(key) => vec![vec![key.algorithm()]],
        }
    }
}

fn ecdsa() -> Vec<Algorithm> {
    [EcdsaCurve::NistP256, EcdsaCurve::NistP384, EcdsaCurve::NistP521].map(|curve| Algorithm::Ecdsa { curve }).to_vec()
}

fn rsa() -> Vec<Algorithm> {
    [Some(HashAlg::Sha512), Some(HashAlg::Sha256), None].map(|hash| Algorithm::Rsa { hash }).to_vec()
}

/// Reads `ssh-ed25519 AAAA… comment`, with or without the host names that stand before it in `known_hosts`.
fn public_key(text: &str) -> Option<PublicKey> {
    let start = text.split_inclusive(char::is_whitespace).scan(0, |at, word| {
        let start = *at;
        *at += word.len();
        Some((start, word.trim_end()))
    });
    let (start, _) = start.take(3).find(|(_, word)| Algorithm::new(word).is_ok_and(is_known))?;
    PublicKey::from_openssh(&text[start..]).ok()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that is_ok_and wants")]
fn is_known(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::Other(_))
}

#[cfg(test)]
mod tests;
