//! `import/azure/blob`: gets files from a container of Azure Blob Storage.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Faults;
use crate::operations::account::azure_blob::Account;
use crate::operations::account::given;
use crate::operations::arguments::With;
use crate::operations::storage::{FromStorage, Origin, Wanted};

/// The operation `import/azure/blob`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ImportAzureBlob;

type Args = With<Account, Own>;

/// Gets files from a container of Azure Blob Storage.
///
/// One blob by its name (`blob`), or all whose name begins with `blob_prefix`, in the order of their names. A SAS token needs
/// the permission read (`r`), and list (`l`) for a prefix. Some clients call this operation `import/azure-blob`, which is
/// taken as well.
///
/// ## Result
/// `result.files` has each file with its size in bytes, called as the last part of its name.
///
/// ## Retries
/// A download that breaks goes on where it broke. Files of an earlier try are replaced.
///
/// ## Errors
/// `FILE_NOT_FOUND`, `CONTAINER_NOT_FOUND`, `INVALID_CREDENTIALS` (also a token that has expired), `ACCESS_DENIED`,
/// `TOO_MANY_FILES`, `FILE_TOO_LARGE`, `HOST_NOT_ALLOWED`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`,
/// `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Import from Azure Blob Storage"; `endpoint`
/// is ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportAzureBlobArgs")]
pub(super) struct Own {
    /// Name of the blob, byte for byte. Either this or `blob_prefix` is required.
    #[garde(length(max = 1024))]
    blob: Option<String>,
    /// Gets all blobs whose name begins with this text; a folder ends with `/`.
    #[garde(length(max = 1024))]
    blob_prefix: Option<String>,
    /// Name of the file, if it is only one. By default the last part of the blob's name.
    #[garde(length(max = 255))]
    filename: Option<String>,
}

impl FromStorage for ImportAzureBlob {
    const NAME: &'static str = "import/azure/blob";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        Wanted::check(faults, ("blob", own.blob.as_ref()), ("blob_prefix", own.blob_prefix.as_ref()));
    }

    fn origin(Args { account, own }: &Args, network: &Network) -> connectors::Result<Origin> {
        Ok(Origin {
            connector: Arc::new(account.connector(network)?),
            wanted: Wanted::of(own.blob.as_ref(), own.blob_prefix.as_ref()),
            filename: given(own.filename.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::operations;

    fn faults(args: Value) -> Vec<String> {
        let Value::Object(mut args) = args else { panic!("arguments are an object") };
        let prepared = operations::find("import/azure/blob").unwrap().prepare(&mut args);
        prepared.unwrap_or_else(|faults| faults.0.into_keys().collect())
    }

    #[test]
    fn one_blob_or_a_prefix_and_one_credential_are_wanted() {
        assert_eq!(faults(json!({})), ["blob", "container", "storage_access_key", "storage_account"]);
        let base = json!({ "storage_account": "a", "container": "c" });
        let with = |more: Value| {
            let mut all = base.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            faults(all)
        };
        assert_eq!(with(json!({})), ["blob", "storage_access_key"]);
        let both = json!({ "blob": "b", "blob_prefix": "p", "sas_token": "s", "storage_access_key": "k" });
        assert_eq!(with(both), ["blob_prefix", "sas_token"]);
        assert_eq!(with(json!({ "blob": "b", "sas_token": "", "storage_access_key": "k" })), Vec::<String>::new());
        let all = json!({ "blob_prefix": "p", "sas_token": "?s", "filename": "f", "endpoint": "e", "blob": null });
        assert_eq!(with(all), Vec::<String>::new());
    }
}
