//! A container of Azure Blob Storage, and the key or the token for it.

use connectors::Network;
use connectors::azure_blob::{AzureBlob, Config};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{given, given_secret};
use crate::error::Faults;
use crate::secret::Secret;

/// Reaches one container.
#[derive(Deserialize, JsonSchema, Validate)]
#[expect(clippy::struct_field_names, reason = "they are the arguments of the contract")]
pub(in crate::operations) struct Account {
    /// Name of the storage account.
    #[garde(length(min = 1, max = 255))]
    storage_account: String,
    /// Key of the storage account, in base64. Write only. Either this or `sas_token` is required.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    storage_access_key: Option<Secret>,
    /// Shared access signature of the account, the container or the blob, with or without its question mark. Write
    /// only. Either this or `storage_access_key` is required.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    sas_token: Option<Secret>,
    /// Name of the container.
    #[garde(length(min = 1, max = 255))]
    container: String,
    /// Base URL of a service other than the public cloud, with the account in its path where the service wants it there:
    /// `https://myaccount.blob.core.chinacloudapi.cn`, `http://127.0.0.1:10000/devstoreaccount1`. Without a scheme,
    /// `https://` is meant. By default `https://{storage_account}.blob.core.windows.net`.
    #[garde(length(max = 2048))]
    endpoint: Option<String>,
}

impl Account {
    /// Checks what spans fields.
    pub(in crate::operations) fn check(&self, faults: &mut Faults) {
        let (key, token) = (&self.storage_access_key, &self.sas_token);
        match (given_secret(key.as_ref()), given_secret(token.as_ref())) {
            (None, None) => faults
                .add("storage_access_key", "The storage_access_key field is required when sas_token is not present."),
            (Some(_), Some(_)) => {
                faults.add("sas_token", "The sas_token field cannot be used together with storage_access_key.");
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
    }

    /// What the connector needs to reach the container.
    pub(in crate::operations) fn config(&self) -> Config {
        Config {
            account: self.storage_account.clone(),
            key: given_secret(self.storage_access_key.as_ref()),
            sas: given_secret(self.sas_token.as_ref()),
            container: self.container.clone(),
            endpoint: given(self.endpoint.as_ref()),
            ..Config::default()
        }
    }

    /// Reaches the container.
    ///
    /// # Errors
    /// A key, a token or an endpoint that cannot be read.
    pub(in crate::operations) fn connector(&self, network: &Network) -> connectors::Result<AzureBlob> {
        AzureBlob::new(&self.config(), network.http.clone(), network.limits)
    }
}
