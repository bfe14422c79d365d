//! OpenStack: Keystone with users of several kinds, Swift, and Swift's own client as a witness.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{Account, place, server, tool};

/// Runs before every script of [`OpenStack::swift`].
const PRELUDE: &str = include_str!("prelude.py");

static OPENSTACK: OnceCell<OpenStack> = OnceCell::const_new();

/// The Keystone and the Swift of this run, started when they do not run yet (10 to 30 s).
///
/// # Errors
/// [`Missing`](crate::Missing) when they are not installed (in CI a plain error), or the log of a start that failed.
pub async fn openstack() -> Result<OpenStack> {
    let start = || async { Ok(OpenStack { state: server::shared("openstack", "python-openstack").await? }) };
    OPENSTACK.get_or_try_init(start).await.cloned()
}

/// A running Keystone (v3) and Swift with one project, `demo`, in the domain `Default`.
///
/// The catalogue has two regions: `RegionOne` is the Swift that runs, at `RegionTwo` nothing listens.
#[derive(Clone, Debug)]
pub struct OpenStack {
    state: State,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct State {
    keystone_port: u16,
    keystone_v2_port: u16,
    swift_port: u16,
    version: String,
    project_id: String,
    passwords: Passwords,
    application_credential_id: String,
    application_credential_secret: String,
    access_key_id: String,
    secret_access_key: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Passwords {
    demo: String,
    nodefault: String,
    reader: String,
    projectless: String,
}

/// The users that may log in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum User {
    /// Member of `demo`, which is the default project.
    Demo,
    /// Member of `demo`, without a default project: a log-in without scope yields no catalogue.
    NoDefault,
    /// May only read in `demo`.
    Reader,
    /// Has no project at all.
    Projectless,
}

impl User {
    /// The name to log in with.
    pub fn name(self) -> &'static str {
        match self {
            Self::Demo => "demo",
            Self::NoDefault => "nodefault",
            Self::Reader => "reader",
            Self::Projectless => "projectless",
        }
    }
}

impl OpenStack {
    /// Keystone's base URL without version and without a slash at the end.
    pub fn auth_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.state.keystone_port)
    }

    /// Base URL of the stand-in for the identity API v2.0 (ours: Keystone no longer has that version).
    pub fn auth_url_v2(&self) -> String {
        format!("http://127.0.0.1:{}", self.state.keystone_v2_port)
    }

    /// Keystone's address, for a proxy in front of it.
    pub fn keystone_addr(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.state.keystone_port).into()
    }

    /// Swift's address, for a proxy in front of it; the address of its S3 API as well.
    pub fn swift_addr(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.state.swift_port).into()
    }

    /// What runs: `Swift 2.38.3, Keystone 30.0.0`.
    pub fn version(&self) -> &str {
        &self.state.version
    }

    /// Id of the project `demo`.
    pub fn project_id(&self) -> &str {
        &self.state.project_id
    }

    /// A user's password.
    pub fn password(&self, user: User) -> &str {
        let passwords = &self.state.passwords;
        match user {
            User::Demo => &passwords.demo,
            User::NoDefault => &passwords.nodefault,
            User::Reader => &passwords.reader,
            User::Projectless => &passwords.projectless,
        }
    }

    /// Id and secret of an application credential of [`User::Demo`].
    pub fn application_credential(&self) -> (&str, &str) {
        (&self.state.application_credential_id, &self.state.application_credential_secret)
    }

    /// Key pair of [`User::Demo`] for Swift's S3 API.
    pub fn s3_account(&self) -> Account {
        Account {
            access_key_id: self.state.access_key_id.clone(),
            secret_access_key: self.state.secret_access_key.clone(),
            session_token: None,
        }
    }

    /// Runs a short Python script with Swift's own client and gives what it left in `result` as JSON.
    ///
    /// The script finds `swift` (a `swiftclient.client.Connection` of the user `demo`), `connection(user)`,
    /// `identity(method, path, body, **headers)` (Keystone's API v3 as its administrator) and the module `json`. Bytes in
    /// `result` become hexadecimal.
    ///
    /// # Errors
    /// When the script raises: the error shows the traceback.
    pub async fn swift(&self, script: &str) -> Result<Value> {
        let mut command = tool::command("python-openstack")?;
        command.arg("-c").arg(PRELUDE).arg(script).env("STATE", serde_json::to_string(&self.state)?);
        command.current_dir(place::run());
        serde_json::from_slice(&tool::output("python-openstack", command).await?).context("result of the script")
    }

    /// Makes a container and the one for its segments, or empties them.
    ///
    /// # Errors
    /// When Swift refuses.
    pub async fn empty_container(&self, name: &str) -> Result<()> {
        let script = format!(
            "
for container in [{name:?}, {name:?} + '_segments']:
    swift.put_container(container, {{'X-Container-Read': '', 'X-Container-Write': '', 'X-Container-Meta-Quota-Bytes': ''}})
    for found in swift.get_container(container, full_listing=True)[1]:
        swift.delete_object(container, found['name'])
swift.delete_container({name:?} + '_segments')"
        );
        self.swift(&script).await.map(drop)
    }

    /// Names of the objects in a container; none when there is no such container.
    ///
    /// # Errors
    /// When Swift refuses.
    pub async fn names_in(&self, container: &str) -> Result<Vec<String>> {
        let script = format!(
            "
try:
    result = [found['name'] for found in swift.get_container({container:?}, full_listing=True)[1]]
except swiftclient.client.ClientException as error:
    if error.http_status != 404:
        raise
    result = []"
        );
        Ok(serde_json::from_value(self.swift(&script).await?)?)
    }

    /// Adds a region whose object store is at another address, such as that of a proxy in front of Swift, and names it.
    ///
    /// # Errors
    /// When Keystone refuses.
    pub async fn region_at(&self, addr: std::net::SocketAddr) -> Result<String> {
        let script = format!(
            "
region = identity('POST', '/regions', {{'region': {{'description': 'a proxy'}}}})[1]['region']['id']
service = identity('GET', '/services?type=object-store')[1]['services'][0]['id']
url = 'http://{addr}/v1/AUTH_%(project_id)s'
endpoint = {{'service_id': service, 'interface': 'public', 'region_id': region, 'url': url}}
identity('POST', '/endpoints', {{'endpoint': endpoint}})
result = region"
        );
        Ok(serde_json::from_value(self.swift(&script).await?)?)
    }

    /// Makes Keystone refuse a token from now on, as if it had expired. Swift follows within a second.
    ///
    /// # Errors
    /// When Keystone does not know the token.
    pub async fn revoke(&self, token: &str) -> Result<()> {
        let script = format!("identity('DELETE', '/auth/tokens', **{{'X-Subject-Token': {token:?}}})");
        self.swift(&script).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::or_skip;

    #[tokio::test]
    async fn swift_takes_an_object_and_gives_it_back() {
        let Some(openstack) = or_skip(openstack().await) else { return };
        openstack.empty_container("testkit").await.unwrap();
        let script = "
swift.put_object('testkit', 'a/ü +.bin', b'hello', content_type='x/y')
headers, body = swift.get_object('testkit', 'a/ü +.bin')
result = [headers['content-type'], body]";
        assert_eq!(openstack.swift(script).await.unwrap(), serde_json::json!(["x/y", "68656c6c6f"]));
        assert_eq!(openstack.names_in("testkit").await.unwrap(), ["a/ü +.bin"]);
        assert_eq!(openstack.names_in("no-such-container").await.unwrap(), Vec::<String>::new());
        let error = openstack.swift("connection('reader').put_object('testkit', 'x', b'x')").await.unwrap_err();
        assert!(error.to_string().contains("403"), "{error}");
    }

    #[tokio::test]
    async fn a_revoked_token_is_refused() {
        let Some(openstack) = or_skip(openstack().await) else { return };
        let token = openstack.swift("result = swift.get_auth()[1]").await.unwrap().as_str().unwrap().to_owned();
        openstack.revoke(&token).await.unwrap();
        let script = format!(
            "
url = swift.get_auth()[0]
result = []
for token in [{token:?}, swift.get_auth()[1]]:
    try:
        swiftclient.client.head_account(url, token)
        result.append(200)
    except swiftclient.client.ClientException as error:
        result.append(error.http_status)"
        );
        assert_eq!(openstack.swift(&script).await.unwrap(), serde_json::json!([401, 200]));
    }
}
