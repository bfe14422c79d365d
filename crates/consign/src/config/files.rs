//! The object store that keeps files: its credentials, and how it is used.

use std::path::PathBuf;

use connectors::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::redacted;

/// Credentials of the object store in `files_url`, and how it is used. They are never taken from the surroundings.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FileStore {
    /// Public half of the key pair, for `s3://`.
    pub access_key_id: Option<String>,
    /// Secret half of the key pair, for `s3://`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub secret_access_key: Option<Secret>,
    /// File that holds `files.secret_access_key`.
    pub secret_access_key_file: Option<PathBuf>,
    /// Token of temporary credentials, for `s3://`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub session_token: Option<Secret>,
    /// File that holds `files.session_token`.
    pub session_token_file: Option<PathBuf>,
    /// Name of the storage account, for `az://`, where `files_url` has no `account`.
    pub storage_account: Option<String>,
    /// Key of the storage account, for `az://`. Either this or `files.sas_token`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub storage_access_key: Option<Secret>,
    /// File that holds `files.storage_access_key`.
    pub storage_access_key_file: Option<PathBuf>,
    /// SAS token of the container that may read, add, create, write, delete and list (`racwdl`), for `az://`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub sas_token: Option<Secret>,
    /// File that holds `files.sas_token`.
    pub sas_token_file: Option<PathBuf>,
    /// E-mail address of the service account, for `gs://`.
    pub client_email: Option<String>,
    /// Private key of the service account in PEM, for `gs://`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub private_key: Option<Secret>,
    /// File that holds `files.private_key`.
    pub private_key_file: Option<PathBuf>,
    /// The service account's key file as Google issues it, for `gs://`, instead of the e-mail address and the key.
    pub service_account_file: Option<PathBuf>,
    /// Send whoever downloads a file to the object store itself, with a link that it honours for some minutes. Its endpoint
    /// must be reachable for clients. `s3://` only; with the others, and where this is off, downloads pass through here.
    pub redirect_downloads: bool,
}

impl FileStore {
    /// Settings that are given as themselves and as a file.
    pub(super) fn given_twice(&self) -> impl Iterator<Item = &'static str> {
        [
            ("secret_access_key", self.secret_access_key.is_some() && self.secret_access_key_file.is_some()),
            ("session_token", self.session_token.is_some() && self.session_token_file.is_some()),
            ("storage_access_key", self.storage_access_key.is_some() && self.storage_access_key_file.is_some()),
            ("sas_token", self.sas_token.is_some() && self.sas_token_file.is_some()),
            ("private_key", self.private_key.is_some() && self.private_key_file.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, is_twice)| is_twice.then_some(key))
    }
}
