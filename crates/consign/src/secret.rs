//! Credentials at rest and in memory: the [`Secret`] type, and the [`Vault`] that encrypts what goes into a row.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
pub use connectors::Secret;
use url::Url;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "***";

/// Length of the server's key in bytes.
const KEY_BYTES: usize = 32;

/// Encrypts what is stored and signs what is handed out, with keys derived from the server's one secret key.
///
/// Sealed text is `nonce (12 bytes) ‖ AES-256-GCM ciphertext ‖ tag (16 bytes)`.
pub struct Vault {
    sealing: LessSafeKey,
    signing: hmac::Key,
    fingerprint: i64,
}

/// Sealed bytes that this key did not make, or that were changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is stored was encrypted with another secret key")]
pub struct WrongKey;

impl Vault {
    /// Makes a vault from the base64 text of 32 bytes.
    ///
    /// # Errors
    /// A sentence that says what the key must look like.
    pub fn from_base64(text: &str) -> Result<Self, &'static str> {
        let problem = "secret_key must be 32 random bytes in base64; make one with `openssl rand -base64 32`";
        let key: [u8; KEY_BYTES] =
            STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(problem)?;
        Ok(Self::new(&key))
    }

    /// Makes a vault.
    ///
    /// # Panics
    /// Never: the derived keys have the right length.
    pub fn new(key: &[u8; KEY_BYTES]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key);
        // One key a purpose (HKDF-Expand with a single block), so that a signature can never help to open a row.
        let derive = |purpose: &str| hmac::sign(&root, &[purpose.as_bytes(), &[1]].concat());
        let sealing = UnboundKey::new(&AES_256_GCM, derive("consign rows").as_ref())
            .expect("an HMAC-SHA256 is as long as an AES-256 key");
        Self {
            sealing: LessSafeKey::new(sealing),
            signing: hmac::Key::new(hmac::HMAC_SHA256, derive("consign links").as_ref()),
            fingerprint: derive("consign fingerprint")
                .as_ref()
                .iter()
                .take(8)
                .fold(0, |sum, &byte| sum << 8 | i64::from(byte)),
        }
    }

    /// Tells one key from another, and nothing else about it.
    pub fn fingerprint(&self) -> i64 {
        self.fingerprint
    }

    /// Makes a new random key, as base64.
    pub fn generate() -> String {
        STANDARD.encode(rand::random::<[u8; KEY_BYTES]>())
    }

    /// Encrypts.
    ///
    /// # Panics
    /// Never: a row is far below the limit of AES-GCM.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = plain.to_vec();
        self.sealing
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed)
            .expect("a row is far below the limit of AES-GCM");
        [&nonce[..], &sealed].concat()
    }

    /// Decrypts.
    ///
    /// # Errors
    /// [`WrongKey`].
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, WrongKey> {
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or(WrongKey)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| WrongKey)?;
        let mut rest = rest.to_vec();
        let length = self.sealing.open_in_place(nonce, Aad::empty(), &mut rest).map_err(|_| WrongKey)?.len();
        rest.truncate(length);
        Ok(rest)
    }

    /// Signs a text that is handed out, such as a download URL: lower-case hex of HMAC-SHA256.
    pub fn sign(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.signing, text.as_bytes()))
    }

    /// Checks a signature in constant time.
    pub fn verify(&self, text: &str, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|tag| hmac::verify(&self.signing, text.as_bytes(), &tag).is_ok())
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(***)")
    }
}

/// Hides user info, query and fragment of a URL; other texts stay as they are.
pub fn without_credentials(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        // Not quite a URL, and nobody knows what it holds.
        return text.split_once("://").map_or_else(|| text.to_owned(), |(scheme, _)| format!("{scheme}://{HIDDEN}"));
    };
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !has_user && url.query().is_none() && url.fragment().is_none() {
        return text.to_owned();
    }
    // Both setters refuse URLs that cannot have user info; those have none.
    if has_user && url.set_username(HIDDEN).and_then(|()| url.set_password(None)).is_err() {
        return HIDDEN.to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some(HIDDEN));
    }
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_unchanged_and_with_the_same_key() {
        let vault = Vault::new(&[7; 32]);
        let sealed = vault.seal(b"secret");
        assert_eq!(vault.open(&sealed).unwrap(), b"secret");
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        let mut changed = sealed.clone();
        changed[14] ^= 1;
        assert_eq!(vault.open(&changed), Err(WrongKey));
        assert_eq!(Vault::new(&[8; 32]).open(&sealed), Err(WrongKey));
        assert_eq!(vault.open(b"short"), Err(WrongKey));
    }

    #[test]
    fn a_signature_is_bound_to_text_and_key() {
        let vault = Vault::new(&[7; 32]);
        let signature = vault.sign("text");
        assert!(vault.verify("text", &signature));
        assert!(!vault.verify("texts", &signature));
        assert!(!Vault::new(&[8; 32]).verify("text", &signature));
        assert!(!vault.verify("text", "not hex"));
    }
}
