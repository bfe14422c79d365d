//! `import/openstack`: gets files from a container of OpenStack's object store, Swift.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Faults;
use crate::operations::account::given;
use crate::operations::account::openstack::Account;
use crate::operations::arguments::With;
use crate::operations::storage::{FromStorage, Origin, Wanted};

/// The operation `import/openstack`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ImportOpenStack;

type Args = With<Account, Own>;

/// Gets files from a container of OpenStack's object store, Swift.
///
/// One object by its name (`file`), or all whose name begins with `file_prefix`, in the order of their names. Large objects
/// made of segments come as one file.
///
/// ## Result
/// `result.files` has each file with its size in bytes, called as the last part of its name.
///
/// ## Retries
/// A download that breaks goes on where it broke. Files of an earlier try are replaced.
///
/// ## Errors
/// `FILE_NOT_FOUND`, `CONTAINER_NOT_FOUND`, `INVALID_CREDENTIALS`, `ACCESS_DENIED`, `INVALID_DATA` (a region that
/// the catalogue does not have), `REMOTE_REFUSED` (an `auth_url` where no Keystone is), `TOO_MANY_FILES`, `FILE_TOO_LARGE`, `HOST_NOT_ALLOWED`;
/// tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Import from `OpenStack`"; the names of project
/// and domains and the application credential are ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportOpenStackArgs")]
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

impl FromStorage for ImportOpenStack {
    const NAME: &'static str = "import/openstack";
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
