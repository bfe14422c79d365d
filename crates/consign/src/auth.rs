//! Who calls: API keys and their hashes; and how we show who we are: the secrets of webhooks.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// What every key starts with, so that scanners for leaked credentials can find it.
const PREFIX: &str = "csk_";

/// Makes a new API key: `csk_` and 256 random bits.
pub fn new_key() -> String {
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
}

/// Makes a secret that others sign or check with: 192 random bits as 32 letters of base64, so that it is as long as clients
/// know it and can be decoded by the libraries of Standard Webhooks.
pub fn new_signing_secret() -> String {
    STANDARD.encode(rand::random::<[u8; 24]>())
}

/// The form in which a key is stored. A key is random, so that a plain hash cannot be searched.
///
/// # Panics
/// Never: a SHA-256 has 32 bytes.
pub fn hash(key: &str) -> [u8; 32] {
    digest(&SHA256, key.as_bytes()).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
