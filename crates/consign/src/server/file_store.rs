//! The file store that the settings describe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use connectors::azure_blob::{self, AzureBlob};
use connectors::gcs::{self, Gcs};
use connectors::s3::{self, Addressing, S3};
use connectors::{Budget, Limits, ObjectStore, Secret};
use serde::Deserialize;
use url::Url;

use super::{Error, network};
use crate::config::Config;
use crate::files::{self, BucketSettings, Files};
use crate::runner::ownership::{self, Ownership};
use crate::store::Store;

/// What an upload may take beyond the time that its task or its form has, before it counts as abandoned: its process may
/// be stopping, and clocks differ.
const UPLOAD_GRACE: Duration = Duration::from_hours(1);
/// Folder in the data directory for files on their way to an object store.
const SCRATCH: &str = "tmp";
/// Longest secret in a file, in bytes. A private key of a service account has 2 KiB.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Opens the file store; `memory` is for the parts of what goes to an object store.
///
/// # Errors
/// [`Error::Setting`] with what to change, [`Error::Files`].
pub async fn open(config: &Config, memory: &Budget) -> Result<Files, Error> {
    match place(config)? {
        Place::Folder(root) => Ok(Files::open(&root).await?),
        Place::Bucket(address) => {
            let (store, limits) = address.store(config)?;
            let settings = BucketSettings {
                store,
                prefix: address.prefix.clone(),
                scratch: Arc::from(config.data_dir.join(SCRATCH)),
                memory: memory.clone(),
                limits,
                abandoned_after: config.limits.task_timeout.0.max(config.limits.upload_lifetime.0) + UPLOAD_GRACE,
                redirects: config.files.redirect_downloads,
            };
            Ok(Files::in_bucket(settings).await?)
        }
    }
}

/// Refuses files that belong to another database, and marks those that are nobody's.
///
/// # Errors
/// [`Error::Setting`] with what to do; [`Error::Store`]; [`Error::Files`] when the file store refuses. One that is away is asked
/// later: nothing is removed before.
pub(super) async fn claim(store: &dyn Store, files: &Files) -> Result<(), Error> {
    match ownership::claim(store, files).await {
        Ok(Ownership::Ours) => Ok(()),
        Ok(Ownership::Foreign(stranger)) => Err(Error::Setting(stranger.to_string())),
        Err(ownership::Failure::Files(files::Error::Store(error))) if error.is_transient() => {
            tracing::warn!(%error, "nobody can tell yet whose the files are");
            Ok(())
        }
        Err(ownership::Failure::Files(error)) => Err(error.into()),
        Err(ownership::Failure::Store(error)) => Err(error.into()),
    }
}

/// Where files are kept.
#[derive(Debug)]
pub enum Place {
    /// In a folder.
    Folder(PathBuf),
    /// In an object store.
    Bucket(Address),
}

/// The address of an object store, as `files_url` has it.
#[derive(Debug)]
pub struct Address {
    kind: Kind,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    query: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    S3,
    Gcs,
    Azure,
}

/// Reads `files_url`.
///
/// # Errors
/// [`Error::Setting`].
pub fn place(config: &Config) -> Result<Place, Error> {
    let Some(text) = config.files_url.as_ref().map(Secret::expose) else {
        return Ok(Place::Folder(config.data_dir.join("files")));
    };
    if let Some(path) = text.strip_prefix("file://") {
        return Ok(Place::Folder(PathBuf::from(path)));
    }
    // What cannot be read is not shown: it may hold anything.
    let url = Url::parse(text).map_err(|_| bad("it is not an address; use `file://PATH` or `s3://BUCKET/PREFIX`"))?;
    let kind = match url.scheme() {
        "s3" => Kind::S3,
        "gs" => Kind::Gcs,
        "az" => Kind::Azure,
        _ => {
            return Err(bad(
                "use `file://PATH`, `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX` or `az://CONTAINER/PREFIX`",
            ));
        }
    };
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() || url.fragment().is_some() {
        return Err(bad(
            "credentials do not belong here, but into the settings `files.…`; the host goes into `endpoint`",
        ));
    }
    let known = kind.known();
    let mut query = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        if !known.contains(&name.as_ref()) {
            let known = known.join("`, `");
            return Err(bad(&format!("a parameter of it is unknown; there are `{known}`")));
        }
        query.insert(name.into_owned(), value.into_owned());
    }
    let path = percent_encoding::percent_decode_str(url.path()).decode_utf8();
    let path = path.map_err(|_| bad("the prefix is not UTF-8"))?;
    let prefix = path.trim_matches('/');
    let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Place::Bucket(Address { kind, bucket: url.host_str().unwrap_or_default().to_owned(), prefix, query }))
}

impl Kind {
    /// Parameters of its addresses.
    fn known(self) -> &'static [&'static str] {
        match self {
            Self::S3 => &["endpoint", "region", "addressing"],
            Self::Gcs => &["endpoint", "token_uri"],
            Self::Azure => &["endpoint", "account"],
        }
    }
}

/// The part of a service account's key file that is needed.
#[derive(Deserialize)]
struct KeyFile {
    client_email: String,
    private_key: Secret,
}

impl Address {
    /// For people: without query.
    pub fn shown(&self) -> String {
        let scheme = match self.kind {
            Kind::S3 => "s3",
            Kind::Gcs => "gs",
            Kind::Azure => "az",
        };
        format!("{scheme}://{}/{}", self.bucket, self.prefix)
    }

    fn given(&self, name: &str) -> Option<String> {
        self.query.get(name).filter(|text| !text.is_empty()).cloned()
    }

    /// The client of the object store. Its own way out is open to public addresses, and to the endpoint that is configured,
    /// and to nothing else that tasks may reach. With the bounds of what goes there and comes from there.
    fn store(&self, config: &Config) -> Result<(Arc<dyn ObjectStore>, Limits), Error> {
        let named: Vec<String> = ["endpoint", "token_uri"].iter().filter_map(|name| self.given(name)).collect();
        let in_host = self.given("addressing").is_some_and(|addressing| addressing == "virtual-host");
        let network = network::for_files(config, &named, in_host.then_some(self.bucket.as_str()))?;
        let (client, limits) = (network.http, network.limits);
        let refused = |error: connectors::Error| bad(&error.detail);
        let store: Arc<dyn ObjectStore> = match self.kind {
            Kind::S3 => Arc::new(S3::new(&self.s3(config)?, client, limits).map_err(refused)?),
            Kind::Gcs => {
                Arc::new(Gcs::new(&self.gcs(config)?, client, &network.google_tokens, limits).map_err(refused)?)
            }
            Kind::Azure => Arc::new(AzureBlob::new(&self.azure(config)?, client, limits).map_err(refused)?),
        };
        Ok((store, limits))
    }

    fn s3(&self, config: &Config) -> Result<s3::Config, Error> {
        let own = &config.files;
        let addressing = match self.given("addressing").as_deref() {
            None => Addressing::Auto,
            Some("path") => Addressing::Path,
            Some("virtual-host") => Addressing::VirtualHost,
            Some(_) => return Err(bad("`addressing` is `path` or `virtual-host`")),
        };
        let token = secret("session_token", own.session_token.as_ref(), own.session_token_file.as_deref())?;
        let key = secret("secret_access_key", own.secret_access_key.as_ref(), own.secret_access_key_file.as_deref())?;
        let (Some(access_key_id), Some(secret_access_key)) = (own.access_key_id.clone(), key) else {
            return Err(missing(
                "`files.access_key_id` and `files.secret_access_key` (or `files.secret_access_key_file`)",
            ));
        };
        Ok(s3::Config {
            bucket: self.bucket.clone(),
            region: self.given("region").unwrap_or_default(),
            endpoint: self.given("endpoint"),
            access_key_id,
            secret_access_key,
            session_token: token,
            addressing,
            ..s3::Config::default()
        })
    }

    fn gcs(&self, config: &Config) -> Result<gcs::Config, Error> {
        let own = &config.files;
        let key = secret("private_key", own.private_key.as_ref(), own.private_key_file.as_deref())?;
        let (client_email, private_key) = match (&own.service_account_file, own.client_email.clone(), key) {
            (Some(path), None, None) => {
                let text = read("service_account_file", path)?;
                let file: KeyFile = serde_json::from_str(text.expose()).map_err(|_| {
                    let detail = "is not the JSON key file of a service account";
                    Error::Setting(format!("files.service_account_file: {} {detail}", path.display()))
                })?;
                (file.client_email, file.private_key)
            }
            (None, Some(client_email), Some(key)) => (client_email, key),
            (Some(_), _, _) => {
                return Err(Error::Setting(
                    "files.service_account_file: it has address and key in it; leave `client_email` and `private_key` out"
                        .to_owned(),
                ));
            }
            (None, _, _) => {
                return Err(missing("`files.service_account_file`, or `files.client_email` and `files.private_key`"));
            }
        };
        Ok(gcs::Config {
            bucket: self.bucket.clone(),
            client_email,
            private_key,
            endpoint: self.given("endpoint"),
            token_uri: self.given("token_uri"),
        })
    }

    fn azure(&self, config: &Config) -> Result<azure_blob::Config, Error> {
        let own = &config.files;
        let key =
            secret("storage_access_key", own.storage_access_key.as_ref(), own.storage_access_key_file.as_deref())?;
        let sas = secret("sas_token", own.sas_token.as_ref(), own.sas_token_file.as_deref())?;
        let Some(account) = self.given("account").or_else(|| own.storage_account.clone()) else {
            return Err(missing("`files.storage_account`, or `account` in files_url,"));
        };
        if key.is_none() && sas.is_none() {
            return Err(missing("`files.storage_access_key` or `files.sas_token`"));
        }
        Ok(azure_blob::Config {
            account,
            key,
            sas,
            container: self.bucket.clone(),
            endpoint: self.given("endpoint"),
            ..azure_blob::Config::default()
        })
    }
}

fn bad(detail: &str) -> Error {
    Error::Setting(format!("files_url: {detail}"))
}

fn missing(what: &str) -> Error {
    let never = "they are never taken from the surroundings of the server";
    Error::Setting(format!("files_url: give {what} for this object store; {never}"))
}

/// A secret, or what the file holds that is named instead.
fn secret(key: &str, value: Option<&Secret>, file: Option<&Path>) -> Result<Option<Secret>, Error> {
    match (value, file) {
        (Some(value), _) => Ok(Some(value.clone())),
        (None, Some(path)) => read(&format!("{key}_file"), path).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(key: &str, path: &Path) -> Result<Secret, Error> {
    let refused = |detail: String| Error::Setting(format!("files.{key}: {} {detail}", path.display()));
    let length = std::fs::metadata(path).map_err(|error| refused(format!("cannot be read: {error}")))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(refused("is too long for a secret".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| refused(format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(refused("is empty".to_owned())),
        text => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests;
