//! Operations that deliver files.

use super::Entry;

mod azure_blob;
mod deliver;
mod gcs;
pub mod naming;
mod openstack;
mod s3;
mod sftp;
mod upload;
mod url;
mod zip;

pub use naming::Naming;

/// All exports.
pub(super) const ALL: &[Entry] = &[
    Entry::of::<url::ExportUrl>(),
    Entry::of::<upload::ExportUpload>(),
    Entry::to::<s3::ExportS3>(),
    Entry::to::<azure_blob::ExportAzureBlob>(),
    Entry::to::<gcs::ExportGcs>(),
    Entry::to::<openstack::ExportOpenStack>(),
    Entry::to::<sftp::ExportSftp>(),
];
