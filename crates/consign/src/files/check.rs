//! Whether the file store can take files in.

use std::io::{Error as IoError, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::{Error, Files};

/// Below so many free bytes the disk counts as full: room for the database and for what is on its way.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;

impl Files {
    /// Checks that a file can be written and that the disk is not full.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`].
    pub async fn check(&self) -> Result<(), Error> {
        let root = Arc::clone(&self.root);
        let checked = tokio::task::spawn_blocking(move || probe(&root)).await;
        checked.unwrap_or_else(|stopped| Err(Error::Disk(IoError::other(stopped))))
    }
}

fn probe(root: &Path) -> Result<(), Error> {
    let disk = rustix::fs::statvfs(root).map_err(|errno| Error::Disk(errno.into()))?;
    if disk.f_bavail.saturating_mul(disk.f_frsize) < FREE_BYTES_MIN {
        return Err(Error::Full(IoError::from(ErrorKind::StorageFull)));
    }
    // A file without a name: nothing to clean up, and nobody sees it.
    let mut file = tempfile::tempfile_in(root).map_err(Error::Disk)?;
    file.write_all(&[0]).map_err(Error::Disk)
}
