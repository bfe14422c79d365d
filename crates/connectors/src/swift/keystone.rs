//! Keystone's API v3: password or application credential, and the project that was named, is the default, or is found.
//!
//! # Source
//! OpenStack Identity API v3, "Authentication and token management".

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalogue::{Catalogue, OBJECT_STORE};
use super::identity::{Credentials, Identity, PROJECTS_MAX, Project, Session, Shown, Told};
use super::{FIND_PROJECT, LOG_IN};
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

#[derive(Debug, Deserialize)]
struct Issued {
    token: Token,
}

#[derive(Debug, Deserialize)]
struct Token {
    project: Option<Named>,
    catalog: Option<Vec<Service>>,
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
    interface: String,
    /// The older name of `region_id`.
    region: Option<String>,
    region_id: Option<String>,
    url: String,
}

#[derive(Debug, Deserialize)]
struct Projects {
    projects: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    id: String,
    enabled: Option<bool>,
}

impl Identity {
    pub(super) async fn log_in_v3(&self) -> Result<Session> {
        let scope = self.project.as_ref().map(|project| match project {
            Project::Id(id) => json!({"project": {"id": id}}),
            Project::Name { name, domain } => json!({"project": {"name": name, "domain": domain_of(domain)}}),
        });
        let body = match &self.credentials {
            Credentials::Password { username, password, domain } => {
                let user = json!({"name": username, "domain": domain_of(domain), "password": password.expose()});
                request(&json!({"methods": ["password"], "password": {"user": user}}), scope.as_ref())
            }
            Credentials::Application { id, secret } => {
                let credential = json!({"id": id, "secret": secret.expose()});
                // It belongs to one project; naming one is an error.
                request(&json!({"methods": ["application_credential"], "application_credential": credential}), None)
            }
        };
        let (token, issued) = self.issue(LOG_IN, Shown::Nothing, &body).await?;
        if issued.project.is_some() {
            return Ok(Session { storage: catalogue(&issued).find(&self.region)?, token });
        }
        self.discover(&token).await
    }

    async fn issue(&self, action: &'static str, shown: Shown<'_>, body: &Value) -> Result<(Secret, Token)> {
        let told: Told<Issued> = self.ask(action, Method::POST, "/v3/auth/tokens", shown, Some(body)).await?;
        let token = told.headers.get("x-subject-token").and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(|| Error::new(Kind::Protocol, action, "the answer of Keystone holds no token"))?;
        Ok((Secret::new(token), told.body.token))
    }

    /// Takes the first project of the user whose catalogue has an object store in the region.
    async fn discover(&self, unscoped: &Secret) -> Result<Session> {
        let told: Told<Projects> =
            self.ask(FIND_PROJECT, Method::GET, "/v3/auth/projects", Shown::InHead(unscoped), None).await?;
        let mut seen = Catalogue::default();
        let mut refused = None;
        let projects = told.body.projects.into_iter().filter(|project| project.enabled != Some(false));
        for project in projects.take(PROJECTS_MAX) {
            let identity = json!({"methods": ["token"], "token": {"id": unscoped.expose()}});
            let body = request(&identity, Some(&json!({"project": {"id": project.id}})));
            match self.issue(FIND_PROJECT, Shown::InBody(unscoped), &body).await {
                Ok((token, issued)) => {
                    let catalogue = catalogue(&issued);
                    if let Ok(storage) = catalogue.find(&self.region) {
                        return Ok(Session { token, storage });
                    }
                    seen.extend(catalogue);
                }
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        if !seen.is_empty() {
            // It is not there, or a project would have been taken: this names the regions that are.
            return seen.find(&self.region).map(|storage| Session { token: unscoped.clone(), storage });
        }
        Err(refused.unwrap_or_else(|| no_project(self.host())))
    }
}

/// The error of a user who belongs to nothing.
pub(super) fn no_project(host: &str) -> Error {
    let detail = format!("the user has no project with an object store at {host}; give the user a role on one");
    Error::new(Kind::AccessDenied, FIND_PROJECT, detail)
}

fn request(identity: &Value, scope: Option<&Value>) -> Value {
    match scope {
        Some(scope) => json!({"auth": {"identity": identity, "scope": scope}}),
        None => json!({"auth": {"identity": identity}}),
    }
}

/// The domain that every Keystone begins with is called `Default` and has the id `default`; people write both.
fn domain_of(name: &str) -> Value {
    if name == "default" { json!({"id": name}) } else { json!({"name": name}) }
}

fn catalogue(token: &Token) -> Catalogue {
    let mut found = Catalogue::default();
    let services = token.catalog.iter().flatten().filter(|service| service.kind == OBJECT_STORE);
    for endpoint in services.flat_map(|service| &service.endpoints).filter(|endpoint| endpoint.interface == "public") {
        let region = endpoint.region_id.as_deref().or(endpoint.region.as_deref());
        found.add(region.unwrap_or_default(), endpoint.url.as_str());
    }
    found
}
