//! An object store as the place of files, reached through the connectors' own clients and shared by any number of
//! processes.
//!
//! A file is the object `{prefix}{task}/{token}/{number}`. Nothing is there under its name before all of it is: the
//! storages publish an object with its last request (`PutObject`, `CompleteMultipartUpload`, `Put Block List`, the last
//! chunk of a session).
//!
//! A file that comes in is written to a scratch file of this machine first, and sent when it is whole. All connectors
//! want its length and digests before the first byte: Azure for the names of its blocks, Google for the checksum that it
//! insists on, all of them to send a part again that was lost, and the caller to refuse what is not what was announced
//! before anybody stores it. The scratch file has no name, so that a crash leaves nothing; it is bounded by the longest
//! file that is allowed and by the room that the disk has, and as a rule it never leaves the page cache.
//!
//! What an upload left that a crash cut off is aborted by [`Bucket::abort_abandoned`] when it is older than any upload that
//! lives. Azure and Google forget theirs after a week. A lifecycle rule of the bucket is a good second net.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectors::store::{Ask, ObjectStore, Page, Shown};
use connectors::{Budget, Kind, Limits, Source};
use tokio::sync::watch;
use tokio::time::Instant;

use super::check::Room;
use super::scratch::{Home, Scratch};
use super::{Error, blocking, check};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File};

mod list;
mod publish;
mod small;
mod source;
mod uploads;

/// How long it holds that an object could be written: whoever asks every second must not make a write every second. After a
/// failure it is tried whenever somebody asks. Tests have less patience.
const WRITTEN_KEPT: Duration = if cfg!(test) { Duration::from_secs(2) } else { Duration::from_secs(30) };

/// An object store that keeps files, and how it is used.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The bucket.
    pub store: Arc<dyn ObjectStore>,
    /// In front of all names; empty, or with a slash at its end.
    pub prefix: String,
    /// Folder for scratch files.
    pub scratch: Arc<Path>,
    /// Memory for the parts of what is sent and read.
    pub memory: Budget,
    /// Parts of what is read, and tries of one request.
    pub limits: Limits,
    /// Uploads that were opened longer ago are nobody's: longer than any upload of a process of the fleet takes.
    pub abandoned_after: Duration,
    /// Whether downloads may go to the object store itself, where it can sign links.
    pub redirects: bool,
}

/// The object store of a process.
#[derive(Debug)]
pub(super) struct Bucket {
    settings: Settings,
    /// Whether it was said that the credentials may not clear uploads away.
    has_warned: AtomicBool,
    /// Where the last listing of tasks stopped.
    listing: Mutex<Option<list::Listing>>,
    /// The object of this process that is written to see whether that can be done. Its task has no row, so that a search
    /// removes what a process that ends leaves of it.
    probe: BlobKey,
    /// When that went well.
    written: tokio::sync::Mutex<Option<Instant>>,
}

impl Bucket {
    /// Opens it: makes the folder for scratch files, and sees that the bucket answers. Where it cannot be reached now, that
    /// is no reason not to start.
    pub(super) async fn open(settings: Settings) -> Result<Self, Error> {
        let folder = Arc::clone(&settings.scratch);
        blocking(move || DirBuilder::new().recursive(true).mode(0o700).create(folder)).await?;
        let probe = BlobKey::new(TaskId::new(Timestamp(0)), Token::random(), 1);
        let bucket = Self {
            settings,
            has_warned: AtomicBool::default(),
            listing: Mutex::default(),
            probe,
            written: tokio::sync::Mutex::default(),
        };
        match bucket.ask().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "the file store does not answer yet");
                Ok(bucket)
            }
            other => other.map(|_| bucket).map_err(Error::Store),
        }
    }

    /// Checks that the bucket answers, that it took an object lately, and that scratch files can be written.
    pub(super) async fn ping(&self, room: Room) -> Result<(), Error> {
        check::writable(Arc::clone(&self.settings.scratch), room).await?;
        self.ask().await?;
        // Held meanwhile, so that one writes and the others wait for what comes of it.
        let mut written = self.written.lock().await;
        if written.is_none_or(|at| at.elapsed() >= WRITTEN_KEPT) {
            *written = None;
            self.come_and_go(&self.name(&self.probe)).await?;
            *written = Some(Instant::now());
        }
        Ok(())
    }

    async fn ask(&self) -> connectors::Result<Page> {
        self.settings.store.page(&Ask { prefix: self.settings.prefix.clone(), limit: 1, ..Ask::default() }).await
    }

    pub(super) fn scratch_folder(&self) -> Arc<Path> {
        Arc::clone(&self.settings.scratch)
    }

    /// Opens an empty file that is to have this key.
    pub(super) async fn scratch(&self, key: &BlobKey, room: Room) -> Result<Scratch, Error> {
        let (folder, home) = (self.scratch_folder(), Home::Bucket(key.clone()));
        blocking(move || {
            room.check(0)?;
            let file = Arc::new(tempfile::tempfile_in(folder)?);
            Ok(Scratch { file, room, home, arrived: watch::Sender::default() })
        })
        .await
    }

    /// A kept file. It can be read by any process as long as it is kept, however many hold it.
    pub(super) async fn source(&self, key: &BlobKey, file: &File) -> Result<Arc<dyn Source>, Error> {
        let object = self.settings.store.stat(&self.name(key)).await?;
        if object.size != file.size {
            let text = format!("a kept file has {} bytes instead of {}", object.size, file.size);
            return Err(Error::Disk(io::Error::other(text)));
        }
        Ok(self.input(key, file))
    }

    /// The same without a look at it, which would be a request for each of thousands: what is not as its row says fails when
    /// it is read.
    pub(super) fn input(&self, key: &BlobKey, file: &File) -> Arc<dyn Source> {
        let Settings { store, limits, .. } = &self.settings;
        Arc::new(source::BucketSource::new(Arc::clone(store), self.name(key), file, limits.tries))
    }

    /// An address of a kept file for anybody, where downloads may go there.
    pub(super) fn signed_link(&self, key: &BlobKey, shown: &Shown) -> Result<Option<String>, Error> {
        if !self.settings.redirects {
            return Ok(None);
        }
        Ok(self.settings.store.signed_link(&self.name(key), shown)?)
    }

    fn name(&self, key: &BlobKey) -> String {
        format!("{}{key}", self.settings.prefix)
    }

    fn below(&self, task: TaskId, token: Option<Token>) -> String {
        let prefix = &self.settings.prefix;
        token.map_or_else(|| format!("{prefix}{task}/"), |token| format!("{prefix}{task}/{:016x}/", token.0))
    }
}

impl From<connectors::Error> for Error {
    fn from(error: connectors::Error) -> Self {
        match error.kind {
            Kind::NoSpace => Self::Full(io::Error::new(io::ErrorKind::StorageFull, error)),
            Kind::NotFound => Self::Disk(io::Error::new(io::ErrorKind::NotFound, error)),
            Kind::Local => Self::Disk(io::Error::other(error)),
            Kind::HostNotAllowed
            | Kind::HostNotFound
            | Kind::Unreachable
            | Kind::TlsRefused
            | Kind::HostKeyMismatch
            | Kind::Timeout
            | Kind::InvalidCredentials
            | Kind::AccessDenied
            | Kind::ContainerNotFound
            | Kind::InvalidRequest
            | Kind::TooLarge
            | Kind::TooMany
            | Kind::Throttled
            | Kind::Unavailable
            | Kind::IntegrityMismatch
            | Kind::Protocol
            | Kind::Unsupported => Self::Store(error),
        }
    }
}
