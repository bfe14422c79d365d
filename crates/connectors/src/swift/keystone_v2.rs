//! Keystone's API v2.0, for clouds that never got v3.
//!
//! # Source
//! OpenStack Identity API v2.0 (obsolete), "Tokens", "Tenants".

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::{Catalogue, OBJECT_STORE};
use super::identity::{Identity, PROJECTS_MAX, Project, Session, Shown, Told};
use super::keystone::no_project;
use super::{FIND_PROJECT, LOG_IN};
use crate::error::Result;
use crate::secret::Secret;

#[derive(Debug, Deserialize)]
struct Issued {
    access: Access,
}

#[derive(Debug, Deserialize)]
struct Access {
    token: Token,
    #[serde(rename = "serviceCatalog")]
    catalog: Option<Vec<Service>>,
}

#[derive(Deserialize)]
struct Token {
    id: String,
    tenant: Option<Tenant>,
}

#[derive(Debug, Deserialize)]
struct Tenant {
    id: String,
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Service {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    region: Option<String>,
    #[serde(rename = "publicURL")]
    public_url: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tenants {
    tenants: Vec<Tenant>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl Identity {
    pub(super) async fn log_in_v2(&self, username: &str, password: &Secret) -> Result<Session> {
        let named = match &self.project {
            Some(Project::Id(id)) => Some(("tenantId", id)),
            Some(Project::Name { name, .. }) => Some(("tenantName", name)),
            None => None,
        };
        let access = self.issue_v2(LOG_IN, username, password, named).await?;
        let token = Secret::new(access.token.id.clone());
        if access.token.tenant.is_some() {
            return Ok(Session { storage: catalogue(&access).find(&self.region)?, token });
        }
        let told: Told<Tenants> =
            self.ask(FIND_PROJECT, Method::GET, "/v2.0/tenants", Shown::InHead(&token), None).await?;
        let mut seen = Catalogue::default();
        let tenants = told.body.tenants.into_iter().filter(|tenant| tenant.enabled != Some(false));
        for tenant in tenants.take(PROJECTS_MAX) {
            let access = self.issue_v2(FIND_PROJECT, username, password, Some(("tenantId", &tenant.id))).await?;
            let catalogue = catalogue(&access);
            if let Ok(storage) = catalogue.find(&self.region) {
                return Ok(Session { storage, token: Secret::new(access.token.id) });
            }
            seen.extend(catalogue);
        }
        if seen.is_empty() {
            return Err(no_project(self.host()));
        }
        seen.find(&self.region).map(|storage| Session { token, storage })
    }

    async fn issue_v2(
        &self,
        action: &'static str,
        username: &str,
        password: &Secret,
        tenant: Option<(&str, &String)>,
    ) -> Result<Access> {
        let mut auth = json!({"passwordCredentials": {"username": username, "password": password.expose()}});
        if let Some((key, value)) = tenant {
            auth[key] = Value::from(value.as_str());
        }
        let body = json!({"auth": auth});
        let told: Told<Issued> = self.ask(action, Method::POST, "/v2.0/tokens", Shown::Nothing, Some(&body)).await?;
        Ok(told.body.access)
    }
}

fn catalogue(access: &Access) -> Catalogue {
    let mut found = Catalogue::default();
    let services = access.catalog.iter().flatten().filter(|service| service.kind == OBJECT_STORE);
    for endpoint in services.flat_map(|service| &service.endpoints) {
        if let Some(url) = &endpoint.public_url {
            found.add(endpoint.region.clone().unwrap_or_default(), url.as_str());
        }
    }
    found
}
