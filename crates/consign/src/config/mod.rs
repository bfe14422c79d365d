//! Settings: defaults, then a TOML file, then the environment, then flags. The only place that reads the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use connectors::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

pub mod database;
pub mod duration;
pub mod files;
pub mod limits;
pub mod load;
pub mod reference;
pub mod swift;
pub mod telemetry;
pub mod transfer;

pub use database::Database;
pub use duration::Period;
pub use files::FileStore;
pub use limits::Limits;
pub use load::BadConfig;
pub use swift::Swift;
pub use telemetry::Telemetry;
pub use transfer::Transfer;

use crate::secret::{HIDDEN, without_credentials};

/// All settings.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address that the API listens on.
    pub listen: SocketAddr,
    /// A second address, on which every show and create waits until the job or task has ended.
    pub sync_listen: Option<SocketAddr>,
    /// Another address, in every role, that answers only `/healthz`, `/readyz` and `/metrics`, in plain HTTP. Default: none.
    pub metrics_listen: Option<SocketAddr>,
    /// How clients reach the server; all links in answers start with it. Default: `http://` (`https://` with TLS) and `listen`.
    pub public_url: Option<String>,
    /// Folder for the database, the files and the secret key.
    pub data_dir: PathBuf,
    /// The database: `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Default: `sqlite://{data_dir}/consign.db`.
    #[serde(serialize_with = "address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub database_url: Option<Secret>,
    /// File that holds `database_url`.
    pub database_url_file: Option<PathBuf>,
    /// Where files are kept: `file://PATH`, or an object store that any number of processes share:
    /// `s3://bucket/prefix?region=…&endpoint=…`, `gs://bucket/prefix?endpoint=…&token_uri=…` or
    /// `az://container/prefix?account=…&endpoint=…`. Default: `file://{data_dir}/files`.
    #[serde(serialize_with = "address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub files_url: Option<Secret>,
    /// 32 random bytes in base64 that encrypt stored arguments and sign links. Default: made in `{data_dir}/secret.key`.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub secret_key: Option<Secret>,
    /// File that holds `secret_key`.
    pub secret_key_file: Option<PathBuf>,
    /// How long jobs, tasks and files are kept after they ended.
    pub retention: Period,
    /// Credentials of the object store in `files_url`, and how it is used.
    pub files: FileStore,
    /// Who may be connected to.
    pub egress: Egress,
    /// TLS of the server's own address.
    pub tls: Tls,
    /// Bounds of requests, jobs and work at once.
    pub limits: Limits,
    /// How a PostgreSQL database is used.
    pub database: Database,
    /// How bytes are moved.
    pub transfer: Transfer,
    /// How OpenStack's object store is used.
    pub swift: Swift,
    /// What is logged.
    pub log: Log,
    /// Traces for an OpenTelemetry collector.
    pub telemetry: Telemetry,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            sync_listen: None,
            metrics_listen: None,
            public_url: None,
            data_dir: PathBuf::from("./consign-data"),
            database_url: None,
            database_url_file: None,
            files_url: None,
            secret_key: None,
            secret_key_file: None,
            retention: Period::from_hours(24),
            files: FileStore::default(),
            egress: Egress::default(),
            tls: Tls::default(),
            limits: Limits::default(),
            database: Database::default(),
            transfer: Transfer::default(),
            swift: Swift::default(),
            log: Log::default(),
            telemetry: Telemetry::default(),
        }
    }
}

impl Config {
    /// Whether links of a server that listens on `address` begin with no host that anybody can reach.
    pub fn links_lead_nowhere(&self, address: SocketAddr) -> bool {
        self.public_url.is_none() && address.ip().is_unspecified()
    }

    /// How clients reach a server that listens on `address`, without a slash at the end.
    pub fn public_url_at(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.cert.is_some() { "https" } else { "http" };
        let own = || format!("{scheme}://{address}");
        self.public_url.as_deref().map_or_else(own, |url| url.trim_end_matches('/').to_owned())
    }
}

/// Who may be connected to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Egress {
    /// Private addresses that tasks may reach, beside all public ones: `host[:port]`, `*.suffix[:port]` or `network/bits[:port]`.
    #[serde(deserialize_with = "list")]
    pub allow: Vec<String>,
    /// PEM file with certificates to trust beside the system's, for private storages.
    pub ca_file: Option<PathBuf>,
}

/// TLS of the server's own address.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file with the certificate chain. Without it the server speaks plain HTTP.
    pub cert: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
}

/// What is logged.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Which lines: `error`, `warn`, `info`, `debug`, or per module as in `info,consign::runner=debug`.
    pub level: String,
    /// One JSON object a line instead of text.
    pub json: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false }
    }
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn redacted<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_str(HIDDEN),
        None => serializer.serialize_none(),
    }
}

#[expect(clippy::ref_option, reason = "the signature is serde's")]
fn address<S: Serializer>(url: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.serialize_str(&without_credentials(url.expose())),
        None => serializer.serialize_none(),
    }
}

/// A list, or one text with commas, as the environment has it.
fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        List(Vec<String>),
        Text(String),
    }
    let entries = match Form::deserialize(deserializer)? {
        Form::List(entries) => entries,
        Form::Text(text) => text.split(',').map(str::to_owned).collect(),
    };
    Ok(entries.into_iter().map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect())
}
