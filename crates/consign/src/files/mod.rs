//! The file store: the bytes of files that tasks produced, below one folder or in an object store.
//!
//! A file comes in through [`Files::receive`] in one pass that counts, limits and hashes, and is published whole or
//! not at all. It never changes afterwards, and goes with its task.
//!
//! `folder/` and `bucket/` are the two kinds of place; everything above them is the same for both.

use std::io;
use std::path::Path;
use std::sync::Arc;

use connectors::store::Shown;
use connectors::{Digests, Source};

use crate::error::{Code, TaskError};
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File};

mod arriving;
mod bucket;
mod check;
mod folder;
mod hashing;
mod mark;
pub mod name;
mod probe;
mod receive;
mod scratch;
mod stream;

pub use arriving::{Arriving, Whole};
use bucket::Bucket;
pub use bucket::Settings as BucketSettings;
use check::Room;
use folder::Folder;
use scratch::Home;
pub use scratch::{Scratch, Writer};

/// The file store of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    place: Place,
    /// Of the disk that files are written to, be it to stay there.
    room: Room,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(Folder),
    Bucket(Arc<Bucket>),
}

/// How a file is best read from its first byte to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Bytes that are read at once.
    pub bytes: u64,
    /// Readings under way at once.
    pub ahead: usize,
    /// Bytes below which a reading costs more than it brings.
    pub least: u64,
}

/// Large enough that the pool of threads is not the bound, small enough for slow clients.
const STEPS_ON_DISK: Steps = Steps { bytes: 256 * 1024, ahead: 2, least: 16 * 1024 };
/// Four requests under way hide the time that each needs to be answered; a download costs 5 MiB of memory, and 512 KiB
/// where there are many.
const STEPS_IN_BUCKET: Steps = Steps { bytes: 1024 * 1024, ahead: 4, least: 256 * 1024 };

/// A second key for a kept file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The file's key.
    pub from: BlobKey,
    /// The key that it is to have as well.
    pub to: BlobKey,
    /// What its row says of its bytes: where they must be read and stored again, they are compared with it.
    pub digests: Digests,
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
    /// The object store that keeps the files cannot be reached, or refuses.
    #[error("the object store that keeps the files: {0}")]
    Store(#[source] connectors::Error),
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
        let folder = Folder::open(root).await?;
        Ok(Self { room: Room::on_disk(folder.root()), place: Place::Folder(folder) })
    }

    /// Opens a file store that any number of processes share, and sees that it answers. One that cannot be reached now is
    /// opened all the same.
    ///
    /// # Errors
    /// [`Error::Store`] when it refuses; [`Error::Disk`] when scratch files cannot be written.
    pub async fn in_bucket(settings: BucketSettings) -> Result<Self, Error> {
        let bucket = Arc::new(Bucket::open(settings).await?);
        Ok(Self { room: Room::on_disk(bucket.scratch_folder()), place: Place::Bucket(bucket) })
    }

    /// Checks that files can be kept: that the disk can be written and is not full, and that the object store answers and took
    /// an object lately.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`], [`Error::Store`].
    pub async fn ping(&self) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => check::writable(folder.root(), self.room.clone()).await,
            Place::Bucket(bucket) => bucket.ping(self.room.clone()).await,
        }
    }

    /// Checks that there is room for so many bytes, as far as anybody can tell now.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`].
    pub async fn check_room(&self, bytes: u64) -> Result<(), Error> {
        let room = self.room.clone();
        blocking(move || room.check(bytes)).await
    }

    /// Opens an empty file for bytes that do not come in order; [`Self::publish_scratch`] keeps them. Dropping it
    /// removes it.
    ///
    /// # Errors
    /// [`Error::Full`] and [`Error::Disk`].
    pub async fn scratch(&self, key: &BlobKey) -> Result<Scratch, Error> {
        match &self.place {
            Place::Folder(folder) => folder.scratch(key, self.room.clone()).await,
            Place::Bucket(bucket) => bucket.scratch(key, self.room.clone()).await,
        }
    }

    /// Hashes what a scratch file holds, makes it durable and publishes it under its key.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`] and [`Error::Store`]; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn publish_scratch(&self, scratch: Scratch) -> Result<Received, Error> {
        let received = hashing::of_file(scratch.file()).await?;
        self.publish(scratch, &received).await?;
        Ok(received)
    }

    /// The bytes of a kept file. In a folder it is held open: the bytes can be read even when it was removed meanwhile.
    ///
    /// # Errors
    /// [`Error::Disk`] when they are gone, or are not as many as they were; [`Error::Store`].
    pub async fn source(&self, key: &BlobKey, file: &File) -> Result<Arc<dyn Source>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.source(key, file).await,
            Place::Bucket(bucket) => bucket.source(key, file).await,
        }
    }

    /// The bytes of a kept file that may go while they are read: the file is opened for each reading, so that a task
    /// may have thousands of them. In a folder its length is looked at now.
    ///
    /// # Errors
    /// [`Error::Disk`] when they are gone, or are not as many as they were. In an object store, that is noticed by reading.
    pub async fn input(&self, key: &BlobKey, file: &File) -> Result<Arc<dyn Source>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.input(key, file).await,
            Place::Bucket(bucket) => Ok(bucket.input(key, file)),
        }
    }

    /// How a file is best read from its first byte to its last.
    pub fn steps(&self) -> Steps {
        match &self.place {
            Place::Folder(_) => STEPS_ON_DISK,
            Place::Bucket(_) => STEPS_IN_BUCKET,
        }
    }

    /// An address under which anybody may read a kept file for a while, if downloads are to go to the object store itself
    /// and it can sign one. Nothing is sent.
    ///
    /// # Errors
    /// [`Error::Store`] when a value cannot be part of an address.
    pub fn signed_link(&self, key: &BlobKey, shown: &Shown) -> Result<Option<String>, Error> {
        match &self.place {
            Place::Folder(_) => Ok(None),
            Place::Bucket(bucket) => bucket.signed_link(key, shown),
        }
    }

    /// Gives the bytes of one key a second key, without them coming here where that is possible.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`] and [`Error::Store`].
    pub async fn link(&self, from: &BlobKey, to: &BlobKey, digests: Digests) -> Result<(), Error> {
        self.link_all(vec![Link { from: from.clone(), to: to.clone(), digests }]).await
    }

    /// As [`Self::link`], for many: what takes time is done once a folder, or side by side.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`] and [`Error::Store`]; then none of them is left.
    pub async fn link_all(&self, links: Vec<Link>) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => folder.link_all(links, self.room.clone()).await,
            Place::Bucket(bucket) => bucket.link_all(&links, &self.room).await,
        }
    }

    /// Removes all files of a task. What is gone already counts as removed.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Store`].
    pub async fn remove_task(&self, task: TaskId) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => folder.remove(task.to_string()).await,
            Place::Bucket(bucket) => bucket.remove(task, None).await,
        }
    }

    /// Removes all files of one attempt. What is gone already counts as removed.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Store`].
    pub async fn remove_attempt(&self, task: TaskId, token: Token) -> Result<(), Error> {
        match &self.place {
            Place::Folder(folder) => folder.remove(format!("{task}/{:016x}", token.0)).await,
            Place::Bucket(bucket) => bucket.remove(task, Some(token)).await,
        }
    }

    /// The tasks that have files here, at most `limit` of them: those that sort right after `after`, in order. The file
    /// store does not know which of them are wanted: the runner compares them with the rows.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Store`].
    pub async fn list_tasks(&self, after: Option<TaskId>, limit: usize) -> Result<Vec<TaskId>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.list_tasks(after, limit).await,
            Place::Bucket(bucket) => bucket.list_tasks(after, limit).await,
        }
    }

    /// The attempts of a task that have files here, in no order.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Store`].
    pub async fn attempts(&self, task: TaskId) -> Result<Vec<Token>, Error> {
        match &self.place {
            Place::Folder(folder) => folder.attempts(task).await,
            Place::Bucket(bucket) => bucket.attempts(task).await,
        }
    }

    /// Aborts uploads to the object store that a crash cut off, and tells how many. Those of living processes stay.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn abort_abandoned(&self) -> Result<usize, Error> {
        match &self.place {
            Place::Folder(_) => Ok(0),
            Place::Bucket(bucket) => bucket.abort_abandoned().await,
        }
    }

    /// Makes a scratch file durable under its key.
    async fn publish(&self, scratch: Scratch, received: &Received) -> Result<(), Error> {
        match (&self.place, scratch.home) {
            (Place::Folder(_), Home::Folder { path, part }) => Folder::publish(scratch.file, path, part).await,
            (Place::Bucket(bucket), Home::Bucket(key)) => bucket.publish(&key, scratch.file, received).await,
            (Place::Folder(_), Home::Bucket(_)) | (Place::Bucket(_), Home::Folder { .. }) => {
                Err(Error::Disk(io::Error::other("a scratch file of another file store")))
            }
        }
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
            Error::Store(error) => {
                let message = "This server cannot use its file store at the moment; the task is tried again.";
                let retry = if error.is_transient() { error.retry } else { connectors::Retry::Later(None) };
                let mut told = Self::new(Code::Unavailable, message).because(error);
                told.retry = retry;
                told
            }
            Error::Stream(error) => error.into(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
