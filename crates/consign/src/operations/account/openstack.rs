//! A container of OpenStack's object store, and a way to log in to its Keystone.

use connectors::Network;
use connectors::swift::{Config, Swift};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{given, given_secret};
use crate::error::Faults;
use crate::secret::Secret;

/// Reaches one container.
#[derive(Deserialize, JsonSchema, Validate)]
pub(in crate::operations) struct Account {
    /// URL of Keystone, the identity service, with or without its version: `https://keystone.example.com:5000`. Versions 3
    /// and 2.0 are spoken. Without a scheme, `https://` is meant.
    #[garde(length(min = 1, max = 2048))]
    auth_url: String,
    /// Name of the user. Required, with `password`, unless there is an application credential.
    #[garde(length(max = 255))]
    username: Option<String>,
    /// Password of the user. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    password: Option<Secret>,
    /// Region of the object store, as the catalogue names it.
    #[garde(length(min = 1, max = 255))]
    region: String,
    /// Name of the container.
    #[garde(length(min = 1, max = 256))]
    container: String,
    /// Name of the project; another name for `project_name`.
    #[garde(length(max = 255))]
    tenant_name: Option<String>,
    /// Name of the project. Without any, it is the user's default one, else the first that has an object store in the region.
    #[garde(length(max = 255))]
    project_name: Option<String>,
    /// Id of the project; goes before its name.
    #[garde(length(max = 255))]
    project_id: Option<String>,
    /// Domain of the user. By default `Default`.
    #[garde(length(max = 255))]
    user_domain_name: Option<String>,
    /// Domain of the project. By default that of the user.
    #[garde(length(max = 255))]
    project_domain_name: Option<String>,
    /// Id of an application credential, instead of `username` and `password`. It has its own project.
    #[garde(length(max = 255))]
    application_credential_id: Option<String>,
    /// Secret of the application credential. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    application_credential_secret: Option<Secret>,
}

impl Account {
    /// Checks what spans fields.
    pub(in crate::operations) fn check(&self, faults: &mut Faults) {
        let id = given(self.application_credential_id.as_ref()).is_some();
        let secret = given_secret(self.application_credential_secret.as_ref()).is_some();
        let mut together = |there, missing| {
            faults.add(missing, format!("The {missing} field is required when {there} is present."));
        };
        match (id, secret) {
            (true, true) => return,
            (true, false) => together("application_credential_id", "application_credential_secret"),
            (false, true) => together("application_credential_secret", "application_credential_id"),
            (false, false) => {}
        }
        for (name, is_given) in [
            ("username", given(self.username.as_ref()).is_some()),
            ("password", given_secret(self.password.as_ref()).is_some()),
        ] {
            if !is_given && !id && !secret {
                faults
                    .add(name, format!("The {name} field is required when application_credential_id is not present."));
            }
        }
    }

    pub(in crate::operations) fn container(&self) -> &str {
        &self.container
    }

    /// The user's name, where it is one that logs in.
    pub(in crate::operations) fn username(&self) -> Option<String> {
        given(self.username.as_ref()).filter(|_| given(self.application_credential_id.as_ref()).is_none())
    }

    /// Reaches the container.
    ///
    /// # Errors
    /// An address or a name that cannot be sent.
    pub(in crate::operations) fn connector(&self, network: &Network) -> connectors::Result<Swift> {
        let config = Config {
            auth_url: self.auth_url.clone(),
            username: given(self.username.as_ref()).unwrap_or_default(),
            password: given_secret(self.password.as_ref()).unwrap_or_default(),
            application_credential_id: given(self.application_credential_id.as_ref()),
            application_credential_secret: given_secret(self.application_credential_secret.as_ref()),
            region: self.region.clone(),
            container: self.container.clone(),
            tenant_name: given(self.tenant_name.as_ref()),
            project_name: given(self.project_name.as_ref()),
            project_id: given(self.project_id.as_ref()),
            user_domain_name: given(self.user_domain_name.as_ref()),
            project_domain_name: given(self.project_domain_name.as_ref()),
        };
        Swift::new(&config, network.http.clone(), network.limits)
    }
}
