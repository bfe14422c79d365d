//! The file store: the bytes of files that tasks produced, below one folder.
//!
//! A file comes in through [`Files::receive`] in one pass that counts, limits and hashes, and is published whole or
//! not at all. It never changes afterwards, and goes with its task.
//!
//! On disk a file is `{root}/{task}/{token}/{number}`; while it is written it has `.part` behind its name and is
//! locked, so that a second process on the same folder can tell it from what a crash left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectors::{ByteStream, Digests, Kind, Progress, Source, WholeDigest};

use crate::error::{Code, TaskError};
use crate::id::TaskId;
use crate::model::{BlobKey, File};

pub mod check;
mod hashing;
mod local;
pub mod name;
mod source;
mod stream;
mod sweep;

use check::Room;
pub use local::{Scratch, Writer};

/// The file store of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    root: Arc<Path>,
    room: Room,
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
    Full(#[source] io::Error),
    /// The disk refused something else.
    #[error("the file store cannot be used")]
    Disk(#[source] io::Error),
    /// The bytes stopped coming.
    #[error(transparent)]
    Stream(connectors::Error),
}

impl Files {
    /// Opens the file store below `root`, which is made if need be, and clears away what a crash left half-written.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn open(root: &Path) -> Result<Self, Error> {
        let root: Arc<Path> = Arc::from(root);
        let folder = Arc::clone(&root);
        blocking(move || {
            local::make_root(&folder)?;
            sweep::clear_parts(&folder)
        })
        .await?;
        Ok(Self { room: Room::on_disk(Arc::clone(&root)), root })
    }

    /// Receives a file: counts, limits and hashes in one pass, syncs it to disk, publishes it under `key`.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn receive(
        &self,
        key: &BlobKey,
        stream: ByteStream,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
        progress: &Progress,
    ) -> Result<Received, Error> {
        self.receive_proven(key, stream, announced_bytes, limit_bytes, progress, None).await
    }

    /// As [`Self::receive`], and publishes only what has that digest, where one is known.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn receive_proven(
        &self,
        key: &BlobKey,
        stream: ByteStream,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
        progress: &Progress,
        digest: Option<&WholeDigest>,
    ) -> Result<Received, Error> {
        if announced_bytes.is_some_and(|announced| announced > limit_bytes) {
            return Err(Error::TooLarge { limit_bytes });
        }
        self.check_room(announced_bytes.unwrap_or(0)).await?;
        let scratch = self.scratch(key).await?;
        let received = stream::pour(stream, scratch.writer(), announced_bytes, limit_bytes, progress).await?;
        if digest.is_some_and(|digest| !digest.fits(&received.digests)) {
            let detail = "what arrived is not what the storage says it holds; it was altered on its way, or replaced";
            return Err(Error::Stream(connectors::Error::new(Kind::IntegrityMismatch, "receiving the file", detail)));
        }
        self.publish(scratch).await?;
        Ok(received)
    }

    /// Opens an empty file for bytes that do not come in order; [`Self::publish_scratch`] keeps them. Dropping it
    /// removes it.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`].
    pub async fn scratch(&self, key: &BlobKey) -> Result<Scratch, Error> {
        let (root, path, room) = (Arc::clone(&self.root), self.path(key), self.room.clone());
        blocking(move || {
            room.check(0)?;
            Scratch::create(&root, path, room)
        })
        .await
    }

    /// Hashes what a scratch file holds, syncs it to disk and publishes it under its key.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`]; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn publish_scratch(&self, scratch: Scratch) -> Result<Received, Error> {
        let received = hashing::of_file(scratch.file()).await?;
        self.publish(scratch).await?;
        Ok(received)
    }

    /// The bytes of a kept file, which is held open: they can be read even when it was removed meanwhile.
    ///
    /// # Errors
    /// [`Error::Disk`] when they are gone, or are not as many as they were.
    pub async fn source(&self, key: &BlobKey, file: &File) -> Result<Arc<dyn Source>, Error> {
        let path = self.path(key);
        let (size, digests) = (file.size, file.digests);
        blocking(move || source::LocalSource::open(&path, size, digests)).await
    }

    /// The bytes of a kept file that may go while they are read: the file is opened for each reading, so that a task
    /// may have thousands of them. Only its length is looked at now.
    ///
    /// # Errors
    /// [`Error::Disk`] when they are gone, or are not as many as they were.
    pub async fn input(&self, key: &BlobKey, file: &File) -> Result<Arc<dyn Source>, Error> {
        let path = self.path(key);
        let (size, digests) = (file.size, file.digests);
        blocking(move || source::ClosedSource::find(path, size, digests)).await
    }

    /// Gives the bytes of one key a second key, without copying them where the disk can do that.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`].
    pub async fn link(&self, from: &BlobKey, to: &BlobKey) -> Result<(), Error> {
        self.link_all(vec![(from.clone(), to.clone())]).await
    }

    /// As [`Self::link`], for many: what takes time is done once a folder.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`]; then none of them is left.
    pub async fn link_all(&self, pairs: Vec<(BlobKey, BlobKey)>) -> Result<(), Error> {
        let (root, room) = (Arc::clone(&self.root), self.room.clone());
        let pairs = pairs.iter().map(|(from, to)| (self.path(from), self.path(to))).collect();
        let links = blocking(move || local::link_all(&root, pairs, &room)).await?;
        links.into_iter().for_each(local::Unpublished::keep);
        Ok(())
    }

    /// Removes all files of a task. What is gone already counts as removed.
    ///
    /// # Errors
    /// [`Error::Disk`].
    pub async fn remove_task(&self, task: TaskId) -> Result<(), Error> {
        let folder = self.root.join(task.to_string());
        blocking(move || local::remove_folder(&folder)).await
    }

    /// Makes a scratch file durable under its final name.
    async fn publish(&self, scratch: Scratch) -> Result<(), Error> {
        // The guard comes back through the pool: if this future is dropped meanwhile, nobody takes it, and it
        // removes what was published.
        blocking(move || scratch.publish()).await?.keep();
        Ok(())
    }

    fn path(&self, key: &BlobKey) -> PathBuf {
        self.root.join(key.as_str())
    }
}

/// Runs what may block for long on the threads made for it.
async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(stopped) => Err(Error::Disk(io::Error::other(stopped))),
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            Self::Full(error)
        } else {
            Self::Disk(error)
        }
    }
}

impl From<Error> for TaskError {
    fn from(error: Error) -> Self {
        match error {
            Error::TooLarge { limit_bytes } => {
                Self::new(Code::FileTooLarge, format!("The file is larger than the {limit_bytes} bytes allowed here."))
            }
            Error::WrongLength { announced_bytes, received_bytes } => Self::new(
                Code::RemoteUnreachable,
                format!("The file did not come whole: {received_bytes} bytes of {announced_bytes}."),
            ),
            Error::Full(cause) => {
                Self::new(Code::StorageFull, "This server's disk is full; its operator must make room.").because(cause)
            }
            Error::Disk(cause) => {
                Self::new(Code::Internal, "The server could not read or write its own files; its log says why.")
                    .because(cause)
            }
            Error::Stream(error) => error.into(),
        }
    }
}

/// Syncs a folder, so that the names in it survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
