//! Whether the file store can take files in.

use std::io::{self, Error as IoError, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::{Error, Files, blocking};

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

    /// Checks that there is room for so many bytes, as far as anybody can tell now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`].
    pub async fn check_room(&self, bytes: u64) -> Result<(), Error> {
        let root = Arc::clone(&self.root);
        let free = blocking(move || free_bytes(&root)).await?;
        if free.saturating_sub(FREE_BYTES_MIN) < bytes { Err(full()) } else { Ok(()) }
    }
}

fn free_bytes(root: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(root)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

fn full() -> Error {
    Error::Full(IoError::from(ErrorKind::StorageFull))
}

fn probe(root: &Path) -> Result<(), Error> {
    if free_bytes(root).map_err(Error::Disk)? < FREE_BYTES_MIN {
        return Err(full());
    }
    // A file without a name: nothing to clean up, and nobody sees it.
    let mut file = tempfile::tempfile_in(root).map_err(Error::Disk)?;
    file.write_all(&[0]).map_err(Error::Disk)
}
