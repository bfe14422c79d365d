//! A stand-in for Google Cloud Storage: an emulator by other hands, behind a gate of ours that checks tokens.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;

use crate::{server, tool};

/// Runs before every script of [`Gcs::python`].
const PRELUDE: &str = include_str!("prelude.py");

static GCS: OnceCell<Gcs> = OnceCell::const_new();

/// The stand-in for Google Cloud Storage of this run, started when it does not run yet.
///
/// # Errors
/// [`Missing`](crate::Missing) when it is not installed (in CI a plain error), or the log of a start that failed.
pub async fn gcs() -> Result<Gcs> {
    GCS.get_or_try_init(|| async { Ok(Gcs::of(server::shared("gcs", "gcp-storage-emulator").await?)) }).await.cloned()
}

/// A running stand-in: `gcp-storage-emulator`, and our gate before it. `scripts/testbed/gcs-gate.py` says what is whose.
#[derive(Clone, Debug)]
pub struct Gcs {
    /// Base URL of the API, at the gate, without a slash at the end.
    pub endpoint: String,
    /// Where tokens are issued.
    pub token_uri: String,
    /// Base URL of the emulator itself, which asks nobody for a token.
    pub emulator: String,
    /// The emulator's version: `2026.7.19`.
    pub version: String,
    /// A service account with every right on objects.
    pub client_email: String,
    /// The private key of all service accounts, in PKCS#8.
    pub private_key: String,
    /// The same key in PKCS#1.
    pub private_key_pkcs1: String,
    /// A key that no service account has.
    pub unknown_private_key: String,
}

#[derive(Debug, Deserialize)]
struct State {
    port: u16,
    port_emulator: u16,
    version: String,
    client_email: String,
    private_key: String,
    private_key_pkcs1: String,
    unknown_private_key: String,
}

impl Gcs {
    fn of(state: State) -> Self {
        let endpoint = format!("http://127.0.0.1:{}", state.port);
        Self {
            token_uri: format!("{endpoint}/token"),
            endpoint,
            emulator: format!("http://127.0.0.1:{}", state.port_emulator),
            version: state.version,
            client_email: state.client_email,
            private_key: state.private_key,
            private_key_pkcs1: state.private_key_pkcs1,
            unknown_private_key: state.unknown_private_key,
        }
    }

    /// The gate's address, for a proxy in front of it.
    ///
    /// # Panics
    /// Never: the endpoint is `http://127.0.0.1:PORT`.
    pub fn addr(&self) -> std::net::SocketAddr {
        self.endpoint.trim_start_matches("http://").parse().expect("made from a port")
    }

    /// A service account of its own, with the same key, that may do on objects what `rights` names (`create`, `delete`,
    /// `get`, `list`), and whose tokens hold for `token_secs`. Gives its e-mail address.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn account(&self, name: &str, rights: &[&str], token_secs: u64) -> Result<String> {
        let client_email = format!("{name}@test-project.iam.gserviceaccount.com");
        let asked = json!({"client_email": client_email, "rights": rights, "token_secs": token_secs});
        self.control("account", &asked).await?;
        Ok(client_email)
    }

    /// How many tokens a service account got so far.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn tokens_issued(&self, client_email: &str) -> Result<u64> {
        let answer = self.control("issued", &json!({"client_email": client_email})).await?;
        answer["issued"].as_u64().context("a number")
    }

    /// Takes back all tokens of a service account.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn revoke_tokens(&self, client_email: &str) -> Result<()> {
        self.control("revoke", &json!({"client_email": client_email})).await.map(drop)
    }

    /// The names of the uploads whose sessions are open in a bucket.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn open_sessions(&self, bucket: &str) -> Result<Vec<String>> {
        let mut answer = self.control("sessions", &json!({"bucket": bucket})).await?;
        Ok(serde_json::from_value(answer["names"].take())?)
    }

    /// As [`Self::open_sessions`], without those to which their client never came back: whoever is stopped before it has read
    /// the answer to its first request cannot know what that has opened, and the service forgets it after a week.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn known_sessions(&self, bucket: &str) -> Result<Vec<String>> {
        let mut answer = self.control("sessions", &json!({"bucket": bucket})).await?;
        Ok(serde_json::from_value(answer["known"].take())?)
    }

    /// Forgets the sessions that are open in a bucket, as the service does after a week.
    ///
    /// # Errors
    /// When the gate does not answer.
    pub async fn lose_sessions(&self, bucket: &str) -> Result<()> {
        self.control("lose", &json!({"bucket": bucket})).await.map(drop)
    }

    /// Makes a bucket, or empties the one that is there.
    ///
    /// # Errors
    /// When google-cloud-storage is missing or the emulator refuses.
    pub async fn create_bucket(&self, name: &str) -> Result<()> {
        let script = format!(
            "
bucket = client.bucket({name:?})
if bucket.exists():
    for blob in client.list_blobs({name:?}):
        blob.delete()
else:
    client.create_bucket(bucket)"
        );
        self.python(&script).await?;
        self.lose_sessions(name).await
    }

    /// The service account as the JSON of a key file, with this gate's token URL.
    pub fn key_file(&self) -> Value {
        json!({
            "type": "service_account", "project_id": "test-project", "private_key_id": "k", "client_id": "1",
            "client_email": self.client_email, "private_key": self.private_key, "token_uri": self.token_uri,
        })
    }

    /// Runs a short Python script with google-cloud-storage and gives what it left in `result` as JSON.
    ///
    /// The script finds `client` (behind the gate, allowed everything), `gated()` (a client at the gate, with the service
    /// account) and the module `json`. Bytes in `result` become hexadecimal.
    ///
    /// # Errors
    /// When the script raises: the error shows the traceback.
    pub async fn python(&self, script: &str) -> Result<Value> {
        let mut command = tool::command("python")?;
        command.arg("-c").arg(PRELUDE).arg(script).env("ACCOUNT", self.key_file().to_string());
        command.env("ENDPOINT", &self.endpoint).env("EMULATOR", &self.emulator);
        serde_json::from_slice(&tool::output("python", command).await?).context("result of the script")
    }

    /// Asks the gate for what no client of the real service could.
    #[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
    async fn control(&self, what: &str, asked: &Value) -> Result<Value> {
        let mut stream = TcpStream::connect(self.addr()).await?;
        let body = asked.to_string();
        let head = format!("POST /_gate/{what} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n");
        let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        ensure!(head.starts_with("HTTP/1.1 200 "), "{answer}");
        Ok(serde_json::from_str(body)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::or_skip;

    /// The gate was not made for one client only: Google's own passes it, in one request and in chunks.
    #[tokio::test]
    async fn googles_own_client_passes_the_gate() {
        let Some(gcs) = or_skip(gcs().await) else { return };
        gcs.create_bucket("testkit-round-trip").await.unwrap();
        gcs.create_bucket("testkit-round-trip").await.unwrap();
        let script = "
bucket, result = gated().bucket('testkit-round-trip'), []
for name, size in ('a/ü +.bin', 5), ('/a//../b/', 9_000_000):
    blob = bucket.blob(name, chunk_size=4 << 20)
    blob.upload_from_string(b'x' * size, content_type='text/x-t', checksum='crc32c')
    found = client.bucket('testkit-round-trip').get_blob(name)
    result.append([found.size, found.content_type, found.crc32c == blob.crc32c])
    result.append(bucket.blob(name).download_as_bytes(start=1, end=3))
result.append([blob.name for blob in gated().list_blobs(bucket, page_size=1)])
bucket.blob('/a//../b/').delete()
result.append(bucket.get_blob('/a//../b/'))";
        let result = gcs.python(script).await.unwrap();
        let names = json!(["/a//../b/", "a/ü +.bin"]);
        let expected = json!([[5, "text/x-t", true], "787878", [9_000_000, "text/x-t", true], "787878", names, null]);
        assert_eq!(result, expected);
        assert_eq!(gcs.open_sessions("testkit-round-trip").await.unwrap(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_gate_keeps_strangers_out() {
        let Some(mut gcs) = or_skip(gcs().await) else { return };
        gcs.create_bucket("testkit-private").await.unwrap();
        let put = "gated().bucket('testkit-private').blob('x').upload_from_string('x')";
        gcs.python(put).await.unwrap();
        gcs.client_email = gcs.account("reader", &["get", "list"], 3600).await.unwrap();
        let error = gcs.python(put).await.unwrap_err().to_string();
        assert!(error.contains("does not have storage.objects.create access"), "{error}");
        gcs.private_key = gcs.unknown_private_key.clone();
        let error = gcs.python(put).await.unwrap_err().to_string();
        assert!(error.contains("invalid_grant"), "{error}");
    }
}
