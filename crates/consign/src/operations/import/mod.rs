//! Operations that bring files in.

use super::Entry;

mod azure_blob;
mod base64;
mod fetch;
mod gcs;
mod openstack;
mod raw;
mod s3;
mod sftp;
mod upload;
mod url;

/// All imports.
pub(super) const ALL: &[Entry] = &[
    Entry::of::<url::ImportUrl>(),
    Entry::of::<upload::ImportUpload>(),
    Entry::of::<base64::ImportBase64>(),
    Entry::of::<raw::ImportRaw>(),
    Entry::from::<s3::ImportS3>(),
    Entry::from::<azure_blob::ImportAzureBlob>(),
    Entry::from::<gcs::ImportGcs>(),
    Entry::from::<sftp::ImportSftp>(),
    Entry::from::<openstack::ImportOpenStack>(),
];
