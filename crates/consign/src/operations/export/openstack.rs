//! `export/openstack`: puts files into a container of OpenStack's object store, Swift.

use std::sync::Arc;

use connectors::Network;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::naming::{self, Naming};
use crate::error::Faults;
use crate::operations::account::openstack::Account;
use crate::operations::arguments::With;
use crate::operations::permissions::{Grant, Permissions, Right, shell_word};
use crate::operations::storage::{Destination, ToStorage};
use crate::operations::trial::Name;

/// The operation `export/openstack`; its manual stands on [`Own`], where OpenAPI and the manual find it.
pub(super) struct ExportOpenStack;

type Args = With<Account, Own>;

/// Puts the input files into a container of OpenStack's object store, Swift.
///
/// A file up to the setting `swift.segment_bytes` goes in one request. A larger one goes in segments, several at a time, into
/// the container `{container}_segments` (made when it is missing, with the storage policy of the container), and becomes one
/// static large object. Under its name there is either what was there before, or the whole new object. Segments of an object
/// that is replaced are removed, unless the container keeps versions. The user needs no more than the right to write to the
/// container, and for large files to write to and read from `{container}_segments`. A token that ends in mid-transfer is
/// renewed. Only the credentials given here are ever used.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location` (`swift://container/name`), `etag`, and `verified`: `md5`,
/// which the service compares for every object and segment. A `note` says what could not be looked at or removed.
///
/// ## Retries
/// A broken upload of segments goes on behind the last acknowledged one; a file in one piece starts again. An object is
/// replaced whole, so running again leaves the same objects. Segments of an upload that failed or was cancelled are removed.
///
/// ## Errors
/// `INVALID_CREDENTIALS`, `ACCESS_DENIED`, `CONTAINER_NOT_FOUND`, `INVALID_DATA` (a region that the catalogue does
/// not have), `REMOTE_REFUSED` (an `auth_url` where no Keystone is), `REMOTE_FULL` (also a quota), `HOST_NOT_ALLOWED`, `NAME_CONFLICT`,
/// `FILE_TOO_LARGE`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`,
/// `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export to `OpenStack`"; the names of project and
/// domains and the application credential are ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportOpenStackArgs")]
pub(super) struct Own {
    /// Name of the object, byte for byte. With several files, put `%d` into it or use `file_prefix`.
    #[garde(length(max = 1024))]
    file: Option<String>,
    /// Text in front of the files' own names; nothing is put between, so a folder ends with `/`.
    #[garde(length(max = 1024))]
    file_prefix: Option<String>,
}

impl ToStorage for ExportOpenStack {
    const NAME: &'static str = "export/openstack";
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

    fn permissions(Args { account, .. }: &Args) -> Option<Permissions> {
        let container = account.container();
        let who = shell_word(&format!("*:{}", account.username().unwrap_or_else(|| "USER".to_owned())));
        let (all, segments) = (shell_word(container), shell_word(&format!("{container}_segments")));
        let hint = "# outside the domain Default: the id of the user instead of the name";
        Some(Permissions {
            needed: Grant {
                rights: vec![Right::new(Name::Write, format!("to write to the container {container}"))],
                grant: format!(
                    "{hint}\nswift post --write-acl {who} {all}\nswift post --write-acl {who} --read-acl {who} {segments}"
                ),
            },
            extras: Some(Grant {
                rights: [Name::Stat, Name::Read, Name::List]
                    .map(|step| Right::new(step, format!("to read from the container {container}")))
                    .into(),
                grant: format!("{hint}\nswift post --read-acl {who} {all}"),
            }),
        })
    }
}

#[cfg(test)]
mod tests;
