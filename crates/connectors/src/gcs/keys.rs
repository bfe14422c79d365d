//! The private key of a service account, in every shape in which it survives its way through JSON and forms.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{Error, Kind, Result};

const READING: &str = "reading the private key";
const HINT: &str = "give the `private_key` of the service account's JSON key file, with its BEGIN and END lines";

/// A key that signs.
pub(super) struct SigningKey(KeyPair);

impl SigningKey {
    /// Reads a PEM text in PKCS#8 or PKCS#1. Line ends of any kind, `\n` spelled out, quotes and blanks around it, and
    /// lost line ends are all put right first.
    ///
    /// # Errors
    /// [`Kind::InvalidCredentials`] with a sentence that says what is wrong with the key, never what is in it.
    pub(super) fn read(text: &str) -> Result<Self> {
        let text = text.replace("\\r", "").replace("\\n", "\n").replace('\\', "");
        let text = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        if text.starts_with('{') {
            return Err(refused(format!("`private_key` is a whole key file; {HINT}")));
        }
        let (label, body) =
            block(text).ok_or_else(|| refused(format!("`private_key` is not a private key; {HINT}")))?;
        if label.contains("ENCRYPTED") || body.contains("ENCRYPTED") {
            return Err(refused("`private_key` is encrypted; give a key without a passphrase".to_owned()));
        }
        let body: String = body.split_whitespace().collect();
        // The causes are left out: a parser's message may quote what it read.
        let damaged = || refused(format!("`private_key` is damaged, or not an RSA key of 2,048 bits or more; {HINT}"));
        let der = STANDARD.decode(body).map_err(|_| damaged())?;
        let pair = match label {
            "PRIVATE KEY" => KeyPair::from_pkcs8(&der),
            "RSA PRIVATE KEY" => KeyPair::from_der(&der),
            _ => return Err(refused(format!("`private_key` is not an RSA private key; {HINT}"))),
        };
        pair.map(Self).map_err(|_| damaged())
    }

    /// Signs with RSASSA-PKCS1-v1_5 and SHA-256, which JWT calls `RS256`.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        match self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature) {
            Ok(()) => Ok(signature),
            Err(_) => Err(refused("nothing can be signed with `private_key`".to_owned())),
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(***)")
    }
}

fn refused(detail: String) -> Error {
    Error::new(Kind::InvalidCredentials, READING, detail)
}

/// The label of the first PEM block, and what stands between its marks.
fn block(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    Some((label, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_refused_without_being_shown() {
        let none = "U0VDUkVU";
        for (text, expected) in [
            ("some-private-key".to_owned(), "is not a private key"),
            (String::new(), "is not a private key"),
            (format!("{{\"private_key\": \"-----BEGIN PRIVATE KEY-----{none}\"}}"), "is a whole key file"),
            (format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{none}\n-----END …"), "is encrypted"),
            (format!("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\n{none}\n-----END …"), "is encrypted"),
            (format!("-----BEGIN PUBLIC KEY-----\n{none}\n-----END PUBLIC KEY-----"), "is not an RSA private key"),
            (format!("-----BEGIN PRIVATE KEY-----\n{none}\n-----END PRIVATE KEY-----"), "is damaged"),
            (format!("-----BEGIN PRIVATE KEY-----\n{none}!\n-----END PRIVATE KEY-----"), "is damaged"),
            (format!("-----BEGIN PRIVATE KEY-----\n{none}"), "is not a private key"),
        ] {
            let error = SigningKey::read(&text).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidCredentials);
            assert!(error.detail.contains(expected), "{text}: {error}");
            assert!(!format!("{error:?}").contains(none), "{error:?}");
        }
    }
}
