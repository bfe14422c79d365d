//! The Ceph gateway: S3 with users, policies and temporary credentials, and ways to look behind its interface.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{place, server, tool};

/// Runs before every script of [`Ceph::s3api`].
const PRELUDE: &str = include_str!("prelude.py");

static CEPH: OnceCell<Ceph> = OnceCell::const_new();

/// The Ceph gateway of this run, started when it does not run yet (15 to 20 s).
///
/// # Errors
/// [`Missing`](crate::Missing) when it is not installed (in CI a plain error), or the log of a start that failed.
pub async fn ceph() -> Result<Ceph> {
    CEPH.get_or_try_init(|| async { Ok(Ceph::of(server::shared("rgw", "radosgw").await?)) }).await.cloned()
}

/// A running S3 server. It stores ACLs, encrypts at rest, checks signatures, digests and session tokens.
#[derive(Clone, Debug)]
pub struct Ceph {
    /// Base URL without a slash at the end.
    pub endpoint: String,
    /// Any region does; this is the server's own.
    pub region: String,
    /// The server's version: `16.2.15`.
    pub version: String,
    /// The user `test`, who owns the buckets that [`Ceph::create_bucket`] makes.
    pub account: Account,
    /// The user `other`, who has no right on them.
    pub other: Account,
}

/// Credentials of a user.
#[derive(Clone, Debug, Deserialize)]
pub struct Account {
    /// The public half of the key pair.
    pub access_key_id: String,
    /// The secret half of the key pair.
    pub secret_access_key: String,
    /// Set for temporary credentials.
    pub session_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct State {
    port: u16,
    region: String,
    version: String,
    access_key_id: String,
    secret_access_key: String,
    other_access_key_id: String,
    other_secret_access_key: String,
}

impl Ceph {
    fn of(state: State) -> Self {
        let account =
            |access_key_id, secret_access_key| Account { access_key_id, secret_access_key, session_token: None };
        Self {
            endpoint: format!("http://127.0.0.1:{}", state.port),
            region: state.region,
            version: state.version,
            account: account(state.access_key_id, state.secret_access_key),
            other: account(state.other_access_key_id, state.other_secret_access_key),
        }
    }

    /// The server's address, for a proxy in front of it.
    ///
    /// # Panics
    /// Never: the endpoint is `http://127.0.0.1:PORT`.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().expect("made from a port")
    }

    /// Makes an empty bucket, owned by the user `test`. Succeeds when the user has it already.
    ///
    /// # Errors
    /// When boto3 is missing or the server refuses.
    pub async fn create_bucket(&self, name: &str) -> Result<()> {
        self.s3api(&format!("s3.create_bucket(Bucket={name:?})")).await.map(drop)
    }

    /// What the server itself keeps about an object: `attrs` proves encryption and headers, `size` the length. It encrypts
    /// every object; `user.rgw.x-amz-server-side-encryption` is there when it was asked to.
    ///
    /// # Errors
    /// When there is no such object.
    pub async fn object_stat(&self, bucket: &str, key: &str) -> Result<Value> {
        let stat = self.admin(&["object", "stat", "--bucket", bucket, "--object", key]).await?;
        // Attributes may be binary, which the program prints as it is.
        serde_json::from_str(&String::from_utf8_lossy(&stat)).context("object stat")
    }

    /// Runs `radosgw-admin` with the arguments and gives its output.
    ///
    /// # Errors
    /// When it fails; the error shows what it wrote.
    pub async fn admin(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let admin = place::run().join("rgw/admin");
        tool::run(&admin.to_string_lossy(), arguments).await
    }

    /// Runs a short Python script with boto3 as the user `test` and gives what it left in `result` as JSON.
    ///
    /// The script finds `s3` (a client), `client(service, account)` (for `iam`, `sts`, `s3`; `account` is `test` or
    /// `other`, default `test`), `endpoint`, and the modules `json` and `hashlib`. Bytes in `result` become hexadecimal.
    ///
    /// # Errors
    /// When the script raises: the error shows the traceback.
    pub async fn s3api(&self, script: &str) -> Result<Value> {
        let mut command = tool::command("python")?;
        command.arg("-c").arg(PRELUDE).arg(script).env("ENDPOINT", &self.endpoint).env("REGION", &self.region);
        command.env("TEST", self.account.pair()).env("OTHER", self.other.pair());
        serde_json::from_slice(&tool::output("python", command).await?).context("result of the script")
    }

    /// Temporary credentials with all rights on S3, for a quarter of an hour.
    ///
    /// # Errors
    /// When the server refuses to make or assume the role.
    pub async fn session_account(&self) -> Result<Account> {
        Ok(serde_json::from_value(self.s3api(include_str!("assume_role.py")).await?)?)
    }
}

impl Account {
    fn pair(&self) -> String {
        format!("{} {}", self.access_key_id, self.secret_access_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::or_skip;

    #[tokio::test]
    async fn ceph_takes_an_object_and_gives_it_back() {
        let Some(ceph) = or_skip(ceph().await) else { return };
        ceph.create_bucket("testkit-round-trip").await.unwrap();
        ceph.create_bucket("testkit-round-trip").await.unwrap();
        let script = "
s3.put_object(Bucket='testkit-round-trip', Key='a/ü +.bin', Body=b'hello', ServerSideEncryption='AES256')
result = s3.get_object(Bucket='testkit-round-trip', Key='a/ü +.bin')['Body'].read()";
        assert_eq!(ceph.s3api(script).await.unwrap(), "68656c6c6f");
        let stat = ceph.object_stat("testkit-round-trip", "a/ü +.bin").await.unwrap();
        assert_eq!(stat["size"], 5);
        assert_eq!(stat["attrs"]["user.rgw.crypt.mode"], "RGW-AUTO", "{stat}");
        assert_eq!(stat["attrs"]["user.rgw.x-amz-server-side-encryption"], "AES256", "{stat}");
        assert!(ceph.object_stat("testkit-round-trip", "nothing").await.is_err());
    }

    #[tokio::test]
    async fn ceph_keeps_strangers_out() {
        let Some(ceph) = or_skip(ceph().await) else { return };
        ceph.create_bucket("testkit-private").await.unwrap();
        let script = "client('s3', 'other').put_object(Bucket='testkit-private', Key='x', Body=b'x')";
        let error = ceph.s3api(script).await.unwrap_err().to_string();
        assert!(error.contains("AccessDenied"), "{error}");
    }

    #[tokio::test]
    async fn ceph_gives_temporary_credentials_that_need_their_token() {
        let Some(ceph) = or_skip(ceph().await) else { return };
        ceph.create_bucket("testkit-session").await.unwrap();
        let session = ceph.session_account().await.unwrap();
        assert!(session.session_token.as_ref().is_some_and(|token| token.len() > 50));
        let mut as_session = ceph.clone();
        as_session.account = Account { session_token: None, ..session.clone() };
        let put = "s3.put_object(Bucket='testkit-session', Key='x', Body=b'x')";
        assert!(as_session.s3api(put).await.is_err(), "without the token");
        let token = session.session_token.unwrap();
        let put = format!("client('s3', 'test', {token:?}).put_object(Bucket='testkit-session', Key='x', Body=b'x')");
        as_session.s3api(&put).await.unwrap();
    }
}
