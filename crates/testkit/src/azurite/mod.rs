//! Azurite, Microsoft's own server of the Azure Blob protocol, and Microsoft's own client of it.

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::{server, tool};

/// Runs before every script of [`Azurite::sdk`].
const PRELUDE: &str = include_str!("prelude.py");

static AZURITE: OnceCell<Azurite> = OnceCell::const_new();

/// The Azurite of this run, started when it does not run yet (2 s).
///
/// # Errors
/// [`Missing`](crate::Missing) when it is not installed (in CI a plain error), or the log of a start that failed.
pub async fn azurite() -> Result<Azurite> {
    AZURITE.get_or_try_init(|| async { Ok(Azurite::of(server::shared("azurite", "node").await?)) }).await.cloned()
}

/// A running server of the Azure Blob protocol. It checks signatures, SAS tokens and digests.
#[derive(Clone, Debug)]
pub struct Azurite {
    /// Base URL without a slash at the end; its path is the account.
    pub endpoint: String,
    /// Name of the storage account.
    pub account: String,
    /// Key of the account, in base64.
    pub key: String,
    /// The server's version: `3.37.0`.
    pub version: String,
    port: u16,
}

#[derive(Debug, Deserialize)]
struct State {
    port: u16,
    version: String,
    account: String,
    key: String,
}

impl Azurite {
    fn of(State { port, version, account, key }: State) -> Self {
        Self { endpoint: format!("http://127.0.0.1:{port}/{account}"), account, key, version, port }
    }

    /// The server's address, for a proxy in front of it.
    pub fn addr(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// The base URL by way of a proxy at `addr`.
    pub fn endpoint_at(&self, addr: std::net::SocketAddr) -> String {
        format!("http://{addr}/{}", self.account)
    }

    /// Makes an empty container, or empties one.
    ///
    /// # Errors
    /// When the SDK is missing or the server refuses.
    pub async fn empty_container(&self, name: &str) -> Result<()> {
        self.sdk(&format!("empty({name:?})")).await.map(drop)
    }

    /// A SAS token for a container with these permissions (`rcwdl`), valid until so many hours from now; a negative
    /// number makes one that has expired.
    ///
    /// # Errors
    /// When the SDK is missing or knows no such permission.
    pub async fn container_sas(&self, container: &str, permissions: &str, hours: i32) -> Result<String> {
        let token = self.sdk(&format!("result = sas({container:?}, {permissions:?}, {hours})")).await?;
        token.as_str().map(str::to_owned).context("a token is a text")
    }

    /// Runs a short Python script with the Azure SDK and gives what it left in `result` as JSON.
    ///
    /// The script finds `service` (a `BlobServiceClient` with the account's key), `endpoint`, `view(container, name)`
    /// (bytes, properties and metadata of a blob), `uncommitted(container)` (blocks that no blob has yet),
    /// `empty(container)` and `sas(container, permissions, hours)`. Bytes in `result` become hexadecimal.
    ///
    /// # Errors
    /// When the script raises: the error shows the traceback.
    pub async fn sdk(&self, script: &str) -> Result<Value> {
        let mut command = tool::command("python")?;
        command.arg("-c").arg(PRELUDE).arg(script);
        command.env("ENDPOINT", &self.endpoint).env("ACCOUNT", &self.account).env("KEY", &self.key);
        serde_json::from_slice(&tool::output("python", command).await?).context("result of the script")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::or_skip;

    #[tokio::test]
    async fn azurite_takes_a_blob_and_gives_it_back() {
        let Some(azurite) = or_skip(azurite().await) else { return };
        azurite.empty_container("testkit").await.unwrap();
        let script = "
client = service.get_blob_client('testkit', 'a/ü +.bin')
client.upload_blob(b'hello', metadata={'job': '7'})
client.stage_block('AAAA', b'half')
result = [view('testkit', 'a/ü +.bin'), uncommitted('testkit')]";
        let found = azurite.sdk(script).await.unwrap();
        assert_eq!((&found[0]["bytes"], &found[0]["metadata"]["job"]), (&"68656c6c6f".into(), &"7".into()));
        assert_eq!(found[1]["a/ü +.bin"], 1);
        azurite.empty_container("testkit").await.unwrap();
        assert!(azurite.sdk("view('testkit', 'a/ü +.bin')").await.is_err());
    }

    #[tokio::test]
    async fn azurite_checks_tokens_and_digests() {
        let Some(azurite) = or_skip(azurite().await) else { return };
        azurite.empty_container("testkit-sas").await.unwrap();
        for (permissions, hours, is_accepted) in [("cw", 1, true), ("r", 1, false), ("cw", -1, false)] {
            let token = azurite.container_sas("testkit-sas", permissions, hours).await.unwrap();
            let script = format!(
                "
from azure.storage.blob import BlobClient
url = f'{{endpoint}}/testkit-sas/x?' + {token:?}
BlobClient.from_blob_url(url, api_version='2024-08-04', retry_total=0).upload_blob(b'x')"
            );
            assert_eq!(azurite.sdk(&script).await.is_ok(), is_accepted, "{permissions} {hours}");
        }
        let script = "
client = service.get_blob_client('testkit-sas', 'y')
client.stage_block('AAAA', b'x', headers={'Content-MD5': 'AAAAAAAAAAAAAAAAAAAAAA=='})";
        let error = azurite.sdk(script).await.unwrap_err().to_string();
        assert!(error.contains("Md5Mismatch"), "{error}");
    }
}
