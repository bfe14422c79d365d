//! Logging in: from `auth_url` and credentials to a token and the address of the object store.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use serde::de::DeserializeOwned;

use super::{Config, errors};
use crate::address;
use crate::error::{ARGUMENTS, Error, Kind, Result};
use crate::http::{Body, Client, Reply};
use crate::retry;
use crate::secret::Secret;

/// An answer of Keystone. Catalogues of large clouds have some hundred kilobytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Projects that are looked at when none is named.
pub(super) const PROJECTS_MAX: usize = 50;

/// What a log-in yields.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: Secret,
    /// URL of the account, without a slash at its end.
    pub(super) storage: String,
}

/// Who logs in.
#[derive(Debug)]
pub(super) enum Credentials {
    Password { username: String, password: Secret, domain: String },
    Application { id: String, secret: Secret },
}

/// The project that was named.
#[derive(Debug)]
pub(super) enum Project {
    Id(String),
    Name { name: String, domain: String },
}

/// A Keystone, and the credentials for it.
#[derive(Debug)]
pub(super) struct Identity {
    client: Client,
    /// URL without version, and without a slash at its end.
    base: String,
    host: String,
    tries: u32,
    pub(super) credentials: Credentials,
    pub(super) project: Option<Project>,
    pub(super) region: String,
    /// Texts of the credentials, which Keystone's message may repeat.
    secrets: Vec<Secret>,
}

/// The token that a request shows, which a refusal may repeat.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown<'a> {
    Nothing,
    InHead(&'a Secret),
    /// The body holds it; no header does.
    InBody(&'a Secret),
}

/// An answer of Keystone that is a success.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) headers: HeaderMap,
    pub(super) body: T,
}

impl Identity {
    pub(super) fn new(config: &Config, client: Client, tries: u32) -> Result<Self> {
        let (base, host) = base(&config.auth_url)?;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let credentials = credentials(config)?;
        let (Credentials::Password { password: secret, .. } | Credentials::Application { secret, .. }) = &credentials;
        let secrets = vec![secret.clone()];
        let user_domain = given(&config.user_domain_name).unwrap_or_else(|| "Default".to_owned());
        let domain = given(&config.project_domain_name).unwrap_or(user_domain);
        let name = given(&config.project_name).or_else(|| given(&config.tenant_name));
        let by_name = name.map(|name| Project::Name { name, domain });
        let project = given(&config.project_id).map(Project::Id).or(by_name);
        Ok(Self { client, base, host, tries, credentials, project, region: config.region.clone(), secrets })
    }

    /// Host and port, for people.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// Logs in with the version of the API that this Keystone has.
    pub(super) async fn log_in(&self) -> Result<Session> {
        match self.log_in_v3().await {
            Err(error) if is_absent(&error) => match &self.credentials {
                Credentials::Password { username, password, .. } => self
                    .log_in_v2(username, password)
                    .await
                    .map_err(|error| if is_absent(&error) { self.absent(error) } else { error }),
                Credentials::Application { .. } => Err(self.absent(error)),
            },
            answer => answer,
        }
    }

    fn absent(&self, mut error: Error) -> Error {
        let detail = format!(
            "there is no Keystone at {}; check `auth_url`, which ends before the version, such as https://{}/identity",
            self.host, self.host
        );
        (error.kind, error.detail) = (Kind::InvalidRequest, detail);
        error
    }

    /// Asks Keystone, again after transient faults.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        action: &'static str,
        method: Method,
        path: &str,
        shown: Shown<'_>,
        body: Option<&serde_json::Value>,
    ) -> Result<Told<T>> {
        let body = body.map(|value| Bytes::from(value.to_string())).unwrap_or_default();
        let reply = retry::request(self.tries, |_| self.ask_once(action, &method, path, shown, &body)).await?;
        let body = serde_json::from_slice(&reply.body).map_err(|error| {
            let detail = format!("the answer of {} is none of Keystone; check `auth_url`", self.host);
            // The cause may quote the answer, which holds a catalogue and no secret, but is long.
            Error::new(Kind::Protocol, action, detail).because(format!("{:?}", error.classify()))
        })?;
        Ok(Told { headers: reply.headers, body })
    }

    async fn ask_once(
        &self,
        action: &'static str,
        method: &Method,
        path: &str,
        shown: Shown<'_>,
        body: &Bytes,
    ) -> Result<Reply> {
        let built =
            http::Request::builder().method(method).uri(format!("{}{path}", self.base)).body(Body::from(body.clone()));
        let mut request = built.map_err(|error| {
            Error::argument("`auth_url` must be a URL such as https://keystone.example.com").because(error)
        })?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if let Shown::InHead(token) = shown {
            headers.insert("x-auth-token", sensitive(token, action)?);
        }
        let reply = Reply::read(self.client.send(request, action).await?, ANSWER_BYTES_MAX).await?;
        if reply.status.is_success() {
            return Ok(reply);
        }
        let token = match shown {
            Shown::Nothing => None,
            Shown::InHead(token) | Shown::InBody(token) => Some(token),
        };
        let secrets: Vec<Secret> = self.secrets.iter().chain(token).cloned().collect();
        Err(errors::of_keystone(action, &self.host, self.project.is_some(), &reply, &secrets))
    }
}

/// A token as a header that no log shows.
pub(super) fn sensitive(token: &Secret, action: &'static str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(token.expose())
        .map_err(|_| Error::new(Kind::Protocol, action, "the token of Keystone cannot be sent"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether Keystone has no such address: it has another version of the API, or is no Keystone.
pub(super) fn is_absent(error: &Error) -> bool {
    matches!(errors::status(error), 404 | 410)
}

fn credentials(config: &Config) -> Result<Credentials> {
    let id = config.application_credential_id.clone().unwrap_or_default();
    let secret = config.application_credential_secret.clone().unwrap_or_default();
    let missing = |detail: &str| Err(Error::new(Kind::InvalidCredentials, ARGUMENTS, detail));
    match (id.is_empty(), secret.expose().is_empty()) {
        (false, false) => return Ok(Credentials::Application { id, secret }),
        (true, true) => {}
        _ => return missing("`application_credential_id` and `application_credential_secret` belong together"),
    }
    if config.username.is_empty() || config.password.expose().is_empty() {
        return missing("`username` and `password` are both needed, or an application credential");
    }
    let domain = config.user_domain_name.clone().filter(|name| !name.is_empty());
    Ok(Credentials::Password {
        username: config.username.clone(),
        password: config.password.clone(),
        domain: domain.unwrap_or_else(|| "Default".to_owned()),
    })
}

/// Keystone's URL without version and slash, and its host with port.
fn base(auth_url: &str) -> Result<(String, String)> {
    let url = address::read(auth_url, "`auth_url` must be a URL such as https://keystone.example.com/v3")?;
    let base = address::base_of(&url);
    let base = base.strip_suffix("/auth/tokens").or_else(|| base.strip_suffix("/tokens")).unwrap_or(&base);
    let base = ["/v3", "/v2.0", "/v2"].iter().find_map(|version| base.strip_suffix(version)).unwrap_or(base);
    Ok((base.trim_end_matches('/').to_owned(), address::host_of(&url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_auth_url_is_taken_with_and_without_version() {
        for (given, expected) in [
            ("https://k.example", "https://k.example"),
            ("k.example", "https://k.example"),
            (" http://k.example:5000/ ", "http://k.example:5000"),
            ("https://k.example/v3", "https://k.example"),
            ("https://k.example/v3/", "https://k.example"),
            ("https://k.example/identity/v3/auth/tokens", "https://k.example/identity"),
            ("https://k.example/identity//", "https://k.example/identity"),
            ("https://k.example:5000/v2.0/", "https://k.example:5000"),
            ("https://k.example/v2.0/tokens", "https://k.example"),
            ("https://[::1]:5000/v3", "https://[::1]:5000"),
        ] {
            assert_eq!(base(given).unwrap().0, expected, "{given}");
        }
        for bad in ["", "ftp://k.example", "https://u:p@k.example", "https://k.example?x=1", "https://"] {
            assert_eq!(base(bad).unwrap_err().kind, Kind::InvalidRequest, "{bad}");
        }
    }

    #[test]
    fn half_credentials_are_none() {
        let full = Config { username: "u".to_owned(), password: "p".into(), ..Config::default() };
        assert!(matches!(credentials(&full).unwrap(), Credentials::Password { domain, .. } if domain == "Default"));
        for half in [
            Config { username: String::new(), ..full.clone() },
            Config { password: Secret::default(), ..full.clone() },
            Config { application_credential_id: Some("a".to_owned()), ..full.clone() },
            Config { application_credential_secret: Some("s".into()), ..full },
        ] {
            assert_eq!(credentials(&half).unwrap_err().kind, Kind::InvalidCredentials);
        }
    }
}
