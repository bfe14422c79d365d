//! A bucket of Google Cloud Storage, and a service account that may use it.

use connectors::Network;
use connectors::gcs::{Config, Gcs};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::given;
use crate::error::Faults;
use crate::operations::permissions::shell_word;
use crate::secret::Secret;

/// Reaches one bucket.
#[derive(Deserialize, JsonSchema, Validate)]
pub(in crate::operations) struct Account {
    /// Id of the project that the bucket belongs to. Nothing depends on it.
    #[garde(length(min = 1, max = 255))]
    project_id: String,
    /// Name of the bucket.
    #[garde(length(min = 1, max = 255))]
    bucket: String,
    /// E-mail address of the service account: `client_email` of its JSON key file.
    #[garde(length(min = 1, max = 512))]
    client_email: String,
    /// Private key of the service account: `private_key` of its JSON key file. PEM, in PKCS#8 or PKCS#1; its line ends may
    /// be spelled out as `\n`, or be lost. Write only.
    #[garde(skip)]
    #[schemars(with = "String", extend("writeOnly" = true))]
    private_key: Secret,
    /// Host or base URL of a service other than Google's that speaks its JSON API. Without a scheme, `https://` is meant.
    #[garde(length(max = 2048))]
    endpoint: Option<String>,
    /// URL that issues access tokens, where it is not Google's.
    #[garde(length(max = 2048))]
    token_uri: Option<String>,
}

impl Account {
    /// Checks what bounds cannot say.
    pub(in crate::operations) fn check(&self, faults: &mut Faults) {
        if self.private_key.expose().is_empty() {
            faults.add("private_key", "The private_key field is required.");
        }
    }

    /// A command that grants the service account a role on the bucket.
    pub(in crate::operations) fn granting(&self, role: &str) -> String {
        let bucket = shell_word(&format!("gs://{}", self.bucket));
        let member = shell_word(&format!("serviceAccount:{}", self.client_email));
        format!("gcloud storage buckets add-iam-policy-binding {bucket} --member={member} --role=roles/{role}")
    }

    /// Reaches the bucket.
    ///
    /// # Errors
    /// A private key or an address that cannot be read.
    pub(in crate::operations) fn connector(&self, network: &Network) -> connectors::Result<Gcs> {
        let config = Config {
            bucket: self.bucket.clone(),
            client_email: self.client_email.clone(),
            private_key: self.private_key.clone(),
            endpoint: given(self.endpoint.as_ref()),
            token_uri: given(self.token_uri.as_ref()),
        };
        Gcs::new(&config, network.http.clone(), &network.google_tokens, network.limits)
    }
}
