//! The two signatures of a delivery: the one that the official clients check, and that of Standard Webhooks.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::clock::Timestamp;
use crate::id::DeliveryId;

/// The value of `CloudConvert-Signature`: HMAC-SHA256 over the exact bytes, keyed with the letters of the secret, in
/// lower-case hex.
pub fn compatible(secret: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hex::encode(hmac::sign(&key, body))
}

/// The value of `webhook-signature`, over id, moment and the exact bytes, keyed with what the secret is the base64 of, as
/// the libraries of Standard Webhooks do it.
pub fn standard(secret: &str, id: DeliveryId, at: Timestamp, body: &[u8]) -> String {
    // Secrets are made as base64; one that is not would be its own key.
    let key = STANDARD.decode(secret).unwrap_or_else(|_| secret.as_bytes().to_vec());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let head = format!("{id}.{}.", at.unix_seconds());
    let mut context = hmac::Context::with_key(&key);
    context.update(head.as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_clients_accept_it() {
        // From the tests of the Java and the Python client.
        assert_eq!(
            compatible("90sffs0d8fs0f9sf0", b"cloudconvert"),
            "5c4c0691bce8a1a2af738b7073fe0627e792734813358c5f88a658819dd0a6d2"
        );
    }

    #[test]
    fn the_libraries_of_standard_webhooks_accept_it() {
        // Made with, and accepted by, the package `standardwebhooks` of PyPI.
        let id: DeliveryId = "0197f3a0-0000-7000-8000-000000000001".parse().unwrap();
        let body = br#"{"event":"job.finished","job":{"id":"x"}}"#;
        let signature = standard("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", id, Timestamp(1_767_603_600_000_000), body);
        assert_eq!(signature, "v1,8EKm0H5oYMubaA8o7VSK0pfl5VyGl1jxIj0L23jlpR4=");
    }
}
