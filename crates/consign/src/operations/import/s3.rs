//! `import/s3`: gets files from an S3 bucket.

use std::sync::Arc;

use connectors::Network;
use connectors::s3::S3;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Faults;
use crate::operations::account::given;
use crate::operations::account::s3::Account;
use crate::operations::arguments::With;
use crate::operations::storage::{FromStorage, Origin, Wanted};

/// The operation `import/s3`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ImportS3;

type Args = With<Account, Own>;

/// Gets files from a bucket of Amazon S3, or of a service that speaks its protocol.
///
/// One object by its `key`, or all whose key begins with `key_prefix`, in the order of their keys. The credentials need
/// `s3:GetObject`, and `s3:ListBucket` for a prefix.
///
/// ## Result
/// `result.files` has each file with its size in bytes, called as the last part of its key.
///
/// ## Retries
/// A download that breaks goes on where it broke. Files of an earlier try are replaced.
///
/// ## Errors
/// `FILE_NOT_FOUND`, `CONTAINER_NOT_FOUND` (no such bucket), `INVALID_CREDENTIALS`, `ACCESS_DENIED`, `TOO_MANY_FILES`,
/// `FILE_TOO_LARGE`, `HOST_NOT_ALLOWED`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`,
/// `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Import from S3".
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportS3Args")]
pub(super) struct Own {
    /// Key of the object, byte for byte. Either this or `key_prefix` is required.
    #[garde(length(max = 1024))]
    key: Option<String>,
    /// Gets all objects whose key begins with this text; a folder ends with `/`.
    #[garde(length(max = 1024))]
    key_prefix: Option<String>,
    /// Name of the file, if it is only one. By default the last part of its key.
    #[garde(length(max = 255))]
    filename: Option<String>,
}

impl FromStorage for ImportS3 {
    const NAME: &'static str = "import/s3";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        Wanted::check(faults, ("key", own.key.as_ref()), ("key_prefix", own.key_prefix.as_ref()));
    }

    fn origin(Args { account, own }: &Args, network: &Network) -> connectors::Result<Origin> {
        Ok(Origin {
            connector: Arc::new(S3::new(&account.config(), network.http.clone(), network.limits)?),
            wanted: Wanted::of(own.key.as_ref(), own.key_prefix.as_ref()),
            filename: given(own.filename.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests;
