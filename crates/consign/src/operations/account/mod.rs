//! What reaches a storage, and stands in the arguments of its import and of its export alike.

pub(super) mod azure_blob;
pub(super) mod gcs;
pub(super) mod openstack;
pub(super) mod s3;
pub(super) mod sftp;

use connectors::Secret;

/// A text that is more than empty: some clients send an empty one for "none".
pub(super) fn given(text: Option<&String>) -> Option<String> {
    text.filter(|text| !text.is_empty()).cloned()
}

/// A secret that is more than empty.
pub(super) fn given_secret(secret: Option<&Secret>) -> Option<Secret> {
    secret.filter(|secret| !secret.expose().is_empty()).cloned()
}
