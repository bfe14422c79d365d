//! `export/azure/blob`: puts files into a container of Azure Blob Storage.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::Network;
use connectors::azure_blob::{AzureBlob, Config};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::Faults;
use crate::operations::account::azure_blob::Account;
use crate::operations::arguments::With;
use crate::operations::permissions::{Grant, Permissions, Right, shell_word};
use crate::operations::storage::{Destination, ToStorage};
use crate::operations::trial::Name;

/// The operation `export/azure/blob`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ExportAzureBlob;

type Args = With<Account, Own>;

/// Puts the input files into a container of Azure Blob Storage.
///
/// Small files go in one request, larger ones in blocks, several at a time. Under its name there is either what was there
/// before, or the whole new blob. A SAS token needs no more than the permission write (`w`). Only the
/// credentials given here are ever used.
///
/// Names arrive byte for byte. Azure holds no names with `\` or with `.` or `..` between slashes: these are refused.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location` (the URL of the blob, without a token), `etag`,
/// `version` in an account with versions, and `verified`: `md5`, which the service checks for every block.
///
/// ## Retries
/// A broken upload goes on behind its last acknowledged block. A blob is replaced whole, so running again leaves the same
/// blobs. Blocks of an upload that was given up are seen by nobody, and the service removes them after a week: nothing
/// else could, short of putting an empty blob in their place.
///
/// ## Errors
/// `INVALID_CREDENTIALS` (also a token that has expired), `ACCESS_DENIED` (the message names what a token lacks; a lease or
/// a policy on a blob), `CONTAINER_NOT_FOUND`, `REMOTE_REFUSED`, `HOST_NOT_ALLOWED`, `NAME_CONFLICT`, `FILE_TOO_LARGE`; tried
/// again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export to Azure Blob Storage"; `endpoint` is
/// ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportAzureBlobArgs")]
pub(super) struct Own {
    /// Name of the blob, byte for byte. With several files, put `%d` into it or use `blob_prefix`.
    #[garde(length(max = 1024))]
    blob: Option<String>,
    /// Text in front of the files' own names; nothing is put between, so a folder ends with `/`.
    #[garde(length(max = 1024))]
    blob_prefix: Option<String>,
    /// Metadata of the blobs, its keys with or without `x-ms-meta-`: letters, digits and underscores, which arrive in
    /// lower case. Values are printable ASCII.
    #[garde(length(max = 100))]
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

/// Whether a pair of metadata becomes a header that Azure takes.
fn is_metadata(key: &str, text: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let bare = key.strip_prefix("x-ms-meta-").unwrap_or(&key);
    let is_key = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && bare.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    is_key && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

impl ToStorage for ExportAzureBlob {
    const NAME: &'static str = "export/azure/blob";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        naming::check_either(faults, ("blob", own.blob.as_deref()), ("blob_prefix", own.blob_prefix.as_deref()));
        for (key, _) in own.metadata.iter().filter(|(key, text)| !is_metadata(key, text)) {
            faults.add(
                format!("metadata.{key}"),
                "This becomes a header: its name may hold letters, digits and underscores and not begin with a digit, its \
                 value printable ASCII characters.",
            );
        }
    }

    fn destination(Args { account, own }: &Args, network: &Network) -> connectors::Result<Destination> {
        let config = Config { metadata: own.metadata.clone(), ..account.config() };
        Ok(Destination {
            connector: Arc::new(AzureBlob::new(&config, network.http.clone(), network.limits)?),
            naming: Naming::object(own.blob.clone(), own.blob_prefix.clone()),
        })
    }

    fn permissions(Args { account, .. }: &Args) -> Option<Permissions> {
        let config = account.config();
        if config.key.is_some() {
            let account = shell_word(&config.account);
            let grant = format!("az storage account update --name {account} --allow-shared-key-access true");
            let rights = vec![Right::new(Name::Write, "access with the key of the storage account")];
            return Some(Permissions { needed: Grant { rights, grant }, extras: None });
        }
        let extras = [
            (Name::Stat, "read (r)"),
            (Name::Read, "read (r)"),
            (Name::List, "list (l)"),
            (Name::Delete, "delete (d)"),
        ];
        Some(Permissions {
            needed: grant(&config, "w", &[(Name::Write, "write (w)"), (Name::Replace, "write (w)")]),
            extras: Some(grant(&config, "rwdl", &extras)),
        })
    }
}

/// Rights as letters of a token, and the command that makes one.
///
/// # Source
/// Azure documentation, "Create a service SAS: Specify permissions", and the reference of `az storage container
/// generate-sas`.
fn grant(config: &Config, letters: &str, rights: &[(Name, &str)]) -> Grant {
    let (account, container) = (shell_word(&config.account), shell_word(&config.container));
    Grant {
        rights: rights.iter().map(|(step, name)| Right::new(*step, *name)).collect(),
        grant: format!(
            "az storage container generate-sas --account-name {account} --name {container} --permissions {letters} \
             --expiry \"$(date -u -d '1 year' +%Y-%m-%dT%H:%MZ)\" --output tsv"
        ),
    }
}

#[cfg(test)]
mod tests;
