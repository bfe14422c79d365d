//! `import/sftp`: gets files from an SFTP server.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Faults;
use crate::operations::account::given;
use crate::operations::account::sftp::Account;
use crate::operations::arguments::With;
use crate::operations::storage::{FromStorage, Origin, Wanted};

/// The operation `import/sftp`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ImportSftp;

type Args = With<Account, Own>;

/// Gets files from an SFTP server.
///
/// One `file`, or all files of the directory `path`, in the order of their names. Directories in it are not entered;
/// uploads that another task has under way there are left out. Symbolic links to files are followed, wherever on the
/// server they lead; what the user may read is for the server to decide.
///
/// ## Result
/// `result.files` has each file with its size in bytes, called as the last part of its path.
///
/// ## Retries
/// A download that breaks goes on behind the last byte that came. A file whose size or time of change is another at the
/// end is not taken, but tried again. Files of an earlier try are replaced.
///
/// ## Errors
/// `FILE_NOT_FOUND`, `CONTAINER_NOT_FOUND` (no such directory), `INVALID_CREDENTIALS`, `HOST_KEY_MISMATCH`,
/// `ACCESS_DENIED`, `TOO_MANY_FILES`, `FILE_TOO_LARGE`, `HOST_NOT_ALLOWED`, `UNSUPPORTED`; tried again:
/// `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`, `STORAGE_FULL`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Import from SFTP". `host_key` is ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportSftpArgs")]
pub(super) struct Own {
    /// Path of the file, from the directory that the user logs in to, or from `/`. Either this or `path` is required.
    #[garde(length(max = 4096))]
    file: Option<String>,
    /// Directory to get all files of, from the directory that the user logs in to (which is `.`), or from `/`.
    #[garde(length(max = 4096))]
    path: Option<String>,
    /// Name of the file, if it is only one. By default the last part of its path.
    #[garde(length(max = 255))]
    filename: Option<String>,
}

impl FromStorage for ImportSftp {
    const NAME: &'static str = "import/sftp";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        Wanted::check(faults, ("file", own.file.as_ref()), ("path", own.path.as_ref()));
    }

    fn origin(Args { account, own }: &Args, network: &Network) -> connectors::Result<Origin> {
        Ok(Origin {
            connector: Arc::new(account.connector(network)?),
            wanted: Wanted::of(own.file.as_ref(), own.path.as_ref()),
            filename: given(own.filename.as_ref()),
        })
    }
}

#[cfg(test)]
mod tests;
