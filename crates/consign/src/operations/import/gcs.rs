//! `import/google-cloud-storage`: gets files from a bucket of Google Cloud Storage.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Faults;
use crate::operations::account::gcs::Account;
use crate::operations::account::given;
use crate::operations::arguments::With;
use crate::operations::storage::{FromStorage, Origin, Wanted};

/// The operation `import/google-cloud-storage`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ImportGcs;

type Args = With<Account, Own>;

/// Gets files from a bucket of Google Cloud Storage.
///
/// One object by its name in `file`, or all whose name begins with `file_prefix`, in the order of their names. The service
/// account needs `storage.objects.get`, and `storage.objects.list` for a prefix (role Storage Object Viewer). What arrives
/// is compared with the checksum that the service stores.
///
/// ## Result
/// `result.files` has each file with its size in bytes, called as the last part of its name.
///
/// ## Retries
/// Files of an earlier try are replaced.
///
/// ## Errors
/// `FILE_NOT_FOUND`, `CONTAINER_NOT_FOUND` (no such bucket), `INVALID_CREDENTIALS`, `ACCESS_DENIED`, `TOO_MANY_FILES`,
/// `FILE_TOO_LARGE`, `HOST_NOT_ALLOWED`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`,
/// `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Import from Google Cloud Storage".
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportGoogleCloudStorageArgs")]
pub(super) struct Own {
    /// Name of the object, byte for byte. Either this or `file_prefix` is required.
    #[garde(length(max = 1024))]
    file: Option<String>,
    /// Gets all objects whose name begins with this text; a folder ends with `/`.
    #[garde(length(max = 1024))]
    file_prefix: Option<String>,
    /// Name of the file, if it is only one. By default the last part of the object's name.
    #[garde(length(max = 255))]
    filename: Option<String>,
}

impl FromStorage for ImportGcs {
    const NAME: &'static str = "import/google-cloud-storage";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        Wanted::check(faults, ("file", own.file.as_ref()), ("file_prefix", own.file_prefix.as_ref()));
    }

    fn origin(Args { account, own }: &Args, network: &Network) -> connectors::Result<Origin> {
        Ok(Origin {
            connector: Arc::new(account.connector(network)?),
            wanted: Wanted::of(own.file.as_ref(), own.file_prefix.as_ref()),
            filename: given(own.filename.as_ref()),
        })
    }
}
