//! A bucket of Amazon S3, or of a service that speaks its protocol, and the keys to it.

use connectors::s3::Config;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{given, given_secret};
use crate::error::Faults;
use crate::secret::Secret;

/// Reaches one bucket.
#[derive(Deserialize, JsonSchema, Validate)]
pub(in crate::operations) struct Account {
    /// Name of the bucket.
    #[garde(length(min = 1, max = 255))]
    bucket: String,
    /// Region of the bucket, such as `eu-west-1`. Services of one's own mostly take any.
    #[garde(length(min = 1, max = 64))]
    region: String,
    /// Host or base URL of a service other than Amazon's, such as `https://s3.example.com`. Without a scheme, `https://`
    /// is meant.
    #[garde(length(max = 2048))]
    endpoint: Option<String>,
    /// Public half of the key pair.
    #[garde(length(min = 1, max = 512))]
    access_key_id: String,
    /// Secret half of the key pair. Write only.
    #[garde(skip)]
    #[schemars(with = "String", extend("writeOnly" = true))]
    secret_access_key: Secret,
    /// Token of temporary credentials. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    session_token: Option<Secret>,
}

impl Account {
    /// Checks what bounds cannot say.
    pub(in crate::operations) fn check(&self, faults: &mut Faults) {
        if self.secret_access_key.expose().is_empty() {
            faults.add("secret_access_key", "The secret_access_key field is required.");
        }
    }

    /// What the connector needs to reach the bucket.
    pub(in crate::operations) fn config(&self) -> Config {
        Config {
            bucket: self.bucket.clone(),
            region: self.region.clone(),
            endpoint: given(self.endpoint.as_ref()),
            access_key_id: self.access_key_id.clone(),
            secret_access_key: self.secret_access_key.clone(),
            session_token: given_secret(self.session_token.as_ref()),
            ..Config::default()
        }
    }
}
