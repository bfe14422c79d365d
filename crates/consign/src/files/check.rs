//! Whether the file store can take files in.

use std::fmt;
use std::io::{self, Error as IoError, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::{Error, blocking};

/// Below so many free bytes the disk counts as full. The database lives on the same disk as a rule, and when it cannot
/// write, everybody stops: this is room for its log and for what it writes to end the tasks that found the disk full
/// (some 10 MiB), and for one batch of each file on its way, 1 MiB each, that was let through before.
pub(super) const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;

/// How much the disk still takes. Cheap to clone.
#[derive(Clone)]
pub(super) struct Room(Arc<dyn Fn() -> io::Result<u64> + Send + Sync>);

impl Room {
    /// Of the disk that a folder is on.
    pub(super) fn on_disk(root: Arc<Path>) -> Self {
        Self(Arc::new(move || {
            let disk = rustix::fs::statvfs(&*root)?;
            Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
        }))
    }

    /// Of a disk with so many free bytes as `free` says.
    #[cfg(test)]
    pub(super) fn told(free: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(move || Ok(free())))
    }

    /// Fails when so many bytes more would make the disk full. Nothing is set aside for them.
    pub(super) fn check(&self, bytes: u64) -> io::Result<()> {
        let is_full = (self.0)()? < FREE_BYTES_MIN.saturating_add(bytes);
        if is_full { Err(IoError::from(ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

/// Checks that a file can be written into a folder and that its disk is not full.
pub(super) async fn writable(root: Arc<Path>, room: Room) -> Result<(), Error> {
    blocking(move || {
        room.check(0)?;
        // A file without a name: nothing to clean up, and nobody sees it.
        tempfile::tempfile_in(root)?.write_all(&[0])
    })
    .await
}
