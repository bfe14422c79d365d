//! `export/google-cloud-storage`: puts files into a bucket of Google Cloud Storage.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::Faults;
use crate::operations::account::gcs::Account;
use crate::operations::arguments::With;
use crate::operations::permissions::{Grant, Permissions, Right};
use crate::operations::storage::{Destination, ToStorage};
use crate::operations::trial::Name;

/// The operation `export/google-cloud-storage`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ExportGcs;

type Args = With<Account, Own>;

/// Puts the input files into a bucket of Google Cloud Storage.
///
/// Small files go in one request, larger ones chunk by chunk into an upload session: one file goes out in order, several
/// side by side. Under its name there is either what was there before, or the whole new object. The service account needs
/// no more than `storage.objects.create` (role Storage Object Creator); to replace an object it also needs
/// `storage.objects.delete` (role Storage Object User). All tasks of a service account share one access token an hour. Only
/// the credentials given here are ever used.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location` (`gs://bucket/name`), `etag`, its generation as
/// `version`, and how it was `verified`: `crc32c`, which the service compares before the object becomes visible.
///
/// ## Retries
/// A broken upload goes on behind the last byte that the service has. An object is replaced whole, so running again leaves
/// the same objects. An upload that failed or was cancelled is cancelled at the service.
///
/// ## Errors
/// `INVALID_CREDENTIALS`, `ACCESS_DENIED` (the message names the permission), `CONTAINER_NOT_FOUND` (no such bucket),
/// `REMOTE_REFUSED` (an argument, or the clock of this server), `HOST_NOT_ALLOWED`, `NAME_CONFLICT`, `FILE_TOO_LARGE`; tried
/// again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export to Google Cloud Storage".
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportGoogleCloudStorageArgs")]
pub(super) struct Own {
    /// Name of the object, byte for byte. With several files, put `%d` into it or use `file_prefix`.
    #[garde(length(max = 1024))]
    file: Option<String>,
    /// Text in front of the files' own names; nothing is put between, so a folder ends with `/`.
    #[garde(length(max = 1024))]
    file_prefix: Option<String>,
}

impl ToStorage for ExportGcs {
    const NAME: &'static str = "export/google-cloud-storage";
    type Args = Args;

    fn check(Args { account, own }: &Args, faults: &mut Faults) {
        account.check(faults);
        naming::check_either(faults, ("file", own.file.as_deref()), ("file_prefix", own.file_prefix.as_deref()));
    }

    fn destination(Args { account, own }: &Args, network: &Network) -> connectors::Result<Destination> {
        Ok(Destination {
            connector: Arc::new(account.connector(network)?),
            naming: Naming::object(own.file.clone(), own.file_prefix.clone()),
        })
    }

    /// # Source
    /// Cloud Storage documentation, "IAM permissions for JSON methods" and "IAM roles for Cloud Storage".
    fn permissions(Args { account, .. }: &Args) -> Option<Permissions> {
        let extras = [
            (Name::Replace, "storage.objects.delete"),
            (Name::Stat, "storage.objects.get"),
            (Name::Read, "storage.objects.get"),
            (Name::List, "storage.objects.list"),
            (Name::Delete, "storage.objects.delete"),
        ];
        Some(Permissions {
            needed: Grant {
                rights: vec![Right::new(Name::Write, "storage.objects.create")],
                grant: account.granting("storage.objectCreator"),
            },
            extras: Some(Grant {
                rights: extras.into_iter().map(|(step, right)| Right::new(step, right)).collect(),
                grant: account.granting("storage.objectUser"),
            }),
        })
    }
}

#[cfg(test)]
mod tests;
