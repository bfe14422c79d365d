//! The file store: the bytes of files that tasks produced, below one folder.
//!
//! A file comes in through [`Files::receive`] in one pass that counts, limits and hashes, and is published whole or
//! not at all. It never changes afterwards, and goes with its task.

use std::path::Path;
use std::sync::Arc;

use connectors::{ByteStream, Digests, Progress, Source};

use crate::id::TaskId;
use crate::model::{BlobKey, File};

/// The file store of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    root: Arc<Path>,
}

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Length in bytes.
    pub size: u64,
    /// Digests of the bytes.
    pub digests: Digests,
}

/// Why a file could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is longer than allowed.
    #[error("the file is longer than {limit_bytes} bytes")]
    TooLarge {
        /// Longest file that is allowed.
        limit_bytes: u64,
    },
    /// It is shorter or longer than was announced.
    #[error("{received_bytes} bytes came where {announced_bytes} were announced")]
    WrongLength {
        /// What was announced.
        announced_bytes: u64,
        /// What came.
        received_bytes: u64,
    },
    /// The disk is full.
    #[error("the disk is full")]
    Full(#[source] std::io::Error),
    /// The disk refused something else.
    #[error("the file store cannot be used")]
    Disk(#[source] std::io::Error),
    /// The bytes stopped coming.
    #[error(transparent)]
    Stream(connectors::Error),
}

impl Files {
    /// Opens the file store below `root`, which is made if need be, and clears away what a crash left half-written.
    ///
    /// # Errors
    /// [`Error::Disk`].
    #[expect(clippy::unused_async, reason = "filled in next")]
    pub async fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: Arc::from(root) })
    }

    /// Receives a file: counts, limits and hashes in one pass, syncs it to disk, publishes it under `key`.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    #[expect(clippy::unused_async, reason = "filled in next")]
    pub async fn receive(
        &self,
        _key: &BlobKey,
        _stream: ByteStream,
        _announced_bytes: Option<u64>,
        limit_bytes: u64,
        _progress: &Progress,
    ) -> Result<Received, Error> {
        Err(Error::TooLarge { limit_bytes })
    }

    /// The bytes of a kept file.
    ///
    /// # Errors
    /// [`Error::Disk`] when they are gone.
    #[expect(clippy::unused_async, reason = "filled in next")]
    pub async fn source(&self, _key: &BlobKey, _file: &File) -> Result<Arc<dyn Source>, Error> {
        Err(Error::TooLarge { limit_bytes: 0 })
    }

    /// Gives the bytes of one key a second key, without copying them.
    ///
    /// # Errors
    /// [`Error::Disk`].
    #[expect(clippy::unused_async, reason = "filled in next")]
    pub async fn link(&self, _from: &BlobKey, _to: &BlobKey) -> Result<(), Error> {
        Ok(())
    }

    /// Removes all files of a task. What is gone already counts as removed.
    ///
    /// # Errors
    /// [`Error::Disk`].
    #[expect(clippy::unused_async, reason = "filled in next")]
    pub async fn remove_task(&self, _task: TaskId) -> Result<(), Error> {
        Ok(())
    }
}
