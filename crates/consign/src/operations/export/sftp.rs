//! `export/sftp`: puts files onto an SFTP server.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::Faults;
use crate::operations::account::sftp::Account;
use crate::operations::arguments::With;
use crate::operations::permissions::{Grant, Permissions, Right, shell_word};
use crate::operations::storage::{Destination, ToStorage};
use crate::operations::trial::Name;

/// The operation `export/sftp`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ExportSftp;

type Args = With<Account, Own>;

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
pub(super) struct Own {
    /// Path of the file, from the directory that the user logs in to, or from `/`. With several files, put `%d` into it
    /// or use `path`.
    #[garde(length(max = 4096))]
    file: Option<String>,
    /// Directory to put the files into under their own names, from the directory that the user logs in to, or from `/`.
    #[garde(length(max = 4096))]
    path: Option<String>,
}

impl ToStorage for ExportSftp {
    const NAME: &'static str = "export/sftp";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        naming::check_either(faults, ("file", own.file.as_deref()), ("path", own.path.as_deref()));
    }

    fn destination(Args { account, own }: &Args, network: &Network) -> connectors::Result<Destination> {
        Ok(Destination { connector: Arc::new(account.connector(network)?), naming: own.naming() })
    }

    fn permissions(Args { account, own }: &Args) -> Option<Permissions> {
        let (user, folder) = (account.username(), own.naming().start());
        let is_absolute = folder.starts_with('/');
        let at = if is_absolute { shell_word(&folder) } else { format!("~{user}/{}", shell_word(&folder)) };
        let at = at.trim_end_matches("''");
        let owner = shell_word(&format!("{user}:"));
        let make = format!("sudo mkdir -p {at}\nsudo chown {owner} {at}\nsudo chmod u+rwx {at}");
        let start = if is_absolute { "" } else { "# if the log-in directory is the user's home:\n" };
        let right = format!("to make, rename and delete files in {}", if folder.is_empty() { "~" } else { &folder });
        Some(Permissions {
            needed: Grant { rights: vec![Right::new(Name::Write, right)], grant: format!("{start}{make}") },
            extras: None,
        })
    }
}

impl Own {
    fn naming(&self) -> Naming {
        Naming::file(self.file.clone(), self.path.clone())
    }
}

#[cfg(test)]
mod tests;
