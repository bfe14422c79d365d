//! `export/sftp`: puts files onto an SFTP server.

use std::sync::Arc;

use connectors::sftp::{Config, Sftp};
use connectors::{Connector as _, Network, OpenUpload};
use garde::Validate;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::naming::{self, Naming};
use crate::error::{Faults, TaskError};
use crate::operations::{Context, Feed, Operation, Outcome};
use crate::secret::Secret;

/// The port of SSH.
const PORT: u16 = 22;

/// The operation `export/sftp`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ExportSftp;

/// Puts the input files onto an SFTP server.
///
/// A file appears under its name only when it is complete: it is written under a temporary name beside it
/// (`.NAME.consign-12345678.part`), put on stable storage, and renamed. Missing directories are made, files of the same
/// name are replaced. Where a server cannot replace a file in one step, the old one is moved aside for a moment, and a
/// note says so.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location`, the server's `host_key` fingerprint, and how
/// it was `verified`: `size`, the length that the server tells after writing. SSH itself protects every byte on its
/// way.
///
/// ## Retries
/// A broken upload goes on where the server last acknowledged a part. A file is replaced whole, so running again leaves
/// the same files.
///
/// ## Errors
/// `INVALID_CREDENTIALS`, `HOST_KEY_MISMATCH`, `ACCESS_DENIED`, `HOST_NOT_ALLOWED`, `REMOTE_FULL`, `NAME_CONFLICT`,
/// `UNSUPPORTED`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export to SFTP". `host_key` is ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportSftpArgs")]
pub(super) struct Args {
    /// Name or address of the server.
    #[garde(length(min = 1, max = 255))]
    host: String,
    /// Port of the server.
    #[garde(range(min = 1))]
    #[serde(default = "default_port", deserialize_with = "port")]
    port: u16,
    /// User to log in as.
    #[garde(length(min = 1, max = 255))]
    username: String,
    /// Password of the user. Write only. Either this or `private_key` is required.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    password: Option<Secret>,
    /// Private key of the user, the whole text of the file: OpenSSH, PKCS#1, PKCS#8 or SEC 1; Ed25519, ECDSA or RSA;
    /// without a passphrase. Write only.
    #[garde(skip)]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    private_key: Option<Secret>,
    /// The server's host key to insist on: a fingerprint such as `SHA256:…`, or a public key. By default any is
    /// accepted, and the result names its fingerprint.
    #[garde(length(max = 4096))]
    host_key: Option<String>,
    /// Path of the file, from the directory that the user logs in to, or from `/`. With several files, put `%d` into it
    /// or use `path`.
    #[garde(length(max = 4096))]
    file: Option<String>,
    /// Directory to put the files into under their own names, from the directory that the user logs in to, or from `/`.
    #[garde(length(max = 4096))]
    path: Option<String>,
}

fn default_port() -> u16 {
    PORT
}

/// Reads a port as clients send it: a number, or a number in a string.
fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Port {
        Number(u16),
        Text(String),
        None,
    }
    match Port::deserialize(deserializer)? {
        Port::Number(port) => Ok(port),
        Port::Text(text) => {
            text.trim().parse().map_err(|_| serde::de::Error::custom("a port is a number from 1 to 65535"))
        }
        Port::None => Ok(PORT),
    }
}

impl Args {
    fn connector(&self, network: &Network) -> connectors::Result<Sftp> {
        let config = Config {
            host: self.host.clone(),
            port: self.port,
            username: self.username.clone(),
            password: given(self.password.as_ref()).cloned(),
            private_key: given(self.private_key.as_ref()).cloned(),
            host_key: self.host_key.clone().filter(|key| !key.is_empty()),
            limits: network.limits,
        };
        Sftp::new(config, network.guard.clone())
    }

    fn naming(&self) -> Naming {
        Naming::file(self.file.clone(), self.path.clone())
    }
}

/// A secret that is more than an empty string: some clients send that for "none".
fn given(secret: Option<&Secret>) -> Option<&Secret> {
    secret.filter(|secret| !secret.expose().is_empty())
}

impl Operation for ExportSftp {
    const NAME: &'static str = "export/sftp";
    const FEED: Feed = Feed::Inputs;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        if given(args.password.as_ref()).or(given(args.private_key.as_ref())).is_none() {
            faults.add("password", "The password field is required when private_key is not present.");
        }
        naming::check_either(faults, ("file", args.file.as_deref()), ("path", args.path.as_deref()));
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let connector = Arc::new(args.connector(&task.network)?);
        task.deliver(connector, &args.naming()).await
    }

    async fn abort(args: Args, open: OpenUpload, network: Network) -> connectors::Result<()> {
        args.connector(&network)?.abort(&open).await
    }
}

#[cfg(test)]
mod tests;
